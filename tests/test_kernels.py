"""Guards kernels/: each fused kernel equals its definition to 1e-12 in float64, and hands on what it cannot take."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from backends import needs
from stand_ins import ROUNDING, Counting, agree, random

from onelayer import fused, kernels, threads
from onelayer.arrays import generator, map_tree
from onelayer.layers import activations, cross_entropy, embedding, layer_norm, linear, rms_norm, softmax, unembedding
from onelayer.models import circuits, decoder_only, first_attention, halves, tables
from onelayer.models.config import ModelConfig
from onelayer.models.decoder_only import Block
from onelayer.optimizers import adamw
from onelayer.sublayers import feed_forward, normalise
from onelayer.training import objective, step

pytestmark = needs("numba")


@pytest.fixture(params=ROUNDING)
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


WAYS = ("forward", "backward")
SIZES = [(5, 7), (3, 700, 128)]  # within one thread, and spread over several


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("kind", activations.FUNCTIONS)
def test_activations(kind, shape, dtype):
    def both(x: Any, dy: Any) -> Any:
        y, c = activations.forward(x, kind)
        return y, c.slope, activations.backward(dy, c)

    names = ["layers.activations.backward"]
    names += [] if kind in ("quadratic", "identity") else ["layers.activations.forward"]
    agree(both, random(*shape, scale=3), random(*shape, purpose="dy"), dtype=dtype, names=names)


@pytest.mark.parametrize("shape", [(2, 5, 7), (3, 700, 128)])
@pytest.mark.parametrize("kind", activations.FUNCTIONS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("F", [16, 130])
def test_feed_forward(F, biased, kind, shape, dtype):
    D = shape[-1]
    p = feed_forward.Params(random(D, F), random(F), random(F, D), random(D))
    p = p if biased else p._replace(b_in=None, b_out=None)

    def both(p: Any, x: Any, dy: Any) -> Any:
        y, c = feed_forward.forward(p, x, kind)
        return y, feed_forward.backward(dy, c)

    names = [] if kind in ("quadratic", "identity") else [f"sublayers.feed_forward.{way}" for way in WAYS]
    agree(both, p, random(*shape), random(*shape, purpose="dy"), dtype=dtype, names=names)


@pytest.mark.parametrize("shape", [(2, 5, 7), (3, 700, 128)])
def test_the_norm_of_a_sum(shape, dtype):
    def normed(p: Any, x: Any, more: Any) -> Any:
        y, c = normalise.of_sum(p, x, more, 1e-5)
        return y, c

    p = layer_norm.Params(random(shape[-1]), random(shape[-1]))
    agree(normed, p, random(*shape), random(*shape, purpose="more"), dtype=dtype, names=["sublayers.normalise.of_sum"])


@pytest.mark.parametrize("shape", [(2, 5, 7), (3, 700, 64)])
@pytest.mark.parametrize("kind", ["relu", "gelu"])
@pytest.mark.parametrize("norm_kind", ["layer", "rms"])
@pytest.mark.parametrize("norm", ["none", "pre", "post"])
def test_think(norm, norm_kind, kind, shape, dtype):
    D, F = shape[-1], 40
    shape_of: dict[str, Any] = {"vocab_size": 9, "n_ctx": 9, "d_model": D, "n_heads": 1, "d_mlp": F}
    cfg = ModelConfig(**shape_of, activation=kind, norm=norm)
    mlp = feed_forward.Params(random(D, F), random(F), random(F, D), random(D))
    ln2 = layer_norm.Params(random(D), random(D)) if norm_kind == "layer" else rms_norm.Params(random(D))

    def both(p: Any, mid: Any, dpost: Any) -> Any:
        post, c = halves.think(p, mid, cfg)
        return post, halves.think_backward(dpost, c, cfg)

    p = Block(None, None, None if norm == "none" else ln2, mlp)
    names = ["models.halves.think", "models.halves.think_backward"]
    agree(both, p, random(*shape), random(*shape, purpose="dpost"), dtype=dtype, names=names)


def test_feed_forward_at_the_kink():
    """ReLU's slope is read off what it gave: nothing flows where pre is 0, or below."""
    p = feed_forward.Params(np.eye(4), np.zeros(4), np.eye(4), None)
    with fused.using(Counting()):
        y, c = feed_forward.forward(p, np.array([[[-1.0, -0.0, 0.0, 1e-300]]]), "relu")
        dx, _ = feed_forward.backward(np.ones((1, 1, 4)), c)
    assert y.tolist() == [[[0, 0, 0, 1e-300]]]
    assert dx.tolist() == [[[0, 0, 0, 1]]]


