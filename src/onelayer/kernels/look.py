"""Kernels of models/halves.py and encoder_decoder.py, `look` and `cross`: attention with its norm, its products and its
skip, a few examples after the other, while all that is theirs is in the cache.

Shapes    x, out [B T D]     memory [B S D], of `cross` alone     y [B T 3HK], or [B T HK] with y_there [B S 2HK]
          q k v are views of y, or of y and y_there

Forward   y = x W + b of the examples, or of their norm; q, k, v -> z, L (attention.py); out = z W_O + b_O + x
Backward  ∂z = ∂out W_Oᵀ;  ∂q, ∂k, ∂v -> ∂y, of which there are only ever a few examples';  ∂x = ∂y Wᵀ + ∂out;
          ∂W, ∂W_O and the biases' get what the examples add to them

When      attention_rows.py would take it, for methods that leave q, k and scores alone, and widths of whole lanes.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..arrays import aligned
from ..layers import linear
from ..positions import Method, Places
from ..sublayers import attention, attention_blocked, attention_rows
from .attention import (
    ALLOWED,
    LENGTHS,
    ROOMS,
    ROOMS_BACK,
    WHICH,
    mix_panels,
    room_back_of,
    room_of,
    rooms,
    rooms_back,
    seen,
    sees,
    send_heads_back,
)
from .compile import fits, lent, parts, spread, strided
from .lanes import lanes
from .norms import Norm, normed, normed_backward, scaled
from .product import multiply_rows, outer_rows, panels
from .rows import add, add_up

ROWS = 192  # of examples that go through together

INT = types.int64


# ------------------------------------------------------------------------------------------ inside kernels


@lent
def ask(
    n, q, k, v, lengths, allowed, z, z_rows, L, skip, out, x_hat, rstd, W_O, b_O, norm, eps, gain, bias, said, rooms
):
    """From q, k and v of n examples to what goes on; a norm after, if there is one. said: room for what it norms."""
    H, T, K = q.shape[1], q.shape[2], q.shape[3]
    mix_panels(0, n * H * ((T + lanes(z) - 1) // lanes(z)), q, k, v, lengths, allowed, z, L, K, rooms)
    to = said if norm else out
    multiply_rows(z_rows, to, W_O, b_O)
    add(to, skip)
    if norm:
        normed(to, x_hat, rstd, out, norm, gain, bias, eps)


@lent
def answer(n, asked, q, k, v, lengths, allowed, z, z_rows, L, dz, dz_rows, dq, dk, dv, W_O, dW_O, db_O, nothing, rooms):
    """From what n examples' sum is asked to ∂q, ∂k and ∂v."""
    H, K, N = q.shape[1], q.shape[3], v.shape[3]
    multiply_rows(asked, dz_rows, W_O, nothing)
    outer_rows(z_rows.T, dW_O, asked, dW_O)
    add_up(asked, db_O)
    send_heads_back(0, n * H, dz, z, q, k, v, L, lengths, allowed, dq, dk, dv, K, N, rooms)


@strided(
    WHICH, INT, INT, INT, INT, INT, (2, 2, 1, 2), 2, (2, 2), (4, 4, 4), LENGTHS, ALLOWED, (4, 2, 3), 0, (1, 1), 3,
    (3, 2), (3, 2), (3, 2), ROOMS,
)  # fmt: skip
def _look(
    first, part, items, T, S, group, norm, before, streams, memory, ys, qkv, lengths, allowed, zs, eps, gains, room,
    first_product, second_product, last_product, rooms,
):  # fmt: skip
    (x, x_hat, rstd, out), (y, y_there), (q, k, v), (z, z_rows, L), (gain, bias) = streams, ys, qkv, zs, gains
    (W, b), (W_there, b_there), (W_O, b_O) = first_product, second_product, last_product
    own = room_of(part, rooms)
    last = first + len(items)
    for e in range(first, last, group):
        end = min(e + group, last)
        i, j = e * T, end * T
        given, said, hat, r = x[i:j], room[part, : j - i], x_hat[i:j], rstd[i:j]
        read = given
        if before:
            read = said
            normed(given, hat, r, read, norm, gain, bias, eps)
        multiply_rows(read, y[i:j], W, b)
        if len(memory) > 0:
            multiply_rows(memory[e * S : end * S], y_there[e * S : end * S], W_there, b_there)
        ask(
            end - e, q[e:end], k[e:end], v[e:end], lengths[e:end], allowed[e:end], z[e:end], z_rows[i:j], L[e:end],
            given, out[i:j], hat, r, W_O, b_O, 0 if before else norm, eps, gain, bias, said, own,
        )  # fmt: skip


