"""Guards explain: children sum to their parent at every node of hundreds of trees; and what it says to bad input."""

import itertools
import json

import fake_runs
import numpy as np
import pytest
from microscopes import model

from onelayer import cli
from onelayer.arrays import generator
from onelayer.errors import BadInput
from onelayer.microscope import explain
from onelayer.microscope.explain import Node

CASES = [
    ("decoder_only", {"norm": "none", "position": "learned"}), ("decoder_only", {"norm": "pre", "position": "rope"}),
    ("decoder_only", {"norm": "post", "position": "t5", "tied": "unembed", "n_layers": 2}),
    ("decoder_only", {"norm": "pre", "norm_kind": "rms", "position": "alibi", "n_layers": 2, "activation": "gelu"}),
    ("encoder_decoder", {"norm": "pre", "position": "learned", "tied": "all"}),
    ("encoder_decoder", {"norm": "post", "position": "rope", "n_layers": 2}),
    ("encoder_decoder", {"norm": "post", "position": "sinusoidal", "final_norm": True}),
    ("encoder_decoder", {"norm": "none", "position": "t5", "activation": "quadratic", "scale": 0.2}),
    ("decoder_only", {"norm": "pre", "position": "learned", "n_layers": 2, "norm_kind": "rms"}),
]  # fmt: skip


def nodes(tree: Node):
    yield tree
    for child in tree.children:
        yield from nodes(child)


@pytest.mark.parametrize(("architecture", "settings"), CASES)
def test_children_sum_to_their_parent_at_every_node(architecture, settings):
    t = model(architecture, **settings)
    rng = generator(1, "trees", architecture, str(settings))
    arrays = [*t.weights.items(), *t.values.items(), *((f"∂{name}", x) for name, x in t.gradients.items())]
    deepest = 0
    for i in rng.permutation(len(arrays))[:26]:  # 8 cases: 208 trees
        name, x = arrays[i]
        at = [int(rng.integers(n)) for n in x.shape]
        tree = explain(t, f"{name}[{','.join(map(str, at))}]", depth=5, top=3)
        assert tree.value == pytest.approx(_plain(t, name, at), rel=1e-13, abs=0)
        for node in nodes(tree):
            assert node.residual <= 1e-12, (name, at, node.name)
        deepest = max(deepest, sum(1 for _ in nodes(tree)))
    assert deepest > 50


def _plain(t, name, at):
    array = t.weight_gradients.get(name)
    if array is None:
        array = t.gradients[name[1:]] if name.startswith("∂") else t.values[name]
    return float(array[tuple(at)])


def test_with_every_term_shown_nothing_is_left_over():
    t = model("decoder_only", norm="none")
    tree = explain(t, "blocks.0.attn.W_Q[1,3,2]", depth=3, top=1000)
    assert not [node for node in nodes(tree) if "other" in node.name]
    x, dq = t.cache.blocks[0].attn.x_q[..., 3], t.gradient("blocks.0.attn.hook_q")[..., 1, 2]
    assert sorted(child.value for child in tree.children) == pytest.approx(sorted(np.ravel(x * dq)), rel=1e-12)


def test_a_logit_by_direct_path_heads_and_neurons():
    t = model("decoder_only", norm="pre")
    tree = explain(t, "logits[0,1,2]", depth=2, top=50)
    names = {child.name for child in tree.children}
    assert {"embedding", "position 3", "blocks.0.attn head 0", "blocks.0.attn head 1", "blocks.0.mlp"} <= names
    feed_forward = next(child for child in tree.children if child.name == "blocks.0.mlp")
    assert any("neuron" in child.name for child in feed_forward.children)


def test_a_score_by_content_and_position_then_element_by_element():
    t = model("decoder_only", norm="none", attention_bias=False)
    tree = explain(t, "blocks.0.attn.hook_attn_scores[0,1,1,2]", depth=2, top=50)
    parts = {f"{a} of q, {b} of k" for a, b in itertools.product(("content", "position"), repeat=2)}
    assert {child.name for child in tree.children} == parts
    assert all(len(child.children) == 4 for child in tree.children)
    turned = explain(model("decoder_only", position="rope"), "blocks.0.attn.hook_attn_scores[0,1,1,2]", depth=1)
    assert {child.name for child in turned.children} == {"whole of q, whole of k", "turned by position"}


def test_a_wrong_gradient_would_be_seen():
    """The sum is not true by construction: spoil one gradient, and the nodes above it no longer add up."""
    t = model("decoder_only", norm="none")
    t.gradients["blocks.0.attn.hook_attn_scores"] = 1.001 * t.gradients["blocks.0.attn.hook_attn_scores"]
    assert explain(t, "blocks.0.attn.W_Q[0,3,2]", depth=3).worst > 1e-5


def test_text_and_json():
    t = model("decoder_only")
    tree = explain(t, "blocks.0.attn.W_Q[0,3,2]", depth=2, top=2)
    lines = tree.text().splitlines()
    assert lines[0].split()[1] == "∂blocks.0.attn.W_Q[0,3,2]" and "├─" in lines[1]
    data = json.loads(json.dumps(tree.as_dict()))
    assert set(data) == {"name", "formula", "value", "children"} and len(data["children"]) == 3
    assert "<pre>" in tree._repr_html_()


@pytest.mark.parametrize(("spec", "message"), [
    ("blocks.0.attn.WQ[0,3,5]", r"did you mean 'blocks.0.attn.W_Q'"),
    ("blocks.0.attn.W_Q[0,3,9]", r"shape \[2, 8, 4\]; received the index \[0,3,9\]"),
    ("blocks.0.attn.W_Q[0,3]", r"give 3 numbers"),
    ("blocks.0.attn.W_Q", r"received 'blocks.0.attn.W_Q'"),
    ("blocks.0.attn.W_Q[0,-,5]", "whole numbers"),
    ("logits[3,0,0]", r"shape \[3, 2, 5\]"),
])  # fmt: skip
def test_bad_input(spec, message):
    with pytest.raises(BadInput, match=message):
        explain(model("decoder_only"), spec)


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def run(tmp_path):
    return fake_runs.make(tmp_path / "run")


def test_the_command(run, capsys):
    assert cli.run(["explain", str(run), "blocks.0.attn.W_Q[0,3,5]", "--step", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["step"] == 8 and told["tree"]["name"] == "∂blocks.0.attn.W_Q[0,3,5]" and told["residual"] <= 1e-12
    total = sum(child["value"] for child in told["tree"]["children"])
    assert total == pytest.approx(told["tree"]["value"], rel=1e-12)
    assert cli.run(["explain", str(run), "logits[0,0,5]", "--depth", "1", "--split", "test", "--examples", "4"]) == 0
    assert "logits[0,0,5]" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["blocks.0.attn.W_Q[0,3,5]", "--step", "9"], "nearest saved steps are 0, 8, 512"),
    (["blocks.0.attn.W_X[0,3,5]"], "blocks.0.attn.W_"),
    (["blocks.0.attn.W_Q[9,3,5]"], "has shape [2, 16, 8]"),
    (["logits[0,0,0]", "--examples", "1000"], "received 1000"),
])  # fmt: skip
def test_the_command_refuses(run, capsys, arguments, message):
    before = sorted(path.name for path in run.rglob("*"))
    assert cli.run(["explain", str(run), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in run.rglob("*")) == before


def test_a_run_without_checkpoints(tmp_path, capsys):
    run = fake_runs.make(tmp_path / "run", steps=())
    assert cli.run(["explain", str(run), "logits[0,0,0]"]) == 2
    assert "no checkpoint" in capsys.readouterr().err
