"""What a network of waves computes: embeddings on circles, neurons by frequency, the logit as a sum of cosines."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from . import plots, theme


def circle(points: np.ndarray, names: np.ndarray, step: int) -> go.Figure:
    """points [n, 2], of the places 0, 1, 2 … of a cycle; a line joins places `step` apart, neighbours on the circle."""
    order = np.arange(len(points) + 1) * step % len(points)
    figure = theme.new(x="along the cosine", y="along the sine", height=theme.HEIGHT)
    x, y = points[order].T
    figure.add_scatter(
        x=x, y=y, mode="lines+markers", line_width=0.6, marker_size=5, customdata=names[order],
        hovertemplate="number %{customdata}<extra></extra>",
    )  # fmt: skip
    shown = order[: -1 : max(1, len(points) // 12)]
    figure.add_scatter(
        x=1.2 * points[shown, 0], y=1.2 * points[shown, 1], mode="text", text=[str(names[i]) for i in shown],
        hoverinfo="skip",
    )  # fmt: skip
    figure.update_yaxes(scaleanchor="x", scaleratio=1)
    return figure.update_layout(showlegend=False)


def neurons(counts: Mapping[int, int], highest: int) -> go.Figure:
    """frequency -> how many neurons have it as their own; frequencies run from 1 to `highest`."""
    k = np.arange(1, highest + 1)
    return plots.bars(k, np.array([counts.get(int(i), 0) for i in k]), x_title="frequency k", y_title="neurons")


def logit(offsets: np.ndarray, spoken: np.ndarray, cosines: np.ndarray, residual: np.ndarray) -> go.Figure:
    """The mean logit, the pairs' root mean square residual, and what the cosines make, by distance from the answer."""
    series = {"logit": spoken, "residual, root mean square": residual, "sum of cosines": cosines}
    return plots.lines(offsets, series, x_title="distance from the right answer, c − (a ∘ b)", y_title="logit")
