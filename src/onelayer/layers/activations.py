"""Activations: one nonlinear function, applied to every number on its own.

Shapes    x, y, slope [*any]

Forward   y = f(x)      and, at the same time, slope = f′(x): the two share their costly part
          relu        f = max(x, 0)                        f′ = 1 where x > 0, else 0 (0 at the kink itself)
          gelu        f = x Φ(x)                           f′ = Φ(x) + x φ(x)       Φ, φ the normal's sum and density
          gelu_tanh   f = x (1 + t)/2                      f′ = (1 + t)/2 + x (1 − t²) u′/2
                      t = tanh u      u = √(2/π) (x + 0.044715 x³)      u′ = √(2/π) (1 + 3 · 0.044715 x²)
          silu        f = x σ(x)                           f′ = σ (1 + x (1 − σ))
          quadratic   f = x²                               f′ = 2x
          identity    f = x                                f′ = 1

Backward  ∂a is ∂loss/∂a
          ∂x = f′(x) ∂y
          Each number's gradient is scaled by how steep the function is where that number stands.

Source    GELU: Hendrycks & Gimpel 2016, arXiv:1606.08415. SiLU: Elfwing et al. 2017, arXiv:1702.03118.
          Quadratic, for grokking: Gromov 2023, arXiv:2301.02679. Every step: docs/derivations/activations.md
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Inexact

from ..arrays import Array, array_namespace, erf, real_part
from ..errors import unknown
from ..fused import fused


class Cache(NamedTuple):
    slope: Inexact[Array, "*any"]


def relu(x: Array) -> tuple[Array, Array]:
    xp = array_namespace(x)
    slope = xp.astype(real_part(x) > 0, x.dtype)
    return x * slope, slope


def gelu(x: Array) -> tuple[Array, Array]:
    xp = array_namespace(x)
    below = 0.5 * (1 + erf(x / math.sqrt(2)))
    return x * below, below + x * xp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def gelu_tanh(x: Array) -> tuple[Array, Array]:
    xp = array_namespace(x)
    c, a = math.sqrt(2 / math.pi), 0.044715
    square = x * x
    t = xp.tanh(c * x * (1 + a * square))
    half = 0.5 * (1 + t)
    return x * half, half + 0.5 * c * x * (1 - t * t) * (1 + 3 * a * square)


def silu(x: Array) -> tuple[Array, Array]:
    xp = array_namespace(x)
    sigmoid = 0.5 * (1 + xp.tanh(0.5 * x))  # 1/(1 + e⁻ˣ), without overflow
    return x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))


def quadratic(x: Array) -> tuple[Array, Array]:
    return x * x, 2 * x


def identity(x: Array) -> tuple[Array, Array]:
    return x, array_namespace(x).ones_like(x)


FUNCTIONS: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "quadratic": quadratic,
    "identity": identity,
}


@fused
def forward(x: Inexact[Array, "*any"], kind: str) -> tuple[Inexact[Array, "*any"], Cache]:
    if kind not in FUNCTIONS:
        raise unknown("activation", kind, FUNCTIONS)
    y, slope = FUNCTIONS[kind](x)
    return y, Cache(slope)


@fused
def backward(dy: Inexact[Array, "*any"], c: Cache) -> Inexact[Array, "*any"]:
    return c.slope * dy
