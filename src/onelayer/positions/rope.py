"""Rotary positions: queries and keys are turned by their position, so that a score feels only how far apart they stand.

Shapes    q [B T H K]     k [B S H K]     ids t [T] or [B T]     R_t: K/2 plane rotations

Forward   q′_t = R_t q_t      k′_s = R_s k_s      so q′_t · k′_s = q_t · R_(s−t) k_s
          pair i turns by the angle t ω_i:  (a, b) ↦ (a cos − b sin, a sin + b cos)      ω_i = base^(−2i/K)
          layout "interleaved": pair i is features 2i, 2i+1 (the paper); "halves": features i, K/2 + i (GPT-NeoX, LLaMA)

Backward  ∂a is ∂loss/∂a
          ∂q_t = R_(−t) ∂q′_t      ∂k_s = R_(−s) ∂k′_s
          The transpose of a rotation turns back; no length is lost, so no gradient is.

Constants base 10,000; layout.
Source    Su et al. 2021, arXiv:2104.09864. Every step: docs/derivations/positions.md
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, sin_cos, turn_pairs
from ..errors import BadInput, unknown

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "defined"
COST = "(T + S) H K"
LAYOUTS = ("interleaved", "halves")


class Cache(NamedTuple):
    cos_q: Array  # [*T, 1, K/2]: the head axis is one wide
    sin_q: Array
    cos_k: Array
    sin_k: Array


def init(rng: Any, size: Any, *, base: float = 10_000.0, layout: str = "interleaved") -> None:
    return None


def check(size: Any, *, base: float, layout: str) -> None:
    if size.d_head % 2:
        raise BadInput(f"rope turns pairs of features, so the head width must be even; received {size.d_head}")
    if not base > 1:
        raise BadInput(f"the base of rope must be greater than 1; received {base}")
    if layout not in LAYOUTS:
        raise unknown("layout of rope", layout, LAYOUTS)


def _waves(ids: Array, d_head: int, base: float, like: Array) -> tuple[Array, Array]:
    sin, cos = sin_cos(ids, base ** (-2 * np.arange(d_head // 2) / d_head), like)
    return cos[..., None, :], sin[..., None, :]


def encode_qk(p: None, q: Array, k: Array, places: Any, *, base: float, layout: str) -> tuple[Array, Array, Cache]:
    halves = layout == "halves"
    c = Cache(*_waves(places.q_ids, q.shape[-1], base, q), *_waves(places.k_ids, k.shape[-1], base, k))
    return turn_pairs(q, c.cos_q, c.sin_q, halves), turn_pairs(k, c.cos_k, c.sin_k, halves), c


def encode_qk_backward(dq: Array, dk: Array, c: Cache, *, base: float, layout: str) -> tuple[Array, Array, None]:
    halves = layout == "halves"
    return turn_pairs(dq, c.cos_q, -c.sin_q, halves), turn_pairs(dk, c.cos_k, -c.sin_k, halves), None
