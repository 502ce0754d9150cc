"""Guards second derivatives: the R-operator against the complex step and JAX, and what is built on its products."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import random_like

from onelayer.arrays import flatten, map_tree
from onelayer.errors import BadInput
from onelayer.layers import activations, cross_entropy
from onelayer.microscope import curvature, gates, journal
from onelayer.microscope.tangent import Linearised, linearise, positions
from onelayer.microscope.tangent.activations import BENDS
from onelayer.models import decoder_only, encoder_decoder
from onelayer.models.config import ModelConfig
from onelayer.positions import available, get
from onelayer.tasks import Batch
from onelayer.training import loop, step
from onelayer.training.config import resolve

CROSS: dict[str, Any] = {"architecture": "encoder_decoder"}
MODELS: dict[str, dict[str, Any]] = {
    "no norm, last position": {"norm": "none", "read": 1, "activation": "relu"},
    "layer norm before, 2 layers, tied": {"norm": "pre", "n_layers": 2, "tied": "unembed"},
    "rms norm before": {"norm": "pre", "norm_kind": "rms", "activation": "silu"},
    "layer norm after, 2 layers": {"norm": "post", "n_layers": 2, "activation": "gelu_tanh", "position": "rope"},
    "rms norm after, last position": {"norm": "post", "norm_kind": "rms", "read": 1, "activation": "quadratic"},
    "encoder-decoder": {**CROSS, "norm": "pre", "position": "sinusoidal"},
    "encoder-decoder, 2 layers, all tied": {**CROSS, "norm": "post", "n_layers": 2, "tied": "all"},
    "encoder-decoder, no norm": {**CROSS, "norm": "none", "position": "t5", "activation": "identity"},
}
LOSSES: list[dict[str, Any]] = [
    {"variant": "softmax", "smoothing": 0.2, "never": 3, "temperature": 1.7},
    {"variant": "float64", "temperature": 0.6},
    {"variant": "stablemax"},
    {"variant": "stablemax", "smoothing": 0.1, "temperature": 1.3},
]


class Case:
    """A small model away from its initial weights, a batch with uneven weights, and padding where there is a source."""

    def __init__(self, read: int | None = None, **model: Any) -> None:
        sizes: dict[str, Any] = {"d_model": 8, "n_heads": 2, "d_head": 6, "d_mlp": 10, "vocab_size": 7, "n_ctx": 5}
        sizes |= {"attention_bias": True, "unembed_bias": True, "embed_scale": True, "activation": "gelu"}
        self.cfg = ModelConfig(**(sizes | model))
        crosses = self.cfg.architecture == "encoder_decoder"
        first = (encoder_decoder if crosses else decoder_only).init(self.cfg, 0)
        self.params = map_tree(lambda a, b: a + 0.25 * b, first, random_like(first))
        rng = np.random.default_rng(0)
        B, T, S, R = 3, 4, 5, 4 if read is None else read
        batch = Batch(rng.integers(0, 7, (B, T)), rng.integers(0, 7, (B, R)), rng.uniform(0.2, 1.0, (B, R)))
        if crosses:
            present = np.ones((B, S), dtype=bool)
            present[0, 3:] = False
            batch = batch._replace(source=rng.integers(0, 7, (B, S)), source_mask=present)
        self.batch = batch

    def at(self, **loss: Any) -> Linearised:
        return linearise(self.params, self.batch, self.cfg, **loss)

    def direction(self, seed: int) -> Any:
        return random_like(self.params, seed)


def error(got: Any, want: Any) -> float:
    """The worst tensor's; one that is zero by symmetry (a key's bias moves all scores alike) against the largest."""
    ours, theirs = flatten(got), flatten(want)
    assert ours.keys() == theirs.keys()
    sizes = {name: float(np.max(np.abs(x))) for name, x in theirs.items()}
    largest = max(sizes.values())
    gaps = {name: float(np.max(np.abs(ours[name] - x))) for name, x in theirs.items()}
    return max(gap / (sizes[name] if sizes[name] > 1e-10 * largest else largest) for name, gap in gaps.items())


def dot(a: Any, b: Any) -> float:
    other = flatten(b)
    return sum(float(np.vdot(x, other[name])) for name, x in flatten(a).items())


@pytest.mark.parametrize("name", MODELS)
def test_the_two_ways_agree_and_the_hessian_is_symmetric(name: str) -> None:
    case = Case(**MODELS[name])
    at, u, v = case.at(), case.direction(1), case.direction(2)
    assert at.by_hand
    Hv, Hu = at.hessian(v), at.hessian(u)
    assert error(Hv, curvature.by_complex_step(case.params, v, case.batch, case.cfg)) <= 1e-10
    assert abs(dot(u, Hv) - dot(v, Hu)) <= 1e-12 * np.sqrt(dot(u, u) * dot(Hv, Hv))
    assert dot(v, Hv) != 0


@pytest.mark.parametrize("name", [[*MODELS][i] for i in (1, 4, 5)])
def test_the_r_operator_is_jaxs_forward_over_reverse(name: str) -> None:
    """jax.jvp of jax.grad of the forward: JAX's own reverse mode, not ours."""
    case = Case(**MODELS[name])

    def loss(p: Any) -> Any:
        batch = map_tree(jnp.asarray, case.batch)
        logits, _ = gates.forward(p, batch, case.cfg)
        return cross_entropy.forward(logits, batch.targets, batch.weights)[0]

    v = case.direction(2)
    p, dp = (map_tree(jnp.asarray, tree) for tree in (case.params, v))
    tangents = jax.jit(lambda p, dp: jax.jvp(jax.grad(loss), (p,), (dp,))[1])(p, dp)
    assert error(case.at().hessian(v), map_tree(np.asarray, tangents)) <= 1e-10


