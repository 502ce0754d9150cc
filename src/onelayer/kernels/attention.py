"""Kernels of attention without a score bias: a panel of queries against a block of keys, while both are in cache.

Shapes    q [B H T K]     k [B H S K]     v [B H S N]     z [B H T N]     L [B H T]     N = K but where q was widened
          A panel is as many queries as there are lanes (lanes.py): a query a lane, so that nothing is summed across.

Forward   s = k qᵀ, block after block of keys; m, l, z as in attention_blocked.py: m the largest so far, l = Σ e^(s−m),
          z = Σ e^(s−m) v, each turned to the new m. At the end z/l, and L = m + ln l.
Backward  A = e^(s−L) is had again, not kept; δ = Σ_N z ∂z
          ∂v += A ∂z      ∂s = A (v ∂zᵀ − δ)      ∂q += ∂sᵀ k      ∂k += ∂s q        with A and ∂s as [keys, queries]

Mask      `limits`: the number of first places beyond which a query sees nothing. Keys out of all queries' sight are
          never come to; a mask with gaps before is looked at place by place.
Threads   Forward: each takes its share of the panels; backward: of the heads, so that ∂k and ∂v are its own.

Source    sublayers/attention_rows.py and attention_blocked.py are what these stand in for.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..arrays import aligned
from .compile import lent, parts, spread, strided
from .lanes import choose, column, dense, each, exp, fill, lanes, load, store
from .product import widened
from .rows import clear

ROWS = 5  # of a product, summed in registers at a time
KEYS = 64  # in a block
WHICH, LENGTHS, ALLOWED = (
    types.Array(kind, axes, "A", readonly=True) for kind, axes in ((types.int64, 1), (types.int64, 2), (types.uint8, 3))
)
ROOMS, ROOMS_BACK = (3,) * 5, (3,) * 6  # of `rooms` and `rooms_back`


class Mixed(NamedTuple):
    """What the backward needs."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    z: np.ndarray
    L: np.ndarray
    lengths: np.ndarray
    allowed: np.ndarray


# ------------------------------------------------------------------------------------------ what may be seen


@lent
def _reach(mask, lengths):
    """Each row's last allowed place, and one; whether some row has gaps before it."""
    gaps = False
    for b in range(mask.shape[0]):
        for t in range(mask.shape[1]):
            row = dense(mask[b, t])
            count = 0
            for s in range(row.size):
                count += row[s]
            few, first = row[:count], 0
            for s in range(few.size):
                first += few[s]
            length = count
            if first != count:
                gaps, length = True, row.size
                while not row[length - 1]:
                    length -= 1
            lengths[b, t] = length
    return gaps


def seen(mask: Any, B: int, T: int, S: int) -> tuple[np.ndarray, np.ndarray]:
    """[B T], in how many of the first places is all that a row may see; [B T S], the mask, if some have gaps there."""
    none = np.broadcast_to(np.empty(0, np.uint8), (B, T, 0))
    if mask is None:
        return np.broadcast_to(np.int64(S), (B, T)), none
    mask = np.broadcast_to(mask, (*mask.shape[:-1], S))[:, 0]
    mask = (mask if mask.strides[-1] == 1 else np.ascontiguousarray(mask)).view(np.uint8)
    lengths = np.empty(mask.shape[:2], np.int64)
    gaps = _reach(mask, lengths)
    return np.broadcast_to(lengths, (B, T)), np.broadcast_to(mask, (B, T, S)) if gaps else none


@lent
def _limits(lengths, limits):
    """A panel's lengths by lane, 0 where there is no query; the longest, and the shortest."""
    longest, shortest = 0, lengths[0]
    for j in range(limits.shape[1]):
        length = lengths[j] if j < lengths.size else 0
        limits[0, j] = length
        longest, shortest = max(longest, length), min(shortest, length)
    return longest, shortest


@lent
def _hide(scores, allowed, before):
    """The lowest score there is in a block's places [keys, queries] that are not allowed; `before` keys went before."""
    low = np.finfo(scores.dtype).min
    for j in range(allowed.shape[0]):
        may = allowed[j]
        for s in range(scores.shape[0]):
            if not may[before + s]:
                scores[s, j] = low


# ------------------------------------------------------------------------------------------ rows and products


@lent
def _turn(rows, out):
    """Rows [n K] as a panel [K lanes]."""
    for j in range(out.shape[0]):
        store(out, j, 0, column(rows, j))