def test_feed_forward_with_a_tap_is_the_definition():
    p = feed_forward.Params(random(5, 7), random(7), random(7, 5), random(5))
    seen: dict[str, Any] = {}

    def note(name: str, x: Any) -> Any:
        seen.setdefault(name, x.copy())
        return 2 * x

    def both(p: Any, x: Any, dy: Any) -> Any:
        y, c = feed_forward.forward(p, x, "gelu", note)
        return y, feed_forward.backward(dy, c, note)

    agree(both, p, random(2, 3, 5), random(2, 3, 5, purpose="dy"), dtype="float64", names=[])
    assert seen.keys() == {"hook_pre", "hook_post"}


def test_gelu_far_out(dtype):
    """The tails keep their relative precision: the definition's own cancels there, so scipy-free closed values."""
    from math import erfc, sqrt

    x = np.linspace(-9, 9, 401)
    with fused.using(kernels.available()):
        y, _ = activations.forward(x.astype(dtype), "gelu")
    exact = np.array([v * 0.5 * erfc(-v / sqrt(2)) for v in x.astype(dtype).astype(float)])
    assert np.max(np.abs(y - exact) / (np.abs(exact) + 1e-30)) < {"float64": 1e-12, "float32": 5e-5}[dtype]


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5, 5), (2, 2, 300, 257)])
@pytest.mark.parametrize("mask", ["none", "causal", "padding", "gaps", "both", "nothing allowed"])
def test_softmax(shape, mask, dtype):
    S, allowed = shape[-1], None
    if mask == "causal":
        allowed = np.tril(np.ones((shape[-2], S), bool))[(None,) * (len(shape) - 2)]
    elif mask == "padding":
        lengths = np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1)) % S  # the first example has none
        allowed = np.arange(S) < lengths
    elif mask == "gaps":
        allowed = random(shape[0], *(1,) * (len(shape) - 2), S, purpose="gaps") > 0
    elif mask == "both":
        own = shape if len(shape) == 2 else (shape[0], *(1,) * (len(shape) - 3), *shape[-2:])
        allowed = np.tril(random(*own, purpose="gaps") > 0)
    elif mask == "nothing allowed":
        allowed = np.zeros((1,) * len(shape), bool)

    def both(scores: Any, dpattern: Any) -> Any:
        pattern, c = softmax.forward(scores, allowed)
        return pattern, softmax.backward(dpattern, c)

    names = ["layers.softmax.forward", "layers.softmax.backward"]
    agree(both, random(*shape, scale=9), random(*shape, purpose="dy"), dtype=dtype, names=names)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_norms(norm, shape, dtype):
    D = shape[-1]
    gain, bias = random(D, purpose="gain"), random(D, purpose="bias")
    p = norm.Params(gain, bias) if norm is layer_norm else norm.Params(gain)

    def both(p: Any, x: Any, dy: Any) -> Any:
        y, c = norm.forward(p, x, 1e-3)
        return y, c, norm.backward(dy, c)

    names = [f"layers.{norm.__name__.split('.')[-1]}.{way}" for way in WAYS]
    agree(both, p, random(*shape) + 2, random(*shape, purpose="dy"), dtype=dtype, names=names)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({}, True),
        ({"temperature": 1.7}, True),
        ({"variant": "float64"}, True),
        ({"smoothing": 0.1}, True),
        ({"smoothing": 0.1, "never": 0, "temperature": 1.7}, True),
        ({"smoothing": 0.2, "never": 2, "variant": "float64"}, True),
        ({"smoothing": 0.1, "variant": "stablemax"}, False),
        ({"variant": "stablemax"}, False),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(options, runs, weighted, shape, dtype):
    targets = generator(1, "targets").integers(0, shape[-1], shape[:-1])
    weights = np.maximum(random(*shape[:-1], purpose="weights") + 0.5, 0) if weighted else None  # a third have none

    def both(z: Any) -> Any:
        loss, c = cross_entropy.forward(z, targets, weights, **options)
        return loss, cross_entropy.backward(c)

    agree(both, random(*shape, scale=5), dtype=dtype, names=["layers.cross_entropy.forward"] if runs else [])


