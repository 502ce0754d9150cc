"""Attention in blocks: the same numbers as `attention`, but no [T S] matrix is ever held, so that memory grows with T.

Shapes    those of `attention`; queries and keys are taken BLOCK at a time     m, l, L, δ [B H T 1]

Forward   over the key blocks, for each block of queries; s = the block's scores, with bias, forbidden places left out
          m′ = max(m, max s)      l ← l e^(m−m′) + Σ e^(s−m′)      z ← z e^(m−m′) + e^(s−m′) v      m ← m′
          At the end z/l is softmax(s) v, and L = m + ln l is all that is kept of the scores. From the start m = −∞,
          l = 0, z = 0, each step turns what was summed relative to the old m into what it is relative to the new.

Backward  ∂a is ∂loss/∂a; the block's pattern is had again from s and L, not stored
          A = e^(s − L)            δ = Σ_K z ∂z        (= Σ_S A ∂A, for z = A v: the whole row's mean without the row)
          ∂v += Aᵀ ∂z              ∂s = A (∂z vᵀ − δ)
          ∂q += ∂s k/√K            ∂k += ∂sᵀ q/√K      and ∂s is what the bias gets

          Where attention looks back only, blocks of keys after the last query of a block are skipped: half of them.

Loops     `look`, `settle` and `send_back` are the maths of a block. Which blocks come when, and where their shares are
          summed, is under "all blocks": Python's loops, and for JAX, which would write these out, one of its own
          (attention_blocked_jax.py). Where there is no score bias, a kernel may do all blocks (kernels/attention.py).

When      LONG keys or more, no tap that wants to see the pattern, and a bias (if any) that can be asked block by block.
          All else is `attention`'s own. STAND_INS names the functions that these take the place of (see fused.py).

Source    Online softmax: Milakov & Gimelshein 2018, arXiv:1805.02867. Its backward from L and δ: Dao et al. 2022,
          arXiv:2205.14135, appendix B. Every step: docs/derivations/attention_blocked.md
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Inexact

from ..arrays import Array, Tap, array_namespace, is_jax_array, keep, map_tree
from ..fused import fused
from ..positions import Felt, Method, Places
from . import attention
from .attention import Params, by_head, join, outer, permute, plus, project, summed, transpose

LONG = 512  # keys from which on the blocks are worth their bookkeeping
BLOCK = 256  # queries, and keys, at a time: a block of scores stays in the cache


class Cache(NamedTuple):
    """Of all queries and all keys. A block is one too, cut down to its own."""

    p: Params
    x_q: Inexact[Array, "B T D"]
    x_k: Inexact[Array, "B S D"]
    places: Places
    plain: tuple[Array, Array]  # q and k before the position method turned them
    q: Inexact[Array, "B H T K"]  # divided by √K
    k: Inexact[Array, "B H S K"]
    v: Inexact[Array, "B H S K"]
    z: Inexact[Array, "B H T K"] | None = None
    L: Inexact[Array, "B H T 1"] | None = None
    encode_qk: Any = None


class Sent(NamedTuple):
    """What a block, or all blocks, send back; the gradients of queries and keys are [B T H K], of x [B T D]."""

    queries: tuple[Array, Array | None, Array | None]  # ∂q, and what the bias sends to q before it was turned, and x_q
    keys: tuple[Array, Array, Array | None, Array | None]  # ∂k, ∂v, and so to k and x_k
    pos: Any  # the gradient of what the bias learns


def fits(x_q: Array, x_k: Array, position: Method, tap: Tap) -> bool:
    xp = array_namespace(x_q)
    by_pairs = position.pairwise or not position.has("score")
    real = xp.isdtype(x_q.dtype, "real floating")
    return tap is keep and x_k.shape[1] >= LONG and by_pairs and not position.has("value") and real


def forward_in_blocks(
    p: Params, x_q: Inexact[Array, "B T D"], x_k: Inexact[Array, "B S D"], places: Places, position: Method
) -> tuple[Inexact[Array, "B T D"], Cache]:
    plain = project(x_q, p.W_Q, p.b_Q), project(x_k, p.W_K, p.b_K)
    q, k, c_turn = position.encode_qk(p.pos, *plain, places) if position.has("query_key") else (*plain, None)
    scale = 1 / math.sqrt(plain[0].shape[-1])
    q, k, v = (_dense(by_head(a)) for a in (scale * q, k, project(x_k, p.W_V, p.b_V)))
    c = Cache(p, x_q, x_k, places, plain, q, k, v, encode_qk=c_turn)
    z, L = look_at_all(c, position)
    return join(by_head(z), p.W_O, p.b_O), c._replace(z=z, L=L)


def backward_in_blocks(
    dout: Inexact[Array, "B T D"], c: Cache, position: Method
) -> tuple[Inexact[Array, "B T D"], Inexact[Array, "B S D"], Params]:
    xp, p = array_namespace(dout), c.p
    dz = _dense(by_head(project(dout, permute(p.W_O), None)))
    delta = xp.sum(c.z * dz, axis=-1, keepdims=True)
    (dq_turned, *felt_q), (dk_turned, dv, *felt_k), dpos_bias = send_all_back(dz, delta, c, position)

    dq_turned = dq_turned / math.sqrt(p.W_Q.shape[-1])
    dq, dk, dpos_turn = (
        position.encode_qk_backward(dq_turned, dk_turned, c.encode_qk)
        if position.has("query_key")
        else (dq_turned, dk_turned, None)
    )
    dq, dk = plus(dq, felt_q[0]), plus(dk, felt_k[0])
    dx_q = plus(join(dq, permute(p.W_Q), None), felt_q[1])
    dx_k = plus(join(dk, permute(p.W_K), None) + join(dv, permute(p.W_V), None), felt_k[1])
    dparams = Params(
        W_Q=outer(c.x_q, dq), W_K=outer(c.x_k, dk), W_V=outer(c.x_k, dv), W_O=permute(outer(dout, by_head(c.z))),
        b_Q=summed(dq, p.b_Q), b_K=summed(dk, p.b_K), b_V=summed(dv, p.b_V), b_O=summed(dout, p.b_O),
        pos=attention.all_of(p.pos, dpos_turn, dpos_bias),
    )  # fmt: skip
    return dx_q, dx_k, dparams


# ------------------------------------------------------------------------------------------ one block


def look(
    block: Cache, m: Array, total: Array, z: Array, position: Method
) -> tuple[Inexact[Array, "B H t 1"], Inexact[Array, "B H t 1"], Inexact[Array, "B H t K"]]:
    """m, l and z of the block's queries, once they have seen its keys too."""
    scores, _ = _scores(block, position)
    weights, shrink, m, total = absorb(scores, block.places.mask, m, total)
    return m, total, z * shrink + weights @ block.v


