"""Where the gradient can be taken apart: the microscope page, which is a file of its own."""

from onelayer.report.run import Run
from onelayer.report.section import Section

NAME = "microscope.html"  # beside the report; written by report/microscope/page.py


def applies(run: Run) -> bool:
    return bool(run.checkpoints)


def build(run: Run) -> Section:
    routes = 2 * (1 + 3 * run.model.n_heads)
    text = (
        "Every value and every gradient of a few examples, at every checkpoint, each with its formula and the numbers "
        f"in it; and the {routes} routes by which gradient comes to a block's input."
    )
    if (run.directory.path / NAME).is_file():
        return Section("The microscope", text, links={"Open the microscope page": NAME})
    how = f"`onelayer microscope {run.directory.path}` writes that page, beside this one."
    return Section("The microscope", f"{text} {how}")
