"""The one-layer decoder read at its last position, computed from tables: an exact shortcut for `decoder_only`.

Shapes    tokens [B T]     logits [B 1 V]     R = T·V rows: each token once at each position, position by position

Why       In one layer keys and values hang on (token, position) alone, and so does the query at the last position.
          Where V < B that is V·T rows to embed, norm and project instead of B·T, and V·R scores instead of B·T per
          head; an example looks its own up. What is left per example: softmax, mixing, W_O, feed-forward, unembedding.

Forward   x, k, v = rows of the table           scores[u, r] = q_u k_r/√K + bias      u: a token that asks
          A[b, s] = softmax_s scores[tokens[b, −1], row(s, tokens[b, s])]
          z[b] = Σ_s A[b, s] v[row(s, tokens[b, s])]
          mid = x[last] + Σ_h z_h W_O[h] + b_O, and on as in `decoder_only`

Backward  ∂a is ∂loss/∂a: a look-up's transpose adds up what all who looked there send back
          ∂A[b, s] = ∂z[b] · v[row]                       ∂v[row] = Σ_b A[b, s] ∂z[b]
          ∂scores = A (∂A − Σ_S A ∂A), added up per (u, r); from there as in attention, once per row

Exact     where positions act row by row (embedding, query_key) or on one query and one key alone (a `PAIRWISE` score);
          `fits` says so, and everything else takes the plain path. Equal to it up to rounding: tests/test_tables.py.

Source    docs/performance.md; the parts' own derivations in docs/derivations/
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Inexact, Integer

from ..arrays import Array, array_namespace, gather_rows, natural, scatter_add_rows
from ..fused import fused
from ..layers import embedding, softmax, unembedding
from ..positions import Felt, Method, Places
from ..sublayers import attention, feed_forward, normalise
from ..sublayers.attention import by_head, join, outer, permute, plus, project, summed, transpose
from .config import ModelConfig
from .decoder_only import Block, Params


class Cache(NamedTuple):
    p: Params
    tokens: Integer[Array, "B T"]
    embed: embedding.Cache
    pos_embed: Any
    ln1: normalise.Cache
    rows: Inexact[Array, "1 R D"]  # what attention reads
    q: Inexact[Array, "1 V H K"]
    k: Inexact[Array, "1 R H K"]
    v: Inexact[Array, "R H K"]
    turn: Any
    bias: Any
    pattern: Inexact[Array, "B H T"]
    z: Inexact[Array, "B 1 H K"]
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
    position, block = cfg.position_method, p.blocks[0]
    T, V = tokens.shape[1], cfg.vocab_size
    places = Places(np.full(V, T - 1), np.repeat(natural(T), V), None, cfg.causal)
    each = array_namespace(tokens).asarray(np.tile(natural(V), T)[None])

    x, c_embed = embedding.forward(p.embed, each, cfg.scale)
    x, c_pos = position.encode_x(p.pos_embed, x, places.k_ids) if position.has("embedding") else (x, None)
    rows, c_ln1 = (x, None) if cfg.norm == "post" else normalise.forward(block.ln1, x, cfg.norm_eps)
    asks = rows[:, -V:, :]
    q, k = project(asks, block.attn.W_Q, block.attn.b_Q), project(rows, block.attn.W_K, block.attn.b_K)
    v = project(rows, block.attn.W_V, block.attn.b_V)[0, ...]
    scores, q, k, c_turn, c_bias = _scores(block.attn, q, k, asks, rows, places, position)

    z, pattern = look(scores, v, tokens)
    z = z[:, None, :, :]
    out = join(z, block.attn.W_O, block.attn.b_O)

    last = gather_rows(x[0, -V:, :], tokens[:, -1:])
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
    head = p.unembed if p.unembed.W_U is not None else unembedding.tied(p.unembed, p.embed.W_E)
    logits, c_head = unembedding.forward(head, post)
    attn = (rows, q, k, v, c_turn, c_bias, pattern, z)
    return logits, Cache(p, tokens, c_embed, c_pos, c_ln1, *attn, c_ln2, c_mlp, c_final, c_head)


def backward(dlogits: Inexact[Array, "B 1 V"], c: Cache, cfg: ModelConfig) -> Params:
    """The gradient of every parameter."""
    position, p, V = cfg.position_method, c.p.blocks[0].attn, cfg.vocab_size
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

    dz = project(dmid, permute(p.W_O), None)[:, 0, :, :]
    dscores, dv = look_backward(dz, c.v, c.tokens, c.pattern)
    dv = dv[None, ...]
    dq, dk, felt, dpos = _scores_backward(dscores, c, position)

    asks = c.rows[:, -V:, :]
    d_attn = attention.Params(
        W_Q=outer(asks, dq), W_K=outer(c.rows, dk), W_V=outer(c.rows, dv), W_O=permute(outer(dmid, c.z)),
        b_Q=summed(dq, p.b_Q), b_K=summed(dk, p.b_K), b_V=summed(dv, p.b_V), b_O=summed(dmid, p.b_O),
        pos=attention.all_of(p.pos, *dpos),
    )  # fmt: skip
    drows = plus(join(dk, permute(p.W_K), None) + join(dv, permute(p.W_V), None), felt.x_k)
    dasks = plus(join(dq, permute(p.W_Q), None), felt.x_q)
    dlast = embedding.backward(dmid, embedding.Cache(c.p.embed.W_E, c.tokens[:, -1:])).W_E[None, ...]
    if cfg.norm == "post":
        dx = _add_to_last(drows, dasks + dlast)
    else:
        dx, d_ln1 = normalise.backward(_add_to_last(drows, dasks), c.ln1)
        dx = _add_to_last(dx, dlast)

    dx, d_pos = position.encode_x_backward(dx, c.pos_embed) if position.has("embedding") else (dx, None)
    d_embed = embedding.backward(dx, c.embed, cfg.scale)
    if cfg.tied != "none":
        d_embed = embedding.Params(W_E=d_embed.W_E + transpose(d_head.W_U))
        d_head = d_head._replace(W_U=None)
    return Params(d_embed, d_pos, (Block(d_ln1, d_attn, d_ln2, d_mlp),), d_final, d_head)


def _scores(
    p: attention.Params, q: Array, k: Array, asks: Array, rows: Array, places: Places, position: Method
) -> tuple[Inexact[Array, "1 H V R"], Array, Array, Any, Any]:
    """Each token that asks against each row; the queries and keys as multiplied, and the positions' caches."""
    q_turned, k_turned, c_turn = position.encode_qk(p.pos, q, k, places) if position.has("query_key") else (q, k, None)
    scores = by_head(q_turned / math.sqrt(q.shape[-1])) @ transpose(by_head(k_turned))
    bias, c_bias = position.bias(p.pos, q, k, asks, rows, places) if position.has("score") else (None, None)
    return plus(scores, bias), q_turned, k_turned, c_turn, c_bias


