"""Models that have learnt nothing and yet say different things, of different lengths: what decoding is tested on."""

from typing import Any

from onelayer.arrays import generator, map_tree
from onelayer.models import decoder_only, encoder_decoder
from onelayer.models.config import ModelConfig
from onelayer.tasks.units import EOS

V = 11
SHAPE: dict[str, Any] = {"vocab_size": V, "n_ctx": 9, "d_model": 12, "n_heads": 3, "d_mlp": 10, "n_layers": 2}


def model(seed: int = 5, spread: float = 0.8, towards_end: float = 1.0, **changes: Any) -> tuple[Any, ModelConfig]:
    """Random weights, with biases, so spread that answers differ and end at different lengths."""
    given: dict[str, Any] = {
        "architecture": "encoder_decoder", "position": "sinusoidal", "norm": "pre", "unembed_bias": True
    }  # fmt: skip
    cfg = ModelConfig(**(SHAPE | given | changes))
    init = decoder_only.init if cfg.architecture == "decoder_only" else encoder_decoder.init
    rng = generator(seed, "test_decoding.model")
    p = map_tree(lambda a: a + spread * rng.standard_normal(a.shape), init(cfg, seed))
    if p.unembed.b_U is not None:
        p.unembed.b_U[EOS] += towards_end
    return p, cfg
