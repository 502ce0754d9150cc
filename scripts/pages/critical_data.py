"""The critical size of the data: what becomes of a network that knows the rule and is shown less of the table."""

import itertools
import math

import critical_data
import numpy as np

from onelayer.studies.statistics import middle
from pages.common import COLOURS, Rows, cells, footer, number, plt, save, spread, study, table, told


def page() -> str:
    rows = study("critical-data")
    by, fractions = cells(rows, "kind", "fraction"), critical_data.FRACTIONS
    lines = [
        [f"{fraction:.0%}".replace("%", " %"), *(spread([100 * r["unseen"] for r in by["continued", fraction]]),),
         spread([100 * r["train"] for r in by["continued", fraction]]),
         *(spread([r["efficiency"] for r in by[kind, fraction]], 2) for kind in ("continued", "memorised"))]
        for fraction in fractions if ("continued", fraction) in by and ("memorised", fraction) in by
    ]  # fmt: skip
    draw(by)
    predicted, found = [crossing(rows, seed) for seed in seeds(rows)], [forgets(rows, seed) for seed in seeds(rows)]
    n = len(seeds(rows))
    lacking = f"\n**Not whole yet:** {n} of {critical_data.SEEDS} planned seeds.\n" if n < critical_data.SEEDS else ""
    return f"""# How much data does the rule need?
{lacking}
Memory has to pay for every pair that it holds, a rule once. So below some size of the training set memory is the
cheaper, and a network under weight decay should lose a rule that it already has: Varma et al. 2023 predict the critical
size from the efficiency of the two, and call the loss *ungrokking*.

Here a network that has learnt x + y mod {critical_data.P} from half of the table, in {critical_data.LEARNING} steps of
the default recipe, goes on for {critical_data.STEPS:,} steps with a part of that half. The unseen pairs are those of
the other half throughout. Beside it, a network that has nothing but memory: as many pairs, their answers permuted.

Mean (least – most) over the seeds; *efficiency* is the root mean square of the training pairs' logits over Σ θ².

{
        table(
            [
                "of the table",
                "unseen pairs right, %",
                "training pairs right, %",
                "efficiency, went on",
                "efficiency, memory alone",
            ],
            lines,
        )
    }

![Unseen pairs right, and the efficiency of memory and rule, against the share of the table](critical-data.png)

- **Where it forgets:** the share of the table at which the unseen pairs fall below one half is
  {told(middle(found))}, read off between the shares that were run.
- **Where the efficiencies cross:** {verdict(rows, predicted, found)}

{footer("critical-data", rows).replace("scripts/experiments.py critical-data", "scripts/critical_data.py")}"""


def seeds(rows: Rows) -> list[int]:
    return sorted({r["seed"] for r in rows})


def curve(rows: Rows, seed: int, kind: str, what: str) -> list[tuple[float, float]]:
    """(fraction, value), from the largest fraction down."""
    found = [(r["cell"]["fraction"], r[what]) for r in rows if r["seed"] == seed and r["cell"]["kind"] == kind]
    return sorted(found, reverse=True)


def between(points: list[tuple[float, float]], level: float) -> float | None:
    """The first place, from the right, at which a curve comes to a level, straight between its points."""
    for (x, y), (x_next, y_next) in itertools.pairwise(points):
        if (y - level) * (y_next - level) <= 0 and y != y_next:
            return x + (x_next - x) * (level - y) / (y_next - y)
    return None


def forgets(rows: Rows, seed: int) -> float | None:
    return between(curve(rows, seed, "continued", "unseen"), 0.5)


def crossing(rows: Rows, seed: int) -> float | None:
    rule = curve(rows, seed, "continued", "efficiency")[0][1]
    return between([(x, math.log(y)) for x, y in curve(rows, seed, "memorised", "efficiency")], math.log(rule))


def verdict(rows: Rows, predicted: list[float | None], found: list[float | None]) -> str:
    pairs = [(a, b) for a, b in zip(predicted, found, strict=True) if a is not None and b is not None]
    most, least = max(critical_data.FRACTIONS), min(critical_data.FRACTIONS)
    memory = [[dict(curve(rows, seed, "memorised", "efficiency"))[f] for seed in seeds(rows)] for f in (most, least)]
    rule = [curve(rows, seed, "continued", "efficiency")[0][1] for seed in seeds(rows)]
    rises = (f"memory alone gets dearer with every pair, from {spread(memory[1], 2)} at {100 * least:.0f} % of the "
             f"table to {spread(memory[0], 2)} at {100 * most:.0f} %; the rule has {spread(rule, 2)}. ")  # fmt: skip
    if not pairs:
        nearest = spread([100 * a / b for a, b in zip(memory[1], rule, strict=True)], 2)
        return (f"{rises}They do not cross within what was tried: at {100 * least:.0f} % memory has {nearest} % of the "
                "rule's efficiency. So the order is the one that was predicted, and the place is not: the rule is "
                "lost while it is, by this measure, still the cheaper.")  # fmt: skip
    ratio = [a / b for a, b in pairs]
    return (f"{rises}They cross at {told(middle(predicted))} of the table. Predicted over found, in the {len(pairs)} "
            f"of {len(found)} seeds with both: {spread(ratio, 2)}. The theory asks for 1.")  # fmt: skip


TICKS = (0.003, 0.005, 0.01, 0.02)


def draw(by: dict[tuple[str, float], Rows]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, kind, what, colour, label in (
        (left, "continued", "unseen", COLOURS[0], "unseen pairs"),
        (left, "continued", "train", COLOURS[1], "training pairs"),
        (right, "continued", "efficiency", COLOURS[0], "went on"),
        (right, "memorised", "efficiency", COLOURS[1], "memory alone"),
    ):
        factor = 100 if axis is left else 1
        at = sorted(f for k, f in by if k == kind)
        values = [[factor * r[what] for r in by[kind, f]] for f in at]
        axis.plot(at, [np.mean(v) for v in values], "-", color=colour, label=label)
        for f, v in zip(at, values, strict=True):
            axis.plot([f] * len(v), v, "o", color=colour, ms=3, alpha=0.6)
        axis.set(xlabel="share of the table that is shown")
    left.set(ylabel="right, %", ylim=(0, 103))
    right.set(ylabel="efficiency", yscale="log")
    right.set_yticks(TICKS, [number(tick) for tick in TICKS])
    right.minorticks_off()
    for axis in (left, right):
        axis.legend()
    save(figure, "critical-data")
