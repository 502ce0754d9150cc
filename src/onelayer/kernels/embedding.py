"""Kernel of layers/embedding.py: each row of ∂x is added to its token's where it lies; nothing is sorted."""

from typing import Any

import numpy as np

from ..layers import embedding
from .compile import compiled, fits, parts, spread


@compiled
def _collect(first, part, dx, tokens, sums, scale):
    own = sums[part]
    for i in range(dx.shape[0]):
        row, asked = own[tokens[i]], dx[i]
        for j in range(asked.size):
            row[j] += scale * asked[j]


def backward(definition: Any, dx: Any, c: Any, scale: float = 1.0) -> Any:
    if not fits(dx, c.W_E) or not isinstance(c.tokens, np.ndarray) or dx.size == 0:
        return definition(dx, c, scale)
    sums = np.zeros((parts(dx.size), *c.W_E.shape), dx.dtype)
    rows = dx.reshape(-1, dx.shape[-1]), np.ascontiguousarray(c.tokens).reshape(-1)
    spread(_collect, dx.size, rows, (sums, dx.dtype.type(scale)))
    return embedding.Params(W_E=sums[0] if len(sums) == 1 else sums.sum(axis=0))


KERNELS = {"layers.embedding.backward": backward}
