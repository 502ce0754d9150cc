"""T5's relative bias: one learnt number for each head and each bucket of distances; far distances share a bucket.

Shapes    ids t [T] or [B T], s [S] or [B S]     W_bias [H N], N buckets     bias [H T S] or [B H T S]

Forward   b[h, t, s] = W_bias[h, bucket(t − s)]
          causal, r = max(t − s, 0):       r where r < N/2, else min(N−1, N/2 + ⌊ln(r/(N/2)) / ln(R/(N/2)) · N/2⌋)
          both directions: half of the buckets for s > t and half for s ≤ t, each by the rule above on |t − s|
          R is the distance from which on all share the last bucket.

Backward  ∂a is ∂loss/∂a
          ∂W_bias[h, n] = Σ ∂b[h, t, s] over all pairs (and examples) whose distance falls into bucket n
          Buckets beyond the training length get exactly zero and stay as they were drawn.

Constants buckets N = 32, furthest R = 128 (made for 512 tokens: give toy lengths a smaller R); scale: initial deviation.
Source    Raffel et al. 2019, arXiv:1910.10683, and its code's bucket rule. Here the table is each layer's own
          (the original shares it between layers). Every step: docs/derivations/positions.md
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, scatter_add_rows
from ..errors import BadInput

CROSSES = False


class Params(NamedTuple):
    W_bias: Array  # [H, N]


class Cache(NamedTuple):
    W_bias: Array
    bucket: Array  # [T, S] or [B, T, S]


def init(
    rng: np.random.Generator, size: Any, *, buckets: int = 32, furthest: int = 128, scale: float = 0.02
) -> Params:
    return Params(W_bias=scale * rng.standard_normal((size.n_heads, buckets)))


def check(size: Any, *, buckets: int, furthest: int, scale: float) -> None:
    if buckets < 4 or buckets % 4:
        raise BadInput(f"t5 splits its buckets in four; buckets must be a multiple of 4; received {buckets}")
    if furthest <= buckets // 2:
        raise BadInput(f"furthest must exceed half the buckets ({buckets // 2}); received {furthest}")


def bucket_of(distance: Array, causal: bool, buckets: int, furthest: int) -> Array:
    """The bucket of t − s, as integers."""
    xp = array_namespace(distance)
    ahead = xp.zeros_like(distance)
    if causal:
        r = xp.where(distance > 0, distance, ahead)
    else:
        buckets //= 2
        ahead = xp.astype(distance < 0, distance.dtype) * buckets
        r = xp.abs(distance)
    exact = buckets // 2
    ratio = xp.astype(xp.where(r < exact, xp.full_like(r, exact), r), xp.float64) / exact
    steps = xp.log(ratio) / math.log(furthest / exact) * (buckets - exact)
    far = exact + xp.astype(xp.floor(steps + 1e-9), distance.dtype)  # a hair, so that exact powers fall upwards
    last = xp.full_like(far, buckets - 1)
    return ahead + xp.where(r < exact, r, xp.where(far < last, far, last))


def bias(
    p: Params, q: Array, k: Array, x_q: Array, x_k: Array, places: Any, *, buckets: int, furthest: int, scale: float
) -> tuple[Array, Cache]:
    xp = array_namespace(q)
    distance = places.q_ids[..., :, None] - places.k_ids[..., None, :]
    bucket = xp.asarray(bucket_of(distance, places.causal, buckets, furthest))
    flat = xp.take(p.W_bias, xp.reshape(bucket, (-1,)), axis=1)
    by_head = xp.reshape(flat, (p.W_bias.shape[0], *bucket.shape))
    return (by_head if bucket.ndim == 2 else xp.permute_dims(by_head, (1, 0, 2, 3))), Cache(p.W_bias, bucket)


def bias_backward(
    dbias: Array, c: Cache, *, buckets: int, furthest: int, scale: float
) -> tuple[None, Params]:
    xp = array_namespace(dbias)
    if c.bucket.ndim == 2:
        rows = xp.permute_dims(xp.sum(dbias, axis=0), (1, 2, 0))  # [T, S, H]
    else:
        rows = xp.permute_dims(dbias, (0, 2, 3, 1))
    return None, Params(W_bias=scatter_add_rows(rows, c.bucket, buckets).T)