@pytest.mark.parametrize("scale", [1.0, 3.5])
@pytest.mark.parametrize("shape", SIZES)
def test_embedding(shape, scale, dtype):
    tokens = generator(0, "tokens").integers(0, 9, shape[:-1])

    def collected(dx: Any, table: Any) -> Any:
        return embedding.backward(dx, embedding.Cache(table, tokens), scale)

    table = random(11, shape[-1], purpose="table")  # two rows of which no one asked for
    agree(collected, random(*shape), table, dtype=dtype, names=["layers.embedding.backward"])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_adamw(dtype, n, monkeypatch):
    """Of tensors of all sizes, whatever the number of threads that they are shared out to."""
    monkeypatch.setattr(threads, "_allowed", lambda process: n)
    threads._pool.cache_clear()
    shapes = {"a": (4, 3), "b": (700, 300), "c": (0,), "d": (500, 600), "e": (), "f": (1,), "g": (40, 20, 30)}
    p = {name: random(*shape, purpose=name) for name, shape in shapes.items()}
    g = {name: random(*x.shape[::-1], purpose="g").T for name, x in p.items()}  # in another order
    mask = {name: 0.25 if name == "b" else 1.0 for name in reversed(p)}

    def three(p: Any, g: Any) -> Any:
        state = adamw.init(p)
        for _ in range(3):
            p, state = adamw.update(g, state, p, lr=0.02, beta2=0.98, weight_decay=1.5, decay_mask=mask)
        return p, state

    agree(three, p, g, dtype=dtype, names=["optimizers.adamw.update"])


@pytest.mark.parametrize("sizes", [[1], [5, 1 << 20], [1 << 20, 5], [0, 7, 0], [1 << 18] * 7, [3, 1 << 19, 1, 1 << 19]])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_tensor_has_one_thread(n, sizes, monkeypatch):
    from onelayer.kernels.optimizers import _edges

    monkeypatch.setattr(threads, "_allowed", lambda process: n)
    edges = _edges(sizes)
    assert (edges[0], edges[-1]) == (0, len(sizes))
    assert edges == sorted(edges)
    shares = [sum(sizes[i:j]) for i, j in pairwise(edges)]
    assert max(shares) <= sum(sizes) / len(shares) + max(sizes)


def test_norm_of_a_gradient(dtype):
    g = {"a": random(4, 3), "b": random(700, 300).T, "c": random(5)[::2]}
    agree(lambda g: {"norm": step.norm(g)}, g, dtype=dtype, names=["training.step.norm"])


@pytest.mark.parametrize("n", [23, 3000])
def test_surprises(n, dtype):
    rows, targets = random(n, 97, scale=3.0), generator(4, "targets").integers(0, 97, n)
    rows[1, [3, 8]], targets[1] = 20.0, 3  # of two that are expected alike the first is what is said
    rows[2, [3, 8]], targets[2] = 20.0, 8

    def both(rows: Any) -> Any:
        surprise, hit = objective.surprises(rows, targets)
        return surprise, hit.astype(float)

    agree(both, rows, dtype=dtype, names=["training.objective.surprises"])


def test_surprises_of_what_is_no_number():
    rows = random(5, 7)
    rows[2, 3] = np.nan
    targets = np.array([0, 1, 3, 3, 4])
    with fused.using(kernels.available()):
        surprise, hit = objective.surprises(rows, targets)
    expected = objective.surprises(rows, targets)
    np.testing.assert_array_equal(surprise, expected[0])
    np.testing.assert_array_equal(hit, expected[1])
    assert np.isnan(surprise[2])


@pytest.mark.parametrize("batch", [23, 900])
def test_tables(batch, dtype):
    shape: dict[str, Any] = {"vocab_size": 7, "n_ctx": 4, "d_model": 16, "n_heads": 4, "d_head": 16, "d_mlp": 10}
    cfg = ModelConfig(**shape, norm="pre")
    p = map_tree(lambda a: a + 0.3 * random(*a.shape), decoder_only.init(cfg, 0))
    tokens = generator(2, "tokens").integers(0, 7, (batch, 4))

    def both(p: Any, dlogits: Any) -> Any:
        logits, c = tables.forward(p, tokens, cfg)
        return logits, tables.backward(dlogits, c, cfg)

    names = ["models.tables.look", "models.tables.look_backward"]
    agree(both, p, random(batch, 1, 7, purpose="dlogits"), dtype=dtype, names=names)


