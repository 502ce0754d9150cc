#!/usr/bin/env python
"""Every positional encoding on seven probes, and a + b against a − b: scripts/positions_first_look.py [run|page]

run [PART/PARTS]   Train what is not in runs/positions-first-look.jsonl yet, a line each; stop it and go on at will.
                   With 1/2 and 2/2 two processes share the work.
page               From that file: docs/experiments/positions-first-look.json, .md and .png
                   (needs a Chromium). Where the .jsonl is not there, the .json is taken.

Needs: pip install '.[jax]', for the picture '.[test]'.
"""

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

from onelayer.studies import positions_first_look as study  # noqa: E402

ROOT = Path(__file__).parent.parent
LINES = ROOT / "runs" / "positions-first-look.jsonl"


def run(part: str = "1/1") -> None:
    index, parts = map(int, part.split("/"))
    budget = study.Budget()
    todo = [("cell", cell.name) for cell in study.CELLS]
    todo += [
        ("sum", [operation, position, seed])
        for operation in ("x - y", "x + y")
        for position in study.SUMS
        for seed in range(budget.seeds)
    ]
    LINES.parent.mkdir(exist_ok=True)
    for kind, what in todo[index - 1 :: parts]:
        if (kind, what) in [(line["kind"], line["what"]) for line in read()]:
            continue
        print(kind, what, flush=True)
        figures = study.run_cell(study.find(what), budget) if kind == "cell" else study.run_sum(*what)
        line = {"kind": kind, "what": what, "figures": figures, "budget": budget._asdict(), "versions": versions()}
        with LINES.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read() -> list[dict]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("numpy", "jax")}
    return {"python": platform.python_version(), **packages, "machine": f"{platform.machine()}, {os.cpu_count()} CPUs"}


if __name__ == "__main__":
    match sys.argv[1:] or ["run"]:
        case ["run", *part]:
            run(*part)
        case _:
            raise SystemExit(__doc__)
