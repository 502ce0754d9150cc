"""Guards models/first_attention.py: logits and gradients equal the plain path's to 1e-12, or it is not taken."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from backends import needs
from shortcuts import EXACT, assert_equal, counted, furthest, without_b_K

from onelayer import fused, kernels, positions
from onelayer.arrays import flatten, generator, map_tree, natural
from onelayer.models import decoder_only, encoder_decoder, first_attention
from onelayer.models.config import ModelConfig
from onelayer.positions import Size
from onelayer.sublayers import attention_blocked, attention_rows
from onelayer.tasks import Batch
from onelayer.training.engines import shares
from onelayer.training.objective import Objective, forward, loss_and_grads, meet, meet_again

B, T, S, V, U = 4, 6, 5, 7, 9  # U: the source's vocabulary
SHAPE: dict[str, Any] = {
    "vocab_size": V, "source_vocab_size": U, "n_ctx": T, "source_n_ctx": S,
    "d_model": 8, "n_heads": 2, "d_head": 6, "d_mlp": 10,
}  # fmt: skip
BOTH = ("decoder_only", "encoder_decoder")


def drawn(cfg: ModelConfig) -> Any:
    """Parameters that are nobody's initial values: gains, biases and all."""
    rng = generator(1, "first_attention")
    model = decoder_only if cfg.architecture == "decoder_only" else encoder_decoder
    return map_tree(lambda a: a + 0.2 * rng.standard_normal(a.shape), model.init(cfg, 0))


def data(cfg: ModelConfig, examples: int = B) -> Batch:
    """The last token never occurs. Of the sources some are padded."""
    rng = generator(2, "first_attention")
    tokens, targets = (rng.integers(0, V - 1, (examples, T)) for _ in range(2))
    if cfg.architecture == "decoder_only":
        return Batch(tokens, targets)
    source = rng.integers(0, (cfg.source_vocab_size or V) - 1, (examples, S))
    return Batch(tokens, targets, source=source, source_mask=natural(S) < rng.integers(1, S + 1, (examples, 1)))


def plain(cfg: ModelConfig, p: Any, batch: Batch, read: int = T) -> Any:
    """The model's forward, and its backward."""
    if cfg.architecture == "decoder_only":
        logits, c = decoder_only.forward(p, batch.tokens, cfg, read=read)
        return logits, lambda dlogits: decoder_only.backward(dlogits, c, cfg)
    logits, c = encoder_decoder.forward(p, batch.source, batch.tokens, cfg, source_present=batch.source_mask)
    return logits, lambda dlogits: encoder_decoder.backward(dlogits, c, cfg)


def short(cfg: ModelConfig, p: Any, batch: Batch, read: int = T) -> Any:
    """The same by the shortcut."""
    seen, origins = first_attention.meet(p, cfg, *(ids for ids in (batch.source, batch.tokens) if ids is not None))
    logits, c = first_attention.forward(
        seen, batch.tokens, cfg, read=read, source=batch.source, source_present=batch.source_mask
    )
    return logits, lambda dlogits: first_attention.meet_backward(
        first_attention.backward(dlogits, c, cfg), origins, cfg
    )


def both(cfg: ModelConfig, read: int = T) -> tuple[Any, Any]:
    p, batch = drawn(cfg), data(cfg)
    dlogits = generator(3, "first_attention").standard_normal((B, read, V))
    return tuple((logits, back(dlogits)) for logits, back in (way(cfg, p, batch, read) for way in (short, plain)))


@pytest.mark.parametrize("position", EXACT)
@pytest.mark.parametrize("norm", ["none", "pre", "post"])
@pytest.mark.parametrize("architecture", BOTH)
def test_equals_the_plain_path(architecture, norm, position):
    cfg = ModelConfig(**SHAPE, architecture=architecture, norm=norm, position=position, attention_bias=True)
    assert_equal(*both(cfg))


PRE, POST = {"norm": "pre"}, {"norm": "post"}


@pytest.mark.parametrize("options", [{}, PRE, PRE | {"norm_kind": "rms"}, POST, POST | {"norm_kind": "rms"},
                                     PRE | {"final_norm": False}, PRE | {"embed_scale": True}, PRE | {"causal": False},
                                     POST | {"embed_scale": True}])  # fmt: skip
@pytest.mark.parametrize("others", [{}, {"attention_bias": True}, {"tied": "unembed"}, {"n_layers": 2},
                                    {"tied": "all", "source_vocab_size": None}])  # fmt: skip
