"""How gradients and updates ran through the net, where a watcher noted it: the run's flow.jsonl."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from onelayer.errors import BadInput
from onelayer.microscope import journal
from onelayer.microscope.flow import Flow
from onelayer.report.figures import flow
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import phases, shading


def applies(run: Run) -> bool:
    return (run.directory.path / Flow.FILE).exists()


def build(run: Run) -> Section:
    records = list(journal.read(run.directory.path / Flow.FILE))
    if not records:
        raise BadInput(f"{Flow.FILE} holds no record; it is written step by step while a run is watched")
    steps, spans = np.array([record["step"] for record in records], dtype=float), phases(run)
    gradient, update, weight = (
        series(records, lambda r, name=name: r[name]) for name in ("gradient", "update", "weight")
    )
    relative = {
        k: np.divide(update[k], weight[k], where=weight[k] > 0, out=np.full(len(steps), np.nan)) for k in update
    }
    heads = series(records, lambda r: _by_head(r["saturation"]))
    panels = [
        Panel(
            flow.norms(steps, gradient, "gradient", spans), f"Each tensor's gradient, before filters. {shading(spans)}"
        ),
        Panel(
            flow.ratio(steps, relative, spans), "How far each step moved a tensor, measured by the tensor's own size."
        ),
        Panel(
            flow.alignment(steps, series(records, lambda r: r.get("alignment", {})), spans),
            "Consecutive gradients: 1, the step before pointed the same way; −1, it overshot.",
        ),
        Panel(
            flow.saturation(steps, heads, spans),
            "How much of a gradient each head's softmax lets through to its scores, ½ at most; near 0 it is saturated.",
        ),
    ]
    dead = series(records, lambda r: {f"{k}, never on": x for k, x in r["dead"].items()}
                  | {f"{k}, off": x for k, x in r["idle"].items()})  # fmt: skip
    if dead:
        caption = "Hidden units without slope: on no example at all (dead: no gradient reaches them), and on average."
        panels.append(Panel(flow.share(steps, dead, "share of hidden units", spans), caption))
    for kind, words in (("stable", "‖W‖²/σ₁²"), ("effective", "exp of the entropy of σ/Σσ")):
        of_matrix = series(records, lambda r, kind=kind: {k: x[kind] for k, x in r["ranks"].items()})
        panels.append(Panel(flow.ranks(steps, of_matrix, kind, spans), f"The {kind} rank of each matrix: {words}."))
    if all("frequency" in record for record in records):
        values = np.array([record["frequency"] for record in records])
        figure = flow.frequencies([int(s) for s in steps], values)
        panels.append(
            Panel(figure, "The gradient into the embedding by frequency over the numbers; time goes upwards.")
        )
    return Section(
        "Flow of gradients",
        f"What a watcher noted at {len(steps)} steps, up to step {steps[-1]:,.0f}. Axes are logarithmic.",
        tuple(panels),
    )


def _by_head(saturation: Mapping[str, list[float]]) -> dict[str, float]:
    several = len(saturation) > 1
    return {f"{at} {h}" if several else f"head {h}": x for at, heads in saturation.items() for h, x in enumerate(heads)}


def series(
    records: list[dict[str, Any]], look: Callable[[dict[str, Any]], Mapping[str, float]]
) -> dict[str, np.ndarray]:
    """name -> one value for each record, NaN where it was not noted."""
    seen = [look(record) for record in records]
    names = dict.fromkeys(name for values in seen for name in values)
    return {name: np.array([values.get(name, np.nan) for values in seen], dtype=float) for name in names}
