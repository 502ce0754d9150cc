"""Unembedding: how much the last residual stream points towards each token of the vocabulary.

Shapes    x [*rows D]     W_U [D V]     b_U [V] or None     logits [*rows V]

Forward   logits = x W_U + b_U
          Tied weights: W_U = W_Eᵀ (`tied`); one table then serves both ends of the model.

Backward  ∂a is ∂loss/∂a; Σ runs over the rows
          ∂W_U = Σ xᵀ ∂logits      ∂b_U = Σ ∂logits      ∂x = ∂logits W_Uᵀ
          Tied: ∂W_E gets (∂W_U)ᵀ added to what the embedding itself collects; overwriting either is a classic mistake.

Source    Press & Wolf 2017, arXiv:1608.05859 (tying). Every step: docs/derivations/unembedding.md
"""

from typing import NamedTuple

from jaxtyping import Inexact

from ..arrays import Array, array_namespace, sum_outer
from ..fused import fused


class Params(NamedTuple):
    W_U: Inexact[Array, "D V"] | None  # None: tied to the embedding
    b_U: Inexact[Array, " V"] | None


class Cache(NamedTuple):
    W_U: Inexact[Array, "D V"]
    b_U: Inexact[Array, " V"] | None
    x: Inexact[Array, "*rows D"]


def tied(p: Params, W_E: Inexact[Array, "V D"]) -> Params:
    """The parameters with the embedding's table in place of an own W_U."""
    return Params(W_U=W_E.T, b_U=p.b_U)


@fused
def forward(p: Params, x: Inexact[Array, "*rows D"]) -> tuple[Inexact[Array, "*rows V"], Cache]:
    xp = array_namespace(x)
    rows = xp.reshape(x, (-1, x.shape[-1]))
    logits = rows @ p.W_U if p.b_U is None else rows @ p.W_U + p.b_U
    return xp.reshape(logits, (*x.shape[:-1], logits.shape[-1])), Cache(p.W_U, p.b_U, x)


@fused
def backward(dlogits: Inexact[Array, "*rows V"], c: Cache) -> tuple[Inexact[Array, "*rows D"], Params]:
    xp = array_namespace(dlogits)
    x, dy = (xp.reshape(a, (-1, a.shape[-1])) for a in (c.x, dlogits))
    dx = xp.reshape(dy @ c.W_U.T, c.x.shape)
    return dx, Params(W_U=sum_outer(x, dy), b_U=None if c.b_U is None else xp.sum(dy, axis=0))
