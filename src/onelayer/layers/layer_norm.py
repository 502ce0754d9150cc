"""Layer normalisation: standardise each feature vector, then scale and shift it.

Shapes    x, y, x̂ [*rows D]     gain g, bias b [D]     r [*rows 1]

Forward   x̂ = r (x − mean x)      r = 1/√(mean (x − mean x)² + ε)      mean over D
          y = g x̂ + b

Backward  ∂a is ∂loss/∂a; Σ runs over the rows
          ∂g = Σ ∂y x̂      ∂b = Σ ∂y      ∂x̂ = g ∂y
          ∂x = r (∂x̂ − mean ∂x̂ − x̂ mean(x̂ ∂x̂))
          The two means remove what y cannot feel: a shift of x and, up to ε, a stretch.

Source    Ba, Kiros & Hinton 2016, arXiv:1607.06450; ε under the root, as in PyTorch.
          Every step: docs/derivations/layer_norm.md
"""

from functools import partial
from typing import NamedTuple

from jaxtyping import Inexact

from ..arrays import Array, array_namespace
from ..fused import fused


class Params(NamedTuple):
    gain: Inexact[Array, " D"]
    bias: Inexact[Array, " D"]


class Cache(NamedTuple):
    gain: Inexact[Array, " D"]
    x_hat: Inexact[Array, "*rows D"]
    rstd: Inexact[Array, "*rows 1"]


@fused
def forward(p: Params, x: Inexact[Array, "*rows D"], eps: float = 1e-5) -> tuple[Inexact[Array, "*rows D"], Cache]:
    xp = array_namespace(x)
    mean = partial(xp.mean, axis=-1, keepdims=True)
    centred = x - mean(x)
    rstd = 1 / xp.sqrt(mean(centred * centred) + eps)
    x_hat = rstd * centred
    return p.gain * x_hat + p.bias, Cache(p.gain, x_hat, rstd)


@fused
def backward(dy: Inexact[Array, "*rows D"], c: Cache) -> tuple[Inexact[Array, "*rows D"], Params]:
    xp = array_namespace(dy)
    mean = partial(xp.mean, axis=-1, keepdims=True)
    sum_rows = partial(xp.sum, axis=tuple(range(dy.ndim - 1)))
    dx_hat = c.gain * dy
    dx = c.rstd * (dx_hat - mean(dx_hat) - c.x_hat * mean(c.x_hat * dx_hat))
    return dx, Params(gain=sum_rows(dy * c.x_hat), bias=sum_rows(dy))
