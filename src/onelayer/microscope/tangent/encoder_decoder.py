"""R{encoder-decoder Transformer}: as R{decoder-only}, twice, with R{memory} handed across and R∂memory handed back.

Forward   Rmemory = R{encoder};  each decoder block looks back, looks across (with Rmemory), thinks
Backward  R∂memory = Σ over the decoder's blocks of what R{cross-attention} sends through its keys and values

Source    models/encoder_decoder.py, differentiated once more.
"""

from typing import Any, NamedTuple

from ...arrays import Array
from ...layers import embedding as embedding_
from ...models import encoder_decoder as model
from ...models.config import ModelConfig
from ...models.decoder_only import look_mask, usual_ids
from ...models.encoder_decoder import DecoderBlock, DecoderBlockCache
from ...positions import Method, Places
from . import attention, decoder_only, feed_forward, linear, normalise
from .seen import Seen

__all__ = ["backward", "forward"]


class BlockMoved(NamedTuple):
    ln1: Any
    attn: attention.Moved
    ln_cross: Any
    cross_attn: attention.Moved
    ln2: Any
    mlp: feed_forward.Moved


class StackMoved(NamedTuple):
    pos_embed: Any
    blocks: tuple[Any, ...]
    ln_final: Any


class Moved(NamedTuple):
    encoder: StackMoved
    decoder: StackMoved
    head: linear.Moves
    y: Array


def forward(
    rp: model.Params,
    c: model.Cache,
    seen: Seen,
    cfg: ModelConfig,
    source_present: Array | None,
    source_ids: Array | None = None,
    ids: Array | None = None,
) -> tuple[Array, Moved]:
    """R of the logits. ids: where the tokens stand, as in the plain forward."""
    position = cfg.position_method
    S, T = c.encoder.embed.tokens.shape[1], c.decoder.embed.tokens.shape[1]
    source_ids = usual_ids(S, cfg) if source_ids is None else source_ids
    ids = usual_ids(T, cfg) if ids is None else ids

    inside, rtable = seen.at("encoder"), rp.encoder.embed or rp.decoder.embed
    rx, m_pos = decoder_only.enter(rtable, rp.encoder.pos_embed, c.encoder.embed, inside, source_ids, cfg)
    places = Places(source_ids, source_ids, look_mask(S, S, False, source_present, like=rx), False)
    moved = []
    for i, (block, bc) in enumerate(zip(rp.encoder.blocks, c.encoder.blocks, strict=True)):
        rx, m = decoder_only.block_forward(block, rx, S, bc, inside.at(f"blocks.{i}"), places, position, cfg)
        moved.append(m)
    rmemory, m_final = normalise.forward(rp.encoder.ln_final, rx, c.encoder.ln_final)
    encoder = StackMoved(m_pos, tuple(moved), m_final)

    inside = seen.at("decoder")
    ry, m_pos = decoder_only.enter(rp.decoder.embed, rp.decoder.pos_embed, c.decoder.embed, inside, ids, cfg)
    here = Places(ids, ids, look_mask(T, T, cfg.causal, None, like=ry), cfg.causal)
    across = Places(ids, source_ids, look_mask(S, 1, False, source_present, like=ry), False)
    moved = []
    for i, (block, bc) in enumerate(zip(rp.decoder.blocks, c.decoder.blocks, strict=True)):
        ry, m = _block_forward(block, ry, rmemory, bc, inside.at(f"blocks.{i}"), here, across, position, cfg)
        moved.append(m)
    ry, m_final = normalise.forward(rp.decoder.ln_final, ry, c.decoder.ln_final)
    rW_U = rp.unembed.W_U if rp.unembed.W_U is not None else rp.decoder.embed.W_E.T
    head = linear.Moves(c.unembed.W_U, rW_U, rp.unembed.b_U)
    decoder = StackMoved(m_pos, tuple(moved), m_final)
    return linear.forward(head, c.unembed.x, ry), Moved(encoder, decoder, head, ry)


def backward(rdlogits: Array, rp: model.Params, m: Moved, c: model.Cache, seen: Seen, cfg: ModelConfig) -> model.Params:
    """R of every parameter's gradient."""
    position = cfg.position_method
    rdy, rdW_U, rdb_U = linear.backward(rdlogits, seen.gradient("logits"), m.head, c.unembed.x, m.y)

    inside = seen.at("decoder")
    final = inside.at("ln_final")
    rdy, rd_final = normalise.backward(rdy, rp.decoder.ln_final, m.decoder.ln_final, c.decoder.ln_final, final)
    rdmemory, rd_blocks = None, []
    for i in reversed(range(len(c.decoder.blocks))):
        parts = rp.decoder.blocks[i], m.decoder.blocks[i], c.decoder.blocks[i]
        rdy, sent, rd = _block_backward(rdy, *parts, inside.at(f"blocks.{i}"), position, cfg)
        rdmemory = sent if rdmemory is None else rdmemory + sent
        rd_blocks.insert(0, rd)
    rd_target, rd_pos = decoder_only.leave(rdy, m.decoder.pos_embed, c.decoder, inside.at("blocks.0"), cfg)
    decoder = model.Decoder(rd_target, rd_pos, tuple(rd_blocks), rd_final)

    inside = seen.at("encoder")
    assert rdmemory is not None
    final = inside.at("ln_final")
    rdx, rd_final = normalise.backward(rdmemory, rp.encoder.ln_final, m.encoder.ln_final, c.encoder.ln_final, final)
    rd_blocks = []
    for i in reversed(range(len(c.encoder.blocks))):
        parts = rp.encoder.blocks[i], m.encoder.blocks[i], c.encoder.blocks[i]
        rdx, rd = decoder_only.block_backward(rdx, *parts, inside.at(f"blocks.{i}"), position, cfg)
        rd_blocks.insert(0, rd)
    rd_source, rd_pos = decoder_only.leave(rdx, m.encoder.pos_embed, c.encoder, inside.at("blocks.0"), cfg)

    if cfg.tied != "none":
        decoder = decoder._replace(embed=embedding_.Params(decoder.embed.W_E + rdW_U.T))
        rdW_U = None
    if cfg.tied == "all":
        decoder = decoder._replace(embed=embedding_.Params(decoder.embed.W_E + rd_source.W_E))
        rd_source = None
    encoder = model.Encoder(rd_source, rd_pos, tuple(rd_blocks), rd_final)
    return model.Params(encoder, decoder, rp.unembed._replace(W_U=rdW_U, b_U=rdb_U))


