"""What the commands that look into a run share: run, step and batch as options, the trace of them, columns of text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import Parameter

from ..errors import BadInput

if TYPE_CHECKING:
    from ..microscope import Trace
    from ..training.opened import Opened

__all__ = ["Examples", "Only", "RunPath", "Split", "Step", "columns", "place_for", "traced", "word_list"]

RunPath: TypeAlias = Annotated[Path, Parameter(help="The run's directory; `onelayer runs` lists them.")]
Step: TypeAlias = Annotated[int | None, Parameter(help="A step with a checkpoint; the last one if it is not given.")]
Split: TypeAlias = Annotated[
    Literal["train", "valid", "test"], Parameter(help="Which of the task's splits makes the batch.")
]
Examples: TypeAlias = Annotated[
    int | None, Parameter(help="How many of its examples, from the first on; all of them if it is not given.")
]
Only: TypeAlias = Annotated[
    int | None, Parameter(help="Look at this example of the split alone, by its number, counted from 0.")
]


def traced(
    run: Path,
    step: int | None,
    split: Literal["train", "valid", "test"] = "train",
    examples: int | None = None,
    only: int | None = None,
) -> "tuple[Opened, Trace]":
    """The run opened, and a forward and backward over the batch."""
    from ..microscope import trace
    from ..training.opened import open_run

    opened = open_run(run, step, split, examples, only)
    words = {"vocabulary": opened.task.vocabulary, "source_vocabulary": opened.task.source_vocabulary}
    found = trace(opened.params, opened.batch, opened.model, **words, **opened.loss)
    return opened, found


def word_list(text: str) -> list[str]:
    """`loss_token,head` as its words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def place_for(out: Path | None) -> None:
    """BadInput where a file could not be put there: said before the work, not after it."""
    if out is not None and not out.parent.is_dir():
        raise BadInput(f"cannot write {out}: there is no directory {out.parent}; make it, or choose another --out")
    if out is not None and out.is_dir():
        raise BadInput(f"cannot write {out}: it is a directory; name a file in it")


def columns(rows: Sequence[Mapping[str, Any]], heads: Mapping[str, str]) -> str:
    """The rows' fields of `heads`, each under its words: text to the left, numbers to the right, None as a dash."""
    cells = [[_cell(row[key]) for key in heads] for row in rows]
    table = [list(heads.values()), *cells]
    widths = [max(len(line[i]) for line in table) for i in range(len(heads))]
    left = [not rows or isinstance(rows[0][key], str) for key in heads]

    def line(words: Sequence[str]) -> str:
        return "  ".join(
            w.ljust(n) if to_left else w.rjust(n) for w, n, to_left in zip(words, widths, left, strict=True)
        )

    return "\n".join(line(words).rstrip() for words in table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " × ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