@pytest.mark.parametrize("settings", LOSSES, ids=str)
def test_every_loss(settings: dict[str, Any]) -> None:
    case = Case(norm="pre")
    v = case.direction(2)
    wanted = curvature.by_complex_step(case.params, v, case.batch, case.cfg, **settings)
    assert error(case.at(**settings).hessian(v), wanted) <= 1e-10


@pytest.mark.parametrize("position", available())
def test_every_position_by_hand_or_by_its_own_complex_step(position: str) -> None:
    case = Case(norm="pre", position=position)
    at, v = case.at(), case.direction(2)
    assert at.by_hand == (position in positions.BY_HAND)
    assert error(at.hessian(v), curvature.by_complex_step(case.params, v, case.batch, case.cfg)) <= 1e-10


@pytest.mark.parametrize("kind", activations.FUNCTIONS)
def test_a_bend_is_the_slope_of_the_slope(kind: str) -> None:
    x = np.linspace(-4, 4, 41) + 0.013
    slope = np.imag(activations.FUNCTIONS[kind](x + 1e-30j)[1]) / 1e-30
    bend = BENDS[kind]
    assert np.allclose(0 * x if bend is None else bend(x), slope, rtol=1e-11, atol=1e-14)


def test_a_wrong_term_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: without f″, or with a product's second term lost, the two ways part."""
    case = Case(norm="pre")
    v = case.direction(2)
    wanted = curvature.by_complex_step(case.params, v, case.batch, case.cfg)
    from onelayer.microscope.tangent import softmax

    with monkeypatch.context() as patch:
        patch.setitem(BENDS, "gelu", None)
        assert error(case.at().hessian(v), wanted) > 1e-4
    with monkeypatch.context() as patch:
        patch.setattr(softmax, "backward", lambda rd, d, r, p: p * (rd - (p * rd).sum(axis=-1, keepdims=True)))
        assert error(case.at().hessian(v), wanted) > 1e-4


def test_float32_weights_are_looked_at_in_float64() -> None:
    case = Case(norm="pre")
    narrow = map_tree(lambda x: x.astype(np.float32), case.params)
    v = case.direction(2)
    Hv = linearise(narrow, case.batch, case.cfg).hessian(v)
    assert error(Hv, curvature.by_complex_step(narrow, v, case.batch, case.cfg)) <= 1e-10


# ---------------------------------------------------------------------------------------------------- as a matrix


@pytest.fixture(scope="module")
def tiny() -> tuple[Linearised, np.ndarray, np.ndarray]:
    """A net of 120 weights, and its Hessian and Gauss-Newton matrices column by column."""
    case = Case(read=1, d_model=4, d_head=2, d_mlp=5, vocab_size=5, n_ctx=4, attention_bias=False, unembed_bias=False)
    case.batch = map_tree(lambda a: a % 5 if a.dtype.kind == "i" else a, case.batch)
    at = case.at()
    n = sum(x.size for x in flatten(case.params).values())
    H, G = (np.stack([curvature.product(at, kind)(e) for e in np.eye(n)]) for kind in curvature.KINDS)
    return at, H, G


def test_eigenvalues(tiny: tuple[Linearised, np.ndarray, np.ndarray]) -> None:
    at, H, G = tiny
    exact = np.linalg.eigvalsh(H)
    assert np.max(np.abs(H - H.T)) <= 1e-12 * np.max(np.abs(H))
    top, bottom = curvature.eigenvalues(at, 3, 2)
    assert np.allclose(top, exact[::-1][:3], rtol=1e-6)
    assert np.allclose(bottom, exact[:2], rtol=1e-6)
    assert exact[0] < -1e-3  # there is something below zero to find
    assert np.linalg.eigvalsh(G)[0] >= -1e-12 * np.linalg.eigvalsh(G)[-1]  # Gauss-Newton has nothing there
    assert np.allclose(curvature.eigenvalues(at, 1, 0, "gauss_newton")[0], np.linalg.eigvalsh(G)[-1:], rtol=1e-6)


def test_gauss_newton_is_the_hessian_where_the_net_is_linear() -> None:
    """The logits are linear in W_U alone: along it the net does not curve, and both products agree there."""
    case = Case(norm="pre")
    v = map_tree(np.zeros_like, case.params)
    v = v._replace(unembed=case.direction(2).unembed)
    at = case.at()
    assert error(at.hessian(v).unembed, at.gauss_newton(v).unembed) <= 1e-12
    assert error(at.hessian(case.direction(1)), at.gauss_newton(case.direction(1))) > 1e-2


