"""Where heads look. Every share lies in 0..1, and the colours always run over all of it, so that pictures compare."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from . import plots

ALL = (0.0, 1.0)


def over_pairs(shares: np.ndarray, numbers: np.ndarray) -> go.Figure:
    """shares [a, b]: what one head gives to the first operand of each question; `numbers` are the operands."""
    return plots.heat_map(
        shares, x=numbers, y=numbers, x_title="second operand b", y_title="first operand a", value="on a", limits=ALL
    )


def profile(shares: np.ndarray, numbers: np.ndarray) -> go.Figure:
    """shares [head, a]: the same for every head, over the first operand alone."""
    named = {f"head {head}": row for head, row in enumerate(shares)}
    figure = plots.lines(numbers, named, x_title="first operand a", y_title="share on a, mean over b")
    return figure.update_yaxes(range=[-0.03, 1.03])


def of_questions(shares: np.ndarray, questions: Sequence[str], tokens: Sequence[str]) -> go.Figure:
    """shares [question, head, token]: one question a row, the heads side by side."""
    n, heads, width = shares.shape
    return plots.heat_map(
        shares.reshape(n, heads * width), x_title="head · token", y_title="unseen question", value="share", limits=ALL,
        x_labels=[f"{head}·{token}" for head in range(heads) for token in tokens], y_labels=questions, downward=True,
    )  # fmt: skip


def pattern(shares: np.ndarray, queries: Sequence[str], keys: Sequence[str]) -> go.Figure:
    """shares [query, key]: what one head gives, at each of the tokens that ask, to each that is asked."""
    return plots.heat_map(
        shares, x_title="token asked", y_title="token asking", value="share", limits=ALL, downward=True,
        x_labels=keys, y_labels=queries,
    )  # fmt: skip
