"""Embedding: each token is looked up as a row of a table.

Shapes    tokens [*rows] of integers in 0..V-1     W_E [V D]     x [*rows D]     scale: a number

Forward   x = scale · W_E[tokens]                  scale is 1, or √D as in Vaswani 2017

Backward  ∂a is ∂loss/∂a
          ∂W_E[v] = scale · Σ ∂x over the rows whose token is v
          A token that occurs twice gathers both gradients; one that does not occur gets exactly zero.
          Tokens are not differentiable, so there is no ∂tokens.

Source    Vaswani et al. 2017, arXiv:1706.03762, section 3.4 (the factor √D).
          Every step: docs/derivations/embedding.md
"""

from typing import NamedTuple

from jaxtyping import Inexact, Integer

from ..arrays import Array, gather_rows, scatter_add_rows
from ..fused import fused


class Params(NamedTuple):
    W_E: Inexact[Array, "V D"]


class Cache(NamedTuple):
    W_E: Inexact[Array, "V D"]
    tokens: Integer[Array, "*rows"]


def forward(p: Params, tokens: Integer[Array, "*rows"], scale: float = 1.0) -> tuple[Inexact[Array, "*rows D"], Cache]:
    x = gather_rows(p.W_E, tokens)
    return x if scale == 1.0 else scale * x, Cache(p.W_E, tokens)


@fused
def backward(dx: Inexact[Array, "*rows D"], c: Cache, scale: float = 1.0) -> Params:
    dW_E = scatter_add_rows(dx, c.tokens, c.W_E.shape[0])
    return Params(W_E=dW_E if scale == 1.0 else scale * dW_E)
