"""What the measures during training cost: the default `onelayer grok` with and without them, in turns.

Each turn trains one run of either kind, in an order that changes from turn to turn, to the same step. A turn gives one
ratio of the two times; the median over the turns is the figure, by the clock and in processor time (which other
programs on the machine disturb less). `--plain` takes the definitions in NumPy instead of the fused kernels.

    python benchmarks/measures_overhead.py --turns 5 --steps 390
    python benchmarks/measures_overhead.py --turns 5 --steps 390 --plain
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from onelayer import kernels
from onelayer.grokking.probe import prepare
from onelayer.training import configure, recipes, train


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of measures during training")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=390)
    parser.add_argument("--recipe", default="default", choices=recipes.RECIPES)
    parser.add_argument("--plain", action="store_true")
    chosen = parser.parse_args()
    if chosen.plain:
        kernels.available.cache_clear()
        kernels.find_spec = lambda name: None
    clock, processor, inside = [], [], []
    for turn in range(-1, chosen.turns):  # the first one warms up
        times: dict[str, tuple[float, float]] = {}
        for kind in ("none", "progress") if turn % 2 else ("progress", "none"):
            changes = {"steps": 30 if turn < 0 else chosen.steps, "evaluation": {"measures": kind}}
            config = configure(chosen.recipe, changes, {"stop": {"on": "none"}})
            with tempfile.TemporaryDirectory() as out:
                begun, busy = time.perf_counter(), time.process_time()
                result = train(config, Path(out) / "run", probe=prepare)
                times[kind] = time.perf_counter() - begun, time.process_time() - busy
            if kind == "progress":
                inside.append(result.measuring / (result.seconds - result.measuring))
        if turn >= 0:
            clock.append(times["progress"][0] / times["none"][0] - 1)
            processor.append(times["progress"][1] / times["none"][1] - 1)
    shown = {"clock": clock, "processor": processor, "within the measured run": inside[1:]}
    told = {name: {"median": float(np.median(x)), "least": min(x), "most": max(x)} for name, x in shown.items()}
    print(
        json.dumps(
            {"recipe": chosen.recipe, "steps": chosen.steps, "turns": chosen.turns, "plain": chosen.plain, **told}
        )
    )


if __name__ == "__main__":
    main()
