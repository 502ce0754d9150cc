"""The norm held, the temperature moved: which of them makes the delay."""

import math
from collections.abc import Callable
from typing import Any

import experiments
import numpy as np

from onelayer.studies.statistics import line, middle
from pages.common import COLOURS, Rows, cells, footer, plt, save, study, table, told


def page() -> str:
    rows = study("logit-scale")
    held = [r for r in rows if r["cell"]["held"]]
    by = cells(held, "alpha", "temperature")
    alphas, temperatures = experiments.ALPHAS, experiments.TEMPERATURES
    steps = [[f"{a:g} ({norm_of(by, a):.1f})", *(steps_of(by.get((a, t), []))
              for t in temperatures)] for a in alphas]  # fmt: skip
    waits = [[f"{a:g}", *(told(middle([delay(r) for r in by.get((a, t), [])])) for t in temperatures)] for a in alphas]
    free = cells([r for r in rows if not r["cell"]["held"]], "temperature")
    head = ["α (norm)", *(f"temperature {t:g}" for t in temperatures)]
    draw_logit_scale(held)
    return f"""# Norm or logit scale: which makes the delay?

Weight decay shrinks the weights, and with them the logits. Liu et al. 2022 hold the norm of all weights (Omnigrok)
and the delay goes; Khanh 2026 says that it was never the norm, but the effective logit scale (R² = 0.97). Here the
norm is held at α times that of usual first weights, with no decay, and the loss is taken at a temperature, each with
each: the temperature changes the logits that the loss sees and leaves the norm alone.

Addition mod {
        experiments.P
    }, half of the pairs, width 64, AdamW at 0.003. Steps to a sustained 99 % of the test pairs, median
(least – most):

{table(head, steps)}

The delay, sustained less memorised:

{table(["α", *head[1:]], waits)}

Without holding the norm, with decay 1 (α = 1):

{
        table(
            ["", *head[1:]],
            [
                ["sustained", *(steps_of(free.get(t, [])) for t in temperatures)],
                ["delay", *(told(middle([delay(r) for r in free.get(t, [])])) for t in temperatures)],
            ],
        )
    }

Censored at {max(r["steps"] for r in rows):,} steps; `never` is the accuracy then, the median of the seeds.

![Steps to generalise against the norm and against the logit scale](logit-scale.png)

{logit_verdict(held)}

{footer("logit-scale", rows)}"""


def steps_of(runs: Rows) -> str:
    """Median step to 99 %; where no run came to it, how far they came."""
    if not runs or any(r["sustained"] is not None for r in runs):
        return told(middle([r["sustained"] for r in runs]))
    train, test = (100 * np.median([r["last"][f"{split}_accuracy"] for r in runs]) for split in ("train", "test"))
    return f"never: train {train:.0f} %, test {test:.0f} %"


def delay(r: dict[str, Any]) -> float | None:
    return None if r["sustained"] is None or r["memorised"] is None else r["sustained"] - r["memorised"]


def norm_of(by: dict[Any, Rows], alpha: float) -> float:
    return float(np.mean([r["curve"][0][2] for (a, _), runs in by.items() if a == alpha for r in runs]))


def scales_of(r: dict[str, Any]) -> tuple[float, float, float]:
    """(scale at first, scale when it had memorised, norm); of the evaluations that were kept, the next one counts."""
    curve, memorised = r["curve"], r["memorised"]
    then = next((row for row in curve if memorised is not None and row[0] >= memorised), curve[-1])
    return curve[0][1], then[1], curve[0][2]


def explained(held: Rows, what: Callable[[dict[str, Any]], float]) -> dict[str, float]:
    """R² of log steps by log norm, by the log scale at first, and by both."""
    y = np.array([math.log(what(r)) for r in held])
    first, _, norm = np.log(np.array([scales_of(r) for r in held])).T
    found = {"norm": line(norm, y).r2, "scale at first": line(first, y).r2}
    design = np.stack([np.ones_like(y), norm, first], axis=1)
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return found | {"both": 1 - float(np.sum(left**2) / np.sum((y - y.mean()) ** 2))}


