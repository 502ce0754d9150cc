"""docs/experiments/fastest-grokking.md from the raw files of scripts/search_fastest.py.

python scripts/report_fastest.py
"""

import json
import math
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onelayer.training import recipes

HERE = Path(__file__).parent.parent / "docs" / "experiments"
SCORES, SEARCH, PAGE = HERE / "fastest-scores.json", HERE / "fastest-search.jsonl", HERE / "fastest-grokking.md"
NAMES = {  # (recipe, changes): how a row is called
    ("fastest",): "`fastest`",
    ("fastest", "optimizer.momentum=0.95"): "… with Muon's usual momentum, 0.95",
    ("fastest", "optimizer.matrices=hidden", "optimizer.adam_ratio=0.03"): "… embeddings by AdamW, rate 0.015",
    ("fastest", "schedule=constant"): "… at a constant rate",
    ("default", "optimizer.lr=0.015", "optimizer.weight_decay=4", "optimizer.beta1=0.8", "optimizer.beta2=0.9",
     "schedule.name=cosine", "schedule.warmup=10", "schedule.total=150", "schedule.floor=0.05"): "the best AdamW",
    ("default",): "`default`: AdamW, rate 0.01, decay 1",
    ("omnigrok-2022",): "`omnigrok-2022`: constant norm, α = 0.8",
    ("muon",): "`muon`: p = 97, 40 %, two blocks, hidden matrices",
    ("power-2022",): "`power-2022`: x / y mod 97, 50 %, two blocks, batches of 512",
    ("grokfast-2024",): "`grokfast-2024`: x * y mod 97, 50 %, two blocks, batches of 512",
}  # fmt: skip
LITERATURE = (
    ("Nanda et al. 2023, AdamW, decay 1", "this net, this task", "–", "about 8,000 to 9,300 (test loss < 0.1)", "–"),
    ("Liu et al. 2022 (Omnigrok), constant norm, α = 0.8", "this net, this task", "about 260 (95 %)", "about 295",
     "about 310 (one seed, read off a figure)"),
    ("Na00s 2026, Muon on hidden matrices", "this net, other first weights", "100 – 300", "5,300 – 5,400 (95 %)", "–"),
    ("Fu 2026, Muon on hidden matrices, decay 1", "p = 97, 40 % of the pairs, 2 blocks with layer norm", "50", "75",
     "100 – 150 (3 seeds)"),
    ("Chou 2025, AdamW, rate 0.05, decay 2", "p = 113, 40 %, MLP", "–", "–", "111 (best of a grid, one seed)"),
)  # fmt: skip


def middle(values: list[float]) -> float:
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def told(rows: list[dict[str, Any]], key: str) -> str:
    """Median and worst; a run that never got there counts as infinitely late."""
    values = [math.inf if row[key] is None else row[key] for row in rows]
    median, worst = middle(values), max(values)
    said = [f"{v:g}" if math.isfinite(v) else "never" for v in (median, worst)]
    return f"{said[0]} / {said[1]}"


def row(name: str, rows: list[dict[str, Any]]) -> str:
    failures = sum(r["sustained"] is None for r in rows)
    delays = [
        r["sustained"] - r["memorised"] for r in rows if r["sustained"] is not None and r["memorised"] is not None
    ]
    seconds = [r["seconds"] for r in rows if r["seconds"] is not None]
    lowest = [r["lowest_after"] for r in rows if r["sustained"] is not None]
    cells = [
        name,
        f"{len(rows)}",
        told(rows, "memorised"),
        told(rows, "sustained"),
        told(rows, "whole"),
        f"{middle(delays):g}" if delays else "–",
        f"{failures}",
        f"{min(lowest):.3f}" if lowest else "–",
        f"{middle(seconds):.1f} / {max(seconds):.1f}" if seconds else "–",
    ]
    return "| " + " | ".join(cells) + " |"


def searched() -> str:
    if not SEARCH.exists():
        return ""
    trials: dict[str, list[dict[str, Any]]] = {}
    for line in SEARCH.read_text("utf-8").splitlines():
        trial = json.loads(line)
        trials.setdefault(json.dumps(trial["settings"], sort_keys=True) + trial["family"], []).append(trial)
    families: dict[str, list[list[dict[str, Any]]]] = {}
    for runs in trials.values():
        families.setdefault(runs[0]["family"], []).append(runs)
    lines = ["| family | settings tried | runs | best mean step to 99 %, on seeds |", "| --- | --- | --- | --- |"]
    for name, tried in sorted(families.items()):
        whole = [runs for runs in tried if len(runs) > 1 and all(r["sustained"] is not None for r in runs)]
        best = min(whole, key=lambda runs: sum(r["sustained"] for r in runs) / len(runs), default=None)
        said = "none reached it on every seed tried"
        if best:
            said = f"{sum(r['sustained'] for r in best) / len(best):.0f}, on {len(best)}"
        lines.append(f"| {name} | {len(tried)} | {sum(map(len, tried))} | {said} |")
    return "\n".join(lines)


