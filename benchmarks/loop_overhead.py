"""What evaluations, metrics and checkpoints add to the bare steps of a run.

    python benchmarks/loop_overhead.py --turns 5 --steps 400

In each turn the same steps are taken twice: by the engine alone, and by `train` with the recipe's evaluations and
checkpoints, in an order that changes from turn to turn. A turn gives one ratio; the median over the turns is the
figure, by the clock and in processor time (which other programs on the machine disturb less; flushing to the disk is
not in it).
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onelayer.training import configure, engines, recipes, train


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--turns", type=int, default=5)
    options.add_argument("--recipe", default="default", choices=recipes.RECIPES)
    given = options.parse_args()
    config = configure(given.recipe, {"steps": given.steps, "stop": {"on": "none"}})
    engine = engines.get(config.engine)(config, config.task.make(config.seed))
    engine.evaluate(engine.run(engine.start(), 0, 3)[0])  # what is compiled is compiled

    def bare() -> Any:
        engine = engines.get(config.engine)(config, config.task.make(config.seed))
        return engine.run(engine.start(), 0, given.steps)

    def whole() -> Any:
        with tempfile.TemporaryDirectory() as directory:
            return train(config, Path(directory) / "run")

    turns = []
    for turn in range(given.turns):
        took = {what: timed(what) for what in ((bare, whole), (whole, bare))[turn % 2]}
        turns.append([more / alone - 1 for more, alone in zip(took[whole], took[bare], strict=True)])
        print(f"turn {turn + 1}: {turns[-1][0]:.1%} by the clock, {turns[-1][1]:.1%} in processor time", flush=True)
    for name, ratios in zip(("by the clock", "in processor time"), np.transpose(turns), strict=True):
        print(f"{given.recipe}: {np.median(ratios):.1%} more {name} ({ratios.min():.1%} to {ratios.max():.1%})")


def timed(what: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    what()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