def _block_forward(
    rp: DecoderBlock, ry: Array, rmemory: Array, c: DecoderBlockCache, seen: Seen,
    here: Places, across: Places, position: Method, cfg: ModelConfig,
) -> tuple[Array, BlockMoved]:  # fmt: skip
    beyond, back, over = position.across(), seen.at("attn"), seen.at("cross_attn")
    if cfg.norm == "post":
        rout, m_attn = attention.forward(rp.attn, ry, ry, c.attn, back, here, position)
        rmid, m_ln1 = normalise.forward(rp.ln1, ry + rout, c.ln1)
        rout, m_cross = attention.forward(rp.cross_attn, rmid, rmemory, c.cross_attn, over, across, beyond)
        rmet, m_lnx = normalise.forward(rp.ln_cross, rmid + rout, c.ln_cross)
        rout, m_mlp = feed_forward.forward(rp.mlp, rmet, c.mlp)
        rpost, m_ln2 = normalise.forward(rp.ln2, rmet + rout, c.ln2)
    else:
        ra, m_ln1 = normalise.forward(rp.ln1, ry, c.ln1)
        rout, m_attn = attention.forward(rp.attn, ra, ra, c.attn, back, here, position)
        rmid = ry + rout
        ra, m_lnx = normalise.forward(rp.ln_cross, rmid, c.ln_cross)
        rout, m_cross = attention.forward(rp.cross_attn, ra, rmemory, c.cross_attn, over, across, beyond)
        rmet = rmid + rout
        ra, m_ln2 = normalise.forward(rp.ln2, rmet, c.ln2)
        rout, m_mlp = feed_forward.forward(rp.mlp, ra, c.mlp)
        rpost = rmet + rout
    return rpost, BlockMoved(m_ln1, m_attn, m_lnx, m_cross, m_ln2, m_mlp)


def _block_backward(
    rdpost: Array, rp: DecoderBlock, m: BlockMoved, c: DecoderBlockCache, seen: Seen, position: Method, cfg: ModelConfig
) -> tuple[Array, Array, DecoderBlock]:
    """R∂y, R∂memory and R of the block's gradients."""
    ln1, attn, lnx, cross, ln2, mlp = (seen.at(name) for name in DecoderBlock._fields)
    dattn, dcross, dmlp = (seen.gradient(f"hook_{name}_out") for name in ("attn", "cross", "mlp"))
    beyond = position.across()
    if cfg.norm == "post":
        rdsum, rd_ln2 = normalise.backward(rdpost, rp.ln2, m.ln2, c.ln2, ln2)
        rda, rd_mlp = feed_forward.backward(rdsum, dmlp, rp.mlp, m.mlp, c.mlp, mlp)
        rdsum, rd_lnx = normalise.backward(rdsum + rda, rp.ln_cross, m.ln_cross, c.ln_cross, lnx)
        rda, rdmemory, rd_cross = attention.backward(
            rdsum, dcross, rp.cross_attn, m.cross_attn, c.cross_attn, cross, beyond
        )
        rdsum, rd_ln1 = normalise.backward(rdsum + rda, rp.ln1, m.ln1, c.ln1, ln1)
        rdy_q, rdy_k, rd_attn = attention.backward(rdsum, dattn, rp.attn, m.attn, c.attn, attn, position)
        rdy = rdsum + rdy_q + rdy_k
    else:
        rda, rd_mlp = feed_forward.backward(rdpost, dmlp, rp.mlp, m.mlp, c.mlp, mlp)
        rda, rd_ln2 = normalise.backward(rda, rp.ln2, m.ln2, c.ln2, ln2)
        rdmet = rdpost + rda
        rda, rdmemory, rd_cross = attention.backward(
            rdmet, dcross, rp.cross_attn, m.cross_attn, c.cross_attn, cross, beyond
        )
        rda, rd_lnx = normalise.backward(rda, rp.ln_cross, m.ln_cross, c.ln_cross, lnx)
        rdmid = rdmet + rda
        rdy_q, rdy_k, rd_attn = attention.backward(rdmid, dattn, rp.attn, m.attn, c.attn, attn, position)
        rda, rd_ln1 = normalise.backward(rdy_q + rdy_k, rp.ln1, m.ln1, c.ln1, ln1)
        rdy = rdmid + rda
    return rdy, rdmemory, DecoderBlock(rd_ln1, rd_attn, rd_lnx, rd_cross, rd_ln2, rd_mlp)