@strided(
    WHICH, INT, INT, INT, INT, INT, (2, 2, 2, 1, 2), (2, 2), (4, 4, 4), LENGTHS, ALLOWED, (4, 2, 3), (4, 2),
    (4, 4, 4), (2, 2), (1, 1), (3, 3), (3, 3, 3), (2, 2), (3, 3, 3), (3, 3, 3), 2, ROOMS_BACK,
)  # fmt: skip
def _look_back(
    first, part, items, T, S, group, norm, before, streams, memories, qkv, lengths, allowed, zs, dzs,
    dqkv, dys, gains, spaces, weights, dnorm, dweights, dbiases, nothing, rooms,
):  # fmt: skip
    (dout, x, x_hat, rstd, dx), (memory, dmemory), (q, k, v) = streams, memories, qkv
    (z, z_rows, L), (dz, dz_rows) = zs, dzs
    (dq, dk, dv), (dy, dy_there), (gain, bias), (asks, reads) = dqkv, dys, gains, spaces
    (W, W_there, W_O), (dgain, dbias) = weights, dnorm
    dgain, dbias = dgain[part], dbias[part]
    dW, dW_there, dW_O, db, db_there, db_O = (
        dweights[0][part], dweights[1][part], dweights[2][part], dbiases[0][part], dbiases[1][part], dbiases[2][part],
    )  # fmt: skip
    own = room_back_of(part, rooms)
    last, at = first + len(items), part * group
    for e in range(first, last, group):
        end = min(e + group, last)
        n, i, j = end - e, e * T, end * T
        start, stop = at * T, (at + n) * T
        asked, read, felt = dout[i:j], reads[part, : j - i], dx[i:j]
        if norm and not before:
            asked = asks[part, : j - i]
            normed_backward(dout[i:j], x_hat[i:j], rstd[i:j], asked, norm, gain, dgain, dbias)
        answer(
            n, asked, q[e:end], k[e:end], v[e:end], lengths[e:end], allowed[e:end], z[e:end], z_rows[i:j], L[e:end],
            dz[at : at + n], dz_rows[start:stop], dq[at : at + n], dk[at : at + n], dv[at : at + n],
            W_O, dW_O, db_O, nothing, own,
        )  # fmt: skip
        dy_here = dy[start:stop]
        add_up(dy_here, db)
        if before:
            scaled(x_hat[i:j], read, gain, bias)
            outer_rows(read.T, dW, dy_here, dW)
            multiply_rows(dy_here, read, W, nothing)
            normed_backward(read, x_hat[i:j], rstd[i:j], felt, norm, gain, dgain, dbias)
            add(felt, asked)
        else:
            outer_rows(x[i:j].T, dW, dy_here, dW)
            multiply_rows(dy_here, felt, W, asked)
        if len(memory) > 0:
            told, sent = memory[e * S : end * S], dy_there[at * S : (at + n) * S]
            add_up(sent, db_there)
            outer_rows(told.T, dW_there, sent, dW_there)
            multiply_rows(sent, dmemory[e * S : end * S], W_there, nothing)


# ------------------------------------------------------------------------------------------ in the place of


class Cache(NamedTuple):
    attn: attention.Params
    x: np.ndarray
    memory: np.ndarray  # of no examples, where there is none
    x_hat: np.ndarray
    rstd: np.ndarray
    qkv: tuple[np.ndarray, ...]
    lengths: np.ndarray
    allowed: np.ndarray
    z: np.ndarray
    L: np.ndarray
    weights: tuple[np.ndarray, ...]  # of the products to q, k and v
    norm: Norm
    before: bool


def takes(p: Any, norm: Any, x: Any, memory: Any, places: Places, position: Method, tap: Any) -> bool:
    there = x if memory is None else memory
    if not (attention_rows.fits(p, x, there, position, tap) and fits(x, there, *(norm or ())) and x.size > 0):
        return False
    return may_take(x, p.W_O, places.mask, position) and there.shape[1] < attention_blocked.LONG


def may_take(x: Any, W_O: Any, mask: Any, position: Method) -> bool:
    """Whether mask and widths are such as these kernels can take, and there are examples for each thread."""
    (_, K, D), width, asks = W_O.shape, lanes(x), x[:, None]
    plain = not attention_rows.looks_at_q(position) and sees(asks, asks, asks, mask)
    return plain and K % width == 0 == D % width and len(x) >= parts(x.size)


