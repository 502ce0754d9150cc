"""What a position costs: the time of a training step with each method over that of the same step with none.

    python benchmarks/positions.py                     all methods, table on standard output
    python benchmarks/positions.py rope alibi t5       these alone
    python benchmarks/positions.py --engine jax        compiled

A step is loss, gradient and AdamW in float32, one layer, every position read. In each round all methods take one step
each, in a new order; the ratio is the median over rounds of a method's time over that of `none` in the same round, so
that a busy moment of the machine does not fall on one of them.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

from onelayer import positions
from onelayer.arrays import generator, map_tree
from onelayer.tasks import Batch
from onelayer.training import config as configs
from onelayer.training import step as steps
from onelayer.training.engines.memory import keep_freed_memory
from onelayer.training.objective import Objective

BOUNDS = {"rope": 1.15, "alibi": 1.1, "t5": 1.1, "fire": 1.5, "cope": 2.0}


def stepper(position: str, arguments: argparse.Namespace) -> Callable[[], float]:
    """A function that takes one step and says how many seconds it took."""
    model = {
        "position": position, "position_settings": positions.fitted(position, arguments.context),
        "d_model": arguments.width, "d_mlp": 4 * arguments.width, "n_heads": arguments.heads, "norm": "pre",
    }  # fmt: skip
    config = configs.resolve({"model": model, "dtype": "float32", "engine": arguments.engine})
    vocabulary = 64
    objective = Objective(config.model.build(vocab_size=vocabulary, n_ctx=arguments.context), arguments.context)
    rules = steps.make_rules(config)
    state = steps.start(objective, rules, 0, "float32")
    shape = (arguments.batch, arguments.context)
    tokens, targets = (generator(0, "benchmark", name).integers(0, vocabulary, shape) for name in ("x", "y"))
    batch = Batch(tokens, targets, None)

    if arguments.engine == "jax":
        import jax

        state, batch = map_tree(jax.numpy.asarray, (state, batch))
        compiled = jax.jit(lambda s, b: steps.take(s, b, 0, objective, rules)[0])

        def step() -> float:
            begin = time.perf_counter()
            jax.block_until_ready(compiled(state, batch))
            return time.perf_counter() - begin
    else:

        def step() -> float:
            begin = time.perf_counter()
            steps.take(state, batch, 0, objective, rules)
            return time.perf_counter() - begin

    step()
    step()
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=positions.available())
    parser.add_argument("--engine", choices=("numpy", "jax"), default="numpy")
    for name, value in (("width", 128), ("context", 256), ("heads", 4), ("batch", 8), ("rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()

    keep_freed_memory()  # as the NumPy engine does
    names = ["none", *(name for name in arguments.methods if name != "none")]
    step = {name: stepper(name, arguments) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    rng = np.random.default_rng(0)
    for _ in range(arguments.rounds):
        for name in rng.permutation(names):
            times[name].append(step[name]())

    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS={threads}, NumPy {np.__version__}, "
          f"Python {platform.python_version()}; engine {arguments.engine}, width {arguments.width}, "
          f"context {arguments.context}, {arguments.heads} heads, batch {arguments.batch}, "
          f"{arguments.rounds} rounds\n")  # fmt: skip
    print("| method | ms a step | times none | quartiles | bound |")
    print("| --- | --- | --- | --- | --- |")
    for name in names:
        ratios = [a / b for a, b in zip(times[name], times["none"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        bound = BOUNDS.get(name)
        print(f"| {name} | {1e3 * statistics.median(times[name]):.1f} | {middle:.2f} | {low:.2f} to {high:.2f} | "
              f"{'' if bound is None else bound} |")  # fmt: skip


if __name__ == "__main__":
    main()
