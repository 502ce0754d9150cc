"""Guards provenance: every split sums to the plain gradient, and each part is what a gated backward of its own is."""

import itertools

import numpy as np
import pytest
from microscopes import model

from onelayer import positions
from onelayer.arrays import flatten
from onelayer.errors import BadInput
from onelayer.microscope import Trace, split, splits
from onelayer.microscope.gates import backward
from onelayer.microscope.provenance import AXES, routes

BOUND = 1e-12
NORMS, POSITIONS = ("none", "pre", "post"), ("learned", "rope", "t5", "alibi")
CROSSED = (("loss_token", "head"), ("loss_token", "source"), ("route", "loss_token"), ("source", "position"),
           ("example", "class"), ("position", "example"))  # fmt: skip


def size(x: np.ndarray, largest: float) -> float:
    """max|x|; of what is zero but for rounding (a key's bias moves all scores of a row alike), the largest gradient."""
    own = float(np.max(np.abs(x)))
    return own if own > 1e-10 * largest else largest


SPLIT = [
    *itertools.product(("decoder_only", "encoder_decoder"), (1,), NORMS, POSITIONS),
    *itertools.product(("decoder_only",), (2,), NORMS, POSITIONS),
    *itertools.product(("encoder_decoder",), (2,), NORMS, ("t5",)),  # slow: what a second block adds, once a norm
]


@pytest.mark.parametrize(("architecture", "n_layers", "norm", "position"), SPLIT)
def test_every_split_sums_to_the_plain_gradient(architecture, n_layers, norm, position):
    tied = ("none", "unembed", "all" if architecture == "encoder_decoder" else "unembed")[POSITIONS.index(position) % 3]
    settings = {"norm": norm, "n_layers": n_layers, "position": position, "tied": tied, "d_model": 4, "d_mlp": 3}
    calm = {"scale": 0.2, "embed_scale": False} if norm == "none" else {}  # else every pattern stands on one place
    t = model(architecture, **settings, **calm)
    for axis in AXES:
        found = splits(t, having(t, axis) if axis in ("head", "route") else ["*"], axis)
        assert found
        for name, s in found.items():
            assert s.residual <= BOUND, (axis, name, s.residual)
            assert s.parts.shape[0] == len(s.labels[0]) > 0


def having(t: Trace, axis: str) -> list[str]:
    """One weight of each kind of place that heads or routes lie above."""
    stacks = [""] if t.cfg.architecture == "decoder_only" else ["encoder.", "decoder."]
    kinds = ["blocks.0.attn.W_V", "blocks.0.ln1.gain"]
    if t.cfg.n_layers == 2:
        kinds += ["blocks.0.mlp.W_out"]
    names = [f"{stacks[-1]}{kind}" for kind in kinds] + [f"{stack}blocks.0.attn.W_K" for stack in stacks]
    names += [name for name in t.weights if name.endswith("W_E")]
    if len(stacks) == 2:
        names += ["encoder.blocks.0.mlp.W_in", "decoder.blocks.0.cross_attn.W_Q"]
    dead = t.cfg.norm == "post" and t.cfg.n_layers == 1 and axis == "head" and len(stacks) == 1
    return [name for name in names if name in t.weights and not (dead and "ln1" in name)]


@pytest.mark.parametrize(("architecture", "n_layers", "settings"), [
    ("decoder_only", 1, {"norm": "pre", "position": "rope"}),
    ("decoder_only", 2, {"norm": "post", "position": "t5", "tied": "unembed"}),
    ("encoder_decoder", 1, {"norm": "pre", "position": "learned", "tied": "all"}),
])  # fmt: skip
@pytest.mark.parametrize("by", CROSSED, ids="-".join)
def test_crossed_splits_sum_and_the_fast_way_is_the_gated_one(architecture, n_layers, settings, by):
    t = model(architecture, n_layers=n_layers, d_model=4, d_mlp=3, **settings)
    names = (
        having(t, "route") if "route" in by else [n for n in t.weights if "attn.W" in n or n.endswith(("W_E", "gain"))]
    )
    if "head" in by:
        names = [name for name in names if "attn.W" in name]
    fast, gated = (splits(t, names, by, method=method) for method in ("fast", "gated"))
    for name, s in fast.items():
        assert s.labels == gated[name].labels
        assert s.residual <= BOUND and gated[name].residual <= BOUND, name
        error = np.max(np.abs(s.parts - gated[name].parts))
        assert error <= BOUND * size(gated[name].parts, s.largest), name


