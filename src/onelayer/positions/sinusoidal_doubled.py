"""Sinusoidal positions with the exponent doubled: a well-known slip, kept as a control.

Shapes    x [B T D]     ids t [T] or [B T]     P [T D] or [B T D]

Forward   x′ = x + P[t]      P[t, 2k] = sin(t ω_k)      P[t, 2k+1] = cos(t ω_k)      ω_k = base^(−4k/D)
          The paper's exponent 2k/D counts pairs k. A loop `for i in range(0, D, 2)` that writes 2i/D has i = 2k, so the
          exponent is 4k/D and the base is squared: 10,000 becomes 10⁸. Of 50 places in 128 features, 66 % of the pairs
          then turn by less than 0.1 rad from first to last, where it should be 31 %.

Backward  ∂a is ∂loss/∂a
          ∂x = ∂x′      P is constant.

Constants base 10,000 (which then acts as its square).
Source    The slip stands in much published tutorial code; the right form: Vaswani et al. 2017, arXiv:1706.03762,
          section 3.5. Every step: docs/derivations/positions.md
"""

from typing import Any

import numpy as np

from ..arrays import Array, array_namespace, sin_cos
from ..errors import BadInput

EXTRAPOLATES = "defined"
CONTROL = True
COST = "B T D"


def init(rng: Any, size: Any, *, base: float = 10_000.0) -> None:
    return None


def check(size: Any, *, base: float) -> None:
    if size.d_model % 2:
        raise BadInput(f"sinusoidal positions pair the features, so the width must be even; received {size.d_model}")
    if not base > 1:
        raise BadInput(f"the base of sinusoidal positions must be greater than 1; received {base}")


def frequencies(d_model: int, base: float) -> np.ndarray:
    """ω [D/2]."""
    return base ** (-4 * np.arange(d_model // 2) / d_model)


def table(ids: Array, d_model: int, base: float, like: Array) -> Array:
    """P [*ids, D]."""
    xp = array_namespace(like)
    pairs = xp.stack(sin_cos(ids, frequencies(d_model, base), like), axis=-1)
    return xp.reshape(pairs, (*ids.shape, d_model))


def encode_x(p: None, x: Array, ids: Array, *, base: float) -> tuple[Array, None]:
    return x + table(ids, x.shape[-1], base, like=x), None


def encode_x_backward(dx: Array, c: None, *, base: float) -> tuple[Array, None]:
    return dx, None
