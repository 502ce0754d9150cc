"""The curvature of a small grokking run: the ends of the spectrum, its sum, and two directions, over training.

    python scripts/curvature_of_a_small_run.py [--steps 900]

The run of scripts/ledger_of_a_small_run.py. Its table stands in docs/microscope/curvature.md.
"""

import argparse
from itertools import pairwise

import numpy as np
from ledger_of_a_small_run import CONFIG

from onelayer.arrays import flatten
from onelayer.microscope.curvature import Follow, density, linearise
from onelayer.training.config import resolve
from onelayer.training.engines.numpy_engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900)
    steps = parser.parse_args().steps
    config = resolve(CONFIG)
    task = config.task.make(config.seed)
    engine = Engine(config, task)
    wanted = {0, 10, 30, steps // 10, steps // 3, steps - 1}
    engine.watch = follow = Follow(engine.objective, every=lambda step: step in wanted)
    state, _ = engine.run(engine.start(), 0, steps)
    columns = ("step", "loss", "top", "bottom", "trace", "trace_error", "along_gradient", "along_update")
    print("| " + " | ".join(columns) + " |")
    for record in follow.records:
        print("| " + " | ".join(f"{record[name]:.3g}" for name in columns) + " |")
    at = linearise(state.params, task.train, engine.objective.model)
    spectrum = density(at, probes=3, steps=50)
    n = sum(x.size for x in flatten(state.params).values())
    edges = np.array([-1, -1e-2, -1e-4, 1e-4, 1e-2, 1]) * np.max(np.abs(spectrum.nodes))
    print(f"\nof {n} eigenvalues at the end, by size against the largest:")
    for low, high in pairwise(edges):
        share = spectrum.mean(lambda x, low=low, high=high: (x > low) & (x <= high))
        print(f"  {low:+.1e} to {high:+.1e}: {share:.4f}")


if __name__ == "__main__":
    main()
