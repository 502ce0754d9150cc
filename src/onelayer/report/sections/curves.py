"""Loss and accuracy over training, on a logarithmic axis of steps, with the run's phases shaded."""

import numpy as np

from onelayer.report.figures import learning
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import phases, shading

NAMES = {
    "train_loss": "train",
    "valid_loss": "valid",
    "test_loss": "test",
    "train_accuracy": "train",
    "valid_accuracy": "valid",
    "test_accuracy": "test",
    "train_teacher_forced_accuracy": "train",
    "valid_teacher_forced_accuracy": "valid",
    "test_teacher_forced_accuracy": "test",
    "mirror_free_accuracy": "test, mirror unseen",
}


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    spans = phases(run)
    loss = learning.loss(run.steps, _named(run, "loss"), spans)
    accuracy = learning.accuracy(run.steps, _named(run, "accuracy"), spans)
    forced = any(name.endswith("teacher_forced_accuracy") for name in run.metrics)
    unit, share = (
        ("token", "The share of tokens that are said right when all before them are given.")
        if forced
        else ("answer", "The share of questions answered right.")
    )
    return Section(
        "Learning curves",
        "Steps and loss are drawn on logarithmic axes, on which step 0 has no place. "
        "Drag over a figure to zoom in, and the others over steps follow; a double click goes back.",
        (
            Panel(loss, f"Cross-entropy: the surprise at the right {unit}, in nats per {unit}. {shading(spans)}"),
            Panel(accuracy, share),
        ),
    )


def _named(run: Run, kind: str) -> dict[str, np.ndarray]:
    found = run.measured(*(name for name in NAMES if name.endswith(kind)))
    return {NAMES[name]: values for name, values in found.items()}
