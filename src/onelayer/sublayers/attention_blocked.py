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

from ..arrays import Array, Tap, array_namespace, keep, map_tree
from ..fused import fused
from ..positions import Felt, Method, Places
from . import attention
from .attention import Params, by_head, join, outer, permute, plus, project, summed, transpose

LONG = 512  # keys from which on the blocks are worth their bookkeeping
BLOCK = 256  # queries, and keys, at a time: a block of scores stays in the cache


class Cache(NamedTuple):
    p: Params
    x_q: Inexact[Array, "B T D"]
    x_k: Inexact[Array, "B S D"]
    places: Places
    plain: tuple[Array, Array]  # q and k before the position method turned them
    q: Inexact[Array, "B H T K"]
    k: Inexact[Array, "B H S K"]
    v: Inexact[Array, "B H S K"]
    z: Inexact[Array, "B H T K"]
    L: Inexact[Array, "B H T 1"]
    encode_qk: Any


class Block(NamedTuple):
    """One block of queries against one block of keys."""

    rows: slice
    columns: slice


def fits(x_q: Array, x_k: Array, position: Method, tap: Tap) -> bool:
    xp = array_namespace(x_q)
    by_pairs = position.pairwise or not position.has("score")
    real = xp.isdtype(x_q.dtype, "real floating")
    return tap is keep and x_k.shape[1] >= LONG and by_pairs and not position.has("value") and real


def forward_in_blocks(
    p: Params, x_q: Inexact[Array, "B T D"], x_k: Inexact[Array, "B S D"], places: Places, position: Method
) -> tuple[Inexact[Array, "B T D"], Cache]:
    xp = array_namespace(x_q)
    plain = project(x_q, p.W_Q, p.b_Q), project(x_k, p.W_K, p.b_K)
    q, k, c_turn = position.encode_qk(p.pos, *plain, places) if position.has("query_key") else (*plain, None)
    scale = 1 / math.sqrt(plain[0].shape[-1])
    q, k, v = (_dense(by_head(a)) for a in (scale * q, k, project(x_k, p.W_V, p.b_V)))
    c = Cache(p, x_q, x_k, places, plain, q, k, v, q, q, c_turn)

    z, L = [], []
    for rows, blocks in _rows(c):
        q_rows = q[:, :, rows, :]
        m = xp.full((*q_rows.shape[:-1], 1), -math.inf, dtype=q.dtype)
        total, z_rows = xp.zeros_like(m), 0.0
        for block in blocks:
            scores, _ = _scores(c, block, position)
            weights, shrink, m, total = absorb(scores, _allowed(c, block), m, total)
            z_rows = z_rows * shrink + weights @ v[:, :, block.columns, :]
        some = xp.where(total > 0, total, xp.ones_like(total))
        z.append(z_rows / some)
        L.append(xp.where(total > 0, m + xp.log(some), xp.zeros_like(total)))
    c = c._replace(z=xp.concat(z, axis=2), L=xp.concat(L, axis=2))
    return join(by_head(c.z), p.W_O, p.b_O), c


