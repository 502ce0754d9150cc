"""onelayer trace: every value and every gradient of one forward and backward."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ._common import Json, answer
from ._looks import Examples, Only, RunPath, Split, Step, columns, place_for, traced


def trace(
    run: RunPath,
    /,
    *,
    step: Step = None,
    split: Split = "train",
    examples: Examples = None,
    only: Only = None,
    out: Annotated[Path | None, Parameter(help="Save all arrays there, as one .safetensors file.")] = None,
    as_json: Json = False,
) -> None:
    """Every value and every gradient of one forward and backward, by name: shapes and norms, or all in a file.

    $ onelayer trace runs/arithmetic-x-plus-y-0-20261123-164500 --step 512 --examples 64 --out trace.safetensors
    """
    place_for(out)
    opened, t = traced(run, step, split, examples, only)
    rows = t.rows()
    if out is not None:
        t.save(out)
    sizes = ", ".join(f"{letter} = {n}" for letter, n in t.shape.items())
    heads = {"name": "name", "shape": "shape", "norm": "norm", "gradient_norm": "norm of the gradient"}
    text = f"step {opened.step}, {split} loss {t.loss:.6g}, {sizes}\n{columns(rows, heads)}"
    facts = {
        "run": run, "step": opened.step, "split": split, "sizes": t.shape, "loss": t.loss, "bytes": t.nbytes,
        "names": rows, "saved": out,
    }  # fmt: skip
    answer(facts, text + (f"\nsaved  {out}" if out else ""), as_json=as_json)
