"""What training measured, over its steps: loss, accuracy, the norm of the weights."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from .plots import Span, over_steps


def loss(steps: np.ndarray, series: Mapping[str, np.ndarray], spans: Sequence[Span] = ()) -> go.Figure:
    """series: name -> cross-entropy [len(steps)], in nats."""
    return over_steps(steps, series, y_title="loss (nats)", log_y=True, spans=spans)


def accuracy(steps: np.ndarray, series: Mapping[str, np.ndarray], spans: Sequence[Span] = ()) -> go.Figure:
    """series: name -> share of right answers [len(steps)]."""
    figure = over_steps(steps, series, y_title="accuracy", spans=spans)
    return figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")


def size(steps: np.ndarray, series: Mapping[str, np.ndarray], what: str, spans: Sequence[Span] = ()) -> go.Figure:
    """series: name -> a size [len(steps)], of what `what` says."""
    return over_steps(steps, series, y_title=what, spans=spans)


def weight_norm(steps: np.ndarray, series: Mapping[str, np.ndarray], spans: Sequence[Span] = ()) -> go.Figure:
    """series: name -> √Σ w² [len(steps)]."""
    return over_steps(steps, series, y_title="Euclidean norm", spans=spans)
