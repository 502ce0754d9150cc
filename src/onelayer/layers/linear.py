"""Linear map: every output feature is a weighted sum of the input features, plus a bias.

Shapes    x [*rows M]     weight W [M N]     bias b [N] or None     y [*rows N]

Forward   y = x W + b

Backward  ∂a is ∂loss/∂a; Σ runs over the rows
          ∂W = Σ xᵀ ∂y      ∂b = Σ ∂y      ∂x = ∂y Wᵀ
          An entry of ∂W is a sum, over rows, of what came in times what was asked of what went out.

Source    Rumelhart, Hinton & Williams 1986, Nature 323; Wᵀ to the right, as rows are examples here.
          Every step: docs/derivations/linear.md
"""

from typing import NamedTuple

from jaxtyping import Inexact

from ..arrays import Array, array_namespace, sum_outer
from ..fused import fused


class Params(NamedTuple):
    weight: Inexact[Array, "M N"]
    bias: Inexact[Array, " N"] | None


class Cache(NamedTuple):
    weight: Inexact[Array, "M N"]
    bias: Inexact[Array, " N"] | None
    x: Inexact[Array, "*rows M"]


@fused
def forward(p: Params, x: Inexact[Array, "*rows M"]) -> tuple[Inexact[Array, "*rows N"], Cache]:
    xp = array_namespace(x)
    rows = xp.reshape(x, (-1, x.shape[-1]))
    y = rows @ p.weight if p.bias is None else rows @ p.weight + p.bias
    return xp.reshape(y, (*x.shape[:-1], p.weight.shape[1])), Cache(p.weight, p.bias, x)


@fused
def backward(dy: Inexact[Array, "*rows N"], c: Cache) -> tuple[Inexact[Array, "*rows M"], Params]:
    xp = array_namespace(dy)
    x, dy_rows = (xp.reshape(a, (-1, a.shape[-1])) for a in (c.x, dy))
    dx = xp.reshape(dy_rows @ c.weight.T, c.x.shape)
    dbias = None if c.bias is None else xp.sum(dy_rows, axis=0)
    return dx, Params(weight=sum_outer(x, dy_rows), bias=dbias)