@pytest.mark.parametrize("architecture", BOTH)
def test_equals_the_plain_path_with(architecture, others, options):
    assert_equal(*both(ModelConfig(**SHAPE | {"architecture": architecture} | others | options)))


@pytest.mark.parametrize("norm", ["none", "pre", "post"])
def test_of_several_layers_the_last_may_be_read_at_the_end(norm):
    assert_equal(*both(ModelConfig(**SHAPE, n_layers=2, norm=norm, position="rope"), read=2))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("architecture", BOTH)
def test_its_gradient_is_the_slope(architecture, norm):
    cfg = ModelConfig(**SHAPE, architecture=architecture, norm=norm, attention_bias=True, n_layers=2)
    p, batch, rng = drawn(cfg), data(cfg), generator(4, "first_attention")
    along, h = map_tree(lambda a: rng.standard_normal(a.shape), p), 1e-5
    dlogits = rng.standard_normal((B, T, V))
    up, down = (short(cfg, map_tree(lambda a, d, s=s: a + s * d, p, along), batch)[0] for s in (h, -h))
    grads, way = flatten(short(cfg, p, batch)[1](dlogits)), flatten(along)
    slope = sum(float(np.vdot(grads[name], way[name])) for name in grads)
    assert abs(np.vdot(dlogits, up - down) / (2 * h) - slope) < 1e-6 * abs(slope)


def test_a_token_that_does_not_occur_feels_nothing():
    (_, grads), _ = both(ModelConfig(**SHAPE, norm="pre"))
    assert not np.any(grads.embed.W_E[-1])
    assert np.all(np.any(grads.embed.W_E[:-1], axis=1))


def test_shorter_examples_look_up_in_the_tables_of_longer_ones():
    cfg = ModelConfig(**SHAPE, norm="pre")
    p, batch, fewer = drawn(cfg), data(cfg), T - 2
    seen, origins = first_attention.meet(p, cfg, batch.tokens)
    logits, c = first_attention.forward(seen, batch.tokens[:, :fewer], cfg)
    expected, back = plain(cfg, p, batch._replace(tokens=batch.tokens[:, :fewer]), fewer)
    dlogits = generator(3, "first_attention").standard_normal(logits.shape)
    grads = first_attention.meet_backward(first_attention.backward(dlogits, c, cfg), origins, cfg)
    assert_equal((logits, grads), (expected, back(dlogits)))


@pytest.mark.parametrize("name", [name for name in positions.available() if positions.get(name).has("embedding")])
def test_what_is_added_to_the_embeddings_hangs_on_the_place_alone(name):
    """What `tabulate` takes for granted of every method."""
    method, rng = positions.get(name), generator(5, "first_attention")
    p = method.init(rng, Size(8, 2, 4, T))
    x, dx = rng.standard_normal((2, B, T, 8))
    (added, c), (nothing, c_zero) = (method.encode_x(p, a, natural(T)) for a in (x, 0 * x[:1]))
    assert np.abs(added - x - nothing).max() < 1e-14
    (sent, d), (_, d_zero) = (
        method.encode_x_backward(*a) for a in ((dx, c), (np.sum(dx, axis=0, keepdims=True), c_zero))
    )
    np.testing.assert_array_equal(sent, dx)
    assert d is None or furthest(d, d_zero) < 1e-12


DEFAULT: dict[str, Any] = {"vocab_size": 65, "n_ctx": 64, "norm": "pre"}
THERE = {"models.first_attention.gather": lambda definition, *args: definition(*args)}


@pytest.mark.parametrize(
    ("options", "shape", "read", "taken"),
    [
        ({}, (64, 64), 64, True),
        ({"norm": "post", "position": "rope"}, (64, 64), 64, True),
        ({"position": "alibi"}, (64, 64), 64, True),
        ({"n_layers": 4}, (64, 64), 1, True),
        ({}, (64, 64), 63, False),  # one layer, whose first queries nobody asks for
        ({"position": "cope"}, (64, 64), 64, False),  # a score that hangs on the keys around
        ({"position": "forget"}, (64, 64), 64, False),  # one that hangs on x
        ({"position": "shaw"}, (64, 64), 64, False),  # values that hang on the place
        ({"position_ids": "random", "position_ids_settings": {"reach": 128}}, (64, 64), 64, False),  # by example
        ({}, (2, 64), 64, False),  # fewer rows than tokens and places
        ({"vocab_size": 1000}, (64, 64), 64, False),
        ({"d_model": 16}, (64, 64), 64, False),  # products as short as the look-ups
        ({"n_ctx": 512}, (64, 512), 512, False),  # attention in blocks
    ],
)
def test_where_it_is_taken(options, shape, read, taken):
    cfg = ModelConfig(**DEFAULT | options)
    p, ids = map_tree(lambda a: a.astype(np.float32), decoder_only.init(cfg, 0)), np.zeros(shape, np.int64)
    with fused.using(THERE):
        assert first_attention.fits(p, cfg, read, ids) is taken
        assert not first_attention.fits(map_tree(lambda a: a + 0j, p), cfg, read, ids)
    assert not first_attention.fits(p, cfg, read, ids)  # no kernel: NumPy's passes take as long as the products