@lent
def _product(c, a, b, first, last, add):
    """ROWS rows c = or += Σ a[:, n] b[n], n from first to last. Where c has fewer, the last of them is done again."""
    none, end = fill(c.dtype.type(0)), c.shape[0] - 1
    i1, i2, i3, i4 = min(1, end), min(2, end), min(3, end), min(4, end)
    for j in range(0, c.shape[1], lanes(c)):
        c0, c1, c2, c3, c4 = none, none, none, none, none
        if add:
            c0, c1, c2, c3, c4 = load(c, 0, j), load(c, i1, j), load(c, i2, j), load(c, i3, j), load(c, i4, j)
        for n in range(first, last):
            weights = load(b, n, j)
            c0 = c0 + each(a, 0, n) * weights
            c1 = c1 + each(a, i1, n) * weights
            c2 = c2 + each(a, i2, n) * weights
            c3 = c3 + each(a, i3, n) * weights
            c4 = c4 + each(a, i4, n) * weights
        store(c, 0, j, c0)
        store(c, i1, j, c1)
        store(c, i2, j, c2)
        store(c, i3, j, c3)
        store(c, i4, j, c4)


# ------------------------------------------------------------------------------------------ forward


@lent
def _longest(limits, row):
    """Of ROWS lanes from there on."""
    longest = limits[0, row]
    for j in range(row + 1, min(row + ROWS, limits.shape[1])):
        longest = max(longest, limits[0, j])
    return int(longest)


@lent
def mix_panels(first, last, q, k, v, lengths, allowed, z, L, K, rooms):
    """z and L of the panels from `first` to `last`; head after head, example after example, there are so many."""
    H, T = q.shape[1], q.shape[2]
    number, width = q.dtype.type, lanes(q)
    turned, limits, sums, weights, mixed = rooms
    low, nothing, hidden = fill(np.finfo(q.dtype).min), fill(number(0)), fill(np.finfo(q.dtype).min / number(2))
    panels = (T + width - 1) // width
    for item in range(first, last):
        head, start = item // panels, item % panels * width
        b, h, stop = head // H, head % H, min(start + width, T)
        keys, values, out, n = k[b, h], v[b, h], z[b, h, start:stop], stop - start
        may = allowed[b, start:stop]
        gaps = may.shape[1] > 0
        _turn(q[b, h, start:stop], turned)
        longest, shortest = _limits(lengths[b, start:stop], limits)
        limit, top, total = load(limits, 0, 0), low, nothing
        for before in range(0, longest, KEYS):
            many = min(KEYS, longest - before)
            plain = many if gaps else shortest - before  # from there on, not all may look
            for r in range(0, many, ROWS):
                _product(weights[r:many], keys[before + r :], turned, 0, K, False)
            if gaps:
                _hide(weights[:many], may, before)
            known = top
            for s in range(many):
                score = load(weights, s, 0)
                if s >= plain:
                    score = choose(fill(number(before + s)), limit, score, low)
                    store(weights, s, 0, score)
                top = choose(top, score, score, top)
            for s in range(many):
                score = load(weights, s, 0)
                e = exp(score - top)
                if gaps or s >= plain:
                    e = choose(score, hidden, nothing, e)
                store(weights, s, 0, e)
            shrink = exp(known - top)
            total = total * shrink
            for s in range(many):
                total = total + load(weights, s, 0)
            if before:
                store(sums, 0, 0, shrink)
                for i in range(n):
                    for j in range(0, mixed.shape[1], width):
                        store(mixed, i, j, each(sums, 0, i) * load(mixed, i, j))
            for r in range(0, n, ROWS):
                seen = min(_longest(limits, r) - before, many)
                _product(mixed[r:n], weights.T[r:], values[before:], 0, seen, before > 0)
        store(sums, 0, 0, total)
        store(sums, 1, 0, top)
        for i in range(n):
            all_of_it, most = sums[0, i], sums[1, i]
            some = all_of_it != 0
            sums[0, i] = 1 / all_of_it if some else number(0)
            L[b, h, start + i] = most + math.log(all_of_it) if some else number(0)
            for j in range(0, out.shape[1], width):
                store(out, i, j, each(sums, 0, i) * load(mixed, i, j) if longest else nothing)


@lent
def room_of(part, rooms):
    """A thread's own of what `rooms` made."""
    turned, limits, sums, weights, mixed = rooms
    return turned[part], limits[part], sums[part], weights[part], mixed[part]


@strided(WHICH, 4, 4, 4, LENGTHS, ALLOWED, 4, 3, types.int64, ROOMS)
def _forward(first, part, items, q, k, v, lengths, allowed, z, L, K, rooms):
    mix_panels(first, first + len(items), q, k, v, lengths, allowed, z, L, K, room_of(part, rooms))


