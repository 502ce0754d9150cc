"""Energy by frequency, at one moment and over time."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from . import plots

FREQUENCY, SHARE = "frequency k", "share of Σ W²"


def shares(values: np.ndarray) -> go.Figure:
    """values [frequency]: each one's share of the energy, from frequency 0 on."""
    return plots.bars(np.arange(values.size), values, x_title=FREQUENCY, y_title=SHARE)


def over_time(
    values: np.ndarray,
    steps: Sequence[int] | np.ndarray,
    frequencies: Sequence[int] | np.ndarray,
    share: str,
    spans: Sequence[plots.Span] = (),
) -> go.Figure:
    """values [step, frequency]: shares of what `share` says."""
    return plots.map_over_steps(values, steps, frequencies, y_title=FREQUENCY, value=share, spans=spans)
