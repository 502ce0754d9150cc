"""Steps against rate times decay, and the exponent."""

from typing import Any

import experiments
import numpy as np

from onelayer.studies.statistics import bootstrap, line, middle
from pages.common import COLOURS, Rows, cells, footer, number, plt, save, seconds, spread, study, table, told


def page() -> str:
    rows = study("decay-law")
    by = cells(rows, "lr", "decay")
    lines, points = [], []
    for (lr, decay), runs in sorted(by.items(), key=lambda item: -item[0][0] * item[0][1]):
        found, product = middle([r["loss_0.01"] for r in runs]), lr * decay
        constant = [product * r["loss_0.01"] for r in runs if r["loss_0.01"]]
        points += [(lr, decay, r["loss_0.01"], r["memorised"]) for r in runs if r["loss_0.01"] and r["memorised"]]
        lines.append([f"{lr:g}", f"{decay:g}", f"{product:g}", told(middle([r["memorised"] for r in runs])),
                      told(found), spread(constant, 2) if constant else "–", seconds(runs)])  # fmt: skip
    draw_decay_law(by)
    return f"""# The decay law

With weight decay, the published runs need as many steps as lr · wd · t = constant says: 9.88 at decay 1, 9.87 at 0.1
(two runs, t the step of test loss < 0.01). Does it hold over two decades, and is it the product that counts?

The published recipe on a small table (addition mod {experiments.P}, half of the pairs, width 64), either the decay or
the rate moved.

{table(["rate", "decay", "rate · decay", "memorised", "test loss < 0.01", "rate · decay · t", "to 99 %, s"], lines)}

Steps are medians (least – most of the seeds), the last but one column means. Every run ends at rate · decay · t =
{experiments.LIMIT}: {sum(r["loss_0.01"] is None for r in rows)} of {len(rows)} were not there yet. They are left out
below, which leans the figures towards the seeds that are quick.

![Steps to a test loss below 0.01 against rate times decay](decay-law.png)

{decay_verdict(points)}

{footer("decay-law", rows)}"""


def decay_verdict(points: list[tuple[float, float, float, float]]) -> str:
    def slope(data: np.ndarray) -> float:
        return line(np.log(data[:, 0] * data[:, 1]), np.log(data[:, 2])).b

    def fitted(data: list[tuple[float, float, float, float]]) -> str:
        said = f"{slope(np.asarray(data)):.2f}"
        if len(data) >= ENOUGH:
            low, high = bootstrap(data, slope)
            where = "within it" if low <= -1 <= high else "outside it"
            said += f" (95 % by bootstrap over the runs: {low:.2f} to {high:.2f}; −1 lies {where})"
        return f"{said}, {len(data)} runs"

    by_decay, by_rate = [p for p in points if p[0] == 1e-3], [p for p in points if p[1] == 1.0]
    slowest = [p for p in points if p[0] * p[1] <= 1.01e-3]
    constants = [p[0] * p[1] * p[2] for p in slowest]
    alike = equal_products(by_decay, by_rate)
    apart = max((ratio for _, ratio in alike), default=1.0)
    return f"""**{"It is" if apart < 1.3 else "It is mostly"} the product that counts.** Where rate and decay differ and
their product is the same, the times are {"nearly so" if apart < 1.3 else f"within a factor of {apart:.1f}"}:
{"; ".join(text for text, _ in alike)}. Memorising hangs on the rate alone, as the dotted lines show.

**The exponent** of t in rate · decay, where the law says −1:

- decay moved, rate 10⁻³: {fitted(by_decay)}
- rate moved, decay 1: {fitted(by_rate)}
- both, products of at most 10⁻³, where the delay is long: {fitted(slowest)}

At large products the law must fail: the time cannot fall below that of memorising, and with rate 10⁻³ and decay 10 not
even that is reached. The constant is none of nature: {np.mean(constants):.2g} here, with half of a small table shown,
9.9 in the published runs with 30 % of a larger one."""


ENOUGH = 6  # runs for an interval


def equal_products(by_decay: list[Any], by_rate: list[Any]) -> list[tuple[str, float]]:
    """(`3,003 and 3,120 steps at 0.001`, their ratio), for each product that both ways came to."""
    told = []
    for product in sorted({round(p[0] * p[1], 6) for p in by_decay} & {round(p[0] * p[1], 6) for p in by_rate}):
        both = [middle([p[2] for p in points if round(p[0] * p[1], 6) == product]) for points in (by_decay, by_rate)]
        if product != 1e-3:  # that is the same runs
            text = f"{number(both[0].median)} and {number(both[1].median)} steps at {product:g}"
            told.append((text, max(both[0].median, both[1].median) / min(both[0].median, both[1].median)))
    return told


def draw_decay_law(by: dict[Any, Rows]) -> None:
    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    for colour, marker, label, mine in (
        (COLOURS[0], "o", "decay moved, rate 10⁻³", [k for k in by if k[0] == 1e-3]),
        (COLOURS[1], "s", "rate moved, decay 1", [k for k in by if k[1] == 1.0]),
    ):
        mine = sorted(mine, key=lambda k: k[0] * k[1])
        x = [lr * decay for lr, decay in mine]
        for name, style in (("loss_0.01", "-"), ("memorised", ":")):
            y = [middle([r[name] for r in by[k]]).median for k in mine]
            what = "test loss < 0.01" if name == "loss_0.01" else "memorised"
            axis.loglog(x, y, marker=marker, ls=style, color=colour, ms=4, label=f"{what}: {label}")
    x = np.array(sorted(lr * decay for lr, decay in by))
    middle_one = [k for k in by if abs(k[0] * k[1] - 1e-3) < 1e-9][:1]
    if middle_one:
        t = middle([r["loss_0.01"] for r in by[middle_one[0]]]).median
        axis.loglog(x, t * 1e-3 / x, color="0.6", lw=1, ls="--", label="rate · decay · t constant")
    axis.set(xlabel="rate · decay", ylabel="steps")
    axis.legend(fontsize=7)
    save(figure, "decay-law")
