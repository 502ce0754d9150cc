"""RMS normalisation: divide each feature vector by its root mean square, then scale it. No centring, no bias.

Shapes    x, y, x̂ [*rows D]     gain g [D]     r [*rows 1]

Forward   x̂ = r x      r = 1/√(mean x² + ε)      mean over D
          y = g x̂

Backward  ∂a is ∂loss/∂a; Σ runs over the rows
          ∂g = Σ ∂y x̂      ∂x̂ = g ∂y
          ∂x = r (∂x̂ − x̂ mean(x̂ ∂x̂))
          Against layer normalisation one mean is gone: a shift of x is felt, a stretch (up to ε) is not.

Source    Zhang & Sennrich 2019, arXiv:1910.07467; ε under the root. Every step: docs/derivations/rms_norm.md
"""

from functools import partial
from typing import NamedTuple

from jaxtyping import Inexact

from ..arrays import Array, array_namespace
from ..fused import fused


class Params(NamedTuple):
    gain: Inexact[Array, " D"]


class Cache(NamedTuple):
    gain: Inexact[Array, " D"]
    x_hat: Inexact[Array, "*rows D"]
    rms_inverse: Inexact[Array, "*rows 1"]


@fused
def forward(p: Params, x: Inexact[Array, "*rows D"], eps: float = 1e-5) -> tuple[Inexact[Array, "*rows D"], Cache]:
    xp = array_namespace(x)
    rms_inverse = 1 / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)
    x_hat = rms_inverse * x
    return p.gain * x_hat, Cache(p.gain, x_hat, rms_inverse)


@fused
def backward(dy: Inexact[Array, "*rows D"], c: Cache) -> tuple[Inexact[Array, "*rows D"], Params]:
    xp = array_namespace(dy)
    mean = partial(xp.mean, axis=-1, keepdims=True)
    dx_hat = c.gain * dy
    dx = c.rms_inverse * (dx_hat - c.x_hat * mean(c.x_hat * dx_hat))
    return dx, Params(gain=xp.sum(dy * c.x_hat, axis=tuple(range(dy.ndim - 1))))
