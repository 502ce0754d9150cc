"""Kernels of models/first_attention.py: two rows are added up for each of y, each of ∂y is added to two, in one pass.

Place after place: what a place's row is read from and added to then stays in the nearest cache, and of the larger
tables one row of each token's is come to.
"""

from typing import Any

import numpy as np

from ..arrays import aligned
from .compile import compiled, fits, parts, spread


@compiled
def _gather(first, part, tokens, y, token, place, rstd, b):
    (B, T), one = tokens.shape, token.dtype.type(1)
    for t in range(T):
        here = place[t]
        for i in range(B):
            v, out = tokens[i, t], y[i, t]
            row, r = token[v], rstd[v, t] if rstd.size > 0 else one
            for j in range(out.size):
                out[j] = r * (row[j] + here[j]) + b[j]


@compiled
def _gather_backward(first, part, tokens, dy, token, place, rstd, dtoken, dplace, drstd, db):
    (B, T), normed, one = tokens.shape, rstd.size > 0, token.dtype.type(1)
    own_token, own_place, own_rstd, own_b = dtoken[part], dplace[part], drstd[part], db[part]
    for t in range(T):
        here, dhere = place[t], own_place[t]
        for i in range(B):
            v, asked = tokens[i, t], dy[i, t]
            drow, r = own_token[v], one
            if normed:
                r, row, along = rstd[v, t], token[v], token.dtype.type(0)
                for j in range(asked.size):
                    along += asked[j] * (row[j] + here[j])
                own_rstd[v, t] += along
            if own_b.size > 0:
                for j in range(asked.size):
                    own_b[j] += asked[j]
            for j in range(asked.size):
                d = r * asked[j]
                drow[j] += d
                dhere[j] += d


def _takes(tokens: Any, *arrays: Any) -> bool:
    return fits(*arrays) and isinstance(tokens, np.ndarray) and tokens.size > 0


def gather(definition: Any, tokens: Any, token: Any, place: Any, rstd: Any, b: Any) -> Any:
    if not _takes(tokens, token, place, rstd, b):
        return definition(tokens, token, place, rstd, b)
    kind, N = token.dtype, token.shape[1]
    y, b = aligned((*tokens.shape, N), kind), np.zeros(N, kind) if b is None else b
    spread(_gather, y.size, (tokens, y), (token, place, np.empty((0, 0), kind) if rstd is None else rstd, b))
    return y


def gather_backward(definition: Any, dy: Any, tokens: Any, token: Any, place: Any, rstd: Any, b: Any) -> Any:
    if not _takes(tokens, dy, token, place, rstd, b):
        return definition(dy, tokens, token, place, rstd, b)
    like = token, place, *(np.empty((0,) * n, dy.dtype) if a is None else a for a, n in ((rstd, 2), (b, 1)))
    sums = [np.zeros((parts(dy.size), *a.shape), dy.dtype) for a in like]
    spread(_gather_backward, dy.size, (tokens, dy), (*like[:3], *sums))
    dtoken, dplace, drstd, db = (part[0] if len(part) == 1 else part.sum(axis=0) for part in sums)
    return dtoken, dplace, None if rstd is None else drstd, None if b is None else db


KERNELS = {"models.first_attention.gather": gather, "models.first_attention.gather_backward": gather_backward}
