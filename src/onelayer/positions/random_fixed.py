"""Random positions that are never learnt: a table as `learned` starts with, and it stays so.

Shapes    x [B T D]     ids t [T] or [B T], each below rows     P [rows D]

Forward   x′ = x + P[t]      P[t, i] ~ N(0, scale²), drawn once from the seed, row after row
          Unique places without any structure and without learning: what is gained over it is what one of them gives.

Backward  ∂a is ∂loss/∂a
          ∂x = ∂x′      P is constant, and no parameter: weight decay does not reach it either.

Constants scale, 1/√D where None, as learned starts; rows; seed.
Source    A control of ours; the table's start as in Gehring et al. 2017, arXiv:1705.03122.
          Every step: docs/derivations/positions.md
"""

from functools import cache
from typing import Any

import numpy as np

from ..arrays import Array, array_namespace, constant, gather_rows, generator
from ..errors import BadInput

CONTROL = True
COST = "B T D"


def init(rng: Any, size: Any, *, scale: float | None = None, rows: int = 2048, seed: int = 0) -> None:
    return None


def check(size: Any, *, scale: float | None, rows: int, seed: int) -> None:
    if scale is not None and not scale > 0:
        raise BadInput(f"the scale of random_fixed must be greater than 0; received {scale}")
    if size.n_ctx > rows:
        raise BadInput(f"random_fixed has {rows} rows, but n_ctx is {size.n_ctx}; set rows to at least that")


@cache
def table(rows: int, d_model: int, scale: float | None, seed: int) -> np.ndarray:
    """P [rows, D]; a longer table begins with the shorter one."""
    deviation = d_model**-0.5 if scale is None else scale
    return deviation * generator(seed, "random_fixed", d_model).standard_normal((rows, d_model))


def encode_x(p: None, x: Array, ids: Array, *, scale: float | None, rows: int, seed: int) -> tuple[Array, None]:
    if isinstance(ids, np.ndarray) and ids.size and ids.max() >= rows:
        raise BadInput(f"random_fixed has {rows} rows, but position {ids.max()} was asked for; set rows higher")
    P = constant(table(rows, x.shape[-1], scale, seed), x)
    return x + gather_rows(P, array_namespace(x).asarray(ids)), None


def encode_x_backward(dx: Array, c: None, *, scale: float | None, rows: int, seed: int) -> tuple[Array, None]:
    return dx, None
