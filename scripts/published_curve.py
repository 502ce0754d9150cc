#!/usr/bin/env python
"""The published grokking curve, beside ours: docs/experiments/published-curve.{json,md} from finished runs.

    onelayer grok --recipe nanda-2023 --seed 0 --out runs/nanda-0        # one for each seed
    scripts/published_curve.py runs/nanda-0 …

The figures come from the runs' own metrics; the page is written from the JSON.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from onelayer.training import metrics

HERE = Path(__file__).parent.parent / "docs" / "experiments"
PUBLISHED = {"step_memorised": 275, "test_loss_below_0.1": [7_930, 9_300], "test_loss_below_0.01": 9_880}


def figures(run: Path) -> dict[str, Any]:
    """What one run came to."""
    records = metrics.read(run / "metrics.jsonl").records
    config, manifest, result = (
        json.loads((run / f"{name}.json").read_text("utf-8")) for name in ("config", "manifest", "result")
    )

    def first(metric: str, bound: float) -> int | None:
        return next((r["step"] for r in records if r[metric] < bound), None)

    found, machine = result["figures"], manifest["sessions"][0]
    return {
        "recipe": config["recipe"],
        "seed": config["seed"],
        "engine": config["engine"],
        "train_loss_below_0.01": first("train_loss", 0.01),
        "step_memorised": found["step_memorised"],
        "test_loss_below_0.1": first("test_loss", 0.1),
        "test_loss_below_0.01": first("test_loss", 0.01),
        "step_generalised": found["step_generalised"],
        "step_sustained": found["step_sustained"],
        "largest_test_loss": max(r["test_loss"] for r in records),
        "last_step": records[-1]["step"],
        "last_test_loss": records[-1]["test_loss"],
        "seconds": round(result["seconds"]),
        "versions": machine["versions"],
        "processor": machine["processor"],
        "threads": machine["threads"],
    }


def page(rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        if value is None:
            return "not reached"
        return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"

    keys = {
        "memorised: train accuracy ≥ 99 %": "step_memorised",
        "train loss < 0.01": "train_loss_below_0.01",
        "test loss < 0.1": "test_loss_below_0.1",
        "test loss < 0.01": "test_loss_below_0.01",
        "test accuracy ≥ 99 %, first": "step_generalised",
        "sustained over five evaluations": "step_sustained",
        "largest test loss on the way": "largest_test_loss",
        "seconds": "seconds",
    }
    published = {
        "train loss < 0.01": "275",
        "test loss < 0.1": "7,930 (saved sweep) to 9,300 (mainline)",
        "test loss < 0.01": "9,880",
    }
    head = ["step of", "published", *(f"seed {row['seed']}" for row in rows)]
    lines = [[name, published.get(name, ""), *(cell(row[key]) for row in rows)] for name, key in keys.items()]
    table = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)]
    machine = rows[0]
    return "\n".join([
        "# The published curve",
        "",
        "Addition mod 113 from 30 % of the pairs, one layer, width 128, AdamW at 10⁻³ and weight decay 1, full batch:",
        "the network of Nanda et al. 2023, arXiv:2301.05217, whose saved runs are the published column.",
        "",
        *table,
        "",
        "The run's precision is float32 with the loss in float64. Evaluated every 50 steps (every 10 up to 500), so",
        "a step is exact to that. The seconds are those of a shared machine under load, not a benchmark.",
        f"Machine: {machine['processor']}, {machine['threads']} thread(s); "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + ".",
        "",
        "Repeat it:",
        "",
        "```sh",
        *(f"onelayer grok --recipe nanda-2023 --seed {row['seed']} --out runs/nanda-{row['seed']}" for row in rows),
        "scripts/published_curve.py " + " ".join(f"runs/nanda-{row['seed']}" for row in rows),
        "```",
        "",
        "Raw figures: [published-curve.json](published-curve.json).",
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="*", type=Path, help="finished runs; none: the page is made from the JSON there is"
    )
    stored, given = HERE / "published-curve.json", parser.parse_args().runs
    if given:
        stored.write_text(json.dumps([figures(run) for run in given], indent=1, ensure_ascii=False) + "\n", "utf-8")
    (HERE / "published-curve.md").write_text(page(json.loads(stored.read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    main()
