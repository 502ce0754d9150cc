"""The one-layer decoder read at its last position, computed from tables: an exact shortcut for `decoder_only`.

Shapes    tokens [B T]     logits [B 1 V]     R rows: each token once at each position, position by position
          row [B T]: where an example's tokens stand among these     U: the rows of the last position, which ask

Why       In one layer keys and values hang on (token, position) alone, and so does the query at the last position.
          Where V < B that is at most V·T rows to embed, norm and project instead of B·T, and U·R scores instead of B·T
          per head; an example looks its own up. What is left per example: softmax, mixing, W_O, feed-forward,
          unembedding. On NumPy only what occurs has a row; under JAX, which must know their number, all V·T have one.

Forward   x, k, v = rows of the table           scores[u, r] = q_u k_r/√K + bias      u: a row that asks
          A[b, s] = softmax_s scores[row[b, −1], row[b, s]]
          z[b] = Σ_s A[b, s] v[row[b, s]]
          mid = x[last] + Σ_h z_h W_O[h] + b_O, and on as in `decoder_only`

Backward  ∂a is ∂loss/∂a: a look-up's transpose adds up what all who looked there send back
          ∂A[b, s] = ∂z[b] · v[row[b, s]]                 ∂v[r] = Σ A[b, s] ∂z[b] over the b, s that look at r
          ∂scores = A (∂A − Σ_S A ∂A), added up per (u, r); from there as in attention, once per row

Exact     where positions act row by row (embedding, query_key) or on one query and one key alone (a `PAIRWISE` score);
          `fits` says so, and everything else takes the plain path. Equal to it up to rounding: tests/test_tables.py.

Source    docs/performance.md; the parts' own derivations in docs/derivations/
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Inexact, Integer

from ..arrays import Array, array_namespace, gather_rows, is_numpy_array, natural, scatter_add_rows
from ..fused import fused
from ..layers import embedding, softmax, unembedding
from ..positions import Felt, Method, Places
from ..sublayers import attention, feed_forward, normalise
from ..sublayers.attention import by_head, join, outer, permute, plus, project, summed, transpose
from .config import ModelConfig
from .decoder_only import Block, Params


class Seats(NamedTuple):
    """Which rows there are, and which of them an example looks at."""

    tokens: Integer[Array, " R"]
    positions: np.ndarray  # [R], growing
    rows: Integer[Array, "B T"]
    asking: int  # U, how many stand at the last position: they are the last ones
    place: np.ndarray | None = None  # [T·V], NumPy: which row each token at each position has, −1 where none


class Rows(NamedTuple):
    """What hangs on (token, position) alone, and what its backward needs."""

    seats: Seats
    x: Inexact[Array, "1 R D"]  # the residual stream before the block
    read: Inexact[Array, "1 R D"]  # what attention reads of it: itself, or its norm
    q: Inexact[Array, "1 U H K"]  # as multiplied
    k: Inexact[Array, "1 R H K"]
    v: Inexact[Array, "R H K"]
    embed: embedding.Cache
    pos_embed: Any
    ln1: normalise.Cache  # of norm 'pre'
    turn: Any
    bias: Any


class Cache(NamedTuple):
    p: Params
    rows: Rows
    pattern: Inexact[Array, "B H T"]
    z: Inexact[Array, "B 1 H K"]
    ln1: normalise.Cache  # of norm 'post'
    ln2: normalise.Cache
    mlp: feed_forward.Cache
    ln_final: normalise.Cache
    unembed: unembedding.Cache


def fits(cfg: ModelConfig, shape: tuple[int, int], read: int | None) -> bool:
    """Whether the shortcut is exact for this model, and saves work on tokens of this shape [B T]."""
    position, (B, T), V = cfg.position_method, shape, cfg.vocab_size
    sequential = cfg.position_ids == "sequential"
    exact = cfg.n_layers == 1 and read == 1 and sequential and not position.has("value")
    pairwise = position.pairwise or not position.has("score")
    return exact and pairwise and V < B and B * cfg.d_model >= V * V and T <= MOST_POSITIONS


MOST_POSITIONS = 32  # beyond, one look-up per position costs more than it saves


def forward(p: Params, tokens: Integer[Array, "B T"], cfg: ModelConfig) -> tuple[Inexact[Array, "B 1 V"], Cache]:
    """The logits of the last position."""
    block = p.blocks[0]
    scores, rows = rows_forward(p, tokens, cfg)
    z, pattern = look(scores, rows.v, rows.seats.rows)
    z = z[:, None, :, :]
    out = join(z, block.attn.W_O, block.attn.b_O)

    last, c_ln1 = gather_rows(rows.x[0, ...], rows.seats.rows[:, -1:]), None
    if cfg.norm == "post":
        mid, c_ln1 = normalise.forward(block.ln1, last + out, cfg.norm_eps)
        out, c_mlp = feed_forward.forward(block.mlp, mid, cfg.activation)
        post, c_ln2 = normalise.forward(block.ln2, mid + out, cfg.norm_eps)
    else:
        mid = last + out
        m, c_ln2 = normalise.forward(block.ln2, mid, cfg.norm_eps)
        out, c_mlp = feed_forward.forward(block.mlp, m, cfg.activation)
        post = mid + out
    post, c_final = normalise.forward(p.ln_final, post, cfg.norm_eps)
    logits, c_head = unembedding.forward(head(p), post)
    return logits, Cache(p, rows, pattern, z, c_ln1, c_ln2, c_mlp, c_final, c_head)


def backward(dlogits: Inexact[Array, "B 1 V"], c: Cache, cfg: ModelConfig) -> Params:
    """The gradient of every parameter."""
    attn = c.p.blocks[0].attn
    dx, d_head = unembedding.backward(dlogits, c.unembed)
    dpost, d_final = normalise.backward(dx, c.ln_final)
    if cfg.norm == "post":
        dsum, d_ln2 = normalise.backward(dpost, c.ln2)
        through, d_mlp = feed_forward.backward(dsum, c.mlp)
        dmid, d_ln1 = normalise.backward(dsum + through, c.ln1)
    else:
        dm, d_mlp = feed_forward.backward(dpost, c.mlp)
        through, d_ln2 = normalise.backward(dm, c.ln2)
        dmid, d_ln1 = dpost + through, None

    dz = project(dmid, permute(attn.W_O), None)[:, 0, :, :]
    dscores, dv = look_backward(dz, c.rows.v, c.rows.seats.rows, c.pattern, c.rows.seats.asking)
    dlast = scatter_add_rows(dmid[:, 0, :], asks(c.rows.seats), c.rows.seats.asking)[None, ...]
    d = rows_backward(dscores, dv, dlast, c.p, c.rows, cfg)
    d_attn = d.attn._replace(W_O=permute(outer(dmid, c.z)), b_O=summed(dmid, attn.b_O))
    block = Block(d_ln1 if cfg.norm == "post" else d.ln1, d_attn, d_ln2, d_mlp)
    return whole(d, block, d_final, d_head, cfg)


def head(p: Params) -> unembedding.Params:
    return p.unembed if p.unembed.W_U is not None else unembedding.tied(p.unembed, p.embed.W_E)


# ------------------------------------------------------------------------------------------ once per (token, position)


class DRows(NamedTuple):
    """The gradients of what the rows are made of; `attn` without W_O and b_O."""

    embed: embedding.Params
    pos_embed: Any
    ln1: normalise.Params
    attn: attention.Params


def seats(tokens: Integer[Array, "B T"], cfg: ModelConfig) -> Seats:
    T, V = tokens.shape[1], cfg.vocab_size
    xp, numbers = array_namespace(tokens), _numbers(tokens, V)
    if not is_numpy_array(tokens):
        return Seats(xp.asarray(np.tile(natural(V), T)), np.repeat(natural(T), V), numbers, V)
    occurs = np.zeros(T * V, bool)
    occurs[numbers] = True
    rows, place = np.flatnonzero(occurs), np.where(occurs, np.cumsum(occurs) - 1, -1)
    return Seats(rows % V, rows // V, place[numbers], int(np.sum(occurs[-V:])), place)


def seated(at: Seats, tokens: Integer[Array, "B T"], cfg: ModelConfig) -> Integer[Array, "B T"] | None:
    """Where other examples' tokens stand among these rows; None where one has none."""
    if at.place is None or len(at.place) != tokens.shape[1] * cfg.vocab_size:
        return None
    rows = at.place[_numbers(tokens, cfg.vocab_size)]
    return None if np.any(rows < 0) else rows


