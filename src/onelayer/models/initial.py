"""The first weights: how each tensor is drawn, from NumPy's Philox generator, so that every engine starts alike.

width     W ~ N(0, 1/D) and W_U ~ N(0, 1/V), as in Nanda et al. 2023, arXiv:2301.05217
xavier    U(−a, a), a = √(6/(inputs + outputs)), Glorot & Bengio 2010; embeddings ~ N(0, 1/D)
normal    N(0, 0.02²), as in GPT-2
Gains start at 1 and biases at 0. Each tensor has a generator of its own, keyed by its name: adding one moves no other.
"""

import math
from typing import Any

import numpy as np

from ..arrays import generator
from ..layers import embedding, layer_norm, rms_norm, unembedding
from ..sublayers import attention, feed_forward
from .config import ModelConfig


class Drawing:
    """Draws the tensors of one model: `Drawing(cfg, seed).attention("blocks.0.attn", cfg.size())`.

    seed None: zeros that take no memory, for their shapes.
    """

    def __init__(self, cfg: ModelConfig, seed: int | None) -> None:
        self.cfg, self.seed = cfg, seed

    def weight(self, name: str, shape: tuple[int, ...], fan_in: int, fan_out: int, width: int) -> np.ndarray:
        cfg = self.cfg
        if self.seed is None:
            return np.broadcast_to(0.0, shape)
        rng = generator(self.seed, "init", name)
        if cfg.init == "xavier":
            bound = math.sqrt(6 / (fan_in + fan_out))
            return cfg.init_scale * rng.uniform(-bound, bound, shape)
        deviation = 0.02 if cfg.init == "normal" else width**-0.5
        return cfg.init_scale * deviation * rng.standard_normal(shape)

    def embedding(self, name: str, vocab: int) -> embedding.Params:
        D, cfg = self.cfg.d_model, self.cfg
        if self.seed is None:
            return embedding.Params(W_E=np.broadcast_to(0.0, (vocab, D)))
        deviation = 0.02 if cfg.init == "normal" else D**-0.5
        rng = generator(self.seed, "init", f"{name}.W_E")
        return embedding.Params(W_E=cfg.init_scale * deviation * rng.standard_normal((vocab, D)))

    def unembedding(self, name: str) -> unembedding.Params:
        V, D, cfg = self.cfg.vocab_size, self.cfg.d_model, self.cfg
        W_U = None if cfg.tied != "none" else self.weight(f"{name}.W_U", (D, V), D, V, V)
        return unembedding.Params(W_U, np.zeros(V) if cfg.unembed_bias else None)

    def position(self, name: str, size: Any) -> Any:
        drawn = self.cfg.position_method.init(generator(self.seed or 0, "init", name), size)
        return drawn

    def norm(self) -> layer_norm.Params | rms_norm.Params | None:
        D, cfg = self.cfg.d_model, self.cfg
        if cfg.norm == "none":
            return None
        return layer_norm.Params(np.ones(D), np.zeros(D)) if cfg.norm_kind == "layer" else rms_norm.Params(np.ones(D))

    def attention(self, name: str, size: Any, has_position: bool = True) -> attention.Params:
        cfg = self.cfg
        H, D, K = cfg.n_heads, cfg.d_model, cfg.head_width
        W_Q, W_K, W_V = (self.weight(f"{name}.{w}", (H, D, K), D, H * K, D) for w in ("W_Q", "W_K", "W_V"))
        W_O = self.weight(f"{name}.W_O", (H, K, D), H * K, D, D)
        pos = self.position(f"{name}.pos", size) if has_position and cfg.position_method.in_attention else None
        if not cfg.attention_bias:
            return attention.Params(W_Q, W_K, W_V, W_O, pos=pos)
        b_Q, b_K, b_V = (np.zeros((H, K)) for _ in range(3))
        return attention.Params(W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, np.zeros(D), pos)

    def feed_forward(self, name: str) -> feed_forward.Params:
        cfg = self.cfg
        D, F = cfg.d_model, cfg.d_mlp
        W_in, W_out = self.weight(f"{name}.W_in", (D, F), D, F, D), self.weight(f"{name}.W_out", (F, D), F, D, D)
        b_in, b_out = (np.zeros(F), np.zeros(D)) if cfg.mlp_bias else (None, None)
        return feed_forward.Params(W_in, b_in, W_out, b_out)
