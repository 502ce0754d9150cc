"""What the microscope costs, in gradients: trace, provenance and ghost norms beside the plain gradient, interleaved.

    python benchmarks/microscope.py [--rounds 15] [--json]

One layer, p = 113, the full batch of 3,830 examples, float64, NumPy: the default model of `onelayer grok`. In every
round each measurement runs once, in turn, so that a busy machine slows all alike; told is the median, over the rounds,
of its time over the gradient's. `read 1` is the task as it is (the loss at `=` alone); `read 3` asks for a loss at all
positions, where provenance has three tokens to tell apart. Provenance and norms are counted with their trace.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from onelayer.layers import cross_entropy
from onelayer.microscope import per_example, splits, trace
from onelayer.microscope.gates import backward, forward
from onelayer.models import decoder_only
from onelayer.models.config import ModelConfig
from onelayer.tasks import Batch, make
from onelayer.training.config import resolve
from onelayer.training.engines.memory import keep_freed_memory

BOUNDS = {"trace": 1.5, "loss token × head, all attention weights": 3.0, "ghost norms, all weights": 1.5}
ATTENTION = ["blocks.*.attn.W_?"]


def gradient(params: Any, batch: Batch, cfg: ModelConfig) -> Any:
    """The plain gradient: what everything else is measured in."""
    logits, cache = forward(params, batch, cfg)
    _, c = cross_entropy.forward(logits, batch.targets, batch.weights)
    return backward(cross_entropy.backward(c), cache, cfg)


def measured(batch: Batch, cfg: ModelConfig, rounds: int) -> dict[str, float]:
    """Median seconds of the gradient, and of the rest in gradients."""
    params = decoder_only.init(cfg, seed=0)

    def provenance() -> None:
        splits(trace(params, batch, cfg), ATTENTION, ("loss_token", "head"))

    def ghost() -> None:
        t = trace(params, batch, cfg)
        for name in t.weights:
            per_example.norms(t, name)

    runs: dict[str, Callable[[], Any]] = {
        "gradient": lambda: gradient(params, batch, cfg),
        "trace": lambda: trace(params, batch, cfg),
        "loss token × head, all attention weights": provenance,
        "ghost norms, all weights": ghost,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):  # the first round warms up
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - begun)
    plain = seconds.pop("gradient")
    ratios = {name: median(a / b for a, b in zip(s, plain, strict=True)) for name, s in seconds.items()}
    return {"gradient_seconds": median(plain)} | ratios


def measure(rounds: int = 15) -> dict[str, dict[str, float]]:
    task = make("arithmetic", operation="x + y", p=113, train_fraction=0.3, seed=0)
    cfg = resolve({}).model.build(vocab_size=len(task.vocabulary), n_ctx=task.n_ctx)
    tokens = task.train.tokens
    everywhere = Batch(tokens, np.concatenate([tokens[:, 1:], task.train.targets], axis=1))
    return {"read 1": measured(task.train, cfg, rounds), "read 3": measured(everywhere, cfg, rounds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()  # as the training engine does: fresh pages cost as much as the arithmetic
    found = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
        return
    for setting, figures in found.items():
        print(f"{setting}: a gradient takes {figures['gradient_seconds'] * 1e3:.0f} ms")
        for name, bound in BOUNDS.items():
            verdict = "within" if figures[name] <= bound else "over"
            print(f"  {name:<42} {figures[name]:5.2f} gradients, {verdict} {bound}")


if __name__ == "__main__":
    main()
