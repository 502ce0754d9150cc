"""The positional encoding's pictures: what the method does to a token that stands at each position, and how it came."""

from typing import Any

import numpy as np

from onelayer.arrays import generator, unflatten
from onelayer.errors import BadInput
from onelayer.positions import Method
from onelayer.report.figures import positions as figures
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import phases
from onelayer.studies import position_pictures as pictures

SNAPSHOTS = 12  # checkpoints that are shown, at most


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    method = run.model.position_method
    panels = (*panels_of(method, learnt(run, method), run.model.size()), *over_training(run, method))
    title = "The positional encoding"
    if not panels:
        return Section(title, f"The method is “{method.name}”: the model is not told where a token stands.")
    return Section(title, f"The method is “{method.name}”; it acts on the {stages(method)}.", panels)


def learnt(run: Run, method: Method, step: int | None = None) -> Any:
    """The method's parameters after training, or at a step (of the first block, where each has its own), or None."""
    like = method.init(generator(0, "shape"), run.model.size())
    if like is None:
        return None
    weights, name = run.weights(step), "blocks.0.attn.pos" if method.in_attention else "pos_embed"
    for side in ("", "decoder."):
        if any(full.startswith(side + name) for full in weights):
            return unflatten(weights, like, side + name)
    raise BadInput(f"the checkpoint has no {name}; it has {', '.join(weights)}")


def stages(method: Method) -> str:
    names = {"embedding": "embedding", "query_key": "queries and keys", "score": "scores", "value": "values"}
    return " and the ".join(names[stage] for stage in method.stages)


def panels_of(
    method: Method, params: Any, size: Any, n: int = pictures.POSITIONS, short: bool = False
) -> tuple[Panel, ...]:
    """Every picture that the method has; `short`: those that tell it from the others."""
    found = pictures.pictures(method, params, size, n)
    panels: list[Panel] = []
    if "added" in found:
        panels.append(
            Panel(figures.added(_f4(found["added"])), "What is added to the embedding of the token at each position.")
        )
    if "turned" in found:
        panels.append(
            Panel(figures.turned(_f4(found["turned"])), "What a query of ones is turned into at each position.")
        )
    if "gram" in found:
        alike, along = found["gram"], found["gram_by_offset"]
        told = "in what is added" if "added" in found else "to one and the same query and key"
        if not short:
            panels.append(Panel(figures.alike(_f4(alike)), f"How like two positions are, {told}.", wide=False))
        lines = {"mean": along.mean, "lowest": along.low, "highest": along.high}
        note = "Over all pairs that far apart; where the three lines are one, only the offset counts."
        panels.append(Panel(figures.by_offset(along.offsets, lines, "similarity"), note, wide=False))
        told = "Its waves: the amplitude of each dimension at each frequency, in cycles over the positions shown."
        panels.append(Panel(figures.spectrum(_f4(found["spectrum"])), told, wide=False))
        if not short:
            told = "How many directions it fills: the singular values of the picture above."
            panels.append(Panel(figures.singular(_f4(found["singular"])), told, wide=False))
    if "bias" in found:
        values, along = found["bias"], found["bias_by_offset"]
        heads = range(len(values))
        told = "Head {}: what is added to the score of each query and key, were all of them one and the same vector."
        panels += [
            Panel(figures.bias(_f4(values[h])), told.format(h), wide=False) for h in (heads[:1] if short else heads)
        ]
        lines = {f"head {h}": along.mean[h] for h in heads}
        told = "The same against the offset, the mean over all pairs that far apart."
        panels.append(Panel(figures.by_offset(along.offsets, lines, "bias"), told, wide=False))
    return tuple(panels)


def over_training(run: Run, method: Method) -> tuple[Panel, ...]:
    """How what it learns came about, from the checkpoints that are kept."""
    kept = run.checkpoints
    steps = kept[:: -(-len(kept) // SNAPSHOTS)] if kept else []
    steps = [*steps, *kept[-1:]] if kept and kept[-1] not in steps else steps
    size, n = run.model.size(), pictures.POSITIONS
    if len(steps) < 2 or learnt(run, method, steps[0]) is None:
        return ()
    params = [learnt(run, method, step) for step in steps]
    if method.has("embedding"):
        tables = np.stack([table for p in params if (table := pictures.added(method, p, size, n)) is not None])
        told = "The table over training, from {} checkpoints: how like it is to what it is at the end."
        taken, spans = np.array(steps), phases(run)
        panels = (
            Panel(figures.added(_f4(tables[0])), f"What was added at step {steps[0]}."),
            Panel(figures.over_training(taken, tables, spans), told.format(len(steps)), wide=False),
        )
        if np.sum(taken > 0) < 2:
            return panels
        lengths = figures.row_lengths(taken, _f4(tables), spans)
        return (*panels, Panel(lengths, "How long the row of each position is.", wide=False))
    if method.has("score"):
        along = [pictures.by_offset(pictures.bias(method, p, size, n)) for p in params]
        means, told = np.stack([a.mean for a in along]), "Head {}: the bias against the offset, over training."
        return tuple(
            Panel(figures.bias_over_training(steps, along[0].offsets, _f4(means[:, h])), told.format(h), wide=False)
            for h in range(means.shape[1])
        )
    return ()


def _f4(values: np.ndarray) -> np.ndarray:
    """Half the bytes, and more digits than a picture shows."""
    return values.astype(np.float32)
