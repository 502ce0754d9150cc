"""What the loss looked like around the weights, where a watcher noted it: the run's curvature.jsonl."""

import numpy as np

from onelayer.errors import BadInput
from onelayer.microscope import journal
from onelayer.microscope.curvature import Follow
from onelayer.report.figures import flow
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.sections.flow import series
from onelayer.report.wording import phases, shading

ALONG = {"top": "largest eigenvalue", "along_gradient": "along the gradient", "along_update": "along the update"}


def applies(run: Run) -> bool:
    return (run.directory.path / Follow.FILE).exists()


def build(run: Run) -> Section:
    records = list(journal.read(run.directory.path / Follow.FILE))
    if not records:
        raise BadInput(f"{Follow.FILE} holds no record; it is written step by step while a run is watched")
    steps, spans = np.array([record["step"] for record in records], dtype=float), phases(run)
    along = series(records, lambda r: {words: r[name] for name, words in ALONG.items() if name in r})
    rest = series(records, lambda r: {"trace": r["trace"]} if "trace" in r else {})
    rest |= series(records, lambda r: {"−(smallest eigenvalue)": -r["bottom"]} if "bottom" in r else {})
    panels = []
    if along:
        caption = f"The Hessian's largest eigenvalue, and its curvature along two directions. {shading(spans)}"
        panels.append(Panel(flow.curvature(steps, along, "curvature", spans), caption))
    if rest:
        caption = "The sum of all eigenvalues (estimated), and how far the most negative one lies below zero."
        panels.append(Panel(flow.curvature(steps, rest, "trace, and depth", spans), caption))
    return Section(
        "Curvature",
        f"Exact Hessian products at {len(steps)} steps, up to step {steps[-1]:,.0f}. On the logarithmic axis only "
        "positive curvature has a place.",
        tuple(panels),
    )
