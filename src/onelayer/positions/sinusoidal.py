"""Sinusoidal positions, interleaved: pair k of the features turns with angle t ω_k as the position t advances.

Shapes    x [B T D]     ids t [T] or [B T]     P [T D] or [B T D]

Forward   x′ = x + P[t]      P[t, 2k] = sin(t ω_k)      P[t, 2k+1] = cos(t ω_k)      ω_k = base^(−2k/D)
          k counts the pairs, 0..D/2−1, so the exponent is 2k/D: stepping i by two and writing 2i/D squares the base.

Backward  ∂a is ∂loss/∂a
          ∂x = ∂x′      P is constant.

Constants base 10,000.
Source    Vaswani et al. 2017, arXiv:1706.03762, section 3.5. Every step: docs/derivations/positions.md
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
    pairs = xp.stack(sin_cos(ids, base ** (-2 * np.arange(d_model // 2) / d_model), like), axis=-1)
    return xp.reshape(pairs, (*ids.shape, d_model))


def encode_x(p: None, x: Array, ids: Array, *, base: float) -> tuple[Array, None]:
    return x + table(ids, x.shape[-1], base, like=x), None


def encode_x_backward(dx: Array, c: None, *, base: float) -> tuple[Array, None]:
    return dx, None
