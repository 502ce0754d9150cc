"""Guards models/circuits.py: logits and gradients equal the plain path's to 1e-12, or the shortcut is not taken."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from shortcuts import EXACT, B, T, V, assert_equal, counted, drawn, furthest, tokens

from onelayer.arrays import generator
from onelayer.fused import using
from onelayer.models import circuits, decoder_only, tables
from onelayer.models.config import ModelConfig
from onelayer.tasks import Batch
from onelayer.training.objective import Met, Objective, forward, loss_and_grads, meet, meet_again

SHAPE: dict[str, Any] = {"vocab_size": V, "n_ctx": T, "d_model": 18, "n_heads": 2, "d_head": 6, "d_mlp": 20}


def through(cfg: ModelConfig, p: Any, ids: Any, dlogits: Any) -> Any:
    """Logits and gradients by the circuits."""
    made, origin = circuits.multiply_out(p, ids, cfg)
    logits, c = circuits.forward(made, origin.rows.seats.rows, cfg)
    return logits, circuits.multiply_out_backward(circuits.backward(dlogits, c, cfg), origin, cfg)


def both(cfg: ModelConfig) -> tuple[Any, Any]:
    p, ids = drawn(cfg), tokens()
    dlogits = generator(3, "test_circuits").standard_normal((B, 1, V))
    plain, c = decoder_only.forward(p, ids, cfg, read=1)
    return through(cfg, p, ids, dlogits), (plain, decoder_only.backward(dlogits, c, cfg))


@pytest.mark.parametrize("position", EXACT)
def test_equals_the_plain_path(position):
    cfg = ModelConfig(**SHAPE, position=position, attention_bias=True, unembed_bias=True, embed_scale=True)
    assert_equal(*both(cfg))


@pytest.mark.parametrize("options", [{}, {"tied": "unembed"}, {"activation": "gelu"}, {"causal": False},
                                     {"mlp_bias": False}, {"unembed_bias": True}, {"attention_bias": True},
                                     {"d_mlp": 3}, {"n_heads": 1}])  # fmt: skip
def test_equals_the_plain_path_with(options):
    assert_equal(*both(ModelConfig(**SHAPE | options)))


def test_on_every_backend(xp):
    cfg = ModelConfig(**SHAPE, position="learned", attention_bias=True)
    dlogits = generator(3, "test_circuits").standard_normal((B, 1, V))
    plain, c = decoder_only.forward(drawn(cfg), tokens(), cfg, read=1)
    expected = decoder_only.backward(dlogits, c, cfg)
    assert_equal(xp(partial(through, cfg), drawn(cfg), tokens(), dlogits), (plain, expected))


DEFAULT: dict[str, Any] = {"vocab_size": 114, "n_ctx": 3}  # the grokking net


@pytest.mark.parametrize(
    ("options", "shape", "taken"),
    [
        ({}, (3830, 3), True),
        ({}, (1915, 3), True),  # a share of it
        ({"norm": "pre"}, (3830, 3), False),  # a norm is not straight
        ({"n_layers": 2}, (3830, 3), False),
        ({"vocab_size": 300}, (3830, 3), False),  # V·F is more than D·F and D·V
        ({}, (130, 3), False),  # the matrices cost more to multiply out than so few examples save
        ({"vocab_size": 200}, (11880, 3), False),
    ],
)
def test_where_it_is_taken(options, shape, taken):
    assert circuits.fits(ModelConfig(**DEFAULT | options), shape, 1) is taken


@pytest.mark.parametrize(("vocab_size", "taken"), [(114, True), (200, True), (320, False)])
def test_where_kernels_add_rows_up_it_is_taken_for_more(vocab_size, taken):
    with using({"models.circuits.answer": circuits.answer}):
        assert circuits.fits(ModelConfig(**DEFAULT | {"vocab_size": vocab_size}), (30000, 3), 1) is taken


def test_training_takes_it_and_agrees(monkeypatch):
    cfg = ModelConfig(**SHAPE | {"d_model": 40, "d_mlp": 60})
    ids = generator(4, "test_circuits").integers(0, V, (900, T))
    batch = Batch(ids, ids[:, :1])
    shortcuts = []
    monkeypatch.setattr(circuits, "forward", partial(counted, circuits.forward, shortcuts))
    loss, grads = loss_and_grads(drawn(cfg), batch, Objective(cfg, 1))
    assert len(shortcuts) == 1
    monkeypatch.setattr(circuits, "fits", lambda *_: False)
    monkeypatch.setattr(tables, "fits", lambda *_: False)
    plain, expected = loss_and_grads(drawn(cfg), batch, Objective(cfg, 1))
    assert len(shortcuts) == 1
    assert abs(loss - plain) < 1e-12
    assert furthest(grads, expected) < 1e-12


def test_other_examples_meet_the_same_circuits():
    cfg = ModelConfig(**SHAPE | {"d_model": 40, "d_mlp": 60})
    goal, p, ids = Objective(cfg, 1), drawn(cfg), generator(4, "test_circuits").integers(0, V - 1, (900, T))
    met = meet(p, Batch(ids[:800], ids[:800, :1]), goal)
    again = meet_again(met, Batch(ids[800:], ids[800:, :1]), goal)
    assert again is not None
    assert again.params is met.params
    logits, _ = forward(again.params, again.batch, goal)
    assert furthest([logits], [decoder_only.forward(p, ids[800:], cfg, read=1)[0]]) < 1e-12
    unseen = np.full((50, T), V - 1)
    assert meet_again(met, Batch(unseen, unseen[:, :1]), goal) is None
    assert meet_again(met, Batch(ids[:, 1:], ids[:, :1]), goal) is None
    assert meet_again(Met(p, Batch(ids, ids[:, :1])), Batch(ids, ids[:, :1]), goal) is None


def test_under_jax_the_examples_meet_the_parameters():
    import jax

    cfg = ModelConfig(**SHAPE | {"d_model": 40, "d_mlp": 60})
    ids, p = generator(4, "test_circuits").integers(0, V, (900, T)), drawn(cfg)
    assert isinstance(meet(p, Batch(ids, ids[:, :1]), Objective(cfg, 1)).params, circuits.Circuits)
    made = []

    def step(ids: Any) -> Any:
        made.append(meet(p, Batch(ids, ids[:, :1]), Objective(cfg, 1)).made_of)
        return ids

    jax.jit(step)(ids)
    assert made == [None]
