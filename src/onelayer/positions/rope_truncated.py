"""Truncated rotary positions: the slow pairs do not turn at all, and are left to carry content only.

Shapes    q [B T H K]     k [B S H K]     ids t [T] or [B T]

Forward   as rope, but ω_i = 0 for the slow pairs:
          the ⌈fraction K/2⌉ fastest pairs turn, and the others stand still         (p-RoPE, HoPE)
          or, with a length, those with ω_i ≥ 2π/length turn                        (the clip of FoPE)
          A pair that turns less than once in training shows only a part of its circle there; beyond lies what was never
          seen. Pairs that stand still show the same at any length.

Backward  ∂a is ∂loss/∂a
          ∂q_t = R_(−t) ∂q′_t      ∂k_s = R_(−s) ∂k′_s

Constants base 10,000; layout; fraction 0.75; length None (a number takes the place of fraction: the training length).
Source    p-RoPE: Barbero et al. 2024, arXiv:2410.06205. HoPE: Chen et al. 2024, arXiv:2410.21216 (there is another
          method of that name). FoPE: Hua et al. 2024, arXiv:2412.17739, whose mixing of frequencies is left out here.
          Every step: docs/derivations/positions.md
"""

import math
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
    cos_q: Array  # [*T, 1, K/2]
    sin_q: Array
    cos_k: Array
    sin_k: Array


def init(
    rng: Any,
    size: Any,
    *,
    base: float = 10_000.0,
    layout: str = "interleaved",
    fraction: float = 0.75,
    length: float | None = None,
) -> None:
    return None


def check(size: Any, *, base: float, layout: str, fraction: float, length: float | None) -> None:
    if size.d_head % 2:
        raise BadInput(
            f"rope_truncated turns pairs of features, so the head width must be even; received {size.d_head}"
        )
    if not base > 1:
        raise BadInput(f"the base of rope_truncated must be greater than 1; received {base}")
    if layout not in LAYOUTS:
        raise unknown("layout of rope_truncated", layout, LAYOUTS)
    if not 0 <= fraction <= 1:
        raise BadInput(f"fraction of rope_truncated is the share of pairs that turn, from 0 to 1; received {fraction}")
    if length is not None and not length > 0:
        raise BadInput(f"length of rope_truncated must be greater than 0, or none; received {length}")


def frequencies(d_head: int, base: float, fraction: float, length: float | None) -> np.ndarray:
    """ω [K/2], zero where a pair stands still."""
    pair = np.arange(d_head // 2)
    omega = base ** (-2 * pair / d_head)
    turns = omega >= 2 * math.pi / length if length is not None else pair < math.ceil(fraction * len(pair) - 1e-9)
    return np.where(turns, omega, 0.0)


def _waves(ids: Array, omega: np.ndarray, like: Array) -> tuple[Array, Array]:
    sin, cos = sin_cos(ids, omega, like)
    return cos[..., None, :], sin[..., None, :]


def encode_qk(
    p: None, q: Array, k: Array, places: Any, *, base: float, layout: str, fraction: float, length: float | None
) -> tuple[Array, Array, Cache]:
    halves, omega = layout == "halves", frequencies(q.shape[-1], base, fraction, length)
    c = Cache(*_waves(places.q_ids, omega, q), *_waves(places.k_ids, omega, k))
    return turn_pairs(q, c.cos_q, c.sin_q, halves), turn_pairs(k, c.cos_k, c.sin_k, halves), c


def encode_qk_backward(dq: Array, dk: Array, c: Cache, *, layout: str, **_: Any) -> tuple[Array, Array, None]:
    halves = layout == "halves"
    return turn_pairs(dq, c.cos_q, -c.sin_q, halves), turn_pairs(dk, c.cos_k, -c.sin_k, halves), None
