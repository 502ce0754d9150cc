"""Sinusoidal positions with learnt frequencies: the waves may find out how long they should be.

Shapes    x [B T D]     ids t [T] or [B T]     omega [D/2]

Forward   x′ = x + P[t]      P[t, 2k] = sin(t ω_k)      P[t, 2k+1] = cos(t ω_k)      ω_k starts at base^(−2k/D)

Backward  ∂a is ∂loss/∂a; Σ runs over batch and places
          ∂x = ∂x′      ∂ω_k = Σ t (∂x′[2k] cos(t ω_k) − ∂x′[2k+1] sin(t ω_k))
          The factor t makes far places move ω much more than near ones: rates that suit weights may be too fast here.

Constants base 10,000, of the start.
Source    A variant of ours of Vaswani et al. 2017, arXiv:1706.03762; learnt frequencies as features of a place:
          Li et al. 2021, arXiv:2106.02795. Every step: docs/derivations/positions.md
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, sum_to
from ..errors import BadInput
from . import as_float

EXTRAPOLATES = "defined"
COST = "B T D"


class Params(NamedTuple):
    omega: Array  # [D/2]


class Cache(NamedTuple):
    t: Array  # [*ids, 1]
    sin: Array  # [*ids, D/2]
    cos: Array


def init(rng: Any, size: Any, *, base: float = 10_000.0) -> Params:
    return Params(omega=base ** (-2 * np.arange(size.d_model // 2) / size.d_model))


def check(size: Any, *, base: float) -> None:
    if size.d_model % 2:
        raise BadInput(f"sinusoidal positions pair the features, so the width must be even; received {size.d_model}")
    if not base > 1:
        raise BadInput(f"the base of sinusoidal positions must be greater than 1; received {base}")


def encode_x(p: Params, x: Array, ids: Array, *, base: float) -> tuple[Array, Cache]:
    xp = array_namespace(x)
    t = as_float(ids, x)[..., None]
    sin, cos = xp.sin(t * p.omega), xp.cos(t * p.omega)
    P = xp.reshape(xp.stack([sin, cos], axis=-1), (*ids.shape, x.shape[-1]))
    return x + P, Cache(t, sin, cos)


def encode_x_backward(dx: Array, c: Cache, *, base: float) -> tuple[Array, Params]:
    dangle = c.t * (dx[..., 0::2] * c.cos - dx[..., 1::2] * c.sin)
    return dx, Params(omega=sum_to(dangle, (dx.shape[-1] // 2,)))
