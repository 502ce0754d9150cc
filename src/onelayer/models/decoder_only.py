"""The decoder-only Transformer: one stream of residuals per position, which every sublayer reads and adds to.

Shapes    tokens [B T]     x, mid, post [B T D]     logits [B R V], R the positions that are read (all, or the last n)

Forward   x = embed(tokens), positions added                         hook_embed, hook_resid_pre
          each block      mid  = x + attention(x)                    hook_attn_out, hook_resid_mid
                          post = mid + feed_forward(mid)             hook_mlp_out,  hook_resid_post
          logits = unembed(post)
          norm "pre":  each sublayer reads norm(x), and the last post is normed once more (ln_final)
          norm "post": mid = norm(x + attention(x)), post = norm(mid + feed_forward(mid))
          final_norm puts ln_final after either, or takes it away

Backward  ∂a is ∂loss/∂a: the same wiring, upwards
          ∂mid = ∂post + through feed_forward        route_skip_mlp + route_mlp
          ∂x   = ∂mid  + through attention           route_skip_attn + (route_q, route_k, route_v, inside)
          Two roads lead back from every sum, and their gradients add; that is what the residual stream is.

Read      Where the loss reads only the last n positions, the last block asks, feeds forward and unembeds there alone:
          its other queries would be computed and thrown away. Keys and values are needed everywhere.

Source    Radford et al. 2018 (decoder only); Vaswani et al. 2017, arXiv:1706.03762 (norm post);
          Xiong et al. 2020, arXiv:2002.04745 (norm pre). Every step: docs/derivations/models.md
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Inexact, Integer

from ..arrays import Array, Tap, array_namespace, at_scope, keep, natural
from ..errors import BadInput
from ..layers import embedding, unembedding
from ..positions import Method, Places
from ..sublayers import attention, feed_forward, normalise
from .config import ModelConfig
from .first import FIRST, FIRST_BACKWARD, First, FirstBackward
from .halves import Look, LookBackward, look, look_backward, think, think_backward
from .initial import Drawing


class Block(NamedTuple):
    ln1: normalise.Params
    attn: attention.Params
    ln2: normalise.Params
    mlp: feed_forward.Params


class Params(NamedTuple):
    embed: embedding.Params
    pos_embed: Any
    blocks: tuple[Block, ...]
    ln_final: normalise.Params
    unembed: unembedding.Params


class BlockCache(NamedTuple):
    ln1: normalise.Cache
    attn: attention.Cache
    ln2: normalise.Cache
    mlp: feed_forward.Cache


class Cache(NamedTuple):
    embed: embedding.Cache
    pos_embed: Any
    blocks: tuple[BlockCache, ...]
    ln_final: normalise.Cache
    unembed: unembedding.Cache


def init(cfg: ModelConfig, seed: int | None) -> Params:
    """The first weights, NumPy float64; cast them to the run's precision. seed None: their shapes, without memory."""
    draw = Drawing(cfg, seed)
    in_attention = cfg.position_method.in_attention
    return Params(
        embed=draw.embedding("embed", cfg.vocab_size),
        pos_embed=None if in_attention else draw.position("pos_embed", cfg.size()),
        blocks=tuple(
            Block(
                draw.norm(),
                draw.attention(f"blocks.{i}.attn", cfg.size()),
                draw.norm(),
                draw.feed_forward(f"blocks.{i}.mlp"),
            )
            for i in range(cfg.n_layers)
        ),
        ln_final=draw.norm() if cfg.ends_normed else None,
        unembed=draw.unembedding("unembed"),
    )


def forward(
    p: Params,
    tokens: Integer[Array, "B T"],
    cfg: ModelConfig,
    *,
    read: int | None = None,
    ids: Array | None = None,
    present: Array | None = None,
    first: First = FIRST,
    tap: Tap = keep,
) -> tuple[Inexact[Array, "B R V"], Cache]:
    """Logits of the last `read` positions (None: of all).

    ids [T] or [B T]: where the tokens stand (0, 1, 2 … where None). present [B T]: False on padding, which no one sees.
    first: how the stream begins (first_attention.py has a shortcut).
    """
    position = cfg.position_method
    T = tokens.shape[1]
    stand: Array = usual_ids(T, cfg) if ids is None else ids
    x, c_embed, c_pos = first.enter(p, p.embed, tokens, stand, cfg, tap)

    caches = []
    for i, block in enumerate(p.blocks):
        last = i == len(p.blocks) - 1
        n = read if last and read is not None else T
        places = Places(stand[..., T - n :], stand, look_mask(T, n, cfg.causal, present, like=x), cfg.causal)
        inside, around = at_scope(tap, f"blocks.{i}"), look if i else first.look
        x, c = block_forward(block, x, n, places, position, cfg, inside, around)
        caches.append(c)

    x, c_final = normalise.forward(p.ln_final, x, cfg.norm_eps, at_scope(tap, "ln_final"))
    head = p.unembed if p.unembed.W_U is not None else unembedding.tied(p.unembed, p.embed.W_E)
    logits, c_head = unembedding.forward(head, x)
    return tap("logits", logits), Cache(c_embed, c_pos, tuple(caches), c_final, c_head)