# ------------------------------------------------------------------------------------------ backward


@lent
def send_heads_back(first, last, dz, z, q, k, v, L, lengths, allowed, dq, dk, dv, K, N, rooms):
    """∂q, ∂k and ∂v of the heads from `first` to `last`, example after example."""
    H, T, number, width = q.shape[1], q.shape[2], q.dtype.type, lanes(q)
    turned, dz_turned, limits, sums, pattern, dscores = rooms
    low, nothing, hidden = fill(np.finfo(q.dtype).min), fill(number(0)), fill(np.finfo(q.dtype).min / number(2))
    for head in range(first, last):
        b, h = head // H, head % H
        keys, values, dkeys, dvalues = k[b, h], v[b, h], dk[b, h], dv[b, h]
        clear(dkeys)
        clear(dvalues)
        for start in range(0, T, width):
            stop = min(start + width, T)
            n, may = stop - start, allowed[b, start:stop]
            gaps = may.shape[1] > 0
            ask, mixed, dmixed, dask = (
                q[b, h, start:stop],
                z[b, h, start:stop],
                dz[b, h, start:stop],
                dq[b, h, start:stop],
            )
            _turn(ask, turned)
            _turn(dmixed, dz_turned)
            for i in range(n):
                delta, row, found = number(0), dense(mixed[i]), dense(dmixed[i])
                for j in range(row.size):
                    delta += row[j] * found[j]
                sums[0, i], sums[1, i] = L[b, h, start + i], delta
            longest, shortest = _limits(lengths[b, start:stop], limits)
            limit, shift, mean = load(limits, 0, 0), load(sums, 0, 0), load(sums, 1, 0)
            for before in range(0, longest, KEYS):
                many = min(KEYS, longest - before)
                plain = many if gaps else shortest - before
                for r in range(0, many, ROWS):
                    _product(pattern[r:many], keys[before + r :], turned, 0, K, False)
                    _product(dscores[r:many], values[before + r :], dz_turned, 0, N, False)
                if gaps:
                    _hide(pattern[:many], may, before)
                for s in range(many):
                    score = load(pattern, s, 0)
                    if s >= plain:
                        score = choose(fill(number(before + s)), limit, score, low)
                    a = exp(score - shift)
                    if gaps or s >= plain:
                        a = choose(score, hidden, nothing, a)
                    store(pattern, s, 0, a)
                    store(dscores, s, 0, a * (load(dscores, s, 0) - mean))
                for r in range(0, n, ROWS):
                    seen = min(_longest(limits, r) - before, many)
                    _product(dask[r:], dscores.T[r:], keys[before:], 0, seen, before > 0)
                begin, stop_here = 0, before + many
                for r in range(0, many, ROWS):
                    while limits[0, begin] <= before + r:
                        begin += 1
                    _product(dvalues[before + r : stop_here], pattern[r:], dmixed, begin, n, True)
                    _product(dkeys[before + r : stop_here], dscores[r:], ask, begin, n, True)
            if not longest:
                clear(dask)


@lent
def room_back_of(part, rooms):
    """A thread's own of what `rooms_back` made."""
    turned, dz_turned, limits, sums, pattern, dscores = rooms
    return turned[part], dz_turned[part], limits[part], sums[part], pattern[part], dscores[part]


@strided(WHICH, *(4,) * 5, 3, LENGTHS, ALLOWED, 4, 4, 4, types.int64, types.int64, ROOMS_BACK)
def _backward(first, part, heads, dz, z, q, k, v, L, lengths, allowed, dq, dk, dv, K, N, rooms):
    own = room_back_of(part, rooms)
    send_heads_back(first, first + len(heads), dz, z, q, k, v, L, lengths, allowed, dq, dk, dv, K, N, own)


# ------------------------------------------------------------------------------------------ in the place of


def _takes(*arrays: Any) -> bool:
    """Whether these are NumPy's, of one precision, and their rows lie without gaps."""
    kind = getattr(arrays[0], "dtype", None)
    return kind in (np.float32, np.float64) and all(
        isinstance(a, np.ndarray) and a.dtype == kind and a.size > 0 and a.strides[-1] == a.itemsize for a in arrays
    )


def sees(q: Any, k: Any, v: Any, mask: Any) -> bool:
    return _takes(q, k, v) and (
        mask is None or (isinstance(mask, np.ndarray) and mask.ndim == 4 and mask.shape[1] == 1)
    )


