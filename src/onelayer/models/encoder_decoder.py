"""The encoder-decoder Transformer: a source is read in full, then a target is written with the source in view.

Shapes    source [B S]     target [B T]     memory [B S D]: what the encoder hands over     logits [B T V]

Forward   encoder   x = embed(source), positions added; each block   mid  = x + attention(x, x)
                                                                     post = mid + feed_forward(mid)
                    memory = the last post
          decoder   y = embed(target), positions added; each block   mid   = y + attention(y, y), looking back only
                                                                     cross = mid + attention(mid, memory)
                                                                     post  = cross + feed_forward(cross)
          logits = unembed(the last post)
          norm "post" (Vaswani 2017): every sum is normed.   norm "pre": each sublayer reads norm(·), and memory and the
          last post are normed once more.                    norm "none": as written.

Backward  ∂a is ∂loss/∂a: the same wiring, upwards
          ∂memory = Σ over the decoder's blocks of what cross-attention sends back through its keys and values;
          from there the encoder's backward begins. Every sum splits its gradient between skip and sublayer.

Taps      as in the decoder-only model, under encoder. and decoder.; the cross-attention is decoder.blocks.0.cross_attn.

Source    Vaswani et al. 2017, arXiv:1706.03762, figure 1; Alammar, The Illustrated Transformer, 2018.
          Every step: docs/derivations/models.md
"""

from typing import Any, NamedTuple

from jaxtyping import Inexact, Integer

from ..arrays import Array, Tap, at_scope, keep
from ..fused import fused
from ..layers import embedding, unembedding
from ..positions import Method, Places
from ..sublayers import attention, feed_forward, normalise
from . import decoder_only
from .config import ModelConfig
from .decoder_only import Block, look_mask, usual_ids
from .first import FIRST, FIRST_BACKWARD, First, FirstBackward
from .halves import Look, LookBackward, look, look_backward, think, think_backward
from .initial import Drawing


class DecoderBlock(NamedTuple):
    ln1: normalise.Params
    attn: attention.Params
    ln_cross: normalise.Params
    cross_attn: attention.Params
    ln2: normalise.Params
    mlp: feed_forward.Params


class Encoder(NamedTuple):
    embed: embedding.Params | None  # None: the decoder's table serves both (tied "all")
    pos_embed: Any
    blocks: tuple[Block, ...]
    ln_final: normalise.Params


class Decoder(NamedTuple):
    embed: embedding.Params
    pos_embed: Any
    blocks: tuple[DecoderBlock, ...]
    ln_final: normalise.Params


class Params(NamedTuple):
    encoder: Encoder
    decoder: Decoder
    unembed: unembedding.Params


class DecoderBlockCache(NamedTuple):
    ln1: normalise.Cache
    attn: attention.Cache
    ln_cross: normalise.Cache
    cross_attn: attention.Cache
    ln2: normalise.Cache
    mlp: feed_forward.Cache


class StackCache(NamedTuple):
    embed: embedding.Cache
    pos_embed: Any
    blocks: tuple[Any, ...]
    ln_final: normalise.Cache


class Cache(NamedTuple):
    encoder: StackCache
    decoder: StackCache
    unembed: unembedding.Cache


def init(cfg: ModelConfig, seed: int | None) -> Params:
    """The first weights, NumPy float64; cast them to the run's precision. seed None: their shapes, without memory."""
    draw = Drawing(cfg, seed)
    there, here = cfg.size(causal=False, source=True), cfg.size()
    in_attention = cfg.position_method.in_attention

    def encoder_block(name: str) -> Block:
        attn = draw.attention(f"{name}.attn", there)
        return Block(draw.norm(), attn, draw.norm(), draw.feed_forward(f"{name}.mlp"))

    def decoder_block(name: str) -> DecoderBlock:
        attn = draw.attention(f"{name}.attn", here)
        there, crosses = cfg.size(causal=False, cross=True), cfg.position_method.crosses
        cross = draw.attention(f"{name}.cross_attn", there, has_position=crosses)
        return DecoderBlock(draw.norm(), attn, draw.norm(), cross, draw.norm(), draw.feed_forward(f"{name}.mlp"))

    def final() -> normalise.Params:
        return draw.norm() if cfg.ends_normed else None

    source_vocab = cfg.source_vocab_size or cfg.vocab_size
    return Params(
        encoder=Encoder(
            embed=None if cfg.tied == "all" else draw.embedding("encoder.embed", source_vocab),
            pos_embed=None if in_attention else draw.position("encoder.pos_embed", there),
            blocks=tuple(encoder_block(f"encoder.blocks.{i}") for i in range(cfg.n_encoder_layers or cfg.n_layers)),
            ln_final=final(),
        ),
        decoder=Decoder(
            embed=draw.embedding("decoder.embed", cfg.vocab_size),
            pos_embed=None if in_attention else draw.position("decoder.pos_embed", here),
            blocks=tuple(decoder_block(f"decoder.blocks.{i}") for i in range(cfg.n_layers)),
            ln_final=final(),
        ),
        unembed=draw.unembedding("unembed"),
    )