@pytest.mark.parametrize("alike", [False, True])  # whether all ask alike, as where the last token is =
@pytest.mark.parametrize(
    ("heads", "batch", "options"),
    [
        (4, 1, {}),
        (4, 23, {}),
        (4, 900, {"unembed_bias": True}),
        (1, 60, {}),
        (6, 60, {"mlp_bias": False}),
        (4, 60, {"activation": "gelu"}),
        (1, 60, {"d_head": 140, "d_mlp": 8}),  # wider than all that is read
    ],
)
def test_circuits(heads, batch, options, alike, dtype, monkeypatch):
    monkeypatch.setattr(circuits, "adds_rows_up", lambda *_: True)
    shape: dict[str, Any] = {"vocab_size": 7, "n_ctx": 3, "d_model": 16, "n_heads": heads, "d_head": 9, "d_mlp": 21}
    cfg = ModelConfig(**shape | options)
    p = map_tree(lambda a: a + 0.3 * random(*a.shape), decoder_only.init(cfg, 0))
    tokens = generator(2, "tokens").integers(0, 5, (batch, 3))  # two tokens never occur: their rows feel nothing
    tokens[:, -1] = 6 if alike else tokens[:, -1]

    def both(p: Any, dlogits: Any) -> Any:
        made, origin = circuits.multiply_out(p, tokens, cfg)
        rows = origin.rows.seats.rows
        logits, c = circuits.forward(made, rows, cfg)
        d = circuits.multiply_out_backward(circuits.backward(dlogits, c, cfg), origin, cfg)
        return logits, circuits.say(made, rows, cfg), d

    names = [f"models.circuits.{name}" for name in ("answer", "answer_alone", "answer_backward", "paid")]
    agree(both, p, random(batch, 1, 7, purpose="dlogits"), dtype=dtype, names=names)


@pytest.mark.parametrize("examples", [3, 300])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_first_attention(examples, normed, biased, dtype):
    V, M, T, N = 7, 6, 5, 102  # the tables have a place more than the examples
    tokens = generator(2, "tokens").integers(0, V - 1, (examples, T))
    rstd, b = random(V, M) if normed else None, random(N, purpose="b") if biased else None

    def both(dy: Any, *tables: Any) -> Any:
        return first_attention.gather(tokens, *tables), first_attention.gather_backward(dy, tokens, *tables)

    names = ["models.first_attention.gather", "models.first_attention.gather_backward"]
    given = random(examples, T, N, purpose="dy"), random(V, N), random(M, N, purpose="place"), rstd, b
    agree(both, *given, dtype=dtype, names=names)


def test_circuits_take_gradients_as_they_lie(monkeypatch):
    monkeypatch.setattr(circuits, "adds_rows_up", lambda *_: True)
    shape: dict[str, Any] = {"vocab_size": 7, "n_ctx": 3, "d_model": 16, "n_heads": 2, "d_mlp": 21}
    cfg = ModelConfig(**shape)
    tokens, dlogits = generator(2, "tokens").integers(0, 7, (50, 3)), random(50, 1, 7, purpose="dlogits")
    with fused.using(kernels.available()):
        made, origin = circuits.multiply_out(decoder_only.init(cfg, 0), tokens, cfg)
        _, c = circuits.forward(made, origin.rows.seats.rows, cfg)
        expected = circuits.backward(dlogits, c, cfg)
        for given in (np.asfortranarray(dlogits), np.repeat(dlogits, 2, axis=2)[:, :, ::2]):
            np.testing.assert_array_equal(circuits.backward(given, c, cfg).mlp_out, expected.mlp_out)


def test_circuits_of_many_positions_are_products():
    """Beyond K/3 positions adding rows up takes longer than the product."""
    shape: dict[str, Any] = {"vocab_size": 5, "n_ctx": 4, "d_model": 12, "n_heads": 2, "d_head": 6, "d_mlp": 10}
    cfg, counting = ModelConfig(**shape), Counting()
    tokens = generator(2, "tokens").integers(0, 5, (30, 4))
    with fused.using(counting):
        made, origin = circuits.multiply_out(decoder_only.init(cfg, 0), tokens, cfg)
        circuits.forward(made, origin.rows.seats.rows, cfg)
    assert "models.circuits.paid" not in counting.ran
    assert counting.ran["models.circuits.answer"] == 0
    assert counting.ran["models.tables.look"] == 1


