"""Guards optimizers/: agreement with optax, equations against loops, purity, dtypes, backends, edge cases, registry."""

import math
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
import pytest
from backends import Backend

from onelayer import optimizers
from onelayer.arrays import flatten, generator, map_tree, unflatten
from onelayer.errors import BadInput
from onelayer.optimizers import muon, schedules
from onelayer.optimizers.projections import constant_norm

SHAPES = {  # flat name: shape, in JAX's order of keys; every axis different, so that a transposed one cannot pass
    "attn.W_O": (2, 3, 5), "attn.W_Q": (2, 5, 3), "attn.b_Q": (2, 3), "attn.scale": (), "embed.W_E": (7, 5),
    "ln.gain": (5,), "mlp.W_in": (5, 11), "mlp.W_out": (11, 5), "mlp.W_row": (1, 9),
}  # fmt: skip
OPTIMIZERS = sorted(optimizers.OPTIMIZERS)
DECOUPLED = ["adamw", "lion", "muon"]
STEPS = 50


def tree(purpose: str = "params", dtype: Any = np.float64) -> dict[str, dict[str, np.ndarray]]:
    nested: dict[str, dict[str, np.ndarray]] = {}
    for name, shape in SHAPES.items():
        group, leaf = name.split(".")
        nested.setdefault(group, {})[leaf] = np.asarray(generator(1, purpose, name).normal(size=shape)).astype(dtype)
    return nested


def slope(params: Any, step: int) -> Any:
    """A gradient that depends on every parameter and on the step, of entries from about 1e-3 to 1."""
    return map_tree(lambda p: np.asarray(np.sin(3 * p + 0.1 * step) * np.cos(p) ** 4 + 0.05 * p), params)


def worst(a: Any, b: Any) -> float:
    """The largest relative error of any tensor."""
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    return max(np.max(np.abs(np.asarray(a[n]) - b[n])) / np.max(np.abs(np.asarray(b[n]))) for n in b)


def run(method: Any, params: Any, steps: int = STEPS, lr: Any = lambda step: 3e-3, gradient: Any = slope) -> Any:
    state = method.init(params)
    for step in range(steps):
        params, state = method.update(gradient(params, step), state, params, lr=lr(step))
    return params


def run_optax(transform: optax.GradientTransformation, params: Any, steps: int = STEPS) -> Any:
    state, update = transform.init(params), jax.jit(transform.update)
    for step in range(steps):
        updates, state = update(slope(params, step), state, params)
        params = map_tree(lambda p, u: p + np.asarray(u), params, updates)
    return params


# ------------------------------------------------------------------------------------------------------ optax

LR, B1, B2, WD = 3e-3, 0.9, 0.98, 0.7


def optax_muon(nesterov: bool = True, heads: str = "joint", rms: float | None = None) -> optax.GradientTransformation:
    """optax's Muon on the hidden matrices, its AdamW at a twentieth of the rate on the rest."""
    dims = optax.contrib.MuonDimensionNumbers
    of = {
        "attn.W_Q": dims(1, (0, 2)) if heads == "joint" else dims(1, 2),
        "attn.W_O": dims((0, 1), 2) if heads == "joint" else dims(1, 2),
        "mlp.W_in": dims(), "mlp.W_out": dims(), "mlp.W_row": dims(),
    }  # fmt: skip
    params = tree()

    def hidden_only(_: Any) -> Any:  # a tree like the params that optax hands on, the others masked out
        return unflatten({name: of.get(name, optax.MaskedNode()) for name in SHAPES}, params)

    hidden = optax.contrib.muon(
        LR, beta=0.95, eps=1e-7, weight_decay=WD, nesterov=nesterov, consistent_rms=rms,
        muon_weight_dimension_numbers=hidden_only,
    )  # fmt: skip
    labels = unflatten({name: "hidden" if name in of else "rest" for name in SHAPES}, params)
    rest = optax.adamw(LR / 20, b1=B1, b2=B2, weight_decay=WD)
    return optax.partition({"hidden": hidden, "rest": rest}, labels)


OURS_MUON = {"weight_decay": WD, "adam_beta1": B1, "adam_beta2": B2, "debias": True}
EXCLUDED = {"*.b_*": 0, "ln.*": 0}