@pytest.mark.parametrize("architecture", BOTH)
@pytest.mark.parametrize("threads", [1, 2])
def test_training_takes_it_and_agrees(architecture, threads, monkeypatch):
    cfg = ModelConfig(**SHAPE, architecture=architecture, norm="pre")
    p, batch, goal, looks = drawn(cfg), data(cfg), Objective(cfg, T), []
    expected, plainly = loss_and_grads(p, batch, goal)
    monkeypatch.setattr(first_attention, "look", partial(counted, first_attention.look, looks))
    monkeypatch.setattr(first_attention, "WORTHWHILE", -(1 << 30))
    monkeypatch.setattr(shares, "WORTHWHILE", 1)
    monkeypatch.setattr(shares.threads, "count", lambda: threads)
    with fused.using(THERE, attention_rows.STAND_INS, attention_blocked.STAND_INS):
        loss, grads = shares.gradient(p, batch, goal)
    assert len(looks) == threads * (1 if architecture == "decoder_only" else 2)
    assert abs(loss - expected) < 1e-12
    assert furthest(without_b_K(grads), without_b_K(plainly)) < 1e-12


def test_what_is_met_is_met_once(monkeypatch):
    cfg = ModelConfig(**SHAPE, norm="pre")
    p, batch, goal = drawn(cfg), data(cfg), Objective(cfg, T)
    monkeypatch.setattr(first_attention, "WORTHWHILE", -(1 << 30))
    with fused.using(THERE):
        met = meet(p, batch, goal)
        assert isinstance(met.params, first_attention.Seen)
        assert meet(met.params, met.batch, goal).params is met.params
        assert meet_again(met, batch, goal) is None  # as soon tabulated anew
        numbered = batch._replace(ids=batch.tokens)
        assert meet(p, numbered, goal).params is p
    assert furthest([forward(met.params, batch, goal)[0]], [plain(cfg, p, batch)[0]]) < 1e-12


def test_under_jax_the_examples_meet_the_parameters(monkeypatch):
    import jax

    cfg, made = ModelConfig(**SHAPE, norm="pre"), []
    monkeypatch.setattr(first_attention, "WORTHWHILE", -(1 << 30))

    def step(ids: Any) -> Any:
        made.append(meet(drawn(cfg), Batch(ids, ids), Objective(cfg, T)).made_of)
        return ids

    with fused.using(THERE):
        jax.jit(step)(data(cfg).tokens)
    assert made == [None]


def test_a_row_of_nothing_but_its_place_is_normed_as_ever():
    """What a token adds is the place's with the sign turned: by the expanded square, rounding alone is left."""
    cfg = ModelConfig(**SHAPE | {"position": "learned", "norm": "pre"})
    p, batch = drawn(cfg), data(cfg)
    W_E = p.embed.W_E.copy()
    W_E[:T] = -p.pos_embed.W_pos
    p = p._replace(embed=p.embed._replace(W_E=W_E))
    batch = batch._replace(tokens=np.tile(natural(T), (B, 1)))
    assert furthest([short(cfg, p, batch)[0]], [plain(cfg, p, batch)[0]]) < 1e-9


@needs("numba")
def test_the_step_of_the_kernels_is_the_plain_one():
    cfg = ModelConfig(**DEFAULT | {"d_mlp": 16})
    p = map_tree(lambda a: a.astype(np.float32), decoder_only.init(cfg, 0))
    rng = generator(6, "first_attention")
    batch = Batch(*(rng.integers(0, 65, (64, 64)) for _ in range(2)))
    expected, plainly = loss_and_grads(p, batch, Objective(cfg, 64))
    with fused.using(kernels.available(), attention_rows.STAND_INS):
        assert meet(p, batch, Objective(cfg, 64)).made_of is not None
        loss, grads = loss_and_grads(p, batch, Objective(cfg, 64))
    assert abs(loss - expected) < 1e-5
    assert furthest(without_b_K(grads), without_b_K(plainly)) < 1e-4
