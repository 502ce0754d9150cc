"""R{embedding}: a look-up is linear in its table, so R passes through it unchanged.

Forward   x = scale · W_E[tokens]            Rx = scale · RW_E[tokens]
Backward  ∂W_E[v] = scale · Σ ∂x             R∂W_E[v] = scale · Σ R∂x      over the rows whose token is v

Source    layers/embedding.py, whose own functions do it.
"""

from ...arrays import Array
from ...layers import embedding

__all__ = ["backward", "forward"]


def forward(rp: embedding.Params, tokens: Array, scale: float) -> Array:
    return embedding.forward(rp, tokens, scale)[0]


def backward(rdx: Array, c: embedding.Cache, scale: float) -> embedding.Params:
    return embedding.backward(rdx, c, scale)