def decayed(params: Any) -> Any:
    return unflatten({name: not (".b_" in name or name.startswith("ln.")) for name in SHAPES}, params)


AGREE = {  # name: (our optimizer, its settings, optax's)
    "sgd": ("sgd", {}, lambda: optax.sgd(LR)),
    "sgd momentum": ("sgd", {"momentum": 0.9}, lambda: optax.sgd(LR, momentum=0.9)),
    "sgd nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}, lambda: optax.sgd(LR, 0.9, nesterov=True)),
    "sgd decay": (
        "sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": WD},
        lambda: optax.chain(optax.add_decayed_weights(WD), optax.sgd(LR, 0.9, nesterov=True)),
    ),
    "adam": ("adam", {"beta1": B1, "beta2": B2}, lambda: optax.adam(LR, B1, B2)),
    "adam L2": (
        "adam", {"beta2": B2, "weight_decay": WD},
        lambda: optax.chain(optax.add_decayed_weights(WD), optax.adam(LR, 0.9, B2)),
    ),
    "adamw": ("adamw", {"beta2": B2, "weight_decay": WD}, lambda: optax.adamw(LR, 0.9, B2, weight_decay=WD)),
    "adamw tiny eps": (
        "adamw", {"eps": 1e-25, "weight_decay": 2.0},
        lambda: optax.adamw(LR, eps=1e-25, weight_decay=2.0),
    ),
    "adamw mask": (
        "adamw", {"weight_decay": WD, "decay_mask": EXCLUDED},
        lambda: optax.adamw(LR, weight_decay=WD, mask=decayed),
    ),
    "lion": ("lion", {"weight_decay": WD}, lambda: optax.lion(LR, 0.9, 0.99, weight_decay=WD)),
    "muon": ("muon", OURS_MUON, optax_muon),
    "muon heavy ball": ("muon", OURS_MUON | {"nesterov": False}, lambda: optax_muon(nesterov=False)),
    "muon separate heads": ("muon", OURS_MUON | {"heads": "separate"}, lambda: optax_muon(heads="separate")),
    "muon rms": ("muon", OURS_MUON | {"scaling": "rms"}, lambda: optax_muon(rms=0.2)),
}  # fmt: skip


def bound(name: str, given: dict[str, Any], params: Any) -> Any:
    given = dict(given)
    factors = given.pop("decay_mask", {})
    method = optimizers.make(name, **given)
    method.update = partial(method.update, decay_mask=optimizers.decay_mask(params, factors))
    return method


@pytest.mark.parametrize("case", AGREE)
def test_fifty_steps_agree_with_optax(case: str) -> None:
    name, given, theirs = AGREE[case]
    params = tree()
    assert worst(run(bound(name, given, params), params), run_optax(theirs(), params)) <= 1e-12


@pytest.mark.parametrize(
    ("name", "change"),
    [("sgd", {"momentum": 0.901}), ("adam", {"beta2": 0.981}), ("adamw", {"eps": 2e-8}), ("lion", {"beta1": 0.8}),
     ("muon", {"debias": False}), ("muon", {"heads": "separate"}), ("muon", {"adam_eps": 2e-8})],
)  # fmt: skip
def test_the_agreement_would_see_a_changed_setting(name: str, change: dict[str, Any]) -> None:
    case = {"sgd": "sgd momentum"}.get(name, name)
    _, given, theirs = AGREE[case]
    params = tree()
    assert worst(run(bound(name, given | change, params), params), run_optax(theirs(), params)) > 1e-10


# -------------------------------------------------------------------------------------------------- behaviour


def compiled_run(method: Any, params: Any, steps: int, rate: float, gradient: Any) -> Any:
    """All the steps in one jax.lax.scan, the rate falling to zero along a cosine."""

    def step(carry: Any, t: Any) -> Any:
        params, state = carry
        lr = rate * schedules.cosine(t, total=steps)
        return method.update(gradient(params), state, params, lr=lr), None

    start = map_tree(jax.numpy.asarray, params)
    (end, _), _ = jax.lax.scan(step, (start, method.init(start)), jax.numpy.arange(steps))
    return map_tree(np.asarray, end)


