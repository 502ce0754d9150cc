"""Guards models/tables.py: the shortcut's logits and gradients equal the plain path's to 1e-12, or it is not taken."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from shortcuts import EXACT, B, T, V, assert_equal, counted, drawn, furthest, tokens, without_b_K

from onelayer.arrays import flatten, generator
from onelayer.models import decoder_only, tables
from onelayer.models.config import ModelConfig
from onelayer.tasks import Batch
from onelayer.training import engines
from onelayer.training.config import resolve
from onelayer.training.objective import Objective, loss_and_grads

SHAPE: dict[str, Any] = {"vocab_size": V, "n_ctx": T, "d_model": 8, "n_heads": 2, "d_head": 6, "d_mlp": 10}


def both(cfg: ModelConfig) -> tuple[Any, Any]:
    p, ids = drawn(cfg), tokens()
    dlogits = generator(3, "test_tables").standard_normal((B, 1, V))
    plain, c = decoder_only.forward(p, ids, cfg, read=1)
    short, s = tables.forward(p, ids, cfg)
    return (short, tables.backward(dlogits, s, cfg)), (plain, decoder_only.backward(dlogits, c, cfg))


@pytest.mark.parametrize("position", EXACT)
@pytest.mark.parametrize("norm", ["none", "pre", "post"])
def test_equals_the_plain_path(position, norm):
    cfg = ModelConfig(**SHAPE, position=position, norm=norm, attention_bias=True, unembed_bias=True, embed_scale=True)
    assert tables.fits(cfg, (B, T), 1)
    assert_equal(*both(cfg))


@pytest.mark.parametrize("options", [{"tied": "unembed"}, {"norm": "pre", "norm_kind": "rms"}, {"activation": "gelu"},
                                     {"causal": False}, {"mlp_bias": False}])  # fmt: skip
def test_equals_the_plain_path_with(options):
    (logits, grads), (plain, expected) = both(ModelConfig(**SHAPE, **options))
    assert furthest([logits], [plain]) < 1e-12
    assert furthest(grads, expected) < 1e-12


def test_on_every_backend(xp):
    cfg = ModelConfig(**SHAPE, norm="pre", position="learned", attention_bias=True)
    dlogits = generator(3, "test_tables").standard_normal((B, 1, V))

    def shortcut(p: Any, ids: Any, dlogits: Any) -> Any:
        logits, c = tables.forward(p, ids, cfg)
        return logits, tables.backward(dlogits, c, cfg)

    logits, grads = xp(shortcut, drawn(cfg), tokens(), dlogits)
    plain, c = decoder_only.forward(drawn(cfg), tokens(), cfg, read=1)
    expected = decoder_only.backward(dlogits, c, cfg)
    assert furthest([logits], [plain]) < 1e-12
    assert furthest(without_b_K(grads), without_b_K(expected)) < 1e-12


@pytest.mark.parametrize(
    ("options", "shape", "read"),
    [
        ({"n_layers": 2}, (B, T), 1),  # the second layer's keys hang on more than their token
        ({}, (B, T), 2),
        ({}, (B, T), None),
        ({}, (V, T), 1),  # as many rows as examples
        ({"vocab_size": 40}, (41, T), 1),  # 40² scores a head and position: more than the keys of 41 examples cost
    ],
)
def test_where_it_is_not_exact_or_saves_nothing_it_is_not_taken(options, shape, read):
    assert not tables.fits(ModelConfig(**SHAPE | options), shape, read)


def test_a_bias_that_looks_around_is_not_taken(monkeypatch):
    from onelayer.positions import alibi

    monkeypatch.setattr(alibi, "PAIRWISE", False)
    assert not tables.fits(ModelConfig(**SHAPE, position="alibi"), (B, T), 1)


def test_training_takes_it_and_agrees(monkeypatch):
    cfg, ids = ModelConfig(**SHAPE), tokens()
    batch = Batch(ids, ids[:, :1])
    shortcuts = []
    monkeypatch.setattr(tables, "forward", partial(counted, tables.forward, shortcuts))
    loss, grads = loss_and_grads(drawn(cfg), batch, Objective(cfg, 1))
    assert len(shortcuts) == 1
    monkeypatch.setattr(tables, "fits", lambda *_: False)
    plain, expected = loss_and_grads(drawn(cfg), batch, Objective(cfg, 1))
    assert len(shortcuts) == 1
    assert abs(loss - plain) < 1e-12
    assert furthest(grads, expected) < 1e-12


def test_the_forward_pass_of_an_evaluation_is_the_next_steps():
    config = resolve({"task": {"p": 11}, "model": {"d_model": 8, "n_heads": 2, "d_mlp": 12}, "dtype": "float64"})
    task = config.task.make(0)
    watched, plain = (engines.get("numpy")(config, task) for _ in range(2))
    state = watched.start()
    first, _ = plain.run(state, 0, 2)
    watched.evaluate(state)
    kept = watched._ahead[1]
    second, _ = watched.run(state, 0, 2)
    assert kept is not None
    for name, array in flatten(first.params).items():
        np.testing.assert_array_equal(array, flatten(second.params)[name])
    watched.evaluate(first)
    assert watched._take_ahead(state) is None  # made for other parameters
