"""The three pictures from which the others are made: lines over an axis, bars over an axis, a matrix as a heat map.

Arrays in, a Plotly figure out; what is drawn is what was given, unrounded and unsmoothed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from . import theme


class Span(NamedTuple):
    """A shaded stretch of the horizontal axis, with its name along its left edge."""

    name: str
    start: float
    stop: float


def lines(
    x: Sequence[float] | np.ndarray,
    series: Mapping[str, np.ndarray],
    *,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    log_y: bool = False,
    spans: Sequence[Span] = (),
    height: int = theme.HEIGHT,
) -> go.Figure:
    """series: name -> y [len(x)]; NaN leaves a gap, and so does what is ≤ 0 on a logarithmic axis."""
    x = _placed(np.asarray(x), log_x)
    figure = theme.new(x=x_title, y=y_title, height=height)
    for index, (name, y) in enumerate(series.items()):
        y = _placed(_checked(name, np.asarray(y), (x.size,)), log_y)
        dash = ("solid", "solid", "dot", "dash", "dashdot")[index % 5]  # colour is not the only difference
        mode = "lines" if x.size > 1 else "markers"
        figure.add_scatter(x=x, y=y, name=name, mode=mode, line_dash=dash, hovertemplate="%{y:.4g}")
    shade(figure, spans)
    figure.update_layout(hovermode="x unified", showlegend=len(series) > 1)
    if log_x:
        figure.update_xaxes(**_logarithmic(x))
    if log_y:
        figure.update_yaxes(**_logarithmic(np.concatenate([np.ravel(y) for y in series.values()])))
    return figure


NARROW = 0.06  # of the axis: less than a name's height on a telephone


def shade(figure: go.Figure, spans: Sequence[Span], over: bool = False) -> go.Figure:
    """Mark stretches of the horizontal axis: shades below what is drawn, or (`over` a map) lines where each begins.

    A name stands upright, so that it needs little width; a stretch that has not even that goes without.
    """
    if not spans:
        return figure
    first, last = min(span.start for span in spans), max(span.stop for span in spans)
    for index, span in enumerate(spans):
        wide = np.log(span.stop / span.start) > NARROW * np.log(last / first)
        place = {"textangle": -90, "textposition": "top left", "xanchor": "right", "yanchor": "top", "padding": 3}
        label = {"text": span.name if wide else "", "font": {"size": 10}, **place}
        where = {"yref": "paper", "y0": 0, "y1": 1, "x0": span.start, "x1": span.stop, "name": span.name}
        if over:
            white = {"color": "#ffffff", "width": 1.5 if index else 0, "dash": "dot"}
            figure.add_shape(type="line", **where | {"x1": span.start}, line=white)
            label |= {"font": {"size": 10, "color": "#ffffff", "shadow": "0 0 2px #000000, 0 0 2px #000000"}}
            figure.add_shape(type="rect", **where, line_width=0, fillcolor="rgba(0,0,0,0)", label=label)
        else:
            grey = f"rgba(128,128,128,{0.1 * index:.2f})"
            figure.add_shape(type="rect", layer="below", **where, line_width=0, fillcolor=grey, label=label)
    return figure


def over_steps(
    steps: np.ndarray,
    series: Mapping[str, np.ndarray],
    *,
    y_title: str,
    log_y: bool = False,
    spans: Sequence[Span] = (),
    height: int = theme.HEIGHT,
) -> go.Figure:
    """Lines over the steps of training, on a logarithmic axis; on a page, such figures zoom together."""
    figure = lines(steps, series, x_title="step", y_title=y_title, log_x=True, log_y=log_y, spans=spans, height=height)
    return figure.update_xaxes(tickformat=",", tickfont_size=12).update_layout(meta={"axis": "step"})


TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 1)


def map_over_steps(
    values: np.ndarray,
    steps: Sequence[int] | np.ndarray,
    rows: Sequence[float] | np.ndarray,
    *,
    y_title: str,
    value: str,
    spans: Sequence[Span] = (),
    shares: bool = True,
    height: int = theme.HEIGHT,
) -> go.Figure:
    """values [step, row] as colours over the steps, on the logarithmic axis of `over_steps`; a cell reaches half way to
    its neighbours. Step 0 has no place. The colours of shares go by their root, an amplitude, so that small ones show.
    """
    steps, rows = np.asarray(steps, dtype=float), np.asarray(rows)
    values = _checked("values", np.asarray(values), (steps.size, rows.size))[steps > 0]
    steps = steps[steps > 0]
    if steps.size < 2:
        raise ValueError(f"a map over steps needs two steps after 0; received {steps.size}")
    middle = np.sqrt(steps[1:] * steps[:-1])
    edges = np.concatenate([steps[:1] ** 2 / middle[:1], middle, steps[-1:]])
    figure = theme.new(x="step", y=y_title, height=height)
    shown = values.T.astype(np.float32)
    scale = {"tickvals": np.sqrt(TICKS), "ticktext": [f"{tick:g}" for tick in TICKS]} if shares else {}
    figure.add_heatmap(
        z=np.sqrt(shown) if shares else shown, customdata=shown, x=edges, y=rows, zmin=0,
        colorbar={"title": {"text": value}, **scale},
        hovertemplate=f"step %{{x:,.0f}}<br>{y_title} %{{y}}<br>{value} %{{customdata:.3g}}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(**_logarithmic(steps), showgrid=False, range=np.log10(edges[[0, -1]]).tolist())
    figure.update_xaxes(tickformat=",", tickfont_size=12).update_yaxes(showgrid=False)
    seen = [Span(s.name, max(s.start, edges[0]), min(s.stop, edges[-1])) for s in spans]
    shade(figure, [span for span in seen if span.stop > span.start], over=True)
    return figure.update_layout(meta={"axis": "step"})


def bars(
    x: Sequence[float] | np.ndarray, y: np.ndarray, *, x_title: str, y_title: str, height: int = theme.HEIGHT
) -> go.Figure:
    """One bar y[i] at each x[i]."""
    x = np.asarray(x)
    figure = theme.new(x=x_title, y=y_title, height=height)
    figure.add_bar(x=x, y=_checked("y", np.asarray(y), (x.size,)), hovertemplate="%{x}: %{y:.4g}<extra></extra>")
    figure.update_yaxes(rangemode="tozero")
    return figure


def heat_map(
    values: np.ndarray,
    *,
    x_title: str,
    y_title: str,
    value: str,
    x: Sequence[float] | np.ndarray | None = None,
    y: Sequence[float] | np.ndarray | None = None,
    x_labels: Sequence[str] | None = None,
    y_labels: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
    downward: bool = False,
    height: int | None = None,
) -> go.Figure:
    """values [rows, columns], row 0 at the bottom or, `downward`, at the top as in a matrix.

    Values of both signs get the signed colours, with zero in the middle; otherwise the colours run over `limits`.
    A NaN is grey. Columns stand at x and rows at y (0, 1, 2 … where None), or labels name them; two may be alike.
    """
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"a heat map draws a matrix; received the shape {values.shape}; pass values [rows, columns]")
    if limits is None:
        limits = _symmetric(values)
    low, high = limits or (None, None)
    few = values.shape[0] <= 8  # rows, which would be towers at the full height
    usual = 140 + 26 * values.shape[0] if few else theme.HEIGHT
    figure = theme.new(x=x_title, y=y_title, height=usual if height is None else height)
    figure.add_heatmap(
        z=values, x=x, y=y, zmin=low, zmax=high, colorbar_title_text=value,
        hovertemplate=f"{x_title} %{{x}}<br>{y_title} %{{y}}<br>{value} %{{z:.4g}}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(showgrid=False, **_labelled(x_labels, values.shape[1]))
    figure.update_yaxes(showgrid=False, **_labelled(y_labels, values.shape[0]))
    figure.update_yaxes(autorange="reversed" if downward else True)
    figure.update_layout(plot_bgcolor="rgba(128,128,128,0.3)")
    return figure


def _symmetric(values: np.ndarray) -> tuple[float, float] | None:
    finite = values[np.isfinite(values)]
    if not (finite.size and finite.min() < 0 < finite.max()):
        return None
    bound = float(np.max(np.abs(finite)))
    return -bound, bound


def _labelled(labels: Sequence[str] | None, n: int) -> dict:
    """Ticks with the labels' text; where they are many, every second, fifth, … of them."""
    if labels is None:
        return {}
    if len(labels) != n:
        raise ValueError(f"{len(labels)} labels were given for {n} rows or columns; give one for each")
    stride = next(s for s in (1, 2, 5, 10, 20, 50, 100, n) if n <= 24 * s)
    ticks = list(range(0, n, stride))
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [str(labels[i]) for i in ticks]}


def _placed(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    """NaN for what has no place on the axis: Plotly would draw a line on to the margin, at a height that is made up."""
    return np.where(values > 0, values, np.nan) if logarithmic else values


def _checked(name: str, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if y.shape != shape:
        raise ValueError(
            f"the series {name!r} has the shape {y.shape}, the axis {shape}; give one value for each point"
        )
    return y


def _logarithmic(values: np.ndarray) -> dict:
    """A logarithmic axis, labelled at powers of ten, or at 1, 2, 5 times them where it spans fewer than two;
    at round numbers where it spans less than from 1 to 4."""
    positive = values[np.isfinite(values) & (values > 0)]
    decades = np.log10(positive.max() / positive.min()) if positive.size else 0.0
    if decades < 0.6:  # between 2 and 5 there may be none of these
        return {"type": "log", "nticks": 6}
    return {"type": "log", "dtick": "D2" if decades < 2 else 1, "exponentformat": "power", "tickfont": {"size": 10}}
