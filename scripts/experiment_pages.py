"""docs/experiments/*.md and their figures, from the raw files of scripts/experiments.py and scripts/replication.py.

python scripts/experiment_pages.py                  # all of them
python scripts/experiment_pages.py operations       # one
"""

import argparse
import json
import math
import os
import platform
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from onelayer.studies import grid
from onelayer.studies.statistics import Middle, bootstrap, line, middle
from onelayer.tasks import operations as known_operations

matplotlib.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).parent))
import experiments

HERE = Path(__file__).parent.parent / "docs" / "experiments"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito
plt.rcParams |= {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS), "figure.dpi": 110,
}  # fmt: skip
Rows = list[dict[str, Any]]


# ---------------------------------------------------------------------------------------- words


def number(x: float | None) -> str:
    """As it is said in a table: 7,930 · 0.95 · 5.2e-08 · never."""
    if x is None or not math.isfinite(x):
        return "never"
    if x == round(x) and abs(x) >= 1:
        return f"{x:,.0f}"
    return f"{x:.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def told(m: Middle) -> str:
    """A median, its interval, and how many are censored."""
    if m.n == 0:
        return "–"
    if m.censored == m.n:
        return f"never ({m.n})"
    spread = f" ({number(m.low)} – {number(m.high)})" if m.n > 1 and m.low != m.high else ""
    return f"{number(m.median)}{spread}" + (f", {m.censored} of {m.n} never" if m.censored else "")


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Mean, and from the least to the most."""
    values = list(values)
    return f"{np.mean(values):.{digits}g} ({min(values):.{digits}g} – {max(values):.{digits}g})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        name = next((text.split(":", 1)[1].strip() for text in file if text.startswith("model name")), "")
    versions = ", ".join(f"{package} {version(package)}" for package in ("onelayer", "numpy", "numba"))
    return f"{name or platform.machine()}, {os.cpu_count()} cores shared with other work, one thread; " \
        f"Python {platform.python_version()}, {versions}"  # fmt: skip


def footer(name: str, rows: Rows, more: str = "") -> str:
    """The command, what it cost and where the figures are."""
    cpu, wall = sum(r["cpu_seconds"] for r in rows), sum(r["seconds"] for r in rows)
    seeds = sorted({r["seed"] for r in rows})
    return f"""## Repeat it

```sh
python scripts/experiments.py {name}
python scripts/experiment_pages.py {name}
```

