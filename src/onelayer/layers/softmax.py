"""Softmax with a mask: scores become shares of 1 among the places that may be looked at.

Shapes    scores s, pattern a [*rows S]     mask [*rows S], True where a place may be looked at; broadcasts; None: all

Forward   a = e^(s − m) / Σ e^(s − m)      over the allowed places, m their maximum; 0 elsewhere
          A row without any allowed place is all zero (not NaN): nothing is looked at.

Backward  ∂a is ∂loss/∂a
          ∂s = a (∂a − Σ a ∂a)
          A score's gradient is its share times how much better than average it would have been to look there.
          So Σ ∂s = 0 over every row, and a forbidden place gets exactly 0.

Source    Bridle 1990; the shift by m changes nothing (∂m cancels) and keeps the exponentials finite.
          Every step: docs/derivations/softmax.md
"""

from typing import NamedTuple

from jaxtyping import Bool, Inexact

from ..arrays import Array, array_namespace, real_part
from ..fused import fused


class Cache(NamedTuple):
    pattern: Inexact[Array, "*rows S"]


@fused
def forward(scores: Inexact[Array, "*rows S"], mask: Bool[Array, "..."] | None = None) -> tuple[Array, Cache]:
    xp = array_namespace(scores)
    size = real_part(scores)
    if mask is None:
        exp = xp.exp(scores - xp.max(size, axis=-1, keepdims=True))
        pattern = exp / xp.sum(exp, axis=-1, keepdims=True)
        return pattern, Cache(pattern)
    lowest = xp.asarray(xp.finfo(size.dtype).min, dtype=size.dtype)
    top = xp.max(xp.where(mask, size, lowest), axis=-1, keepdims=True)
    zero = xp.asarray(0, dtype=scores.dtype)
    exp = xp.where(mask, xp.exp(xp.where(mask, scores - top, zero)), zero)
    total = xp.sum(exp, axis=-1, keepdims=True)
    pattern = exp / xp.where(real_part(total) > 0, total, xp.asarray(1, dtype=total.dtype))
    return pattern, Cache(pattern)


@fused
def backward(dpattern: Inexact[Array, "*rows S"], c: Cache) -> Inexact[Array, "*rows S"]:
    xp = array_namespace(dpattern)
    return c.pattern * (dpattern - xp.sum(c.pattern * dpattern, axis=-1, keepdims=True))
