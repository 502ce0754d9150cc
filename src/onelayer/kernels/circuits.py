"""Kernels of models/circuits.py: what a head passes on to neurons and logits is a table too; an example adds rows up.

What a head may mix hangs on (token, position) alone, and so does v attn_in: `paid`, had once a step for the rows that
occur, before the examples are shared out. An example's pre is then the row of its last token in base and H·T rows of
`paid`, each times its weight in the pattern; z is not had at all. As long as T is well below K, that is less than
z attn_in.

Backward  ∂A[b, s, h] = ∂pre[b] · paid[row, h]       ∂paid[row, h] = Σ A[b, s, h] ∂pre[b] over the b that looked there
          ∂v = ∂paid attn_inᵀ                        ∂attn_in = Σ_rows vᵀ ∂paid         and so with the logits
          Those who looked at a row are taken eight at a time: their sum is read and written once for all eight.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import threads
from ..layers import activations
from .compile import compiled, exp, fits, parts
from .tables import weigh_backward

SHORTER = 3  # T times this is at most K: else the rows to be added up cost what the product does


class Paid(NamedTuple):
    """What each head pays for each row that occurs."""

    v: Any  # [H R K]
    into: Any  # [R H F]
    out: Any  # [R H V]


class Looked(NamedTuple):
    """In place of the definition's. N below is F for the neurons and V for the logits."""

    reads: Any
    paid: Paid
    rows: Any  # [B T]
    pattern: Any  # [B T H]
    post: Any  # [B F]
    activation: Any  # None for ReLU: post > 0 tells it


@compiled
def _weigh(rows, scores, pattern):
    """pattern[b, :, h] = the softmax of scores[h, the row that asks, rows[b]]; the exponentials of all in one loop"""
    (B, T, H), (_, U, R), one = pattern.shape, scores.shape, scores.dtype.type(1)
    for b in range(B):
        seats, out = rows[b], pattern[b]
        for h in range(H):
            asked = scores[h, seats[T - 1] - (R - U)]
            top = asked[seats[0]]
            for s in range(1, T):
                top = asked[seats[s]] if asked[seats[s]] > top else top
            for s in range(T):
                out[s, h] = asked[seats[s]] - top
    flat = pattern.reshape(-1)
    for i in range(flat.size):
        flat[i] = exp(flat[i])
    for b in range(B):
        out = pattern[b]
        for h in range(H):
            total = out[0, h]
            for s in range(1, T):
                total += out[s, h]
            share = one / total
            for s in range(T):
                out[s, h] *= share


@compiled
def _weigh_backward(rows, dpattern, pattern, dscores):
    (B, T, H), (_, U, R) = pattern.shape, dscores.shape
    for b in range(B):
        for h in range(H):
            asks = rows[b, T - 1] - (R - U)
            weigh_backward(dpattern[b, :, h], pattern[b, :, h], rows[b], dscores[h, asks])