def logit_verdict(held: Rows) -> str:
    done = [r for r in held if r["sustained"] is not None]
    by_steps = explained(done, lambda r: r["sustained"])
    waits = [r for r in done if (delay(r) or 0) > 0]
    by_delay = explained(waits, lambda r: delay(r) or 1)
    lines = [[name, f"{by_steps[name]:.2f}", f"{by_delay[name]:.2f}"] for name in by_steps]
    alike = [[f"{low:g} to {high:g}", *(steps_of(near(held, a, low, high)) for a in experiments.ALPHAS)]
             for low, high in ALIKE]  # fmt: skip
    alone = by_steps["scale at first"]
    head = "Mostly the scale." if alone >= 0.6 else "The scale decides, but it is no law by itself."
    return f"""**{head}** At each of the three norms the wait can be made short or endless by the temperature alone:
{"; ".join(best(held, a) for a in experiments.ALPHAS)}. At each norm too large a scale memorises and then waits, and too
small a one does not fit within these steps. So no norm has a delay of its own.

**Not only the scale.** At a like scale the three norms take different times:

{table(["scale before the first step", *(f"α = {a:g}" for a in experiments.ALPHAS)], alike)}

Share of the variance of log steps (and of the log delay) that straight lines in logarithms explain, over the
{len(done)} of {len(held)} runs that generalised; Khanh reports 0.97 for the scale, and 0.01 to 0.02 more for the norm:

{table(["by", "steps to 99 %", "delay"], lines)}

*Scale* is the root mean square of the test logits about each row's mean, over the temperature, before the first step.
The censored runs are not in these shares, and a line is no good description of a window: take the tables before the
shares.

With decay instead of a held norm the temperature matters less between 0.3 and 3 (the third table): decay moves the
norm, and by that the scale, to where it has to be, and takes its time for it."""


ALIKE = ((0.1, 0.2), (0.4, 0.6), (1.4, 1.7))  # scales that more than one norm came to


def near(held: Rows, alpha: float, low: float, high: float) -> Rows:
    return [r for r in held if r["cell"]["alpha"] == alpha and low <= scales_of(r)[0] <= high]


def best(held: Rows, alpha: float) -> str:
    """`α = 1: 195 steps at temperature 3 (scale 0.15)`"""
    by = cells([r for r in held if r["cell"]["alpha"] == alpha], "temperature")
    fastest = min(by, key=lambda t: middle([r["sustained"] for r in by[t]]).median)
    scale = np.mean([scales_of(r)[0] for r in by[fastest]])
    steps = told(middle([r["sustained"] for r in by[fastest]]))
    return f"α = {alpha:g}, {steps} steps at temperature {fastest:g} (scale {scale:.2g})"


TICKS = (100, 200, 500, 1000)


def draw_logit_scale(held: Rows) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for axis, part, label in ((axes[0], 2, "norm of all weights"), (axes[1], 0, "logit scale before the first step")):
        for colour, alpha in zip(COLOURS, experiments.ALPHAS, strict=False):
            mine = [r for r in held if r["cell"]["alpha"] == alpha]
            done = [r for r in mine if r["sustained"] is not None]
            never = [r for r in mine if r["sustained"] is None]
            axis.loglog([scales_of(r)[part] for r in done], [r["sustained"] for r in done], "o", color=colour, ms=5,
                        alpha=0.7, label=f"α = {alpha:g}")  # fmt: skip
            axis.loglog([scales_of(r)[part] for r in never], [r["steps"] for r in never], "^", color=colour, ms=6,
                        mfc="none")  # fmt: skip
        axis.set(xlabel=label)
        axis.set_yticks(TICKS, [f"{step:,}" for step in TICKS])
        axis.minorticks_off()
    norms = [np.mean([scales_of(r)[2] for r in held if r["cell"]["alpha"] == alpha]) for alpha in experiments.ALPHAS]
    axes[0].set_xticks(norms, [f"{norm:.0f}" for norm in norms])
    axes[0].set(ylabel="steps to 99 % (△ not yet)")
    axes[1].legend()
    save(figure, "logit-scale")
