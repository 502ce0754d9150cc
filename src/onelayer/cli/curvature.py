"""onelayer curvature: what the loss looks like around a run's weights."""

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ._common import Json, answer
from ._looks import Examples, RunPath, Split, Step


def curvature(
    run: RunPath,
    /,
    *,
    step: Step = None,
    split: Split = "train",
    examples: Examples = None,
    kind: Annotated[
        Literal["hessian", "gauss_newton"], Parameter(help="gauss_newton leaves out how the net itself curves.")
    ] = "hessian",
    top: Annotated[int, Parameter(help="How many of the largest eigenvalues (by scipy).")] = 1,
    bottom: Annotated[int, Parameter(help="How many of the smallest.")] = 1,
    products: Annotated[int, Parameter(help="Hessian products spent on the trace; 0 leaves it out.")] = 30,
    seed: Annotated[int, Parameter(help="Of the random directions.")] = 0,
    as_json: Json = False,
) -> None:
    """What the loss looks like around the weights: eigenvalues, trace, and sharpness along the gradient and the run.

    $ onelayer curvature runs/arithmetic-x-plus-y-0-20261123-164500 --step 512 --examples 500

    By exact Hessian products, each about two gradients' work, some hundreds of them: on all training examples of a
    default run that takes minutes. Eigenvalues need scipy (pip install 'onelayer[curvature]'); --top 0 --bottom 0 does
    without.
    """
    from ..microscope import curvature as curved
    from ..training.opened import open_run, update_before

    opened = open_run(run, step, split, examples)
    at = curved.linearise(opened.params, opened.batch, opened.model, **opened.loss)
    found: dict[str, Any] = {"loss": at.trace.loss}
    if top or bottom:
        found["top"], found["bottom"] = curved.eigenvalues(at, top, bottom, kind, tolerance=1e-4, seed=seed)
    if products:
        found["trace"], found["trace_error"] = curved.trace(at, kind, products=products, seed=seed)
    found["along_gradient"] = curved.sharpness(at, at.gradient, kind)
    if (moved := update_before(run, opened)) is not None:
        found["along_update"] = curved.sharpness(at, moved, kind)
    words = {
        "top": "largest eigenvalues", "bottom": "smallest eigenvalues", "trace": "trace",
        "along_gradient": "along the gradient", "along_update": "along the way from the checkpoint before",
    }  # fmt: skip
    lines = [f"step {opened.step}, {split} loss {at.trace.loss:.6g}, {kind.replace('_', '-')}"]
    for name, label in words.items():
        if name in found:
            error = f" ± {found['trace_error']:.2g}" if name == "trace" else ""
            lines.append(f"{label:42}{_numbers(found[name])}{error}")
    facts = {"run": run, "step": opened.step, "split": split, "kind": kind, "examples": len(opened.batch.tokens)}
    answer(facts | found, "\n".join(lines), as_json=as_json)


def _numbers(found: Any) -> str:
    values = [found] if isinstance(found, float) else found
    return "  ".join(f"{x:+.5g}" for x in values) or "–"