def _scores_backward(
    dscores: Inexact[Array, "1 H V R"], c: Cache, position: Method
) -> tuple[Array, Array, Felt, tuple[Any, Any]]:
    scale = 1 / math.sqrt(c.p.blocks[0].attn.W_Q.shape[-1])
    dq = scale * by_head(dscores @ by_head(c.k))
    dk = scale * by_head(transpose(dscores) @ by_head(c.q))
    dq, dk, d_turn = position.encode_qk_backward(dq, dk, c.turn) if position.has("query_key") else (dq, dk, None)
    felt, d_bias = position.bias_backward(dscores, c.bias) if position.has("score") else (None, None)
    felt = Felt() if felt is None else felt
    return plus(dq, felt.q), plus(dk, felt.k), felt, (d_turn, d_bias)


@fused
def look(
    scores: Inexact[Array, "1 H V R"], v: Inexact[Array, "R H K"], tokens: Integer[Array, "B T"]
) -> tuple[Inexact[Array, "B H K"], Inexact[Array, "B H T"]]:
    """Each example's z and pattern, from what it looks up."""
    xp = array_namespace(scores)
    _, H, V, R = scores.shape
    pairs = _pairs(tokens, V)
    found = xp.take(xp.reshape(scores, (H, V * R)), xp.reshape(pairs, (-1,)), axis=1)
    pattern, _ = softmax.forward(xp.permute_dims(xp.reshape(found, (H, *pairs.shape)), (2, 0, 1)))
    mixed = (pattern[:, :, s, None] * v_s for s, v_s in enumerate(_looked_up(v, tokens)))
    return sum(mixed, start=next(mixed)), pattern


@fused
def look_backward(
    dz: Inexact[Array, "B H K"],
    v: Inexact[Array, "R H K"],
    tokens: Integer[Array, "B T"],
    pattern: Inexact[Array, "B H T"],
) -> tuple[Inexact[Array, "1 H V R"], Inexact[Array, "R H K"]]:
    """∂scores and ∂v: what all who looked there send back."""
    xp = array_namespace(dz)
    (R, H, _), T = v.shape, tokens.shape[1]
    V = R // T
    dpattern = xp.stack([xp.sum(dz * v_s, axis=-1) for v_s in _looked_up(v, tokens)], axis=-1)
    dv = [scatter_add_rows(pattern[:, :, s, None] * dz, tokens[:, s], V) for s in range(T)]
    dscores = softmax.backward(dpattern, softmax.Cache(pattern))
    added = scatter_add_rows(xp.permute_dims(dscores, (2, 0, 1)), _pairs(tokens, V), V * R)
    return xp.reshape(xp.permute_dims(added, (1, 0)), (1, H, V, R)), xp.concat(dv)


def _looked_up(v: Inexact[Array, "R H K"], tokens: Integer[Array, "B T"]) -> Iterator[Inexact[Array, "B H K"]]:
    """What each example finds at its first position, at its second, …"""
    T = tokens.shape[1]
    V = v.shape[0] // T
    return (gather_rows(v[s * V : (s + 1) * V, ...], tokens[:, s]) for s in range(T))


def _pairs(tokens: Integer[Array, "B T"], V: int) -> Integer[Array, "T B"]:
    """Where (the token that asks, the row that is asked) stands among the V·R pairs."""
    xp = array_namespace(tokens)
    T = tokens.shape[1]
    first = xp.asarray(V * np.arange(T), dtype=tokens.dtype)
    return xp.permute_dims(tokens[:, -1:] * (T * V) + first + tokens, (1, 0))


def _add_to_last(x: Inexact[Array, "1 R D"], more: Inexact[Array, "1 V D"]) -> Inexact[Array, "1 R D"]:
    """x with `more` added to the rows of the last position."""
    first = x.shape[1] - more.shape[1]
    return array_namespace(x).concat([x[:, :first, :], x[:, first:, :] + more], axis=1)
