"""Kernels of sublayers/feed_forward.py: a block of rows goes through all of it while it is in the cache.

Forward   pre = x W_in + b_in of the block; function and slope (activations.py), one of them where pre lies;
          y = post W_out + b_out
Backward  ∂post = ∂y W_outᵀ of the block, which becomes ∂pre where it lies and is summed for ∂b_in in the same pass;
          ∂x = ∂pre W_inᵀ; ∂W_in and ∂W_out get what the block adds to them. There is only ever a block of ∂post, ∂pre.

Widths are rounded up to whole lanes (lanes.py), weights and biases with zeros.
Without a tap, for the functions of activations.IN_PLACE; all else is the definition's.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..arrays import aligned, keep
from .activations import IN_PLACE, act
from .compile import fits, lent, parts, spread, strided
from .lanes import choose, fill, lanes, load, store
from .product import BLOCK, cut, multiply_rows, outer_rows, panels, widened


class Cache(NamedTuple):
    p: Any
    x: np.ndarray  # as rows
    post: np.ndarray
    slope: np.ndarray  # of ReLU: post, for post > 0 tells it
    kind: int


@strided(2, 2, 2, 2, types.int64, 3, 2, 3, 2)
def _forward(first, part, x, pre, post, y, kind, W_in, b_in, W_out, b_out):
    for i in range(0, len(x), BLOCK):
        end = min(i + BLOCK, len(x))
        multiply_rows(x[i:end], pre[i:end], W_in, b_in)
        act(pre[i:end], post[i:end], kind)
        multiply_rows(post[i:end], y[i:end], W_out, b_out)


@lent
def _send_through(d, slope, is_relu, sums):
    """∂pre in place of ∂post, and its sum over the rows."""
    zero = fill(d.dtype.type(0))
    for i in range(d.shape[0]):
        for j in range(0, d.shape[1], lanes(d)):
            asked, steep = load(d, i, j), load(slope, i, j)
            felt = choose(zero, steep, asked, asked * zero) if is_relu else asked * steep
            store(d, i, j, felt)
            store(sums, 0, j, load(sums, 0, j) + felt)


@lent
def _add_up(rows, sums):
    for i in range(rows.shape[0]):
        for j in range(0, rows.shape[1], lanes(rows)):
            store(sums, 0, j, load(sums, 0, j) + load(rows, i, j))


@strided(2, 2, 2, 2, 2, 3, 3, types.int64, 3, 3, 3, 3, 3, 2)
def _backward(
    first, part, dy, x, post, slope, dx, W_out, W_in, kind, blocks, dW_in, db_in, dW_out, db_out, nothing
):  # fmt: skip
    dW_in, db_in, dW_out, db_out = dW_in[part], db_in[part], dW_out[part], db_out[part]
    for i in range(0, len(x), BLOCK):
        end = min(i + BLOCK, len(x))
        asked, d = dy[i:end], blocks[part, : end - i]
        multiply_rows(asked, d, W_out, nothing)
        _send_through(d, slope[i:end], kind == 0, db_in)
        multiply_rows(d, dx[i:end], W_in, nothing)
        outer_rows(x[i:end].T, dW_in, d, dW_in)
        outer_rows(post[i:end].T, dW_out, asked, dW_out)
        _add_up(asked, db_out)


def forward(definition: Any, p: Any, x: Any, activation: str, tap: Any = keep) -> Any:
    if tap is not keep or activation not in IN_PLACE or not fits(x, *p) or x.size == 0:
        return definition(p, x, activation, tap)
    rows, W_in, kind = x.reshape(-1, x.shape[-1]), widened(p.W_in), IN_PLACE.index(activation)
    b_in, b_out = _row(p.b_in, p.W_in), _row(p.b_out, p.W_out)
    pre, y = (aligned((len(rows), wide), x.dtype) for wide in (W_in.shape[1], b_out.shape[1]))
    post = pre if activation == "relu" else aligned(pre.shape, x.dtype)
    spread(_forward, pre.size, (rows, pre, post, y), (kind, panels(W_in), b_in, panels(p.W_out), b_out))
    return cut(y, x.shape[-1]).reshape(x.shape), Cache(p, rows, post, pre, kind)


def backward(definition: Any, dy: Any, c: Any, tap: Any = keep) -> Any:
    if not isinstance(c, Cache):
        return definition(dy, c, tap)
    p, rows = c.p, widened(np.ascontiguousarray(dy).reshape(-1, dy.shape[-1]))
    (D, F), wide, n, kind = p.W_in.shape, c.post.shape[1], parts(c.post.size), dy.dtype
    dx, blocks = aligned(rows.shape, kind), aligned((n, BLOCK, wide), kind)
    weights, nothing = (panels(widened(W.T)) for W in (p.W_out, p.W_in)), np.zeros((1, max(wide, dx.shape[1])), kind)
    sums = [np.zeros((n, *shape), kind) for shape in ((D, wide), (1, wide), (F, dx.shape[1]), (1, dx.shape[1]))]
    given = rows, c.x, c.post, c.slope, dx
    spread(_backward, c.post.size, given, (*weights, c.kind, blocks, *sums, nothing))
    dW_in, db_in, dW_out, db_out = (
        cut(a[0] if n == 1 else a.sum(axis=0), N) for a, N in zip(sums, (F, F, D, D), strict=True)
    )
    grads = dW_in, None if p.b_in is None else db_in[0], dW_out, None if p.b_out is None else db_out[0]
    return cut(dx, D).reshape(dy.shape), p._replace(**dict(zip(p._fields, grads, strict=True)))


def _row(b: Any, W: Any) -> np.ndarray:
    """A bias as a row of whole lanes; zeros where there is none."""
    return widened(np.zeros((1, W.shape[1]), W.dtype) if b is None else b.reshape(1, -1))


KERNELS = {"sublayers.feed_forward.forward": forward, "sublayers.feed_forward.backward": backward}
