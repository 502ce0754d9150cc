"""What a positional encoding does at each position: to an embedding, to a query, to the scores."""

import numpy as np
import plotly.graph_objects as go

from . import plots


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
