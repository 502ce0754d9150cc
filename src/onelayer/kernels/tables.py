"""Kernels of models/tables.py: each example looks up its scores and values, softmax and mixing while they are at hand.

The backward goes head by head: a head's rows of the tables are its own, so that threads never add to the same number.
"""

from typing import Any

import numpy as np

from .compile import compiled, exp, fits, spread


@compiled
def weigh(asked, rows, weights):
    """weights = the softmax of asked[rows]"""
    top, total = asked[rows[0]], asked.dtype.type(0)
    for row in rows[1:]:
        top = asked[row] if asked[row] > top else top
    for s in range(rows.size):
        e = exp(asked[rows[s]] - top)
        weights[s] = e
        total += e
    for s in range(rows.size):
        weights[s] /= total


@compiled
def weigh_backward(dweights, weights, rows, dasked):
    """dasked[rows] += what the softmax sends back"""
    mean = weights.dtype.type(0)
    for s in range(rows.size):
        mean += weights[s] * dweights[s]
    for s in range(rows.size):
        dasked[rows[s]] += weights[s] * (dweights[s] - mean)


@compiled
def _look(first, part, rows, z, pattern, scores, v):
    (_, H, K), (_, U, R), T = v.shape, scores.shape, rows.shape[1]
    for b in range(rows.shape[0]):
        for h in range(H):
            weigh(scores[h, rows[b, T - 1] - (R - U)], rows[b], pattern[b, h])
            for k in range(K):
                z[b, h, k] = 0
            for s in range(T):
                a, value = pattern[b, h, s], v[rows[b, s], h]
                for k in range(K):
                    z[b, h, k] += a * value[k]


@compiled
def _look_backward(first, part, heads, dz, v, rows, pattern, dpattern, dscores, dv):
    (B, T), (_, U, R), K, zero = rows.shape, dscores.shape, v.shape[2], dz.dtype.type(0)
    for h in heads:
        for b in range(B):
            asked = dz[b, h]
            for s in range(T):
                a, value, d = pattern[b, h, s], v[rows[b, s], h], dv[rows[b, s], h]
                felt = zero
                for k in range(K):
                    felt += asked[k] * value[k]
                    d[k] += a * asked[k]
                dpattern[h, s] = felt
            weigh_backward(dpattern[h], pattern[b, h], rows[b], dscores[h, rows[b, T - 1] - (R - U)])


def look(definition: Any, scores: Any, v: Any, rows: Any) -> Any:
    if not fits(scores, v) or not isinstance(rows, np.ndarray) or rows.size == 0:
        return definition(scores, v, rows)
    B, T, H, K = *rows.shape, *v.shape[1:]
    z, pattern = np.empty((B, H, K), v.dtype), np.empty((B, H, T), v.dtype)
    spread(_look, B * T * H * K, (rows, z, pattern), (scores[0], v))
    return z, pattern


def look_backward(definition: Any, dz: Any, v: Any, rows: Any, pattern: Any, asking: int) -> Any:
    if not fits(dz, v, pattern) or not isinstance(rows, np.ndarray) or rows.size == 0:
        return definition(dz, v, rows, pattern, asking)
    (R, H, _), T = v.shape, rows.shape[1]
    dscores, dv = np.zeros((1, H, asking, R), v.dtype), np.zeros_like(v)
    shared = dz, v, rows, pattern, np.empty((H, T), v.dtype), dscores[0], dv
    spread(_look_backward, dz.size * T, (np.arange(H),), shared)
    return dscores, dv


KERNELS = {"models.tables.look": look, "models.tables.look_backward": look_backward}
