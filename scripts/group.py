"""A group that does not commute, D30, read by its representations: the table under "A group" of docs/grokking.md.

python scripts/group.py                     # docs/experiments/group.jsonl, a line a seed; prints the table
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from onelayer.grokking.measures import MEASURES
from onelayer.grokking.subject import open_subject
from onelayer.studies import grid
from onelayer.studies.statistics import middle
from onelayer.training import configure, train

RAW = Path(__file__).parent.parent / "docs" / "experiments" / "group.jsonl"
SETTING: dict[str, Any] = {"task": {"operation": "D30: x*y", "train_fraction": 0.6}}
SEEDS = 5
ROWS = {
    "99 % on test at step": "sustained",
    "key representations, of 17": "keys",
    "their share of the logits' energy": "share",
    "characters χ(a·b·c⁻¹) of these make of the logits' variance": "characters",
    "the same, untrained": "characters_untrained",
    "loss over all pairs": "full",
    "… with these representations alone": "restricted",
    "loss over the training pairs": "train",
    "… without these representations": "excluded",
}


def measured(seed: int, out: Path) -> dict[str, Any]:
    clock, cpu = time.perf_counter(), time.process_time()
    result = train(configure("fastest", SETTING, {"seed": seed}), out)
    s = open_subject(out)
    of = {name: MEASURES[name].of(s) for name in ("full_loss", "restricted_loss", "excluded_loss")}
    return {
        "cell": {"operation": "D30: x*y"}, "seed": seed,
        "sustained": result.figures.step_sustained, "steps": result.step,
        "representations": [s.characters.name(k) for k in s.key_frequencies], "keys": len(s.key_frequencies),
        "of": len(s.characters.frequencies), "share": float(np.sum(s.logit_shares[list(s.key_frequencies)])),
        "characters": MEASURES["cosine_variance_explained"].of(s),
        "characters_untrained": MEASURES["cosine_variance_explained"].of(s.twin),
        "full": of["full_loss"]["all"], "train": of["full_loss"]["train"],
        "restricted": of["restricted_loss"], "excluded": of["excluded_loss"],
        "seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| | median | least | most |", "|---|---|---|---|"]
    for what, name in ROWS.items():
        values = [row[name] for row in rows]
        ordered = sorted(np.inf if x is None else x for x in values)
        told = middle(values).median, ordered[0], ordered[-1]
        cells = ("never" if np.isinf(x) else f"{x:.3g}" for x in told)
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--raw", type=Path, default=RAW)
    given = parser.parse_args()
    known = {row["seed"] for row in grid.read(given.raw)}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in set(range(given.seeds)) - known:
            grid.append(given.raw, json.dumps(grid.rounded(measured(seed, Path(scratch) / str(seed)))))
    print(table(grid.read(given.raw)))


if __name__ == "__main__":
    main()