def settle(m: Array, total: Array, z: Array) -> tuple[Array, Array]:
    """z/l and L, after the last block; both are 0 where nothing was seen."""
    xp = array_namespace(z)
    some = xp.where(total > 0, total, xp.ones_like(total))
    return z / some, xp.where(total > 0, m + xp.log(some), xp.zeros_like(total))


def send_back(dz: Inexact[Array, "B H t K"], delta: Inexact[Array, "B H t 1"], block: Cache, position: Method) -> Sent:
    """The block's share of every gradient."""
    scores, c_bias = _scores(block, position)
    dpattern = dz @ transpose(block.v)
    pattern, dscores = give_back(scores, block.places.mask, block.L, dpattern, delta)
    felt, dpos = position.bias_backward(dscores, c_bias) if position.has("score") else (None, None)
    felt = Felt() if felt is None else felt
    dq, dk, dv = dscores @ block.k, transpose(dscores) @ block.q, transpose(pattern) @ dz
    return Sent((by_head(dq), felt.q, felt.x_q), (by_head(dk), by_head(dv), felt.k, felt.x_k), dpos)


def _scores(block: Cache, position: Method) -> tuple[Inexact[Array, "B H t s"], Any]:
    """The block's scores, with their bias and the bias's cache."""
    scores = block.q @ transpose(block.k)
    if not position.has("score"):
        return scores, None
    bias, c_bias = position.bias(block.p.pos, *block.plain, block.x_q, block.x_k, block.places)
    return scores + bias, c_bias


@fused
def absorb(
    scores: Inexact[Array, "B H t s"],
    allowed: Bool[Array, "..."] | None,
    m: Inexact[Array, "B H t 1"],
    total: Inexact[Array, "B H t 1"],
) -> tuple[Array, Array, Array, Array]:
    """e^(s−m′), e^(m−m′), m′ and the new l (`total`). A row that may see nothing so far has m′ = −∞ and weights 0."""
    xp = array_namespace(scores)
    if allowed is not None:
        scores = xp.where(allowed, scores, xp.asarray(-math.inf, dtype=scores.dtype))
    m_new = xp.maximum(m, xp.max(scores, axis=-1, keepdims=True))
    top = xp.where(m_new == -math.inf, xp.zeros_like(m_new), m_new)
    weights, shrink = xp.exp(scores - top), xp.exp(m - top)
    return weights, shrink, m_new, total * shrink + xp.sum(weights, axis=-1, keepdims=True)


@fused
def give_back(
    scores: Inexact[Array, "B H t s"],
    allowed: Bool[Array, "..."] | None,
    L: Inexact[Array, "B H t 1"],
    dpattern: Inexact[Array, "B H t s"],
    delta: Inexact[Array, "B H t 1"],
) -> tuple[Inexact[Array, "B H t s"], Inexact[Array, "B H t s"]]:
    """The block's pattern, and ∂scores."""
    xp = array_namespace(scores)
    if allowed is not None:
        scores = xp.where(allowed, scores, xp.asarray(-math.inf, dtype=scores.dtype))
    pattern = xp.exp(scores - L)
    return pattern, pattern * (dpattern - delta)


