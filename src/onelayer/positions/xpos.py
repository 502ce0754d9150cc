"""xPos: rotary positions that also fade, the fast pairs first, so that far keys are heard with the slow ones only.

Shapes    q [B T H K]     k [B S H K]     ids t [T] or [B T]     ζ [K/2]

Forward   q′_t = ζ^(t/length) R_t q_t      k′_s = ζ^(−s/length) R_s k_s      R as in rope, per pair
          ζ_i = (2i/K + 0.4)/1.4, so a score's pair i is rope's times ζ_i^((t − s)/length), less than 1 where t > s.
          Made for looking back: where s > t the same factor grows.

Backward  ∂a is ∂loss/∂a
          ∂q_t = ζ^(t/length) R_(−t) ∂q′_t      ∂k_s = ζ^(−s/length) R_(−s) ∂k′_s

Constants base 10,000; layout; length 512: made for thousands of tokens; 40 tokens away the fastest pair has lost 9 %;
          give it the training length.
Source    Sun et al. 2022, arXiv:2212.10554; 0.4 and 512 as in torchscale. Every step: docs/derivations/positions.md
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, scaled_ids, sin_cos, turn_pairs
from ..errors import BadInput, unknown

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "yes"
COST = "(T + S) H K"
LAYOUTS = ("interleaved", "halves")


class Cache(NamedTuple):
    cos_q: Array  # [*T, 1, K/2], the fading within
    sin_q: Array
    cos_k: Array
    sin_k: Array


def init(rng: Any, size: Any, *, base: float = 10_000.0, layout: str = "interleaved", length: float = 512.0) -> None:
    return None


def fitted(n: int) -> dict[str, Any]:
    return {"length": float(max(n, 1))}


def check(size: Any, *, base: float, layout: str, length: float) -> None:
    if size.d_head % 2:
        raise BadInput(f"xpos turns pairs of features, so the head width must be even; received {size.d_head}")
    if not base > 1:
        raise BadInput(f"the base of xpos must be greater than 1; received {base}")
    if layout not in LAYOUTS:
        raise unknown("layout of xpos", layout, LAYOUTS)
    if not length > 0:
        raise BadInput(f"length of xpos must be greater than 0; received {length}")


def fading(d_head: int) -> np.ndarray:
    """ζ [K/2]."""
    return (2 * np.arange(d_head // 2) / d_head + 0.4) / 1.4


def _waves(ids: Array, d_head: int, base: float, length: float, like: Array) -> tuple[Array, Array]:
    xp = array_namespace(like)
    sin, cos = sin_cos(ids, base ** (-2 * np.arange(d_head // 2) / d_head), like)
    fade = xp.exp(scaled_ids(ids, np.log(fading(d_head)) / length, like))
    return (fade * cos)[..., None, :], (fade * sin)[..., None, :]


def encode_qk(
    p: None, q: Array, k: Array, places: Any, *, base: float, layout: str, length: float
) -> tuple[Array, Array, Cache]:
    halves, K = layout == "halves", q.shape[-1]
    c = Cache(*_waves(places.q_ids, K, base, length, q), *_waves(places.k_ids, K, base, -length, k))
    return turn_pairs(q, c.cos_q, c.sin_q, halves), turn_pairs(k, c.cos_k, c.sin_k, halves), c


def encode_qk_backward(dq: Array, dk: Array, c: Cache, *, layout: str, **_: Any) -> tuple[Array, Array, None]:
    halves = layout == "halves"
    return turn_pairs(dq, c.cos_q, -c.sin_q, halves), turn_pairs(dk, c.cos_k, -c.sin_k, halves), None
