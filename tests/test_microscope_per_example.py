"""Guards the per-example figures: ghost norms, products, signal to noise and pulls against gradients written out."""

import numpy as np
import pytest
from microscopes import B, model

from onelayer.errors import BadInput
from onelayer.microscope import Trace, split
from onelayer.microscope import per_example as each

CASES = [
    ("decoder_only", {"norm": "pre", "position": "learned"}),
    ("decoder_only", {"norm": "post", "position": "t5", "tied": "unembed", "n_layers": 2}),
    ("encoder_decoder", {"norm": "pre", "position": "rope", "tied": "all"}),
    ("encoder_decoder", {"norm": "none", "position": "t5", "n_layers": 2}),
]


def written_out(t: Trace, tensor: str) -> np.ndarray:
    """g_n [B, everything], by one gated backward for each example."""
    return split(t, tensor, "example", method="gated").parts.reshape(B, -1)


@pytest.mark.parametrize(("architecture", "settings"), CASES)
def test_against_gradients_written_out(architecture, settings):
    t = model(architecture, **settings)
    largest = max(np.max(np.abs(x)) for x in t.weight_gradients.values())
    total = np.zeros((B, B))
    for tensor, weight in t.weights.items():
        g = written_out(t, tensor)
        total += g @ g.T
        if np.max(np.abs(g)) <= 1e-12 * largest:  # zero but for rounding: nothing to compare but its size
            assert np.max(each.norms(t, tensor)) <= 1e-12 * largest
            continue
        size = np.sqrt(np.sum(g**2, axis=1))
        assert np.max(np.abs(each.norms(t, tensor) - size)) <= 1e-12 * np.max(size), tensor
        gram = each.gram(t, [tensor])
        assert np.max(np.abs(gram - g @ g.T)) <= 1e-12 * np.max(np.abs(gram)), tensor
        variance = np.var(B * g, axis=0)
        expected = np.divide(np.sum(g, axis=0) ** 2, variance, out=np.zeros_like(variance), where=variance > 0)
        clear = variance > 1e-6 * np.max(variance)
        assert np.allclose(each.snr(t, tensor).ravel()[clear], expected[clear], rtol=1e-9, atol=0), tensor
        at = tuple(n // 2 for n in weight.shape)
        pull = each.pull(t, tensor, at)
        entry = g[:, np.ravel_multi_index(at, weight.shape)]
        assert np.max(np.abs(pull.shares - entry[pull.examples])) <= 1e-12 * np.max(np.abs(g)), tensor
    assert np.max(np.abs(each.gram(t) - total)) <= 1e-12 * np.max(total)


def test_cosines_and_groups():
    t = model("decoder_only", norm="pre")
    cosines = each.cosines(each.gram(t))
    assert np.allclose(np.diagonal(cosines), 1.0) and np.all(np.abs(cosines) <= 1 + 1e-12)
    assert cosines.shape == (B, B) and each.gram(t, examples=[2, 0]).shape == (2, 2)
    groups = each.group_gradients(t, "blocks.0.mlp.W_in", {"first": [0], "others": [1, 2]})
    assert np.allclose(sum(groups.values()), t.weight_gradients["blocks.0.mlp.W_in"], rtol=0, atol=1e-14)
    names, alignment = each.alignment(groups)
    a, b = (x.ravel() for x in groups.values())
    assert names == ("first", "others")
    assert alignment[0, 1] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), rel=1e-12)


def test_pulls_are_sorted_and_add_up_to_the_gradient():
    t = model("decoder_only")
    pull = each.pull(t, "blocks.0.attn.W_Q", (1, 3, 2))
    gradient = t.weight_gradients["blocks.0.attn.W_Q"][1, 3, 2]
    assert pull.total == pytest.approx(gradient, rel=1e-12)
    assert np.all(np.diff(np.sign(gradient) * pull.shares) <= 0)
    assert [row["example"] for row in pull.rows(t, top=1)] == [pull.examples[0], pull.examples[-1]]


def test_bad_input(monkeypatch):
    t = model("decoder_only")
    with pytest.raises(BadInput, match=r"shape \[2, 8, 4\]"):
        each.pull(t, "blocks.0.attn.W_Q", (2, 0, 0))
    with pytest.raises(BadInput, match=r"did you mean 'embed.W_E'"):
        each.norms(t, "embed.W")
    with pytest.raises(BadInput, match="0 to 2"):
        each.gram(t, examples=[3])
    monkeypatch.setattr("onelayer.microscope.per_example.available_memory", lambda: 1000)
    with pytest.raises(BadInput, match=r"choose at most"):
        each.gram(t)
