"""Feed-forward network: every position on its own, out into F features, through a nonlinearity, and back.

Shapes    x, y [B T D]     W_in [D F], b_in [F] or None     W_out [F D], b_out [D] or None     pre, post [B T F]

Forward   pre = x W_in + b_in      post = f(pre)      y = post W_out + b_out

Backward  ∂a is ∂loss/∂a; Σ runs over batch and positions
          ∂post = ∂y W_outᵀ      ∂W_out = Σ postᵀ ∂y      ∂b_out = Σ ∂y
          ∂pre = f′(pre) ∂post
          ∂x = ∂pre W_inᵀ        ∂W_in = Σ xᵀ ∂pre        ∂b_in = Σ ∂pre

Taps      hook_pre, hook_post; in the backward the same names carry the gradients.

Source    Vaswani et al. 2017, arXiv:1706.03762, section 3.3. Every step: docs/derivations/feed_forward.md
"""

from typing import NamedTuple

from jaxtyping import Inexact

from ..arrays import Array, Tap, keep
from ..fused import fused
from ..layers import activations, linear


class Params(NamedTuple):
    W_in: Inexact[Array, "D F"]
    b_in: Inexact[Array, " F"] | None
    W_out: Inexact[Array, "F D"]
    b_out: Inexact[Array, " D"] | None


class Cache(NamedTuple):
    linear_in: linear.Cache
    activation: activations.Cache
    linear_out: linear.Cache


@fused
def forward(
    p: Params, x: Inexact[Array, "B T D"], activation: str, tap: Tap = keep
) -> tuple[Inexact[Array, "B T D"], Cache]:
    pre, c_in = linear.forward(linear.Params(p.W_in, p.b_in), x)
    post, c_act = activations.forward(tap("hook_pre", pre), activation)
    y, c_out = linear.forward(linear.Params(p.W_out, p.b_out), tap("hook_post", post))
    return y, Cache(c_in, c_act, c_out)


@fused
def backward(dy: Inexact[Array, "B T D"], c: Cache, tap: Tap = keep) -> tuple[Inexact[Array, "B T D"], Params]:
    dpost, d_out = linear.backward(dy, c.linear_out)
    dpre = tap("hook_pre", activations.backward(tap("hook_post", dpost), c.activation))
    dx, d_in = linear.backward(dpre, c.linear_in)
    return dx, Params(W_in=d_in.weight, b_in=d_in.bias, W_out=d_out.weight, b_out=d_out.bias)
