"""Kernels of layers/softmax.py: the largest score, the exponentials and their sum, row by row, while it is in cache."""

import math
from typing import Any

import numpy as np

from ..layers import softmax
from .compile import compiled, exp, fits, spread

MOST_ROWS = 4096  # of a mask, which are looked at before: beyond, it is another one for each example


LANES = 8  # numbers compared at a time: in one chain each comparison would wait for the one before


@compiled
def largest(row, lanes):
    """Its largest number; lanes: room for LANES."""
    top = row.dtype.type(-np.inf)
    for lane in range(LANES):
        lanes[lane] = top
    whole = row.size // LANES * LANES
    for j in range(0, whole, LANES):
        some = row[j : j + LANES]
        for lane in range(LANES):
            lanes[lane] = some[lane] if some[lane] > lanes[lane] else lanes[lane]
    for lane in range(LANES):
        top = lanes[lane] if lanes[lane] > top else top
    for j in range(whole, row.size):
        top = row[j] if row[j] > top else top
    return top


@compiled
def _weigh(row, top, out):
    """e^(row − top) over its sum. Each loop does one thing, so that it is one vector operation after the other."""
    for j in range(row.size):
        out[j] = exp(row[j] - top)
    total = row.dtype.type(0)
    for j in range(row.size):
        total += out[j]
    one, zero = row.dtype.type(1), row.dtype.type(0)
    inverse = one / total if total > 0 or total != total else zero
    for j in range(row.size):
        out[j] *= inverse


@compiled
def _forward_first(first, part, scores, pattern, lengths, repeat):
    """Each row may see its first few places alone (all of them, what came before, what is not padding)."""
    zero = scores.dtype.type(0)
    lanes = np.empty(LANES, scores.dtype)
    for i in range(scores.shape[0]):
        length = lengths[(first + i) // repeat % lengths.size]
        row, out = scores[i, :length], pattern[i, :length]
        _weigh(row, largest(row, lanes), out)
        for j in range(length, scores.shape[1]):
            pattern[i, j] = zero


@compiled
def _forward_masked(first, part, scores, pattern, mask, repeat):
    number = scores.dtype.type
    zero, one, low = number(0), number(1), number(-np.inf)
    lanes = np.empty(LANES, scores.dtype)
    for i in range(scores.shape[0]):
        allowed, row, out = mask[(first + i) // repeat % mask.shape[0]], scores[i], pattern[i]
        for j in range(row.size):
            out[j] = row[j] if allowed[j] else low
        top = largest(out, lanes)
        for j in range(row.size):
            out[j] = exp(row[j] - top)
        total = zero
        for j in range(row.size):
            out[j] = out[j] if allowed[j] else zero
            total += out[j]
        inverse = one / total if total > 0 or total != total else zero
        for j in range(row.size):
            out[j] *= inverse


@compiled
def _backward(first, part, dpattern, pattern, dscores):
    for i in range(dpattern.shape[0]):
        mean = dpattern.dtype.type(0)
        for j in range(dpattern.shape[1]):
            mean += pattern[i, j] * dpattern[i, j]
        for j in range(dpattern.shape[1]):
            dscores[i, j] = pattern[i, j] * (dpattern[i, j] - mean)


def forward(definition: Any, scores: Any, mask: Any = None) -> Any:
    if not fits(scores) or scores.ndim < 2 or scores.size == 0:
        return definition(scores, mask)
    pattern, S = np.empty_like(scores), scores.shape[-1]
    rows, out = scores.reshape(-1, S), pattern.reshape(-1, S)
    if mask is None:
        kernel, which, repeat = _forward_first, np.array([S]), 1
    else:
        allowed, repeat = _mask_rows(mask, scores.shape)
        lengths = allowed.sum(axis=1)
        first_few = len(allowed) <= MOST_ROWS and np.array_equal(allowed, np.arange(S) < lengths[:, None])
        kernel, which = (_forward_first, lengths) if first_few else (_forward_masked, allowed)
    spread(kernel, rows.size, (rows, out), (which, repeat))
    return pattern, softmax.Cache(pattern)


def _mask_rows(mask: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The mask as rows that come round again, and for how many rows of scores each of them serves before the next.

    A causal one [1 1 T S] is T rows, and padding [B 1 1 S] is B rows for H·T rows of scores each; not B·H·T.
    """
    mask = np.asarray(mask)
    mask = mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape)
    own = [axis for axis in range(len(shape) - 1) if mask.shape[axis] != 1]
    first, last = (own[0], own[-1] + 1) if own else (0, 0)
    kept = np.broadcast_to(mask[(0,) * first], (*shape[first:last], *mask.shape[last:-1], shape[-1]))
    return np.ascontiguousarray(kept).reshape(-1, shape[-1]), math.prod(shape[last:-1]) if own else 1


def backward(definition: Any, dpattern: Any, c: Any) -> Any:
    if not fits(dpattern, c.pattern) or dpattern.ndim < 2 or dpattern.size == 0:
        return definition(dpattern, c)
    dscores, S = np.empty_like(dpattern), dpattern.shape[-1]
    spread(_backward, dpattern.size, tuple(a.reshape(-1, S) for a in (dpattern, c.pattern, dscores)))
    return dscores


KERNELS = {"layers.softmax.forward": forward, "layers.softmax.backward": backward}
