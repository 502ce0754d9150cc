"""The causal checks over seeds: what a network needs, and what it only has."""

import re
from pathlib import Path
from typing import Any

import causal
import numpy as np

from onelayer.grokking.interventions import ABLATED
from onelayer.studies.statistics import middle
from pages.common import COLOURS, Rows, cells, footer, number, plt, save, study, table, told

UNCHANGED, WHOLE = "unchanged", "whole network"
UNIFORM = float(np.log(causal.P))
GIVEN = (causal.OWN, causal.FROZEN, causal.GIVEN, causal.SHUFFLED)


def page() -> str:
    rows = whole(study("causal"))
    by = cells(rows, "kind")
    n = len(by[UNCHANGED])
    lacking = f"\n**Not whole yet:** {n} of {causal.SEEDS} planned seeds.\n" if n < causal.SEEDS else ""
    draw(by)
    return f"""# What does the network need? Interventions over seeds
{lacking}
The commands are those of [causal checks](../causal.md): cut something out, freeze it, take decay or data away, give it
to another network. x + y mod {causal.P} from half of the table, d_model 64, d_mlp 128, AdamW at 0.003 with weight decay
1, {causal.LEARNT:,} steps; the NumPy engine in float32. Median (least – most) over {n} seeds throughout.

The networks unchanged: 99 % of the training pairs are answered from step {each(by, UNCHANGED, "memorised")} on, 99 % of
the test pairs from step {each(by, UNCHANGED, "sustained")} on. Key frequencies at step {causal.LEARNT:,}:
{"; ".join(", ".join(map(str, r["frequencies"])) for r in by[UNCHANGED])}.

## Does it live by its key frequencies?

At step {causal.LEARNT:,}. *Others*: as many other frequencies, the mean of five draws. A uniform guess has a loss of
{UNIFORM:.2f}.

{cut_table(by)}

{cut_verdict(by)}

## What does it still need at step {causal.MEMORISED}?

Branches off step {causal.MEMORISED} to step {causal.LEARNT:,}, the optimizer's state kept; *never* is not up to there,
and 99 % is the first of five evaluations in a row.

{branch_table(by)}

![Test accuracy of the branches and of the networks with given embeddings, step by step](causal.png)

{branch_verdict(by)}

How far the circuit is: the key frequencies, how much of the logits' variance their cosines make, the loss of these
frequencies alone over all pairs, and the share of neurons with more than .85 of their variance at one frequency.

{circuit_table(by)}

{circuit_verdict(by)}

## Does it unlearn with less data?

From step {causal.LEARNT:,} on it is shown {100 * causal.LESS:.0f} % of the table in the place of 50 %, for
{causal.LONGER:,} steps. Accuracy on the pairs that it never trained on: {each(by, "less data", "before_unseen")}
before, {each(by, "less data", "after_unseen")} after; on those that it is shown,
{each(by, "less data", "after_train")}. At which share it forgets is asked in [critical-data](critical-data.md).

## Are the circles enough?

Networks of other seeds, on the same splits. The embedding is the network's own; or frozen as it is before the first
step; or frozen with the key circles of the network above in it, their constant, and nothing else; or these with the
numbers on them shuffled: as large and as round, each number in a wrong place.

{given_table(by)}

{given_verdict(by)}

## Norm or scale of the logits?

The loss of the trained network with all its weights multiplied by .5 to 2 and its logits by .1 to 4. Of the variance of
the test loss's logarithm over that grid, the norm alone explains {each(by, "rescale", "norm")}, the scale of the logits
alone {each(by, "rescale", "scale")}, both together the rest, {each(by, "rescale", "both")}. {scale_verdict(by)} That is
no answer to the question about the delay, for a network whose weights are multiplied computes something else:
[logit-scale](logit-scale.md) asks it by training.

{ending(rows)}"""


def ending(rows: Rows) -> str:
    text = footer("causal", rows).replace("scripts/experiments.py causal", "scripts/causal.py")
    return text.replace(f"{len(rows)} runs", f"{len(rows)} interventions")


def whole(rows: Rows) -> Rows:
    """Of the seeds of which everything is in, in their order: what is told of pairs is paired by seed."""
    kinds = set(causal.Networks(Path(), 0).lines())
    seeds = [seed for seed in sorted({r["seed"] for r in rows})
             if {r["cell"]["kind"] for r in rows if r["seed"] == seed} >= kinds]  # fmt: skip
    return [r for seed in seeds for r in rows if r["seed"] == seed]


def of(by: dict[str, Rows], kind: str, name: str) -> list[Any]:
    return [r[name] for r in by[kind]]


