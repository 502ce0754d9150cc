"""PoPE, polar positions: the content is how long a feature's arrow is, the position alone is where it points.

Shapes    q [B T H K] -> q′ [B T H 2K]     k [B S H K] -> k′ [B S H 2K]     ids t [T] or [B T]     delta [H K]

Forward   |q| = softplus(q), |k| = softplus(k), feature by feature      θ_c = base^(−c/K), one frequency for each of K
          q′_t = (|q| cos tθ,  |q| sin tθ)      k′_s = (|k| cos φ,  |k| sin φ),  φ = sθ + δ, δ held within −2π..0
          so q′_t · k′_s = Σ_c |q_c| |k_c| cos((t − s) θ_c − δ_c): what and where do not mix, as they do in rope.

Backward  ∂a is ∂loss/∂a; ∂q′ = (∂q₁, ∂q₂), and so ∂k′; Σ runs over batch and places
          ∂q = σ(q) (∂q₁ cos tθ + ∂q₂ sin tθ)      ∂k = σ(k) (∂k₁ cos φ + ∂k₂ sin φ)
          ∂δ = Σ |k| (∂k₂ cos φ − ∂k₁ sin φ)       0 where δ stands outside of −2π..0

Constants base 10,000; start of δ: "zero" or "uniform" in −2π..0.
Source    Gopalakrishnan et al. 2025, arXiv:2509.10534. Every step: docs/derivations/positions.md
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, real_part, scaled_ids, sigmoid, sin_cos, softplus, sum_to
from ..errors import BadInput, unknown

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "defined"
COST = "H T S K"
STARTS = ("zero", "uniform")


class Params(NamedTuple):
    delta: Array  # [H, K]


class Cache(NamedTuple):
    p: Params
    q: Array
    k: Array
    cos_q: Array  # [*T, 1, K]
    sin_q: Array
    cos_k: Array  # [*S, H, K]
    sin_k: Array


def init(rng: np.random.Generator, size: Any, *, base: float = 10_000.0, start: str = "zero") -> Params:
    shape = (size.n_heads, size.d_head)
    return Params(delta=np.zeros(shape) if start == "zero" else rng.uniform(-2 * math.pi, 0, shape))


def check(size: Any, *, base: float, start: str) -> None:
    if not base > 1:
        raise BadInput(f"the base of pope must be greater than 1; received {base}")
    if start not in STARTS:
        raise unknown("start of pope", start, STARTS)


def encode_qk(p: Params, q: Array, k: Array, places: Any, *, base: float, start: str) -> tuple[Array, Array, Cache]:
    xp = array_namespace(q)
    theta = base ** (-np.arange(q.shape[-1]) / q.shape[-1])
    sin_q, cos_q = (wave[..., None, :] for wave in sin_cos(places.q_ids, theta, q))
    at_k = scaled_ids(places.k_ids, theta, k)[..., None, :] + _held(p.delta)
    c = Cache(p, q, k, cos_q, sin_q, xp.cos(at_k), xp.sin(at_k))
    long_q, long_k = softplus(q), softplus(k)
    turned_q = xp.concat([long_q * c.cos_q, long_q * c.sin_q], axis=-1)
    turned_k = xp.concat([long_k * c.cos_k, long_k * c.sin_k], axis=-1)
    return turned_q, turned_k, c


def encode_qk_backward(dq: Array, dk: Array, c: Cache, *, base: float, start: str) -> tuple[Array, Array, Params]:
    K = c.q.shape[-1]
    dq_1, dq_2, dk_1, dk_2 = dq[..., :K], dq[..., K:], dk[..., :K], dk[..., K:]
    dphi = softplus(c.k) * (dk_2 * c.cos_k - dk_1 * c.sin_k)
    delta = real_part(c.p.delta)
    inside = (delta >= -2 * math.pi) & (delta <= 0)
    xp = array_namespace(dq)
    ddelta = xp.where(inside, sum_to(dphi, delta.shape), xp.asarray(0, dtype=dphi.dtype))
    return (
        sigmoid(c.q) * (dq_1 * c.cos_q + dq_2 * c.sin_q),
        sigmoid(c.k) * (dk_1 * c.cos_k + dk_2 * c.sin_k),
        Params(delta=ddelta),
    )


def _held(delta: Array) -> Array:
    """δ within −2π..0."""
    xp = array_namespace(delta)
    low, high = (xp.asarray(edge, dtype=delta.dtype) for edge in (-2 * math.pi, 0.0))
    return xp.where(real_part(delta) > 0, high, xp.where(real_part(delta) < -2 * math.pi, low, delta))
