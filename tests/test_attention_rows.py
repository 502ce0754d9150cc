"""Guards sublayers/attention_rows.py: one product for q, k and v gives attention's numbers and gradients."""

from typing import Any

import attentions
import numpy as np
import pytest

from onelayer import fused, kernels, positions
from onelayer.arrays import generator, natural
from onelayer.models.decoder_only import look_mask
from onelayer.positions import Places, Size
from onelayer.sublayers import attention, attention_blocked, attention_rows

B, T, S, H, K, D = 2, 7, 5, 3, 4, 10
BIASES = ("b_Q", "b_K", "b_V", "b_O")


def random(*shape: int) -> np.ndarray:
    return generator(5, "test_attention_rows", *shape).standard_normal(shape)


def drawn(method: positions.Method, size: Size) -> attention.Params:
    return attentions.drawn(method, size, random)


def agree(p: attention.Params, x_q: Any, x_k: Any, places: Places, method: positions.Method, same: bool = True) -> None:
    dout = random(*x_q.shape)

    def both() -> tuple[Any, Any]:
        out, c = attention.forward(p, x_q, x_k, places, method)
        dx_q, dx_k, d = attention.backward(dout, c, method)
        return c, (out, *((attention.plus(dx_q, dx_k),) if same else (dx_q, dx_k)), d)

    _, expected = both()
    with fused.using(kernels.available(), attention_rows.STAND_INS):
        c, got = both()
    assert isinstance(c, attention_rows.Cache) and len(c.joints) == (1 if same else 2)
    attentions.equal(got, expected, unfelt=(*attentions.UNFELT, "pos.b_in"))


@pytest.mark.parametrize("name", [n for n in positions.available() if not positions.get(n).has("value")])
@pytest.mark.parametrize("causal", [True, False])
def test_equals_attention(name, causal):
    method, x = positions.get(name), random(B, T, D)
    places = Places(natural(T), natural(T), look_mask(T, T, causal, None, x), causal)
    agree(drawn(method, Size(D, H, K, T, causal)), x, x, places, method)


@pytest.mark.parametrize(
    "name", [n for n in positions.available() if (m := positions.get(n)).crosses and not m.has("value")]
)
def test_across(name):
    method, x_q, x_k = positions.get(name), random(B, T, D), random(B, S, D)
    p = drawn(method, Size(D, H, K, T, causal=False, cross=True))
    agree(p, x_q, x_k, Places(natural(T), natural(S), None, False), method, same=False)


@pytest.mark.parametrize("name", ["none", "rope", "alibi"])
def test_padding_and_a_row_that_sees_nothing(name):
    method, x = positions.get(name), random(B, T, D)
    present = natural(T)[None] >= np.array([[0], [3]])
    places = Places(natural(T), natural(T), look_mask(T, T, True, present, x), True)
    agree(drawn(method, Size(D, H, K, T)), x, x, places, method)


@pytest.mark.parametrize("name", ["none", "t5"])
def test_without_biases(name):
    method, x = positions.get(name), random(B, T, D)
    p = drawn(method, Size(D, H, K, T))._replace(**dict.fromkeys(BIASES))
    agree(p, x, x, Places(natural(T), natural(T), look_mask(T, T, True, None, x), True), method)


def test_what_it_leaves_to_the_definition():
    method, x = positions.get("none"), random(B, T, D)
    p = drawn(method, Size(D, H, K, T))
    assert attention_rows.fits(p, x, x, method, attention.keep)
    assert not attention_rows.fits(p, x, x, method, lambda name, value: value)
    assert not attention_rows.fits(p, x[:, 1:], x, method, attention.keep)  # no rows: strided
    assert not attention_rows.fits(p, x.astype(np.float32), x, method, attention.keep)
    assert not attention_rows.fits(p._replace(b_K=None), x, x, method, attention.keep)
    assert not attention_rows.fits(p, x + 0j, x + 0j, method, attention.keep)
    assert not attention_rows.fits(p, x, x, positions.get("shaw"), attention.keep)


@pytest.mark.parametrize("long", [1, T + 1])
def test_long_contexts_go_in_blocks_before(monkeypatch, long):
    """Where both could, blocks are asked first; where blocks decline, rows are."""
    monkeypatch.setattr(attention_blocked, "LONG", long)
    method, x = positions.get("none"), random(B, T, D)
    p, places = drawn(method, Size(D, H, K, T)), Places(natural(T), natural(T), None, False)
    with fused.using(attention_rows.STAND_INS, attention_blocked.STAND_INS):
        out, c = attention.forward(p, x, x, places, method)
        dx = attention.plus(*attention.backward(out, c, method)[:2])
    assert isinstance(c, attention_blocked.Cache if long == 1 else attention_rows.Cache)
    out, c = attention.forward(p, x, x, places, method)
    np.testing.assert_allclose(dx, sum(attention.backward(out, c, method)[:2]), rtol=1e-11)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_whole_model(norm):
    attentions.equal_in_a_model(attention_rows.STAND_INS, B, T, norm=norm, position="learned", attention_bias=True)
