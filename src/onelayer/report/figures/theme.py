"""The look of every figure, in one place: a light and a dark Plotly template, and the colours both draw from.

Colours   lines: Okabe & Ito, told apart with any colour vision; in the dark, the same hues begin with the brighter ones
          amounts (≥ 0): cividis      signed values: blue, background, orange; zero looks like the page
          A figure names no colour. It takes the template's, so that one figure serves both backgrounds.

Source    Okabe & Ito 2008, Color Universal Design; cividis: Nuñez et al. 2018, doi:10.1371/journal.pone.0199239.
"""

from functools import cache

import plotly.graph_objects as go

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#888888"

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
HEIGHT = 340  # pixels; a figure is as wide as its place


@cache
def light() -> go.layout.Template:
    return _template(
        ink="#222222", page="#ffffff", grid="#e4e4e4", lines=(BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY)
    )


@cache
def dark() -> go.layout.Template:
    return _template(
        ink="#dddddd", page="#16181c", grid="#33373d", lines=(SKY, ORANGE, GREEN, PURPLE, VERMILION, "#F0E442", GREY)
    )


def new(*, x: str, y: str, height: int = HEIGHT) -> go.Figure:
    """An empty figure with titled axes; every figure of the package begins here."""
    return go.Figure(layout={"template": light(), "height": height, "xaxis.title.text": x, "yaxis.title.text": y})


def _template(*, ink: str, page: str, grid: str, lines: tuple[str, ...]) -> go.layout.Template:
    axis = {
        "automargin": True,
        "gridcolor": grid,
        "linecolor": ink,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": grid,
        "title": {"standoff": 8, "font": {"size": 13}},
    }
    colour_bar = {"thickness": 12, "outlinewidth": 0, "tickfont": {"size": 11}, "title": {"side": "right"}}
    layout = {
        "font": {"family": FONT, "size": 12, "color": ink},
        "paper_bgcolor": page,
        "plot_bgcolor": page,
        "colorway": list(lines),
        "colorscale": {
            "sequential": "Cividis",
            "sequentialminus": "Cividis_r",
            "diverging": [[0, BLUE], [0.5, page], [1, ORANGE]],
        },
        "xaxis": axis,
        "yaxis": axis,
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": FONT}},
        "modebar": {"remove": ["select2d", "lasso2d"]},
    }
    return go.layout.Template(
        layout=layout,
        data={
            "heatmap": [{"autocolorscale": True, "colorbar": colour_bar}],
            "scatter": [{"line": {"width": 2}}],
            "bar": [{"marker": {"line": {"width": 0}}}],
        },
    )
