"""Sums of many digits: by place, by carry chain, by data and order."""

from typing import Any

import numpy as np

from pages.common import COLOURS, Rows, cells, footer, number, plt, save, spread, study, table


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
        chains = sorted({n for r in last for n in r if n.startswith("carry_chain_")})
        whole.append(
            [
                *label,
                spread([100 * r["train_accuracy"] for r in last]),
                spread([100 * r["test_accuracy"] for r in last]),
                number(np.median([r["seconds"] for r in runs])),
            ]
        )
        digit_lines.append([*label[:2], *(f"{100 * x:.0f}" for x in digits.mean(axis=0))])
        chain_lines.append([*label[:2], *(f"{100 * np.mean([r.get(n, np.nan) for r in last]):.0f}" for n in chains)])
    draw_addition(by)
    lengths = max((line[2:] for line in chain_lines), key=len)
    return f"""# Sums of four digits: what does one layer learn?

A table mod p can be learnt whole. A sum of four-digit numbers has 10⁸ questions, and its digits hang together by
carries. Nanda et al. 2023 saw grokking in five digits with 700 examples, and none with endless data. One layer,
width 128, learned positions, AdamW at 0.003 and decay 0.3 with a cosine, batches of 256, 1,500 steps; *little*: 700
examples again and again, *endless*: each of 384,000 seen once. 2,000 test sums that share no pair with training. The
digits before the one that is asked are given (teacher forcing); the operands stand in the same order as the sum.

{table(["data", "order", "seeds", "train: whole sums right, %", "test: whole sums right, %", "seconds"], whole)}

Digit by digit, test, %:

{table(["data", "order", *places], digit_lines)}

By the longest carry chain (0: nothing is carried), whole sums right, test, %:

{table(["data", "order", *(f"chain {i}" for i in range(len(lengths)))], chain_lines)}

![Right digits by place, and whole sums by carry chain](addition.png)

{addition_verdict(by)}

{footer("addition", rows)}"""


def addition_verdict(by: dict[Any, Rows]) -> str:
    return ""


def draw_addition(by: dict[Any, Rows]) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", sharey=True)
    for colour, ((data, order), runs) in zip(COLOURS, by.items(), strict=False):
        label = f"{data}, {'units first' if order == 'low_first' else 'as we write'}"
        last = [r["last"] for r in runs]
        digits = 100 * np.mean([r["digits"] for r in last], axis=0)
        axes[0].plot(range(len(digits)), digits, "o-", color=colour, label=label)
        chains = sorted({n for r in last for n in r if n.startswith("carry_chain_")})
        axes[1].plot(range(len(chains)), [100 * np.mean([r.get(n, np.nan) for r in last]) for n in chains], "o-",
                     color=colour)  # fmt: skip
        curve = np.mean([np.array(r["curve"]) for r in runs], axis=0)
        axes[2].plot(curve[:, 0], 100 * curve[:, 2], "-", color=colour)
    axes[0].set(xlabel="place of the digit, units 0", ylabel="right, %")
    axes[1].set(xlabel="longest carry chain")
    axes[2].set(xlabel="step")
    for axis, title in zip(axes, ("digits", "whole sums by carries", "whole sums"), strict=True):
        axis.set_title(title, fontsize=9)
    axes[0].legend(fontsize=7)
    save(figure, "addition")
