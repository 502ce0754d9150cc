"""The illustrated walk, backward: the same example from the loss to its embeddings, gradient by gradient."""

from onelayer.report.run import Run
from onelayer.report.section import Section
from onelayer.report.walk import backward, scene


def applies(run: Run) -> bool:
    return run.reads


def build(run: Run) -> Section:
    one = scene.choose(run)
    return Section(
        "The walk back: from the loss to the embeddings",
        "∂a is ∂loss/∂a: how fast the loss grows with a; descent goes the other way. Each step takes the gradient of "
        "what a step of the walk made, and gives that of what it read. The same example; of each stack the last "
        f"block, which the gradient reaches first. Any of these numbers is taken apart by `onelayer explain "
        f"{run.directory.path} NAME`.",
        steps=tuple(backward.steps(one)),
    )
