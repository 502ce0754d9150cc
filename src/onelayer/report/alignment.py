"""Where each head looked while answers were said: a page, or the numbers as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onelayer.report.page import render
from onelayer.report.section import Gallery, Matrix, Section
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
    galleries: list[Gallery] = []
    if one.cross is not None:
        across = "Across: where each token of the answer, as it is said, looks in the source."
        galleries.append(_gallery(across, one.cross, one.said, one.read))
    if one.encoder is not None:
        within = "Encoder: where each token of the source looks in it."
        galleries.append(_gallery(within, one.encoder, one.read, one.read))
    back = "Looking back: where each token, once it is read, looks among those before it and itself."
    galleries.append(_gallery(back, one.decoder, one.heard, one.heard))
    title = f"{one.source} → {one.answer}" if one.read else one.answer
    told = "Every head: a row for each token that asks, whose shares sum to 1, and a column for each that is asked."
    return Section(title if len(title) <= 80 else title[:79] + "…", told, galleries=tuple(galleries))


def _gallery(caption: str, patterns: np.ndarray, asking: Sequence[str], asked: Sequence[str]) -> Gallery:
    """Every head of every layer [L H asking asked]."""
    layers, heads = patterns.shape[:2]
    return Gallery(
        caption,
        {
            f"{f'layer {layer}, ' if layers > 1 else ''}head {head}": Matrix(
                "share", patterns[layer, head], "ts", asking, asked, amounts=True
            )
            for layer in range(layers)
            for head in range(heads)
        },
    )
