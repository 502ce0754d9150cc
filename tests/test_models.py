"""Guards both models: gradients against jax.grad and PyTorch autograd, and what the wiring promises.

jax.grad differentiates our forward. The PyTorch oracle is written anew from torch's own pieces, so it checks the
forward as well: the sums, the norms' places, the masks, the scale.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
from backends import needs
from oracles import assert_close_trees, random_ids, random_like

from onelayer.arrays import flatten, map_tree
from onelayer.errors import BadInput
from onelayer.layers import cross_entropy
from onelayer.models import decoder_only, encoder_decoder
from onelayer.models.config import ModelConfig

B, T, S, V = 3, 5, 7, 11
SMALL: dict[str, Any] = {
    "vocab_size": V, "n_ctx": 8, "d_model": 12, "n_heads": 3, "d_head": 4, "d_mlp": 10, "unembed_bias": True,
    "activation": "gelu_tanh",
}  # fmt: skip
TOKENS, SOURCE, TARGETS = random_ids(V, B, T), random_ids(V, B, S, seed=1), random_ids(V, B, T, seed=2)
WEIGHTS = np.random.default_rng(0).uniform(0.2, 1.0, (B, T))
PRESENT = np.arange(S) < np.array([[7], [4], [5]])

NORMS = [("none", "layer"), ("pre", "layer"), ("post", "layer"), ("pre", "rms")]


def config(norm: str = "pre", kind: str = "layer", **changes: Any) -> ModelConfig:
    return ModelConfig(**(SMALL | {"norm": norm, "norm_kind": kind} | changes))


def moved(cfg: ModelConfig) -> Any:
    """Weights away from their initial values, not so far that a softmax saturates."""
    init = decoder_only.init if cfg.architecture == "decoder_only" else encoder_decoder.init
    params = init(cfg, 0)
    return map_tree(lambda p, r: p + 0.15 * r, params, random_like(params))


def loss_of(params: Any, cfg: ModelConfig, read: int | None = None) -> tuple[Any, Any, Any]:
    n = read or T
    if cfg.architecture == "decoder_only":
        logits, cache = decoder_only.forward(params, TOKENS, cfg, read=read)
    else:
        logits, cache = encoder_decoder.forward(params, SOURCE, TOKENS, cfg, source_present=PRESENT)
    loss, c = cross_entropy.forward(logits, TARGETS[:, T - n :], WEIGHTS[:, T - n :], smoothing=0.1)
    return loss, c, cache


def by_hand(params: Any, cfg: ModelConfig, read: int | None = None) -> Any:
    _, c, cache = loss_of(params, cfg, read)
    backward = decoder_only.backward if cfg.architecture == "decoder_only" else encoder_decoder.backward
    return backward(cross_entropy.backward(c), cache, cfg)


CASES = [
    *((norm, kind, "decoder_only", position) for norm, kind in NORMS for position in ("learned", "rope", "t5")),
    *((norm, kind, "encoder_decoder", position) for norm, kind in NORMS for position in ("sinusoidal", "alibi")),
]


# ---------------------------------------------------------------------------------------------------- jax.grad


@pytest.mark.parametrize(("norm", "kind", "architecture", "position"), CASES)
def test_gradients_equal_jax_grad(norm: str, kind: str, architecture: str, position: str) -> None:
    import jax

    layers = 2 if position in ("learned", "sinusoidal") else 1
    cfg = config(norm, kind, architecture=architecture, position=position, n_layers=layers)
    params = moved(cfg)
    on_device = map_tree(jax.numpy.asarray, params)
    want = jax.jit(jax.grad(lambda p: loss_of(p, cfg)[0]))(on_device)
    assert_close_trees(by_hand(params, cfg), want, 1e-10)


@pytest.mark.parametrize("tied", ["none", "unembed"])
def test_reading_only_the_last_positions_is_exact(tied: str) -> None:
    import jax

    cfg = config("pre", n_layers=2, tied=tied)
    params = moved(cfg)
    on_device = map_tree(jax.numpy.asarray, params)
    want = jax.jit(jax.grad(lambda p: loss_of(p, cfg, read=2)[0]))(on_device)
    assert_close_trees(by_hand(params, cfg, read=2), want, 1e-10)
    whole, _ = decoder_only.forward(params, TOKENS, cfg)
    last, _ = decoder_only.forward(params, TOKENS, cfg, read=2)
    np.testing.assert_allclose(last, whole[:, -2:], rtol=1e-13)


@pytest.mark.parametrize(("norm", "last", "architecture"), [
    ("post", True, "decoder_only"), ("post", True, "encoder_decoder"), ("pre", False, "decoder_only"),
])  # fmt: skip
def test_a_last_norm_of_its_own_choice(norm: str, last: bool, architecture: str) -> None:
    import jax

    cfg = config(norm, architecture=architecture, position="sinusoidal", final_norm=last)
    params = moved(cfg)
    assert last == any("ln_final" in name for name in flatten(params))
    want = jax.jit(jax.grad(lambda p: loss_of(p, cfg)[0]))(map_tree(jax.numpy.asarray, params))
    assert_close_trees(by_hand(params, cfg), want, 1e-10)


def test_without_a_seed_there_are_shapes_alone() -> None:
    for architecture in (decoder_only, encoder_decoder):
        cfg = config("post", position="learned", attention_bias=True)
        drawn, shapes = (flatten(architecture.init(cfg, seed)) for seed in (0, None))
        assert {name: a.shape for name, a in drawn.items()} == {name: a.shape for name, a in shapes.items()}
        assert shapes["unembed.W_U"].strides == (0, 0)


# ---------------------------------------------------------------------------------------------------- PyTorch


def torch_norm(cfg: ModelConfig, p: Any, x: Any) -> Any:
    import torch.nn.functional as f  # pyright: ignore[reportMissingImports]

    if p is None:
        return x
    if cfg.norm_kind == "layer":
        return f.layer_norm(x, x.shape[-1:], p.gain, p.bias, cfg.norm_eps)
    return f.rms_norm(x, x.shape[-1:], p.gain, cfg.norm_eps)


def torch_attention(p: Any, x_q: Any, x_k: Any, mask: Any) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    q, k, v = (torch.einsum("btd,hdk->bhtk", x, W) for x, W in ((x_q, p.W_Q), (x_k, p.W_K), (x_k, p.W_V)))
    z = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return torch.einsum("bhtk,hkd->btd", z, p.W_O)


def torch_sum(cfg: ModelConfig, ln: Any, x: Any, f: Any) -> Any:
    if cfg.norm == "post":
        return torch_norm(cfg, ln, x + f(x))
    return x + f(torch_norm(cfg, ln, x))


def torch_mlp(p: Any, x: Any) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    return torch.nn.functional.gelu(x @ p.W_in + p.b_in, approximate="tanh") @ p.W_out + p.b_out


def torch_enter(stack: Any, table: Any, tokens: Any, cfg: ModelConfig) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    x = torch.nn.functional.embedding(torch.tensor(tokens), table) * cfg.scale
    n = tokens.shape[1]
    if cfg.position == "learned":
        return x + stack.pos_embed.W_pos[:n]
    half = cfg.d_model // 2
    angle = np.arange(n)[:, None] / 10_000 ** (np.arange(half) / half)
    return x + torch.tensor(np.stack([np.sin(angle), np.cos(angle)], -1).reshape(n, -1))


def torch_loss(p: Any, cfg: ModelConfig) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    causal = torch.ones(T, T, dtype=torch.bool).tril()
    if cfg.architecture == "decoder_only":
        y = torch_enter(p, p.embed.W_E, TOKENS, cfg)
        for block in p.blocks:
            y = torch_sum(cfg, block.ln1, y, lambda a, b=block: torch_attention(b.attn, a, a, causal))
            y = torch_sum(cfg, block.ln2, y, partial(torch_mlp, block.mlp))
        y = torch_norm(cfg, p.ln_final, y)
        table = p.embed.W_E
    else:
        seen = torch.tensor(PRESENT)[:, None, None, :]
        table = p.decoder.embed.W_E
        x = torch_enter(p.encoder, table if p.encoder.embed is None else p.encoder.embed.W_E, SOURCE, cfg)
        for block in p.encoder.blocks:
            x = torch_sum(cfg, block.ln1, x, lambda a, b=block: torch_attention(b.attn, a, a, seen))
            x = torch_sum(cfg, block.ln2, x, partial(torch_mlp, block.mlp))
        memory = torch_norm(cfg, p.encoder.ln_final, x)
        y = torch_enter(p.decoder, table, TOKENS, cfg)
        for block in p.decoder.blocks:
            y = torch_sum(cfg, block.ln1, y, lambda a, b=block: torch_attention(b.attn, a, a, causal))
            y = torch_sum(cfg, block.ln_cross, y, lambda a, b=block: torch_attention(b.cross_attn, a, memory, seen))
            y = torch_sum(cfg, block.ln2, y, partial(torch_mlp, block.mlp))
        y = torch_norm(cfg, p.decoder.ln_final, y)
    logits = y @ (table.T if p.unembed.W_U is None else p.unembed.W_U) + p.unembed.b_U
    rows = torch.nn.functional.cross_entropy(
        logits.reshape(-1, V), torch.tensor(TARGETS).reshape(-1), reduction="none", label_smoothing=0.1
    )
    w = torch.tensor(WEIGHTS).reshape(-1)
    return (w * rows).sum() / w.sum()


@needs("torch")
@pytest.mark.parametrize(("norm", "kind"), NORMS)
@pytest.mark.parametrize(
    ("architecture", "position", "tied"),
    [
        ("decoder_only", "learned", "none"),
        ("decoder_only", "sinusoidal", "unembed"),
        ("encoder_decoder", "sinusoidal", "none"),
        ("encoder_decoder", "learned", "all"),
    ],
)
def test_loss_and_gradients_equal_pytorch(norm: str, kind: str, architecture: str, position: str, tied: str) -> None:
    import torch  # pyright: ignore[reportMissingImports]

    scaled = architecture == "encoder_decoder" and norm != "none"
    cfg = config(norm, kind, architecture=architecture, position=position, tied=tied, n_layers=2, embed_scale=scaled)
    params = moved(cfg)
    theirs = map_tree(lambda a: torch.tensor(a, requires_grad=True), params)
    loss = torch_loss(theirs, cfg)
    loss.backward()
    np.testing.assert_allclose(loss_of(params, cfg)[0], loss.item(), rtol=1e-12)
    assert_close_trees(by_hand(params, cfg), map_tree(lambda a: a.grad, theirs), 1e-10)


# ---------------------------------------------------------------------------------------------------- promises


@pytest.mark.parametrize("norm", ["none", "pre", "post"])
@pytest.mark.parametrize("t", range(T))
def test_a_token_is_not_seen_from_before_it(norm: str, t: int) -> None:
    cfg = config(norm, n_layers=2)
    params, changed = moved(cfg), TOKENS.copy()
    changed[:, t] = (changed[:, t] + 1) % V
    before, after = (decoder_only.forward(params, tokens, cfg)[0] for tokens in (TOKENS, changed))
    assert np.array_equal(before[:, :t], after[:, :t])
    assert np.all(np.any(before[:, t:] != after[:, t:], axis=-1))


def test_the_decoders_first_word_feels_the_last_source_token() -> None:
    cfg = config("pre", architecture="encoder_decoder")
    params, changed = moved(cfg), SOURCE.copy()
    changed[:, -1] = (changed[:, -1] + 1) % V
    before, after = (encoder_decoder.forward(params, source, TOKENS, cfg)[0] for source in (SOURCE, changed))
    assert np.all(np.any(before[:, 0] != after[:, 0], axis=-1))


@pytest.mark.parametrize("norm", ["none", "pre", "post"])
@pytest.mark.parametrize("position", ["sinusoidal", "rope", "alibi", "t5"])
def test_source_padding_changes_nothing(norm: str, position: str) -> None:
    cfg = config(norm, architecture="encoder_decoder", position=position, n_layers=2, n_ctx=12)
    params = moved(cfg)
    longer = np.concatenate([SOURCE, random_ids(V, B, 4, seed=5)], axis=1)
    absent = np.concatenate([PRESENT, np.zeros((B, 4), dtype=bool)], axis=1)

    def both(source: Any, present: Any) -> tuple[Any, Any]:
        logits, cache = encoder_decoder.forward(params, source, TOKENS, cfg, source_present=present)
        loss, c = cross_entropy.forward(logits, TARGETS)
        return (loss, logits), encoder_decoder.backward(cross_entropy.backward(c), cache, cfg)

    (loss, logits), grads = both(SOURCE, PRESENT)
    (loss2, logits2), grads2 = both(longer, absent)
    np.testing.assert_allclose([loss2], [loss], rtol=1e-12)
    np.testing.assert_allclose(logits2, logits, rtol=1e-11, atol=1e-13)
    assert_close_trees(grads2, grads, 1e-12)


def test_a_source_of_padding_alone_is_finite() -> None:
    cfg = config("pre", architecture="encoder_decoder")
    params, nothing = moved(cfg), np.zeros((B, S), dtype=bool)
    logits, cache = encoder_decoder.forward(params, SOURCE, TOKENS, cfg, source_present=nothing)
    grads = encoder_decoder.backward(np.ones_like(logits), cache, cfg)
    assert np.all(np.isfinite(logits)) and all(np.all(np.isfinite(g)) for g in flatten(grads).values())


def test_examples_do_not_see_each_other() -> None:
    cfg = config("post", n_layers=2)
    params, order = moved(cfg), np.array([2, 0, 1])
    whole = decoder_only.forward(params, TOKENS, cfg)[0]
    np.testing.assert_allclose(decoder_only.forward(params, TOKENS[order], cfg)[0], whole[order], rtol=1e-13)


def test_every_norm_has_parameters_of_its_own() -> None:
    params = encoder_decoder.init(config("post", architecture="encoder_decoder"), 0)
    names = [name for name in flatten(params) if ".ln" in name and name.endswith("gain")]
    assert names == [
        "encoder.blocks.0.ln1.gain", "encoder.blocks.0.ln2.gain",
        "decoder.blocks.0.ln1.gain", "decoder.blocks.0.ln_cross.gain", "decoder.blocks.0.ln2.gain",
    ]  # fmt: skip


def test_names_and_shapes() -> None:
    shapes = {name: a.shape for name, a in flatten(decoder_only.init(config("none", position="t5"), 0)).items()}
    assert shapes == {
        "embed.W_E": (11, 12), "blocks.0.attn.W_Q": (3, 12, 4), "blocks.0.attn.W_K": (3, 12, 4),
        "blocks.0.attn.W_V": (3, 12, 4), "blocks.0.attn.W_O": (3, 4, 12), "blocks.0.attn.pos.W_bias": (3, 32),
        "blocks.0.mlp.W_in": (12, 10), "blocks.0.mlp.b_in": (10,), "blocks.0.mlp.W_out": (10, 12),
        "blocks.0.mlp.b_out": (12,), "unembed.W_U": (12, 11), "unembed.b_U": (11,),
    }  # fmt: skip


def test_a_tensor_more_moves_no_other() -> None:
    small, large = (flatten(decoder_only.init(config("none", n_layers=n), 3)) for n in (1, 2))
    assert all(np.array_equal(large[name], a) for name, a in small.items())


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 10, "d_head": None}, "3 heads do not divide the width 10; allowed: 1, 2, 5, 10"),
        ({"activation": "rellu"}, "unknown activation 'rellu'; did you mean 'relu'"),
        ({"position": "rope", "d_head": 5}, "head width must be even; received 5"),
        ({"position": "sinusoid"}, "unknown position 'sinusoid'; did you mean 'sinusoidal'"),
        ({"position": "rope", "position_settings": {"basis": 3}}, "did you mean 'base'"),
        ({"norm": "none", "final_norm": True}, "final_norm = true needs a norm"),
        ({"tied": "all", "source_vocab_size": 5, "architecture": "encoder_decoder"}, "one joint vocabulary"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_sequence_longer_than_the_learned_table_is_refused() -> None:
    cfg = config(n_ctx=4)
    with pytest.raises(BadInput, match="position table has 4 rows, but position 4 was asked for"):
        decoder_only.forward(decoder_only.init(cfg, 0), TOKENS, cfg)
