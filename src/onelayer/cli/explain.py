"""onelayer explain: one number of a run, taken apart."""

from pathlib import Path

from ._common import Json, answer
from ._looks import Examples, Only, Split, traced


def explain(
    run: Path,
    number: str,
    /,
    *,
    step: int | None = None,
    depth: int = 3,
    top: int = 5,
    split: Split = "train",
    examples: Examples = None,
    only: Only = None,
    as_json: Json = False,
) -> None:
    """Why one number is what it is: a tree whose children sum to their parent at every node.

    A weight stands for its gradient, an activation for its value (with ∂ or grad: in front, for its gradient).

    $ onelayer explain runs/arithmetic-x-plus-y-0-20261123-164500 'blocks.0.attn.W_Q[0,3,5]' --step 512

    Parameters
    ----------
    run
        The run's directory; `onelayer runs` lists them.
    number
        A tensor and a place in it: blocks.0.attn.W_Q[0,3,5], logits[0,0,5], blocks.0.attn.hook_attn_scores[0,1,0,2].
    step
        A step with a checkpoint; the last one if it is not given.
    depth
        How many levels of the tree.
    top
        How many terms at each node; the rest are added up in one.
    """
    from ..microscope import explain as explained

    opened, t = traced(run, step, split, examples, only)
    tree = explained(t, number, depth=depth, top=top)
    facts = {"run": run, "step": opened.step, "loss": t.loss, "residual": tree.worst, "tree": tree.as_dict()}
    answer(facts, f"step {opened.step}, {split} loss {t.loss:.6g}\n{tree}", as_json=as_json)