def run(p: Any, norm: Norm, before: bool, x: Any, memory: Any, mask: Any, position: Method) -> tuple[np.ndarray, Cache]:
    """mid, or what `cross` gives."""
    (B, T, D), (H, K, _), kind, n = x.shape, p.W_O.shape, x.dtype, parts(x.size)
    S, group, nothing = (T if memory is None else memory.shape[1]), group_of(T), np.empty((0, 0, D), kind)
    there = nothing if memory is None else memory
    joints = attention_rows.joints(p, position, apart=memory is not None)
    ys = [aligned((*of.shape[:2], W.shape[1]), kind) for of, (W, _) in zip((x, there), joints, strict=False)]
    qkv = tuple(heads(view) for y in ys for view in attention_rows.side_by_side(y, (H, K)))
    z, L, (lengths, allowed) = aligned((B, T, H, K), kind), np.empty((B, H, T), kind), seen(mask, B, T, S)
    x_hat, rstd, out = aligned(x.shape if norm.kind else (0, 0, D), kind), np.empty(B * T, kind), aligned(x.shape, kind)
    room, products = aligned((n, group * T, D), kind), [(panels(W), bias_row(b, W)) for W, b in joints]
    if memory is None:
        ys, products = [*ys, nothing], [*products, (nothing, rows(nothing))]
    W_O = p.W_O.reshape(H * K, D)
    spread(
        _look, x.size, (np.arange(B),),
        (T, S, group, norm.kind, before, (rows(x), rows(x_hat), rstd, rows(out)), rows(there), tuple(map(rows, ys)),
         qkv, lengths, allowed, (heads(z), z.reshape(B * T, H * K), L), kind.type(norm.eps), norm.of(x), room,
         *products, (panels(W_O), bias_row(p.b_O, W_O)), rooms(qkv[0], K, x.size)),
    )  # fmt: skip
    weights = tuple(W for W, _ in joints)
    return out, Cache(p, x, there, x_hat, rstd, qkv, lengths, allowed, z, L, weights, norm, before)


def run_backward(dout: Any, c: Cache, position: Method) -> tuple[np.ndarray, np.ndarray | None, Any, Any, Any]:
    """∂x, ∂memory, ∂gain, ∂bias of the norm, and the attention's gradients."""
    (B, T, D), (H, K, _), kind, n = c.x.shape, c.attn.W_O.shape, dout.dtype, parts(c.x.size)
    S, group, crosses, HK = c.qkv[1].shape[2], group_of(T), len(c.memory) > 0, H * K
    dx, dmemory = aligned(c.x.shape, kind), aligned(c.memory.shape, kind)
    widths = [W.shape[1] for W in c.weights]
    dys = [aligned((n * group, length, N), kind) for length, N in zip((T, S), widths, strict=False)]
    dqkv = tuple(heads(view) for dy in dys for view in attention_rows.side_by_side(dy, (H, K)))
    dz, spaces = aligned((n * group, T, H, K), kind), tuple(aligned((n, group * T, D), kind) for _ in range(2))
    nothing = np.zeros((1, max(*widths, HK, D)), kind)
    turned = [panels(W.T) for W in (*c.weights, c.attn.W_O.reshape(HK, D))]
    dW, db = ([np.zeros((n, length, N), kind) for N in widths] for length in (D, 1))
    dW_O, db_O, dnorm = np.zeros((n, HK, D), kind), np.zeros((n, 1, D), kind), np.zeros((2, n, D), kind)
    if not crosses:
        dys, turned = [*dys, nothing[None]], [turned[0], nothing[None], turned[1]]
        dW, db = [*dW, nothing[None]], [*db, nothing[None]]
    spread(
        _look_back, c.x.size, (np.arange(B),),
        (T, S, group, c.norm.kind, c.before,
         (rows(np.ascontiguousarray(dout)), rows(c.x), rows(c.x_hat), c.rstd, rows(dx)),
         (rows(c.memory), rows(dmemory)), c.qkv, c.lengths, c.allowed,
         (heads(c.z), c.z.reshape(B * T, HK), c.L), (heads(dz), dz.reshape(-1, HK)), dqkv, tuple(map(rows, dys)),
         c.norm.of(dout), spaces, tuple(turned), tuple(dnorm), (*dW, dW_O), (*db, db_O), nothing,
         rooms_back(c.qkv[0], K, c.x.size)),
    )  # fmt: skip
    found = [linear.Params(sum_of_parts(a), sum_of_parts(b)[0]) for a, b in zip(dW, db, strict=True)][: len(widths)]
    d = attention_rows.joints_backward(found, c.attn, position)
    db_O = None if c.attn.b_O is None else sum_of_parts(db_O)[0]
    d = d._replace(W_O=sum_of_parts(dW_O).reshape(H, K, D), b_O=db_O)
    return dx, dmemory if crosses else None, *dnorm.sum(axis=1), d


def group_of(T: int) -> int:
    """How many examples of that length go through together."""
    return max(1, ROWS // T)


def sum_of_parts(a: np.ndarray) -> np.ndarray:
    """Over the threads that each have one."""
    return a[0] if len(a) == 1 else a.sum(axis=0)


def rows(x: Any) -> np.ndarray:
    return x.reshape(-1, x.shape[-1])


def heads(x: Any) -> Any:
    """[B T H K] as [B H T K], the same memory."""
    return x.transpose(0, 2, 1, 3)


def bias_row(b: Any, W: Any) -> np.ndarray:
    """A bias as a row; zeros where there is none."""
    return np.zeros((1, W.shape[1]), W.dtype) if b is None else b.reshape(1, -1)
