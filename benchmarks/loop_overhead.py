"""What evaluations, metrics and checkpoints add to the bare steps of a run, in processor time.

    python benchmarks/loop_overhead.py --steps 400

The same steps are taken twice in turn: by the engine alone, and by `train` with the default recipe's evaluations and
checkpoints. Processor time, not the clock's, so that a busy machine does not decide; flushing to the disk is not in it.
"""

import argparse
import tempfile
import time
from pathlib import Path

from onelayer.training import configure, engines, train


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--recipe", default="default")
    given = options.parse_args()
    config = configure(given.recipe, {"steps": given.steps, "stop": {"on": "none"}})
    task = config.task.make(config.seed)
    engine = engines.get(config.engine)(config, task)
    state = engine.start()
    engine.run(state, 0, 3)  # what is compiled is compiled
    engine.evaluate(state)

    begun = time.process_time()
    engine.run(engine.start(), 0, given.steps)
    bare = time.process_time() - begun
    with tempfile.TemporaryDirectory() as directory:
        begun = time.process_time()
        train(config, Path(directory) / "run")
        whole = time.process_time() - begun
    more = 100 * (whole / bare - 1)
    print(f"{given.steps} steps of {given.recipe}: bare {bare:.2f} s, in a run {whole:.2f} s, {more:.1f} % more")


if __name__ == "__main__":
    main()
