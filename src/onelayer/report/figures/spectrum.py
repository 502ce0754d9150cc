"""Energy by frequency, at one moment and over time."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from . import plots, theme

FREQUENCY, SHARE = "frequency k", "share of Σ W²"


def shares(values: np.ndarray) -> go.Figure:
    """values [frequency]: each one's share of the energy, from frequency 0 on."""
    return plots.bars(np.arange(values.size), values, x_title=FREQUENCY, y_title=SHARE)


def over_time(values: np.ndarray, steps: Sequence[int]) -> go.Figure:
    """values [step, frequency]; the first step at the bottom."""
    return plots.heat_map(
        values, x_title=FREQUENCY, y_title="step", value=SHARE, y_labels=[f"{step:,}" for step in steps],
        height=max(theme.HEIGHT, 16 * len(steps) + 80),
    )  # fmt: skip
