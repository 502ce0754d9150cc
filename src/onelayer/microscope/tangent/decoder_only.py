"""R{decoder-only Transformer}: R is linear, so it runs along the residual stream as the stream itself does.

Forward   Rmid = Rx + R{attention}(Rx)      Rpost = Rmid + R{feed-forward}(Rmid)      with R{norm} where a norm stands
Backward  R∂mid = R∂post + through R{feed-forward};  R∂x = R∂mid + through R{attention};  then R{embedding}
          A tied table gathers R∂W_U and R∂W_E.

Source    models/decoder_only.py, differentiated once more.
"""

from typing import Any, NamedTuple

from ...arrays import Array
from ...layers import embedding as embedding_
from ...models import decoder_only as model
from ...models.config import ModelConfig
from ...models.decoder_only import Block, BlockCache, look_mask, usual_ids
from ...models.halves import add_last
from ...positions import Method, Places
from . import attention, embedding, feed_forward, linear, normalise, positions
from .seen import Seen

__all__ = ["backward", "block_backward", "block_forward", "forward"]


class BlockMoved(NamedTuple):
    ln1: Any
    attn: attention.Moved
    ln2: Any
    mlp: feed_forward.Moved


class Moved(NamedTuple):
    pos_embed: Any
    blocks: tuple[BlockMoved, ...]
    ln_final: Any
    head: linear.Moves
    x: Array  # what the unembedding reads


def forward(
    rp: model.Params, c: model.Cache, seen: Seen, cfg: ModelConfig, ids: Array | None = None
) -> tuple[Array, Moved]:
    """R of the logits. ids: where the tokens stand, as in the plain forward."""
    position, T = cfg.position_method, c.embed.tokens.shape[1]
    stand: Array = usual_ids(T, cfg) if ids is None else ids
    rx, m_pos = enter(rp.embed, rp.pos_embed, c.embed, seen, stand, cfg)
    moved = []
    for i, (block, bc) in enumerate(zip(rp.blocks, c.blocks, strict=True)):
        n = bc.attn.x_q.shape[1]
        places = Places(stand[..., T - n :], stand, look_mask(T, n, cfg.causal, None, like=rx), cfg.causal)
        rx, m = block_forward(block, rx, n, bc, seen.at(f"blocks.{i}"), places, position, cfg)
        moved.append(m)
    rx, m_final = normalise.forward(rp.ln_final, rx, c.ln_final)
    rW_U = rp.unembed.W_U if rp.unembed.W_U is not None else rp.embed.W_E.T
    head = linear.Moves(c.unembed.W_U, rW_U, rp.unembed.b_U)
    return linear.forward(head, c.unembed.x, rx), Moved(m_pos, tuple(moved), m_final, head, rx)


def backward(rdlogits: Array, rp: model.Params, m: Moved, c: model.Cache, seen: Seen, cfg: ModelConfig) -> model.Params:
    """R of every parameter's gradient."""
    rdx, rdW_U, rdb_U = linear.backward(rdlogits, seen.gradient("logits"), m.head, c.unembed.x, m.x)
    rdx, rd_final = normalise.backward(rdx, rp.ln_final, m.ln_final, c.ln_final, seen.at("ln_final"))
    rd_blocks = []
    for i in reversed(range(len(c.blocks))):
        within = seen.at(f"blocks.{i}")
        rdx, rd = block_backward(rdx, rp.blocks[i], m.blocks[i], c.blocks[i], within, cfg.position_method, cfg)
        rd_blocks.insert(0, rd)
    rd_embed, rd_pos = leave(rdx, m.pos_embed, c, seen.at("blocks.0"), cfg)
    if cfg.tied != "none":
        rd_embed, rdW_U = embedding_.Params(rd_embed.W_E + rdW_U.T), None
    return model.Params(rd_embed, rd_pos, tuple(rd_blocks), rd_final, rp.unembed._replace(W_U=rdW_U, b_U=rdb_U))


