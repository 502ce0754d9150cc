"""In how many frequencies each optimizer's solution lives."""

import experiments
import numpy as np

from onelayer.studies.statistics import middle
from pages.common import COLOURS, Rows, cells, footer, plt, save, seconds, spread, study, table, told


def page() -> str:
    rows = study("optimizers")
    by = cells(rows, "optimizer")

    def read(runs: Rows, name: str) -> str:
        return spread([r["frequencies"][name] for r in runs])

    lines = [
        [name, f"{len(runs)}", *(told(middle([r[what] for r in runs])) for what in ("memorised", "sustained")),
         f"{100 * right(runs):.1f}", seconds(runs),
         ", ".join(str(int(r["frequencies"]["key_frequencies"])) for r in runs),
         read(runs, "effective_frequencies"), read(runs, "effective_pairs"), read(runs, "sum_share"),
         read(runs, "neuron_specialisation")]
        for name, runs in by.items()
    ]  # fmt: skip
    control = [r["untrained"] for r in rows]
    lines.append(["*untrained*", f"{len(rows)}", "–", "–", "–", "–", "–",
                  *(spread([c[n] for c in control]) for n in
                    ("effective_frequencies", "effective_pairs", "sum_share", "neuron_specialisation"))])  # fmt: skip
    head = ["optimizer", "seeds", "memorised", "sustained", "test at the end, %", "seconds to 99 %", "key frequencies"]
    head += ["effective frequencies", "effective pairs", "sum share", "neurons > 0.85"]
    draw_optimizers(by)
    return f"""# Optimizers: do Muon's solutions use few frequencies?

"A handful of key frequencies" is what AdamW with weight decay finds. Fu 2026 reports (two blocks, p = 97, 40 %) that
0.88 to 0.92 of the varying residual stream of AdamW's networks is a function of the sum, in an effective 2.7 to 2.9
pairs of frequencies, and of Muon's 0.19 to 0.46, in some 300 to 390. Is that so in one layer?

Addition mod {experiments.P} from half of the pairs, one block without norm, width 128; each run went on to twice
the step at which it had sustained 99 %.

{table(head, lines)}

- *effective frequencies*: exp of the entropy of the last residual stream's energy over the frequencies of the sum
  ({experiments.P // 2} are possible)
- *effective pairs*: the same over all pairs of a frequency of a with one of b, Fu's figure as we understand it
- *sum share*: how much of the varying residual stream is a function of a + b at all
- *key frequencies*: of the logits, by the rule of [grokking](../grokking.md)

![Key and effective frequencies by optimizer](optimizers.png)

{optimizers_verdict(by)}

{footer("optimizers", rows)}"""


def right(runs: Rows) -> float:
    """Of the test pairs, at the last step: the median of the seeds."""
    return float(np.median([r["last"]["test_accuracy"] for r in runs]))


def optimizers_verdict(by: dict[str, Rows]) -> str:
    def mean(name: str, what: str) -> float:
        return float(np.mean([r["frequencies"][what] for r in by[name]]))

    def said(name: str) -> str:
        return (f"- {name}: {mean(name, 'key_frequencies'):.1f} key frequencies of {experiments.P // 2}, "
                f"{mean(name, 'effective_pairs'):.0f} effective pairs, {100 * mean(name, 'sum_share'):.0f} % of the "
                "stream a function of the sum")  # fmt: skip

    solved = [name for name in by if right(by[name]) >= 0.99]
    others = [f"{name} ({100 * right(by[name]):.0f} %)" for name in by if name not in solved]
    return f"""{chr(10).join(said(name) for name in solved)}

**No: few frequencies are a matter of how one trains, not of the task.** The same net, task and split is right on
the test pairs with a few waves, if the steps are AdamW's, and with most of those there are, if they are Muon's, which
moves all directions of a matrix at the same rate. AdamW at constant norm, without decay, comes to few as well: it is
not the decay that makes them few. The direction of Fu's figures is confirmed in one layer; their size hangs on p, and
is not compared. What is not right on the test pairs at its end says less about solutions and stands here for
completeness: {"; ".join(others)}. The rates of Fu 2026 were made for a normed net of two blocks."""


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