def test_what_they_cannot_take_goes_to_the_definition():
    strided = random(6, 8)[:, ::2]
    definition: Any = softmax.forward
    for x in (strided, strided + 1j * strided):
        with fused.using(kernels.available()):
            pattern, c = softmax.forward(x)
            np.testing.assert_array_equal(pattern, definition.__wrapped__(x)[0])
            assert softmax.backward(x, c).dtype == x.dtype


def test_not_a_number_shows():
    """A kernel must not hide what the run's divergence check looks for."""
    x = random(3, 5)
    x[1, 2] = np.nan
    with fused.using(kernels.available()):
        assert np.isnan(softmax.forward(x)[0][1]).all()
        assert np.isnan(softmax.forward(x, np.ones((1, 5), bool))[0][1]).all()
        for kind in ("relu", "gelu", "gelu_tanh", "silu"):
            assert np.isnan(activations.forward(x, kind)[0][1, 2])
            y, c = feed_forward.forward(feed_forward.Params(np.eye(5), None, np.eye(5), None), x[None], kind)
            assert np.isnan(y[0, 1]).all()
            dx, _ = feed_forward.backward(x[None], c)
            assert np.isnan(dx[0, 1]).all()
        assert np.isnan(cross_entropy.forward(x, np.array([0, 1, 2]))[0])


def test_they_are_off_unless_turned_on():
    assert dict(fused._active.get({})) == {}


@pytest.mark.parametrize("shape", SIZES)
def test_linear(shape, dtype):
    def both(p: Any, x: Any, dy: Any) -> Any:
        y, c = linear.forward(p, x)
        return y, linear.backward(dy, c)

    p, dy = linear.Params(random(shape[-1], 11), random(11, purpose="bias")), random(*shape[:-1], 11, purpose="dy")
    names = [f"layers.linear.{way}" for way in WAYS]
    for some in (p, p._replace(bias=None)):
        agree(both, some, random(*shape), dy, dtype=dtype, names=names)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("V", [65, 82])
def test_unembedding(V, tied, biased, dtype):
    def both(W: Any, b: Any, x: Any, dlogits: Any) -> Any:
        p = unembedding.Params(None, b if biased else None)
        logits, c = unembedding.forward(unembedding.tied(p, W) if tied else p._replace(W_U=W), x)
        return logits, unembedding.backward(dlogits, c)

    W, b = random(*((V, 48) if tied else (48, V))), random(V, purpose="bias")
    x, dlogits = random(3, 500, 48), random(3, 500, V, purpose="dlogits")
    agree(both, W, b, x, dlogits, dtype=dtype, names=[f"layers.unembedding.{way}" for way in WAYS])


@pytest.mark.parametrize("K", [1, 33, 300])
@pytest.mark.parametrize("N", [1, 32, 65, 66, 67, 200])
@pytest.mark.parametrize("M", [1, 7, 100, 997])
@pytest.mark.parametrize("count", [1, 3])
def test_products(count, M, N, K, dtype, monkeypatch):
    """Of every size, as they lie, turned and in views; a matrix that may only be read as well; on several threads."""
    from onelayer import threads
    from onelayer.kernels import compile, product

    monkeypatch.setattr(product, "WORTHWHILE", 0)
    monkeypatch.setattr(compile, "WORTHWHILE", 0)
    monkeypatch.setattr(threads, "count", lambda: count)
    wide, W, b = (random(*shape).astype(dtype) for shape in ((M, K + 5), (K, N), (N,)))
    a, turned, W.flags.writeable = wide[:, 3 : 3 + K], np.ascontiguousarray(W.T), False
    y = a @ W + b
    for found in (product.multiply(a, W, b), product.multiply(a, turned.T, b), product.multiply(a, W) + b):
        assert found.dtype == y.dtype and found.flags.c_contiguous
        assert np.linalg.norm(found - y) < ROUNDING[dtype] * np.linalg.norm(y)
    expected, found = a.T @ y, product.outer(a, y)
    assert found.dtype == y.dtype and found.flags.c_contiguous
    assert np.linalg.norm(found - expected) < ROUNDING[dtype] * np.linalg.norm(expected)