@pytest.mark.parametrize("architecture", ["decoder_only", "encoder_decoder"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_loss_tokens_are_one_hot_backward_passes(architecture, n_layers):
    t = model(architecture, n_layers=n_layers, norm="pre", position="rope")
    found = splits(t, ["*"], "loss_token")
    for i in range(t.shape["R"]):
        dlogits = np.zeros_like(t.dlogits)
        dlogits[:, i] = t.dlogits[:, i]
        for name, expected in flatten(backward(dlogits, t.cache, t.cfg)).items():
            error = np.max(np.abs(found[name].parts[i] - expected))
            assert error <= BOUND * size(expected, found[name].largest), (name, i)


def test_one_layer_reads_loss_tokens_off_one_backward():
    t = model("decoder_only", position="rope", norm="none")
    cost = {name: s.cost for name, s in splits(t, ["*"], "loss_token").items()}
    assert {name for name, passes in cost.items() if passes} == {"embed.W_E"}
    assert cost["embed.W_E"] == t.shape["R"]
    deep = model("decoder_only", position="rope", norm="none", n_layers=2)
    assert split(deep, "blocks.0.attn.W_K", "loss_token").cost == deep.shape["R"]
    assert split(deep, "blocks.1.attn.W_K", "loss_token").cost == 0


@pytest.mark.parametrize("position", positions.METHODS)
def test_every_position_method(position):
    t = model("decoder_only", position=position, norm="pre")
    for axis in ("loss_token", "position", "example"):
        for tensor, s in splits(t, ["*"], axis).items():
            assert s.residual <= BOUND, (tensor, axis)
    for tensor in (name for name in t.weights if ".attn." in name):
        try:
            assert split(t, tensor, ("source", "loss_token")).residual <= BOUND, tensor
        except BadInput as refusal:
            assert "a rule of its own" in str(refusal), refusal


def test_routes_into_a_one_layer_embedding_are_26_with_4_heads():
    t = model("decoder_only", n_heads=4, norm="pre")
    labels = [part.label for part in routes(t, "embed.W_E")]
    assert len(labels) == len(set(labels)) == 26
    assert labels[0] == "skip · skip" and "mlp · K3" in labels
    assert [part.label for part in routes(t, "blocks.0.attn.W_Q")] == ["skip", "mlp"]


def test_routes_of_deeper_models_and_of_tied_tables():
    t = model("decoder_only", n_layers=2, tied="unembed")
    assert len(routes(t, "embed.W_E")) == 2 * (1 + 3 * 2) + 1
    both = split(
        t, "embed.W_E", ("route:blocks.0", "route:blocks.1"))  # fmt: skip
    assert both.residual <= BOUND and both.parts.shape[:2] == (15, 15)
    crossing = model("encoder_decoder")
    labels = [part.label for part in routes(crossing, "encoder.blocks.0.mlp.W_in")]
    assert labels == ["memory 0 K0", "memory 0 V0", "memory 0 K1", "memory 0 V1"]
    s = split(crossing, "encoder.embed.W_E", ("route:memory", "head"))
    assert s.residual <= BOUND


def test_a_cut_route_is_the_missing_part():
    t = model("decoder_only", norm="pre")
    s = split(t, "embed.W_E", "route")
    whole = dict(zip(s.labels[0], s.parts, strict=True))
    assert np.max(np.abs(whole["skip · skip"])) > 0
    assert np.allclose(sum(whole.values()), t.weight_gradients["embed.W_E"], rtol=0, atol=1e-14)


def test_a_causal_first_token_looks_nowhere_else_so_it_teaches_queries_nothing():
    t = model("decoder_only", n_layers=2, norm="pre")
    s = split(t, "blocks.1.attn.W_Q", "loss_token")
    assert not np.any(s.parts[0]) and np.any(s.parts[1])


def test_frequencies_of_a_cycle_and_the_class_that_is_none():
    t = model("decoder_only")
    s = split(t, "blocks.0.attn.W_V", "frequency", period=4)
    assert s.labels == (("f=0", "f=1", "f=2", "other classes"),)
    assert s.residual <= BOUND
    v = np.arange(4)
    wave = t.dlogits.copy()
    wave[..., :4] = (wave[..., :4] @ np.cos(np.pi * v))[..., None] * np.cos(np.pi * v) / 4  # the fastest wave, alone
    wave[..., 4:] = 0
    expected = flatten(backward(wave, t.cache, t.cfg))["blocks.0.attn.W_V"]
    assert np.max(np.abs(s.parts[2] - expected)) <= BOUND * np.max(np.abs(expected))


def test_shares_add_up_to_1_and_it_shows_itself():
    t = model("decoder_only")
    s = split(t, "blocks.0.attn.W_K", ("loss_token", "head"))
    assert s.parts.shape == (2, 2, 8, 4)  # the head axis is the tensor's own
    assert np.sum(s.shares) == pytest.approx(1.0, abs=1e-12)
    assert np.allclose(s.norms[1, 0] ** 2, np.sum(s.parts[1, 0] ** 2))
    assert list(s.rows(1)[0]) == ["loss_token", "head", "norm", "share"]
    assert "residual" in s._repr_html_()


def test_a_wrong_split_is_refused():
    t = model("decoder_only")
    for arguments, message in [
        (("blocks.0.attn.WQ", "head"), "did you mean 'blocks.0.attn.W_Q'"),
        (("blocks.0.attn.W_Q", "tokens"), "did you mean 'loss_token'"),
        (("blocks.0.attn.W_Q", ("head", "head")), "several different"),
        (("unembed.W_U", "route"), "one route only"),
        (("unembed.W_U", "head"), "passes no head"),
        (("embed.W_E", "route:blocks.7"), "did you mean 'blocks.0'"),
        (("embed.W_E", "head:blocks.0"), "only a route"),
    ]:
        with pytest.raises(BadInput, match=message):
            split(t, *arguments)
    with pytest.raises(BadInput, match="1 to 5"):
        split(t, "embed.W_E", "frequency", period=6)


def test_parts_too_large_for_memory_are_refused(monkeypatch):
    t = model("decoder_only")
    monkeypatch.setattr("onelayer.microscope.provenance.available_memory", lambda: 1000)
    with pytest.raises(BadInput, match=r"3 example × 5 class"):
        split(t, "blocks.0.attn.W_Q", ("example", "class"))
