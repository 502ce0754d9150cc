"""A batch in shares, a thread for each: every share runs through the whole forward and backward, and gradients add up.

loss = Σ n_i loss_i / Σ n_i over the shares, n_i the weight of a share's targets; so each gradient. It is that of the
whole batch, but for the order in which it is summed: with another number of threads the last bits differ. What is the
same for all examples (`objective.meet`) is had once, before, and its gradient sent on once, after.

Between two products of a step NumPy works on one thread, and each product waits for its slowest part. A share has no
such pauses: what lies between the products is done side by side as well, and other work on the machine delays it less.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from ... import threads
from ...arrays import Array, map_tree
from ...tasks import Batch
from ..objective import Met, Objective, Scores, accumulated, forward, judge, loss_and_grads, meet, to_parameters

__all__ = ["Ahead", "alone", "forwards", "gradient", "shares"]

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


class Ahead(NamedTuple):
    """What was met, and each share's forward pass from there."""

    met: Met
    parts: list[tuple[Array, Any]]


def forwards(params: Any, batch: Batch, objective: Objective) -> tuple[Ahead, Scores]:
    """The forward passes, and the scores of what they said."""
    with alone(batch, objective):
        met = meet(params, batch, objective)

        def answer(part: Batch) -> tuple[tuple[Array, Any], Scores]:
            said = forward(met.params, part, objective)
            return said, judge(said[0], part)

        said, scores = zip(*threads.together(answer, shares(met.batch, objective)), strict=True)
        return Ahead(met, list(said)), Scores(*(np.concatenate(part) for part in zip(*scores, strict=True)))


def gradient(
    params: Any, batch: Batch, objective: Objective, ahead: Ahead | None = None, among: float | None = None
) -> tuple[Array, Any]:
    """`loss_and_grads`, share by share. ahead: `forwards` of the same arguments, if already known."""
    with alone(batch, objective):
        met, known = (meet(params, batch, objective), None) if ahead is None else ahead
        parts = shares(met.batch, objective)
        if len(parts) == 1:
            loss, grads = loss_and_grads(met.params, met.batch, objective, None if known is None else known[0], among)
        else:
            loss, grads = accumulated(met.params, parts, objective, threads.together, known, among=among)
        return loss, to_parameters(grads, met, objective)


def alone(batch: Batch, objective: Objective) -> Any:
    """A context in which BLAS keeps to one thread, where a batch is taken in shares: before and after them as well, for
    its others would wait awake, in the way of the next ones."""
    return threads.alone() if len(shares(batch, objective)) > 1 else nullcontext()