@compiled
def _mix(rows, weights, base, paid, y, relu):
    """y[b] = base[of the row that asks] + Σ weights[b, s, h] paid[rows[b, s], h]; relu: and nothing below 0"""
    (B, T, H), N, zero = weights.shape, base.shape[1], base.dtype.type(0)
    first = paid.shape[0] - base.shape[0]
    for b in range(B):
        out, known = y[b], base[rows[b, T - 1] - first]
        for j in range(N):
            out[j] = known[j]
        for s in range(T):
            row, w = paid[rows[b, s]], weights[b, s]
            for h in range(0, H // 4 * 4, 4):
                a0, a1, a2, a3 = w[h], w[h + 1], w[h + 2], w[h + 3]
                x0, x1, x2, x3 = row[h], row[h + 1], row[h + 2], row[h + 3]
                for j in range(N):
                    out[j] += a0 * x0[j] + a1 * x1[j] + a2 * x2[j] + a3 * x3[j]
            for h in range(H // 4 * 4, H):
                a0, x0 = w[h], row[h]
                for j in range(N):
                    out[j] += a0 * x0[j]
        if relu:
            for j in range(N):
                out[j] = zero if out[j] <= zero else out[j]


@compiled
def _gate(dpost, post, dpre):
    """ReLU's backward: what came through in the forward."""
    zero = post.dtype.type(0)
    for b in range(post.shape[0]):
        asked, out, d = dpost[b], post[b], dpre[b]
        for j in range(out.size):
            d[j] = asked[j] if out[j] > zero else asked[j] * zero


@compiled
def _feel(rows, dy, paid, dweights):
    """dweights[b, s, h] += dy[b] · paid[rows[b, s], h]"""
    (B, T, H), N = dweights.shape, dy.shape[1]
    zero = dy.dtype.type(0)
    for b in range(B):
        asked = dy[b]
        for s in range(T):
            row, d = paid[rows[b, s]], dweights[b, s]
            for h in range(0, H // 4 * 4, 4):
                x0, x1, x2, x3 = row[h], row[h + 1], row[h + 2], row[h + 3]
                d0, d1, d2, d3 = zero, zero, zero, zero
                for j in range(N):
                    d0 += asked[j] * x0[j]
                    d1 += asked[j] * x1[j]
                    d2 += asked[j] * x2[j]
                    d3 += asked[j] * x3[j]
                d[h] += d0
                d[h + 1] += d1
                d[h + 2] += d2
                d[h + 3] += d3
            for h in range(H // 4 * 4, H):
                x0, d0 = row[h], zero
                for j in range(N):
                    d0 += asked[j] * x0[j]
                d[h] += d0


@compiled
def _ordered(ids, n):
    """Which places hold each of the ids 0 … n − 1: those of i are where[starts[i] : starts[i + 1]]."""
    starts = np.zeros(n + 1, np.int64)
    for i in ids:
        starts[i + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    where, free = np.empty(ids.size, np.int64), starts[:n].copy()
    for place in range(ids.size):
        where[free[ids[place]]] = place
        free[ids[place]] += 1
    return starts, where


@compiled
def _add_up(who, weights, dy, totals):
    """totals[h] += Σ weights[b, h] dy[b] over the b in `who`"""
    eight, (H, N) = who.size // 8 * 8, totals.shape
    for i in range(0, eight, 8):
        b = who[i : i + 8]
        w0, w1, w2, w3 = weights[b[0]], weights[b[1]], weights[b[2]], weights[b[3]]
        w4, w5, w6, w7 = weights[b[4]], weights[b[5]], weights[b[6]], weights[b[7]]
        x0, x1, x2, x3, x4, x5, x6, x7 = dy[b[0]], dy[b[1]], dy[b[2]], dy[b[3]], dy[b[4]], dy[b[5]], dy[b[6]], dy[b[7]]
        for h in range(H):
            a0, a1, a2, a3, a4, a5, a6, a7 = w0[h], w1[h], w2[h], w3[h], w4[h], w5[h], w6[h], w7[h]
            total = totals[h]
            for j in range(N):
                left = a0 * x0[j] + a1 * x1[j] + a2 * x2[j] + a3 * x3[j]
                total[j] += left + (a4 * x4[j] + a5 * x5[j] + a6 * x6[j] + a7 * x7[j])
    for b in who[eight:]:
        x0 = dy[b]
        for h in range(H):
            a0, total = weights[b, h], totals[h]
            for j in range(N):
                total[j] += a0 * x0[j]


@compiled
def _collect(ids, weights, dy, totals):
    """totals[ids[b], h] += weights[b, h] dy[b]"""
    starts, where = _ordered(ids, totals.shape[0])
    for i in range(totals.shape[0]):
        _add_up(where[starts[i] : starts[i + 1]], weights, dy, totals[i])


def paid(definition: Any, v: Any, reads: Any, positions: int) -> Any:
    (R, H, K), ways = v.shape, (reads.attn_in, reads.attn_out)
    if not fits(v, *reads) or SHORTER * positions > K:
        return definition(v, reads, positions)
    by_head, found = np.ascontiguousarray(v.transpose(1, 0, 2)), [np.empty((R, H, w.shape[1]), v.dtype) for w in ways]
    n = parts(sum(x.size for x in found))

    def pay(part: int) -> None:
        some = slice(H * part // n, H * (part + 1) // n)
        for way, own in zip(ways, found, strict=True):
            np.matmul(by_head[some], way.reshape(H, K, -1)[some], out=own.transpose(1, 0, 2)[some])

    threads.spread(pay, n)
    return Paid(by_head, *found)


def look(definition: Any, scores: Any, v: Any, reads: Any, rows: Any, activation: str, known: Any = None) -> Any:
    (B, T), H = rows.shape, v.shape[1]
    known = paid(lambda *_: None, v, reads, T) if known is None else known
    if known is None or not fits(scores, v) or not isinstance(rows, np.ndarray) or B == 0:
        return definition(scores, v, reads, rows, activation)
    pattern = np.empty((B, T, H), v.dtype)
    _weigh(rows, scores[0], pattern)

    def add_up(base: Any, table: Any, relu: bool) -> Any:
        y = np.empty((B, table.shape[2]), v.dtype)
        _mix(rows, pattern, base, table, y, relu)
        return y

    post = add_up(reads.base_in, known.into, activation == "relu")
    direct = add_up(reads.base_out, known.out, False)
    c_act = None
    if activation != "relu":
        post, c_act = activations.forward(post, activation)
    return post, direct, Looked(reads, known, rows, pattern, post, c_act)


def look_backward(definition: Any, dpost: Any, dlogits: Any, c: Any) -> Any:
    if not isinstance(c, Looked):
        return definition(dpost, dlogits, c)
    (H, R, K), (B, T, _), U, kind = c.paid.v.shape, c.pattern.shape, len(c.reads.base_in), c.paid.v.dtype
    dpost, dlogits = np.ascontiguousarray(dpost), np.ascontiguousarray(dlogits)
    if c.activation is None:
        dpre = np.empty_like(dpost)
        _gate(dpost, c.post, dpre)
    else:
        dpre = activations.backward(dpost, c.activation)
    dpattern, dv, ones = np.zeros((B, T, H), kind), np.zeros((H, R, K), kind), np.ones((B, 1), kind)

    def send_back(dy: Any, table: Any, way: Any) -> tuple[Any, Any]:
        dpaid, dbase = np.zeros_like(table), np.zeros((U, dy.shape[1]), kind)
        _feel(c.rows, dy, table, dpattern)
        for position in range(T):
            _collect(c.rows[:, position], c.pattern[:, position], dy, dpaid)
        _collect(c.rows[:, -1] - (R - U), ones, dy, dbase[:, None])
        dpaid = dpaid.transpose(1, 0, 2)
        np.add(dv, dpaid @ way.reshape(H, K, -1).transpose(0, 2, 1), out=dv)
        return dbase, (c.paid.v.transpose(0, 2, 1) @ dpaid).reshape(way.shape)

    dbase_in, dattn_in = send_back(dpre, c.paid.into, c.reads.attn_in)
    dbase_out, dattn_out = send_back(dlogits, c.paid.out, c.reads.attn_out)
    dscores = np.zeros((1, H, U, R), kind)
    _weigh_backward(c.rows, dpattern, c.pattern, dscores[0])
    d = c.reads._replace(base_in=dbase_in, base_out=dbase_out, attn_in=dattn_in, attn_out=dattn_out)
    return dscores, np.ascontiguousarray(dv.transpose(1, 0, 2)), d


KERNELS = {
    "models.circuits.look": look,
    "models.circuits.look_backward": look_backward,
    "models.circuits.paid": paid,
}