def lost_again(order: list[Any], by_recipe: dict[Any, list[dict[str, Any]]]) -> str:
    """Which recipes fell below 90 % after they had sustained 99 %, in how many of their seeds."""
    found = []
    for name in order:
        done = [r for r in by_recipe[name] if r["sustained"] is not None]
        fell = [r for r in done if r["lowest_after"] < 0.9]
        if fell:
            found.append(f"`{name[0]}` in {len(fell)} of {len(done)}")
    return f"\nBelow 90 % again, for a while, after 99 %: {', '.join(found)} seeds." if found else ""


def page() -> str:
    scores = json.loads(SCORES.read_text("utf-8"))
    by_recipe: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for score in scores:
        by_recipe.setdefault((score["recipe"], *score["changes"]), []).append(score)
    order = [name for name in NAMES if name in by_recipe]
    rows = "\n".join(row(NAMES[name], by_recipe[name]) for name in order)
    lost = lost_again(order, by_recipe)
    grids = "; ".join(
        f"{NAMES[n].split(':')[0]}, every {by_recipe[n][0]['every']} up to {by_recipe[n][0]['limit']}"
        for n in order
        if not NAMES[n].startswith("…")
    )
    head = (
        "| recipe | seeds | memorised | sustained ≥ 99 % | 100 % | delay, median | failures | lowest after | seconds |"
    )
    head += "\n|" + " --- |" * 9
    config = json.dumps(recipes.get("fastest").config, indent=2)
    literature = "\n".join("| " + " | ".join(cells) + " |" for cells in LITERATURE)
    versions = ", ".join(f"{name} {version(name)}" for name in ("onelayer", "numpy", "numba"))
    commands = "\n".join(
        f"python scripts/search_fastest.py score --recipe {n[0]} --seeds {len(by_recipe[n])}"
        f" --limit {by_recipe[n][0]['limit']} --every {by_recipe[n][0]['every']}"
        + "".join(f" --set {change}" for change in n[1:])
        for n in order
    )
    return f"""# The fastest way to grok

How few steps may one layer need to learn addition mod 113 from 30 % of the pairs? The net is that of Nanda et al. 2023:
one block without norm, width 128, feed-forward 512, ReLU, full batch. What may change is how it is trained.

Each row: fresh seeds, 0 and up, that the search never saw; split and first weights are drawn from the seed.

- *memorised*: the first evaluation with train accuracy at 99 % or more
- *sustained*: the first of 25 steps (or of the evaluations within them) with test accuracy at 99 % or more
- *100 %*: of the test pairs
- *delay*: sustained less memorised
- *lowest after*: the lowest test accuracy of any seed, once it had crossed 99 %, up to the last step
- *seconds*: of training alone, in NumPy, up to the sustained step

Pairs are median / worst.

{head}
{rows}

Evaluated: {grids}. The seconds are those of a machine shared with other work, without evaluations.
{lost}

The delay between memorising and generalising is what grokking is named for. `fastest` has next to none: it is fast
generalisation, not fast grokking, and a study of the delay should not start from it.

What the literature reports, not run here ([`nanda-2023`](published-curve.md) was, on one seed: 6,850 steps):

| source | setting | memorised | ≥ 99 % | 100 % |
| --- | --- | --- | --- | --- |
{literature}

## The recipe

```json
{config}
```

Muon moves a matrix along the orthogonal matrix nearest to its gradient: all directions at the same rate, however small
their gradient. Its authors leave the embedding and the unembedding to AdamW; here they are orthogonalised too. Pasand
& Dohmatob (Egalitarian gradient descent, ICLR 2026) do so without momentum and report few epochs. The rows that begin
with … change one thing of the recipe and nothing else, so they say what each is worth beside the others, not what it
could do with settings of its own.

## The search

{searched()}

Seeds 1000 and up, up to {search_limit()} steps, 1,500 test pairs; an evolution that began with settings found by hand
(`scripts/search_fastest.py` says how). It is short: that a family did badly here does not show that it cannot do
better.

## Repeat it

```sh
onelayer grok --recipe fastest
{commands}
python scripts/report_fastest.py
```

Machine: {machine()}; Python {platform.python_version()}, {versions}. Raw figures: [scores](fastest-scores.json),
[search](fastest-search.jsonl).
"""


def search_limit() -> int:
    lines = SEARCH.read_text("utf-8").splitlines() if SEARCH.exists() else []
    return max((json.loads(line)["steps"] for line in lines), default=0)


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    return f"{name or platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
