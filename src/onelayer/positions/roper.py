"""RoPER: rotary positions for the values as well, so that what is fetched says how far away it was found.

Shapes    q [B T H K]     k v [B S H K]     z [B T H K]     ids t [T] or [B T]     R_t: K/2 plane rotations

Forward   q′_t = R_t q_t      k′_s = R_s k_s                          as in rope
          z_t = R_(−t) Σ_s A_ts R_s v_s = Σ_s A_ts R_(s−t) v_s        turned there, mixed, turned back here

Backward  ∂a is ∂loss/∂a; a rotation's transpose turns back
          ∂q_t = R_(−t) ∂q′_t      ∂k_s = R_(−s) ∂k′_s
          y_t = R_t ∂z_t           ∂A_ts = y_t · R_s v_s      ∂v_s = R_(−s) Σ_t A_ts y_t

Constants base 10,000; layout.
Source    G. Harik, as told in labml.ai's annotated RoPER; its text turns the values once, as here (its code, twice).
          Every step: docs/derivations/positions.md
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, sin_cos, turn_pairs
from ..errors import BadInput, unknown

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "defined"
COST = "(T + S) H K"
LAYOUTS = ("interleaved", "halves")


class Waves(NamedTuple):
    cos_q: Array  # [*T, 1, K/2]
    sin_q: Array
    cos_k: Array
    sin_k: Array


class MixCache(NamedTuple):
    waves: Waves
    pattern: Array
    turned: Array  # R_s v_s [B, H, S, K]


def init(rng: Any, size: Any, *, base: float = 10_000.0, layout: str = "interleaved") -> None:
    return None


def check(size: Any, *, base: float, layout: str) -> None:
    if size.d_head % 2:
        raise BadInput(f"roper turns pairs of features, so the head width must be even; received {size.d_head}")
    if not base > 1:
        raise BadInput(f"the base of roper must be greater than 1; received {base}")
    if layout not in LAYOUTS:
        raise unknown("layout of roper", layout, LAYOUTS)


def _waves(places: Any, base: float, like: Array) -> Waves:
    K = like.shape[-1]
    omega = base ** (-2 * np.arange(K // 2) / K)
    (sin_q, cos_q), (sin_k, cos_k) = (sin_cos(ids, omega, like) for ids in (places.q_ids, places.k_ids))
    return Waves(cos_q[..., None, :], sin_q[..., None, :], cos_k[..., None, :], sin_k[..., None, :])


def encode_qk(p: None, q: Array, k: Array, places: Any, *, base: float, layout: str) -> tuple[Array, Array, Waves]:
    halves, w = layout == "halves", _waves(places, base, q)
    return turn_pairs(q, w.cos_q, w.sin_q, halves), turn_pairs(k, w.cos_k, w.sin_k, halves), w


def encode_qk_backward(dq: Array, dk: Array, w: Waves, *, base: float, layout: str) -> tuple[Array, Array, None]:
    halves = layout == "halves"
    return turn_pairs(dq, w.cos_q, -w.sin_q, halves), turn_pairs(dk, w.cos_k, -w.sin_k, halves), None


def mix(p: None, pattern: Array, v: Array, places: Any, *, base: float, layout: str) -> tuple[Array, MixCache]:
    halves, w = layout == "halves", _waves(places, base, v)
    turned = _swap(turn_pairs(v, w.cos_k, w.sin_k, halves))
    return turn_pairs(_swap(pattern @ turned), w.cos_q, -w.sin_q, halves), MixCache(w, pattern, turned)


def mix_backward(dz: Array, c: MixCache, *, base: float, layout: str) -> tuple[Array, Array, None]:
    xp, halves, w = array_namespace(dz), layout == "halves", c.waves
    y = _swap(turn_pairs(dz, w.cos_q, w.sin_q, halves))
    dv = _swap(xp.matrix_transpose(c.pattern) @ y)
    return y @ xp.matrix_transpose(c.turned), turn_pairs(dv, w.cos_k, -w.sin_k, halves), None


def _swap(x: Array) -> Array:
    """[B T H n] <-> [B H T n]."""
    return array_namespace(x).permute_dims(x, (0, 2, 1, 3))
