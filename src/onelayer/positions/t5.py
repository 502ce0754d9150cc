"""T5's relative bias: one learnt number for each head and each bucket of distances; far distances share a bucket.

Shapes    ids t [T] or [B T], s [S] or [B S]     W_bias [H N], N buckets     bias [H T S] or [B H T S]

Forward   b[h, t, s] = W_bias[h, bucket(t − s)]
          causal, r = max(t − s, 0):       r where r < N/2, else min(N−1, N/2 + ⌊ln(r/(N/2)) / ln(R/(N/2)) · N/2⌋)
          both directions: half of the buckets for s > t and half for s ≤ t, each by the rule above on |t − s|
          R is the distance from which on all share the last bucket.
          The rule only grows with r, so it is held as the distances at which each next bucket starts, whole numbers.

Backward  ∂a is ∂loss/∂a
          ∂W_bias[h, n] = Σ ∂b[h, t, s] over all pairs (and examples) whose distance falls into bucket n
          Buckets beyond the training length get exactly zero and stay as they were drawn.

Constants buckets N = 32; furthest R = 128 (made for 512 tokens: give toy lengths a smaller R); scale: first deviation.
Source    Raffel et al. 2019, arXiv:1910.10683, and its code's bucket rule. Here the table is each layer's own
          (the original shares it between layers). Every step: docs/derivations/positions.md
"""

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, scatter_add_rows
from ..errors import BadInput
from . import offset

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "yes"
PAIRWISE = True
COST = "H T S"


class Params(NamedTuple):
    W_bias: Array  # [H, N]


class Cache(NamedTuple):
    bucket: Array  # [T, S] or [B, T, S]


def init(rng: np.random.Generator, size: Any, *, buckets: int = 32, furthest: int = 128, scale: float = 0.02) -> Params:
    return Params(W_bias=scale * rng.standard_normal((size.n_heads, buckets)))


def fitted(n: int) -> dict[str, Any]:
    buckets = max(4, min(32, 4 * ((n - 1) // 2)))
    return {"buckets": buckets, "furthest": max(n, buckets // 2 + 1)}


def check(size: Any, *, buckets: int, furthest: int, scale: float) -> None:
    if buckets < 4 or buckets % 4:
        raise BadInput(
            f"t5 splits its buckets in four; buckets must be a multiple of 4, and positive; received {buckets}"
        )
    if furthest <= buckets // 2:
        raise BadInput(f"furthest must exceed half the buckets ({buckets // 2}); received {furthest}")


@cache
def starts(buckets: int, furthest: int) -> np.ndarray:
    """The distance at which each bucket but the first starts [buckets − 1]."""
    exact = buckets // 2
    far = np.arange(exact, furthest + 1)
    steps = np.log(far / exact) / math.log(furthest / exact) * (buckets - exact)
    bucket = exact + np.floor(steps + 1e-9).astype(np.int64)  # a hair, so that exact powers fall upwards
    return np.concatenate([np.arange(1, exact), far[np.searchsorted(bucket, np.arange(exact, buckets))]])


def bucket_of(distance: Array, causal: bool, buckets: int, furthest: int) -> Array:
    """The bucket of t − s, as integers."""
    xp = array_namespace(distance)
    if causal:
        ahead, r = xp.zeros_like(distance), xp.where(distance > 0, distance, xp.zeros_like(distance))
    else:
        buckets //= 2
        ahead, r = buckets * xp.astype(distance < 0, distance.dtype), xp.abs(distance)
    edges = xp.asarray(starts(buckets, furthest), dtype=distance.dtype)
    return ahead + xp.astype(xp.searchsorted(edges, r, side="right"), distance.dtype)


def bias(
    p: Params, q: Array, k: Array, x_q: Array, x_k: Array, places: Any, *, buckets: int, furthest: int, scale: float
) -> tuple[Array, Cache]:
    xp = array_namespace(q)
    bucket = xp.asarray(bucket_of(offset(places), places.causal, buckets, furthest))
    flat = xp.take(p.W_bias, xp.reshape(bucket, (-1,)), axis=1)
    by_head = xp.reshape(flat, (p.W_bias.shape[0], *bucket.shape))
    return (by_head if bucket.ndim == 2 else xp.permute_dims(by_head, (1, 0, 2, 3))), Cache(bucket)


def bias_backward(dbias: Array, c: Cache, *, buckets: int, furthest: int, scale: float) -> tuple[None, Params]:
    xp = array_namespace(dbias)
    by_head = xp.sum(dbias, axis=0) if c.bucket.ndim == 2 else xp.permute_dims(dbias, (1, 0, 2, 3))
    sums = [scatter_add_rows(by_head[h, ...], c.bucket, buckets) for h in range(by_head.shape[0])]
    return None, Params(W_bias=xp.stack(sums))
