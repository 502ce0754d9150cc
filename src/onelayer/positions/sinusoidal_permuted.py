"""Sinusoidal positions in a shuffled order: the same vectors, each place its own, but neighbours are no longer alike.

Shapes    x [B T D]     ids t [T] or [B T]     P [T D] or [B T D]

Forward   x′ = x + P[π(t)]      P as in sinusoidal; π shuffles each stretch of `length` places by one fixed permutation
          So uniqueness and amplitude stay, and structure goes: what is lost against sinusoidal is what structure gives.

Backward  ∂a is ∂loss/∂a
          ∂x = ∂x′      P is constant.

Constants base 10,000; length of a stretch (the training length); seed of π.
Source    A control of ours; the table: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
          Every step: docs/derivations/positions.md
"""

from functools import cache
from typing import Any

import numpy as np

from ..arrays import Array, array_namespace, gather_rows, generator, sin_cos
from ..errors import BadInput

EXTRAPOLATES = "defined"
CONTROL = True
COST = "B T D"


def init(rng: Any, size: Any, *, base: float = 10_000.0, length: int = 512, seed: int = 0) -> None:
    return None


def fitted(n: int) -> dict[str, Any]:
    return {"length": max(n, 2)}


def check(size: Any, *, base: float, length: int, seed: int) -> None:
    if size.d_model % 2:
        raise BadInput(f"sinusoidal positions pair the features, so the width must be even; received {size.d_model}")
    if not base > 1:
        raise BadInput(f"the base of sinusoidal positions must be greater than 1; received {base}")
    if length < 2:
        raise BadInput(f"a stretch that is shuffled has at least 2 places; received length {length}")


@cache
def permutation(length: int, seed: int) -> np.ndarray:
    """π [length]."""
    return generator(seed, "sinusoidal_permuted", length).permutation(length)


def table(ids: Array, d_model: int, base: float, length: int, seed: int, like: Array) -> Array:
    """P[π(ids)] [*ids, D]."""
    xp, ids_xp = array_namespace(like), array_namespace(ids)
    order = ids_xp.asarray(permutation(length, seed), dtype=ids.dtype)
    shuffled = ids - ids % length + gather_rows(order, ids % length)
    pairs = xp.stack(sin_cos(shuffled, base ** (-2 * np.arange(d_model // 2) / d_model), like), axis=-1)
    return xp.reshape(pairs, (*ids.shape, d_model))


def encode_x(p: None, x: Array, ids: Array, *, base: float, length: int, seed: int) -> tuple[Array, None]:
    return x + table(ids, x.shape[-1], base, length, seed, like=x), None


def encode_x_backward(dx: Array, c: None, *, base: float, length: int, seed: int) -> tuple[Array, None]:
    return dx, None
