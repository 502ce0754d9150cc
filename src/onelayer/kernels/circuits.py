"""Kernels of models/circuits.py: what a head passes on to neurons and logits is a table too; an example adds rows up.

What a head may mix hangs on (token, position) alone, and so does v attn: `paid`, had once a step for the rows that
occur, before the examples are shared out. An example's pre is then the row of its last token in base and H·T rows of
`paid`, each times its weight in the pattern; z is not had at all. Where T is well below K, and rows are fewer than
examples, that is less work than z attn (`adds_rows_up`).

Shapes    N columns of `paid` and base: those for the F neurons, then those for the V logits, each filled up with zeros
          weights [B TH]: the pattern     table [RH N], base [U N]     rows R, U as in `tables`

Order     Examples are taken in the order of their first token, a block at a time: several in a row look at the same
          rows, which are read once for all of them, and a block goes through all of it while it is in the cache.

Backward  d = (∂pre, ∂logits) of a block.     ∂A[b, s, h] = d[b] · paid[row, h]
          ∂paid[row, h] = Σ A[b, s, h] d[b] over the b that looked there; for the positions at which neighbours look
          elsewhere, when all blocks are through, row by row.
          ∂v = ∂paid attnᵀ     ∂attn = Σ_rows vᵀ ∂paid
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from .. import threads
from ..arrays import aligned
from .activations import IN_PLACE, act
from .compile import compiled, exp, fits, lent, parts, strided
from .lanes import broad, broad_each, broad_load, choose, fill, lanes, load, store, total
from .product import BLOCK, ROWS, multiply_rows, outer_rows, panels, whole
from .rows import clear, copy

APART = 4  # a position is left for later where fewer neighbours than this look at the same row, on average
HEADS = 4  # of a row, at once

INT = types.int64
IDS, LISTS = types.Array(INT, 1, "A"), types.Array(INT, 2, "A")


class Paid(NamedTuple):
    """What the examples meet: what each head pays for each row that occurs, and the weights from neurons to logits."""

    v: Any  # [H R K]
    attn_turned: Any  # panels of each head's [N K]
    table: Any  # [RH N]
    base: Any  # [U N]
    mlp_out: Any  # panels, and those of its transpose
    mlp_out_turned: Any


class Looked(NamedTuple):
    """In place of the definition's; examples in the kernel's order."""

    p: Any
    order: Any  # [B] which example it is
    rows: Any  # [B T]
    weights: Any  # [B TH]
    post: Any  # [B F]
    slope: Any  # of ReLU: post, for post > 0 tells it
    kind: int


# ------------------------------------------------------------------------------------------ who looks where


@compiled
def _ordered(ids, starts, where):
    """Which places hold each of the ids 0, 1 …: those of i are where[starts[i] : starts[i + 1]]."""
    starts[:] = 0
    for i in ids:
        starts[i + 1] += 1
    for i in range(starts.size - 1):
        starts[i + 1] += starts[i]
    free = starts.copy()
    for place in range(ids.size):
        where[free[ids[place]]] = place
        free[ids[place]] += 1


@compiled
def _in_order(given, R):
    """In the order of the first token: which example it is, and the rows."""
    order = np.empty(len(given), np.int64)
    _ordered(given[:, 0], np.empty(R + 1, np.int64), order)
    rows = np.empty(given.shape, np.int64)
    for place in range(len(order)):
        rows[place] = given[order[place]]
    return order, rows


@compiled
def _elsewhere(rows, R):
    """The positions at which neighbours look elsewhere, and who looks at which row there (`_ordered`)."""
    B, T = rows.shape
    apart, starts, where = np.zeros(T, np.int64), np.empty((T, R + 1), np.int64), np.empty((T, B), np.int64)
    for s in range(T):
        changes = 0
        for b in range(1, B):
            changes += rows[b, s] != rows[b - 1, s]
        if changes * APART > B:
            apart[s] = 1
            _ordered(rows[:, s], starts[s], where[s])
    return apart, starts, where


@lent
def _until(rows, b, s, most):
    """Where the examples end that look at the same row as b does at s: `most` of them, or fewer."""
    end = b + 1
    while end < rows.shape[0] and end < b + most and rows[end, s] == rows[b, s]:
        end += 1
    return end


@compiled
def _weigh(rows, scores, weights):
    """weights[b, s, h] = the softmax of scores[h, the row that asks, rows[b]]; the exponentials of all in one loop"""
    (B, T, H), (_, U, R), one = weights.shape, scores.shape, scores.dtype.type(1)
    for b in range(B):
        seats, out = rows[b], weights[b]
        for h in range(H):
            asked = scores[h, seats[T - 1] - (R - U)]
            top = asked[seats[0]]
            for s in range(1, T):
                top = asked[seats[s]] if asked[seats[s]] > top else top
            for s in range(T):
                out[s, h] = asked[seats[s]] - top
    flat = weights.reshape(-1)
    for i in range(flat.size):
        flat[i] = exp(flat[i])
    for b in range(B):
        out = weights[b]
        for h in range(H):
            sum_of = out[0, h]
            for s in range(1, T):
                sum_of += out[s, h]
            share = one / sum_of
            for s in range(T):
                out[s, h] *= share


@compiled
def _weigh_backward(rows, dweights, weights, dscores):
    """dscores[h, the row that asks, rows[b]] += what the softmax sends back.

    Heads lie side by side here: head by head, as tables.py has it, this took six times as long.
    """
    (B, T, H), (_, U, R) = weights.shape, dscores.shape
    for b in range(B):
        seats, w, d, asks = rows[b], weights[b], dweights[b], rows[b, T - 1] - (R - U)
        for h in range(H):
            mean = w.dtype.type(0)
            for s in range(T):
                mean += w[s, h] * d[s, h]
            for s in range(T):
                dscores[h, asks, seats[s]] += w[s, h] * (d[s, h] - mean)


# ------------------------------------------------------------------------------------------ inside kernels


@lent
def _mix_tile(rows, weights, base, table, y, j, first):
    """Columns from j on of at most six examples: y[b] = base[who asks] + Σ weights[b, s h] table[rows[b, s], h]."""
    end, T = rows.shape[0] - 1, rows.shape[1]
    H = weights.shape[1] // T
    i1, i2, i3, i4, i5 = min(1, end), min(2, end), min(3, end), min(4, end), min(5, end)
    y0, y1 = broad_load(base, rows[0, T - 1] - first, j), broad_load(base, rows[i1, T - 1] - first, j)
    y2, y3 = broad_load(base, rows[i2, T - 1] - first, j), broad_load(base, rows[i3, T - 1] - first, j)
    y4, y5 = broad_load(base, rows[i4, T - 1] - first, j), broad_load(base, rows[i5, T - 1] - first, j)
    for s in range(T):
        r0, r1, r2 = rows[0, s] * H, rows[i1, s] * H, rows[i2, s] * H
        r3, r4, r5 = rows[i3, s] * H, rows[i4, s] * H, rows[i5, s] * H
        if r0 == r1 and r0 == r2 and r0 == r3 and r0 == r4 and r0 == r5:
            for h in range(H):
                row, k = broad_load(table, r0 + h, j), s * H + h
                y0 = y0 + broad_each(weights, 0, k) * row
                y1 = y1 + broad_each(weights, i1, k) * row
                y2 = y2 + broad_each(weights, i2, k) * row
                y3 = y3 + broad_each(weights, i3, k) * row
                y4 = y4 + broad_each(weights, i4, k) * row
                y5 = y5 + broad_each(weights, i5, k) * row
        else:
            for h in range(H):
                k = s * H + h
                y0 = y0 + broad_each(weights, 0, k) * broad_load(table, r0 + h, j)
                y1 = y1 + broad_each(weights, i1, k) * broad_load(table, r1 + h, j)
                y2 = y2 + broad_each(weights, i2, k) * broad_load(table, r2 + h, j)
                y3 = y3 + broad_each(weights, i3, k) * broad_load(table, r3 + h, j)
                y4 = y4 + broad_each(weights, i4, k) * broad_load(table, r4 + h, j)
                y5 = y5 + broad_each(weights, i5, k) * broad_load(table, r5 + h, j)
    store(y, 0, j, y0)
    store(y, i1, j, y1)
    store(y, i2, j, y2)
    store(y, i3, j, y3)
    store(y, i4, j, y4)
    store(y, i5, j, y5)


@lent
def _mix(rows, weights, base, table, y):
    first, b = table.shape[0] // (weights.shape[1] // rows.shape[1]) - base.shape[0], 0
    while b < rows.shape[0]:
        end = _until(rows, b, 0, ROWS)
        for j in range(0, y.shape[1], broad(y)):
            _mix_tile(rows[b:end], weights[b:end], base, table, y[b:end], j, first)
        b = end


@lent
def _gate(d, slope, is_relu):
    """∂pre in place of ∂post."""
    zero = fill(d.dtype.type(0))
    for i in range(d.shape[0]):
        for j in range(0, slope.shape[1], lanes(d)):
            asked, steep = load(d, i, j), load(slope, i, j)
            store(d, i, j, choose(zero, steep, asked, asked * zero) if is_relu else asked * steep)


@lent
def _feel_alone(d, table, r, h, last, dweights, k):
    """One example and HEADS heads of its row, or fewer, the last again: dweights[0, k + h] = d · table[r + h]."""
    zero = fill(d.dtype.type(0))
    h1, h2, h3 = min(h + 1, last), min(h + 2, last), min(h + 3, last)
    s0, s1, s2, s3 = zero, zero, zero, zero
    for j in range(0, d.shape[1], lanes(d)):
        x = load(d, 0, j)
        s0 = s0 + x * load(table, r + h, j)
        s1 = s1 + x * load(table, r + h1, j)
        s2 = s2 + x * load(table, r + h2, j)
        s3 = s3 + x * load(table, r + h3, j)
    dweights[0, k + h], dweights[0, k + h1] = total(s0), total(s1)
    dweights[0, k + h2], dweights[0, k + h3] = total(s2), total(s3)


@lent
def _feel_alike(d, table, r, h, last, dweights, k):
    """The same for two or three examples that look at one row."""
    zero, i = fill(d.dtype.type(0)), min(2, d.shape[0] - 1)
    h1, h2, h3 = min(h + 1, last), min(h + 2, last), min(h + 3, last)
    a0, a1, a2, a3 = zero, zero, zero, zero
    b0, b1, b2, b3 = zero, zero, zero, zero
    c0, c1, c2, c3 = zero, zero, zero, zero
    for j in range(0, d.shape[1], lanes(d)):
        x, y, z = load(d, 0, j), load(d, 1, j), load(d, i, j)
        row = load(table, r + h, j)
        a0, b0, c0 = a0 + x * row, b0 + y * row, c0 + z * row
        row = load(table, r + h1, j)
        a1, b1, c1 = a1 + x * row, b1 + y * row, c1 + z * row
        row = load(table, r + h2, j)
        a2, b2, c2 = a2 + x * row, b2 + y * row, c2 + z * row
        row = load(table, r + h3, j)
        a3, b3, c3 = a3 + x * row, b3 + y * row, c3 + z * row
    dweights[0, k + h], dweights[0, k + h1] = total(a0), total(a1)
    dweights[0, k + h2], dweights[0, k + h3] = total(a2), total(a3)
    dweights[1, k + h], dweights[1, k + h1] = total(b0), total(b1)
    dweights[1, k + h2], dweights[1, k + h3] = total(b2), total(b3)
    dweights[i, k + h], dweights[i, k + h1] = total(c0), total(c1)
    dweights[i, k + h2], dweights[i, k + h3] = total(c2), total(c3)


@lent
def _feel(rows, d, table, dweights):
    """dweights[b, s h] = d[b] · table[rows[b, s], h]"""
    T = rows.shape[1]
    H = dweights.shape[1] // T
    for s in range(T):
        b = 0
        while b < rows.shape[0]:
            end, r = _until(rows, b, s, 3), rows[b, s] * H
            for h in range(0, H, HEADS):
                if end == b + 1:
                    _feel_alone(d[b:end], table, r, h, H - 1, dweights[b:end], s * H)
                else:
                    _feel_alike(d[b:end], table, r, h, H - 1, dweights[b:end], s * H)
            b = end


@lent
def _collect_alike(rows, s, weights, d, dtable):
    """dtable[rows[b, s], h] += weights[b, s h] d[b], neighbours together"""
    H, b = weights.shape[1] // rows.shape[1], 0
    while b < rows.shape[0]:
        end, r = _until(rows, b, s, BLOCK), rows[b, s] * H
        felt = dtable[r : r + H]
        outer_rows(weights[b:end, s * H : (s + 1) * H].T, felt, d[b:end], felt)
        b = end


@lent
def _collect_base(rows, first, d, dbase):
    """dbase[who asks] += d[b]"""
    s, b = rows.shape[1] - 1, 0
    while b < rows.shape[0]:
        end, r = _until(rows, b, s, BLOCK), rows[b, s] - first
        for j in range(0, d.shape[1], lanes(d)):
            sum_of = load(dbase, r, j)
            for i in range(b, end):
                sum_of = sum_of + load(d, i, j)
            store(dbase, r, j, sum_of)
        b = end


@lent
def _collect_apart(who, weights, k, last, d, felt, h):
    """HEADS rows of `felt` from h on += Σ weights[b, k + h] d[b] over the b in `who`."""
    h1, h2, h3 = min(h + 1, last), min(h + 2, last), min(h + 3, last)
    for j in range(0, d.shape[1], broad(d)):
        f0, f1 = broad_load(felt, h, j), broad_load(felt, h1, j)
        f2, f3 = broad_load(felt, h2, j), broad_load(felt, h3, j)
        for b in who:
            x = broad_load(d, b, j)
            f0 = f0 + broad_each(weights, b, k + h) * x
            f1 = f1 + broad_each(weights, b, k + h1) * x
            f2 = f2 + broad_each(weights, b, k + h2) * x
            f3 = f3 + broad_each(weights, b, k + h3) * x
        store(felt, h, j, f0)
        store(felt, h1, j, f1)
        store(felt, h2, j, f2)
        store(felt, h3, j, f3)


@strided(IDS, LISTS, 2, (2, 2), 3, INT, INT, (2, 2), 2, 2)
def _forward(first, part, order, rows, weights, tables, mlp_out, kind, keep, neurons, logits, direct):
    (base, table), (pre, post), F, V = tables, neurons, neurons[0].shape[1], logits.shape[1]
    for i in range(0, len(order), BLOCK):
        end = min(i + BLOCK, len(order))
        at = i if keep else 0
        seats, w, own, said = rows[i:end], weights[i:end], pre[at : at + end - i], direct[: end - i]
        _mix(seats, w, base[:, :F], table[:, :F], own)
        act(own, post[at : at + end - i], kind)
        _mix(seats, w, base[:, F:], table[:, F:], said)
        multiply_rows(post[at : at + end - i], said, mlp_out, said)
        for b in range(i, end):
            copy(said[b - i : b - i + 1, :V], logits[order[b] : order[b] + 1])


@strided(IDS, LISTS, (IDS, LISTS, LISTS), (2, 2), (2, 2), 2, 3, INT, 2, (2, 2), 2, (3, 3, 3), 4, 2, 2)
def _backward(
    first, part, order, rows, looks, weighed, neurons, table, mlp_turned, kind, dlogits, dtables, dmlp_out,
    heads, attn_turned, d, nothing,
):  # fmt: skip
    (weights, dweights), (slope, post), (dtable, dbase), (apart, starts, where) = weighed, neurons, dtables, looks
    F, V, H = post.shape[1], dlogits.shape[1], weights.shape[1] // rows.shape[1]
    asks = table.shape[0] // H - dbase.shape[0]
    for i in range(0, len(order), BLOCK):
        end = min(i + BLOCK, len(order))
        seats, own = rows[i:end], d[i:end]
        asked = own[:, F:]
        clear(asked)
        for b in range(i, end):
            copy(dlogits[order[b] : order[b] + 1], asked[b - i : b - i + 1, :V])
        multiply_rows(asked, own[:, :F], mlp_turned, nothing)
        outer_rows(asked[:, :V].T, dmlp_out, post[i:end], dmlp_out)
        _gate(own, slope[i:end], kind == 0)
        _feel(seats, own, table, dweights[i:end])
        for s in range(rows.shape[1]):
            if not apart[s]:
                _collect_alike(seats, s, weights[i:end], own, dtable)
        _collect_base(seats, asks, own, dbase)
    for s in range(rows.shape[1]):
        if apart[s]:
            for r in range(starts.shape[1] - 1):
                who = where[s, starts[s, r] : starts[s, r + 1]]
                for h in range(0, H, HEADS):
                    if len(who) > 0:
                        _collect_apart(who, weights, s * H, H - 1, d, dtable[r * H : (r + 1) * H], h)
    v, dv, dattn = heads
    for h in range(H):
        multiply_rows(dtable[h::H], dv[h], attn_turned[h], nothing)
        outer_rows(v[h].T, dattn[h], dtable[h::H], nothing)


# ------------------------------------------------------------------------------------------ in the place of


def takes(activation: str) -> bool:
    return activation in IN_PLACE


def paid(definition: Any, made: Any) -> Any:
    v, reads, mlp_out = made.v, made.reads, made.mlp_out
    R, H, K = v.shape
    if not fits(v, *reads, mlp_out):
        return definition(made)
    by_head, attn = np.ascontiguousarray(v.transpose(1, 0, 2)), _side_by_side(reads.attn_in, reads.attn_out)
    table, attn = aligned((R * H, attn.shape[1]), v.dtype), attn.reshape(H, K, -1)
    n = parts(table.size)

    def pay(part: int) -> None:
        some = slice(H * part // n, H * (part + 1) // n)
        np.matmul(by_head[some], attn[some], out=table.reshape(R, H, -1).transpose(1, 0, 2)[some])

    threads.spread(pay, n)
    base = _side_by_side(reads.base_in, reads.base_out)
    return Paid(by_head, np.stack([panels(one.T) for one in attn]), table, base, panels(mlp_out), panels(mlp_out.T))


def answer(definition: Any, p: Any, rows: Any, activation: str) -> Any:
    return _answer(p, rows, activation, True) if _takes(p, rows, activation) else definition(p, rows, activation)


def answer_alone(definition: Any, p: Any, rows: Any, activation: str) -> Any:
    return _answer(p, rows, activation, False)[0] if _takes(p, rows, activation) else definition(p, rows, activation)


def _takes(p: Any, rows: Any, activation: str) -> bool:
    return isinstance(p.paid, Paid) and takes(activation) and isinstance(rows, np.ndarray)


def _answer(p: Any, rows: Any, activation: str, keep: bool) -> tuple[np.ndarray, Looked]:
    """keep: pre and post of all, and not of one block after the other."""
    (B, T), (R, H, _), (F, V), kind, N = rows.shape, p.v.shape, p.mlp_out.shape, p.v.dtype, p.paid.base.shape[1]
    order, rows = _in_order(rows, R)
    weights = np.empty((B, T, H), kind)
    _weigh(rows, p.scores[0], weights)
    weights, logits, which = weights.reshape(B, T * H), np.empty((B, V), kind), IN_PLACE.index(activation)
    pre = aligned((B if keep else BLOCK, _whole(F, kind)), kind)
    post, direct = pre if activation == "relu" else aligned(pre.shape, kind), aligned((BLOCK, N - pre.shape[1]), kind)
    tables = p.paid.base, p.paid.table
    _forward(0, 0, order, rows, weights, tables, p.paid.mlp_out, which, keep, (pre, post), logits, direct)
    return logits, Looked(p, order, rows, weights, post, pre, which)


def answer_backward(definition: Any, dlogits: Any, c: Any) -> Any:
    if not isinstance(c, Looked):
        return definition(dlogits, c)
    paid, (B, T), (F, V), kind, wide = c.p.paid, c.rows.shape, c.p.mlp_out.shape, c.post.dtype, c.post.shape[1]
    (H, R, K), (U, N) = paid.v.shape, paid.base.shape
    dtable, dbase, dmlp_out = np.zeros((R * H, N), kind), np.zeros((U, N), kind), np.zeros((V, wide), kind)
    dv, dattn, dscores = aligned((H, R, whole(K, kind)), kind), aligned((H, K, N), kind), np.zeros((1, H, U, R), kind)
    d, dweights, nothing = aligned((B, N), kind), np.empty_like(c.weights), np.zeros((1, max(N, dv.shape[2])), kind)
    dlogits = np.ascontiguousarray(dlogits, kind)
    _backward(
        0, 0, c.order, c.rows, _elsewhere(c.rows, R), (c.weights, dweights), (c.slope, c.post), paid.table,
        paid.mlp_out_turned, c.kind, dlogits, (dtable, dbase), dmlp_out, (paid.v, dv, dattn), paid.attn_turned,
        d, nothing,
    )  # fmt: skip
    _weigh_backward(c.rows, dweights.reshape(B, T, H), c.weights.reshape(B, T, H), dscores[0])
    dattn = dattn.reshape(H * K, N)
    d_reads = [part for given in (dbase, dattn) for part in (given[:, :F], given[:, wide : wide + V])]
    d_reads = type(c.p.reads)(d_reads[0], d_reads[1], d_reads[2], d_reads[3])
    dv = np.ascontiguousarray(dv[:, :, :K].transpose(1, 0, 2))
    return c.p._replace(scores=dscores, v=dv, reads=d_reads, mlp_out=dmlp_out[:, :F].T, paid=None)


def _whole(n: int, kind: Any) -> int:
    """n, rounded up to the width of a tile."""
    width = broad(np.empty(0, kind))
    return -(-n // width) * width


def _side_by_side(to_neurons: Any, to_logits: Any) -> np.ndarray:
    (rows, F), V, kind = to_neurons.shape, to_logits.shape[1], to_neurons.dtype
    wide = _whole(F, kind)
    both = aligned((rows, wide + _whole(V, kind)), kind)
    both[:, :F], both[:, F:wide], both[:, wide : wide + V], both[:, wide + V :] = to_neurons, 0, to_logits, 0
    return both


KERNELS = {
    "models.circuits.answer": answer,
    "models.circuits.answer_alone": answer_alone,
    "models.circuits.answer_backward": answer_backward,
    "models.circuits.paid": paid,
}