def _numbers(tokens: Integer[Array, "B T"], V: int) -> Integer[Array, "B T"]:
    """Each token at each position, numbered position by position."""
    xp = array_namespace(tokens)
    return tokens + xp.asarray(V * np.arange(tokens.shape[1]), dtype=tokens.dtype)


def asks(at: Seats) -> Integer[Array, " B"]:
    """Which of the rows that ask is an example's."""
    return at.rows[:, -1] - (len(at.positions) - at.asking)


def rows_forward(p: Params, tokens: Integer[Array, "B T"], cfg: ModelConfig) -> tuple[Inexact[Array, "1 H U R"], Rows]:
    """The scores of each row that asks against each row, and the rows."""
    position, block, at = cfg.position_method, p.blocks[0], seats(tokens, cfg)
    places = Places(np.full(at.asking, tokens.shape[1] - 1), at.positions, None, cfg.causal)

    x, c_embed = embedding.forward(p.embed, at.tokens[None, :], cfg.scale)
    x, c_pos = position.encode_x(p.pos_embed, x, places.k_ids) if position.has("embedding") else (x, None)
    read, c_ln1 = normalise.forward(block.ln1, x, cfg.norm_eps) if cfg.norm == "pre" else (x, None)
    last = read[:, -at.asking :, :]
    q, k = project(last, block.attn.W_Q, block.attn.b_Q), project(read, block.attn.W_K, block.attn.b_K)
    v = project(read, block.attn.W_V, block.attn.b_V)[0, ...]
    scores, q, k, c_turn, c_bias = _scores(block.attn, q, k, last, read, places, position)
    return scores, Rows(at, x, read, q, k, v, c_embed, c_pos, c_ln1, c_turn, c_bias)