def forward(
    p: Params,
    source: Integer[Array, "B S"],
    target: Integer[Array, "B T"],
    cfg: ModelConfig,
    *,
    source_present: Array | None = None,
    source_ids: Array | None = None,
    target_ids: Array | None = None,
    first: tuple[First, First] = (FIRST, FIRST),
    tap: Tap = keep,
) -> tuple[Inexact[Array, "B T V"], Cache]:
    """Logits at every target position. source_present [B S]: False on padding.

    first: how encoder and decoder begin (first_attention.py has a shortcut).
    """
    memory, c_encoder = encode(p, source, cfg, present=source_present, ids=source_ids, first=first[0], tap=tap)
    y, c_decoder = decode(
        p, target, memory, cfg,
        source_present=source_present, ids=target_ids, source_ids=source_ids, first=first[1], tap=tap,
    )  # fmt: skip
    head = p.unembed if p.unembed.W_U is not None else unembedding.tied(p.unembed, p.decoder.embed.W_E)
    logits, c_head = unembedding.forward(head, y)
    return tap("logits", logits), Cache(c_encoder, c_decoder, c_head)


def encode(
    p: Params,
    source: Integer[Array, "B S"],
    cfg: ModelConfig,
    *,
    present: Array | None = None,
    ids: Array | None = None,
    first: First = FIRST,
    tap: Tap = keep,
) -> tuple[Inexact[Array, "B S D"], StackCache]:
    """The encoder: source -> memory."""
    tap, position = at_scope(tap, "encoder"), cfg.position_method
    S = source.shape[1]
    ids = usual_ids(S, cfg) if ids is None else ids
    x, c_embed, c_pos = first.enter(p.encoder, p.encoder.embed or p.decoder.embed, source, ids, cfg, tap)
    places = Places(ids, ids, look_mask(S, S, False, present, like=x), causal=False)
    caches = []
    for i, block in enumerate(p.encoder.blocks):
        inside, around = at_scope(tap, f"blocks.{i}"), look if i else first.look
        x, c = decoder_only.block_forward(block, x, S, places, position, cfg, inside, around)
        caches.append(c)
    memory, c_final = normalise.forward(p.encoder.ln_final, x, cfg.norm_eps, at_scope(tap, "ln_final"))
    return tap("hook_memory", memory), StackCache(c_embed, c_pos, tuple(caches), c_final)


def decode(
    p: Params,
    target: Integer[Array, "B T"],
    memory: Inexact[Array, "B S D"],
    cfg: ModelConfig,
    *,
    source_present: Array | None = None,
    ids: Array | None = None,
    source_ids: Array | None = None,
    first: First = FIRST,
    tap: Tap = keep,
) -> tuple[Inexact[Array, "B T D"], StackCache]:
    """The decoder, up to what the unembedding reads."""
    tap, position = at_scope(tap, "decoder"), cfg.position_method
    T, S = target.shape[1], memory.shape[1]
    ids = usual_ids(T, cfg) if ids is None else ids
    source_ids = usual_ids(S, cfg) if source_ids is None else source_ids
    y, c_embed, c_pos = first.enter(p.decoder, p.decoder.embed, target, ids, cfg, tap)
    here = Places(ids, ids, look_mask(T, T, cfg.causal, None, like=y), cfg.causal)
    across = Places(ids, source_ids, look_mask(S, 1, False, source_present, like=y), causal=False)
    caches = []
    for i, block in enumerate(p.decoder.blocks):
        inside, around = at_scope(tap, f"blocks.{i}"), look if i else first.look
        y, c = block_forward(block, y, memory, here, across, position, cfg, inside, around)
        caches.append(c)
    y, c_final = normalise.forward(p.decoder.ln_final, y, cfg.norm_eps, at_scope(tap, "ln_final"))
    return y, StackCache(c_embed, c_pos, tuple(caches), c_final)


def backward(
    dlogits: Inexact[Array, "B T V"],
    c: Cache,
    cfg: ModelConfig,
    *,
    first: FirstBackward = FIRST_BACKWARD,
    tap: Tap = keep,
) -> Params:
    """The gradient of every parameter."""
    position = cfg.position_method
    dy, d_head = unembedding.backward(tap("logits", dlogits), c.unembed)

    into = at_scope(tap, "decoder")
    dy, d_final = normalise.backward(dy, c.decoder.ln_final, at_scope(into, "ln_final"))
    dmemory, d_blocks = None, []
    for i, block in reversed(list(enumerate(c.decoder.blocks))):
        inside, around = at_scope(into, f"blocks.{i}"), look_backward if i else first.look
        dy, sent_back, d = block_backward(dy, block, position, cfg, inside, around)
        dmemory = sent_back if dmemory is None else dmemory + sent_back
        d_blocks.insert(0, d)
    d_target, d_pos = first.leave(dy, c.decoder, cfg, into)
    decoder = Decoder(d_target, d_pos, tuple(d_blocks), d_final)

    into = at_scope(tap, "encoder")
    dx, d_final = normalise.backward(into("hook_memory", dmemory), c.encoder.ln_final, at_scope(into, "ln_final"))
    d_blocks = []
    for i, block in reversed(list(enumerate(c.encoder.blocks))):
        inside, around = at_scope(into, f"blocks.{i}"), look_backward if i else first.look
        dx, d = decoder_only.block_backward(dx, block, position, cfg, inside, around)
        d_blocks.insert(0, d)
    d_source, d_pos = first.leave(dx, c.encoder, cfg, into)

    if cfg.tied != "none":
        d_tied = tap("unembed.route_tied", d_head.W_U).T
        decoder = decoder._replace(embed=embedding.Params(W_E=decoder.embed.W_E + d_tied))
        d_head = d_head._replace(W_U=None)
    if cfg.tied == "all":
        decoder = decoder._replace(embed=embedding.Params(W_E=decoder.embed.W_E + d_source.W_E))
        d_source = None
    return Params(Encoder(d_source, d_pos, tuple(d_blocks), d_final), decoder, d_head)


