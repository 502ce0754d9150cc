"""Loss and accuracy over training, on a logarithmic axis of steps, with the run's phases shaded."""

import numpy as np

from onelayer.report.figures import learning
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import phases, shading

NAMES = {
    "train_loss": "train",
    "test_loss": "test",
    "train_accuracy": "train",
    "test_accuracy": "test",
    "mirror_free_accuracy": "test, mirror unseen",
}


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    spans = phases(run)
    loss = learning.loss(run.steps, _named(run, "loss"), spans)
    accuracy = learning.accuracy(run.steps, _named(run, "accuracy"), spans)
    return Section(
        "Learning curves",
        "Steps and loss are drawn on logarithmic axes, on which step 0 has no place. "
        "Drag over a figure to zoom in, and the others over steps follow; a double click goes back.",
        (
            Panel(loss, f"Cross-entropy: the surprise at the right answer, in nats per answer. {shading(spans)}"),
            Panel(accuracy, "The share of questions answered right."),
        ),
    )


def _named(run: Run, kind: str) -> dict[str, np.ndarray]:
    found = run.measured(*(name for name in NAMES if name.endswith(kind)))
    return {NAMES[name]: values for name, values in found.items()}
