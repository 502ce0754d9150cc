"""How gradients and updates ran through the net: lines over the steps of training, on log scales.

A figure names tensors; the lists of a page hold them in one order, so a tensor keeps its colour from figure to figure.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from . import plots, theme
from .plots import Span, over_steps

Series = Mapping[str, np.ndarray]


def norms(steps: np.ndarray, series: Series, what: str, spans: Sequence[Span] = ()) -> go.Figure:
    """series: tensor -> Euclidean norm [len(steps)]."""
    return over_steps(steps, series, y_title=f"norm of the {what}", log_y=True, spans=spans, height=theme.HEIGHT + 60)


def ratio(steps: np.ndarray, series: Series, spans: Sequence[Span] = ()) -> go.Figure:
    """series: tensor -> ‖update‖/‖weight‖ [len(steps)]."""
    return over_steps(steps, series, y_title="‖update‖ / ‖weight‖", log_y=True, spans=spans, height=theme.HEIGHT + 60)


def alignment(steps: np.ndarray, series: Series, spans: Sequence[Span] = ()) -> go.Figure:
    """series: tensor -> cosine between a gradient and the one before [len(steps)]."""
    figure = over_steps(steps, series, y_title="cosine with the last gradient", spans=spans, height=theme.HEIGHT + 60)
    return figure.update_yaxes(range=[-1.05, 1.05])


def share(steps: np.ndarray, series: Series, what: str, spans: Sequence[Span] = ()) -> go.Figure:
    """series: name -> share in 0..1 [len(steps)]."""
    figure = over_steps(steps, series, y_title=what, spans=spans)
    return figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")


def saturation(steps: np.ndarray, series: Series, spans: Sequence[Span] = ()) -> go.Figure:
    """series: head -> ‖∂pattern/∂scores‖ [len(steps)]."""
    return over_steps(steps, series, y_title="‖∂pattern/∂scores‖", log_y=True, spans=spans)


def ranks(steps: np.ndarray, series: Series, what: str, spans: Sequence[Span] = ()) -> go.Figure:
    """series: matrix -> rank [len(steps)]."""
    return over_steps(steps, series, y_title=f"{what} rank", log_y=True, spans=spans, height=theme.HEIGHT + 60)


def frequencies(steps: Sequence[int], values: np.ndarray) -> go.Figure:
    """values [step, frequency]: each step's norms as shares of its largest; the first step at the bottom."""
    largest = values.max(axis=1, keepdims=True)
    relative = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    return plots.heat_map(
        relative, x_title="frequency k", y_title="step", value="of the largest", limits=(0.0, 1.0),
        y_labels=[f"{step:,}" for step in steps], height=max(theme.HEIGHT, 10 * len(steps) + 80),
    )  # fmt: skip


def curvature(steps: np.ndarray, series: Series, what: str, spans: Sequence[Span] = ()) -> go.Figure:
    """series: name -> what a Hessian says [len(steps)]; only positive values have a place on the axis."""
    return over_steps(steps, series, y_title=what, log_y=True, spans=spans)
