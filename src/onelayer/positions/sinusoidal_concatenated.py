"""Sinusoidal positions, concatenated: all sines in the first half of the features, all cosines in the second.

Shapes    x [B T D]     ids t [T] or [B T]     P [T D] or [B T D]

Forward   x′ = x + P[t]      P[t, k] = sin(t ω_k)      P[t, D/2 + k] = cos(t ω_k)      ω_k = base^(−2k/D)
          The interleaved table with its columns permuted: a model can learn exactly the same things from either.

Backward  ∂a is ∂loss/∂a
          ∂x = ∂x′      P is constant.

Constants base 10,000.
Source    The layout of the picture in Alammar, The Illustrated Transformer, 2018, after tensor2tensor.
          Every step: docs/derivations/positions.md
"""

from typing import Any

import numpy as np

from ..arrays import Array, array_namespace, sin_cos
from ..errors import BadInput

EXTRAPOLATES = "defined"
COST = "B T D"


def init(rng: Any, size: Any, *, base: float = 10_000.0) -> None:
    return None


def check(size: Any, *, base: float) -> None:
    if size.d_model % 2:
        raise BadInput(f"sinusoidal positions pair the features, so the width must be even; received {size.d_model}")
    if not base > 1:
        raise BadInput(f"the base of sinusoidal positions must be greater than 1; received {base}")


def table(ids: Array, d_model: int, base: float, like: Array) -> Array:
    """P [*ids, D]."""
    xp = array_namespace(like)
    return xp.concat(sin_cos(ids, base ** (-2 * np.arange(d_model // 2) / d_model), like), axis=-1)


def encode_x(p: None, x: Array, ids: Array, *, base: float) -> tuple[Array, None]:
    return x + table(ids, x.shape[-1], base, like=x), None


def encode_x_backward(dx: Array, c: None, *, base: float) -> tuple[Array, None]:
    return dx, None
