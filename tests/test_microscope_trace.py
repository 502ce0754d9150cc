"""Guards the trace and the gates: every value and gradient under a name of a fixed list, exact, and cut where asked."""

import numpy as np
import pytest
from microscopes import model

from onelayer import microscope
from onelayer.arrays import flatten
from onelayer.errors import BadInput
from onelayer.layers import cross_entropy
from onelayer.microscope.gates import backward, cut, forward, replay
from onelayer.microscope.trace import estimate
from onelayer.models.config import ModelConfig
from onelayer.training import objective as objectives
from onelayer.training import step as steps
from onelayer.training.config import resolve

BLOCK = [
    "hook_resid_pre",
    "ln1.hook_normalized",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.hook_rot_q",
    "attn.hook_rot_k",
    "attn.hook_attn_scores",
    "attn.hook_pattern",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_normalized",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
]
CROSS = [
    "ln_cross.hook_normalized",
    "cross_attn.hook_q",
    "cross_attn.hook_k",
    "cross_attn.hook_v",
    "cross_attn.hook_rot_q",
    "cross_attn.hook_rot_k",
    "cross_attn.hook_attn_scores",
    "cross_attn.hook_pattern",
    "cross_attn.hook_z",
    "hook_cross_out",
    "hook_resid_cross",
]
ROUTES = ["route_skip_mlp", "route_mlp", "attn.route_q", "attn.route_k", "attn.route_v", "route_skip_attn"]
CROSS_ROUTES = ["cross_attn.route_q", "cross_attn.route_k", "cross_attn.route_v", "route_skip_cross", "route_cross"]


def expected(cfg: ModelConfig) -> tuple[set[str], set[str]]:
    """The names of the values, and of the routes."""

    def block(scope: str, crosses: bool) -> tuple[set[str], set[str]]:
        values, routes = BLOCK + (CROSS if crosses else []), ROUTES + (CROSS_ROUTES if crosses else [])
        values = [name for name in values if cfg.norm != "none" or not name.endswith("hook_normalized")]
        biased = ["attn.hook_bias"] if cfg.position_method.has("score") else []
        return {f"{scope}.{name}" for name in values + biased}, {f"{scope}.{name}" for name in routes}

    final = {"ln_final.hook_normalized"} if cfg.norm == "pre" else set()
    tied = {"unembed.route_tied"} if cfg.tied != "none" else set()
    if cfg.architecture == "decoder_only":
        stacks, values = [("", False)], {"logits", "hook_embed"} | final
    else:
        stacks = [("encoder.", False), ("decoder.", True)]
        values = {"logits", "encoder.hook_memory"}
        values |= {f"{stack}{name}" for stack, _ in stacks for name in {"hook_embed"} | final}
    blocks = [block(f"{stack}blocks.{i}", crosses) for stack, crosses in stacks for i in range(cfg.n_layers)]
    return values.union(*(v for v, _ in blocks)), tied.union(*(r for _, r in blocks))


@pytest.mark.parametrize("architecture", ["decoder_only", "encoder_decoder"])
@pytest.mark.parametrize("settings", [
    {"norm": "none", "position": "learned"}, {"norm": "pre", "position": "t5", "tied": "unembed"},
    {"norm": "post", "position": "rope", "n_layers": 2},
])  # fmt: skip
def test_the_names_are_these_and_no_others(architecture, settings):
    t = model(architecture, **settings)
    values, routes = expected(t.cfg)
    assert set(t.values) == values
    assert set(t.gradients) == values | routes
    assert set(t.weights) == set(t.weight_gradients) == set(flatten(t.params))
    assert set(microscope.names(t)) == values | routes | set(t.weights)
    for name in values - {n for n in values if n.endswith("hook_bias")}:
        assert t.values[name].shape == t.gradients[name].shape, name


@pytest.mark.parametrize("architecture", ["decoder_only", "encoder_decoder"])
def test_a_trace_is_the_loss_and_the_gradient_bit_for_bit(architecture):
    t = model(architecture, norm="pre", n_layers=2)
    goal = objectives.Objective(t.cfg, t.batch.targets.shape[1])
    params = t.params
    logits, cache = forward(params, t.batch, t.cfg)
    assert np.array_equal(logits, t.values["logits"])
    plain = flatten(backward(t.dlogits, cache, t.cfg))
    loss, grads = cut({})(params, t.batch, goal)
    assert loss == t.loss
    for name, x in flatten(grads).items():
        assert np.array_equal(x, t.weight_gradients[name]), name
        assert np.array_equal(x, plain[name]), name