def block_forward(
    p: DecoderBlock,
    y: Inexact[Array, "B T D"],
    memory: Inexact[Array, "B S D"],
    here: Places,
    across: Places,
    position: Method,
    cfg: ModelConfig,
    tap: Tap = keep,
    look: Look = look,
) -> tuple[Inexact[Array, "B T D"], DecoderBlockCache]:
    """One block of the decoder: look back, look across, think."""
    mid, (c_ln1, c_attn) = look(p, tap("hook_resid_pre", y), y.shape[1], here, position, cfg, tap)
    met, (c_lnx, c_cross) = cross(p, mid, memory, across, position.across(), cfg, tap)
    post, (c_ln2, c_mlp) = think(p, met, cfg, tap)
    return tap("hook_resid_post", post), DecoderBlockCache(c_ln1, c_attn, c_lnx, c_cross, c_ln2, c_mlp)


def block_backward(
    dpost: Inexact[Array, "B T D"],
    c: DecoderBlockCache,
    position: Method,
    cfg: ModelConfig,
    tap: Tap = keep,
    look: LookBackward = look_backward,
) -> tuple[Inexact[Array, "B T D"], Inexact[Array, "B S D"], DecoderBlock]:
    """∂y, ∂memory and the block's gradients."""
    dmet, (d_ln2, d_mlp) = think_backward(tap("hook_resid_post", dpost), (c.ln2, c.mlp), cfg, tap)
    dmid, dmemory, (d_lnx, d_cross) = cross_backward(dmet, (c.ln_cross, c.cross_attn), position.across(), cfg, tap)
    dy, (d_ln1, d_attn) = look(dmid, (c.ln1, c.attn), position, cfg, tap)
    return tap("hook_resid_pre", dy), dmemory, DecoderBlock(d_ln1, d_attn, d_lnx, d_cross, d_ln2, d_mlp)


@fused
def cross(
    p: DecoderBlock,
    mid: Inexact[Array, "B T D"],
    memory: Inexact[Array, "B S D"],
    across: Places,
    position: Method,
    cfg: ModelConfig,
    tap: Tap = keep,
) -> tuple[Inexact[Array, "B T D"], tuple[Any, Any]]:
    """mid -> cross: attention to the memory, its norm, and the sum with the stream."""
    if cfg.norm == "post":
        out, c_cross = attention.forward(p.cross_attn, mid, memory, across, position, at_scope(tap, "cross_attn"))
        out = tap("hook_cross_out", out)
        met, c_lnx = normalise.of_sum(p.ln_cross, mid, out, cfg.norm_eps, at_scope(tap, "ln_cross"))
    else:
        a, c_lnx = normalise.forward(p.ln_cross, mid, cfg.norm_eps, at_scope(tap, "ln_cross"))
        out, c_cross = attention.forward(p.cross_attn, a, memory, across, position, at_scope(tap, "cross_attn"))
        met = mid + tap("hook_cross_out", out)
    return tap("hook_resid_cross", met), (c_lnx, c_cross)


@fused
def cross_backward(
    dmet: Inexact[Array, "B T D"], c: tuple[Any, Any], position: Method, cfg: ModelConfig, tap: Tap = keep
) -> tuple[Inexact[Array, "B T D"], Inexact[Array, "B S D"], tuple[normalise.Params, attention.Params]]:
    """∂mid, ∂memory, and the gradients of ln_cross and cross_attn."""
    (c_lnx, c_cross), dmet = c, tap("hook_resid_cross", dmet)
    if cfg.norm == "post":
        dskip, d_lnx = normalise.backward(dmet, c_lnx, at_scope(tap, "ln_cross"))
        dout = tap("hook_cross_out", dskip)
        through, dmemory, d_cross = attention.backward(dout, c_cross, position, at_scope(tap, "cross_attn"))
    else:
        dout, dskip = tap("hook_cross_out", dmet), dmet
        da, dmemory, d_cross = attention.backward(dout, c_cross, position, at_scope(tap, "cross_attn"))
        through, d_lnx = normalise.backward(da, c_lnx, at_scope(tap, "ln_cross"))
    return tap("route_skip_cross", dskip) + tap("route_cross", through), dmemory, (d_lnx, d_cross)
