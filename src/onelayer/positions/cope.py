"""CoPE, contextual positions: a query decides which keys count, and a key's position is how many counted up to here.

Shapes    q [B T H K]     k [B S H K]     e [N K]     g p b [B H T S]     z [B H T N]

Forward   g[t, s] = σ(q_t · k_s / √K)                 0 where t may not look
          p[t, s] = min(Σ_(u ≥ s) g[t, u], N − 1)     the sum over the keys from s on that t may look at
          z[t, n] = q_t · e[n]
          b[t, s] = (1 − f) z[t, ⌊p⌋] + f z[t, ⌊p⌋ + 1]      f = p − ⌊p⌋: between the two whole positions
          In a decoder the keys from s on end at t. Where a query may look ahead, or across, the same sum counts from
          the last key (padding left out): our reading, for the paper looks back only. Ids are not looked at.

Backward  ∂a is ∂loss/∂a
          ∂z[t, n] = Σ_s ∂b ((1 − f) [⌊p⌋ = n] + f [⌊p⌋ + 1 = n])      ∂q_t += Σ_n ∂z e[n]      ∂e[n] = Σ ∂z q_t
          ∂p = ∂b (z[⌊p⌋ + 1] − z[⌊p⌋])      0 where the min cut: a count beyond N − 1 feels nothing
          ∂g[t, u] = Σ_(s ≤ u) ∂p[t, s]      ∂(q·k) = ∂g g (1 − g)/√K      and on into q and k

Constants positions N = 64: how far may be counted, at most; shorter sequences need n + 1.
Source    Golovneva et al. 2024, arXiv:2405.18719; scaled as in its listing: gates see q·k/√K, and q itself
          asks e; e is shared by the heads and starts at 0. Every step: docs/derivations/positions.md
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, real_part, scatter_add_rows, sigmoid
from ..errors import BadInput
from . import Felt

RELATIVE = True
EXTRAPOLATES = "defined"
COST = "H T S (K + N)"


class Params(NamedTuple):
    e: Array  # [N, K]


class Cache(NamedTuple):
    e: Array
    q: Array
    k: Array
    gates: Array  # [B, H, T, S], 0 where masked
    floor: Array  # int [B H T S]: where each pair's ⌊p⌋ stands in z, flattened
    fraction: Array  # f [B, H, T, S]
    rise: Array  # z[⌊p⌋ + 1] − z[⌊p⌋], 0 where the count was cut


def init(rng: Any, size: Any, *, positions: int = 64) -> Params:
    return Params(e=np.zeros((positions, size.d_head)))


def fitted(n: int) -> dict[str, Any]:
    return {"positions": max(2, min(n + 1, 64))}


def check(size: Any, *, positions: int) -> None:
    if positions < 2:
        raise BadInput(f"cope interpolates between at least 2 positions; received {positions}")


def bias(p: Params, q: Array, k: Array, x_q: Array, x_k: Array, places: Any, *, positions: int) -> tuple[Array, Cache]:
    xp = array_namespace(q)
    by_query, by_key = _swap(q), _swap(k)
    gates = sigmoid((by_query / math.sqrt(q.shape[-1])) @ xp.matrix_transpose(by_key))
    if places.mask is not None:
        gates = xp.where(places.mask, gates, xp.asarray(0, dtype=gates.dtype))
    before = xp.cumulative_sum(gates, axis=-1)
    count = before[..., -1:] - before + gates

    whole = xp.clip(xp.floor(real_part(count)), 0, positions - 2)
    fraction = count - whole
    beyond = real_part(fraction) > 1
    fraction = xp.where(beyond, xp.asarray(1, dtype=fraction.dtype), fraction)
    B, H, T = gates.shape[:3]
    z = by_query @ p.e.T
    rows = xp.reshape(xp.arange(B * H * T, dtype=xp.int64) * positions, (B, H, T, 1))
    floor = xp.reshape(rows + xp.astype(whole, xp.int64), (-1,))
    steps = z[..., 1:] - z[..., :-1]
    steps = xp.concat([steps, xp.zeros_like(z[..., :1])], axis=-1)
    low = xp.reshape(xp.take(xp.reshape(z, (-1,)), floor, axis=0), gates.shape)
    rise = xp.reshape(xp.take(xp.reshape(steps, (-1,)), floor, axis=0), gates.shape)
    felt = xp.where(beyond, xp.asarray(0, dtype=rise.dtype), rise)
    return low + fraction * rise, Cache(p.e, q, k, gates, floor, fraction, felt)


def bias_backward(dbias: Array, c: Cache, *, positions: int) -> tuple[Felt, Params]:
    xp = array_namespace(dbias)
    B, H, T = dbias.shape[:3]
    flat = xp.reshape(dbias, (-1,))
    n = B * H * T * positions
    at = xp.reshape(scatter_add_rows(flat, c.floor, n), (B, H, T, positions))
    up = xp.reshape(scatter_add_rows(flat * xp.reshape(c.fraction, (-1,)), c.floor, n), (B, H, T, positions))
    dz = at - up + xp.concat([xp.zeros_like(up[..., :1]), up[..., :-1]], axis=-1)

    by_query, by_key = _swap(c.q), _swap(c.k)
    dgates = xp.cumulative_sum(dbias * c.rise, axis=-1)
    dscores = dgates * (c.gates * (1 - c.gates)) / math.sqrt(c.q.shape[-1])
    dq = dz @ c.e + dscores @ by_key
    dk = xp.matrix_transpose(dscores) @ by_query
    de = xp.tensordot(dz, by_query, axes=((0, 1, 2), (0, 1, 2)))
    return Felt(q=_swap(dq), k=_swap(dk)), Params(e=de)


def _swap(x: Array) -> Array:
    """[B T H n] <-> [B H T n]."""
    return array_namespace(x).permute_dims(x, (0, 2, 1, 3))
