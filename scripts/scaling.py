"""How a step's cost grows with p, width, length, layers, batch and ensemble size: measured points, fitted exponents.

Processor seconds on one thread, so that other work on the machine matters little; the least of several turns.

    OMP_NUM_THREADS=1 XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \\
        python scripts/scaling.py          # docs/experiments/scaling.json, .png and .md
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from onelayer import kernels
from onelayer.arrays import generator, map_tree
from onelayer.bench import ours
from onelayer.fused import using
from onelayer.sublayers import attention_blocked, attention_rows
from onelayer.tasks import Batch
from onelayer.training import ensemble, recipes
from onelayer.training import step as steps
from onelayer.training.engines.memory import keep_freed_memory
from onelayer.training.objective import Objective

HERE = Path(__file__).parent.parent / "docs" / "experiments"
TURNS = 7
WORDS = {
    "p": "modulus p, all of 30 % of p² pairs a step",
    "width": "width D, feed-forward 4 D, 3,830 pairs",
    "batch": "pairs in a step",
    "layers": "layers, 32 sequences of 64 tokens",
    "length": "tokens in one sequence, one layer",
    "ensemble": "members, p = 31, width 64 (JAX)",
}


def least(do: Callable[[], Any]) -> float:
    do()
    times = []
    for _ in range(TURNS):
        started = time.process_time()
        do()
        times.append(time.process_time() - started)
    return min(times)


def step(objective: Objective, batch: Batch) -> Callable[[], Any]:
    rules = steps.make_rules(recipes.configure("default"))
    state = steps.start(objective, rules, 0, "float32")
    stand_ins = kernels.available(), attention_rows.STAND_INS, attention_blocked.STAND_INS

    def do() -> None:
        with using(*stand_ins):
            steps.take(state, batch, 0, objective, rules)

    return do


def grokking(p: int = 113, width: int = 128, pairs: int | None = None) -> Callable[[], Any]:
    config = recipes.configure("default", {"task": {"p": p}, "model": {"d_model": width, "d_mlp": 4 * width}})
    task = config.task.make(0)
    whole = Batch(*(np.concatenate(both) for both in zip(task.train[:2], task.test[:2], strict=True)))
    some = generator(0, "scaling").permutation(len(whole.tokens))[: pairs or len(task.train.tokens)]
    return step(steps.make_objective(config, task), map_tree(lambda a: a[some], whole))


def language(layers: int = 1, length: int = 64, batch: int = 32) -> Callable[[], Any]:
    config = recipes.configure("default", {"model": {"n_layers": layers, "norm": "pre", "activation": "gelu"}})
    model = config.model.build(vocab_size=65, n_ctx=length)
    tokens, targets = (ours.tokens(65, batch, length, name=name) for name in ("tokens", "targets"))
    return step(Objective(model, length), Batch(tokens, targets))


def members(n: int) -> Callable[[], Any]:
    small = {"task": {"p": 31}, "model": {"d_model": 64, "d_mlp": 256}, "engine": "jax"}
    program = ensemble._Program(ensemble.members(recipes.configure("default", small), n))
    jax, jnp = program.jax, program.jnp
    train = program._all(program._steps, lambda own, step, n: (own.state, jnp.asarray(True)))
    active = jnp.ones(n, bool)
    return lambda: jax.block_until_ready(train(program.numbers, active, 0, 4))


POINTS: dict[str, tuple[tuple[int, ...], Callable[[int], Callable[[], Any]]]] = {
    "p": ((47, 67, 97, 139, 199), lambda p: grokking(p=p)),
    "width": ((32, 64, 128, 256, 512), lambda width: grokking(width=width)),
    "batch": ((500, 1000, 2000, 4000, 8000), lambda pairs: grokking(pairs=pairs)),
    "layers": ((1, 2, 4, 8), lambda layers: language(layers=layers)),
    "length": ((512, 1024, 2048, 4096), lambda length: language(length=length, batch=1)),
    "ensemble": ((1, 4, 16, 64), members),
}


def measure() -> Iterator[tuple[str, list[tuple[int, float]]]]:
    keep_freed_memory()
    for name, (values, make) in POINTS.items():
        points = [(value, least(make(value))) for value in values]
        print(name, [(v, f"{1e3 * s:.1f} ms") for v, s in points], flush=True)
        yield name, points


def exponent(points: list[tuple[int, float]]) -> float:
    x, y = np.log(np.array(points)).T
    return float(np.polyfit(x, y, 1)[0])


def draw(found: dict[str, list[tuple[int, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
    for axis, (name, points) in zip(axes.flat, found.items(), strict=True):
        x, y = np.array(points).T
        slope = exponent(points)
        axis.loglog(x, 1e3 * y, "o")
        axis.loglog(x, 1e3 * np.exp(np.mean(np.log(y))) * (x / np.exp(np.mean(np.log(x)))) ** slope, "--")
        axis.set(title=f"exponent {slope:.2f}", xlabel=WORDS[name], ylabel="ms")
        axis.set_xticks(x, [f"{int(v):,}" for v in x])
        axis.minorticks_off()
    figure.savefig(path, dpi=110)


def page(found: dict[str, list[tuple[int, float]]]) -> str:
    rows = "\n".join(
        f"| {WORDS[name]} | {' · '.join(f'{v:,}: {1e3 * s:.1f}' for v, s in points)} | {exponent(points):.2f} |"
        for name, points in found.items()
    )
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        processor = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    versions = ", ".join(f"{name} {version(name)}" for name in ("onelayer", "numpy", "numba", "jax"))
    return f"""# How a step's cost grows

Processor time of one training step on one thread, in ms: the least of {TURNS}. NumPy with kernels, the ensemble in JAX
(four steps of all its members). An exponent is the slope of a straight line through the logarithms.

| grows | ms | exponent |
| --- | --- | --- |
{rows}

![each against its cost, both axes logarithmic](scaling.png)

The pairs are 0.3 p², so a step's cost would grow as p² if nothing else hung on p; but neurons to logits is a product
as wide as p. (Beyond p = 290 that is more than W_out and W_U one after the other, and circuits are not multiplied out.)
In the width the circuits' products grow as D and the tables' as D². Length: products grow as T, attention as T², and at
these lengths neither has the upper hand.

```sh
export XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
OMP_NUM_THREADS=1 python scripts/scaling.py
```

Machine: {processor}, {os.cpu_count()} cores, shared with other work; Python {platform.python_version()}, {versions}.
Raw figures: [scaling.json](scaling.json).
"""


if __name__ == "__main__":
    found = dict(measure())
    (HERE / "scaling.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found, HERE / "scaling.png")
    (HERE / "scaling.md").write_text(page(found), encoding="utf-8")
