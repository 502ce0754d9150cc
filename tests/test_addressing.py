"""Guards the split of a gradient into content and position: exact, per head, and no step of training feels it."""

from pathlib import Path

import numpy as np
import pytest
from tiny import fingerprint, tiny

from onelayer import positions
from onelayer.arrays import map_tree
from onelayer.errors import BadInput
from onelayer.microscope import journal
from onelayer.microscope.addressing import Addressing, pulls, shares, split
from onelayer.models import decoder_only
from onelayer.models.config import ModelConfig
from onelayer.tasks import Batch
from onelayer.training import train
from onelayer.training.objective import Objective, loss_and_grads
from onelayer.training.step import make_objective

V, T = 7, 5


def model(position: str, **more) -> ModelConfig:
    settings = positions.fitted(position, T)
    return ModelConfig(
        vocab_size=V, n_ctx=T, d_model=12, n_heads=3, d_head=4, d_mlp=10, position=position, position_settings=settings,
        **more,
    )  # fmt: skip


def case(cfg: ModelConfig, read: int = T):
    """Random weights everywhere, biases and gains too, and a batch."""
    rng = np.random.default_rng(0)
    params = map_tree(lambda a: a + 0.3 * rng.standard_normal(a.shape), decoder_only.init(cfg, 0))
    return params, Batch(rng.integers(0, V, (4, T)), rng.integers(0, V, (4, read)))


def assert_exact(params, batch, cfg):
    _, grads = loss_and_grads(params, batch, Objective(cfg, batch.targets.shape[1]))
    parts = split(params, batch, cfg)
    assert list(parts) == ["W_Q", "W_K", "W_V", "W_O"]
    for name, terms in parts.items():
        true = getattr(grads.blocks[0].attn, name)
        error = np.max(np.abs(sum(terms.values()) - true)) / np.max(np.abs(true))
        assert error < 1e-12, (name, error)
    return parts


@pytest.mark.parametrize("position", positions.available())
def test_the_terms_sum_to_the_gradient(position):
    cfg = model(position)
    parts = assert_exact(*case(cfg), cfg)
    for terms in shares(parts).values():
        np.testing.assert_allclose(sum(terms.values()), np.ones(3), rtol=1e-12)


@pytest.mark.parametrize("more", [
    {"norm": "pre"}, {"norm": "pre", "norm_kind": "rms"}, {"norm": "post"}, {"attention_bias": True},
    {"norm": "pre", "attention_bias": True}, {"n_layers": 2}, {"causal": False},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("position", ["learned", "rope", "cope", "roper"])
def test_under_norms_biases_and_more_layers(position, more):
    cfg = model(position, **more)
    assert_exact(*case(cfg), cfg)


def test_where_only_the_last_position_is_read():
    cfg = model("learned")
    assert_exact(*case(cfg, read=1), cfg)


def test_four_terms_by_a_loop():
    cfg = model("learned")
    params, batch = case(cfg)
    seen = {}
    cache = decoder_only.forward(params, batch.tokens, cfg)[1]
    from onelayer.layers import cross_entropy

    logits, cache = decoder_only.forward(params, batch.tokens, cfg)
    dlogits = cross_entropy.backward(cross_entropy.forward(logits, batch.targets)[1])
    decoder_only.backward(dlogits, cache, cfg, tap=lambda name, x: seen.setdefault(name, x))
    ds, p = seen["blocks.0.attn.hook_attn_scores"], params.blocks[0].attn
    c, pi = params.embed.W_E[batch.tokens], np.broadcast_to(params.pos_embed.W_pos[:T], (4, T, 12))
    expected = np.zeros((3, 12, 4))
    for b in range(4):
        for h in range(3):
            for t in range(T):
                for s in range(t + 1):
                    expected[h] += ds[b, h, t, s] * np.outer(c[b, t], pi[b, s] @ p.W_K[h]) / 2  # √K = 2
    np.testing.assert_allclose(split(params, batch, cfg)["W_Q"]["content·position"], expected, rtol=1e-11, atol=1e-15)


def test_without_positions_all_is_content():
    cfg = model("none")
    parts = split(*case(cfg), cfg)
    assert all(list(terms) == ["content"] for terms in parts.values())


def test_rotary_content_is_the_plain_product():
    """With all ids 0 the rotation is the identity: the content term is that of a model without positions."""
    cfg = model("rope")
    params, batch = case(cfg)
    together = split(params, batch, cfg, ids=np.zeros(T, dtype=int))
    assert all(np.max(np.abs(together[name]["position"])) < 1e-15 for name in ("W_Q", "W_K"))
    apart = split(params, batch, cfg)
    assert np.max(np.abs(apart["W_Q"]["position"])) > 1e-3


@pytest.mark.parametrize("position", ["sinusoidal", "rope", "alibi", "fire", "pope"])
def test_pulls_are_the_slope_of_scaling_a_term(position):
    """Against a finite difference: the loss with that term of the scores a little larger."""
    cfg = model(position)
    params, batch = case(cfg)
    found = pulls(params, batch, cfg)
    from onelayer.layers import cross_entropy
    from onelayer.microscope.addressing import _run, _terms

    terms = _terms(_run(params, batch, cfg, None, {}))

    def loss(term, head, scale):
        def tap(name, x):
            if name != "blocks.0.attn.hook_attn_scores":
                return x
            more = np.zeros_like(x)
            more[:, head] = scale * terms[term][:, head]
            return x + more

        logits, _ = decoder_only.forward(params, batch.tokens, cfg, tap=tap)
        return float(cross_entropy.forward(logits, batch.targets)[0])

    for term, values in found.items():
        for head, value in enumerate(values):
            slope = (loss(term, head, 1e-5) - loss(term, head, -1e-5)) / 2e-5
            assert slope == pytest.approx(value, rel=1e-5, abs=1e-8), (term, head)


def test_an_encoder_decoder_is_refused():
    cfg = model("learned", architecture="encoder_decoder")
    with pytest.raises(BadInput, match="decoder_only"):
        Addressing(Objective(cfg, 1))
    with pytest.raises(BadInput, match="at least one example"):
        Addressing(Objective(model("learned"), 1), examples=0)


def test_no_step_feels_the_watcher(tmp_path: Path):
    config = tiny()
    alone = train(config, tmp_path / "alone").run
    watcher = Addressing(make_objective(config, config.task.make(config.seed)), every=10)
    watched = train(config, tmp_path / "watched", callback=watcher, watch=watcher).run
    assert fingerprint(alone) == fingerprint(watched)
    records = list(journal.read(watched / Addressing.FILE))
    assert [r["step"] for r in records] == [0, 10, 20, 30]
    for record in records:
        terms = record["shares"]["W_Q"]
        assert set(terms) == {f"{a}·{b}" for a in ("content", "position") for b in ("content", "position")}
        np.testing.assert_allclose(sum(np.array(v) for v in terms.values()), 1, rtol=1e-5)  # float32
