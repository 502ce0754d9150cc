"""Guards the positions: gradients in both models, formulas against loops and other libraries, theorems, backends."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from backends import needs
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close_trees, complex_step, pairing, random_array, random_ids, random_like

from onelayer import optimizers, positions
from onelayer.arrays import flatten, generator, map_tree, natural, unflatten
from onelayer.errors import BadInput
from onelayer.models import decoder_only, encoder_decoder
from onelayer.models.config import ModelConfig
from onelayer.positions import Places, Size, ids
from onelayer.sublayers import attention
from onelayer.tasks import Batch
from onelayer.training.objective import Objective, loss_and_grads

B, T, S, D, H, K, F, V, N = 2, 4, 5, 6, 3, 4, 7, 5, 9
SIZE = Size(d_model=D, n_heads=H, d_head=K, n_ctx=N)

SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {  # small enough that every branch is walked at T = 4
    "binary": ({"bits": 5, "amplitude": 0.7},),
    "sinusoidal_permuted": ({"length": 3},),
    "random_fixed": ({"rows": 9}, {"scale": 0.5}),
    "shaw": ({"reach": 2},),
    "t5": ({"buckets": 4, "furthest": 3}, {"buckets": 8, "furthest": 9}),
    "sandwich": ({"width": 6}, {"width": 6, "compress": False}),
    "fire": ({"hidden": 5, "length": 2.0}, {"hidden": 5, "length": 50.0}),
    "rope": ({}, {"layout": "halves"}),
    "rope_truncated": ({"fraction": 0.5}, {"layout": "halves", "length": 8.0}),
    "xpos": ({"length": 4.0}, {"length": 4.0, "layout": "halves"}),
    "pope": ({"start": "uniform"},),
    "roper": ({}, {"layout": "halves"}),
    "cope": ({"positions": 2}, {"positions": 8}),
}
CASES = [(name, settings) for name in positions.available() for settings in SETTINGS.get(name, ({},))]
LABELS = [f"{name}-{'-'.join(map(str, settings.values()))}".rstrip("-") for name, settings in CASES]
every_case = pytest.mark.parametrize(("name", "settings"), CASES, ids=LABELS)
RELATIVE = [name for name in positions.available() if positions.get(name).relative]


def config(name: str, settings: dict[str, Any], **more: Any) -> ModelConfig:
    usual: dict[str, Any] = {
        "vocab_size": V, "n_ctx": N, "d_model": D, "n_heads": H, "d_head": K, "d_mlp": F, "activation": "gelu",
        "norm": "pre", "attention_bias": True, "position": name, "position_settings": settings,
    }  # fmt: skip
    return ModelConfig(**(usual | more))


def moved(params: Any, seed: int = 0) -> Any:
    """Parameters away from where they start, but not so far that a softmax saturates."""
    return map_tree(lambda p, r: p + 0.3 * r, params, random_like(params, seed))


# ---------------------------------------------------------------------------------------------------- registry


def test_every_file_is_registered_and_every_registered_method_has_one():
    folder = Path(positions.__file__).parent
    assert {p.stem for p in folder.glob("*.py")} - {"__init__", "ids"} == set(positions.available())


def test_describe_has_a_row_for_each_method():
    rows = positions.describe()
    assert [row["name"] for row in rows] == list(positions.available())
    for row in rows:
        assert len(row["summary"]) > 30, row["name"]
        assert row["source"], row["name"]
        assert row["extrapolates"] in ("yes", "defined", "no")
        assert bool(row["stages"]) == (row["name"] != "none")
    by_name = {row["name"]: row for row in rows}
    assert by_name["learned"]["parameters"] == 256 * 128
    assert by_name["alibi"]["parameters"] == 0
    assert by_name["t5"]["parameters"] == 4 * 32
    controls = {name for name, row in by_name.items() if row["control"]}
    assert controls == {"sinusoidal_doubled", "sinusoidal_permuted", "random_fixed", "amplitude_matched"}


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 48, 512, 4096])
@pytest.mark.parametrize("name", positions.available())
def test_fitted_settings_are_accepted_at_any_length(name, n):
    size = Size(d_model=64, n_heads=2, d_head=8, n_ctx=n)
    if name in ("random_fixed", "amplitude_matched") and n > 2048:
        with pytest.raises(BadInput, match="has 2048 rows, but n_ctx is 4096"):
            positions.get(name).check(size)
    else:
        positions.get(name, **positions.fitted(name, n)).check(size)


# ---------------------------------------------------------------------------------------------------- gradients


def gradient_error(forward: Any, backward: Any, params: Any) -> dict[str, float]:
    """Each tensor's error: positions' own entry by entry, the others' along two random directions each.

    A gradient that is zero by symmetry (b_K moves all scores of a row alike) has no size: it is held to the largest.
    """
    logits, cache = forward(params)
    dlogits = random_array(*logits.shape, purpose="dlogits")
    hand, flat = flatten(backward(dlogits, cache)), flatten(params)
    assert hand.keys() == flat.keys()
    assert all(hand[name].shape == flat[name].shape for name in flat)
    assert all(isinstance(g, np.ndarray) for g in hand.values())

    def loss(**changed: np.ndarray) -> Any:
        return pairing(forward(unflatten(flat | changed, params))[0], dlogits)

    gaps, sizes = {}, {}
    for name, value in flat.items():
        if "pos" in name:
            exact = complex_step(lambda x, name=name: loss(**{name: x}), value)
            gaps[name], sizes[name] = np.max(np.abs(hand[name] - exact)), np.max(np.abs(exact))
        else:
            directions = [random_array(*value.shape, purpose=f"{name} {i}") for i in range(2)]
            exact = np.array([np.imag(loss(**{name: value + 1e-30j * d})) / 1e-30 for d in directions])
            got = np.array([np.sum(hand[name] * d) for d in directions])
            gaps[name], sizes[name] = np.max(np.abs(got - exact)), np.max(np.abs(exact))
    largest = max(sizes.values())
    return {name: gaps[name] / (sizes[name] if sizes[name] > 1e-10 * largest else largest) for name in gaps}


@every_case
def test_gradients_of_the_decoder(name, settings):
    cfg = config(name, settings)
    params = moved(decoder_only.init(cfg, 0))
    tokens = random_ids(V, B, T)
    errors = gradient_error(
        lambda p: decoder_only.forward(p, tokens, cfg), lambda dy, c: decoder_only.backward(dy, c, cfg), params
    )
    assert max(errors.values()) <= 1e-12, errors


@every_case
def test_gradients_of_the_encoder_decoder_with_padding_and_ids_of_each_example(name, settings):
    cfg = config(name, settings, architecture="encoder_decoder", norm="post")
    params = moved(encoder_decoder.init(cfg, 0))
    source, target = random_ids(V, B, S), random_ids(V, B, T)
    present = np.ones((B, S), dtype=bool)
    present[0, S - 2 :] = False
    rng = generator(0, "ids")
    places = {
        "source_ids": np.stack([np.sort(rng.permutation(N)[:S]) for _ in range(B)]),
        "target_ids": np.stack([np.sort(rng.permutation(N)[:T]) for _ in range(B)]),
    }
    errors = gradient_error(
        lambda p: encoder_decoder.forward(p, source, target, cfg, source_present=present, **places),
        lambda dy, c: encoder_decoder.backward(dy, c, cfg),
        params,
    )
    assert max(errors.values()) <= 1e-12, errors


def test_a_wrong_gradient_is_seen():
    """A factor of 1 + 1e-9 in one learnt part of a position must fail."""
    cfg = config("kerple", {})
    params, tokens = moved(decoder_only.init(cfg, 0)), random_ids(V, B, T)

    def backward(dy: Any, c: Any) -> Any:
        grads = flatten(decoder_only.backward(dy, c, cfg))
        grads["blocks.0.attn.pos.raw_b"] = grads["blocks.0.attn.pos.raw_b"] * (1 + 1e-9)
        return unflatten(grads, params)

    errors = gradient_error(lambda p: decoder_only.forward(p, tokens, cfg), backward, params)
    assert errors["blocks.0.attn.pos.raw_b"] == pytest.approx(1e-9, rel=1e-3)


# ------------------------------------------------------------------------------------------------- formulas, in loops

Q_IDS, K_IDS = np.array([3, 4, 6, 8]), np.array([0, 3, 4, 6, 8])  # queries are the last four of five keys


class Given(NamedTuple):
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    x_q: np.ndarray
    x_k: np.ndarray
    pattern: np.ndarray


def given_arrays(batch: int = B) -> Given:
    x = random_array(batch, S, D, purpose="x")
    arrays = (random_array(batch, n, H, K, purpose=p) for p, n in (("q", T), ("k", S), ("v", S)))
    return Given(*arrays, x_q=x[:, S - T :], x_k=x, pattern=random_array(batch, H, T, S, purpose="pattern"))


def look(causal: bool) -> Places:
    mask = np.tril(np.ones((S, S), dtype=bool))[None, None, S - T :] if causal else None
    return Places(Q_IDS, K_IDS, mask, causal)


def params_of(method: positions.Method) -> Any:
    p = method.init(generator(0, method.name), SIZE)
    return None if p is None else moved(p)


def frequency(k: int, width: int, base: float = 10_000.0) -> float:
    return base ** (-2 * k / width)


def sinusoid(t: float, width: int, base: float = 10_000.0) -> list[float]:
    row = []
    for k in range(width // 2):
        row += [math.sin(t * frequency(k, width, base)), math.cos(t * frequency(k, width, base))]
    return row


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def soft(x: float) -> float:
    return math.log(1 + math.exp(x))


def row_of(name: str, settings: dict[str, Any], p: Any, t: int) -> list[float]:
    """What is added to an embedding at place t."""
    sines = [math.sin(t * frequency(k, D)) for k in range(D // 2)]
    cosines = [math.cos(t * frequency(k, D)) for k in range(D // 2)]
    match name:
        case "sinusoidal":
            return sinusoid(t, D)
        case "sinusoidal_concatenated":
            return sines + cosines
        case "sinusoidal_scaled":
            return [float(p.alpha[0]) * x for x in sinusoid(t, D)]
        case "sinusoidal_learned":
            return [f(t * float(w)) for w in p.omega for f in (math.sin, math.cos)]
        case "sinusoidal_doubled":
            return sinusoid(t, D, 1e8)
        case "sinusoidal_permuted":
            n = settings["length"]
            order = list(generator(0, "sinusoidal_permuted", n).permutation(n))
            return sinusoid(n * (t // n) + order[t % n], D)
        case "binary":
            bits = [float(b) for b in reversed(f"{t:05b}")]
            return [settings["amplitude"] * b for b in bits] + [0.0] * (D - 5)
        case "learned":
            return list(p.W_pos[t])
        case "random_fixed":
            table = generator(0, "random_fixed", D).standard_normal((N, D))
            return list(settings.get("scale", D**-0.5) * table[t])
        case "amplitude_matched":
            g = generator(0, "amplitude_matched", D).standard_normal((N, D))[t]
            return list(g * math.sqrt(D / 2) / math.sqrt(sum(x * x for x in g)))
    raise AssertionError(f"no loop for {name}")


EMBEDDING = [case for case in CASES if positions.get(case[0]).has("embedding")]
QUERY_KEY = [case for case in CASES if positions.get(case[0]).has("query_key")]
SCORE = [case for case in CASES if positions.get(case[0]).has("score")]
VALUE = [case for case in CASES if positions.get(case[0]).has("value")]


@pytest.mark.parametrize(("name", "settings"), EMBEDDING)
def test_embedding_formula(name, settings):
    method = positions.get(name, **settings)
    p, x = params_of(method), random_array(B, T, D)
    got, _ = method.encode_x(p, x, Q_IDS)
    want = x + np.array([row_of(name, settings, p, int(t)) for t in Q_IDS])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13)


def pairs_of(settings: dict[str, Any]) -> list[tuple[int, int]]:
    if settings.get("layout") == "halves":
        return [(i, K // 2 + i) for i in range(K // 2)]
    return [(2 * i, 2 * i + 1) for i in range(K // 2)]


def turned(
    x: np.ndarray, t: int, settings: dict[str, Any], omega: list[float], grow: list[float] | None = None
) -> np.ndarray:
    out = np.zeros(K)
    for i, (a, b) in enumerate(pairs_of(settings)):
        cos, sin, g = math.cos(t * omega[i]), math.sin(t * omega[i]), 1.0 if grow is None else grow[i]
        out[a], out[b] = g * (x[a] * cos - x[b] * sin), g * (x[a] * sin + x[b] * cos)
    return out


def query_or_key(
    name: str, settings: dict[str, Any], p: Any, x: np.ndarray, t: int, h: int, is_key: bool
) -> np.ndarray:
    omega = [frequency(i, K) for i in range(K // 2)]
    match name:
        case "rope" | "roper":
            return turned(x, t, settings, omega)
        case "rope_truncated":
            if "length" in settings:
                omega = [w if w >= 2 * math.pi / settings["length"] else 0.0 for w in omega]
            else:
                omega = [w if i < 1 else 0.0 for i, w in enumerate(omega)]
            return turned(x, t, settings, omega)
        case "xpos":
            sign = -1 if is_key else 1
            grow = [((2 * i / K + 0.4) / 1.4) ** (sign * t / settings["length"]) for i in range(K // 2)]
            return turned(x, t, settings, omega, grow)
        case "pope":
            long, angle = np.array([soft(v) for v in x]), np.zeros(K)
            for c in range(K):
                delta = min(0.0, max(-2 * math.pi, float(p.delta[h, c]))) if is_key else 0.0
                angle[c] = t * 10_000 ** (-c / K) + delta
            return np.concatenate([long * np.cos(angle), long * np.sin(angle)])
    raise AssertionError(f"no loop for {name}")


@pytest.mark.parametrize(("name", "settings"), QUERY_KEY)
def test_query_and_key_formula(name, settings):
    method, g = positions.get(name, **settings), given_arrays()
    p = params_of(method)
    q, k, _ = method.encode_qk(p, g.q, g.k, look(True))
    for b in range(B):
        for h in range(H):
            for i, t in enumerate(Q_IDS):
                want = query_or_key(name, settings, p, g.q[b, i, h], int(t), h, is_key=False)
                np.testing.assert_allclose(q[b, i, h], want, rtol=0, atol=1e-13)
            for j, s in enumerate(K_IDS):
                want = query_or_key(name, settings, p, g.k[b, j, h], int(s), h, is_key=True)
                np.testing.assert_allclose(k[b, j, h], want, rtol=0, atol=1e-13)


def bucket_loop(distance: int, causal: bool, buckets: int, furthest: int) -> int:
    ahead = 0
    if not causal:
        buckets //= 2
        ahead = buckets if distance < 0 else 0
    r = max(distance, 0) if causal else abs(distance)
    exact = buckets // 2
    if r < exact:
        return ahead + r
    far = exact + math.floor(math.log(r / exact) / math.log(furthest / exact) * (buckets - exact) + 1e-9)
    return ahead + min(buckets - 1, far)


def score_bias(name: str, s_: dict[str, Any], p: Any, g: Given, causal: bool, b: int, h: int, i: int, j: int) -> float:
    """bias[b, h, i, j], read off the paper's formula."""
    t, s = int(Q_IDS[i]), int(K_IDS[j])
    r, q, k = abs(t - s), g.q[b, i, h], g.k[b, j, h]
    match name:
        case "alibi":
            return -(2.0 ** (-8 * (h + 1) / H)) * r
        case "kerple":
            return -soft(p.raw_a[h]) * math.log(1 + soft(p.raw_b[h]) * r)
        case "sandwich":
            width, c = s_["width"], 8 * (h + 1) / H
            total = sum(math.cos((t - s) * frequency(n, width)) for n in range(width // 2))
            return total / c if s_.get("compress", True) else total * c
        case "t5":
            return p.W_bias[h, bucket_loop(t - s, causal, s_["buckets"], s_["furthest"])]
        case "fire":
            c, L = math.exp(p.log_c[0]), math.exp(p.log_L[0])
            u = math.log(1 + c * r) / math.log(1 + c * max(L, t, s))
            hidden = [max(0.0, p.W_in[n] * u + p.b_in[n]) for n in range(len(p.W_in))]
            return sum(hidden[n] * p.W_out[n, h] for n in range(len(hidden)))
        case "shaw":
            reach = s_["reach"]
            return float(q @ p.A_K[min(max(s - t, -reach), reach) + reach]) / math.sqrt(K)
        case "transformer_xl":
            angles = [(t - s) * frequency(n, D) for n in range(D // 2)]
            R = np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
            return float(p.u[h] @ k + (q + p.v[h]) @ (R @ p.W_R[h])) / math.sqrt(K)
        case "cope":
            may_look = [u for u in range(j, S) if not causal or u <= i + S - T]
            count = sum(sigma(float(q @ g.k[b, u, h]) / math.sqrt(K)) for u in may_look)
            count = min(count, s_["positions"] - 1)
            low = min(math.floor(count), s_["positions"] - 2)
            f = count - low
            return (1 - f) * float(q @ p.e[low]) + f * float(q @ p.e[low + 1])
        case "forget":
            here, there = i + S - T, j
            between = range(min(here, there) + 1, max(here, there) + 1)
            total = sum(math.log(sigma(float(p.w[h] @ g.x_k[b, u]) + p.b[h])) for u in between)
            return total if there <= here or not causal else math.nan
    raise AssertionError(f"no loop for {name}")


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize(("name", "settings"), SCORE)
def test_score_formula(name, settings, causal):
    method, g = positions.get(name, **settings), given_arrays()
    p, places = params_of(method), look(causal)
    bias, _ = method.bias(p, g.q, g.k, g.x_q, g.x_k, places)
    got = np.broadcast_to(bias, (B, H, T, S))
    for b, h, i, j in np.ndindex(B, H, T, S):
        if places.mask is None or places.mask[0, 0, i, j]:
            want = score_bias(name, settings, p, g, causal, b, h, i, j)
            assert abs(got[b, h, i, j] - want) <= 1e-13 * max(1, abs(want)), (b, h, i, j)


@pytest.mark.parametrize(("name", "settings"), VALUE)
def test_value_formula(name, settings):
    method, g = positions.get(name, **settings), given_arrays()
    p = params_of(method)
    z, _ = method.mix(p, g.pattern, g.v, look(False))
    for b, i, h in np.ndindex(B, T, H):
        want = np.zeros(K)
        for j in range(S):
            t, s = int(Q_IDS[i]), int(K_IDS[j])
            if name == "shaw":
                reach = settings["reach"]
                value = g.v[b, j, h] + p.A_V[min(max(s - t, -reach), reach) + reach]
            else:
                value = turned(g.v[b, j, h], s - t, settings, [frequency(n, K) for n in range(K // 2)])
            want += g.pattern[b, h, i, j] * value
        np.testing.assert_allclose(z[b, i, h], want, rtol=0, atol=1e-13)


def test_the_exponent_is_the_papers():
    """Width 4, base 10,000: the second pair turns a hundredth as fast, and not a ten-thousandth."""
    table, _ = positions.get("sinusoidal").encode_x(None, np.zeros((1, 3, 4)), natural(3))
    want = [[math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)] for t in range(3)]
    np.testing.assert_allclose(table[0], want, rtol=0, atol=1e-15)
    slip, _ = positions.get("sinusoidal_doubled").encode_x(None, np.zeros((1, 2, 4)), natural(2))
    assert slip[0, 1, 2] == pytest.approx(math.sin(1e-4), abs=1e-15)


# ---------------------------------------------------------------------------------------------------- other libraries


# The references are written as in those libraries, but in float64: their float32 angles are off by more than 1e-6.


@needs("torch")
def test_sinusoidal_agrees_with_pytorchs_tutorial():
    import torch

    n, d = 50, 128
    place = torch.arange(n, dtype=torch.float64).unsqueeze(1)
    frequencies = torch.exp(torch.arange(0, d, 2, dtype=torch.float64) * (-math.log(10_000.0) / d))
    pe = torch.zeros(n, d, dtype=torch.float64)
    pe[:, 0::2], pe[:, 1::2] = torch.sin(place * frequencies), torch.cos(place * frequencies)
    got, _ = positions.get("sinusoidal").encode_x(None, np.zeros((1, n, d), dtype=np.float32), natural(n))
    assert got.dtype == np.float32
    assert np.abs(got[0] - pe.numpy()).max() <= 1e-6


@needs("torch")
def test_learned_agrees_with_nn_embedding_and_its_gradient():
    import torch

    method = positions.get("learned")
    p = map_tree(lambda a: a.astype(np.float32), params_of(method))
    x, dy, places = (a.astype(np.float32) for a in (random_array(B, T, D), random_array(B, T, D, purpose="dy"), Q_IDS))
    places = places.astype(np.int64)
    table = torch.nn.Embedding.from_pretrained(torch.tensor(p.W_pos), freeze=False)
    y = torch.tensor(x) + table(torch.tensor(places))
    y.backward(torch.tensor(dy))
    got, cache = method.encode_x(p, x, places)
    assert np.abs(got - y.detach().numpy()).max() <= 1e-6
    assert np.abs(method.encode_x_backward(dy, cache)[1].W_pos - table.weight.grad.numpy()).max() <= 1e-6


@needs("torch")
@pytest.mark.parametrize("layout", ["interleaved", "halves"])
def test_rope_agrees_with_both_of_transformers_layouts(layout):
    """GPT-J rotates every two features, LLaMA rotates halves."""
    import torch

    n, d = 40, 8
    q = random_array(B, n, H, d, purpose="q").astype(np.float32)
    inverse = 1.0 / (10_000 ** (torch.arange(0, d, 2).double() / d))
    angles = torch.outer(torch.arange(n).double(), inverse)
    x = torch.tensor(q)
    if layout == "halves":
        angles = torch.cat([angles, angles], dim=-1)
        rotated = torch.cat([-x[..., d // 2 :], x[..., : d // 2]], dim=-1)
    else:
        angles = torch.repeat_interleave(angles, 2, dim=-1)
        rotated = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    want = x * angles.cos()[:, None, :] + rotated * angles.sin()[:, None, :]
    got, _, _ = positions.get("rope", layout=layout).encode_qk(None, q, q, Places(natural(n), natural(n), None))
    assert got.dtype == np.float32
    assert np.abs(got - want.numpy()).max() <= 1e-6


@needs("torch")
@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_alibi_agrees_with_transformers_slopes(heads):
    """As BLOOM builds them for a power of two."""
    import torch

    n = 20
    base = torch.tensor(2 ** (-(2 ** -(math.log2(heads) - 3))), dtype=torch.float32)
    slopes = torch.pow(base, torch.arange(1, 1 + heads, dtype=torch.int32))
    relative = (torch.arange(n)[None, :] - torch.arange(n)[:, None]).float()
    want = torch.tril(slopes[:, None, None] * relative)
    q = np.zeros((1, n, heads, 4), dtype=np.float32)
    got, _ = positions.get("alibi").bias(None, q, q, q, q, Places(natural(n), natural(n), None))
    assert np.abs(np.tril(got) - want.numpy()).max() <= 1e-6


@needs("torch")
@pytest.mark.parametrize("causal", [True, False], ids=["decoder", "encoder"])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (32, 64), (16, 40)])
def test_t5_buckets_agree_with_transformers(causal, buckets, furthest):
    import torch

    relative = torch.arange(300)[None, :] - torch.arange(300)[:, None]  # memory − query
    number, out, place = buckets, torch.zeros_like(relative), relative
    if not causal:
        number //= 2
        out = (place > 0).to(torch.long) * number
        place = torch.abs(place)
    else:
        place = -torch.min(place, torch.zeros_like(place))
    exact = number // 2
    far = exact + (torch.log(place.float() / exact) / math.log(furthest / exact) * (number - exact)).to(torch.long)
    far = torch.min(far, torch.full_like(far, number - 1))
    out = out + torch.where(place < exact, place, far)
    from onelayer.positions import t5

    got = t5.bucket_of(-relative.numpy(), causal, buckets, furthest)
    np.testing.assert_array_equal(got, out.numpy())


# ---------------------------------------------------------------------------------------------------- theorems


@given(st.permutations(range(T - 1)), st.integers(0, 10))
def test_without_positions_one_layer_knows_the_last_token_and_a_multiset(order, seed):
    cfg = config("none", {})
    params, tokens = moved(decoder_only.init(cfg, 0), seed), random_ids(V, B, T, seed=seed)
    shuffled = np.concatenate([tokens[:, list(order)], tokens[:, -1:]], axis=1)
    a, b = (decoder_only.forward(params, x, cfg, read=1)[0] for x in (tokens, shuffled))
    assert np.abs(a - b).max() <= 1e-12


def test_two_layers_without_positions_do_know_the_order():
    """So the theorem is about one layer, and the test above could fail."""
    cfg = config("none", {}, n_layers=2)
    params = moved(decoder_only.init(cfg, 0))
    a, b = (decoder_only.forward(params, np.array([x]), cfg, read=1)[0] for x in ([0, 1, 2, 3], [1, 2, 0, 3]))
    assert np.abs(a - b).max() > 1e-6


@given(st.integers(2, 40))
def test_no_function_of_the_multiset_beats_the_ceiling_on_subtraction(p):
    """Counting: per multiset, the best guess is the answer that most of its orders have."""
    answers: dict[tuple[int, int], list[int]] = {}
    for a in range(p):
        for b in range(p):
            answers.setdefault((min(a, b), max(a, b)), []).append((a - b) % p)
    best = sum(max(given.count(x) for x in given) for given in answers.values()) / p**2
    ceiling = (1 + 1 / p) / 2
    # for even p, a − b = p/2 is its own negative: those p pairs are told right in both orders
    assert best == pytest.approx(ceiling + (1 / (2 * p) if p % 2 == 0 else 0), abs=1e-12)


def trained_accuracy(position: str, sign: int, p: int = 7, steps: int = 400) -> float:
    """One layer trained on all of a ± b mod p: the share that it then says right."""
    a, b = (x.ravel() for x in np.meshgrid(np.arange(p), np.arange(p), indexing="ij"))
    tokens = np.stack([a, b, np.full(p * p, p)], axis=1)
    shape: dict[str, Any] = {"vocab_size": p + 1, "n_ctx": 3, "d_model": 32, "n_heads": 2, "d_mlp": 64}
    cfg = ModelConfig(**shape, position=position, norm="pre")
    batch = Batch(tokens, ((a + sign * b) % p)[:, None], None)
    objective, rule = Objective(cfg, 1), optimizers.make("adamw", "optimizer", weight_decay=0.0)
    params = decoder_only.init(cfg, 0)
    state = rule.init(params)
    for _ in range(steps):
        _, grads = loss_and_grads(params, batch, objective)
        params, state = rule.update(grads, state, params, lr=3e-3)
    said = np.argmax(decoder_only.forward(params, tokens, cfg, read=1)[0][:, 0], axis=-1)
    return float(np.mean(said == batch.targets[:, 0]))


def test_training_meets_the_ceiling_of_subtraction_without_positions():
    p = 7
    assert abs(trained_accuracy("none", -1, p) - (1 + 1 / p) / 2) <= 0.02
    assert trained_accuracy("none", +1, p) == 1.0
    assert trained_accuracy("learned", -1, p) == 1.0


@pytest.mark.parametrize("name", RELATIVE)
def test_relative_methods_feel_no_shift(name):
    cfg = config(name, SETTINGS.get(name, ({},))[0])
    params, tokens = moved(decoder_only.init(cfg, 0)), random_ids(V, B, T)
    here, there = (decoder_only.forward(params, tokens, cfg, ids=natural(T) + shift)[0] for shift in (0, 23))
    assert np.abs(here - there).max() <= 1e-11


@pytest.mark.parametrize("name", [name for name in positions.available() if name not in RELATIVE])
def test_other_methods_do(name):
    settings: dict[str, Any] = {"length": 2.0} if name == "fire" else {}
    cfg = config(name, settings, n_ctx=40)
    params, tokens = moved(decoder_only.init(cfg, 0)), random_ids(V, B, T)
    here, there = (decoder_only.forward(params, tokens, cfg, ids=natural(T) + shift)[0] for shift in (0, 23))
    assert np.abs(here - there).max() > 1e-6


def test_fire_is_relative_up_to_its_length():
    cfg = config("fire", {"length": 1e4})
    params, tokens = decoder_only.init(cfg, 0), random_ids(V, B, T)
    here, there = (decoder_only.forward(params, tokens, cfg, ids=natural(T) + shift)[0] for shift in (0, 23))
    assert np.abs(here - there).max() <= 1e-12


@given(st.integers(0, 500), st.integers(-200, 200), st.sampled_from([2, 8, 32, 128]))
def test_the_row_of_a_later_place_is_a_fixed_rotation_of_the_row(t, k, d):
    method = positions.get("sinusoidal")
    here, there = (method.encode_x(None, np.zeros((1, 1, d)), np.array([x]))[0][0, 0] for x in (t, t + k))
    rotation = np.zeros((d, d))
    for i in range(d // 2):
        cos, sin = math.cos(k * frequency(i, d)), math.sin(k * frequency(i, d))
        rotation[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[cos, sin], [-sin, cos]]  # on (sin, cos)
    assert np.abs(rotation @ rotation.T - np.eye(d)).max() <= 1e-14
    assert np.abs(rotation @ here - there).max() <= 1e-11


@given(st.integers(0, 20_000), st.integers(1, 20_000), st.sampled_from([2, 4, 64, 128]))
def test_no_two_sinusoidal_rows_are_alike(t, apart, d):
    rows = positions.get("sinusoidal").encode_x(None, np.zeros((1, 2, d)), np.array([t, t + apart]))[0][0]
    assert np.abs(rows[0] - rows[1]).max() > 1e-5


def test_all_binary_rows_differ_until_the_bits_run_out():
    method = positions.get("binary", bits=6)
    rows = method.encode_x(None, np.zeros((1, 64, 8)), natural(64))[0][0]
    assert len({tuple(row) for row in rows}) == 64
    with pytest.raises(BadInput, match="6 bits write the places 0 to 63; received 64"):
        method.encode_x(None, np.zeros((1, 65, 8)), natural(65))


def test_the_doubled_exponent_squares_the_base_and_stills_twice_as_many_pairs():
    from onelayer.positions import sinusoidal_doubled

    n, d = 50, 128
    right = 10_000.0 ** (-2 * np.arange(d // 2) / d)
    slip = sinusoidal_doubled.frequencies(d, 10_000.0)
    np.testing.assert_allclose(slip, 1e8 ** (-2 * np.arange(d // 2) / d), rtol=1e-14)
    still = [float(np.mean((n - 1) * omega < 0.1)) for omega in (right, slip)]  # radians from first place to last
    assert still == [20 / 64, 42 / 64]  # 31 % and 66 %
    tables = [
        positions.get(name).encode_x(None, np.zeros((1, n, d)), natural(n))[0][0]
        for name in ("sinusoidal", "sinusoidal_doubled")
    ]
    variances = [float(np.mean(np.var(table, axis=0))) for table in tables]
    assert variances == pytest.approx([0.166, 0.085], abs=5e-4)


def test_every_sinusoidal_row_is_equally_long_and_its_amplitude_match_too():
    for name in ("sinusoidal", "sinusoidal_permuted", "amplitude_matched"):
        rows = positions.get(name).encode_x(None, np.zeros((1, 30, 16)), natural(30))[0][0]
        np.testing.assert_allclose(np.sum(rows**2, axis=-1), 8, rtol=1e-12)


# ------------------------------------------------------------------------------------ what every method owes the models


@every_case
def test_asking_at_the_last_position_is_asking_everywhere(name, settings):
    """What a decoder with a cache of keys and values rests on."""
    cfg = config(name, settings)
    params, tokens = moved(decoder_only.init(cfg, 0)), random_ids(V, B, T)
    whole, _ = decoder_only.forward(params, tokens, cfg)
    for read in (1, 2):
        part, _ = decoder_only.forward(params, tokens, cfg, read=read)
        assert np.abs(part - whole[:, T - read :]).max() <= 1e-12


@every_case
def test_what_comes_later_is_not_felt(name, settings):
    cfg = config(name, settings)
    params, tokens = moved(decoder_only.init(cfg, 0)), random_ids(V, B, T)
    other = tokens.copy()
    other[:, -1] = (other[:, -1] + 1) % V
    a, b = (decoder_only.forward(params, x, cfg)[0] for x in (tokens, other))
    np.testing.assert_array_equal(a[:, :-1], b[:, :-1])
    assert np.abs(a[:, -1] - b[:, -1]).max() > 1e-6


@every_case
def test_padding_in_the_source_changes_nothing(name, settings):
    cfg = config(name, settings, architecture="encoder_decoder")
    params = moved(encoder_decoder.init(cfg, 0))
    source, target = random_ids(V, B, S), random_ids(V, B, T)
    want, _ = encoder_decoder.forward(params, source, target, cfg)
    padded = np.concatenate([source, np.zeros((B, 2), dtype=np.int64)], axis=1)
    present = np.arange(S + 2)[None, :] < np.full((B, 1), S)
    got, _ = encoder_decoder.forward(params, padded, target, cfg, source_present=present)
    assert np.abs(got - want).max() <= 1e-12


@every_case
def test_a_block_of_queries_gets_the_same_bias(name, settings):
    """Long contexts are taken in blocks; `first` says where the block's queries stand among the keys."""
    method, g = positions.get(name, **settings), given_arrays()
    if not method.has("score"):
        return
    p, places = params_of(method), look(True)
    whole = np.broadcast_to(method.bias(p, g.q, g.k, g.x_q, g.x_k, places)[0], (B, H, T, S))
    a, z = 1, 3
    assert places.mask is not None
    block = Places(Q_IDS[a:z], K_IDS, places.mask[:, :, a:z], True, first=S - T + a)
    part, c = method.bias(p, g.q[:, a:z], g.k, g.x_q[:, a:z], g.x_k, block)
    assert np.abs(np.broadcast_to(part, (B, H, z - a, S)) - whole[:, :, a:z]).max() <= 1e-13
    method.bias_backward(np.ones((B, H, z - a, S)), c)


@every_case
def test_on_every_backend(name, settings, xp):
    """Attention with the method (or the embedding, under methods that act there), forward and backward."""
    method, g = positions.get(name, **settings), given_arrays()
    p, dy = params_of(method), random_array(B, S, D, purpose="dy")
    if method.has("embedding"):

        def both(p: Any, x: Any, dy: Any) -> Any:
            y, c = method.encode_x(p, x, np.arange(S))
            return y, *method.encode_x_backward(dy, c)

        arguments = (p, g.x_k, dy)
    else:
        mask = np.tril(np.ones((S, S), dtype=bool))[None, None]
        weights = [random_array(H, D, K, purpose=w) for w in "QKV"]
        whole = attention.Params(weights[0], weights[1], weights[2], random_array(H, K, D, purpose="O"), pos=p)

        def both(p: Any, x: Any, dy: Any) -> Any:
            from onelayer.arrays import array_namespace

            places = Places(K_IDS, K_IDS, array_namespace(x).asarray(mask), True)
            y, c = attention.forward(p, x, x, places, method)
            return y, *attention.backward(dy, c, method)

        arguments = (whole, g.x_k, dy)
    got, want = flatten(xp(both, *arguments)), flatten(both(*arguments))
    assert got.keys() == want.keys()
    largest = max(np.max(np.abs(tensor)) for tensor in want.values())
    for name, tensor in want.items():  # one that is zero by symmetry (fire's b_in, all on) has no size of its own
        size = np.max(np.abs(tensor))
        assert np.max(np.abs(got[name] - tensor)) <= 1e-11 * (size if size > 1e-10 * largest else largest), name


@every_case
def test_ids_may_be_arrays_of_the_backend(name, settings, xp):
    """Ids that are drawn for each batch reach a compiled step as its arguments."""
    cfg = config(name, settings)
    params, tokens = moved(decoder_only.init(cfg, 0)), random_ids(V, B, T)
    drawn = np.array([[0, 2, 3, 7], [1, 4, 5, 8]])

    def forward(params: Any, tokens: Any, drawn: Any) -> Any:
        return decoder_only.forward(params, tokens, cfg, ids=drawn)[0]

    assert_close_trees(xp(forward, params, tokens, drawn), forward(params, tokens, drawn), 1e-11)


# ---------------------------------------------------------------------------------------------------- ids


def test_sequential_ids_are_the_usual_ones():
    np.testing.assert_array_equal(ids.get("sequential").draw(np.zeros((2, 5)), generator(0)), natural(5))


@given(st.integers(1, 12), st.integers(0, 50), st.booleans())
def test_random_ids_are_one_sorted_draw(n, seed, training):
    numbering = ids.get("random", reach=12)
    drawn = numbering.draw(np.zeros((3, n)), generator(seed), training)
    assert drawn.shape == (n,)
    assert np.all(np.diff(drawn) > 0)
    assert drawn.min() >= 0
    assert drawn.max() < 12 == numbering.reach(n)
    np.testing.assert_array_equal(drawn, numbering.draw(np.zeros((3, n)), generator(seed), training))


def loop_abacus(row: list[int]) -> list[int]:
    out, at = [], 0
    for token in row:
        at = at + 1 if token < 10 else 0
        out.append(at)
    return out


@given(st.lists(st.lists(st.integers(0, 12), min_size=7, max_size=7), min_size=1, max_size=3), st.integers(0, 20))
def test_abacus_counts_within_numbers(rows, seed):
    want = np.array([loop_abacus(row) for row in rows])
    numbering = ids.get("abacus", offset=5)
    np.testing.assert_array_equal(numbering.draw(np.array(rows), generator(seed), training=False), want)
    drawn = numbering.draw(np.array(rows), generator(seed))
    shift = (drawn - want)[want > 0]
    assert np.all(drawn[want == 0] == 0)
    assert len(set(shift.tolist())) <= 1
    assert np.all((shift >= 0) & (shift <= 5))
    assert drawn.max() < numbering.reach(7)


def test_coupled_ids_are_equal_where_the_significance_is():
    PLUS, EQUALS = 10, 11
    row = np.array([[3, 5, PLUS, 8, 9, EQUALS, 1, 2, 4]])  # 35 + 89 = 124
    high = ids.get("coupled").draw(row, generator(0), training=False)
    #                                          tens units +  tens units =  hundreds tens units
    np.testing.assert_array_equal(high, [[3, 2, 1, 3, 2, 5, 4, 3, 2]])
    low = ids.get("coupled", operand_order="low_first", sum_order="low_first")
    row = np.array([[5, 3, PLUS, 9, 8, EQUALS, 4, 2, 1]])
    np.testing.assert_array_equal(low.draw(row, generator(0), training=False), [[2, 3, 4, 2, 3, 1, 2, 3, 4]])
    mixed = ids.get("coupled", sum_order="low_first").draw(
        np.array([[3, 5, PLUS, 8, 9, EQUALS, 4, 2]]), generator(0), training=False
    )
    np.testing.assert_array_equal(mixed, [[3, 2, 1, 3, 2, 1, 2, 3]])
    drawn = ids.get("coupled", offset=9).draw(np.array([[3, 5, PLUS, 8, 9, EQUALS, 1, 2, 4]]), generator(3))
    assert len(set((drawn - high).ravel().tolist())) == 1
    assert drawn.max() < ids.get("coupled", offset=9).reach(9)


def test_a_learned_table_is_as_long_as_the_ids_reach():
    cfg = config("learned", {}, position_ids="random", position_ids_settings={"reach": 30})
    params, tokens = decoder_only.init(cfg, 0), random_ids(V, B, T)
    assert params.pos_embed.W_pos.shape == (30, D)
    drawn = cfg.numbering.draw(tokens, generator(0, "ids"))
    assert decoder_only.forward(params, tokens, cfg, ids=drawn)[0].shape == (B, T, V)
    with pytest.raises(BadInput, match="are drawn for each batch; give them to forward"):
        decoder_only.forward(params, tokens, cfg)
    with pytest.raises(BadInput, match="are drawn for each batch; give them to forward"):
        both = config("learned", {}, position_ids="random", architecture="encoder_decoder")
        encoder_decoder.forward(encoder_decoder.init(both, 0), tokens, tokens, both)


# ---------------------------------------------------------------------------------------------------- bad input

BAD = [
    ("rope", {}, {"d_head": 3}, "head width must be even; received 3"),
    ("rope_truncated", {}, {"d_head": 3}, "head width must be even; received 3"),
    ("xpos", {}, {"d_head": 3}, "head width must be even; received 3"),
    ("roper", {}, {"d_head": 3}, "head width must be even; received 3"),
    ("rope", {"base": 1.0}, {}, "base of rope must be greater than 1; received 1.0"),
    ("rope", {"layout": "half"}, {}, "did you mean 'halves'"),
    ("rope_truncated", {"fraction": 1.5}, {}, "from 0 to 1; received 1.5"),
    ("rope_truncated", {"length": 0.0}, {}, "greater than 0, or none; received 0.0"),
    ("xpos", {"length": -1.0}, {}, "length of xpos must be greater than 0; received -1.0"),
    ("pope", {"start": "one"}, {}, "Allowed: .*zero"),
    ("sinusoidal", {}, {"d_model": 5}, "width must be even; received 5"),
    ("sinusoidal", {"base": 0.5}, {}, "greater than 1; received 0.5"),
    ("sinusoidal_scaled", {}, {"d_model": 5}, "width must be even; received 5"),
    ("sinusoidal_permuted", {"length": 1}, {}, "at least 2 places; received length 1"),
    ("binary", {"bits": 0}, {}, "1 to 62 bits; received 0"),
    ("binary", {"bits": 3}, {}, "tell 8 places apart, but n_ctx is 9"),
    ("random_fixed", {"rows": 4}, {}, "has 4 rows, but n_ctx is 9"),
    ("random_fixed", {"scale": 0.0}, {}, "greater than 0; received 0.0"),
    ("amplitude_matched", {"rows": 4}, {}, "has 4 rows, but n_ctx is 9"),
    ("shaw", {"reach": 0}, {}, "reach must be 1 or more; received 0"),
    ("t5", {"buckets": 6}, {}, "multiple of 4, and positive; received 6"),
    ("t5", {"furthest": 16}, {}, r"exceed half the buckets \(16\); received 16"),
    ("sandwich", {"width": 5}, {}, "even and positive; received 5"),
    ("fire", {"length": 0.0}, {}, "length of fire must be greater than 0; received 0.0"),
    ("fire", {"hidden": 0}, {}, "hidden of fire must be greater than 0; received 0"),
    ("cope", {"positions": 1}, {}, "at least 2 positions; received 1"),
    ("transformer_xl", {}, {"d_model": 5}, "width must be even; received 5"),
    ("alibi", {"slope": 2}, {}, "'alibi' has no constants, received 'slope'"),
    ("rope", {"bass": 2}, {}, "did you mean 'base'"),
    ("ropes", {}, {}, "unknown position 'ropes'; did you mean 'rope'"),
    ("abacus", {}, {}, "set position_ids='abacus' beside a position"),
]


@pytest.mark.parametrize(("name", "settings", "size", "message"), BAD)
def test_what_cannot_be_is_refused_in_words(name, settings, size, message):
    with pytest.raises(BadInput, match=message):
        positions.get(name, **settings).init(generator(0), SIZE._replace(**size))


@pytest.mark.parametrize("name", [name for name in positions.available() if not positions.get(name).crosses])
def test_across_sequences_a_relative_method_is_refused(name):
    with pytest.raises(BadInput, match="not defined for cross-attention; allowed there: none, sinusoidal"):
        positions.get(name).check(SIZE._replace(cross=True))


@pytest.mark.parametrize("name", ["learned", "random_fixed", "amplitude_matched"])
def test_a_sequence_longer_than_the_table_is_refused(name):
    settings = {} if name == "learned" else {"rows": N}
    method = positions.get(name, **settings)
    with pytest.raises(BadInput, match=f"has {N} rows, but position {N} was asked for"):
        method.encode_x(method.init(generator(0), SIZE), np.zeros((1, N + 1, D)), natural(N + 1))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("randm", {}, "did you mean 'random'"),
        ("random", {"reach": 3}, "reach of at least n_ctx = 9; received 3"),
        ("random", {"reach": 0}, "whole number from 1; received 0"),
        ("abacus", {"offset": -1}, "whole number from 0; received -1"),
        ("abacus", {"offsets": 1}, "did you mean 'offset'"),
        ("sequential", {"reach": 3}, "has no constants, received 'reach'"),
        ("coupled", {"sum_order": "low"}, "did you mean 'low_first'"),
    ],
)
def test_what_cannot_number_places_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):  # pydantic's error is a ValueError too
        config("learned", {}, position_ids=name, position_ids_settings=settings)


def test_more_places_than_ids_cannot_be_drawn():
    with pytest.raises(BadInput, match="5 different ids cannot be drawn out of 4"):
        ids.get("random", reach=4).draw(np.zeros((1, 5)), generator(0))