{len(rows)} runs, seeds {", ".join(map(str, seeds))}; {cpu / 60:.0f} minutes of processor time in training
({wall / 60:.0f} by the clock).{more} Machine: {machine()}. Raw figures: [{name}.jsonl]({name}.jsonl).
"""


def study(name: str) -> Rows:
    return grid.read(HERE / f"{name}.jsonl")


def cells(rows: Rows, *names: str) -> dict[Any, Rows]:
    """Rows by the named parts of their cell, in the order in which they come."""
    found: dict[Any, Rows] = {}
    for row in rows:
        key = tuple(row["cell"][name] for name in names)
        found.setdefault(key if len(names) > 1 else key[0], []).append(row)
    return found


def seconds(rows: Rows) -> str:
    return told(middle([r["seconds_sustained"] for r in rows]))


def wrapped(text: str) -> str:
    """Paragraphs and list items in lines of at most 120; tables, code and headings as they are."""
    blocks, code = [], False
    for block in text.split("\n\n"):
        fences = block.count("```")
        if not (code or fences or block.lstrip().startswith(("|", "#", "!["))):
            items = block.replace("\n- ", "\0- ").split("\0")
            block = "\n".join(textwrap.fill(" ".join(item.split()), 120, subsequent_indent="  " * item.startswith("- "),
                              break_long_words=False, break_on_hyphens=False) for item in items)  # fmt: skip
        code ^= fences % 2 == 1
        blocks.append(block)
    return "\n\n".join(blocks).rstrip("\n") + "\n"


def save(figure: Any, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", dpi=110)
    plt.close(figure)


# ---------------------------------------------------------------------------------------- replication


def replication() -> str | None:
    rows = json.loads((HERE / "replication.json").read_text("utf-8"))
    value = lambda r, name: r["measures"][name]["value"]  # noqa: E731
    control = lambda r, name: r["measures"][name]["control"]  # noqa: E731
    heads = [x for r in rows for x in value(r, "attention_periodicity").values()]
    by_keys = [x for r in rows for x in r["attention_by_keys"].values()]
    ones = [loss for r in rows for loss in value(r, "excluded_by_frequency").values()]
    draw_replication(rows)

    def steps(name: str) -> str:
        return told(middle([r[name] for r in rows]))

    def phase(name: str, end: int) -> str:
        return told(middle([r["phases"][name][end] for r in rows if r["phases"][name]]))

    def read(name: str, digits: int = 3) -> str:
        return spread((value(r, name) for r in rows), digits)

    def untrained(name: str) -> str:
        return f"{np.mean([control(r, name) for r in rows]):.2g}"

    waves = [x for r in rows for x in value(r, "readout_variance_explained").values()]
    selves = [x for r in rows for x in value(r, "self_attention").values()]
    counts = [len(r["key_frequencies"]) for r in rows]
    full = [value(r, "full_loss")["all"] for r in rows]
    gained = [1 - value(r, "restricted_loss") / value(r, "full_loss")["all"] for r in rows]
    key_table = table(
        ["what", "published", f"ours, mean of {len(rows)} seeds (least – most)", "untrained", "agrees"],
        [
            ["key frequencies", "5 in the main run, 3 to 4 in others", ", ".join(map(str, counts)) + " (each seed)",
             "–", f"{sum(3 <= n <= 5 for n in counts)} of {len(rows)} seeds"],
            ["variance of the logits in their cosines", "0.95", read("cosine_variance_explained"),
             untrained("cosine_variance_explained"), verdict(rows, "cosine_variance_explained", 0.95, 0.05)],
            ["neurons with > 0.85 of their variance at one frequency", "0.846", read("neuron_specialisation"),
             untrained("neuron_specialisation"), verdict(rows, "neuron_specialisation", 0.846, 0.05)],
            ["attention periodic in one frequency, R² of a head", "0.979 to 0.991", spread(heads),
             f"{np.mean([x for r in rows for x in control(r, 'attention_periodicity').values()]):.2g}",
             f"{sum(h >= 0.95 for h in heads)} of {len(heads)} heads ≥ 0.95"],
            ["… in all key frequencies together", "–", spread(by_keys), "–", "–"],
            ["attention of `=` on itself", "0.001 to 0.004", spread(selves, 2),
             f"{np.mean([x for r in rows for x in control(r, 'self_attention').values()]):.2g}",
             "yes" if all(x <= 0.006 for x in selves) else "partly"],
            ["W_L on the key directions", "> 0.9945", read("logit_map_key_share", 4), untrained("logit_map_key_share"),
             f"{sum(value(r, 'logit_map_key_share') > 0.9945 for r in rows)} of {len(rows)} seeds"],
            ["read out along a key wave, R²", "0.932 to 0.982", spread(waves), "0",
             f"{sum(x >= 0.93 for x in waves)} of {len(waves)} waves"],
            ["loss over all pairs", "2.4e-7", spread(full, 2), "4.8", "–"],
            ["restricted loss", "5.5e-8, 77 % less",
             f"{read('restricted_loss', 2)}: {100 * np.mean(gained):.0f} % less", f"{untrained('restricted_loss')}",
             "yes" if min(gained) > 0 else "not in every seed"],
            ["excluded loss, at the end", "6.5 to 11", read("excluded_loss"), untrained("excluded_loss"),
             "yes" if all(6 <= value(r, "excluded_loss") <= 11 for r in rows) else "partly"],
            ["norm of all weights: at first, at most, at last", "42.8, 60.8, 30.3 (Omnigrok's run)",
             ", ".join(f"{np.mean([r['norm'][x] for r in rows]):.1f}" for x in ("first", "largest", "last")),
             "–", "yes"],
        ],
    )  # fmt: skip
    rising = [rising_and_falling(r) for r in rows]
    return f"""# The published network, {len(rows)} seeds

Nanda, Chan, Lieberum, Smith & Steinhardt 2023 (arXiv:2301.05217) took one network apart: addition mod 113 from 30 % of
the pairs. How much of what they saw in it holds for other seeds, in other code? Recipe `nanda-2023`, trained on past
its clean-up to step {rows[0]["last_step"]:,}; float32, the loss in float64.

{key_table}

A measure's definition stands in [the table of measures](../grokking.md); *untrained* is the same measure of the network
before its first step, the mean of the seeds.

