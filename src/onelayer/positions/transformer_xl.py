"""Transformer-XL's relative positions: the query, and two biases, ask a sinusoid of the distance through a learnt map.

Shapes    q [B T H K]     k [B S H K]     ids t [T] or [B T], s [S] or [B S]     u v [H K]     W_R [H D K]
          R_r [D]: the sinusoidal row of a distance r, sines first     bias [B H T S]

Forward   score = (q_t + u) · k_s + (q_t + v) · (R_(t−s) W_R)      over √K; q_t · k_s is the attention's own
          b = (u · k_s + a_t · R_(t−s)) / √K      a_t = W_R (q_t + v) [D], split into a_sin and a_cos
          Instead of a table over distances and a shift of its rows, by the sine and cosine of a difference:
          a_t · R_(t−s) = α_t · P_s      P_s = (sin sω, cos sω)
          α_t = (a_cos sin tω − a_sin cos tω,  a_sin sin tω + a_cos cos tω)
          which is exact for any ids, looks both ways, and has no row to be off by one.

Backward  ∂a is ∂loss/∂a; g = ∂b/√K; Σ runs over batch and places
          ∂u = Σ_s (Σ_t g) k_s            ∂k_s = (Σ_t g) u          ∂α_t = Σ_s g P_s
          ∂a_sin = −∂α₁ cos tω + ∂α₂ sin tω      ∂a_cos = ∂α₁ sin tω + ∂α₂ cos tω
          ∂q_t = W_Rᵀ ∂a_t                ∂v = Σ ∂q_t               ∂W_R = Σ ∂a_t (q_t + v)ᵀ

Constants base 10,000; scale: initial deviation of W_R, 1/√D where None; u and v start at 0.
Source    Dai et al. 2019, arXiv:1901.02860, section 3.3; u, v and W_R are each layer's own here.
          Every step: docs/derivations/positions.md
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, sin_cos, sum_to
from ..errors import BadInput
from . import Felt

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "defined"
PAIRWISE = True
COST = "H T S D + H T D K"


class Params(NamedTuple):
    u: Array  # [H, K]
    v: Array  # [H, K]
    W_R: Array  # [H, D, K]


class Cache(NamedTuple):
    p: Params
    asked: Array  # q + v [B, H, T, K]
    k: Array  # [B, S, H, K]
    sin: Array  # of the queries' places [*, 1, T, D/2]
    cos: Array
    P: Array  # of the keys' places [*, 1, S, D]


def init(rng: np.random.Generator, size: Any, *, base: float = 10_000.0, scale: float | None = None) -> Params:
    H, D, K = size.n_heads, size.d_model, size.d_head
    deviation = D**-0.5 if scale is None else scale
    return Params(np.zeros((H, K)), np.zeros((H, K)), deviation * rng.standard_normal((H, D, K)))


def check(size: Any, *, base: float, scale: float | None) -> None:
    if size.d_model % 2:
        raise BadInput(
            f"transformer_xl pairs a sinusoid's features, so the width must be even; received {size.d_model}"
        )
    if not base > 1:
        raise BadInput(f"the base of transformer_xl must be greater than 1; received {base}")


def bias(
    p: Params, q: Array, k: Array, x_q: Array, x_k: Array, places: Any, *, base: float, scale: float | None
) -> tuple[Array, Cache]:
    xp = array_namespace(q)
    D = p.W_R.shape[1]
    frequencies = base ** (-2 * np.arange(D // 2) / D)
    sin, cos = (wave[..., None, :, :] for wave in sin_cos(places.q_ids, frequencies, q))
    P = xp.concat(sin_cos(places.k_ids, frequencies, k), axis=-1)[..., None, :, :]

    asked = xp.permute_dims(q + p.v, (0, 2, 1, 3))
    a = asked @ xp.matrix_transpose(p.W_R)
    a_sin, a_cos = a[..., : D // 2], a[..., D // 2 :]
    alpha = xp.concat([a_cos * sin - a_sin * cos, a_sin * sin + a_cos * cos], axis=-1)
    u_k = xp.permute_dims(xp.sum(p.u * k, axis=-1), (0, 2, 1))[:, :, None, :]
    return (u_k + alpha @ xp.matrix_transpose(P)) / math.sqrt(q.shape[-1]), Cache(p, asked, k, sin, cos, P)


def bias_backward(dbias: Array, c: Cache, *, base: float, scale: float | None) -> tuple[Felt, Params]:
    xp, p = array_namespace(dbias), c.p
    g = dbias / math.sqrt(p.u.shape[-1])
    by_key = xp.permute_dims(xp.sum(g, axis=2), (0, 2, 1))[..., None]  # [B, S, H, 1]

    dalpha = g @ c.P
    half = dalpha.shape[-1] // 2
    d1, d2 = dalpha[..., :half], dalpha[..., half:]
    da = xp.concat([d2 * c.sin - d1 * c.cos, d1 * c.sin + d2 * c.cos], axis=-1)
    dq = xp.permute_dims(da @ p.W_R, (0, 2, 1, 3))

    H, D, K = p.W_R.shape
    da_rows = xp.reshape(xp.permute_dims(da, (1, 3, 0, 2)), (H, D, -1))
    asked_rows = xp.reshape(xp.permute_dims(c.asked, (1, 0, 2, 3)), (H, -1, K))
    dparams = Params(u=sum_to(by_key * c.k, (H, K)), v=sum_to(dq, (H, K)), W_R=da_rows @ asked_rows)
    return Felt(q=dq, k=by_key * p.u), dparams
