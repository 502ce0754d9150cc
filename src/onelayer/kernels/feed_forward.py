"""Kernels of sublayers/feed_forward.py: a block of rows goes through all of it while it is in the cache.

With them go, where a block of a model asks for it (halves.py), the norm before or after it and the skip around it.

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
from .norms import NONE, Norm, normed, normed_backward, scaled
from .product import BLOCK, cut, multiply_rows, outer_rows, panels, whole, widened
from .rows import add, add_up, copy


class Cache(NamedTuple):
    p: Any
    x: np.ndarray  # as rows
    x_hat: np.ndarray
    rstd: np.ndarray
    post: np.ndarray
    slope: np.ndarray  # of ReLU: post, for post > 0 tells it
    kind: int
    norm: Norm
    before: bool
    skip: bool


@strided(2, 2, 1, 2, 2, 2, *(types.int64,) * 4, 0, 1, 1, 3, 3, 2, 3, 2)
def _forward(
    first, part, x, x_hat, rstd, pre, post, y, kind, norm, before, skip, eps, gain, bias,
    rooms, W_in, b_in, W_out, b_out,
):  # fmt: skip
    D = x.shape[1]
    for i in range(0, len(x), BLOCK):
        end = min(i + BLOCK, len(x))
        given, out, room = x[i:end], y[i:end], rooms[part, : end - i]
        read, said = (room, out) if before else (given, room if norm else out)
        if before:
            normed(given, x_hat[i:end], rstd[i:end], read, norm, gain, bias, eps)
        multiply_rows(read, pre[i:end], W_in, b_in)
        act(pre[i:end], post[i:end], kind)
        multiply_rows(post[i:end], said, W_out, b_out)
        if skip:
            add(said[:, :D], given)
        if norm and not before:
            normed(said[:, :D], x_hat[i:end], rstd[i:end], out[:, :D], norm, gain, bias, eps)


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


@strided(2, 2, 2, 1, 2, 2, 2, *(types.int64,) * 4, 1, 1, 3, 3, *(3,) * 3, 2, 2, *(3,) * 4, 2)
def _backward(
    first, part, dy, x, x_hat, rstd, post, slope, dx, kind, norm, before, skip, gain, bias, W_out, W_in,
    asks, blocks, rooms, dgain, dbias, dW_in, db_in, dW_out, db_out, nothing,
):  # fmt: skip
    D, dgain, dbias = x.shape[1], dgain[part], dbias[part]
    dW_in, db_in, dW_out, db_out = dW_in[part], db_in[part], dW_out[part], db_out[part]
    for i in range(0, len(x), BLOCK):
        end = min(i + BLOCK, len(x))
        asked, d, room, felt = asks[part, : end - i], blocks[part, : end - i], rooms[part, : end - i], dx[i:end]
        if norm and not before:
            normed_backward(dy[i:end], x_hat[i:end], rstd[i:end], asked[:, :D], norm, gain, dgain, dbias)
        else:
            copy(dy[i:end], asked)
        multiply_rows(asked, d, W_out, nothing)
        _send_through(d, slope[i:end], kind == 0, db_in)
        read = x[i:end]
        if before:
            read = room
            scaled(x_hat[i:end], room[:, :D], gain, bias)
        outer_rows(read.T, dW_in, d, dW_in)
        outer_rows(post[i:end].T, dW_out, asked, dW_out)
        add_up(asked, db_out)
        if before:
            multiply_rows(d, room, W_in, nothing)
            normed_backward(room[:, :D], x_hat[i:end], rstd[i:end], felt[:, :D], norm, gain, dgain, dbias)
        else:
            multiply_rows(d, felt, W_in, nothing)
        if skip:
            add(felt[:, :D], asked)


def run(p: Any, x: Any, activation: str, norm: Norm = NONE, before: bool = False, skip: bool = False) -> Any:
    """The network of x, or of its norm, with x added where `skip`, normed after where a norm is not before."""
    rows, W_in, kind, D = x.reshape(-1, x.shape[-1]), widened(p.W_in), IN_PLACE.index(activation), x.shape[-1]
    b_in, b_out = _row(p.b_in, p.W_in), _row(p.b_out, p.W_out)
    pre, y = (aligned((len(rows), wide), x.dtype) for wide in (W_in.shape[1], b_out.shape[1]))
    post = pre if activation == "relu" else aligned(pre.shape, x.dtype)
    x_hat = aligned(rows.shape, x.dtype) if norm.kind else rows
    rstd, rooms = np.empty(len(rows), x.dtype), aligned((parts(pre.size), BLOCK, y.shape[1]), x.dtype)
    gain, bias = norm.of(x)
    how = kind, norm.kind, before, skip, x.dtype.type(norm.eps), gain, bias
    weights = panels(W_in), b_in, panels(p.W_out), b_out
    spread(_forward, pre.size, (rows, x_hat, rstd, pre, post, y), (*how, rooms, *weights))
    return cut(y, D).reshape(x.shape), Cache(p, rows, x_hat, rstd, post, pre, kind, norm, before, skip)


def run_backward(dy: Any, c: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """∂x, ∂gain, ∂bias and the parameters' gradients."""
    p, rows, kind = c.p, np.ascontiguousarray(dy).reshape(-1, dy.shape[-1]), dy.dtype
    (D, F), (N, wide), n, E = p.W_in.shape, c.post.shape, parts(c.post.size), whole(dy.shape[-1], kind)
    dx, rooms = aligned((N, E), kind), [aligned((n, BLOCK, width), kind) for width in (E, wide, E)]
    rooms[0][:] = 0  # beyond D
    weights, nothing = (panels(widened(W.T)) for W in (p.W_out, p.W_in)), np.zeros((1, max(wide, E)), kind)
    norms = np.zeros((2, n, D), kind)
    sums = [np.zeros((n, *shape), kind) for shape in ((D, wide), (1, wide), (F, E), (1, E))]
    how = c.kind, c.norm.kind, c.before, c.skip, *c.norm.of(rows)
    given = rows, c.x, c.x_hat, c.rstd, c.post, c.slope, dx
    spread(_backward, c.post.size, given, (*how, *weights, *rooms, *norms, *sums, nothing))
    dW_in, db_in, dW_out, db_out = (
        cut(a[0] if n == 1 else a.sum(axis=0), width) for a, width in zip(sums, (F, F, D, D), strict=True)
    )
    grads = dW_in, None if p.b_in is None else db_in[0], dW_out, None if p.b_out is None else db_out[0]
    return cut(dx, D).reshape(dy.shape), *norms.sum(axis=1), type(p)(*grads)


def takes(p: Any, x: Any, activation: str, tap: Any) -> bool:
    return tap is keep and activation in IN_PLACE and fits(x, *p) and x.size > 0


def forward(definition: Any, p: Any, x: Any, activation: str, tap: Any = keep) -> Any:
    return run(p, x, activation) if takes(p, x, activation, tap) else definition(p, x, activation, tap)


def backward(definition: Any, dy: Any, c: Any, tap: Any = keep) -> Any:
    if not isinstance(c, Cache):
        return definition(dy, c, tap)
    dx, _, _, d = run_backward(dy, c)
    return dx, d


def _row(b: Any, W: Any) -> np.ndarray:
    """A bias as a row of whole lanes; zeros where there is none."""
    return widened(np.zeros((1, W.shape[1]), W.dtype) if b is None else b.reshape(1, -1))


KERNELS = {"sublayers.feed_forward.forward": forward, "sublayers.feed_forward.backward": backward}