def backward(
    dlogits: Inexact[Array, "B R V"],
    c: Cache,
    cfg: ModelConfig,
    *,
    first: FirstBackward = FIRST_BACKWARD,
    tap: Tap = keep,
) -> Params:
    """The gradient of every parameter."""
    position = cfg.position_method
    dx, d_head = unembedding.backward(tap("logits", dlogits), c.unembed)
    dx, d_final = normalise.backward(dx, c.ln_final, at_scope(tap, "ln_final"))

    d_blocks = []
    for i, block in reversed(list(enumerate(c.blocks))):
        inside, around = at_scope(tap, f"blocks.{i}"), look_backward if i else first.look
        dx, d = block_backward(dx, block, position, cfg, inside, around)
        d_blocks.insert(0, d)

    d_embed, d_pos = first.leave(dx, c, cfg, tap)
    if cfg.tied != "none":
        d_embed = embedding.Params(W_E=d_embed.W_E + tap("unembed.route_tied", d_head.W_U).T)
        d_head = d_head._replace(W_U=None)
    return Params(d_embed, d_pos, tuple(d_blocks), d_final, d_head)


def block_forward(
    p: Block, x: Array, n: int, places: Places, position: Method, cfg: ModelConfig, tap: Tap = keep, look: Look = look
) -> tuple[Inexact[Array, "B n D"], BlockCache]:
    """One block, asked at the last n positions: look around, then think."""
    mid, (c_ln1, c_attn) = look(p, tap("hook_resid_pre", x), n, places, position, cfg, tap)
    post, (c_ln2, c_mlp) = think(p, mid, cfg, tap)
    return tap("hook_resid_post", post), BlockCache(c_ln1, c_attn, c_ln2, c_mlp)


def block_backward(
    dpost: Inexact[Array, "B n D"],
    c: BlockCache,
    position: Method,
    cfg: ModelConfig,
    tap: Tap = keep,
    look: LookBackward = look_backward,
) -> tuple[Inexact[Array, "B T D"], Block]:
    dmid, (d_ln2, d_mlp) = think_backward(tap("hook_resid_post", dpost), (c.ln2, c.mlp), cfg, tap)
    dx, (d_ln1, d_attn) = look(dmid, (c.ln1, c.attn), position, cfg, tap)
    return tap("hook_resid_pre", dx), Block(d_ln1, d_attn, d_ln2, d_mlp)


def usual_ids(n: int, cfg: ModelConfig) -> Array:
    """0, 1, 2 … where the config numbers places so; BadInput where the ids would have to be drawn."""
    if cfg.position_ids != "sequential":
        raise BadInput(
            f"position_ids='{cfg.position_ids}' are drawn for each batch; give them to forward: "
            "ids=cfg.numbering.draw(tokens, rng)"
        )
    return natural(n)


def _looking_back(T: int, xp: Any) -> Array:
    """[t, s]: whether s ≤ t. On NumPy it is a view of 2T − 1 numbers: long contexts must not pay T² for it."""
    if isinstance(xp.arange(1), np.ndarray):
        past = np.arange(2 * T - 1) < T
        return np.lib.stride_tricks.sliding_window_view(past, T)[::-1]
    return xp.arange(T)[:, None] >= xp.arange(T)[None, :]


def look_mask(T: int, n: int, causal: bool, present: Array | None, like: Array) -> Array | None:
    """Which of T keys the last n of T queries may look at: bool [1 or B, 1, 1 or n, T]; None where all may be seen."""
    xp = array_namespace(like)
    mask = None
    if causal and n > 1:
        mask = xp.asarray(_looking_back(T, xp)[None, None, T - n :, :])
    if present is not None:
        padding = xp.astype(present, xp.bool)[:, None, None, :]
        mask = padding if mask is None else xp.logical_and(mask, padding)
    return mask
