"""Kernels of sublayers/feed_forward.py: between two products one pass each way, in memory that a product has left.

Forward   bias, function and slope: activations.activate
Backward  ∂post becomes ∂pre where it lies, and is summed for ∂b_in in the same pass.

Without a tap, for the functions of activations.IN_PLACE; all else is the definition's. The products are BLAS's.
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import keep
from .activations import IN_PLACE, activate
from .compile import compiled, fits, parts, spread


class Cache(NamedTuple):
    p: Any
    x: np.ndarray  # as rows
    post: np.ndarray
    slope: np.ndarray | None  # None for ReLU: post > 0 tells it


@compiled
def _slopes(first, part, d, slope, sums):
    own = sums[part]
    for i in range(d.shape[0]):
        row, steep = d[i], slope[i]
        for j in range(row.size):
            v = row[j] * steep[j]
            row[j] = v
            own[j] += v


@compiled
def _slopes_relu(first, part, d, post, sums):
    own, zero = sums[part], d.dtype.type(0)
    for i in range(d.shape[0]):
        row, out = d[i], post[i]
        for j in range(row.size):
            v = row[j] if out[j] > 0 else row[j] * zero
            row[j] = v
            own[j] += v


def forward(definition: Any, p: Any, x: Any, activation: str, tap: Any = keep) -> Any:
    if tap is not keep or activation not in IN_PLACE or not fits(x, *p) or x.size == 0:
        return definition(p, x, activation, tap)
    rows = x.reshape(-1, x.shape[-1])
    post, slope = activate(rows @ p.W_in, p.b_in, activation)
    y = post @ p.W_out
    if p.b_out is not None:
        y += p.b_out
    return y.reshape(x.shape), Cache(p, rows, post, slope)


def backward(definition: Any, dy: Any, c: Any, tap: Any = keep) -> Any:
    if not isinstance(c, Cache):
        return definition(dy, c, tap)
    p, rows = c.p, np.ascontiguousarray(dy).reshape(-1, dy.shape[-1])
    d = rows @ p.W_out.T
    sums = np.zeros((parts(d.size), d.shape[1]), d.dtype)
    if c.slope is None:
        spread(_slopes_relu, d.size, (d, c.post), (sums,))
    else:
        spread(_slopes, d.size, (d, c.slope), (sums,))
    db_in = None if p.b_in is None else sums.sum(axis=0)
    db_out = None if p.b_out is None else rows.sum(axis=0)
    dx = (d @ p.W_in.T).reshape(dy.shape)
    return dx, p._replace(W_in=c.x.T @ d, b_in=db_in, W_out=c.post.T @ rows, b_out=db_out)


KERNELS = {"sublayers.feed_forward.forward": forward, "sublayers.feed_forward.backward": backward}
