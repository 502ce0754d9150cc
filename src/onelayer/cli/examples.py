"""onelayer examples: the gradient example by example."""

from typing import Annotated

from cyclopts import Parameter

from ._common import Json, answer
from ._looks import Examples, RunPath, Split, Step, columns, traced


def examples(
    run: RunPath,
    weight: Annotated[
        str | None, Parameter(help="One weight, such as blocks.0.attn.W_Q[0,3,5]: who pulls it, and who pulls against.")
    ] = None,
    /,
    *,
    step: Step = None,
    split: Split = "train",
    examples: Examples = None,
    top: Annotated[int, Parameter(help="How many examples to name.")] = 5,
    as_json: Json = False,
) -> None:
    """The gradient example by example: how large, how noisy, how alike, and which examples pull hardest.

    $ onelayer examples runs/arithmetic-x-plus-y-0-20261123-164500 'blocks.0.attn.W_Q[0,3,5]'

    Without a weight: for each tensor the norm of its gradient and of single examples' gradients, the signal to noise of
    its median entry, and the cosine between two answers' gradients and between train and test.
    """
    from ..errors import BadInput
    from ..microscope import per_example
    from ..microscope.explain import entry

    if top < 1:
        raise BadInput(f"at least one example is named; received --top {top}")
    opened, t = traced(run, step, split, examples)
    said = f"step {opened.step}, {split} loss {t.loss:.6g}, {len(t.batch.tokens)} examples"
    about = {"run": run, "step": opened.step, "split": split, "loss": t.loss, "examples": len(t.batch.tokens)}
    if weight is not None:
        tensor, index = entry(weight, t.weights)
        pull = per_example.pull(t, tensor, index)
        rows = pull.rows(t, top)
        facts = about | {
            "weight": weight,
            "value": float(t.weights[tensor][index]),
            "gradient": pull.total,
            "pulls": rows,
        }
        heads = {"example": "example", "tokens": "tokens", "share": "its share of the gradient"}
        text = f"{said}\nthe gradient of {weight} is {pull.total:+.6g}\n{columns(rows, heads)}"
        return answer(facts, text, as_json=as_json)

    other = "test" if split == "train" else "train"
    theirs = getattr(opened.task, other).tokens
    _, against = traced(run, opened.step, other, min(len(t.batch.tokens), len(theirs)))
    rows, strong = per_example.overview(t, against), per_example.strongest(t, top)
    chosen = [row["example"] for row in strong]
    cosines = per_example.cosines(per_example.gram(t, None, chosen))
    heads = {
        "tensor": "tensor", "norm": "norm", "mean": "of one, mean", "largest": "largest", "snr": "signal/noise",
        "classes": "cosine of answers", "other": f"with {other}",
    }  # fmt: skip
    named = {"example": "example", "tokens": "tokens", "norm": "norm", "share": "share"}
    answer(
        about | {"other": other, "tensors": rows, "strongest": strong, "cosines": cosines},
        f"{said}\n{columns(rows, heads)}\n\nthe strongest examples, all weights together\n{columns(strong, named)}",
        as_json=as_json,
    )