@pytest.mark.parametrize(("name", "rate"), [("sgd", 0.1), ("adam", 0.1), ("adamw", 0.1), ("lion", 0.05), ("muon", 0.1)])
def test_parabola(name: str, rate: float) -> None:
    """½ Σ (θ − 1)²: all arrive at 1."""
    given: dict[str, Any] = {"weight_decay": 0.0} | ({"adam_ratio": 1.0} if name == "muon" else {})
    start = {"W_a": tree()["mlp"]["W_row"], "b": tree()["ln"]["gain"]}
    end = compiled_run(optimizers.make(name, **given), start, 400, rate, lambda p: map_tree(lambda x: x - 1, p))
    assert max(np.max(np.abs(x - 1)) for x in end.values()) < 1e-3


@pytest.mark.parametrize(
    ("name", "rate"), [("sgd", 2e-3), ("adam", 0.1), ("adamw", 0.1), ("lion", 8e-3), ("muon", 8e-3)]
)
def test_rosenbrock(name: str, rate: float) -> None:
    """(1 − x)² + 100 (y − x²)² from (−1.2, 1): through the bent valley to (1, 1)."""

    def gradient(p: Any) -> Any:
        x, y = p["W_xy"][0]
        return {"W_xy": jax.numpy.stack([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])[None]}

    given: dict[str, Any] = {"sgd": {"momentum": 0.9}, "adamw": {"weight_decay": 0.0}}.get(name, {})
    end = compiled_run(optimizers.make(name, **given), {"W_xy": np.array([[-1.2, 1.0]])}, 1500, rate, gradient)
    assert np.max(np.abs(end["W_xy"] - 1)) < 5e-2


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adams_first_step_moves_every_entry_by_lr(name: str, dtype: Any) -> None:
    params, grads = tree(dtype=dtype), tree("grads", dtype)
    method = optimizers.make(name, weight_decay=0.0)
    moved, _ = method.update(grads, method.init(params), params, lr=1e-2)
    for n, g in flatten(grads).items():
        step = flatten(moved)[n] - flatten(params)[n]
        np.testing.assert_allclose(step, -1e-2 * np.sign(g), rtol=3e-4 if dtype == np.float32 else 1e-5)


