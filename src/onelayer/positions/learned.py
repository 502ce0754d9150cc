"""Learned positions: a table with one free vector for each position.

Shapes    x [B T D]     ids t [T] or [B T], each below the table's length     W_pos [N D]

Forward   x′ = x + W_pos[t]

Backward  ∂a is ∂loss/∂a
          ∂x = ∂x′      ∂W_pos[n] = Σ ∂x′ over all places (batch and sequence) whose id is n
          A row that no training sequence reaches gets exactly zero: it stays as it was drawn.

Constants scale: the initial standard deviation, 1/√D where None.
Source    Gehring et al. 2017, arXiv:1705.03122; Vaswani et al. 2017, table 3 row E.
          Every step: docs/derivations/positions.md
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, gather_rows, scatter_add_rows
from ..errors import BadInput

COST = "B T D"


class Params(NamedTuple):
    W_pos: Array  # [N, D]


class Cache(NamedTuple):
    W_pos: Array
    ids: Array


def init(rng: np.random.Generator, size: Any, *, scale: float | None = None) -> Params:
    deviation = size.d_model**-0.5 if scale is None else scale
    return Params(W_pos=deviation * rng.standard_normal((size.n_ctx, size.d_model)))


def encode_x(p: Params, x: Array, ids: Array, *, scale: float | None) -> tuple[Array, Cache]:
    n = p.W_pos.shape[0]
    if isinstance(ids, np.ndarray) and ids.size and ids.max() >= n:
        raise BadInput(
            f"the learned position table has {n} rows, but position {ids.max()} was asked for (they count from 0); "
            f"use sequences of at most {n} tokens, a larger n_ctx, or a position that extrapolates (rope, alibi, t5)"
        )
    xp = array_namespace(x)
    ids = xp.asarray(ids)
    return x + gather_rows(p.W_pos, ids), Cache(p.W_pos, ids)


def encode_x_backward(dx: Array, c: Cache, *, scale: float | None) -> tuple[Array, Params]:
    xp = array_namespace(dx)
    rows = dx if c.ids.ndim == 2 else xp.sum(dx, axis=0)
    return dx, Params(W_pos=scatter_add_rows(rows, c.ids, c.W_pos.shape[0]))