def rows_backward(
    dscores: Inexact[Array, "1 H U R"],
    dv: Inexact[Array, "R H K"],
    dlast: Inexact[Array, "1 U D"],
    p: Params,
    c: Rows,
    cfg: ModelConfig,
) -> DRows:
    """dlast: what the residual stream of the rows that ask feels, past attention."""
    position, attn, dv = cfg.position_method, p.blocks[0].attn, dv[None, ...]
    dq, dk, felt, dpos = _scores_backward(dscores, attn, c, position)
    last = c.read[:, -c.seats.asking :, :]
    d_attn = attention.Params(
        W_Q=outer(last, dq), W_K=outer(c.read, dk), W_V=outer(c.read, dv), W_O=attn.W_O,
        b_Q=summed(dq, attn.b_Q), b_K=summed(dk, attn.b_K), b_V=summed(dv, attn.b_V), b_O=attn.b_O,
        pos=attention.all_of(attn.pos, *dpos),
    )  # fmt: skip
    dread = plus(join(dk, permute(attn.W_K), None) + join(dv, permute(attn.W_V), None), felt.x_k)
    dasks, d_ln1 = plus(join(dq, permute(attn.W_Q), None), felt.x_q), None
    if cfg.norm == "pre":
        dx, d_ln1 = normalise.backward(_add_to_last(dread, dasks), c.ln1)
        dx = _add_to_last(dx, dlast)
    else:
        dx = _add_to_last(dread, dasks + dlast)
    dx, d_pos = position.encode_x_backward(dx, c.pos_embed) if position.has("embedding") else (dx, None)
    return DRows(embedding.backward(dx, c.embed, cfg.scale), d_pos, d_ln1, d_attn)


def whole(d: DRows, block: Block, d_final: normalise.Params, d_head: unembedding.Params, cfg: ModelConfig) -> Params:
    """The gradient of every parameter, from the parts; a tied table gets both its shares."""
    d_embed = d.embed
    if cfg.tied != "none":
        d_embed = embedding.Params(W_E=d_embed.W_E + transpose(d_head.W_U))
        d_head = d_head._replace(W_U=None)
    return Params(d_embed, d.pos_embed, (block,), d_final, d_head)


