"""The optional norm before or after a sublayer: layer norm, RMS norm, or none, as the parameters say.

Shapes    x, y [B T D]

Forward   y = layer_norm(x), rms_norm(x), or x itself where there are no parameters
Backward  that of the norm in use; ∂x = ∂y where there is none

Taps      hook_normalized: y, and in the backward ∂y.
Source    layers/layer_norm.py and layers/rms_norm.py; derivations in docs/derivations/layer_norm.md, rms_norm.md
"""

from typing import TypeAlias

from jaxtyping import Inexact

from ..arrays import Array, Tap, keep
from ..fused import fused
from ..layers import layer_norm, rms_norm

Params: TypeAlias = layer_norm.Params | rms_norm.Params | None
Cache: TypeAlias = layer_norm.Cache | rms_norm.Cache | None


def forward(p: Params, x: Inexact[Array, "B T D"], eps: float, tap: Tap = keep) -> tuple[Array, Cache]:
    if p is None:
        return x, None
    y, c = layer_norm.forward(p, x, eps) if isinstance(p, layer_norm.Params) else rms_norm.forward(p, x, eps)
    return tap("hook_normalized", y), c


@fused
def of_sum(
    p: Params, x: Inexact[Array, "B T D"], more: Inexact[Array, "B T D"], eps: float, tap: Tap = keep
) -> tuple[Array, Cache]:
    """`forward` of x + more; backwards, ∂x and ∂more are alike."""
    return forward(p, x + more, eps, tap)


def backward(dy: Inexact[Array, "B T D"], c: Cache, tap: Tap = keep) -> tuple[Array, Params]:
    if c is None:
        return dy, None
    dy = tap("hook_normalized", dy)
    return layer_norm.backward(dy, c) if isinstance(c, layer_norm.Cache) else rms_norm.backward(dy, c)
