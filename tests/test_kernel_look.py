"""Guards kernels/look.py and the `look` of kernels/first_attention.py: a few examples after the other go through
attention, and what comes out, forwards and backwards, is the definition's to 1e-12 in float64."""

from typing import Any

import numpy as np
import pytest
from backends import needs
from stand_ins import ROUNDING, Counting, agree, random

from onelayer import fused, kernels, positions, threads
from onelayer.arrays import generator, natural
from onelayer.layers import layer_norm, rms_norm
from onelayer.models import encoder_decoder, first_attention, halves
from onelayer.models.config import ModelConfig
from onelayer.models.decoder_only import Block, look_mask
from onelayer.positions import Places
from onelayer.sublayers import attention, attention_blocked

pytestmark = needs("numba")
H, D, K, V = 2, 64, 32, 9
SINUSOIDAL = positions.get("sinusoidal")
LOOK, CROSS, FIRST = (
    [name, f"{name}_backward"]
    for name in ("models.halves.look", "models.encoder_decoder.cross", "models.first_attention.look")
)
SIZES = [
    (7, 5),
    (7, 20),
    (3, 64),
    (2, 150),
    (50, 50),
]  # B, T; of 150 rows one goes at a time, the last is on two threads
NORMS = [("none", "layer"), ("pre", "layer"), ("post", "layer"), ("pre", "rms"), ("post", "rms")]


@pytest.fixture(params=ROUNDING)
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


def config(norm: str) -> ModelConfig:
    shape: dict[str, Any] = {"vocab_size": V, "n_ctx": 200, "d_model": D, "n_heads": H, "d_mlp": 8}
    return ModelConfig(**shape, norm=norm)


def norm_of(norm: str, kind: str) -> Any:
    if norm == "none":
        return None
    gain, bias = random(D, purpose="gain"), random(D, purpose="bias")
    return layer_norm.Params(gain, bias) if kind == "layer" else rms_norm.Params(gain)


def attends(biased: bool) -> attention.Params:
    W_Q, W_K, W_V = (random(H, D, K, scale=D**-0.5, purpose=name) for name in "QKV")
    p = attention.Params(W_Q, W_K, W_V, random(H, K, D, scale=D**-0.5, purpose="O"))
    b_Q, b_K, b_V = (random(H, K, purpose=f"b_{name}") for name in "QKV")
    return p._replace(b_Q=b_Q, b_K=b_K, b_V=b_V, b_O=random(D, purpose="b_O")) if biased else p


def mask_of(kind: str, B: int, T: int, S: int) -> Any:
    present = natural(S) < 1 + natural(B)[:, None] * (S - 1) // max(B - 1, 1)
    return {
        "none": None,
        "causal": look_mask(T, T, True, None, random(1)),
        "padding": present[:, None, None],
        "gaps": (natural(S) % 3 != 1)[None, None, None],
    }[kind]


def block(norm: str, kind: str, biased: bool) -> Any:
    return Block(norm_of(norm, kind), attends(biased), None, None)


@pytest.mark.parametrize(("norm", "kind"), NORMS)
@pytest.mark.parametrize("mask", ["none", "causal", "padding", "gaps"])
@pytest.mark.parametrize(("B", "T"), SIZES)
def test_look(B, T, mask, norm, kind, dtype):
    places = Places(natural(T), natural(T), mask_of(mask, B, T, T), mask == "causal")

    def both(p: Any, x: Any, dmid: Any) -> Any:
        mid, c = halves.look(p, x, T, places, SINUSOIDAL, config(norm))
        return mid, halves.look_backward(dmid, c, SINUSOIDAL, config(norm))

    given = block(norm, kind, mask == "causal"), random(B, T, D), random(B, T, D, purpose="dmid")
    agree(both, *given, dtype=dtype, names=LOOK)


@pytest.mark.parametrize(("norm", "kind"), NORMS)
@pytest.mark.parametrize("mask", ["none", "padding"])
@pytest.mark.parametrize(("B", "T", "S"), [(7, 5, 9), (7, 20, 20), (3, 64, 7), (50, 50, 20)])
def test_cross(B, T, S, mask, norm, kind, dtype):
    across = Places(natural(T), natural(S), mask_of(mask, B, T, S), False)
    p = encoder_decoder.DecoderBlock(None, None, norm_of(norm, kind), attends(mask == "none"), None, None)

    def both(p: Any, mid: Any, memory: Any, dmet: Any) -> Any:
        met, c = encoder_decoder.cross(p, mid, memory, across, SINUSOIDAL, config(norm))
        return met, encoder_decoder.cross_backward(dmet, c, SINUSOIDAL, config(norm))

    given = p, random(B, T, D), random(B, S, D, purpose="memory"), random(B, T, D, purpose="dmet")
    agree(both, *given, dtype=dtype, names=CROSS)


