"""Kernels of models/tables.py: each example looks up its scores and values, softmax and mixing while they are at hand.

The backward goes head by head: a head's rows of the tables are its own, so that threads never add to the same number.
"""

from typing import Any

import numpy as np

from .compile import compiled, exp, fits, spread


@compiled
def _look(first, part, tokens, z, pattern, scores, v):
    H, V, _ = scores.shape
    T, K = tokens.shape[1], v.shape[2]
    for b in range(tokens.shape[0]):
        asks = tokens[b, T - 1]
        for h in range(H):
            top = scores[h, asks, tokens[b, 0]]
            for s in range(1, T):
                score = scores[h, asks, s * V + tokens[b, s]]
                top = score if score > top else top
            total = top * 0
            for s in range(T):
                e = exp(scores[h, asks, s * V + tokens[b, s]] - top)
                pattern[b, h, s] = e
                total += e
            for k in range(K):
                z[b, h, k] = 0
            for s in range(T):
                a = pattern[b, h, s] / total
                pattern[b, h, s] = a
                row = v[s * V + tokens[b, s], h]
                for k in range(K):
                    z[b, h, k] += a * row[k]


@compiled
def _look_backward(first, part, heads, dz, v, tokens, pattern, dpattern, dscores, dv):
    V = dscores.shape[1]
    B, T = tokens.shape
    K = v.shape[2]
    for h in heads:
        for b in range(B):
            mean = dz[b, h, 0] * 0
            for s in range(T):
                r, a = s * V + tokens[b, s], pattern[b, h, s]
                felt = mean * 0
                for k in range(K):
                    felt += dz[b, h, k] * v[r, h, k]
                    dv[r, h, k] += a * dz[b, h, k]
                dpattern[h, s] = felt
                mean += a * felt
            for s in range(T):
                dscores[h, tokens[b, T - 1], s * V + tokens[b, s]] += pattern[b, h, s] * (dpattern[h, s] - mean)


def look(definition: Any, scores: Any, v: Any, tokens: Any) -> Any:
    if not fits(scores, v) or not isinstance(tokens, np.ndarray) or tokens.size == 0:
        return definition(scores, v, tokens)
    B, T, H, K = *tokens.shape, *v.shape[1:]
    z, pattern = np.empty((B, H, K), v.dtype), np.empty((B, H, T), v.dtype)
    spread(_look, B * T * H * K, (tokens, z, pattern), (scores[0], v))
    return z, pattern


def look_backward(definition: Any, dz: Any, v: Any, tokens: Any, pattern: Any) -> Any:
    if not fits(dz, v, pattern) or not isinstance(tokens, np.ndarray) or tokens.size == 0:
        return definition(dz, v, tokens, pattern)
    (R, H, _), T = v.shape, tokens.shape[1]
    dscores, dv = np.zeros((1, H, R // T, R), v.dtype), np.zeros_like(v)
    shared = dz, v, tokens, pattern, np.empty((H, T), v.dtype), dscores[0], dv
    spread(_look_backward, dz.size * T, (np.arange(H),), shared)
    return dscores, dv


KERNELS = {"models.tables.look": look, "models.tables.look_backward": look_backward}
