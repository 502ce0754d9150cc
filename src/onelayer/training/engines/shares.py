"""A batch in shares, a thread for each: every share runs through the whole forward and backward, and gradients add up.

loss = Σ n_i loss_i / Σ n_i over the shares, n_i the weight of a share's targets; so each gradient. It is that of the
whole batch, but for the order in which it is summed: with another number of threads the last bits differ.

Between two products of a step NumPy works on one thread, and each product waits for its slowest part. A share has no
such pauses: what lies between the products is done side by side as well, and other work on the machine delays it less.
"""

from collections.abc import Sequence
from typing import Any

from ... import threads
from ...arrays import Array, map_tree
from ...tasks import Batch
from ..objective import Objective, accumulated, forward, loss_and_grads

__all__ = ["forwards", "gradient", "shares"]

WORTHWHILE = 1 << 17  # numbers in a share's residual stream below which a second thread costs more than it brings


def shares(batch: Batch, objective: Objective) -> list[Batch]:
    """The batch, cut along its examples into as many parts as there are threads, where that is worth while."""
    rows = len(batch.tokens)
    width = batch.tokens.shape[1] + (0 if batch.source is None else batch.source.shape[1])
    most = rows * width * objective.model.d_model // WORTHWHILE
    n = max(1, min(threads.count(), rows, most))
    edges = [rows * i // n for i in range(n + 1)]
    return [batch] if n == 1 else [
        map_tree(lambda a, i=i: a[edges[i] : edges[i + 1]], batch) for i in range(n)
    ]  # fmt: skip


def forwards(params: Any, parts: Sequence[Batch], objective: Objective) -> list[tuple[Array, Any]]:
    """The objective's forward pass over each share."""
    return threads.together(lambda part: forward(params, part, objective), parts)


def gradient(
    params: Any, batch: Batch, objective: Objective, ahead: Sequence[tuple[Array, Any]] | None = None
) -> tuple[Array, Any]:
    """`loss_and_grads`, share by share. ahead: `forwards` of the batch's shares, if already known."""
    parts = shares(batch, objective)
    if len(parts) == 1:
        return loss_and_grads(params, batch, objective, None if ahead is None else ahead[0])
    return accumulated(params, parts, objective, threads.together, ahead)
