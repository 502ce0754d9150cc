"""Kill runs with SIGKILL at random moments, resume them, and compare what they come to with a run left in peace.

    python scripts/kill_test.py --kills 20
    python scripts/kill_test.py --kills 20 --task words       # a run of strings, in batches of like lengths

Every trial is a run of its own: trained in a process that is killed at a random moment, resumed to its end, and hashed
(SHA-256 of the last parameters; beside it of the optimizer's arrays and of metrics.jsonl). With 0 failures in n trials
the chance of one is below 3/n with 95 % confidence. Exits 1 if any differs.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from numpy.random import Generator

from onelayer.arrays import generator
from onelayer.training import Run, configure, train

COMMON = {"model": {"d_model": 16, "n_heads": 2, "d_mlp": 32}, "stop": {"on": "none"}}
SMALL = {
    "numbers": {"task": {"p": 11, "train_fraction": 0.6}, "evaluation": {"every": 10}, "checkpoint": {"every": 20}},
    "words": {
        "task": {"name": "reverse", "vocabulary": 5, "longest": 6, "longer": 6, "n_train": 2000, "n_valid": 50,
                 "n_test": 50},
        "batch_tokens": 256, "evaluation": {"every": 20, "train_examples": 50},
        "checkpoint": {"every": 20, "keep": 3, "average": 3},
    },
}  # fmt: skip
FILES = ("model.safetensors", "optimizer.safetensors")
TRAIN = "import sys; from onelayer.training import *; from onelayer.training.config import load; "
TRAIN += "train(configure(None, load(__import__('pathlib').Path(sys.argv[1]))), sys.argv[2])"
RESUME = "import sys; from onelayer.training import *; resume(sys.argv[2])"


def hashes(run: Path) -> dict[str, str]:
    last = run / "checkpoints" / f"step-{Run(run).snapshots[-1]}"
    paths = [*(last / name for name in FILES), run / "metrics.jsonl"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def go_on(config: Path, run: Path) -> subprocess.Popen[bytes]:
    code = RESUME if (run / "config.json").exists() else TRAIN
    return subprocess.Popen([sys.executable, "-c", code, str(config), str(run)])


def killed_once(config: Path, root: Path, trial: int, duration: float, rng: Generator) -> tuple[Path, int | None]:
    """A run whose process was killed at a random moment, and the step that it had measured last."""
    for attempt in range(100):  # a kill that comes too late, when all is done, is none
        run = root / f"run-{trial}-{attempt}"
        sign = run / ("config.json" if trial % 4 == 0 else "checkpoints/step-0")  # it begins to write; it trains
        child = go_on(config, run)
        while not sign.exists() and child.poll() is None:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, duration)))
        child.kill()
        if child.wait() != 0:
            records = Run(run).metrics if (run / "config.json").exists() else []
            return run, records[-1]["step"] if records else None
    raise SystemExit("no kill came in time; raise --steps")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=20, help="how many runs are killed")
    options.add_argument("--steps", type=int, default=600)
    options.add_argument("--task", choices=SMALL, default="numbers")
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    options.add_argument("--keep", type=Path, help="a directory for the runs; by default a temporary one")
    given = options.parse_args()
    rng = generator(given.seed, "moments")

    with tempfile.TemporaryDirectory() as temporary:
        root = given.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        small = configure(None, COMMON, SMALL[given.task], {"steps": given.steps})
        config = root / "config.json"
        config.write_text(small.to_json())
        duration = train(small, root / "whole").seconds
        expected = hashes(root / "whole")

        equal = 0
        for trial in range(given.kills):
            run, died = killed_once(config, root, trial, duration, rng)
            go_on(config, run).wait()
            found = hashes(run)
            same = [name for name in expected if found[name] == expected[name]]
            equal += found == expected
            where = f"after the evaluation of step {died}" if died is not None else "before the first evaluation"
            print(f"kill {trial + 1}: {where}; equal: {', '.join(same) or 'nothing'}", flush=True)
        print(f"{equal} of {given.kills} equal; SHA-256 of the parameters {expected['model.safetensors']}")
        return 0 if equal == given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
