"""Kernels of models/first_attention.py: two rows are added up for each of y, each of ∂y is added to two, in one pass.

Place after place: what a place's row is read from and added to then stays in the nearest cache, and of the larger
tables one row of each token's is come to.

`look` goes through attention a few examples after the other (look.py). Of y and ∂y there are only ever theirs: in the
backward y is looked up again, which takes less time than to keep it.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..arrays import aligned, keep
from ..positions import Method
from ..sublayers import attention_rows
from .attention import ALLOWED, LENGTHS, ROOMS, ROOMS_BACK, WHICH, room_back_of, room_of, rooms, rooms_back, seen
from .compile import compiled, fits, lent, parts, spread, strided
from .lanes import dense
from .look import answer, ask, bias_row, group_of, heads, may_take, rows, sum_of_parts
from .norms import Norm, norm_gradient, norm_of, normed_backward
from .product import panels


@lent
def _gather_rows(tokens, y, token, place, rstd, b):
    """y: a row for each of the tokens, example after example."""
    (B, T), one, b = tokens.shape, token.dtype.type(1), dense(b)
    for t in range(T):
        here = dense(place[t])
        for i in range(B):
            v = tokens[i, t]
            row, out, r = dense(token[v]), dense(y[i * T + t]), rstd[v, t] if rstd.size > 0 else one
            for j in range(out.size):
                out[j] = r * (row[j] + here[j]) + b[j]


@lent
def _add_rows_up(tokens, dy, token, place, rstd, dtoken, dplace, drstd, db):
    """drstd and db are added to where they are not empty."""
    (B, T), normed, one, db = tokens.shape, rstd.size > 0, token.dtype.type(1), dense(db)
    for t in range(T):
        here, dhere = dense(place[t]), dense(dplace[t])
        for i in range(B):
            v = tokens[i, t]
            asked, drow, r = dense(dy[i * T + t]), dense(dtoken[v]), one
            if normed:
                r, row, along = rstd[v, t], dense(token[v]), token.dtype.type(0)
                for j in range(asked.size):
                    along += asked[j] * (row[j] + here[j])
                drstd[v, t] += along
            if db.size > 0:
                for j in range(asked.size):
                    db[j] += asked[j]
            for j in range(asked.size):
                d = r * asked[j]
                drow[j] += d
                dhere[j] += d


# ------------------------------------------------------------------------------------------ the looking up alone


@compiled
def _gather(first, part, tokens, y, token, place, rstd, b):
    _gather_rows(tokens, y.reshape(-1, y.shape[2]), token, place, rstd, b)


@compiled
def _gather_backward(first, part, tokens, dy, token, place, rstd, dtoken, dplace, drstd, db):
    asked = dy.reshape(-1, dy.shape[2])
    _add_rows_up(tokens, asked, token, place, rstd, dtoken[part], dplace[part], drstd[part], db[part])


def _takes(tokens: Any, *arrays: Any) -> bool:
    return fits(*arrays) and isinstance(tokens, np.ndarray) and tokens.size > 0


def gather(definition: Any, tokens: Any, token: Any, place: Any, rstd: Any, b: Any) -> Any:
    if not _takes(tokens, token, place, rstd, b):
        return definition(tokens, token, place, rstd, b)
    kind, N = token.dtype, token.shape[1]
    y, b = aligned((*tokens.shape, N), kind), np.zeros(N, kind) if b is None else b
    spread(_gather, y.size, (tokens, y), (token, place, _table(rstd, kind), b))
    return y


def gather_backward(definition: Any, dy: Any, tokens: Any, token: Any, place: Any, rstd: Any, b: Any) -> Any:
    if not _takes(tokens, dy, token, place, rstd, b):
        return definition(dy, tokens, token, place, rstd, b)
    sums = _sums(parts(dy.size), token, place, rstd, b)
    spread(_gather_backward, dy.size, (tokens, dy), (token, place, _table(rstd, dy.dtype), *sums))
    return _summed(sums, rstd, b)


def _table(rstd: Any, kind: Any) -> np.ndarray:
    return np.empty((0, 0), kind) if rstd is None else rstd


def _sums(n: int, token: Any, place: Any, rstd: Any, b: Any) -> tuple[np.ndarray, ...]:
    """Where each of n threads adds up what is felt; without a number where there is nothing to feel it."""
    shapes = token.shape, place.shape, (0, 0) if rstd is None else rstd.shape, (0,) if b is None else b.shape
    return tuple(np.zeros((n, *shape), token.dtype) for shape in shapes)


def _summed(sums: Any, rstd: Any, b: Any) -> tuple[Any, ...]:
    dtoken, dplace, drstd, db = map(sum_of_parts, sums)
    return dtoken, dplace, None if rstd is None else drstd, None if b is None else db


# ------------------------------------------------------------------------------------------ and attention


@strided(
    WHICH, types.int64, types.int64, types.int64, LENGTHS, (2, 2, 2), 1, (2, 2, 1, 2), 2, (4, 4, 4), LENGTHS, ALLOWED,
    (4, 2, 3), 0, (1, 1), 3, (3, 2), ROOMS,
)  # fmt: skip
def _look(
    first, part, items, T, group, norm, tokens, tables, b, streams, y, qkv, lengths, allowed, zs, eps, gains, room,
    product, rooms,
):  # fmt: skip
    (token, place, table), (x, x_hat, rstd, out), (q, k, v), (z, z_rows, L) = tables, streams, qkv, zs
    (gain, bias), (W_O, b_O) = gains, product
    own = room_of(part, rooms)
    last, at = first + len(items), part * group
    for e in range(first, last, group):
        end = min(e + group, last)
        n, i, j = end - e, e * T, end * T
        _gather_rows(tokens[e:end], y[at * T : (at + n) * T], token, place, table, b)
        ask(
            n, q[at : at + n], k[at : at + n], v[at : at + n], lengths[e:end], allowed[e:end], z[e:end], z_rows[i:j],
            L[e:end], x[i:j], out[i:j], x_hat[i:j], rstd[i:j], W_O, b_O, norm, eps, gain, bias, room[part, : j - i],
            own,
        )  # fmt: skip


@strided(
    WHICH, types.int64, types.int64, types.int64, LENGTHS, (2, 2, 2), 1, (2, 2, 1, 2), 2, (4, 4, 4), LENGTHS, ALLOWED,
    (4, 2, 3), (4, 2), (4, 4, 4), 2, 1, 3, (2, 2), (3, 3), (3, 3, 3, 2), 2, ROOMS_BACK,
)  # fmt: skip
def _look_back(
    first, part, items, T, group, norm, tokens, tables, b, streams, y, qkv, lengths, allowed, zs, dzs, dqkv, dy, gain,
    W_O, dnorm, dproduct, dtables, nothing, rooms,
):  # fmt: skip
    (token, place, table), (dout, x_hat, rstd, dx), (q, k, v), (z, z_rows, L) = tables, streams, qkv, zs
    (dz, dz_rows), (dq, dk, dv), dgain, dbias = dzs, dqkv, dnorm[0][part], dnorm[1][part]
    dW_O, db_O = dproduct[0][part], dproduct[1][part]
    dtoken, dplace, drstd, db = dtables[0][part], dtables[1][part], dtables[2][part], dtables[3][part]
    own = room_back_of(part, rooms)
    last, at = first + len(items), part * group
    for e in range(first, last, group):
        end = min(e + group, last)
        n, i, j = end - e, e * T, end * T
        start, stop, asked = at * T, (at + n) * T, dout[i:j]
        if norm:
            asked = dx[i:j]
            normed_backward(dout[i:j], x_hat[i:j], rstd[i:j], asked, norm, gain, dgain, dbias)
        _gather_rows(tokens[e:end], y[start:stop], token, place, table, b)
        answer(
            n, asked, q[at : at + n], k[at : at + n], v[at : at + n], lengths[e:end], allowed[e:end], z[e:end],
            z_rows[i:j], L[e:end], dz[at : at + n], dz_rows[start:stop], dq[at : at + n], dk[at : at + n],
            dv[at : at + n], W_O, dW_O, db_O, nothing, own,
        )  # fmt: skip
        _add_rows_up(tokens[e:end], dy[start:stop], token, place, table, dtoken, dplace, drstd, db)


class Cache(NamedTuple):
    tables: Any  # first_attention.Tables
    tokens: np.ndarray
    x_hat: np.ndarray
    rstd: np.ndarray
    qkv: tuple[np.ndarray, ...]  # of the examples that go together
    y: np.ndarray
    lengths: np.ndarray
    allowed: np.ndarray
    z: np.ndarray
    L: np.ndarray
    norm: Norm


def look(
    definition: Any, tokens: Any, p: Any, x: Any, n: int, places: Any, position: Method, cfg: Any, tap: Any = keep
) -> Any:
    tables, after = p.attn, p.ln1 if cfg.norm == "post" else None
    taken = _takes(tokens, x, *tables[:6], *(after or ())) and n == x.shape[1] and tap is keep
    if not (taken and may_take(x, tables.W_O, places.mask, position)):
        return definition(tokens, p, x, n, places, position, cfg, tap)
    (B, T, D), (H, K, _), kind, norm = x.shape, tables.W_O.shape, x.dtype, norm_of(after, cfg.norm_eps)
    count, group, W_O = parts(x.size), group_of(T), tables.W_O.reshape(H * K, D)
    y, ids = aligned((count * group, T, 3 * H * K), kind), np.ascontiguousarray(tokens, np.int64)
    qkv = tuple(map(heads, attention_rows.side_by_side(y, (H, K))))
    z, L, (lengths, allowed) = aligned((B, T, H, K), kind), np.empty((B, H, T), kind), seen(places.mask, B, T, T)
    x_hat, rstd, out = aligned(x.shape if norm.kind else (0, 0, D), kind), np.empty(B * T, kind), aligned(x.shape, kind)
    spread(
        _look, x.size, (np.arange(B),),
        (T, group, norm.kind, ids, *_looked_up(tables), (rows(x), rows(x_hat), rstd, rows(out)), rows(y), qkv, lengths,
         allowed, (heads(z), z.reshape(B * T, H * K), L), kind.type(norm.eps), norm.of(x),
         aligned((count, group * T, D), kind), (panels(W_O), bias_row(tables.b_O, W_O)), rooms(qkv[0], K, x.size)),
    )  # fmt: skip
    return out, (None, Cache(tables, ids, x_hat, rstd, qkv, y, lengths, allowed, z, L, norm))


def look_backward(definition: Any, dmid: Any, c: Any, position: Method, cfg: Any, tap: Any = keep) -> Any:
    if not isinstance(c[1], Cache):
        return definition(dmid, c, position, cfg, tap)
    dmid, (_, c) = np.ascontiguousarray(dmid), c
    tables, (B, T, D), (H, K, _), kind = c.tables, dmid.shape, c.tables.W_O.shape, dmid.dtype
    count, group, HK = parts(dmid.size), group_of(T), H * K
    dx, dy = aligned(dmid.shape, kind) if c.norm.kind else dmid, aligned(c.y.shape, kind)
    dqkv, dz = tuple(map(heads, attention_rows.side_by_side(dy, (H, K)))), aligned((count * group, T, H, K), kind)
    dnorm, nothing = np.zeros((2, count, 1, D), kind), np.zeros((1, max(HK, D)), kind)
    dW_O, db_O = np.zeros((count, HK, D), kind), np.zeros((count, 1, D), kind)
    sums = _sums(count, *tables[:4])
    spread(
        _look_back, dmid.size, (np.arange(B),),
        (T, group, c.norm.kind, c.tokens, *_looked_up(tables), (rows(dmid), rows(c.x_hat), c.rstd, rows(dx)), rows(c.y),
         c.qkv, c.lengths, c.allowed, (heads(c.z), c.z.reshape(B * T, HK), c.L), (heads(dz), dz.reshape(-1, HK)), dqkv,
         rows(dy), c.norm.of(dmid)[0], panels(tables.W_O.reshape(HK, D).T), tuple(dnorm[:, :, 0]), (dW_O, db_O), sums,
         nothing, rooms_back(c.qkv[0], K, dmid.size)),
    )  # fmt: skip
    d_ln1 = norm_gradient(c.norm, *dnorm.sum(axis=(1, 2)))
    dW_O, db_O = sum_of_parts(dW_O).reshape(H, K, D), None if tables.b_O is None else sum_of_parts(db_O)[0]
    felt = _summed(sums, tables.rstd, tables.b)
    return dx, (d_ln1, type(tables)(*felt, dW_O, db_O, tables.pos, None, None))


def _looked_up(tables: Any) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    token, place, rstd, b = tables[:4]
    return (token, place, _table(rstd, token.dtype)), np.zeros(token.shape[1], token.dtype) if b is None else b


KERNELS = {
    "models.first_attention.gather": gather,
    "models.first_attention.gather_backward": gather_backward,
    "models.first_attention.look": look,
    "models.first_attention.look_backward": look_backward,
}
