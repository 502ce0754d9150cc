"""Writing with a memory, encoder-decoder: the source is read once, and the target's earlier tokens are kept.

Shapes    source [B S]     memory [B S D]     tokens [R n]: the new target tokens     k v [R T H K], of the T so far
          R = B w: each source is being answered w times, its answers next to each other (w = 1 but in a beam)

Start     memory = encode(source); each cross-attention's keys and values are made of it, once and for all
Step      as in kv_cache.py; between looking back and thinking each block looks across, at the keys kept from the start.
          The w answers to a source ask its keys together, as w n queries of one sequence: across, no query hangs on
          another, and keys and values need not be kept w times.

Source    kv_cache.py; the wiring is that of models/encoder_decoder.py.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Inexact, Integer

from ..arrays import Array, array_namespace
from ..errors import BadInput
from ..layers import embedding, unembedding
from ..models import encoder_decoder
from ..models.config import ModelConfig
from ..models.decoder_only import look_mask, usual_ids
from ..models.encoder_decoder import DecoderBlock, Params
from ..positions import Method, Places
from ..sublayers import attention, feed_forward, normalise
from .kv_cache import Kept, attend_and_keep, nothing_kept, rows_of

__all__ = ["CrossedCache", "advance", "generate", "start", "take"]


class CrossedCache(NamedTuple):
    layers: tuple[Kept, ...]  # of the target so far
    sources: tuple[Kept, ...]  # of the memory
    source_present: Array | None

    @property
    def length(self) -> int:
        """T."""
        return self.layers[0].k.shape[1]


def start(p: Params, source: Integer[Array, "B S"], cfg: ModelConfig, present: Array | None = None) -> CrossedCache:
    """The cache before the first target token. present [B S]: False on padding."""
    if not cfg.causal:
        raise BadInput(
            "a decoder that looks ahead (causal=False) has no cache: a new token changes what came before it"
        )
    memory, _ = encoder_decoder.encode(p, source, cfg, present=present)
    layers = tuple(nothing_kept(memory, cfg) for _ in p.decoder.blocks)
    looks = cfg.position_method.across().has("score")
    sources = tuple(
        Kept(
            attention.project(memory, block.cross_attn.W_K, block.cross_attn.b_K),
            attention.project(memory, block.cross_attn.W_V, block.cross_attn.b_V),
            memory if looks else None,
        )
        for block in p.decoder.blocks
    )
    return CrossedCache(layers, sources, present)


def advance(
    p: Params, tokens: Integer[Array, "R n"], kept: CrossedCache, cfg: ModelConfig
) -> tuple[Inexact[Array, "R 1 V"], CrossedCache]:
    """Read n more target tokens: the logits of the last one, and the cache that holds them too.

    R is B at first; after `take` it may be a multiple of it.
    """
    position, n = cfg.position_method, tokens.shape[1]
    B, S = kept.sources[0].k.shape[:2]
    T, ids = kept.length + n, usual_ids(kept.length + n, cfg)
    y, _ = embedding.forward(p.decoder.embed, tokens, cfg.scale)
    y = position.encode_x(p.decoder.pos_embed, y, ids[T - n :])[0] if position.has("embedding") else y
    here = Places(ids[T - n :], ids, look_mask(T, n, True, None, like=y), True)
    seen = look_mask(S, 1, False, kept.source_present, like=y)
    answers = tokens.shape[0] // B
    across = Places(np.tile(ids[T - n :], answers), usual_ids(S, cfg), seen, causal=False)
    layers = []
    for block, old, source in zip(p.decoder.blocks, kept.layers, kept.sources, strict=True):
        y, new = _block(block, y, old, source, here, across, position, cfg)
        layers.append(new)
    y, _ = normalise.forward(p.decoder.ln_final, y[:, n - 1 :, :], cfg.norm_eps)
    head = p.unembed if p.unembed.W_U is not None else unembedding.tied(p.unembed, p.decoder.embed.W_E)
    return unembedding.forward(head, y)[0], kept._replace(layers=tuple(layers))


def take(kept: CrossedCache, rows: Integer[Array, " R"], sources: Integer[Array, " B"] | None = None) -> CrossedCache:
    """The cache of these answers, in this order, and of these sources (None: all as they are).

    The answers to each source stand together, equally many to each.
    """
    layers = tuple(rows_of(layer, rows) for layer in kept.layers)
    if sources is None:
        return kept._replace(layers=layers)
    present = kept.source_present
    return CrossedCache(
        layers,
        tuple(rows_of(source, sources) for source in kept.sources),
        None if present is None else array_namespace(present).take(present, sources, axis=0),
    )


def generate(
    p: Params,
    source: Integer[np.ndarray, "B S"],
    first: Integer[np.ndarray, "B T"],
    n: int,
    cfg: ModelConfig,
    present: np.ndarray | None = None,
) -> Integer[np.ndarray, "B n"]:
    """The n tokens that the model says after the `first` of the target, the likeliest at each place (greedy)."""
    xp = array_namespace(p.decoder.embed.W_E)
    kept, tokens, said = start(p, xp.asarray(source), cfg, present), xp.asarray(first), []
    for _ in range(n):
        logits, kept = advance(p, tokens, kept, cfg)
        tokens = xp.argmax(logits, axis=-1)
        said.append(np.asarray(tokens))
    return np.concatenate([np.empty((first.shape[0], 0), np.int64), *said], axis=1)


def _block(
    p: DecoderBlock,
    y: Inexact[Array, "R n D"],
    old: Kept,
    source: Kept,
    here: Places,
    across: Places,
    position: Method,
    cfg: ModelConfig,
) -> tuple[Inexact[Array, "R n D"], Kept]:
    eps, beyond = cfg.norm_eps, position.across()
    if cfg.norm == "post":
        out, new = attend_and_keep(p.attn, y, old, here, position)
        mid, _ = normalise.forward(p.ln1, y + out, eps)
        met, _ = normalise.forward(p.ln_cross, mid + _look_across(p.cross_attn, mid, source, across, beyond), eps)
        out, _ = feed_forward.forward(p.mlp, met, cfg.activation)
        return normalise.forward(p.ln2, met + out, eps)[0], new
    a, _ = normalise.forward(p.ln1, y, eps)
    out, new = attend_and_keep(p.attn, a, old, here, position)
    mid = y + out
    a, _ = normalise.forward(p.ln_cross, mid, eps)
    met = mid + _look_across(p.cross_attn, a, source, across, beyond)
    a, _ = normalise.forward(p.ln2, met, eps)
    return met + feed_forward.forward(p.mlp, a, cfg.activation)[0], new


def _look_across(
    p: attention.Params, x: Inexact[Array, "R n D"], source: Kept, across: Places, position: Method
) -> Inexact[Array, "R n D"]:
    B, (R, n, D), reshape = source.k.shape[0], x.shape, array_namespace(x).reshape
    together = reshape(x, (B, R // B * n, D))
    q = attention.project(together, p.W_Q, p.b_Q)
    z, _ = attention.attend(p, q, source.k, source.v, together, source.x_k, across, position)
    return reshape(attention.join(z, p.W_O, p.b_O), (R, n, D))
