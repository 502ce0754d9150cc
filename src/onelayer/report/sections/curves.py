"""Loss and accuracy over training, on a logarithmic axis of steps, with the run's phases shaded."""

from onelayer.report.figures import plots
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import NAMES, phases, shading

LOSSES = ("train_loss", "test_loss")
ACCURACIES = ("train_accuracy", "test_accuracy", "mirror_free_accuracy")


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    losses, accuracies = run.measured(*LOSSES), run.measured(*ACCURACIES)
    spans = phases(run)
    loss = plots.over_steps(
        run.steps,
        {NAMES[name]: values for name, values in losses.items()},
        y_title="loss (nats)",
        log_y=True,
        spans=spans,
    )
    accuracy = plots.over_steps(
        run.steps, {NAMES[name]: values for name, values in accuracies.items()}, y_title="accuracy", spans=spans
    )
    accuracy.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    return Section(
        "Learning curves",
        "Steps and loss are drawn on logarithmic axes. "
        "Drag over a figure to zoom in, and the others over steps follow; a double click goes back.",
        (
            Panel(loss, f"Cross-entropy: the surprise at the right answer, in nats per answer. {shading(spans)}"),
            Panel(accuracy, "The share of questions answered right."),
        ),
    )
