"""What a network of waves computes: embeddings on circles, neurons by frequency, the logit as a sum of cosines, and
whether that reads as a clock or a pizza."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from . import plots, theme


def circle(points: np.ndarray, names: np.ndarray, phase: np.ndarray) -> go.Figure:
    """points [n, 2]; a line joins those whose phases are neighbours, all round."""
    order = np.argsort(phase, kind="stable")
    order = np.append(order, order[0])
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
    bound = 1.35 * float(np.abs(points).max() or 1.0)
    figure.update_xaxes(range=[-bound, bound]).update_yaxes(range=[-bound, bound], scaleanchor="x")
    figure.update_xaxes(automargin=False, nticks=6).update_yaxes(automargin=False, nticks=6)  # margins would shift it
    return figure.update_layout(showlegend=False, margin={"l": 60, "b": 50})


def neurons(counts: Mapping[int, int], highest: int) -> go.Figure:
    """frequency -> how many neurons have it as their own; frequencies run from 1 to `highest`."""
    k = np.arange(1, highest + 1)
    return plots.bars(k, np.array([counts.get(int(i), 0) for i in k]), x_title="frequency k", y_title="neurons")


def logit(offsets: np.ndarray, spoken: np.ndarray, cosines: np.ndarray, residual: np.ndarray) -> go.Figure:
    """The mean logit, the pairs' root mean square residual, and what the cosines make, by distance from the answer."""
    series = {"logit": spoken, "residual, root mean square": residual, "sum of cosines": cosines}
    return plots.lines(offsets, series, x_title="distance from the right answer, c − (a ∘ b)", y_title="logit")


def by_class(names: Sequence[str], spoken: np.ndarray, characters: np.ndarray, residual: np.ndarray) -> go.Figure:
    """The mean logit of each class of answers, the root mean square residual, and what the characters make of it."""
    figure = theme.new(x="class of (ab)⁻¹c", y="logit")
    series = {"logit": spoken, "residual, root mean square": residual, "sum of characters": characters}
    for (name, values), symbol in zip(series.items(), ("circle", "line-ew-open", "x-thin-open"), strict=True):
        figure.add_scatter(
            x=list(names), y=values, name=name, mode="markers", marker_symbol=symbol, marker_size=10,
            marker_line_width=2, hovertemplate="%{x}: %{y:.4g}",
        )  # fmt: skip
    return figure.update_xaxes(type="category").update_layout(showlegend=True)


def beside(measures: Sequence[str], series: Mapping[str, Sequence[float]]) -> go.Figure:
    """series: whose -> the value of each measure, all in 0..1; a row for each measure, a mark for each whose."""
    figure = theme.new(x="value", y="", height=90 + 60 * len(measures))
    rows = [name.replace(" ", "<br>") for name in measures]
    symbols = ("circle", "circle-open", "square-open", "diamond-open")
    for index, (name, values) in enumerate(series.items()):
        figure.add_scatter(
            x=list(values), y=rows, name=name, mode="markers", marker_size=13, marker_line_width=2,
            marker_symbol=symbols[index % len(symbols)], hovertemplate="%{x:.3f}",
        )  # fmt: skip
    figure.update_xaxes(range=[-0.03, 1.03]).update_yaxes(
        range=[-0.6, len(measures) - 0.4], ticks="", title_text="measure"
    )
    return figure.update_layout(showlegend=True)
