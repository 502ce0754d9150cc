"""How much of the attention's gradient came through what stands somewhere, and how much through where it stands.

Of the run's position.jsonl where a watcher wrote one (microscope.addressing), else of the checkpoints that are kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onelayer.microscope import journal
from onelayer.microscope.addressing import Addressing, record
from onelayer.report.figures import positions as figures
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import phases, shading
from onelayer.training.opened import open_run

EXAMPLES = 256
SNAPSHOTS = 24

Series = dict[str, np.ndarray]


def applies(run: Run) -> bool:
    return run.model.architecture == "decoder_only" and run.model.position != "none" and len(run.checkpoints) > 1


def build(run: Run) -> Section:
    records = list(journal.read(run.directory.path / Addressing.FILE)) or _from_checkpoints(run)
    steps, spans = np.array([r["step"] for r in records], dtype=float), phases(run) if run.directory.metrics else []
    heads = range(run.model.n_heads)
    panels = []
    for weight, side in (("W_Q", "queries"), ("W_K", "keys")):
        for head in heads:
            terms = _series(records, "shares", weight, head)
            if len(terms) > 1:
                told = f"Head {head}, the gradient of {weight} ({side}). {shading(spans)}"
                panels.append(Panel(figures.shares(steps, terms, spans), told, wide=False))
    for weight in ("W_V", "W_O"):
        of = {f"head {h}": t["position"] for h in heads if "position" in (t := _series(records, "shares", weight, h))}
        if of:
            told = f"The share of the gradient of {weight} that comes through position, head by head."
            panels.append(Panel(figures.shares(steps, of, spans), told, wide=False))
    for head in heads:
        told = f"Head {head}: how fast the loss would grow if that term of its scores were scaled up."
        panels.append(Panel(figures.pulls(steps, _series(records, "pulls", None, head), spans), told, wide=False))
    return Section("Content and position", _words(run), tuple(panels))


def _words(run: Run) -> str:
    if run.model.position_method.has("embedding"):
        meaning = (
            "Attention reads content plus position, the token's embedding and what was added to it. So a score has "
            "four terms, named query·key, and the gradient of each weight splits alike."
        )
    else:
        meaning = (
            "Content is the score as it would be if all tokens stood at the same place; position is what turning "
            "queries and keys adds to it; bias is what is added to the score."
        )
    rest = (
        "The shares of one gradient sum to 1. A share below 0 pulls against the rest. "
        "Of the first block; the steps are on a logarithmic axis."
    )
    return f"{meaning}\n\n{rest}"


def _from_checkpoints(run: Run) -> list[dict[str, Any]]:
    kept = run.checkpoints
    found = []
    for step in kept[:: -(-len(kept) // SNAPSHOTS)]:
        seen = open_run(run.directory.path, step, examples=min(EXAMPLES, len(run.task.train.tokens)))
        found.append({"step": step} | record(seen.params, seen.batch, seen.model, **seen.loss))
    return found


def _series(records: Sequence[Mapping[str, Any]], kind: str, weight: str | None, head: int) -> Series:
    """term -> [step], NaN where nothing was there to be shared."""
    rows = [r[kind] if weight is None else r[kind][weight] for r in records]
    return {term: np.array([row[term][head] for row in rows], dtype=float) for term in rows[0]}
