"""Small models with weights far from their initial values, traced; every dimension is different."""

from typing import Any

import numpy as np

from onelayer.arrays import flatten, generator, unflatten
from onelayer.microscope import Trace, trace
from onelayer.models import decoder_only, encoder_decoder
from onelayer.models.config import ModelConfig
from onelayer.tasks import Batch

V, B, T, S, R = 5, 3, 4, 6, 2


def model(architecture: str, seed: int = 0, scale: float = 0.4, **settings: Any) -> Trace:
    """A trace; a one-layer decoder-only model is read at its last two positions, so that there are fewer queries."""
    given = {"attention_bias": True, "unembed_bias": True, "embed_scale": True, "d_model": 8, "n_heads": 2, "d_mlp": 7}
    cfg = ModelConfig(
        architecture=architecture, vocab_size=V, n_ctx=T, source_n_ctx=S, **(given | settings)  # type: ignore[arg-type]
    )  # fmt: skip
    crosses = architecture == "encoder_decoder"
    rng = generator(seed, "microscope", architecture, str(sorted(settings.items())))
    read = T if crosses or cfg.n_layers > 1 else R
    weights = rng.uniform(0.2, 1.0, (B, read))
    source = rng.integers(0, V, (B, S)) if crosses else None
    present = np.arange(S)[None] < np.array([[S], [S - 1], [S - 2]]) if crosses else None
    batch = Batch(rng.integers(0, V, (B, T)), rng.integers(0, V, (B, read)), weights, source, present)
    like = (encoder_decoder if crosses else decoder_only).init(cfg, seed)
    drawn = {name: x + scale * rng.standard_normal(x.shape) for name, x in flatten(like).items()}
    return trace(unflatten(drawn, like), batch, cfg)
