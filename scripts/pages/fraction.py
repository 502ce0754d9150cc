"""Steps against the share of the table that is shown, beside the published sweep."""

import json
import math
from typing import Any

import experiments
import numpy as np

from onelayer.studies.statistics import line, middle
from pages.common import COLOURS, HERE, cells, footer, number, plt, save, seconds, study, table, told

PUBLISHED_SWEEP = {0.8: 252, 0.7: 222, 0.6: 440, 0.5: 956, 0.4: 3109, 0.3: 7930}


def page() -> str:
    rows = study("fraction")
    by = cells(rows, "fraction", "lr")
    slow = {f: [r["loss_0.1"] for r in by[f, 1e-3]] for f in experiments.SWEPT if (f, 1e-3) in by}
    replicated = HERE / "replication.json"
    if replicated.exists():
        slow[0.3] = [r["test_loss_0.1"] for r in json.loads(replicated.read_text("utf-8"))]
    fast = {f: [r["loss_0.1"] for r in by[f, 1e-2]] for f in experiments.SWEPT if (f, 1e-2) in by}
    memorised = {f: [r["memorised"] for r in by[f, 1e-2]] for f in fast}
    lines = []
    for f in sorted(set(fast) | set(slow), reverse=True):
        ratio = "–"
        if f in slow and f in fast and math.isfinite(middle(slow[f]).median * middle(fast[f]).median):
            ratio = f"{middle(slow[f]).median / middle(fast[f]).median:.1f}"
        lines.append([f"{100 * f:.0f} %", number(PUBLISHED_SWEEP[f]), told(middle(slow.get(f, []))),
                      told(middle(fast.get(f, []))), ratio, told(middle(memorised.get(f, []))),
                      seconds(by.get((f, 1e-2), []))])  # fmt: skip
    draw_fraction(slow, fast)
    head = ["shown", "published", "ours, the same recipe", "ours, ten times its rate", "ratio", "… memorised",
            "… seconds to 99 %"]  # fmt: skip
    return f"""# How much of the table must be shown?

Addition mod 113, the published network and recipe (`nanda-2023`), at its own rate 10⁻³ and at ten times that. The
step of the first evaluation with a test loss below 0.1; medians, with the least and the most of the seeds.

{table(head, lines)}

The row of 30 % in the third column is [the replication](replication.md). An evaluation is due every 2 steps, or every
2 % of the step. The published column: one saved run each.

![Steps to a test loss below 0.1 against the share of the table that is shown](fraction.png)

{fraction_verdict(slow, fast, memorised)}

{footer("fraction", rows)}"""


def fraction_verdict(
    slow: dict[float, list[Any]], fast: dict[float, list[Any]], memorised: dict[float, list[Any]]
) -> str:
    both = [f for f in sorted(slow) if f in fast]
    ratios = [f"{middle(slow[f]).median / middle(fast[f]).median:.1f} at {100 * f:.0f} %" for f in both]
    off = [f"{middle(slow[f]).median / PUBLISHED_SWEEP[f]:.2f} at {100 * f:.0f} %" for f in sorted(slow)]
    steep, published_steep = (
        line([math.log(f) for f in fast], [math.log(steps(f)) for f in fast]).b
        for steps in (lambda f: middle(fast[f]).median, PUBLISHED_SWEEP.__getitem__)
    )
    return f"""**Beside the published sweep**, at its own rate: our median over the published step is {", ".join(off)}.
The published steps are those of one run each; of ours the slowest seed takes {", ".join(apart(slow))} times as long
as the quickest.

**Ten times the rate** takes fewer steps by a factor of {", ".join(ratios)}. The [decay law](decay-law.md) would have
ten wherever the delay is long. Why it is more where least is shown was not tried; at the larger rate decay acts while
it still memorises, so there may be less to shed. It is less where the delay is gone and only memorising is left.

**No threshold, a slope.** From 80 to 30 % the steps grow as the share to the power {steep:.1f} (published, at the
smaller rate: {published_steep:.1f}). With the larger rate memorising takes the same {memorising(memorised)} steps
whatever is shown; what changes is the wait after it."""


def apart(slow: dict[float, list[Any]]) -> list[str]:
    """How many times as long the slowest seed takes as the quickest, at each fraction."""
    known = {f: [x for x in slow[f] if x is not None] for f in sorted(slow)}
    return [f"{max(x) / min(x):.1f} (at {100 * f:.0f} %)" for f, x in known.items() if x]


def memorising(memorised: dict[float, list[Any]]) -> str:
    found = [middle(values).median for values in memorised.values()]
    return f"{min(found):.0f} to {max(found):.0f}"


def draw_fraction(slow: dict[float, list[Any]], fast: dict[float, list[Any]]) -> None:
    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    axis.semilogy(
        list(PUBLISHED_SWEEP), list(PUBLISHED_SWEEP.values()), "s--", color="0.5", label="published, rate 10⁻³"
    )
    for found, colour, label in ((slow, COLOURS[0], "ours, rate 10⁻³"), (fast, COLOURS[1], "ours, rate 10⁻²")):
        at = sorted(found)
        axis.semilogy(at, [middle(found[f]).median for f in at], "o-", color=colour, label=label)
        for f in at:
            axis.semilogy([f] * len(found[f]), [v or np.nan for v in found[f]], ".", color=colour, alpha=0.5, ms=5)
    axis.set(xlabel="share of the table that is shown", ylabel="steps to a test loss below 0.1")
    axis.legend()
    save(figure, "fraction")
