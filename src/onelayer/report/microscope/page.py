"""The microscope page of a run, written: `microscope.html`, one file with numbers, style and our ES modules inside.

The page's script computes what a cell's formula says from the numbers in the file, so pointing at a cell asks nobody.
"""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from onelayer.errors import BadInput
from onelayer.report.inline import data_url, json_text
from onelayer.report.microscope.payload import BUDGET, Payload, build, choose, usual
from onelayer.report.run import Run
from onelayer.training.files import replace_file

__all__ = ["NAME", "Written", "render", "write_microscope"]

NAME = "microscope.html"
ASSETS = Path(__file__).parent / "assets"
MODULES = ("colours", "curves", "formulas", "main", "map", "numbers", "readout", "ribbons")  # "microscope/NAME"


class Written(NamedTuple):
    path: Path
    examples: list[str]
    steps: list[int]
    left_out: list[int]  # checkpoints that there was no room for


def write_microscope(
    run_dir: Path | str,
    *,
    examples: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    out: Path | str | None = None,
    budget: int = BUDGET,
) -> Written:
    """Write the page (out: RUN/microscope.html), whole or not at all.

    examples: `train:3`, `test:5`, or `5`, which is of the test split; None: a few of both. steps: None: all that there
    is room for. budget: bytes of numbers.
    """
    run = Run.at(run_dir)
    page = run.directory.path / NAME if out is None else Path(out)
    if page.is_dir() or not page.absolute().parent.is_dir():
        raise BadInput(f"cannot write {page}: give the name of a file in a directory that exists")
    if examples is None:
        chosen, payload = usual(run, steps, budget)
    else:
        chosen = choose(run, examples)
        payload = build(run, chosen, steps, budget)
    replace_file(page, render(run.title, run.directory.path.resolve().name, payload).encode())
    return Written(page, [f"{e.split}:{e.number}" for e in chosen], list(payload.blocks), payload.left_out)


def render(title: str, subtitle: str, payload: Payload) -> str:
    """The text of the page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    left_out = ", ".join(map(str, payload.left_out))
    return environment.from_string((ASSETS / "page.html").read_text()).render(
        title=title,
        subtitle=subtitle,
        version=metadata.version("onelayer"),
        style=Markup((ASSETS / "page.css").read_text()),
        import_map=json_text({"imports": {f"microscope/{name}": data_url(ASSETS / f"{name}.js") for name in MODULES}}),
        about=json_text(payload.about),
        blocks=list(enumerate(payload.blocks.values())),
        left_out=f"Not in this page, for want of room: the checkpoints at step {left_out}." if left_out else "",
    )
