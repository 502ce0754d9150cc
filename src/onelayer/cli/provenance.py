"""onelayer provenance: a weight's gradient as a sum of parts that say where each came from."""

from typing import Annotated

from cyclopts import Parameter

from ._common import Json, answer
from ._looks import Examples, Only, RunPath, Split, Step, columns, traced, word_list


def provenance(
    run: RunPath,
    tensor: Annotated[str, Parameter(help="A weight, or several by a pattern: blocks.*.attn.W_?")],
    /,
    *,
    by: Annotated[
        str,
        Parameter(
            help="One axis, or several to be crossed: loss_token, source, position, head, example, class, frequency, "
            "route; route:blocks.1 names the block whose routes are meant."
        ),
    ] = "loss_token,head",
    step: Step = None,
    split: Split = "train",
    examples: Examples = None,
    only: Only = None,
    period: Annotated[
        int | None, Parameter(help="For frequency: how many of the first classes are a cycle; all by default.")
    ] = None,
    top: Annotated[int, Parameter(help="How many parts to print, the largest first. --json has all of them.")] = 20,
    as_json: Json = False,
) -> None:
    """Where a weight's gradient comes from: an exact sum over loss tokens, sources, heads, examples, classes or routes.

    $ onelayer provenance runs/arithmetic-x-plus-y-0-20261123-164500 'blocks.0.attn.W_K' --by loss_token,head

    A part's share is ⟨part, gradient⟩/‖gradient‖²: shares add up to 1, and one below 0 works against the others.
    """
    from ..microscope import splits

    opened, t = traced(run, step, split, examples, only)
    axes = word_list(by)
    found = splits(t, [tensor], axes, period=period)
    facts = [
        {
            "tensor": name, "shape": list(s.plain.shape), "norm": float((s.plain**2).sum() ** 0.5),
            "sum": float((s.total**2).sum() ** 0.5), "residual": s.residual, "backwards": s.cost, "parts": s.rows(),
        }
        for name, s in found.items()
    ]  # fmt: skip
    blocks = [f"step {opened.step}, {split} loss {t.loss:.6g}"]
    for each in facts:
        rest = len(each["parts"]) - top
        blocks += [
            f"{each['tensor']}: the gradient's norm is {each['norm']:.6g}; {len(each['parts'])} parts, the norm of "
            f"their sum {each['sum']:.6g}, residual {each['residual']:.1e}",
            columns(each["parts"][:top], {axis: axis for axis in axes} | {"norm": "norm", "share": "share"})
            + (f"\n… and {rest} more" if rest > 0 else ""),
        ]
    answer(
        {"run": run, "step": opened.step, "split": split, "by": axes, "loss": t.loss, "tensors": facts},
        "\n".join(blocks),
        as_json=as_json,
    )