def enter(
    rp: embedding_.Params, rpos: Any, c: embedding_.Cache, seen: Seen, ids: Array, cfg: ModelConfig
) -> tuple[Array, Any]:
    """R of the first residual stream; what the positions leave."""
    position = cfg.position_method
    rx = embedding.forward(rp, c.tokens, cfg.scale)
    if not position.has("embedding"):
        return rx, None
    p = seen.values.get(f"{seen.scope}pos_embed")
    added, m_pos = positions.stage_forward(position, "embedding", p, rpos, (seen.value("hook_embed"),), (rx,), ids)
    assert added is not None
    return added[0], m_pos


def leave(rdx: Array, m_pos: Any, c: Any, first: Seen, cfg: ModelConfig) -> tuple[embedding_.Params, Any]:
    """R of the embedding's and of the positions' gradients. first: the first block, whose input's gradient is read."""
    position, rd_pos = cfg.position_method, None
    if position.has("embedding"):
        dx = first.gradient("hook_resid_pre")
        rdx, rd_pos = positions.stage_backward(position, "embedding", (rdx,), (dx,), c.pos_embed, m_pos)
    return embedding.backward(rdx, c.embed, cfg.scale), rd_pos


def block_forward(
    rp: Block, rx: Array, n: int, c: BlockCache, seen: Seen, places: Places, position: Method, cfg: ModelConfig
) -> tuple[Array, BlockMoved]:
    skip, within = rx.shape[1] - n, seen.at("attn")
    if cfg.norm == "post":
        rout, m_attn = attention.forward(rp.attn, rx[:, skip:], rx, c.attn, within, places, position)
        rmid, m_ln1 = normalise.forward(rp.ln1, rx[:, skip:] + rout, c.ln1)
        rout, m_mlp = feed_forward.forward(rp.mlp, rmid, c.mlp)
        rpost, m_ln2 = normalise.forward(rp.ln2, rmid + rout, c.ln2)
    else:
        ra, m_ln1 = normalise.forward(rp.ln1, rx, c.ln1)
        rout, m_attn = attention.forward(rp.attn, ra[:, skip:], ra, c.attn, within, places, position)
        rmid = rx[:, skip:] + rout
        ra, m_ln2 = normalise.forward(rp.ln2, rmid, c.ln2)
        rout, m_mlp = feed_forward.forward(rp.mlp, ra, c.mlp)
        rpost = rmid + rout
    return rpost, BlockMoved(m_ln1, m_attn, m_ln2, m_mlp)


def block_backward(
    rdpost: Array, rp: Block, m: BlockMoved, c: BlockCache, seen: Seen, position: Method, cfg: ModelConfig
) -> tuple[Array, Block]:
    ln1, attn, ln2, mlp = (seen.at(name) for name in ("ln1", "attn", "ln2", "mlp"))
    dout_attn, dout_mlp = seen.gradient("hook_attn_out"), seen.gradient("hook_mlp_out")
    if cfg.norm == "post":
        rdsum, rd_ln2 = normalise.backward(rdpost, rp.ln2, m.ln2, c.ln2, ln2)
        rdm, rd_mlp = feed_forward.backward(rdsum, dout_mlp, rp.mlp, m.mlp, c.mlp, mlp)
        rdsum, rd_ln1 = normalise.backward(rdsum + rdm, rp.ln1, m.ln1, c.ln1, ln1)
        rdx_q, rdx_k, rd_attn = attention.backward(rdsum, dout_attn, rp.attn, m.attn, c.attn, attn, position)
        rdx = add_last(rdx_k, rdsum + rdx_q)
    else:
        rdm, rd_mlp = feed_forward.backward(rdpost, dout_mlp, rp.mlp, m.mlp, c.mlp, mlp)
        rdm, rd_ln2 = normalise.backward(rdm, rp.ln2, m.ln2, c.ln2, ln2)
        rdmid = rdpost + rdm
        rdx_q, rdx_k, rd_attn = attention.backward(rdmid, dout_attn, rp.attn, m.attn, c.attn, attn, position)
        rdx, rd_ln1 = normalise.backward(add_last(rdx_k, rdx_q), rp.ln1, m.ln1, c.ln1, ln1)
        rdx = add_last(rdx, rdmid)
    return rdx, Block(rd_ln1, rd_attn, rd_ln2, rd_mlp)