# ------------------------------------------------------------------------------------------ all blocks


@fused
def look_at_all(c: Cache, position: Method) -> tuple[Inexact[Array, "B H T K"], Inexact[Array, "B H T 1"]]:
    """z and L."""
    if is_jax_array(c.q):
        from . import attention_blocked_jax

        return attention_blocked_jax.look_at_all(c, position)
    xp = array_namespace(c.q)
    settled = []
    for rows, blocks in _rows(c):
        z = xp.zeros_like(c.q[:, :, rows, : c.v.shape[-1]])  # (a method may have widened q)
        total, m = z[..., :1], xp.full_like(z[..., :1], -math.inf)
        for columns in blocks:
            m, total, z = look(_cut(c, rows, columns), m, total, z, position)
        settled.append(settle(m, total, z))
    z, L = (xp.concat(parts, axis=2) for parts in zip(*settled, strict=True))
    return z, L


@fused
def send_all_back(dz: Inexact[Array, "B H T K"], delta: Inexact[Array, "B H T 1"], c: Cache, position: Method) -> Sent:
    if is_jax_array(c.q):
        from . import attention_blocked_jax

        return attention_blocked_jax.send_all_back(dz, delta, c, position)
    to_queries, to_keys, dpos = {}, {}, None
    for rows, blocks in _rows(c):
        for columns in blocks:
            sent = send_back(dz[:, :, rows, :], delta[:, :, rows, :], _cut(c, rows, columns), position)
            to_queries[rows.start] = _sum(to_queries.get(rows.start), sent.queries)
            to_keys[columns.start] = _sum(to_keys.get(columns.start), sent.keys)
            dpos = _sum(dpos, sent.pos)
    return Sent(_joined(to_queries), _joined(to_keys), dpos)


def looks_back(places: Places) -> bool:
    """Whether the mask is the triangle of those that look back only (and padding): else no block may be skipped."""
    return places.causal and places.mask is not None and places.mask.shape[2] > 1


def _rows(c: Cache) -> Iterator[tuple[slice, list[slice]]]:
    """Each block of queries, with the blocks of keys that it may see."""
    T, S = c.q.shape[2], c.k.shape[2]
    for start in range(0, T, BLOCK):
        rows = slice(start, min(start + BLOCK, T))
        seen = S - T + rows.stop if looks_back(c.places) else S
        yield rows, [slice(j, min(j + BLOCK, S)) for j in range(0, seen, BLOCK)]


def _cut(c: Cache, rows: slice, columns: slice) -> Cache:
    """One block of queries against one block of keys."""
    (q, k), ids = c.plain, c.places
    places = Places(ids.q_ids[..., rows], ids.k_ids[..., columns], _allowed(ids.mask, rows, columns), ids.causal)
    return Cache(
        c.p, c.x_q[:, rows, :], c.x_k[:, columns, :], places, (q[:, rows, :, :], k[:, columns, :, :]),
        c.q[:, :, rows, :], c.k[:, :, columns, :], c.v[:, :, columns, :], L=None if c.L is None else c.L[:, :, rows, :],
    )  # fmt: skip


def _allowed(mask: Bool[Array, "..."] | None, rows: slice, columns: slice) -> Bool[Array, "..."] | None:
    """The block's part of the mask; None where all of it may be seen."""
    if mask is None:
        return None
    allowed = mask[:, :, rows if mask.shape[2] > 1 else slice(None), columns]
    return None if isinstance(allowed, np.ndarray) and allowed.all() else allowed


def _sum(known: Any, more: Any) -> Any:
    return more if known is None else map_tree(lambda a, b: a + b, known, more)


def _joined(parts: dict[int, Any]) -> Any:
    """Blocks, by where they start, as one."""
    each = zip(*(parts[start] for start in sorted(parts)), strict=True)
    return tuple(None if a[0] is None else array_namespace(a[0]).concat(a, axis=1) for a in each)


def _dense(x: Array) -> Array:
    """In the order in which blocks are read, on NumPy; other libraries order memory themselves."""
    copy = getattr(x, "copy", None)
    return x if copy is None or not hasattr(x, "flags") else copy(order="C")


# ------------------------------------------------------------------------------------------ in the place of attention


def forward(
    definition: Callable[..., Any],
    p: Params, x_q: Array, x_k: Array, places: Places, position: Method, tap: Tap = keep,
) -> Any:  # fmt: skip
    if fits(x_q, x_k, position, tap):
        return forward_in_blocks(p, x_q, x_k, places, position)
    return definition(p, x_q, x_k, places, position, tap)


def backward(definition: Callable[..., Any], dout: Array, c: Any, position: Method, tap: Tap = keep) -> Any:
    return backward_in_blocks(dout, c, position) if isinstance(c, Cache) else definition(dout, c, position, tap)


STAND_INS = {"sublayers.attention.forward": forward, "sublayers.attention.backward": backward}
