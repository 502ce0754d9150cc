"""Guards decoding/kv_cache*.py: writing with the cache says, token for token, what recomputing everything says."""

from typing import Any

import numpy as np
import pytest

from onelayer import positions
from onelayer.arrays import generator, map_tree
from onelayer.decoding import kv_cache, kv_cache_crossed
from onelayer.errors import BadInput
from onelayer.models import decoder_only, encoder_decoder
from onelayer.models.config import ModelConfig

B, N, V = 6, 12, 9
SHAPE: dict[str, Any] = {"vocab_size": V, "n_ctx": 20, "d_model": 12, "n_heads": 3, "d_mlp": 10, "n_layers": 2}


def drawn(cfg: ModelConfig) -> Any:
    rng = generator(1, "test_kv_cache")
    init = decoder_only.init if cfg.architecture == "decoder_only" else encoder_decoder.init
    return map_tree(lambda a: a + (0.7 if a.ndim > 1 else 0.1) * rng.standard_normal(a.shape), init(cfg, 0))


def prompt(n: int = 4) -> np.ndarray:
    return generator(2, "test_kv_cache").integers(0, V, (B, n))


def recomputed(p: Any, tokens: np.ndarray, n: int, cfg: ModelConfig) -> np.ndarray:
    first = tokens.shape[1]
    for _ in range(n):
        logits, _ = decoder_only.forward(p, tokens, cfg, read=1)
        tokens = np.concatenate([tokens, logits.argmax(-1)], axis=1)
    return tokens[:, first:]


@pytest.mark.parametrize("position", positions.available())
@pytest.mark.parametrize("norm", ["none", "pre", "post"])
def test_token_for_token(position, norm):
    cfg = ModelConfig(**SHAPE, position=position, norm=norm, attention_bias=True)
    p = drawn(cfg)
    said = kv_cache.generate(p, prompt(), N, cfg)
    np.testing.assert_array_equal(said, recomputed(p, prompt(), N, cfg))
    assert len(np.unique(said)) > 1  # else nothing was compared


@pytest.mark.parametrize("position", positions.available())
def test_logits_agree_however_the_tokens_are_cut_up(position):
    cfg = ModelConfig(**SHAPE, position=position, norm="pre", tied="unembed")
    p, tokens = drawn(cfg), prompt(11)
    expected, _ = decoder_only.forward(p, tokens, cfg, read=1)
    kept = kv_cache.start(p, cfg, B)
    for first, last in ((0, 5), (5, 6), (6, 11)):
        logits, kept = kv_cache.advance(p, tokens[:, first:last], kept, cfg)
    assert kept.length == 11
    assert np.abs(logits - expected).max() < 1e-12 * np.abs(expected).max()


def test_nothing_to_say():
    cfg = ModelConfig(**SHAPE)
    assert kv_cache.generate(drawn(cfg), prompt(), 0, cfg).shape == (B, 0)


def test_a_model_that_looks_ahead_has_no_cache():
    cfg = ModelConfig(**SHAPE, causal=False)
    with pytest.raises(BadInput, match="causal"):
        kv_cache.generate(drawn(cfg), prompt(), 1, cfg)


# ---------------------------------------------------------------------------------------------------- encoder-decoder

SOURCE = generator(3, "test_kv_cache").integers(0, V, (B, 7))
PRESENT = np.arange(7) < np.array([7, 4, 5, 7, 6, 3])[:, None]


@pytest.mark.parametrize("position", positions.available())
@pytest.mark.parametrize("norm", ["none", "pre", "post"])
def test_crossed_logits_agree_however_the_tokens_are_cut_up(position, norm):
    cfg = ModelConfig(
        **SHAPE, architecture="encoder_decoder", position=position, norm=norm, tied="all", attention_bias=True
    )
    p, tokens = drawn(cfg), prompt(11)
    expected, _ = encoder_decoder.forward(p, SOURCE, tokens, cfg, source_present=PRESENT)
    kept = kv_cache_crossed.start(p, SOURCE, cfg, PRESENT)
    for first, last in ((0, 5), (5, 6), (6, 11)):
        logits, kept = kv_cache_crossed.advance(p, tokens[:, first:last], kept, cfg)
        gap = np.abs(logits - expected[:, last - 1 : last])
        assert gap.max() < 1e-12 * np.abs(expected).max()
    assert kept.length == 11


def test_crossed_token_for_token():
    cfg = ModelConfig(**SHAPE, architecture="encoder_decoder", position="sinusoidal", norm="pre")
    p, tokens = drawn(cfg), prompt(1)
    said = kv_cache_crossed.generate(p, SOURCE, tokens, N, cfg, PRESENT)
    for _ in range(N):
        logits, _ = encoder_decoder.forward(p, SOURCE, tokens, cfg, source_present=PRESENT)
        tokens = np.concatenate([tokens, logits[:, -1:].argmax(-1)], axis=1)
    np.testing.assert_array_equal(said, tokens[:, 1:])
    assert len(np.unique(said)) > 1  # else nothing was compared


def test_a_decoder_that_looks_ahead_has_no_cache():
    cfg = ModelConfig(**SHAPE, architecture="encoder_decoder", causal=False)
    with pytest.raises(BadInput, match="causal"):
        kv_cache_crossed.generate(drawn(cfg), SOURCE, prompt(1), 1, cfg)
