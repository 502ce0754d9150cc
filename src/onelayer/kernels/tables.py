"""Kernels of models/tables.py: each example looks up its scores and values, softmax and mixing while they are at hand.

The backward goes head by head: a head's rows of the tables are its own, so that threads never add to the same number.
"""

from typing import Any

import numpy as np

from .compile import compiled, exp, fits, spread


@compiled
def _look(first, part, rows, z, pattern, scores, v):
    (_, H, K), (_, U, R), T = v.shape, scores.shape, rows.shape[1]
    for b in range(rows.shape[0]):
        for h in range(H):
            asked = scores[h, rows[b, T - 1] - (R - U)]
            top = asked[rows[b, 0]]
            for s in range(1, T):
                score = asked[rows[b, s]]
                top = score if score > top else top
            total = scores.dtype.type(0)
            for s in range(T):
                e = exp(asked[rows[b, s]] - top)
                pattern[b, h, s] = e
                total += e
            for k in range(K):
                z[b, h, k] = 0
            for s in range(T):
                a = pattern[b, h, s] / total
                pattern[b, h, s] = a
                value = v[rows[b, s], h]
                for k in range(K):
                    z[b, h, k] += a * value[k]


@compiled
def _look_backward(first, part, heads, dz, v, rows, pattern, dpattern, dscores, dv):
    (B, T), (_, U, R), K, zero = rows.shape, dscores.shape, v.shape[2], dz.dtype.type(0)
    for h in heads:
        for b in range(B):
            mean, asked = zero, dz[b, h]
            for s in range(T):
                a, value, d = pattern[b, h, s], v[rows[b, s], h], dv[rows[b, s], h]
                felt = zero
                for k in range(K):
                    felt += asked[k] * value[k]
                    d[k] += a * asked[k]
                dpattern[h, s] = felt
                mean += a * felt
            d = dscores[h, rows[b, T - 1] - (R - U)]
            for s in range(T):
                d[rows[b, s]] += pattern[b, h, s] * (dpattern[h, s] - mean)


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
