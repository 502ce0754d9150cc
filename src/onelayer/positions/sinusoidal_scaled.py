"""Sinusoidal positions with a learnt loudness: one number decides how much position weighs against content.

Shapes    x [B T D]     ids t [T] or [B T]     P [T D] or [B T D]     alpha [1]

Forward   x′ = x + α P[t]      P as in sinusoidal
          A row of P has length √(D/2), usually far more than a fresh embedding; α starts at 1/√D, so it starts at √½.

Backward  ∂a is ∂loss/∂a; Σ runs over batch, places and features
          ∂x = ∂x′      ∂α = Σ ∂x′ P[t]

Constants base 10,000; start: α at first, 1/√D where None.
Source    x-transformers' ScaledSinusoidalEmbedding (Wang, github.com/lucidrains/x-transformers), which starts α alike;
          P: Vaswani et al. 2017, arXiv:1706.03762. Every step: docs/derivations/positions.md
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, sin_cos, sum_to
from ..errors import BadInput

EXTRAPOLATES = "defined"
COST = "B T D"


class Params(NamedTuple):
    alpha: Array  # [1]


class Cache(NamedTuple):
    P: Array  # [*ids, D]


def init(rng: Any, size: Any, *, base: float = 10_000.0, start: float | None = None) -> Params:
    return Params(alpha=np.asarray([size.d_model**-0.5 if start is None else start], dtype=np.float64))


def check(size: Any, *, base: float, start: float | None) -> None:
    if size.d_model % 2:
        raise BadInput(f"sinusoidal positions pair the features, so the width must be even; received {size.d_model}")
    if not base > 1:
        raise BadInput(f"the base of sinusoidal positions must be greater than 1; received {base}")


def table(ids: Array, d_model: int, base: float, like: Array) -> Array:
    """P [*ids, D], before α."""
    xp = array_namespace(like)
    pairs = xp.stack(sin_cos(ids, base ** (-2 * np.arange(d_model // 2) / d_model), like), axis=-1)
    return xp.reshape(pairs, (*ids.shape, d_model))


def encode_x(p: Params, x: Array, ids: Array, *, base: float, start: float | None) -> tuple[Array, Cache]:
    P = table(ids, x.shape[-1], base, like=x)
    return x + p.alpha * P, Cache(P)


def encode_x_backward(dx: Array, c: Cache, *, base: float, start: float | None) -> tuple[Array, Params]:
    return dx, Params(alpha=sum_to(dx * c.P, (1,)))
