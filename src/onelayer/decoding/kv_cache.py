"""Writing with a memory: keys and values of the tokens so far are kept, so that a new token costs one position's work.

Shapes    tokens [B n]: the new ones     k v [B S H K], x_k [B S D]: of the S tokens so far, layer by layer

Step      each block   q = new queries      k, v = those kept, and the new ones      z = attend(q, k, v)
          Under causal attention nothing of an earlier position hangs on a later token: what is kept stays right.
          Keys are kept as they are before the position method turns them, and x_k where a score bias may look at it.

Cost      n new tokens after S: n (S + n) scores a head, not (S + n)², and every other product on n rows, not S + n.
          What was kept is not copied for each of them (room.py).

Source    Shazeer 2019, arXiv:1911.02150, section 2 (incremental attention). The wiring: models/decoder_only.py.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Inexact, Integer

from ..arrays import Array, array_namespace, map_tree
from ..errors import BadInput
from ..layers import embedding, unembedding
from ..models.config import ModelConfig
from ..models.decoder_only import Block, Params, look_mask, usual_ids
from ..positions import Method, Places
from ..sublayers import attention, feed_forward, normalise
from .room import append

__all__ = ["KVCache", "Kept", "advance", "attend_and_keep", "generate", "nothing_kept", "rows_of", "start", "take"]


class Kept(NamedTuple):
    """What one layer keeps of the tokens so far."""

    k: Inexact[Array, "B S H K"]
    v: Inexact[Array, "B S H K"]
    x_k: Inexact[Array, "B S D"] | None  # None where no score bias looks at it


class KVCache(NamedTuple):
    layers: tuple[Kept, ...]

    @property
    def length(self) -> int:
        """S."""
        return self.layers[0].k.shape[1]


def start(p: Params, cfg: ModelConfig, batch: int) -> KVCache:
    """The cache before the first token."""
    if not cfg.causal:
        raise BadInput("a model that looks ahead (causal=False) has no cache: a new token changes what came before it")
    like = array_namespace(p.embed.W_E).zeros((batch, 0), dtype=p.embed.W_E.dtype)
    return KVCache(tuple(nothing_kept(like, cfg) for _ in p.blocks))


def nothing_kept(like: Array, cfg: ModelConfig) -> Kept:
    """What one layer keeps before the first token; the batch and the precision are those of `like` [B …]."""

    def empty(*rest: int) -> Array:
        return array_namespace(like).zeros((like.shape[0], 0, *rest), dtype=like.dtype)

    looks = cfg.position_method.has("score")
    H, K = cfg.n_heads, cfg.head_width
    return Kept(empty(H, K), empty(H, K), empty(cfg.d_model) if looks else None)


def advance(
    p: Params, tokens: Integer[Array, "B n"], kept: KVCache, cfg: ModelConfig
) -> tuple[Inexact[Array, "B 1 V"], KVCache]:
    """Read n more tokens: the logits of the last one, and the cache that holds them too."""
    position, n, S = cfg.position_method, tokens.shape[1], kept.length + tokens.shape[1]
    ids = usual_ids(S, cfg)
    x, _ = embedding.forward(p.embed, tokens, cfg.scale)
    x = position.encode_x(p.pos_embed, x, ids[S - n :])[0] if position.has("embedding") else x
    places = Places(ids[S - n :], ids, look_mask(S, n, True, None, like=x), True)
    layers = []
    for block, old in zip(p.blocks, kept.layers, strict=True):
        x, new = _block(block, x, old, places, position, cfg)
        layers.append(new)
    x, _ = normalise.forward(p.ln_final, x[:, n - 1 :, :], cfg.norm_eps)
    head = p.unembed if p.unembed.W_U is not None else unembedding.tied(p.unembed, p.embed.W_E)
    return unembedding.forward(head, x)[0], KVCache(tuple(layers))


def take(kept: KVCache, rows: Integer[Array, " R"]) -> KVCache:
    """The cache of these sequences, in this order; one may be named several times, as a beam does, or not at all."""
    return KVCache(tuple(rows_of(layer, rows) for layer in kept.layers))


def rows_of(kept: Kept, rows: Integer[Array, " R"]) -> Kept:
    return map_tree(lambda a: array_namespace(a).take(a, rows, axis=0), kept)


def generate(p: Params, prompt: Integer[np.ndarray, "B T"], n: int, cfg: ModelConfig) -> Integer[np.ndarray, "B n"]:
    """The n tokens that the model says after the prompt, the likeliest at each place (greedy)."""
    xp = array_namespace(p.embed.W_E)
    kept, tokens, said = start(p, cfg, prompt.shape[0]), xp.asarray(prompt), []
    for _ in range(n):
        logits, kept = advance(p, tokens, kept, cfg)
        tokens = xp.argmax(logits, axis=-1)
        said.append(np.asarray(tokens))
    return np.concatenate([np.empty((prompt.shape[0], 0), np.int64), *said], axis=1)


def _block(
    p: Block, x: Inexact[Array, "B n D"], old: Kept, places: Places, position: Method, cfg: ModelConfig
) -> tuple[Inexact[Array, "B n D"], Kept]:
    if cfg.norm == "post":
        out, new = attend_and_keep(p.attn, x, old, places, position)
        mid, _ = normalise.forward(p.ln1, x + out, cfg.norm_eps)
        out, _ = feed_forward.forward(p.mlp, mid, cfg.activation)
        return normalise.forward(p.ln2, mid + out, cfg.norm_eps)[0], new
    a, _ = normalise.forward(p.ln1, x, cfg.norm_eps)
    out, new = attend_and_keep(p.attn, a, old, places, position)
    mid = x + out
    m, _ = normalise.forward(p.ln2, mid, cfg.norm_eps)
    return mid + feed_forward.forward(p.mlp, m, cfg.activation)[0], new


def attend_and_keep(
    p: attention.Params, x: Inexact[Array, "B n D"], old: Kept, places: Places, position: Method
) -> tuple[Inexact[Array, "B n D"], Kept]:
    """Self-attention of the new positions over all so far, and what is then kept."""
    k = append(old.k, attention.project(x, p.W_K, p.b_K))
    v = append(old.v, attention.project(x, p.W_V, p.b_V))
    x_k = None if old.x_k is None else append(old.x_k, x)
    q = attention.project(x, p.W_Q, p.b_Q)
    z, _ = attention.attend(p, q, k, v, x, x if x_k is None else x_k, places, position)
    return attention.join(z, p.W_O, p.b_O), Kept(k, v, x_k)