def rooms(q: Any, N: int, size: int) -> tuple[np.ndarray, ...]:
    """What `mix_panels` works in, for each of the threads that so much work gets; zeros. N: width of the values."""
    K, width = q.shape[-1], lanes(q)
    return _zeros(q.dtype, parts(size), (K, width), (1, width), (2, width), (KEYS, width), (width, N))


def rooms_back(q: Any, N: int, size: int) -> tuple[np.ndarray, ...]:
    """What `send_heads_back` works in."""
    K, width = q.shape[-1], lanes(q)
    return _zeros(q.dtype, parts(size), (K, width), (N, width), (1, width), (2, width), (KEYS, width), (KEYS, width))


def _zeros(dtype: Any, count: int, *shapes: tuple[int, int]) -> tuple[np.ndarray, ...]:
    found = tuple(aligned((count, *shape), dtype) for shape in shapes)
    for room in found:
        room[:] = 0
    return found


def _look(q: Any, k: Any, v: Any, mask: Any, z: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z, where it is to be; L, and what may be seen."""
    (B, H, T, K), S, width = q.shape, k.shape[2], lanes(q)
    L, (lengths, allowed), size = np.empty((B, H, T), q.dtype), seen(mask, B, T, S), B * H * T * S
    v, out = widened(v), widened(z)
    items = np.arange(B * H * -(-T // width))
    spread(_forward, size, (items,), (q, k, v, lengths, allowed, out, L, K, rooms(q, v.shape[-1], size)))
    if out is not z:
        z[:] = out[..., : z.shape[-1]]
    return L, lengths, allowed


def _look_back(dz: Any, c: Mixed, *given: Any) -> None:
    (B, H, T, K), S, N = c.q.shape, c.k.shape[2], c.v.shape[3]
    size, outs = B * H * T * S, [widened(out) for out in given]
    ins = *(widened(a) for a in (dz, c.z, c.q, c.k, c.v)), c.L, c.lengths, c.allowed
    spread(_backward, size, (np.arange(B * H),), (*ins, *outs, K, N, rooms_back(c.q, N, size)))
    for out, there in zip(outs, given, strict=True):
        if out is not there:
            there[:] = out[..., : there.shape[-1]]


def mix(definition: Any, q: Any, k: Any, v: Any, mask: Any, bias: Any = None) -> Any:
    if bias is not None or not sees(q, k, v, mask):
        return definition(q, k, v, mask, bias)
    z = np.empty((q.shape[0], q.shape[2], q.shape[1], v.shape[3]), q.dtype)
    by_head = z.transpose(0, 2, 1, 3)
    return z, Mixed(q, k, v, by_head, *_look(q, k, v, mask, by_head))


def mix_backward(definition: Any, dz: Any, c: Any, dq: Any, dk: Any, dv: Any) -> Any:
    if not isinstance(c, Mixed) or not _takes(c.q, dz, dq, dk, dv):
        return definition(dz, c, dq, dk, dv)
    return _look_back(dz, c, dq, dk, dv)


def look_at_all(definition: Any, c: Any, position: Any) -> Any:
    if position.has("score") or not sees(c.q, c.k, c.v, c.places.mask):
        return definition(c, position)
    z = np.empty((*c.q.shape[:3], c.v.shape[3]), c.q.dtype)
    L, *_ = _look(c.q, c.k, c.v, c.places.mask, z)
    return z, L[..., None]


def send_all_back(definition: Any, dz: Any, delta: Any, c: Any, position: Any) -> Any:
    if position.has("score") or not sees(c.q, c.k, c.v, c.places.mask) or not _takes(c.q, dz, c.z):
        return definition(dz, delta, c, position)
    (B, H, T, K), S, N = c.q.shape, c.k.shape[2], c.v.shape[3]
    dq, dk, dv = (np.empty((B, n, H, width), dz.dtype) for n, width in ((T, K), (S, K), (S, N)))
    may = seen(c.places.mask, B, T, S)
    _look_back(dz, Mixed(c.q, c.k, c.v, c.z, c.L[..., 0], *may), *(a.transpose(0, 2, 1, 3) for a in (dq, dk, dv)))
    return (dq, None, None), (dk, dv, None, None), None  # attention_blocked's Sent: there is no bias to feel it


KERNELS = {
    "sublayers.attention_rows.mix": mix,
    "sublayers.attention_rows.mix_backward": mix_backward,
    "sublayers.attention_blocked.look_at_all": look_at_all,
    "sublayers.attention_blocked.send_all_back": send_all_back,
}
