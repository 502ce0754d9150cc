"""A run as the loop leaves it, made in a moment: true task, true weights (untrained), invented curves."""

from pathlib import Path

import numpy as np

from onelayer.arrays import flatten
from onelayer.training import checkpoint, run_directory
from onelayer.training.config import RunConfig, resolve
from onelayer.training.metrics import MetricsLog
from onelayer.training.objective import init
from onelayer.training.step import make_objective

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def rise(steps: np.ndarray, middle: float) -> np.ndarray:
    """From 0 to 1 around the step `middle`."""
    return 1 / (1 + (middle / np.maximum(steps, 0.5)) ** 6)


def curves() -> dict[str, np.ndarray]:
    """Memorises at step 16 (0.994), generalises at 256, keeps both."""
    steps = np.array(STEPS)
    train, test = rise(steps, 6.5), rise(steps, 110)
    return {
        "step": steps, "train_loss": 3 * (1 - train) + 1e-7, "test_loss": 4 * (1 - test) + 1e-5,
        "train_accuracy": train, "test_accuracy": test, "mirror_free_accuracy": 0.98 * test,
        "weight_norm": 30 - 12 * test,
    }  # fmt: skip


def config(**changes) -> RunConfig:
    model = {"d_model": 16, "n_heads": 2, "d_mlp": 24} | changes.pop("model", {})
    return resolve({"task": {"name": "arithmetic", "operation": "x + y", "p": 11}, "model": model} | changes)


def make(path: Path, cfg: RunConfig | None = None, steps: tuple[int, ...] = (0, 8, 512)) -> Path:
    """A run in `path`, with checkpoints at `steps`."""
    cfg = config() if cfg is None else cfg
    shape = make_objective(cfg, cfg.task.make(cfg.seed)).model
    with run_directory.create(path, cfg), MetricsLog(path / "metrics.jsonl") as log:
        columns = curves()
        for row in zip(*columns.values(), strict=True):
            log.append(dict(zip(columns, (int(row[0]), *map(float, row[1:])), strict=True)))
        for step in steps:
            weights = flatten(init(shape, seed=step))
            checkpoint.save(path / "checkpoints", step, weights, {"count": np.array(step)}, {})
    return path