| step of | published | ours, median (least – most) |
| --- | --- | --- |
| train loss < 0.01 | 275 | {steps("train_loss_0.01")} |
| test loss < 0.1 | 7,930 (saved sweep), 9,300 (main run) | {steps("test_loss_0.1")} |
| test loss < 0.01 | 9,880 | {steps("test_loss_0.01")} |
| test accuracy ≥ 99 %, sustained | – | {steps("sustained")} |
| memorising ends, circuits begin | 1,400 | {phase("memorising", 1)} |
| clean-up begins | 9,400 | {phase("clean_up", 0)} |
| clean-up ends | 14,000 | {phase("clean_up", 1)} |

The phases' ends are found by a rule (docs/grokking.md), theirs were read off by eye; excluded loss is measured at
checkpoints, 250 steps apart. The lowest test accuracy of any seed after it had first crossed 99 % was \
{min(r["lowest_after"] for r in rows):.4f}: none fell back.

![Losses, restricted and excluded loss, and the weights' norm of every seed](replication.png)

*Every seed a thin line; the grey lines are the ends of the phases, medians of the seeds. What rises and falls
does so in the same order in each.*

## Excluded rises while restricted falls

In {sum(rising)} of {len(rows)} seeds, between the end of memorising and the beginning of clean-up, the restricted loss
falls at every checkpoint and the excluded loss rises from {spread([first_last(r)[0] for r in rows], 2)} to
{spread([first_last(r)[1] for r in rows], 2)}, while the test loss stays above half of its maximum: the circuit that
generalises grows long before the accuracy shows it. The control, as many directions along the differences a − b taken
away, leaves the training loss at {spread([value(r, "excluded_quotient_loss") for r in rows], 2)}.

## What does not agree, and why it may not

- **Earlier.** The seeds generalise at {steps("test_loss_0.1")} steps, the published runs at 7,930 to 9,300. The recipe
  is the same; the first weights, the split and the precision of everything but the loss are not. Which of these it is was
  not tried.
- **Attention.** One frequency explains a head less well than published: {sum(h < 0.95 for h in heads)} of {len(heads)}
  heads lie below 0.95. With all key frequencies the same heads reach {spread(by_keys)}: these heads attend to several
  frequencies, which one wave cannot show.
- **One frequency taken away** costs {spread(ones, 2)} nats on the training pairs, all of them together
  {read("excluded_loss")}. The published 6.5 to 11 is matched by the latter alone; which of the two it names could not
  be read again here.
- **Neurons.** {read("neuron_specialisation")} of the neurons are above 0.85. The mean share at a neuron's own
  frequency is
  {read("neuron_variance_explained")}; what lies below the bound is mostly near it.

Key frequencies by seed: {"; ".join(f"{r['seed']}: {', '.join(map(str, r['key_frequencies']))}" for r in rows)}. They
differ from seed to seed; the algorithm does not.

Gradient symmetricity {read("gradient_symmetricity")} and distance irrelevance {read("distance_irrelevance")}: between
"pizza" (0.99, 0.17) and "clock" (0.33, 0.85), nearer to the clock (Zhong et al. 2023).

## Repeat it

```sh
export OMP_NUM_THREADS=1 XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
pinned=$(python -c "print(sorted({{0,10,20,50,100,150,200,300,400,*range(500,14001,250)}}))")
for seed in {" ".join(str(r["seed"]) for r in rows)}; do
  onelayer grok --recipe nanda-2023 --seed $seed --engine jax --steps {rows[0]["last_step"]} --no-report \\
    --set stop.on=none --set "checkpoint.pinned=$pinned" --out runs/nanda-$seed
done
python scripts/replication.py runs/nanda-?
python scripts/experiment_pages.py replication
```

JAX on one thread: 38 ms of processor time a step where NumPy with kernels took 46; evaluations, every 50 steps, are 2 %
of it. By the clock {", ".join(f"{r['seconds']:,}" for r in rows)} seconds, on a machine that grew busy after the first.
Machine: {machine()}.
Raw figures: [replication.json](replication.json).
"""


def verdict(rows: Rows, name: str, published: float, margin: float) -> str:
    near = sum(r["measures"][name]["value"] >= published - margin for r in rows)
    return "yes" if near == len(rows) else f"{near} of {len(rows)} seeds within {margin:g}"


def between(r: dict[str, Any]) -> np.ndarray:
    """Which checkpoints lie in circuit formation."""
    steps = np.array(r["progress"]["step"])
    begin, end = r["phases"]["circuit_formation"]
    return (steps >= begin) & (steps <= end)


def first_last(r: dict[str, Any]) -> tuple[float, float]:
    excluded = np.array(r["progress"]["excluded_loss"])[between(r)]
    return float(excluded[0]), float(excluded[-1])


def rising_and_falling(r: dict[str, Any]) -> bool:
    inside = between(r)
    excluded, restricted = (np.diff(np.array(r["progress"][n])[inside]) for n in ("excluded_loss", "restricted_loss"))
    return bool(np.all(excluded > 0) and np.all(restricted < 0))


def draw_replication(rows: Rows) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharex=True)
    for i, r in enumerate(rows):
        p, first = r["progress"], i == 0
        for axis, names in zip(axes, (("train_loss", "test_loss"), ("restricted_loss", "excluded_loss")), strict=True):
            for name, colour in zip(names, COLOURS, strict=False):
                label = name.replace("_", " ") if first else None
                axis.plot(p["step"], p[name], color=colour, lw=1, alpha=0.8, label=label)
    for axis in axes:
        edges = [np.median([r["phases"][n][e] for r in rows if r["phases"][n]]) for n, e in
                 (("memorising", 1), ("clean_up", 0), ("clean_up", 1))]  # fmt: skip
        for edge in edges:
            axis.axvline(edge, color="0.75", lw=0.8, zorder=0)
        for name, left, right in zip(("memorising", "circuits form", "clean-up", "after"), [0, *edges],
                                     [*edges, rows[0]["last_step"]], strict=True):  # fmt: skip
            axis.text((left + right) / 2, 1.01, name, transform=axis.get_xaxis_transform(), ha="center", fontsize=7)
        axis.set(yscale="log", xlabel="step", ylabel="nats")
        axis.legend(loc="lower left")
    save(figure, "replication")


# ---------------------------------------------------------------------------------------- every operation


def operations() -> str:
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
pairs), but for groups, for `x xor y` (64) and where another p is named. {min(n)} to {max(n)} seeds; split and first
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
- {len(rows)} runs of {sum(1 for _ in experiments.operations(range(3), HERE / "operations.jsonl"))} or so that three
  seeds would be.

## Is it the recipe?

The recipe is `fastest` at half its rate and twice its decay, over 120 steps; `fastest` itself was tuned to x + y and
fails on x − y at half of the table. So the verdicts at 70 % were taken again with AdamW (`default`: rate 0.01, decay
1, no schedule), which has five times as many steps:

{table(["operation", "quick recipe", "AdamW", "AdamW, to 99 %", "AdamW, steps"], agree) if agree else "(not yet run)"}

{footer("operations", rows)}"""


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
    return f"""- Learnt from 30 % of the table: {", ".join(among(0, 0.3)) or "none"}.
- From 50 %: {", ".join(among(0.5, 0.5)) or "none"}. From 70 %: {", ".join(among(0.7, 0.7)) or "none"}.
  From 90 %: {", ".join(among(0.9, 0.9)) or "none"}.
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


# ---------------------------------------------------------------------------------------- the fraction

PUBLISHED_SWEEP = {0.8: 252, 0.7: 222, 0.6: 440, 0.5: 956, 0.4: 3109, 0.3: 7930}


def fraction() -> str:
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

{fraction_verdict(slow, fast)}

{footer("fraction", rows)}"""


def fraction_verdict(slow: dict[float, list[Any]], fast: dict[float, list[Any]]) -> str:
    ratios = [middle(slow[f]).median / middle(fast[f]).median for f in slow if f in fast]
    off = [middle(slow[f]).median / PUBLISHED_SWEEP[f] for f in slow]
    steep = line([math.log(f) for f in fast], [math.log(middle(fast[f]).median) for f in fast])
    published_steep = line([math.log(f) for f in fast], [math.log(PUBLISHED_SWEEP[f]) for f in fast])
    within = max(*off, *(1 / x for x in off))
    return f"""The published sweep is reproduced at its own rate within a factor of {within:.2f}
at each of the {len(off)} fractions. Ten times the rate takes {min(ratios):.1f} to {max(ratios):.1f} times fewer
steps, as the [decay law](decay-law.md) says where the delay is long, and less where there is hardly a delay to
shorten. Between 80 % and 30 % the steps grow as the share to the power {steep.b:.1f} (published:
{published_steep.b:.1f}): no threshold, a steep slope."""


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


# ---------------------------------------------------------------------------------------- the decay law


def decay_law() -> str:
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

Steps are medians (least – most of the seeds), the last but one column means.

![Steps to a test loss below 0.01 against rate times decay](decay-law.png)

{decay_verdict(points)}

{footer("decay-law", rows)}"""


def decay_verdict(points: list[tuple[float, float, float, float]]) -> str:
    def slope(data: np.ndarray) -> float:
        return line(np.log(data[:, 0] * data[:, 1]), np.log(data[:, 2])).b

    def fitted(data: Sequence[tuple[float, ...]]) -> str:
        low, high = bootstrap(data, slope)
        return f"{slope(np.asarray(data)):.2f} (95 % by bootstrap over runs: {low:.2f} to {high:.2f})"

    by_decay, by_rate = [p for p in points if p[0] == 1e-3], [p for p in points if p[1] == 1.0]
    slowest = [p for p in points if p[0] * p[1] <= 1.01e-3]
    constants = [p[0] * p[1] * p[2] for p in slowest]
    return f"""The exponent of t in rate · decay, where the law says −1:

- decay moved, rate 10⁻³: {fitted(by_decay)}
- rate moved, decay 1: {fitted(by_rate)}
- those of both with a product of at most 10⁻³: {fitted(slowest)}; the product with t is {spread(constants, 2)}

Its value is no constant of nature: here, with half of a smaller table shown, it is a tenth or less of the published
9.9, since less has to be unlearnt."""


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


# ---------------------------------------------------------------------------------------- norm or logit scale


def logit_scale() -> str:
    rows = study("logit-scale")
    held = [r for r in rows if r["cell"]["held"]]
    by = cells(held, "alpha", "temperature")
    alphas, temperatures = experiments.ALPHAS, experiments.TEMPERATURES
    steps = [[f"{a:g} ({norm_of(by, a):.1f})", *(told(middle([r["sustained"] for r in by.get((a, t), [])]))
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
                ["sustained", *(told(middle([r["sustained"] for r in free.get(t, [])])) for t in temperatures)],
                ["delay", *(told(middle([delay(r) for r in free.get(t, [])])) for t in temperatures)],
            ],
        )
    }

Censored at {held[0]["steps"] if not held else 2000:,} steps.

![Steps to generalise against the norm and against the logit scale](logit-scale.png)

{logit_verdict(held)}

{footer("logit-scale", rows)}"""


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
    return f"""Share of the variance of log steps (and of the log delay, where there is one) that straight lines in
logarithms explain, over the {len(done)} of {len(held)} runs that generalised ({len(waits)} with a delay):

{table(["by", "steps to 99 %", "delay"], lines)}

*Scale at first* is the root mean square of the test logits about each row's mean, over the temperature, before the
first step. Censored runs are not in these figures, which flatters all three alike."""


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
        axis.minorticks_off()
    axes[0].set(ylabel="steps to 99 % (△ not yet)")
    axes[1].legend()
    save(figure, "logit-scale")


# ---------------------------------------------------------------------------------------- optimizers


def optimizers() -> str:
    rows = study("optimizers")
    by = cells(rows, "optimizer")

    def read(runs: Rows, name: str) -> str:
        return spread([r["frequencies"][name] for r in runs])

    lines = [
        [name, f"{len(runs)}", *(told(middle([r[what] for r in runs])) for what in ("memorised", "sustained")),
         seconds(runs), ", ".join(str(int(r["frequencies"]["key_frequencies"])) for r in runs),
         read(runs, "effective_frequencies"), read(runs, "effective_pairs"), read(runs, "sum_share"),
         read(runs, "neuron_specialisation")]
        for name, runs in by.items()
    ]  # fmt: skip
    control = [r["untrained"] for r in rows]
    lines.append(["*untrained*", f"{len(rows)}", "–", "–", "–", "–",
                  *(spread([c[n] for c in control]) for n in
                    ("effective_frequencies", "effective_pairs", "sum_share", "neuron_specialisation"))])  # fmt: skip
    head = ["optimizer", "seeds", "memorised", "sustained", "seconds to 99 %", "key frequencies"]
    head += ["effective frequencies", "effective pairs", "sum share", "neurons > 0.85"]
    draw_optimizers(by)
    return f"""# Optimizers: do Muon's solutions use few frequencies?

"A handful of key frequencies" is what AdamW with weight decay finds. Fu 2026 reports (two blocks, p = 97, 40 %) that
0.88 to 0.92 of the varying residual stream of AdamW's networks is a function of the sum, in an effective 2.7 to 2.9
pairs of frequencies, and of Muon's 0.19 to 0.46, in some 300 to 390. Is that so in one layer?

Addition mod 97 from 40 % of the pairs, one block without norm, width 128; each run went on to twice the step at which
it had sustained 99 %.

{table(head, lines)}

- *effective frequencies*: exp of the entropy of the last residual stream's energy over the frequencies of the sum (48
  are possible)
- *effective pairs*: the same over all pairs of a frequency of a with one of b, Fu's figure as we understand it
- *sum share*: how much of the varying residual stream is a function of a + b at all
- *key frequencies*: of the logits, by the rule of [grokking](../grokking.md)

![Key and effective frequencies by optimizer](optimizers.png)

{optimizers_verdict(by)}

{footer("optimizers", rows)}"""


def optimizers_verdict(by: dict[str, Rows]) -> str:
    def mean(name: str, what: str) -> float:
        return float(np.mean([r["frequencies"][what] for r in by[name]]))

    adam, all_, hidden = "AdamW", "Muon, every matrix", "Muon, hidden matrices"
    names = [n for n in (adam, all_, hidden) if n in by]
    return "\n".join(
        f"- {n}: {mean(n, 'key_frequencies'):.1f} key frequencies, {mean(n, 'effective_pairs'):.0f} effective pairs, "
        f"{100 * mean(n, 'sum_share'):.0f} % of the stream a function of the sum." for n in names
    )  # fmt: skip


def draw_optimizers(by: dict[str, Rows]) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained", sharey=True)
    for axis, what, label in zip(
        axes, ("key_frequencies", "effective_pairs", "sum_share"),
        ("key frequencies of the logits", "effective pairs of frequencies", "share of the stream that is the sum's"),
        strict=True,
    ):  # fmt: skip
        for y, runs in enumerate(by.values()):
            values = [r["frequencies"][what] for r in runs]
            axis.plot(values, [y] * len(values), "o", color=COLOURS[0], alpha=0.7)
            control = [r["untrained"][what] for r in runs]
            if what != "key_frequencies":
                axis.plot(control, [y] * len(control), "|", color="0.6", ms=10)
        axis.set(xlabel=label, yticks=range(len(by)), yticklabels=list(by), ylim=(len(by) - 0.5, -0.5))
        axis.set_xscale("log" if what == "effective_pairs" else "linear")
        axis.grid(axis="x", color="0.9")
    save(figure, "optimizers")


# ---------------------------------------------------------------------------------------- sums of many digits


def addition() -> str:
    rows = study("addition")
    by = cells(rows, "data", "order")
    places = ("units", "tens", "hundreds", "thousands", "ten thousands", "carry out")
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
    return f"""# Sums of five digits: what does one layer learn?

A table mod p can be learnt whole. A sum of five-digit numbers has 10¹⁰ questions, and its digits hang together by
carries. Nanda et al. 2023 saw grokking in it with 700 examples, and none with endless data. One layer, width 128,
learned positions, AdamW at 0.003 and decay 0.3 with a cosine, batches of 256, 3,000 steps; *little*: 700 examples
again and again, *endless*: each of 768,000 seen once. 2,000 test sums that share no pair with training. The digits
before the one that is asked are given (teacher forcing); the operands stand in the same order as the sum.

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


# ---------------------------------------------------------------------------------------- all


PAGES: dict[str, Callable[[], str | None]] = {
    "replication": replication, "operations": operations, "fraction": fraction, "decay-law": decay_law,
    "logit-scale": logit_scale, "optimizers": optimizers, "addition": addition,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="The pages of the experiments, from their raw files.")
    parser.add_argument("pages", nargs="*", help="these alone")
    for name in parser.parse_args().pages or [name for name in PAGES if (HERE / f"{name}.jsonl").exists()]:
        text = PAGES[name]()
        if text is not None:
            (HERE / f"{name}.md").write_text(wrapped(text), encoding="utf-8")
            print(HERE / f"{name}.md")


if __name__ == "__main__":
    main()