def _scores(
    p: attention.Params, q: Array, k: Array, last: Array, read: Array, places: Places, position: Method
) -> tuple[Inexact[Array, "1 H U R"], Array, Array, Any, Any]:
    """Each row that asks against each row; the queries and keys as multiplied, and the positions' caches."""
    q_turned, k_turned, c_turn = position.encode_qk(p.pos, q, k, places) if position.has("query_key") else (q, k, None)
    scores = by_head(q_turned / math.sqrt(q.shape[-1])) @ transpose(by_head(k_turned))
    bias, c_bias = position.bias(p.pos, q, k, last, read, places) if position.has("score") else (None, None)
    return plus(scores, bias), q_turned, k_turned, c_turn, c_bias


def _scores_backward(
    dscores: Inexact[Array, "1 H U R"], p: attention.Params, c: Rows, position: Method
) -> tuple[Array, Array, Felt, tuple[Any, Any]]:
    scale = 1 / math.sqrt(p.W_Q.shape[-1])
    dq = scale * by_head(dscores @ by_head(c.k))
    dk = scale * by_head(transpose(dscores) @ by_head(c.q))
    dq, dk, d_turn = position.encode_qk_backward(dq, dk, c.turn) if position.has("query_key") else (dq, dk, None)
    felt, d_bias = position.bias_backward(dscores, c.bias) if position.has("score") else (None, None)
    felt = Felt() if felt is None else felt
    return plus(dq, felt.q), plus(dk, felt.k), felt, (d_turn, d_bias)


def _add_to_last(x: Inexact[Array, "1 R D"], more: Inexact[Array, "1 U D"]) -> Inexact[Array, "1 R D"]:
    """x with `more` added to the rows of the last position."""
    first = x.shape[1] - more.shape[1]
    return array_namespace(x).concat([x[:, :first, :], x[:, first:, :] + more], axis=1)


# ------------------------------------------------------------------------------------------ once per example


@fused
def look(
    scores: Inexact[Array, "1 H U R"], v: Inexact[Array, "R H K"], rows: Integer[Array, "B T"]
) -> tuple[Inexact[Array, "B H K"], Inexact[Array, "B H T"]]:
    """Each example's z and pattern, from what it looks up."""
    xp = array_namespace(scores)
    _, H, U, R = scores.shape
    pairs = _pairs(rows, U, R)
    found = xp.take(xp.reshape(scores, (H, U * R)), xp.reshape(pairs, (-1,)), axis=1)
    pattern, _ = softmax.forward(xp.permute_dims(xp.reshape(found, (H, *pairs.shape)), (2, 0, 1)))
    mixed = (pattern[:, :, s, None] * gather_rows(v, rows[:, s]) for s in range(rows.shape[1]))
    return sum(mixed, start=next(mixed)), pattern


@fused
def look_backward(
    dz: Inexact[Array, "B H K"],
    v: Inexact[Array, "R H K"],
    rows: Integer[Array, "B T"],
    pattern: Inexact[Array, "B H T"],
    asking: int,
) -> tuple[Inexact[Array, "1 H U R"], Inexact[Array, "R H K"]]:
    """∂scores and ∂v: what all who looked there send back."""
    xp = array_namespace(dz)
    (R, H, _), T = v.shape, rows.shape[1]
    dpattern = xp.stack([xp.sum(dz * gather_rows(v, rows[:, s]), axis=-1) for s in range(T)], axis=-1)
    dv = [scatter_add_rows(pattern[:, :, s, None] * dz, rows[:, s], R) for s in range(T)]
    dscores = softmax.backward(dpattern, softmax.Cache(pattern))
    added = scatter_add_rows(xp.permute_dims(dscores, (2, 0, 1)), _pairs(rows, asking, R), asking * R)
    return xp.reshape(xp.permute_dims(added, (1, 0)), (1, H, asking, R)), sum(dv[1:], start=dv[0])


def _pairs(rows: Integer[Array, "B T"], U: int, R: int) -> Integer[Array, "T B"]:
    """Where (the row that asks, the row that is asked) stands among the U·R pairs."""
    return array_namespace(rows).permute_dims((rows[:, -1:] - (R - U)) * R + rows, (1, 0))