def backward_in_blocks(
    dout: Inexact[Array, "B T D"], c: Cache, position: Method
) -> tuple[Inexact[Array, "B T D"], Inexact[Array, "B S D"], Params]:
    xp, p = array_namespace(dout), c.p
    dz = _dense(by_head(project(dout, permute(p.W_O), None)))
    delta = xp.sum(c.z * dz, axis=-1, keepdims=True)
    size = -(-c.k.shape[2] // BLOCK)
    dk: list[Any] = [0.0] * size
    dv: list[Any] = [0.0] * size
    dq, felt, dpos_bias = [], _Sum(c), None
    for rows, blocks in _rows(c):
        q_rows, dz_rows, dq_rows = c.q[:, :, rows, :], dz[:, :, rows, :], 0.0
        for block in blocks:
            scores, c_bias = _scores(c, block, position)
            dpattern = dz_rows @ transpose(c.v[:, :, block.columns, :])
            pattern, dscores = give_back(scores, _allowed(c, block), c.L[:, :, rows, :], dpattern, delta[:, :, rows, :])
            j = block.columns.start // BLOCK
            dv[j] = dv[j] + transpose(pattern) @ dz_rows
            dk[j] = dk[j] + transpose(dscores) @ q_rows
            dq_rows = dq_rows + dscores @ c.k[:, :, block.columns, :]
            if c_bias is not _NO_BIAS:
                more, d = position.bias_backward(dscores, c_bias)
                felt.add(block, more)
                dpos_bias = d if dpos_bias is None or d is None else map_tree(lambda a, b: a + b, dpos_bias, d)
        dq.append(dq_rows)

    scale = 1 / math.sqrt(p.W_Q.shape[-1])
    turned = scale * by_head(xp.concat(dq, axis=2)), by_head(xp.concat(dk, axis=2))
    dq, dk, dpos_turn = (
        position.encode_qk_backward(*turned, c.encode_qk) if position.has("query_key") else (*turned, None)
    )
    total = felt.total()
    dq, dk, dv = plus(dq, total.q), plus(dk, total.k), by_head(xp.concat(dv, axis=2))
    dx_q = plus(join(dq, permute(p.W_Q), None), total.x_q)
    dx_k = plus(join(dk, permute(p.W_K), None) + join(dv, permute(p.W_V), None), total.x_k)
    dparams = Params(
        W_Q=outer(c.x_q, dq), W_K=outer(c.x_k, dk), W_V=outer(c.x_k, dv), W_O=permute(outer(dout, by_head(c.z))),
        b_Q=summed(dq, p.b_Q), b_K=summed(dk, p.b_K), b_V=summed(dv, p.b_V), b_O=summed(dout, p.b_O),
        pos=attention.all_of(p.pos, dpos_turn, dpos_bias),
    )  # fmt: skip
    return dx_q, dx_k, dparams


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


# ------------------------------------------------------------------------------------------ blocks


def _rows(c: Cache) -> Iterator[tuple[slice, list[Block]]]:
    """Each block of queries, with the blocks of keys that it may see."""
    T, S = c.q.shape[2], c.k.shape[2]
    for start in range(0, T, BLOCK):
        rows = slice(start, min(start + BLOCK, T))
        seen = S - T + rows.stop if c.places.causal else S
        yield rows, [Block(rows, slice(j, min(j + BLOCK, S))) for j in range(0, seen, BLOCK)]


_NO_BIAS = object()


def _scores(c: Cache, block: Block, position: Method) -> tuple[Inexact[Array, "B H t s"], Any]:
    """A block of scores, with its bias and the bias's cache. (The queries are divided by √K already.)"""
    rows, columns = block
    scores = c.q[:, :, rows, :] @ transpose(c.k[:, :, columns, :])
    if not position.has("score"):
        return scores, _NO_BIAS
    q, k = c.plain
    places = Places(c.places.q_ids[..., rows], c.places.k_ids[..., columns], _allowed(c, block), c.places.causal)
    bias, cache = position.bias(
        c.p.pos, q[:, rows, :, :], k[:, columns, :, :], c.x_q[:, rows, :], c.x_k[:, columns, :], places
    )
    return scores + bias, cache


def _allowed(c: Cache, block: Block) -> Bool[Array, "..."] | None:
    """The block's part of the mask; None where all of it may be seen."""
    mask, (rows, columns) = c.places.mask, block
    if mask is None:
        return None
    allowed = mask[:, :, rows if mask.shape[2] > 1 else slice(None), columns]
    return None if isinstance(allowed, np.ndarray) and allowed.all() else allowed


class _Sum:
    """What the bias sends back to q, k, x_q and x_k, block by block."""

    def __init__(self, c: Cache) -> None:
        self.parts: dict[str, dict[int, Any]] = {}

    def add(self, block: Block, felt: Felt | None) -> None:
        for name, part in (felt or Felt())._asdict().items():
            if part is not None:
                start = (block.rows if name.endswith("q") else block.columns).start
                known = self.parts.setdefault(name, {})
                known[start] = known[start] + part if start in known else part

    def total(self) -> Felt:
        joined = {}
        for name, parts in self.parts.items():
            xp = array_namespace(next(iter(parts.values())))
            joined[name] = xp.concat([parts[start] for start in sorted(parts)], axis=1)
        return Felt(**joined)


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
