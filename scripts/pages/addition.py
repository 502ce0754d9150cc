"""Sums of many digits: by place, by carry chain, by data and order."""

from typing import Any

import numpy as np

from onelayer.studies.statistics import middle
from pages.common import COLOURS, Rows, cells, footer, number, plt, save, spread, study, table, told


def page() -> str:
    rows = study("addition")
    by = cells(rows, "data", "order")
    places = ("units", "tens", "hundreds", "thousands", "carry out")
    words = {"low_first": "units first", "high_first": "as we write"}
    digit_lines, chain_lines, whole = [], [], []
    for (data, order), runs in by.items():
        label = [data, words[order], f"{len(runs)}"]
        last = [r["last"] for r in runs]
        digits = np.array([r["digits"] for r in last])
        whole.append(
            [
                *label,
                spread([100 * r["train_accuracy"] for r in last]),
                spread([100 * r["test_accuracy"] for r in last]),
                *(told(middle([r[name] for r in runs])) for name in ("memorised", "sustained")),
                number(np.median([r["cpu_seconds"] for r in runs])),
            ]
        )
        digit_lines.append([*label[:2], *(f"{100 * x:.0f}" for x in digits.mean(axis=0))])
        chain_lines.append([*label[:2], *(f"{x:.0f}" if np.isfinite(x) else "–" for x in by_chain(runs))])
    draw_addition(by)
    return f"""# Sums of four digits: what does one layer learn?

A table mod p can be learnt whole. A sum of four-digit numbers has 10⁸ questions, and its digits hang together by
carries. Nanda et al. 2023 saw grokking in five digits with 700 examples, and none with endless data. One layer,
width 128, learned positions, AdamW at 0.003 and decay 0.3 with a cosine, batches of 256, 1,500 steps; *little*: 700
examples again and again, *endless*: each of 384,000 seen once. 2,000 test sums that share no pair with training. The
digits before the one that is asked are given (teacher forcing); the operands stand in the same order as the sum.

{
        table(
            [
                "data",
                "order",
                "seeds",
                "train: whole sums right, %",
                "test: whole sums right, %",
                "train 99 % at step",
                "test 99 % at step",
                "processor seconds",
            ],
            whole,
        )
    }

Digit by digit, test, %:

{table(["data", "order", *places], digit_lines)}

By the longest carry chain (0: nothing is carried; 4 is too rare to be in every test split), whole sums right, test, %:

{table(["data", "order", *(f"chain {i}" for i in range(LONGEST + 1))], chain_lines)}

![Right digits by place, and whole sums by carry chain](addition.png)

{addition_verdict(by)}

{footer("addition", rows)}"""


def addition_verdict(by: dict[Any, Rows]) -> str:
    def right(data: str, order: str) -> str:
        return spread([100 * r["last"]["test_accuracy"] for r in by[data, order]])

    def step(data: str, order: str, name: str) -> str:
        return told(middle([r[name] for r in by[data, order]]))

    worst = [by_chain(by[data, "high_first"]) for data in ("little", "endless")]
    falls = [f"{100 - x[0]:.1f} % of the sums without a carry and {100 - x[3]:.0f} % of those with a chain of 3"
             for x in worst]  # fmt: skip
    return f"""## What it says

- **The order decides.** Units first, each digit hangs on two digits and on the one carry that the sum so far tells:
  {right("little", "low_first")} % of unseen sums from 700 examples. As we write, the first digit hangs on all carries
  below it, which no token has said yet: {right("little", "high_first")} %.
- **Little data, units first, is learnt and not memorised:** 700 sums of 10⁸, and the rest follow. Training is known at
  {step("little", "low_first", "memorised")} steps, the unseen sums at {step("little", "low_first", "sustained")}: a
  delay, as in a table mod p, where endless data has none ({step("endless", "low_first", "memorised")} and
  {step("endless", "low_first", "sustained")}).
- **Carries are what is missing.** As we write it gets wrong: from little data {falls[0]};
  from endless data {falls[1]}."""


LONGEST = 4


def by_chain(runs: Rows) -> list[float]:
    """Whole sums right, %, by the longest carry chain; nan where no test split had one so long."""
    found = [[r["last"][name] for r in runs if name in r["last"]]
             for name in (f"carry_chain_{n}_accuracy" for n in range(LONGEST + 1))]  # fmt: skip
    return [100 * float(np.mean(values)) if values else np.nan for values in found]


def draw_addition(by: dict[Any, Rows]) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
    styles = zip(COLOURS, ("o-", "s--", "^-", "D--"), by.items(), strict=False)
    for colour, style, ((data, order), runs) in styles:
        label = f"{data}, {'units first' if order == 'low_first' else 'as we write'}"
        digits = 100 * np.mean([r["last"]["digits"] for r in runs], axis=0)
        axes[0].plot(range(len(digits)), digits, style, color=colour, label=label, ms=4)
        axes[1].plot(range(LONGEST + 1), by_chain(runs), style, color=colour, ms=4)
        curve = np.mean([np.array(r["curve"]) for r in runs], axis=0)
        axes[2].plot(curve[:, 0], 100 * curve[:, 2], style[1:], color=colour)
    axes[0].set(xlabel="place of the digit, units 0", ylabel="right, %")
    axes[1].set(xlabel="longest carry chain", xticks=range(LONGEST + 1))
    axes[2].set(xlabel="step")
    for axis, title in zip(axes, ("digits", "whole sums by carries", "whole sums"), strict=True):
        axis.set_title(title, fontsize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(figure, "addition")