@pytest.mark.parametrize(("norm", "kind"), NORMS)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("mask", ["causal", "padding"])
@pytest.mark.parametrize(("B", "T"), SIZES)
def test_first_look(B, T, mask, biased, norm, kind, dtype):
    """From tables that have a place more than the examples, and a token that none has."""
    places, M, N = Places(natural(T), natural(T), mask_of(mask, B, T, T), mask == "causal"), T + 1, 3 * H * K
    tokens = generator(2, "tokens").integers(0, V - 1, (B, T))
    rstd = np.abs(random(V, M, purpose="rstd")) + 0.5 if norm == "pre" else None
    b, b_O = (random(width, purpose="b") if biased else None for width in (N, D))
    token, place = random(V, N, scale=0.3), random(M, N, scale=0.3, purpose="place")
    W_O = random(H, K, D, scale=D**-0.5)
    tables = first_attention.Tables(token, place, rstd, b, W_O, b_O, None, random(V, D), random(M, D))

    def both(tables: Any, ln1: Any, x: Any, dmid: Any) -> Any:
        p, cfg = Block(ln1 if norm == "post" else None, tables, None, None), config(norm)
        mid, c = first_attention.look(tokens, p, x, T, places, SINUSOIDAL, cfg)
        return mid, first_attention.look_backward(dmid, c, SINUSOIDAL, cfg)

    given = tables, norm_of(norm, kind), random(B, T, D, purpose="x"), random(B, T, D, purpose="dmid")
    agree(both, *given, dtype=dtype, names=FIRST)


def ran(position: str = "sinusoidal", B: int = 4, T: int = 6, n: int = 6, width: int = K, tap: Any = None) -> int:
    """How often `look`'s kernel ran; whatever it leaves to the definition comes out the same."""
    method, x = positions.get(position), random(B, T, D)
    W = [random(H, D, width, purpose=name) for name in "QKV"]
    p = Block(None, attention.Params(W[0], W[1], W[2], random(H, width, D)), None, None)
    places = Places(natural(T)[T - n :], natural(T), look_mask(T, n, True, None, x), True)
    given = p, x, n, places, method, config("none"), *(() if tap is None else (tap,))
    (mid, _), counting = halves.look(*given), Counting()
    with fused.using(counting):
        again, kept = halves.look(*given)
        halves.look_backward(mid, kept, method, config("none"))
    np.testing.assert_allclose(again, mid, rtol=1e-11, atol=1e-11)
    return counting.ran.get("models.halves.look", 0)


def test_what_it_leaves_to_the_definition(monkeypatch):
    assert ran() == 1
    assert ran(n=3) == 0  # not all positions ask
    assert ran(width=12) == 0  # heads of no whole lanes, however wide the registers
    assert ran(position="rope") == 0  # turned queries
    assert ran(position="alibi") == 0  # a bias of the scores
    assert ran(tap=lambda name, x: x) == 0
    monkeypatch.setattr(threads, "count", lambda: 4)
    assert ran(B=3, T=700, n=700) == 0  # a thread would have no example
    monkeypatch.setattr(attention_blocked, "LONG", 6)
    assert ran() == 0


@pytest.mark.parametrize("where", ["x", "dmid"])
def test_what_is_not_finite_shows(where):
    places = Places(natural(6), natural(6), None, False)
    given = {"x": random(4, 6, D), "dmid": random(4, 6, D, purpose="dmid")}
    given[where][1, 2, 3] = np.nan
    with fused.using(kernels.available()), np.errstate(all="ignore"):
        mid, c = halves.look(block("pre", "layer", True), given["x"], 6, places, SINUSOIDAL, config("pre"))
        dx, (_, d) = halves.look_backward(given["dmid"], c, SINUSOIDAL, config("pre"))
    assert np.isnan(mid[1]).any() == (where == "x")
    assert np.isnan(dx[1]).any() and not np.isnan(dx[2]).any()
    assert np.isnan(d.W_Q).any()
