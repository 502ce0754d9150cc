"""What a positional encoding does at each position: to an embedding, to a query, to the scores."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from . import plots, theme


def added(table: np.ndarray) -> go.Figure:
    """table [position, dimension]: what is added to the embedding."""
    figure = plots.heat_map(table, x_title="dimension", y_title="position", value="added", downward=True)
    return figure.update_yaxes(dtick=1 if table.shape[0] <= 12 else 10)


def turned(query: np.ndarray) -> go.Figure:
    """query [position, dimension]: what one and the same query becomes."""
    return plots.heat_map(query, x_title="dimension of a head", y_title="position", value="query", downward=True)


def bias(values: np.ndarray) -> go.Figure:
    """values [query, key]: what is added to the scores of one head; NaN where a query may not look."""
    bound = float(np.nanmax(np.abs(values))) or 1.0
    return plots.heat_map(
        values, x_title="key position", y_title="query position", value="bias", downward=True, limits=(-bound, bound)
    )


def alike(values: np.ndarray) -> go.Figure:
    """values [position, position]: how like two places are."""
    return plots.heat_map(values, x_title="position", y_title="position", value="similarity", downward=True)


def by_offset(offsets: np.ndarray, series: Mapping[str, np.ndarray], y_title: str) -> go.Figure:
    """series: name -> [offset]."""
    return plots.lines(offsets, series, x_title="offset: query position − key position", y_title=y_title)


def spectrum(amplitude: np.ndarray) -> go.Figure:
    """amplitude [frequency, dimension]."""
    return plots.heat_map(amplitude, x_title="dimension", y_title="cycles", value="|FFT|")


def singular(values: np.ndarray) -> go.Figure:
    """values [rank]."""
    return plots.bars(np.arange(1, values.size + 1), values, x_title="rank", y_title="singular value")


def over_training(steps: np.ndarray, tables: np.ndarray, spans: Sequence[plots.Span] = ()) -> go.Figure:
    """tables [step, position, dimension]: how like each table is to the last."""
    flat = tables.reshape(len(tables), -1)
    lengths = np.linalg.norm(flat, axis=1)
    cosine = flat @ flat[-1] / np.maximum(lengths * lengths[-1], np.finfo(float).tiny)
    return plots.over_steps(steps, {"cosine": cosine}, y_title="cosine with the last", spans=spans)


def row_lengths(steps: np.ndarray, tables: np.ndarray, spans: Sequence[plots.Span] = ()) -> go.Figure:
    """tables [step, position, dimension]: how long the row of each position is."""
    lengths, rows = np.linalg.norm(tables, axis=2), np.arange(tables.shape[1])
    figure = plots.map_over_steps(lengths, steps, rows, y_title="position", value="length", spans=spans, shares=False)
    return figure.update_yaxes(autorange="reversed", dtick=1 if len(rows) <= 12 else None)


def shares(steps: np.ndarray, series: Mapping[str, np.ndarray], spans: Sequence[plots.Span] = ()) -> go.Figure:
    """series: name -> [step], parts of a gradient that sum to 1."""
    return plots.over_steps(steps, series, y_title="share of the gradient", spans=spans)


def pulls(steps: np.ndarray, series: Mapping[str, np.ndarray], spans: Sequence[plots.Span] = ()) -> go.Figure:
    """series: name -> [step], the slope of the loss along terms of the scores."""
    return plots.over_steps(steps, series, y_title="∂loss / ∂scale", spans=spans)


def bias_over_training(steps: Sequence[int], offsets: np.ndarray, values: np.ndarray) -> go.Figure:
    """values [step, offset]: the bias of one head."""
    bound = float(np.abs(values).max()) or 1.0
    return plots.heat_map(
        values, x=offsets, x_title="offset", y_title="step", y_labels=[f"{step:,}" for step in steps], value="bias",
        limits=(-bound, bound),
    )  # fmt: skip


def first_look(
    accuracy: np.ndarray, methods: Sequence[str], probes: Sequence[str], stretches: Sequence[str]
) -> go.Figure:
    """accuracy [method, probe, stretch], 0..1: a group of columns for each probe, one for each length."""
    rows, groups, lengths = accuracy.shape
    wide = np.full((rows, groups, lengths + 1), np.nan)  # a gap after each group
    wide[:, :, :lengths] = accuracy
    values = wide.reshape(rows, -1)[:, :-1]
    figure = theme.new(x="", y="", height=60 + 21 * rows)
    figure.add_heatmap(
        z=values, x=np.arange(values.shape[1]), y=list(methods), zmin=0, zmax=1, xgap=1, ygap=1,
        colorbar_title_text="accuracy", colorbar_tickformat=".0%",
        hovertemplate="%{y}<br>%{z:.1%}<extra></extra>",
    )  # fmt: skip
    at = np.arange(groups) * (lengths + 1)
    ticks = (at[:, None] + np.arange(lengths)).ravel()
    figure.update_xaxes(tickvals=ticks, ticktext=[f"{s}×" for s in stretches] * groups, tickangle=0, showgrid=False)
    figure.update_xaxes(tickfont_size=10)
    for start, name in zip(at, probes, strict=True):
        figure.add_annotation(
            x=start + (lengths - 1) / 2, y=1, yref="paper", yanchor="bottom", text=f"<b>{name}</b>", showarrow=False
        )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", tickfont_size=11, ticklabelstandoff=6)
    return figure.update_layout(margin_t=30)
