"""Guards that every layer means the same on every backend, and what each layer promises beyond its derivative."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from backends import Backend
from hypothesis import given
from hypothesis import strategies as st
from oracles import DIMS, assert_close_trees, random_array, random_ids, random_like

from onelayer import positions
from onelayer.arrays import flatten, map_tree, natural
from onelayer.errors import BadInput
from onelayer.layers import (
    activations,
    cross_entropy,
    embedding,
    layer_norm,
    linear,
    rms_norm,
    softmax,
    unembedding,
)
from onelayer.positions import Places, Size
from onelayer.sublayers import attention, feed_forward, normalise

B, T, S, D, H, K, F, V = DIMS
X = random_array(B, T, D)
CAUSAL = np.tril(np.ones((T, T), dtype=bool))[None, None]


def through(module: Any, **static: Any) -> Callable[..., Any]:
    """Forward and backward of a layer in one function, so that jit sees both."""

    def both(p: Any, x: Any, dy: Any) -> Any:
        y, c = module.forward(p, x, **static)
        return y, module.backward(dy, c)

    return both


def attend(p: Any, x_q: Any, x_k: Any, mask: Any, dy: Any, position: Any = positions.get("none")) -> Any:  # noqa: B008
    places = Places(natural(x_q.shape[1]), natural(x_k.shape[1]), mask, causal=x_q.shape[1] == x_k.shape[1])
    y, c = attention.forward(p, x_q, x_k, places, position)
    return y, attention.backward(dy, c, position)


def attention_params(pos: Any = None) -> attention.Params:
    """Without b_K, whose gradient is zero but for rounding: it has no relative error."""
    shapes = [(H, D, K)] * 3 + [(H, K, D), (H, K), None, (H, K), (D,)]
    drawn = [None if shape is None else random_array(*shape, purpose=str(i)) for i, shape in enumerate(shapes)]
    return attention.Params(*drawn, pos)  # pyright: ignore[reportCallIssue]


LAYERS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "linear": (through(linear), (linear.Params(random_array(D, F), random_array(F)), X, random_array(B, T, F))),
    "linear, no bias": (through(linear), (linear.Params(random_array(D, F), None), X, random_array(B, T, F))),
    "unembedding": (
        through(unembedding),
        (unembedding.Params(random_array(D, V), random_array(V)), X, random_array(B, T, V)),
    ),
    "embedding": (
        lambda p, tokens, dx: embedding.backward(dx, embedding.forward(p, tokens, 2.0)[1], 2.0),
        (embedding.Params(random_array(V, D)), random_ids(V, B, T), X),
    ),
    "layer norm": (through(layer_norm), (layer_norm.Params(random_array(D), random_array(D)), X, X + 1)),
    "rms norm": (through(rms_norm), (rms_norm.Params(random_array(D)), X, X + 1)),
    **{
        f"activation {kind}": (
            lambda x, dy, kind=kind: activations.backward(dy, activations.forward(x, kind)[1]),
            (3 * X, X + 1),
        )
        for kind in activations.FUNCTIONS
    },
    "softmax": (lambda s, ds: softmax.backward(ds, softmax.forward(s)[1]), (X, X + 1)),
    "softmax, masked": (
        lambda s, mask, ds: softmax.backward(ds, softmax.forward(s, mask)[1]),
        (X, X > -0.5, X + 1),
    ),
    **{
        f"cross-entropy {variant}": (
            lambda z, y, w, variant=variant: (
                (got := cross_entropy.forward(z, y, w, variant=variant, smoothing=0.1, never=2, temperature=2.0))[0],
                cross_entropy.backward(got[1]),
            ),
            (random_array(B, T, V), random_ids(V, B, T), np.abs(random_array(B, T))),
        )
        for variant in cross_entropy.VARIANTS
    },
    "feed-forward": (
        lambda p, x, dy: feed_forward.backward(dy, feed_forward.forward(p, x, "gelu")[1]),
        (
            feed_forward.Params(random_array(D, F), random_array(F), random_array(F, D), random_array(D)),
            X,
            random_array(B, T, D, purpose="dy"),
        ),
    ),
    "normalise, none": (lambda x, dy: normalise.backward(dy, normalise.forward(None, x, 1e-5)[1])[0], (X, X + 1)),
    "attention, causal": (attend, (attention_params(), X, X, CAUSAL, X + 1)),
    "attention, cross": (
        attend,
        (attention_params(), X, random_array(B, S, D), random_array(B, 1, 1, S) > -0.7, X + 1),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_means_the_same_on_every_backend(name: str, xp: Backend) -> None:
    f, trees = LAYERS[name]
    assert_close_trees(xp(f, *trees), f(*trees), 1e-12)


@pytest.mark.parametrize("name", ["learned", "sinusoidal", "sinusoidal_concatenated", "rope", "alibi", "t5"])
def test_a_position_means_the_same_on_every_backend(name: str, xp: Backend) -> None:
    method = positions.get(name)
    drawn = method.init(np.random.default_rng(0), Size(D, H, K, T))
    if method.in_attention:
        trees = (attention_params(random_like(drawn) if drawn else None), X, X, CAUSAL, X + 1)
        assert_close_trees(xp(partial(attend, position=method), *trees), attend(*trees, position=method), 1e-12)
    else:

        def both(p: Any, x: Any, dx: Any) -> Any:
            y, c = method.encode_x(p, x, natural(T))
            return y, method.encode_x_backward(dx, c)

        trees = (random_like(drawn) if drawn else None, X, X + 1)
        assert_close_trees(xp(both, *trees), both(*trees), 1e-12)


# ---------------------------------------------------------------------------------------------------- values


def test_gelu_is_the_normal_sum() -> None:
    x = np.linspace(-6, 6, 101)
    want = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(activations.gelu(x)[0], want, rtol=0, atol=1e-15)


def test_silu_and_gelu_stay_finite_far_out() -> None:
    far = np.array([-1e4, -80.0, 80.0, 1e4])
    for kind in ("silu", "gelu"):
        y, slope = activations.FUNCTIONS[kind](far)
        np.testing.assert_allclose(y, [0, 0, 80, 1e4], atol=1e-12)
        np.testing.assert_allclose(slope, [0, 0, 1, 1], atol=1e-12)


def test_an_unknown_activation_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="unknown activation 'gleu'; did you mean 'gelu'"):
        activations.forward(X, "gleu")


def test_a_hand_computed_head() -> None:
    """One head, width 1 and 2: the scale is √K, the softmax runs over keys, rows sum to 1."""
    x = np.array([[[1.0], [2.0]]])
    p = attention.Params(
        W_Q=np.array([[[1.0, 0.0]]]), W_K=np.array([[[2.0, 0.0]]]), W_V=np.array([[[1.0, 3.0]]]), W_O=np.ones((1, 2, 1))
    )
    y, c = attention.forward(p, x, x, Places(natural(2), natural(2), None), positions.get("none"))
    score = np.array([[2.0, 4.0], [4.0, 8.0]]) / math.sqrt(2)
    weight = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    np.testing.assert_allclose(c.softmax.pattern[0, 0], weight, rtol=1e-14)
    np.testing.assert_allclose(y[0, :, 0], weight @ [4.0, 8.0], rtol=1e-14)


def test_attention_equals_a_loop_over_heads_and_places() -> None:
    p: Any = attention_params()
    x_k, mask = random_array(B, S, D), random_array(B, 1, T, S) > -0.7
    y, _ = attend(p, X, x_k, mask, X)
    want = np.zeros((B, T, D))
    for b in range(B):
        for h in range(H):
            k, v = x_k[b] @ p.W_K[h], x_k[b] @ p.W_V[h] + p.b_V[h]
            for t in range(T):
                q = X[b, t] @ p.W_Q[h] + p.b_Q[h]
                seen = [s for s in range(S) if mask[b, 0, t, s]]
                if seen:
                    e = np.exp([q @ k[s] / math.sqrt(K) for s in seen])
                    want[b, t] += (e / e.sum()) @ v[seen] @ p.W_O[h]
            want[b, :] += p.b_O / H
    np.testing.assert_allclose(y, want, rtol=1e-12)


# ---------------------------------------------------------------------------------------------------- invariants


@given(st.integers(0, 2**32 - 1))
def test_what_a_norm_cannot_feel_gets_no_gradient(seed: int) -> None:
    x, dy = random_array(2, D, seed=seed), random_array(2, D, seed=seed, purpose="dy")
    p = layer_norm.Params(random_array(D, seed=seed), random_array(D, seed=seed, purpose="b"))
    _, c = layer_norm.forward(p, x, eps=1e-12)
    dx, _ = layer_norm.backward(dy, c)
    assert np.max(np.abs(dx.sum(-1))) <= 1e-12 * np.max(np.abs(dx)) * D, "a shift"
    assert np.max(np.abs((dx * c.x_hat).sum(-1))) <= 1e-9 * np.max(np.abs(dx)) * D, "a stretch"


@given(st.integers(0, 2**32 - 1))
def test_softmax_gradients_sum_to_zero_and_forbidden_places_get_none(seed: int) -> None:
    scores = 5 * random_array(4, S, seed=seed)
    mask = random_array(4, S, seed=seed, purpose="mask") > 0
    pattern, c = softmax.forward(scores, mask)
    ds = softmax.backward(random_array(4, S, seed=seed, purpose="dy"), c)
    assert np.all(pattern[~mask] == 0) and np.all(ds[~mask] == 0)
    assert np.all(np.abs(pattern.sum(-1) - mask.any(-1)) <= 1e-15 * S)
    assert np.max(np.abs(ds.sum(-1))) <= 1e-14


def test_a_row_that_may_look_nowhere_is_finite_in_value_and_gradient() -> None:
    scores = np.array([[1e4, -1e4, 3.0], [1.0, 2.0, 3.0]], dtype=np.float32)
    pattern, c = softmax.forward(scores, np.array([[False] * 3, [True] * 3]))
    assert np.all(pattern[0] == 0) and np.isclose(pattern[1].sum(), 1)
    assert np.all(softmax.backward(np.ones((2, 3), dtype=np.float32), c)[0] == 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_scores_stay_finite(dtype: Any) -> None:
    for row in ([1e4, -1e4, 0], [5, 5, 5], [-1e4, -1e4, -1e4]):
        pattern, _ = softmax.forward(np.array([row], dtype=dtype))
        assert np.all(np.isfinite(pattern)) and np.isclose(pattern.sum(), 1)
        loss, c = cross_entropy.forward(np.array([row], dtype=dtype), np.array([1]))
        assert np.isfinite(loss) and np.all(np.isfinite(cross_entropy.backward(c)))


@pytest.mark.parametrize("variant", cross_entropy.VARIANTS)
def test_logit_gradients(variant: str) -> None:
    z, y = random_array(B, T, V), random_ids(V, B, T)
    z[0, 0, :2] = z[0, 0, y[0, 0]]  # tied with the target: the column is found by index, not by value
    _, c = cross_entropy.forward(z, y, variant=variant)
    dz = cross_entropy.backward(c)
    assert ((dz < 0).sum(-1) == 1).all(), "only the target is pulled up"
    if variant != "stablemax":
        assert np.max(np.abs(dz.sum(-1))) <= 1e-16 * V
        e = np.exp(z)
        want = (e / e.sum(-1, keepdims=True) - np.eye(V)[y]) / (B * T)
        np.testing.assert_allclose(dz, want, atol=1e-16)


def test_a_repeated_batch_and_padding_change_neither_loss_nor_gradient() -> None:
    z, y, w = random_array(B, T, V), random_ids(V, B, T), np.abs(random_array(B, T))
    loss, c = cross_entropy.forward(z, y, w)
    dz = cross_entropy.backward(c)
    twice, c2 = cross_entropy.forward(np.concatenate([z, z]), np.concatenate([y, y]), np.concatenate([w, w]))
    np.testing.assert_allclose(twice, loss, rtol=1e-15)
    np.testing.assert_allclose(cross_entropy.backward(c2)[:B] * 2, dz, rtol=1e-14)
    longer = [np.concatenate([a, a[:, :2]], axis=1) for a in (z, y)]
    padded, c3 = cross_entropy.forward(longer[0], longer[1], np.concatenate([w, 0 * w[:, :2]], axis=1))
    np.testing.assert_allclose(padded, loss, rtol=1e-15)
    assert np.all(cross_entropy.backward(c3)[:, T:] == 0)


def test_label_smoothing_puts_no_mass_on_padding_and_its_optimum_is_the_entropy() -> None:
    y = np.array([[0, 1, 3]])
    _, c = cross_entropy.forward(np.zeros((1, 3, 5)), y, smoothing=0.2, never=4)
    np.testing.assert_allclose(c.wanted.sum(-1), 1, rtol=1e-15)
    assert np.all(c.wanted[..., 4] == 0)
    best = np.log(np.where(c.wanted > 0, c.wanted, 1e-300))
    loss, _ = cross_entropy.forward(best, y, smoothing=0.2, never=4)
    q = c.wanted[c.wanted > 0]
    np.testing.assert_allclose(loss, -(q * np.log(q)).sum() / 3, rtol=1e-12)


def test_the_float64_loss_sees_what_float32_rounds_to_zero() -> None:
    z = np.array([[30.0, 0.0]], dtype=np.float32)
    plain, _ = cross_entropy.forward(z, np.array([0]))
    exact, c = cross_entropy.forward(z, np.array([0]), variant="float64")
    assert plain == 0 and np.isclose(float(exact), math.log1p(math.exp(-30)), rtol=1e-3)
    assert cross_entropy.backward(c)[0, 1] > 0


def test_a_token_that_occurs_twice_gathers_both_gradients() -> None:
    p = embedding.Params(np.zeros((4, 2)))
    _, c = embedding.forward(p, np.array([[1, 1, 3]]))
    got = embedding.backward(np.array([[[1.0, 2.0], [10.0, 20.0], [5.0, 5.0]]]), c).W_E
    np.testing.assert_array_equal(got, [[0, 0], [11, 22], [0, 0], [5, 5]])


@pytest.mark.parametrize("name", [name for name in LAYERS if "float64" not in name])  # which is float64 on purpose
def test_precision_is_kept(name: str) -> None:
    f, trees = LAYERS[name]
    single = [map_tree(lambda a: a.astype(np.float32) if a.dtype.kind == "f" else a, t) for t in trees]
    assert all(a.dtype == np.float32 for a in flatten(f(*single)).values())