@pytest.mark.parametrize("name", DECOUPLED)
def test_decoupled_decay_alone_shrinks_by_one_minus_lr_wd(name: str) -> None:
    params = tree()
    method = optimizers.make(name, weight_decay=0.5)
    moved, _ = method.update(map_tree(np.zeros_like, params), method.init(params), params, lr=0.1)
    hidden = {n for n, x in flatten(params).items() if muon.is_hidden(n, x)}
    for n, p in flatten(params).items():
        rate = 0.1 * (0.05 if name == "muon" and n not in hidden else 1)
        np.testing.assert_allclose(flatten(moved)[n], (1 - rate * 0.5) * p, rtol=1e-15)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zero_gradients_move_nothing(name: str) -> None:
    params = tree()
    method = optimizers.make(name, weight_decay=0.0)
    end = run(method, params, 3, gradient=lambda p, _: map_tree(np.zeros_like, p))
    for n, p in flatten(params).items():
        np.testing.assert_array_equal(flatten(end)[n], p)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_join_takes_the_step_apart(name: str) -> None:
    """before + decay + gradient is the new tensor, to the last bit; without decay the decay part is zero."""
    params, grads = tree(), tree("grads")
    for wd in (0.3, 0.0):
        method = optimizers.make(name, weight_decay=wd)
        _, state = method.update(tree("earlier"), method.init(params), params, lr=1e-2)
        whole, _ = method.update(grads, state, params, lr=1e-2)
        taken, _ = method.update(grads, state, params, lr=1e-2, join=optimizers.Parts)
        for n, x in flatten(whole).items():
            before, decay, gradient = (flatten(taken)[f"{n}.{part}"] for part in optimizers.Parts._fields)
            np.testing.assert_array_equal(before + decay + gradient, x)
            assert np.all(decay != 0) if wd else np.all(decay == 0)
            assert np.all(np.sign(decay) == -np.sign(before)) or not wd


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_coupled_decay_part_is_what_this_steps_decay_adds_to_a_linear_step(name: str) -> None:
    """SGD is linear in the gradient, so the part is the difference of two steps; Adam likewise at β₂ → fixed v̂ only."""
    params, grads = tree(), tree("grads")
    given: dict[str, Any] = {"weight_decay": 0.3} | ({"momentum": 0.9, "nesterov": True} if name == "sgd" else {})
    method = optimizers.make(name, **given)
    taken, state = method.update(grads, method.init(params), params, lr=1e-2, join=optimizers.Parts)
    for n, p in flatten(params).items():
        share = 1.9 * 0.3 * p if name == "sgd" else 0.3 * p / (np.sqrt(flatten(state.v)[n] / 1e-3) + 1e-8)
        np.testing.assert_allclose(flatten(taken)[f"{n}.decay"], -1e-2 * share, rtol=1e-10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_saved_by_flat_names_goes_on_bit_for_bit(name: str) -> None:
    method, params = optimizers.make(name), tree()
    state = method.init(params)
    for step in range(6):
        if step == 3:
            state = unflatten({n: np.array(x) for n, x in flatten(state).items()}, method.init(params))
        params, state = method.update(slope(params, step), state, params, lr=1e-2)
        assert all(isinstance(x, np.ndarray | np.generic) for x in flatten(state).values())
    assert flatten(run(method, tree(), 6, lambda _: 1e-2)).keys() == flatten(params).keys()
    for n, x in flatten(run(method, tree(), 6, lambda _: 1e-2)).items():
        np.testing.assert_array_equal(x, flatten(params)[n])


# --------------------------------------------------------------------------------------------------- backends


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_backend_agrees_and_keeps_the_dtype(name: str, dtype: Any, xp: Backend) -> None:
    """lr and weight decay come as float64 0-d arrays (traced under jit); a None leaf stays None."""
    method = optimizers.make(name)
    params = tree(dtype=dtype) | {"absent": None}

    def three_steps(params: Any, g1: Any, g2: Any, lr: Any, weight_decay: Any) -> Any:
        state = method.init(params)
        for grads in (g1, g2, g1):
            params, state = method.update(grads, state, params, lr=lr, weight_decay=weight_decay)
        return params, state

    grads = [tree(p, dtype) | {"absent": None} for p in ("g1", "g2")]
    lr, weight_decay = np.asarray(1e-2), np.asarray(0.3)
    got, state = xp(three_steps, params, *grads, lr, weight_decay)
    want, want_state = three_steps(params, grads[0], grads[1], lr, weight_decay)
    assert got["absent"] is None
    for n, x in flatten((got, state)).items():
        expected = flatten((want, want_state))[n]
        assert x.dtype == expected.dtype == (np.int32 if n.endswith("count") else dtype), n
        assert x.shape == expected.shape
        # Muon's polynomial has slope 3.4⁵ at 0: it magnifies the rounding of small singular values
        np.testing.assert_allclose(
            x, expected, rtol=0, atol=(1e-4 if name == "muon" else 2e-6) if dtype == np.float32 else 1e-12
        )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_tree_of_two_precisions_keeps_both(name: str) -> None:
    params = {"W_a": np.ones((2, 3), np.float32), "W_b": np.ones((3, 2)), "c": np.ones(3, np.float32)}
    method = optimizers.make(name)
    moved, state = method.update(params, method.init(params), params, lr=np.float64(0.1), weight_decay=np.float64(0.1))
    assert {n: x.dtype for n, x in flatten(moved).items()} == {n: x.dtype for n, x in params.items()}
    for field in state:
        if isinstance(field, dict):
            assert all(x.dtype == params[n].dtype for n, x in flatten(field).items())


@pytest.mark.parametrize(
    ("name", "knob"), [("adamw", "beta2"), ("adam", "beta1"), ("sgd", "momentum"), ("lion", "beta1")]
)
def test_vmap_over_settings_equals_one_run_each(name: str, knob: str) -> None:
    method = optimizers.make(name)
    params, grads = (map_tree(jax.numpy.asarray, tree(p)) for p in ("params", "grads"))

    def one_step(lr: Any, weight_decay: Any, value: Any) -> Any:
        settings = {"lr": lr, "weight_decay": weight_decay, knob: value}
        return method.update(grads, method.init(params), params, **settings)[0]

    settings = np.array([[1e-3, 1e-2], [0.0, 1.0], [0.8, 0.9]])
    together = jax.jit(jax.vmap(one_step))(*settings)
    for i in range(2):
        lr, weight_decay, value = settings[:, i].tolist()
        assert worst(map_tree(lambda x, i=i: x[i], together), one_step(lr, weight_decay, value)) < 1e-13


@pytest.mark.parametrize("name", sorted(optimizers.FILTERS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_filters_on_every_backend(name: str, dtype: Any, xp: Backend) -> None:
    method = optimizers.make(name, "filter", **({"window": 2} if name == "grokfast_ma" else {}))

    def three(params: Any, *grads: Any) -> Any:
        state, out = method.init(params), []
        for g in grads:
            filtered, state = method.apply(g, state, params)
            out.append(filtered)
        return tuple(out)

    inputs = [tree(p, dtype) for p in ("params", "g1", "g2", "g3")]
    got, want = xp(three, *inputs), three(*inputs)
    for n, x in flatten(got).items():
        assert x.dtype == dtype
        np.testing.assert_allclose(x, flatten(want)[n], rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)


# ------------------------------------------------------------------------------------------------------- Muon


def test_newton_schulz_is_its_polynomial_on_the_singular_values() -> None:
    """Against an SVD: U φ(S/‖S‖) Vᵀ, φ five times a s + b s³ + c s⁵; tall, wide, square, batched, one row."""
    for shape in [(5, 8), (8, 5), (6, 6), (3, 4, 7), (1, 9), (9, 1)]:
        g = generator(0, *map(str, shape)).normal(size=shape)
        u, s, vt = np.linalg.svd(g, full_matrices=False)
        s = s / (np.sqrt(np.sum(s * s, axis=-1, keepdims=True)) + 1e-7)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        np.testing.assert_allclose(muon.newton_schulz(g), u * s[..., None, :] @ vt, rtol=0, atol=1e-12)


def test_newton_schulz_sends_singular_values_near_one() -> None:
    s = np.logspace(-2, 0, 2000)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert s.min() > 0.68
    assert s.max() < 1.14


def test_muon_of_zero_and_tiny_matrices_is_finite() -> None:
    for scale in (0.0, 1e-30, 1e-200):
        g = {"W_a": scale * np.ones((1, 4)), "W_b": scale * np.ones((3, 2)), "W_c": scale * np.ones((2, 3, 2))}
        method = optimizers.make("muon")
        moved, state = method.update(g, method.init(g), g, lr=0.1)
        assert all(np.all(np.isfinite(x)) for x in flatten((moved, state)).values())
        if scale == 0:
            assert all(np.all(x == 0) for x in flatten(moved).values())


def test_muon_splits_by_name_and_axes() -> None:
    hidden = ["blocks.0.attn.W_Q", "blocks.0.mlp.W_in", "encoder.blocks.0.cross_attn.W_O"]
    others = ["embed.W_E", "unembed.W_U", "pos_embed.W_pos", "blocks.0.attn.pos.W_r", "encoder.embed.W_E", "mlp.b_in"]
    matrix = np.ones((2, 3))
    assert all(muon.is_hidden(n, matrix) for n in hidden)
    assert not any(muon.is_hidden(n, matrix) for n in others)
    assert not muon.is_hidden("mlp.W_in", np.ones(3))
    assert sorted(flatten(muon.init(tree()).v)) == ["attn.b_Q", "attn.scale", "embed.W_E", "ln.gain"]
    assert sorted(flatten(muon.init(tree(), matrices="all").v)) == ["attn.b_Q", "attn.scale", "ln.gain"]
    assert all(muon.is_matrix(n, matrix) for n in [*hidden, "embed.W_E", "unembed.W_U"])
    assert not any(muon.is_matrix(n, matrix) for n in ("pos_embed.W_pos", "blocks.0.attn.pos.W_r", "mlp.b_in"))
    with pytest.raises(BadInput, match="hidden"):
        optimizers.make("muon", matrices="most").init(tree())
    assert sorted(flatten(muon.init(tree(), hidden=lambda n, x: n == "embed.W_E").v)) == sorted(
        {*SHAPES} - {"embed.W_E"}
    )


def test_muon_without_debias_is_jordans_loop() -> None:
    """Heads spelled out: W_Q as D × HK, W_O as HK × D, each column by column."""
    params, lr = tree(), 0.02
    momentum = {n: np.zeros_like(p) for n, p in flatten(params).items()}
    ours = run(optimizers.make("muon", weight_decay=0.1), params, 4, lambda _: lr)
    theta = params
    for step in range(4):
        moved, grads = dict(flatten(theta)), flatten(slope(theta, step))
        for name in ("attn.W_Q", "attn.W_O", "mlp.W_out"):
            g = grads[name]
            momentum[name] = 0.95 * momentum[name] + 0.05 * g
            ahead = 0.05 * g + 0.95 * momentum[name]
            if name == "attn.W_Q":
                matrix = np.concatenate([ahead[0], ahead[1]], axis=1)
            else:
                matrix = np.concatenate([ahead[0], ahead[1]], axis=0) if name == "attn.W_O" else ahead
            o = muon.newton_schulz(matrix) * max(1, matrix.shape[1] / matrix.shape[0]) ** 0.5
            if name == "attn.W_Q":
                o = np.stack([o[:, :3], o[:, 3:]])
            elif name == "attn.W_O":
                o = np.stack([o[:3], o[3:]])
            moved[name] = (1 - lr * 0.1) * moved[name] - lr * o
        theta = unflatten(moved, params)
    for name in ("attn.W_Q", "attn.W_O", "mlp.W_out"):
        np.testing.assert_allclose(flatten(ours)[name], flatten(theta)[name], rtol=0, atol=1e-12)


# -------------------------------------------------------------------------------------------------- schedules

SCHEDULES = {  # name: (settings, the same written out anew)
    "constant": ({}, optax.constant_schedule(1.0)),
    "linear_warmup": ({"warmup": 10}, optax.linear_schedule(0.0, 1.0, 10)),
    "cosine": ({"warmup": 10, "total": 90, "floor": 0.1}, optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 90, 0.1)),
    "inverse_sqrt": ({"warmup": 16}, lambda s: s / 16 if s < 16 else math.sqrt(16 / s)),
    "noam": ({"warmup": 20, "d_model": 64}, lambda s: 64**-0.5 * min((s + 1) ** -0.5, (s + 1) * 20**-1.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, xp: Backend) -> None:
    """A Python step, a 0-d array and a traced one give the same, from before the warm-up to past the end."""
    given, expected = SCHEDULES[name]
    schedule = optimizers.make(name, "schedule", **given)
    for step in (0, 1, 9, 10, 11, 19, 20, 50, 89, 90, 91, 1000):
        np.testing.assert_allclose(schedule(step), float(expected(step)), rtol=1e-12, atol=1e-16)
        tolerance = 1e-6 if xp.name == "torch" else 1e-12  # a step has no precision; PyTorch's default is float32
        np.testing.assert_allclose(
            xp(schedule, np.asarray(step)), schedule(step), rtol=tolerance, atol=1e-7 * tolerance
        )


def test_every_schedule_is_tested_and_no_warm_up_starts_at_once() -> None:
    assert SCHEDULES.keys() == optimizers.SCHEDULES.keys()
    assert schedules.linear_warmup(0, warmup=0) == schedules.cosine(0) == schedules.inverse_sqrt(0, warmup=0) == 1
    assert [float(schedules.linear_warmup(s)) for s in (0, 5, 10, 99)] == [0, 0.5, 1, 1]


# ---------------------------------------------------------------------------------------------------- filters


def test_clip_agrees_with_optax() -> None:
    grads, transform = tree("grads"), optax.clip_by_global_norm
    for max_norm in (0.1, 3.0, 1e6):
        want, _ = transform(max_norm).update(grads, transform(max_norm).init(grads))
        method = optimizers.make("clip", "filter", max_norm=max_norm)
        got, _ = method.apply(grads, method.init(grads), grads)
        assert worst(got, map_tree(np.asarray, want)) <= 1e-15
    zero = map_tree(np.zeros_like, grads)
    assert all(np.all(x == 0) for x in flatten(method.apply(zero, method.init(grads), grads)[0]).values())


def filtered(method: Any, history: list[Any]) -> list[Any]:
    state, out = method.init(history[0]), []
    for grads in history:
        g, state = method.apply(grads, state, grads)
        out.append(g)
    return out


def test_grokfast_ema_is_its_loop() -> None:
    history = [tree(f"g{t}") for t in range(12)]
    got = filtered(optimizers.make("grokfast_ema", "filter", alpha=0.8, lamb=1.5), history)
    for n in SHAPES:
        average = flatten(history[0])[n]
        for t, g in enumerate(history):
            average = 0.8 * average + 0.2 * flatten(g)[n] if t else average
            np.testing.assert_allclose(flatten(got[t])[n], flatten(g)[n] + 1.5 * average, rtol=0, atol=1e-14)


def test_grokfast_ma_is_its_loop() -> None:
    history = [tree(f"g{t}") for t in range(12)]
    got = filtered(optimizers.make("grokfast_ma", "filter", window=4, lamb=1.5), history)
    for t, g in enumerate(history):
        for n in SHAPES:
            slow = np.mean([flatten(h)[n] for h in history[t - 3 : t + 1]], axis=0) if t >= 3 else 0
            np.testing.assert_allclose(flatten(got[t])[n], flatten(g)[n] + 1.5 * slow, rtol=0, atol=1e-14)


def test_orthogonal_gradient_turns_and_does_not_stretch() -> None:
    params, grads = tree(), tree("grads")
    method = optimizers.make("orthogonal", "filter")
    got, _ = method.apply(grads, method.init(params), params)
    for n, p in flatten(params).items():
        g, out = flatten(grads)[n], flatten(got)[n]
        if p.size == 1:  # one entry can only be stretched
            assert out == 0
            continue
        assert abs(np.sum(p * out)) <= 1e-14 * np.linalg.norm(p) * np.linalg.norm(out)
        assert np.linalg.norm(out) == pytest.approx(np.linalg.norm(g), rel=1e-14)
        w, v = p.reshape(-1), g.reshape(-1)
        across = v - sum(a * b for a, b in zip(w, v, strict=True)) / sum(a * a for a in w) * w
        np.testing.assert_allclose(out.reshape(-1), across * np.linalg.norm(v) / np.linalg.norm(across), atol=1e-13)


def test_orthogonal_gradient_at_its_edges() -> None:
    g = {"a": generator(0, "edge").normal(size=(3, 4))}
    method = optimizers.make("orthogonal", "filter")
    for params, expected in [({"a": np.zeros((3, 4))}, g["a"]), ({"a": -2.7 * g["a"]}, np.zeros((3, 4)))]:
        np.testing.assert_array_equal(method.apply(g, method.init(params), params)[0]["a"], expected)
    zero = {"a": np.zeros((3, 4))}
    np.testing.assert_array_equal(method.apply(zero, method.init(g), g)[0]["a"], zero["a"])


# ------------------------------------------------------------------------------------------------ projections


def test_constant_norm_holds_through_training() -> None:
    """Fifty steps of AdamW, projected after each: ‖θ‖ stays α ‖θ₀‖, and a projection turns nothing."""
    params, method = tree(), optimizers.make("adamw", weight_decay=0.0)
    rule = optimizers.make("constant_norm", "projection", scale=0.8)
    sphere, state = rule.init(params), method.init(params)
    length = 0.8 * np.linalg.norm(np.concatenate([x.reshape(-1) for x in flatten(params).values()]))
    for step in range(STEPS):
        moved, state = method.update(slope(params, step), state, params, lr=1e-1)
        params = rule.project(moved, sphere)
        flat = np.concatenate([x.reshape(-1) for x in flatten(params).values()])
        assert np.linalg.norm(flat) == pytest.approx(length, rel=1e-12)
        raw = np.concatenate([x.reshape(-1) for x in flatten(moved).values()])
        assert abs(np.linalg.norm(raw) / length - 1) > 1e-6  # there was something to project
        np.testing.assert_allclose(flat / length, raw / np.linalg.norm(raw), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_norm_on_every_backend(dtype: Any, xp: Backend) -> None:
    start, moved = tree(dtype=dtype), tree("moved", dtype)

    def projected(start: Any, moved: Any) -> Any:
        return constant_norm.project(moved, constant_norm.init(start))

    got = xp(projected, start, moved)
    assert all(x.dtype == dtype for x in flatten(got).values())
    assert float(constant_norm.norm(got)) == pytest.approx(float(constant_norm.norm(start)), rel=1e-6)
    zero = map_tree(np.zeros_like, moved)
    assert all(np.all(x == 0) for x in flatten(xp(projected, start, zero)).values())


# --------------------------------------------------------------------------------------------------- registry


def test_every_listed_method_can_be_made_with_its_own_defaults() -> None:
    for kind, names in optimizers.KINDS.items():
        for name in names:
            optimizers.make(name, kind, **optimizers.settings(name, kind))
    assert optimizers.settings("adamw") == {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
    assert optimizers.settings("grokfast_ma", "filter") == {"window": 100, "lamb": 5.0}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: optimizers.get("adamv"), r"unknown optimizer 'adamv'.*'adam.*Allowed: adam.*muon"),
        (lambda: optimizers.make("grokfast", "filter"), r"unknown filter 'grokfast'.*Allowed: grokfast_.*clip"),
        (lambda: optimizers.get("cosinus", "schedule"), r"'cosine'"),
        (lambda: optimizers.get("constant-norm", "projection"), r"'constant_norm'"),
        (lambda: optimizers.get("adam", "optimiser"), r"'optimizer'"),
        (lambda: optimizers.make("adamw", beta_2=0.9), r"unknown setting of optimizer adamw 'beta_2'.*'beta2'"),
        (lambda: optimizers.make("adamw", decay_mask=0.5), r"unknown setting"),
        (lambda: optimizers.make("adamw", beta1=1.0), r"adamw's beta1 cannot be 1.0; allowed: 0 ≤ beta1 < 1"),
        (lambda: optimizers.make("adamw", lr=-1e-3), r"allowed: 0 ≤ lr < ∞; its default is 0.001"),
        (lambda: optimizers.make("adamw", lr=math.nan), r"lr cannot be nan"),
        (lambda: optimizers.make("adamw", lr=math.inf), r"lr cannot be inf"),
        (lambda: optimizers.make("adamw", lr="fast"), r"lr cannot be 'fast'"),
        (lambda: optimizers.make("adamw", eps=0.0), r"0 < eps"),
        (lambda: optimizers.make("sgd", nesterov=1), r"a bool"),
        (lambda: optimizers.make("sgd", momentum=True), r"momentum cannot be True"),
        (lambda: optimizers.make("grokfast_ma", "filter", window=0), r"whole number"),
        (lambda: optimizers.make("grokfast_ma", "filter", window=2.5), r"whole number"),
        (lambda: optimizers.make("cosine", "schedule", floor=1.5), r"0 ≤ floor ≤ 1"),
        (lambda: optimizers.make("cosine", "schedule", warmup=-1), r"0 ≤ warmup"),
        (lambda: optimizers.decay_mask(tree(), {"ln.gian": 0}), r"'ln.gain'"),
        (lambda: run(optimizers.make("muon", scaling="widht"), tree(), 1), r"'width'"),
        (lambda: run(optimizers.make("muon", heads="seperate"), tree(), 1), r"'separate'"),
    ],
)  # fmt: skip
def test_bad_input_says_what_is_allowed(call: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        call()


def test_decay_mask_goes_by_pattern_and_the_last_counts() -> None:
    mask = flatten(optimizers.decay_mask(tree(), {"*.b_*": 0, "attn.*": 0.5, "attn.b_Q": 0.1}))
    assert mask["attn.b_Q"] == 0.1
    assert mask["attn.W_Q"] == mask["attn.scale"] == 0.5
    assert mask["mlp.W_in"] == mask["ln.gain"] == 1.0
