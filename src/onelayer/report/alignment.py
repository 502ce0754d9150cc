"""Where each head looked while answers were said: a page, or the numbers as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onelayer.report.figures import attention
from onelayer.report.page import render
from onelayer.report.section import Panel, Section
from onelayer.training.files import replace_file
from onelayer.words.alignment import Alignment

__all__ = ["MOST", "write_alignments"]

MOST = 12  # answers on one page: each has a map for every head of every attention


def write_alignments(path: Path, found: Sequence[Alignment], subtitle: str = "") -> Path:
    """Write the page (.html) or the numbers (.json), whole or not at all, and say where it is."""
    if path.suffix == ".json":
        text = json.dumps([one.as_dict() for one in found], ensure_ascii=False, allow_nan=False)
    else:
        left = f"; {len(found) - MOST} more answers have no place here" if len(found) > MOST else ""
        parts = {f"answer-{i}": _section(one) for i, one in enumerate(found[:MOST], 1)}
        text = render("Where the heads looked", subtitle + left, parts)
    replace_file(path, text.encode())
    return path


def _section(one: Alignment) -> Section:
    panels: list[Panel] = []
    if one.cross is not None:
        panels += _maps("Across", one.cross, one.said, one.read, "on the source, as each token of the answer is said")
    if one.encoder is not None:
        panels += _maps("Encoder", one.encoder, one.read, one.read, "of each token of the source, on the source")
    looked = "of each token, once it is read, on those before it and itself"
    panels += _maps("Looking back", one.decoder, one.heard, one.heard, looked)
    title = f"{one.source} → {one.answer}" if one.read else one.answer
    text = (
        "Each row is a token that asks, and its shares of attention sum to 1. Where the answer looks across, a row is "
        "the token that is being said; where it looks back, the one that was read last."
        if one.read
        else "Each row is a token that asks; it may look at itself and what came before, and its shares sum to 1."
    )
    return Section(title if len(title) <= 80 else title[:79] + "…", text, tuple(panels))


def _maps(name: str, patterns: np.ndarray, asking: Sequence[str], asked: Sequence[str], what: str) -> list[Panel]:
    """A map for each head of each layer [L H asking asked]."""
    layers, heads = patterns.shape[:2]
    wide = len(asked) > 20
    return [
        Panel(
            attention.aligned(patterns[layer, head], asking, asked),
            f"{name}, {f'layer {layer}, ' if layers > 1 else ''}head {head}: the share {what}.",
            wide,
        )
        for layer in range(layers)
        for head in range(heads)
    ]