def test_a_gradient_of_an_activation_is_the_derivative():
    """Move one activation; the loss moves by its gradient."""
    t = model("decoder_only", norm="pre", n_layers=2)
    name, h = "blocks.1.hook_resid_mid", 1e-6
    at = (1, 1, 3)

    def loss(by: float) -> float:
        def tap(seen: str, x: np.ndarray) -> np.ndarray:
            if seen != name:
                return x
            moved = x.copy()
            moved[at] += by
            return moved

        logits, _ = forward(t.params, t.batch, t.cfg, tap)
        return float(cross_entropy.forward(logits, t.batch.targets, t.batch.weights)[0])

    assert (loss(h) - loss(-h)) / (2 * h) == pytest.approx(t.gradient(name)[at], rel=1e-6)


@pytest.mark.parametrize("architecture", ["decoder_only", "encoder_decoder"])
@pytest.mark.parametrize("norm", ["none", "pre", "post"])
def test_gates_at_1_are_bitwise_the_default(architecture, norm):
    t = model(architecture, norm=norm, n_layers=2, tied="unembed")
    again = replay(t, dict.fromkeys(t.gradients, 1))
    for name, x in flatten(again.weights).items():
        assert x.tobytes() == t.weight_gradients[name].tobytes(), name
    for name, x in again.gradients.items():
        assert x.tobytes() == t.gradients[name].tobytes(), name


def test_a_cut_route_carries_nothing_and_the_two_halves_add_up():
    t = model("decoder_only", norm="pre", n_layers=2)
    without, alone = (replay(t, {f"blocks.1.{name}": 0}) for name in ("route_mlp", "route_skip_mlp"))
    assert not np.any(without.gradients["blocks.1.route_mlp"])
    for name, plain in t.weight_gradients.items():
        if name.startswith(("embed", "blocks.0", "blocks.1.attn.W")) and not name.endswith("b_K"):
            both = flatten(without.weights)[name] + flatten(alone.weights)[name]
            assert not np.allclose(flatten(without.weights)[name], plain, rtol=1e-3)
            assert np.max(np.abs(both - plain)) <= 1e-12 * np.max(np.abs(plain)), name


def test_training_with_a_route_cut():
    config = resolve({"task": {"name": "arithmetic", "p": 7}, "model": {"d_model": 8, "n_heads": 2, "d_mlp": 8},
                      "dtype": "float64"})  # fmt: skip
    task = config.task.make(0)
    goal, rules = steps.make_objective(config, task), steps.make_rules(config)
    state = steps.start(goal, rules, 0, "float64")
    new, figures, raw = steps.take(state, task.train, 0, goal, rules, gradient=cut({"*.attn.hook_attn_scores": 0}))
    assert not np.any(raw.blocks[0].attn.W_Q) and not np.any(raw.blocks[0].attn.W_K)
    assert np.any(raw.blocks[0].attn.W_V) and np.any(new.params.blocks[0].attn.W_V != state.params.blocks[0].attn.W_V)
    assert figures["loss"] > 0
    with pytest.raises(BadInput, match="route_q"):
        steps.take(state, task.train, 0, goal, rules, gradient=cut({"blocks.0.attn.rout_q": 0}))


def test_the_estimate_is_what_a_trace_takes():
    for architecture in ("decoder_only", "encoder_decoder"):
        t = model(architecture, norm="pre", n_layers=2, position="t5")
        assert estimate(t.params, t.batch, t.cfg) == t.nbytes


def test_too_large_a_trace_is_refused_before_it_begins():
    t = model("decoder_only")
    with pytest.raises(BadInput, match=r"3 examples.*at most about \d examples"):
        microscope.trace(t.params, t.batch, t.cfg, limit=t.nbytes * 2 // 3)


def test_saved_and_loaded(tmp_path):
    t = model("encoder_decoder", norm="pre", tied="all")
    loaded = microscope.load(t.save(tmp_path / "trace.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["trace.safetensors"]
    assert loaded.loss == t.loss
    for name in (*t.gradients, *t.weight_gradients):
        assert np.array_equal(loaded.gradient(name), t.gradient(name)), name


def test_what_cannot_be_saved_or_loaded_is_said(tmp_path):
    t = model("decoder_only")
    with pytest.raises(BadInput, match="cannot write"):
        t.save(tmp_path / "nowhere" / "trace.safetensors")
    (tmp_path / "other").write_bytes(b"no tensors")
    with pytest.raises(BadInput, match="cannot read"):
        microscope.load(tmp_path / "other")


def test_it_shows_itself():
    t = model("decoder_only")
    page = t._repr_html_()
    assert all(name in page for name in microscope.names(t))
    assert "2 × 4" in page or "3 × 4" in page


def test_a_wrong_name_gets_the_nearest():
    t = model("decoder_only")
    with pytest.raises(BadInput, match=r"did you mean 'blocks.0.attn.hook_pattern'"):
        t.value("blocks.0.attn.pattern")
    with pytest.raises(BadInput, match=r"did you mean 'blocks.0.attn.W_Q'"):
        t.gradient("blocks.0.attn.WQ")
    with pytest.raises(BadInput, match=r"unknown gate 'route_mpl'"):
        replay(t, {"route_mpl": 0})
