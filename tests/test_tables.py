"""Guards models/tables.py: the shortcut's logits and gradients equal the plain path's to 1e-12, or it is not taken."""

from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from onelayer import positions
from onelayer.arrays import flatten, generator, map_tree
from onelayer.models import decoder_only, tables
from onelayer.models.config import ModelConfig
from onelayer.tasks import Batch
from onelayer.training import engines
from onelayer.training.config import resolve
from onelayer.training.objective import Objective, loss_and_grads

B, T, V = 23, 3, 7
SHAPE: dict[str, Any] = {"vocab_size": V, "n_ctx": T, "d_model": 8, "n_heads": 2, "d_head": 6, "d_mlp": 10}
EXACT = [
    name
    for name in positions.available()
    if find_spec(f"onelayer.positions.{name}")
    and ((method := positions.get(name)).pairwise or not method.has("score"))
    and not method.has("value")
]


def drawn(cfg: ModelConfig) -> Any:
    """Parameters that are nobody's initial values: gains, biases and all."""
    rng = generator(1, "test_tables")
    return map_tree(lambda a: a + 0.3 * rng.standard_normal(a.shape), decoder_only.init(cfg, 0))


def tokens() -> np.ndarray:
    ids = generator(2, "test_tables").integers(0, V - 1, (B, T))  # the last token never occurs: its rows feel nothing
    ids[:4] = ids[0]
    return ids


def furthest(a: Any, b: Any) -> float:
    """The largest relative error of any tensor."""
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    return max(float(np.linalg.norm(a[n] - b[n]) / (np.linalg.norm(b[n]) or 1)) for n in a)


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
    (logits, grads), (plain, expected) = both(cfg)
    assert furthest([logits], [plain]) < 1e-12
    assert furthest(without_b_K(grads), without_b_K(expected)) < 1e-12
    for name in flatten(grads).keys() - without_b_K(grads).keys():
        got, want = flatten(grads)[name], flatten(expected)[name]
        assert np.abs(got - want).max() < 1e-12, name  # what moves all scores of a row alike is not felt: all rounding


def without_b_K(tree: Any) -> Any:
    return {name: array for name, array in flatten(tree).items() if not name.endswith(("b_K", "pos.b_in"))}


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
    monkeypatch.setattr(tables, "forward", partial(_counted, tables.forward, shortcuts))
    loss, grads = loss_and_grads(drawn(cfg), batch, Objective(cfg, 1))
    assert len(shortcuts) == 1
    monkeypatch.setattr(tables, "fits", lambda *_: False)
    plain, expected = loss_and_grads(drawn(cfg), batch, Objective(cfg, 1))
    assert len(shortcuts) == 1
    assert abs(loss - plain) < 1e-12
    assert furthest(grads, expected) < 1e-12


def _counted(forward: Any, calls: list, *args: Any) -> Any:
    calls.append(1)
    return forward(*args)


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
