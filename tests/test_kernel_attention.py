"""Guards kernels/attention.py: one pass gives attention's numbers and gradients, however the mask lies."""

from typing import Any

import numpy as np
import pytest
from backends import needs

from onelayer import fused, kernels, positions
from onelayer.arrays import generator, map_tree, natural
from onelayer.models.decoder_only import look_mask
from onelayer.positions import Places, Size
from onelayer.sublayers import attention, attention_blocked, attention_rows

pytestmark = needs("numba")
ROUNDING = {"float64": 1e-12, "float32": 3e-6}
MASKS = ["none", "causal", "padding", "causal and padding", "gaps", "gaps for each", "nothing to see"]
SIZES = [  # B, H, T, S, K
    (1, 1, 1, 1, 5), (2, 3, 5, 5, 5), (3, 2, 20, 20, 32), (2, 2, 64, 64, 32), (2, 1, 7, 70, 8), (1, 2, 70, 9, 40),
    (1, 2, 300, 300, 8),
]  # fmt: skip


@pytest.fixture(params=ROUNDING)
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


def random(*shape: int, purpose: str = "") -> np.ndarray:
    return generator(9, "test_kernel_attention", purpose, *shape).standard_normal(shape)


def mask_of(kind: str, B: int, T: int, S: int) -> np.ndarray | None:
    present = np.arange(S) < np.arange(B)[:, None] * S // max(B - 1, 1)  # of the first example, nothing
    late = np.arange(S) >= np.arange(B)[:, None]
    looking_back = look_mask(max(T, S), T, True, None, random(1))
    return {
        "none": None,
        "causal": None if looking_back is None else np.asarray(looking_back)[..., -S:],
        "padding": present[:, None, None],
        "causal and padding": np.tril(np.ones((T, S), bool), S - T) & late[:, None, None],
        "gaps": random(1, 1, T, S, purpose="gaps") > 0.3,
        "gaps for each": random(B, 1, 1, S, purpose="gaps") > 0.3,
        "nothing to see": np.zeros((1, 1, 1, 1), bool),
    }[kind]


def heads(dtype: str, B: int, H: int, T: int, K: int, N: int) -> tuple[np.ndarray, np.ndarray]:
    """Two views of a product's rows, side by side."""
    y = random(B, T, H, 2 * max(K, N)).astype(dtype).transpose(0, 2, 1, 3)
    return y[..., :K], y[..., -N:]


def like(a: np.ndarray) -> np.ndarray:
    B, H, T, K = a.shape
    return heads(str(a.dtype), B, H, T, K, K)[0]


def through(q: Any, k: Any, v: Any, dz: Any, mask: Any) -> list[np.ndarray]:
    z, c = attention_rows.mix(q, k, v, mask)
    outs = [like(a) for a in (q, k, v)]
    attention_rows.mix_backward(dz, c, *outs)
    return [z, *outs]


def near(got: Any, expected: Any, rounding: float) -> None:
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        assert np.linalg.norm(a - b) <= rounding * (np.linalg.norm(b) or 1)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("B", "H", "T", "S", "K"), SIZES)
def test_equals_the_definition(B, H, T, S, K, mask, dtype):
    q, dz = heads(dtype, B, H, T, K, K)
    k, v = heads(dtype, B, H, S, K, K)
    given = q / dz.dtype.type(K**0.5), k, v, dz, mask_of(mask, B, T, S)
    expected = through(*given)
    with fused.using(handing_on_fails()):
        got = through(*given)
    near(got, expected, ROUNDING[dtype])
    assert all(np.isfinite(a).all() for a in got)


def handing_on_fails() -> dict[str, Any]:
    """The kernels, none of which may leave it to the definition."""

    def alone(kernel: Any) -> Any:
        return lambda definition, *args: kernel(None, *args)

    return {name: alone(f) for name, f in kernels.available().items() if name.startswith("sublayers.")}


def test_queries_wider_than_values(dtype):
    q, k = heads(dtype, 2, 3, 9, 12, 12)
    v, dz = heads(dtype, 2, 3, 9, 7, 7)
    expected = through(q, k, v, dz, None)
    with fused.using(handing_on_fails()):
        near(through(q, k, v, dz, None), expected, ROUNDING[dtype])


@pytest.mark.parametrize("name", ["none", "rope", "xpos"])
@pytest.mark.parametrize(("n", "mask"), [(90, "causal"), (70, "causal"), (90, "gaps")])
def test_long_contexts(name, n, mask, dtype, monkeypatch):
    """In the place of attention_blocked's loops."""
    monkeypatch.setattr(attention_blocked, "LONG", 1)
    B, T, H, K, D = 2, 90, 3, 8, 10
    method, x = positions.get(name), random(B, T, D)
    places = Places(natural(T)[T - n :], natural(T), mask_of(mask, B, n, T), mask == "causal")
    W_Q, W_K, W_V = (0.3 * random(H, D, K, purpose=w) for w in "QKV")
    p = attention.Params(W_Q, W_K, W_V, random(H, K, D))
    pos = method.init(generator(0, "pos"), Size(D, H, K, T)) if method.in_attention else None
    p, x, dout = map_tree(lambda a: a.astype(dtype), (p._replace(pos=pos), x, random(B, n, D)))

    def both() -> list[np.ndarray]:
        out, c = attention.forward(p, x[:, T - n :], x, places, method)
        assert isinstance(c, attention_blocked.Cache)
        dx_q, dx_k, dp = attention.backward(dout, c, method)
        return [out, dx_q, dx_k, *dp[:4]]

    with fused.using(attention_blocked.STAND_INS):
        expected = both()
    with fused.using(handing_on_fails(), attention_blocked.STAND_INS):
        near(both(), expected, ROUNDING[dtype])


@pytest.mark.parametrize("where", ["q", "k", "v", "dz"])
@pytest.mark.parametrize("what", [np.nan, np.inf])
def test_what_is_not_finite_shows(where, what):
    (q, k), (v, dz) = heads("float64", 2, 2, 40, 8, 8), heads("float64", 2, 2, 40, 8, 8)
    given = {"q": q.copy(), "k": k.copy(), "v": v.copy(), "dz": dz.copy()}
    given[where][1, 1, 3, 2] = what
    with fused.using(handing_on_fails()), np.errstate(all="ignore"):
        assert not all(np.isfinite(a).all() for a in through(**given, mask=mask_of("causal", 2, 40, 40)))


def test_what_it_leaves_to_the_definition():
    q, k = heads("float64", 2, 3, 6, 8, 8)
    by_head = np.ones((1, 3, 6, 6), bool)
    for step, mask in ((2, None), (1, by_head)):
        given = q[..., ::step], k[..., ::step], k[..., ::step], q[..., ::step], mask
        expected = through(*given)
        with fused.using(kernels.available()):
            near(through(*given), expected, 1e-12)


def test_memory_grows_with_length_not_with_its_square():
    import tracemalloc

    def peak(length: int) -> int:
        q, k = heads("float32", 1, 2, length, 32, 32)
        mask = look_mask(length, length, True, None, q)
        tracemalloc.start()
        with fused.using(handing_on_fails()):
            through(q, k, k, q, mask)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(8)
    assert peak(2048) < 2.2 * peak(1024)
