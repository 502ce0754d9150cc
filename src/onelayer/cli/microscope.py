"""onelayer microscope: the page that takes a run's gradients apart."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ._common import Json, answer


def microscope(
    run: Path,
    /,
    *,
    examples: Annotated[
        str | None, Parameter(help="Which to show, such as train:3,test:5; a bare number is of the test split.")
    ] = None,
    steps: Annotated[
        str | None, Parameter(help="Which checkpoints, such as 0,50,490. By default all that there is room for.")
    ] = None,
    out: Annotated[Path | None, Parameter(help="The page. By default RUN/microscope.html.")] = None,
    as_json: Json = False,
) -> None:
    """Write the microscope page of a run: each value and gradient of a few examples, with its formula, over training.

    $ onelayer microscope runs/arithmetic-x-plus-y-0-20261123-164500 --examples train:3,test:5

    Parameters
    ----------
    run
        The run's directory; `onelayer runs` lists them.
    """
    from ..errors import BadInput
    from ..report.microscope import write_microscope

    def number(word: str) -> int:
        if not word.strip().isdecimal():
            raise BadInput(f"--steps takes numbers with commas between them, such as 0,50,490; received {word!r}")
        return int(word)

    written = write_microscope(
        run,
        examples=None if examples is None else examples.split(","),
        steps=None if steps is None else [number(word) for word in steps.split(",")],
        out=out,
    )
    size = written.path.stat().st_size
    answer(
        {"run": run, "page": written.path, "bytes": size, "examples": written.examples, "steps": written.steps,
         "left_out": written.left_out},
        f"{written.path}\n{len(written.examples)} examples at {len(written.steps)} checkpoints, {size / 1e6:.1f} MB",
        as_json=as_json,
    )  # fmt: skip
