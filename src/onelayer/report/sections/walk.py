"""The illustrated walk, forward: one example of the run from its words to the loss."""

from onelayer.report.run import Run
from onelayer.report.section import Section
from onelayer.report.walk import forward, scene


def applies(run: Run) -> bool:
    return run.reads


def build(run: Run) -> Section:
    one = scene.choose(run)
    return Section(
        "The walk: from words to the loss",
        f"{_which(one)}\n\nWhat is drawn is what these weights compute, in the order of Jay Alammar's Illustrated "
        f"Transformer; of each stack the first block. A frame marks the tokens that the text follows: "
        f"“{one.read[one.t]}” in the decoder, after which the model is least sure, and “{one.source[one.s]}” in the "
        "encoder, where it looks most from there. In every matrix zero looks like the page, orange is positive and "
        "blue negative; shares go from dark (0) to bright (1). Point at a cell: its number is said, and the row and "
        "the column that it belongs to are marked in the other matrices.",
        facts={"read": " ".join(one.source), "to be said": " ".join(one.wanted), "said": " ".join(one.said)},
        steps=tuple(forward.steps(one)),
    )


def _which(one: scene.Scene) -> str:
    """Which example it is, and whether the model gets it right."""
    words = "" if one.pair is None else f": “{one.pair.source}”, which should give “{one.pair.references[0]}”"
    right = (
        "The model gets it right; it is the first that is short enough to read and that it does."
        if one.right
        else "The model gets it wrong, as it does all those that are short enough to read and were tried."
    )
    return f"Example {one.number} of the {one.split} split{words}. {right}"
