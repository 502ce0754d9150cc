"""Shaw's relative positions: a learnt vector for each distance is added to the key, and another one to the value.

Shapes    q [B T H K]     k v [B S H K]     ids t [T] or [B T], s [S] or [B S]     A_K A_V [N K], N = 2 reach + 1
          E [T S N] or [B T S N]: E[t, s, n] = 1 where n is the pair's distance, else 0

Forward   n(t, s) = clip(s − t, −reach, reach) + reach
          b[h, t, s] = q_t · A_K[n(t, s)] / √K
          z_t = Σ_s A_ts (v_s + A_V[n(t, s)])
          No [T S K] is built: q A_Kᵀ [T N] is spread over the pairs by E, and the pattern gathered by distance before
          it meets A_V.

Backward  ∂a is ∂loss/∂a; Σ runs over batch, heads and queries
          G = Eᵀ ∂b/√K [B T H N]          ∂q = G A_K          ∂A_K = Σ Gᵀ q
          W = Eᵀ A [B T H N], the pattern by distance
          ∂A = ∂z vᵀ + E (∂z A_Vᵀ)        ∂v = Aᵀ ∂z          ∂A_V = Σ Wᵀ ∂z

Constants reach 16, beyond which all distances share a vector; scale: initial deviation, 1/√K where None.
Source    Shaw, Uszkoreit & Vaswani 2018, arXiv:1803.02155; the tables are shared by the heads, as there, and each
          layer's own. Every step: docs/derivations/positions.md
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, constant
from ..errors import BadInput
from . import Felt, offset

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "yes"
COST = "H T S N"


class Params(NamedTuple):
    A_K: Array  # [N, K]
    A_V: Array  # [N, K]


class BiasCache(NamedTuple):
    p: Params
    q: Array
    hot: Array  # E [*, T, S, N]


class MixCache(NamedTuple):
    p: Params
    pattern: Array
    v: Array
    by_distance: Array  # W [B, T, H, N]
    hot: Array


def init(rng: np.random.Generator, size: Any, *, reach: int = 16, scale: float | None = None) -> Params:
    deviation = size.d_head**-0.5 if scale is None else scale
    shape = (2 * reach + 1, size.d_head)
    return Params(A_K=deviation * rng.standard_normal(shape), A_V=deviation * rng.standard_normal(shape))


def check(size: Any, *, reach: int, scale: float | None) -> None:
    if reach < 1:
        raise BadInput(
            f"shaw tells at least the distances −1, 0 and 1 apart, so reach must be 1 or more; received {reach}"
        )


def bias(
    p: Params, q: Array, k: Array, x_q: Array, x_k: Array, places: Any, *, reach: int, scale: float | None
) -> tuple[Array, BiasCache]:
    hot = _one_hot(places, reach, q)
    return _to_pairs(q @ p.A_K.T, hot) / math.sqrt(q.shape[-1]), BiasCache(p, q, hot)


def bias_backward(dbias: Array, c: BiasCache, *, reach: int, scale: float | None) -> tuple[Any, Params]:
    xp = array_namespace(dbias)
    G = _to_distances(dbias, c.hot) / math.sqrt(c.q.shape[-1])
    dA_K = xp.tensordot(G, c.q, axes=((0, 1, 2), (0, 1, 2)))
    return Felt(q=G @ c.p.A_K), Params(A_K=dA_K, A_V=xp.zeros_like(c.p.A_V))


def mix(p: Params, pattern: Array, v: Array, places: Any, *, reach: int, scale: float | None) -> tuple[Array, MixCache]:
    hot = _one_hot(places, reach, v)
    W = _to_distances(pattern, hot)
    return _swap(pattern @ _swap(v)) + W @ p.A_V, MixCache(p, pattern, v, W, hot)


def mix_backward(dz: Array, c: MixCache, *, reach: int, scale: float | None) -> tuple[Array, Array, Params]:
    xp = array_namespace(dz)
    dpattern = _swap(dz) @ xp.matrix_transpose(_swap(c.v)) + _to_pairs(dz @ c.p.A_V.T, c.hot)
    dv = _swap(xp.matrix_transpose(c.pattern) @ _swap(dz))
    dA_V = xp.tensordot(c.by_distance, dz, axes=((0, 1, 2), (0, 1, 2)))
    return dpattern, dv, Params(A_K=xp.zeros_like(c.p.A_K), A_V=dA_V)


def _one_hot(places: Any, reach: int, like: Array) -> Array:
    """E [*, T, S, N]."""
    ids = -offset(places)
    xp = array_namespace(ids)
    n = xp.clip(ids, -reach, reach) + reach
    hot = n[..., None] == xp.arange(2 * reach + 1, dtype=n.dtype)
    return constant(hot, like) if isinstance(hot, np.ndarray) else xp.astype(hot, like.dtype)


def _to_pairs(x: Array, hot: Array) -> Array:
    """[B T H N] -> [B H T S]: each pair gets the entry of its distance."""
    xp = array_namespace(x)
    spread = xp.matrix_transpose(hot)
    if hot.ndim == 4:
        return _swap(x @ spread)
    B, T, H, N = x.shape
    rows = xp.reshape(xp.permute_dims(x, (1, 0, 2, 3)), (T, B * H, N)) @ spread
    return xp.permute_dims(xp.reshape(rows, (T, B, H, hot.shape[1])), (1, 2, 0, 3))


def _to_distances(x: Array, hot: Array) -> Array:
    """[B H T S] -> [B T H N]: the sum over all pairs of a distance."""
    xp = array_namespace(x)
    if hot.ndim == 4:
        return _swap(x) @ hot
    B, H, T, S = x.shape
    rows = xp.reshape(xp.permute_dims(x, (2, 0, 1, 3)), (T, B * H, S)) @ hot
    return xp.permute_dims(xp.reshape(rows, (T, B, H, hot.shape[2])), (1, 0, 2, 3))


def _swap(x: Array) -> Array:
    """[B T H n] <-> [B H T n]."""
    return array_namespace(x).permute_dims(x, (0, 2, 1, 3))