def test_the_trace(tiny: tuple[Linearised, np.ndarray, np.ndarray]) -> None:
    at, H, _ = tiny
    found = [curvature.trace(at, products=60, seed=seed) for seed in range(3)]
    gaps = np.array([(x.value - np.trace(H)) / x.error for x in found])
    assert np.all(np.abs(gaps) < 5)
    assert np.mean([x.error for x in found]) < 0.2 * np.abs(np.linalg.eigvalsh(H)).sum()
    assert curvature.trace(at, products=3 * len(H)).value == pytest.approx(np.trace(H), rel=1e-8)  # S spans everything


def test_the_density(tiny: tuple[Linearised, np.ndarray, np.ndarray]) -> None:
    at, H, _ = tiny
    exact = np.linalg.eigvalsh(H)
    found = curvature.density(at, probes=3, steps=15)
    assert np.allclose(found.weights.sum(axis=1), 1.0)
    assert found.nodes.min() >= exact[0] - 1e-9 and found.nodes.max() <= exact[-1] + 1e-9
    v = np.random.default_rng(0).standard_normal(len(H))
    v /= np.linalg.norm(v)
    nodes, weights = curvature._quadrature(lambda x: H @ x, v, 6)
    for power in range(11):  # Gauss's quadrature is exact below degree 12
        assert np.sum(weights * nodes**power) == pytest.approx(v @ np.linalg.matrix_power(H, power) @ v, rel=1e-8)
    grid = np.linspace(exact[0] - 3, exact[-1] + 3, 2000)
    assert np.sum(found.on(grid, 0.3)) * (grid[1] - grid[0]) == pytest.approx(1.0, abs=1e-3)


def test_sharpness_along_a_direction(tiny: tuple[Linearised, np.ndarray, np.ndarray]) -> None:
    at, H, _ = tiny
    g = np.concatenate([x.ravel() for x in at.gradient.values()])
    assert curvature.sharpness(at, at.gradient) == pytest.approx(g @ H @ g / (g @ g), rel=1e-10)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda at: curvature.eigenvalues(at, 0, 0), "at an end"),
        (lambda at: curvature.eigenvalues(at, 1, 0, "fisher"), "gauss_newton"),
        (lambda at: curvature.trace(at, products=3), "at least 6"),
        (lambda at: curvature.density(at, steps=0), "Lanczos steps"),
        (lambda at: curvature.sharpness(at, map_tree(np.zeros_like, at.params)), "somewhere to look"),
        (lambda at: curvature.measure(at, ["sharp"]), "along_gradient"),
    ],
)
def test_bad_input(tiny: tuple[Linearised, np.ndarray, np.ndarray], call: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call(tiny[0])


def test_without_scipy_the_message_says_how_to_get_it(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.sparse", None)
    with pytest.raises(BadInput, match="pip install"):
        curvature.eigenvalues(tiny[0])


# ---------------------------------------------------------------------------------------------------- over training


def test_curvature_is_followed_over_a_run_and_over_its_checkpoints(tmp_path) -> None:
    cfg = resolve({
        "task": {"p": 5, "train_fraction": 0.6}, "model": {"d_model": 4, "n_heads": 2, "d_mlp": 4}, "dtype": "float64",
        "steps": 9, "stop": {"on": "none"}, "checkpoint": {"every": 4, "pinned": "all"}, "evaluation": {"every": 4},
    })  # fmt: skip
    task = cfg.task.make(cfg.seed)
    objective = step.make_objective(cfg, task)
    follow = curvature.Follow(objective, every=4)
    result = loop.train(cfg, tmp_path / "run", callback=follow, watch=follow)
    loop.train(cfg, tmp_path / "plain")
    last = "checkpoints/step-9/model.safetensors"
    assert (tmp_path / "run" / last).read_bytes() == (tmp_path / "plain" / last).read_bytes()
    records = list(journal.read(result.run / "curvature.jsonl"))
    assert [r["step"] for r in records] == [0, 4, 8]
    assert records == follow.records
    assert all(r["top"] >= r["along_gradient"] - 1e-6 and r["top"] >= r["along_update"] - 1e-6 for r in records)

    from onelayer.arrays import unflatten
    from onelayer.training.run_directory import Run

    like = step.start(objective, step.make_rules(cfg), 0, "float64").params
    kept = ((s, unflatten(Run(result.run).parameters(s), like)) for s in (4, 8))
    again = list(curvature.over(kept, task.train, objective, ["top", "along_gradient"]))
    assert [r["step"] for r in again] == [4, 8]
    assert again[0]["top"] == pytest.approx(records[1]["top"], rel=1e-9)


def test_only_the_named_methods_are_by_hand() -> None:
    """A method with parameters or state of its own is not counted as written out by mistake."""
    for name in positions.BY_HAND:
        assert set(get(name).stages) <= {"embedding", "query_key", "score"}
