"""The norm of all weights over training."""

from onelayer.report.figures import learning
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import phases


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    norm = run.measured("weight_norm")["weight_norm"]
    figure = learning.weight_norm(run.steps, {"all weights": norm}, phases(run))
    return Section(
        "Weight norm",
        f"The Euclidean norm of all weights together went from {norm[0]:.4g} at step {run.steps[0]:,.0f} "
        f"to {norm[-1]:.4g} at step {run.steps[-1]:,.0f}; its largest value was {norm.max():.4g}.",
        (Panel(figure, "The norm of all weights, √Σ w², at each evaluation."),),
    )
