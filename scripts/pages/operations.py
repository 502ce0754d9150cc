"""Every operation: the table of what is learnt, and from how much."""

from typing import Any

import experiments
import numpy as np

from onelayer.studies.statistics import middle
from onelayer.tasks import operations as known_operations
from pages.common import Rows, cells, footer, number, plt, save, study, table, told


def page() -> str:
    rows, fractions = study("operations"), experiments.FRACTIONS
    by = cells(rows, "operation", "fraction")
    names = [name for name in experiments.NAMES if any((name, f) in by for f in fractions)]
    names.sort(key=lambda name: (order_of(by, name), experiments.NAMES.index(name)))
    lines = []
    for name in names:
        known = known_operations.find(name.removesuffix(" mod 61"))
        facts = [cell_of(by.get((name, f))) for f in fractions]
        steps = told(middle([r["sustained"] for r in by[name, 0.7]]))
        lines.append([f"`{name}`", *facts, steps, f"{baseline(name):.0%}".replace("%", " %"), published(known)])
    draw_operations(names, by)
    checked = cells(study("recipes-agree"), "operation")
    agree = [
        [f"`{name}`", cell_of(by[name, 0.7]), cell_of(there), told(middle([r["sustained"] for r in there])),
         number(np.median([r["steps"] for r in there]))]
        for name, there in checked.items() if (name, 0.7) in by
    ]  # fmt: skip
    head = ["operation", *(f"{f:.0%}".replace("%", " %") for f in fractions), "steps at 70 %", "constant", "published"]
    n = [len(by[name, 0.7]) for name in names]
    return f"""# Every operation: which are learnt, from how much of the table?

One layer, width {configuration("model.d_model")}, no norm, full batch; p = {experiments.P} ({experiments.P**2:,}
pairs), but for groups, for `x xor y` (64) and where another p is named. {seeds_of(n)}; split and first
weights are drawn from the seed.

{table(head, lines)}

- *a fraction's column*: test accuracy in the last evaluation, median of the seeds (least – most where they differ by a
  point or more). **Bold**: every seed reached 95 % at some evaluation. `·`: not trained, see below.
- *steps at 70 %*: the first of five evaluations (25 steps) with 99 % or more; *never* within
  {experiments.FAST["steps"]} steps, which is a censored figure and no proof.
- *constant*: what the most frequent answer alone scores.
- *published*: what others report, for their network, p and recipe; `—` where we know of no report.

![Test accuracy of every operation at every fraction](operations.png)

## What it says

{operations_verdict(by, names)}

## What was left out, and why

- A fraction below one from which no seed learnt is not trained, nor 90 % where all seeds learnt from 70 %.
- A run with a test accuracy below 30 % at step 100 is given up; its figure is that of step 100.
- Three operands, one operand, `min` (the twin of `max`), `Z113` (it is x + y), `S6` (518,400 pairs), two of the three
  words in S5 and `D60` are not run: the budget was one core for two hours, all experiments together.

## Is it the recipe?

The recipe is `fastest` at half its rate and twice its decay, over 120 steps; `fastest` itself was tuned to x + y and
fails on x − y at half of the table. So the verdicts at 70 % were taken again with AdamW (`default`: rate 0.01, decay
1, no schedule), which has three times as many steps:

{table(["operation", "quick recipe", "AdamW", "AdamW, to 99 %", "AdamW, steps"], agree) if agree else "(not yet run)"}

{footer("operations", rows)}"""


def seeds_of(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low} to {high} seeds" if low < high else f"{high} seed{'s' if high > 1 else ''}"


def configuration(field: str) -> Any:
    value: Any = experiments.operation("x + y", 0.7, 0).config.as_dict()
    for part in field.split("."):
        value = value[part]
    return value


def finals(rows: Rows) -> list[float]:
    return [r["last"]["test_accuracy"] for r in rows]


def cell_of(rows: Rows | None) -> str:
    if not rows:
        return "·"
    values = finals(rows)
    said = f"{100 * np.median(values):.0f}"
    said += f" ({100 * min(values):.0f} – {100 * max(values):.0f})" if max(values) - min(values) >= 0.01 else ""
    return f"**{said}**" if all(r["best_test"] >= experiments.LEARNT for r in rows) else said


def order_of(by: dict[Any, Rows], name: str) -> tuple[float, float]:
    """Learnt from the smallest fraction first; then by accuracy at 70 %."""
    from_here = [f for f in experiments.FRACTIONS if (name, f) in by and learnt(by[name, f])]
    return min(from_here, default=2.0), -float(np.median(finals(by[name, 0.7])))


def learnt(rows: Rows) -> bool:
    return float(np.median([r["best_test"] for r in rows])) >= experiments.LEARNT


def baseline(name: str) -> float:
    return experiments.operation(name, 0.7, 0).config.task.make(0).facts["majority_accuracy"]


def published(known: Any) -> str:
    return known.verdict.split(": of the")[0] if known.verdict != "untested" else "—"


def operations_verdict(by: dict[Any, Rows], names: list[str]) -> str:
    def among(least: float, most: float) -> list[str]:
        return [f"`{n}`" for n in names if least <= order_of(by, n)[0] <= most]

    def at(fraction: float, name: str) -> float:
        return float(np.median(finals(by.get((name, fraction)) or by[name, 0.7])))

    not_learnt = [n for n in names if order_of(by, n)[0] > 1]
    partly = [n for n in not_learnt if at(0.9, n) >= max(0.3, 1.5 * baseline(n))]
    flat = [n for n in not_learnt if n not in partly]
    newline = "\n"
    return f"""{
        newline.join(
            f"- Learnt from {100 * f:.0f} %: {', '.join(among(f, f)) or 'none more'}." for f in experiments.FRACTIONS
        )
    }
- In part, or too slow for these steps, even at 90 %: {", ".join(f"`{n}` ({100 * at(0.9, n):.0f} %)" for n in partly)}.
- Not at all, at any fraction: {
        ", ".join(
            f"`{n}` (train {100 * known_by_heart(by[n, 0.7]):.0f} %, test {100 * at(0.9, n):.1f} %, a constant "
            f"{100 * baseline(n):.1f} %)"
            for n in flat
        )
        or "none"
    }."""


def known_by_heart(rows: Rows) -> float:
    return float(np.median([r["last"]["train_accuracy"] for r in rows]))


def draw_operations(names: list[str], by: dict[Any, Rows]) -> None:
    fractions = experiments.FRACTIONS
    grid_ = np.array([[np.median(finals(by[n, f])) if (n, f) in by else np.nan for f in fractions] for n in names])
    figure, axis = plt.subplots(figsize=(6.5, 0.24 * len(names) + 0.9), layout="constrained")
    colours = plt.get_cmap("viridis").with_extremes(bad="0.92")
    picture = axis.imshow(np.ma.masked_invalid(100 * grid_), cmap=colours, vmin=0, vmax=100, aspect="auto")
    for y, row in enumerate(grid_):
        for x, value in enumerate(row):
            if np.isfinite(value):
                axis.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=7,
                          color="black" if value > 0.6 else "white")  # fmt: skip
    axis.set_xticks(range(len(fractions)), [f"{100 * f:.0f} %" for f in fractions])
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_xlabel("share of the table that is shown")
    figure.colorbar(picture, label="test accuracy, %", aspect=40)
    save(figure, "operations")