def each(by: dict[str, Rows], kind: str, name: str) -> str:
    return told(middle(of(by, kind, name)))


def count(hits: list[bool]) -> str:
    return f"{'all' if all(hits) else 'none' if not any(hits) else sum(hits)} of {len(hits)}"


# ---------------------------------------------------------------------------------------------------- cut


def cut(by: dict[str, Rows], where: str, what: str, name: str) -> list[float]:
    """A figure of each seed. what: removed, alone, or others removed, others alone."""
    pattern = re.compile(what if not what.startswith("others") else what.replace("others", r"\d+ others?"))
    return [next(x[name] for x in r["rows"] if x["where"] == where and pattern.fullmatch(x["what"]))
            for r in by["ablations"]]  # fmt: skip


def cut_table(by: dict[str, Rows]) -> str:
    wanted = [("", WHOLE), *((place, what) for place in ABLATED
              for what in ("removed", "others removed", "alone", "others alone"))]  # fmt: skip
    names = ("train_loss", "test_loss", "test_accuracy")
    lines = [[place or "–", what.replace("alone", "kept alone") if place else what,
              *(told(middle(cut(by, place, what, name))) for name in names)] for place, what in wanted]  # fmt: skip
    return table(["cut in", "key frequencies", "train loss", "test loss", "test accuracy"], lines)


def cut_verdict(by: dict[str, Rows]) -> str:
    whole = cut(by, "", WHOLE, "test_loss")

    def better(place: str) -> str:
        return count([a < b for a, b in zip(cut(by, place, "alone", "test_loss"), whole, strict=True)])

    worst = [min(x) for x in zip(*(cut(by, place, "removed", "test_loss") for place in ABLATED), strict=True)]
    others = [max(x) for x in zip(*(cut(by, p, "others removed", "test_loss") for p in ABLATED), strict=True)]
    return f"""Without them, wherever they are cut, the test loss is at least {number(min(worst))}, worse than a
uniform guess in {count([x > UNIFORM for x in worst])} networks; without as many others it is at most
{number(max(others))}. With them alone the test loss is lower than the whole network's in {better("logits")} networks
where all else is taken out of the logits, in {better("neurons")} out of the neurons, in {better("embedding")} out of
the embedding."""


# ---------------------------------------------------------------------------------------------------- branches


def branch_table(by: dict[str, Rows]) -> str:
    names = ("test_accuracy", "mirror_free_accuracy", "weight_norm")
    early = [r["early"] for r in by[UNCHANGED]]
    lines = [[f"(at step {causal.MEMORISED})", "", *(told(middle([e[name] for e in early])) for name in names)]]
    for kind in (UNCHANGED, *causal.BRANCHES):
        lines.append([kind, *(each(by, kind, name) for name in ("sustained", *names))])
    head = ["branch", "99 % on test at step", "test accuracy at the end", "mirror-free accuracy", "weight norm"]
    return table(head, lines)


def branch_verdict(by: dict[str, Rows]) -> str:
    def late(kind: str) -> list[bool]:
        return [x is None for x in of(by, kind, "sustained")]

    def gained(kind: str) -> list[float]:
        return [r["mirror_free_accuracy"] - u["early"]["mirror_free_accuracy"]
                for r, u in zip(by[kind], by[UNCHANGED], strict=True)]  # fmt: skip

    parts = [kind for kind in causal.BRANCHES if kind.endswith("frozen")]
    told_parts = "; ".join(f"{kind.removesuffix(' frozen')} {delay(by, kind)}" for kind in parts)
    indispensable = [kind.removesuffix(" frozen") for kind in parts if all(x < 0.5 for x in gained(kind))]
    single = f"What cannot be spared: {', '.join(indispensable)}." if indispensable else (
        "With any one part frozen, mirror-free accuracy still rises by "
        f"{number(min(min(gained(kind)) for kind in parts))} or more in every network.")  # fmt: skip
    return f"""- **Weight decay.** Without it {count(late("without weight decay"))} networks stay below 99 %;
mirror-free accuracy rises by {told(middle(gained("without weight decay")))} up to the end,
by {told(middle(gained(UNCHANGED)))} with it.

- **Parts.** Steps to 99 % more than unchanged, of those that come to it: {told_parts}. {single}"""


def delay(by: dict[str, Rows], kind: str) -> str:
    pairs = list(zip(of(by, kind, "sustained"), of(by, UNCHANGED, "sustained"), strict=True))
    known = [a - b for a, b in pairs if a is not None and b is not None]
    missing = f", {len(pairs) - len(known)} never" if len(known) < len(pairs) else ""
    return (told(middle(known)) if known else "") + missing if known else f"never ({len(pairs)})"


