"""onelayer rescale: is it the norm of the weights, or the scale of the logits?"""

from typing import Annotated

from cyclopts import Parameter

from ._common import Json, answer
from ._looks import RunPath, Step, columns


def rescale(
    run: RunPath,
    /,
    *,
    norm: Annotated[
        tuple[float, ...],
        Parameter(
            help="A factor of all weights; several times for several. 0.5, 0.7, 1, 1.4 and 2 if not given.",
            negative="",
            consume_multiple=False,
        ),
    ] = (),
    scale: Annotated[
        tuple[float, ...],
        Parameter(
            help="A factor of the logits' scale; several times for several. 0.1, 0.25, 0.5, 1, 2 and 4 if not given.",
            negative="",
            consume_multiple=False,
        ),
    ] = (),
    step: Step = None,
    as_json: Json = False,
) -> None:
    """Scale all weights, and the logits apart from them: the loss as a function of both, and what each explains of it.

    $ onelayer rescale runs/arithmetic-x-plus-y-0-20261123-164500 --norm 0.5 --norm 1 --norm 2

    Each row multiplies all weights; each column then sets the logits' root mean square to so many times what it was.
    If only the scale of the logits counts, the rows are equal. Nothing is trained and nothing is written.
    """
    from ..grokking.interventions import NORMS, SCALES
    from ..grokking.interventions import rescale as rescaled
    from ..grokking.subject import open_subject

    norms, scales = norm or NORMS, scale or SCALES
    found = rescaled(open_subject(run, step), norms, scales)
    lines = []
    for split in ("train", "test"):
        rows = [
            {"norm": f"× {n:g}"} | {f"{c['scale']:g}": c[f"{split}_loss"] for c in found["cells"] if c["norm"] == n}
            for n in norms
        ]
        share = found["share"][split]
        lines += [
            f"{split} loss; weights by row, scale of the logits by column",
            columns(rows, {"norm": "norm", **{f"{x:g}": f"× {x:g}" for x in scales}}),
            f"of the variance of ln loss: scale alone {share['scale']:.3f}, norm alone {share['norm']:.3f}, both "
            f"together {share['both']:.3f}",
            "",
        ]
    own = {c["norm"]: c["unheld_scale"] for c in found["cells"]}
    lines.append("left to itself, the scale becomes " + ", ".join(f"× {x:.3g} at norm × {n:g}" for n, x in own.items()))
    answer({"run": run, "step": step, **found}, "\n".join(lines), as_json=as_json)
