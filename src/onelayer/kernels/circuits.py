"""Kernels of models/circuits.py: what a head passes on to neurons and logits is a table too; an example adds rows up.

What a head may mix hangs on (token, position) alone, and so does v attn_in: `paid`, had once a step for the rows that
occur. An example's pre is then the row of its last token in base and H·T rows of `paid`, each times its weight in the
pattern; z is not had at all. As long as T is well below K, that is less than z attn_in.

Backward  ∂A[b, s, h] = ∂pre[b] · paid[row, h]       ∂paid[row, h] = Σ A[b, s, h] ∂pre[b] over the b that looked there
          ∂v = ∂paid attn_inᵀ                        ∂attn_in = Σ_rows vᵀ ∂paid         and so with the logits
          Those who looked at a row are taken eight at a time: their sum is read and written once for all eight.
"""

from typing import Any, NamedTuple

import numpy as np

from .compile import compiled, exp, fits

SHORTER = 3  # T times this is at most K: else the rows to be added up cost what the product does


class Looked(NamedTuple):
    """N is F for the neurons and V for the logits; U rows occur."""

    reads: Any
    used: Any  # [U] numbers of the rows that occur
    rows: Any  # [B T]: which of these an example looks at
    tokens: Any
    v: Any  # [H U K]
    size: int  # R
    pattern: Any  # [B T H]
    paid: tuple[Any, Any]  # [U H N]


@compiled
def _weigh(tokens, scores, pattern):
    """The softmax over an example's positions, per head."""
    (B, T, H), V = pattern.shape, scores.shape[1]
    zero = scores.dtype.type(0)
    for b in range(B):
        asks = tokens[b, T - 1]
        for h in range(H):
            asked, top = scores[h, asks], scores[h, asks, tokens[b, 0]]
            for s in range(T):
                score = asked[s * V + tokens[b, s]]
                top = score if score > top else top
            total = zero
            for s in range(T):
                e = exp(asked[s * V + tokens[b, s]] - top)
                pattern[b, s, h] = e
                total += e
            for s in range(T):
                pattern[b, s, h] /= total


@compiled
def _weigh_backward(tokens, dpattern, pattern, dscores):
    (B, T, H), V = pattern.shape, dscores.shape[1]
    zero = pattern.dtype.type(0)
    for b in range(B):
        asks = tokens[b, T - 1]
        for h in range(H):
            mean = zero
            for s in range(T):
                mean += pattern[b, s, h] * dpattern[b, s, h]
            for s in range(T):
                dscores[h, asks, s * V + tokens[b, s]] += pattern[b, s, h] * (dpattern[b, s, h] - mean)


@compiled
def _mix(rows, last, weights, base, paid, y):
    """y[b] = base[last[b]] + Σ weights[b, s, h] paid[rows[b, s], h]"""
    (B, T, H), N = weights.shape, base.shape[1]
    for b in range(B):
        out, known = y[b], base[last[b]]
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


def look(definition: Any, scores: Any, v: Any, reads: Any, tokens: Any) -> Any:
    (R, H, K), (B, T) = v.shape, tokens.shape
    if not fits(scores, v, *reads) or not isinstance(tokens, np.ndarray) or B == 0 or SHORTER * T > K:
        return definition(scores, v, reads, tokens)
    tokens, V = np.ascontiguousarray(tokens), R // T
    numbers = tokens + V * np.arange(T)
    occurs = np.zeros(R, bool)
    occurs[numbers] = True
    used = np.flatnonzero(occurs)
    rows = (np.cumsum(occurs) - 1)[numbers]
    pattern = np.empty((B, T, H), v.dtype)
    _weigh(tokens, scores[0], pattern)

    mixed = np.ascontiguousarray(v[used].transpose(1, 0, 2))
    found, paid, last = [], [], np.ascontiguousarray(tokens[:, -1])
    for base, way in ((reads.base_in, reads.attn_in), (reads.base_out, reads.attn_out)):
        table = np.empty((len(used), H, way.shape[1]), v.dtype)
        np.matmul(mixed, way.reshape(H, K, -1), out=table.transpose(1, 0, 2))
        y = np.empty((B, way.shape[1]), v.dtype)
        _mix(rows, last, pattern, base, table, y)
        found.append(y)
        paid.append(table)
    return *found, Looked(reads, used, rows, tokens, mixed, R, pattern, tuple(paid))


def look_backward(definition: Any, dpre: Any, dlogits: Any, c: Any) -> Any:
    if not isinstance(c, Looked):
        return definition(dpre, dlogits, c)
    (H, U, K), (B, T, _), V = c.v.shape, c.pattern.shape, len(c.reads.base_in)
    dpre, dlogits = np.ascontiguousarray(dpre), np.ascontiguousarray(dlogits)
    kind, ones = c.v.dtype, np.ones((B, 1), c.v.dtype)
    dpattern, dmixed, d = np.zeros((B, T, H), kind), np.zeros((H, U, K), kind), []
    for dy, table, way in ((dpre, c.paid[0], c.reads.attn_in), (dlogits, c.paid[1], c.reads.attn_out)):
        _feel(c.rows, dy, table, dpattern)
        dtable, dbase = np.zeros_like(table), np.zeros((V, dy.shape[1]), kind)
        for position in range(T):
            _collect(c.rows[:, position], c.pattern[:, position], dy, dtable)
        _collect(c.tokens[:, -1], ones, dy, dbase[:, None])
        dtable = dtable.transpose(1, 0, 2)
        dmixed += np.matmul(dtable, way.reshape(H, K, -1).transpose(0, 2, 1))
        d.append((dbase, np.matmul(c.v.transpose(0, 2, 1), dtable).reshape(way.shape)))
    dscores, dv = np.zeros((1, H, V, c.size), kind), np.zeros((c.size, H, K), kind)
    _weigh_backward(c.tokens, dpattern, c.pattern, dscores[0])
    dv[c.used] = dmixed.transpose(1, 0, 2)
    (base_in, attn_in), (base_out, attn_out) = d
    return dscores, dv, c.reads._replace(base_in=base_in, base_out=base_out, attn_in=attn_in, attn_out=attn_out)


KERNELS = {"models.circuits.look": look, "models.circuits.look_backward": look_backward}
