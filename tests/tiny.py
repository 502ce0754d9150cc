"""Runs small enough for a test: a fifth of a second each."""

import hashlib
from pathlib import Path
from typing import Any

from onelayer.training import RunConfig, configure
from onelayer.training.checkpoint import steps

TINY: dict[str, Any] = {
    "task": {"p": 7, "train_fraction": 0.5},
    "model": {"d_model": 8, "n_heads": 2, "d_mlp": 12},
    "steps": 40,
    "evaluation": {"every": 5},
    "checkpoint": {"every": 10, "pinned": "none"},
    "stop": {"on": "none"},
}


def tiny(*changes: dict[str, Any], recipe: str = "default") -> RunConfig:
    return configure(recipe, TINY, *changes)


def last_checkpoint(run: Path) -> Path:
    return run / "checkpoints" / f"step-{steps(run / 'checkpoints')[-1]}"


def fingerprint(run: Path) -> str:
    """SHA-256 of what a run came to: the last parameters, the optimizer's arrays, every measurement."""
    last = last_checkpoint(run)
    digest = hashlib.sha256(last.name.encode())
    for path in (last / "model.safetensors", last / "optimizer.safetensors", run / "metrics.jsonl"):
        digest.update(path.read_bytes())
    return digest.hexdigest()