def circuit_table(by: dict[str, Rows]) -> str:
    names = ("keys", *causal.READ)
    early = [r["early"] for r in by[UNCHANGED]]
    lines = [[f"step {causal.MEMORISED}", *(told(middle([e[name] for e in early])) for name in names)]]
    for kind in (UNCHANGED, "without weight decay"):
        lines.append([f"step {causal.LEARNT:,}, {kind}", *(each(by, kind, name) for name in names)])
    return table(["", "key frequencies", "cosines make of the logits", "restricted loss", "neurons above .85"], lines)


def circuit_verdict(by: dict[str, Rows]) -> str:
    early = [r["early"] for r in by[UNCHANGED]]
    name = "cosine_variance_explained"
    before, end = [e[name] for e in early], of(by, UNCHANGED, name)
    without = of(by, "without weight decay", name)
    falls = count([a < b["restricted_loss"] for a, b in zip(
        of(by, "without weight decay", "restricted_loss"), early, strict=True)])  # fmt: skip
    ratio = [a / b for a, b in zip(before, end, strict=True)]
    return f"""At step {causal.MEMORISED}, with a mirror-free accuracy of
{told(middle([e["mirror_free_accuracy"] for e in early]))}, the cosines of the key frequencies already make
{told(middle(before))} of the logits' variance, {told(middle(ratio))} of what they make in the end. Without decay their
share comes to {told(middle(without))}, and the loss of these frequencies alone is lower than at step {causal.MEMORISED}
in {falls} networks."""


# ---------------------------------------------------------------------------------------------------- circles


def given_table(by: dict[str, Rows]) -> str:
    names = ("sustained", "test_accuracy", "mirror_free_accuracy")
    head = ["embedding", "99 % on train at step", "90 % on test at step", "99 % on test at step",
            "test accuracy at the end", "mirror-free accuracy"]  # fmt: skip
    return table(head, [[kind, each(by, kind, "memorised"), told(middle(most(by, kind))),
                         *(each(by, kind, name) for name in names)] for kind in GIVEN])  # fmt: skip


def most(by: dict[str, Rows], kind: str) -> list[int | None]:
    """The step with 90 % on test."""
    return [next((step for step, y in r["curve"] if y >= 0.9), None) for r in by[kind]]


def given_verdict(by: dict[str, Rows]) -> str:
    def sooner(given: list[Any], own: list[Any]) -> str:
        return count([a is not None and (b is None or a < b) for a, b in zip(given, own, strict=True)])

    def free(kind: str) -> str:
        return each(by, kind, "mirror_free_accuracy")

    at_99 = [of(by, kind, "sustained") for kind in (causal.GIVEN, causal.OWN)]
    return f"""With circles alone {sooner(most(by, causal.GIVEN), most(by, causal.OWN))} networks come to 90 % sooner
than with an embedding of their own, and {sooner(*at_99)} to 99 %; mirror-free accuracy ends at
{free(causal.GIVEN)}. With a random embedding that cannot move it ends at {free(causal.FROZEN)}, with the same circles
shuffled at {free(causal.SHUFFLED)}. (90 % is looked for every {causal.CURVE} steps, 99 % every 10.)"""


def scale_verdict(by: dict[str, Rows]) -> str:
    more = count([r["norm"] > r["scale"] for r in by["rescale"]])
    return f"The norm explains more than the scale in {more} networks."


# ---------------------------------------------------------------------------------------------------- picture


def draw(by: dict[str, Rows]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    lines(left, by, (UNCHANGED, *causal.BRANCHES), f"branches off step {causal.MEMORISED}")
    lines(right, by, GIVEN, "another network, its embedding")
    left.axvline(causal.MEMORISED, color="#999999", lw=0.8, ls=":")
    left.set(ylabel="test accuracy", ylim=(0, 1.03))
    save(figure, "causal")


def lines(axis: Any, by: dict[str, Rows], kinds: tuple[str, ...], title: str) -> None:
    for kind, colour in zip(kinds, COLOURS, strict=False):
        curves = [r["curve"] for r in by[kind]]
        for curve in curves:
            axis.plot(*zip(*curve, strict=True), "-", color=colour, lw=0.6, alpha=0.35)
        steps = [step for step, _ in curves[0]]
        axis.plot(steps, np.median([[y for _, y in curve] for curve in curves], axis=0), color=colour, label=kind)
    axis.set(xlabel="step", title=title)
    axis.legend(fontsize=7)
