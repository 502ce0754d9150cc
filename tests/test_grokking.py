"""Guards the measures of grokking: each against slow loops, on a network built by hand, and what they refuse."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_runs
import numpy as np
import pytest
from tiny import tiny

from onelayer import cli, tasks
from onelayer.arrays import flatten, generator, map_tree, unflatten
from onelayer.errors import BadInput
from onelayer.grokking import (
    analysis,
    characters,
    geometry,
    gradients,
    interventions,
    losses,
    memory,
    posterior,
    progress,
    spectra,
    weights,
)  # fmt: skip
from onelayer.grokking.measures import MEASURES, markdown, why_not
from onelayer.grokking.subject import Subject, key_frequencies, open_subject
from onelayer.layers import cross_entropy
from onelayer.models import decoder_only
from onelayer.models.config import ModelConfig
from onelayer.report import run as reading
from onelayer.report.sections import circuit
from onelayer.training import train
from onelayer.training.objective import Objective

P, CHOSEN = 13, (2, 6)  # 6 = (p − 1)/2, which the paper's own code could not find
ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-10


def subject(operation: str = "x + y", p: int = P, seed: int = 0, **model) -> Subject:
    """A network with random weights."""
    task = tasks.make("arithmetic", operation=operation, p=p, train_fraction=0.5, seed=seed)
    shape = {"d_model": 8, "n_heads": 2, "d_mlp": 12} | model
    cfg = ModelConfig(vocab_size=len(task.vocabulary), n_ctx=3, **shape)
    first = decoder_only.init(cfg, seed)
    draw = generator(seed, "test")
    moved = map_tree(lambda w: w + 0.5 * draw.standard_normal(w.shape), first)
    return Subject(task, Objective(cfg, 1), moved, first, seed, "float64")


def by_hand(operation: str = "x + y", p: int = P, chosen: tuple[int, ...] = CHOSEN, gain: float = 100.0) -> Subject:
    """Weights that compute the operation by cosines.

    Embedding     cos and sin of w_k x, x the number's place on the left; and the same of its place on the right
    Attention     head 0 looks at the first operand alone and fetches the one, head 1 at the second and the other
    Feed-forward  (u + v)² − (u − v)² = 4uv: the products that make cos w_k(a + b) and sin w_k(a + b)
    Unembedding   times cos and sin of w_k c: the logits are gain · Σ_k cos w_k(a + b − c)
    """
    task = tasks.make("arithmetic", operation=operation, p=p, train_fraction=0.5, seed=0)
    ch = characters.of(task.facts)
    assert ch.c is not None
    n, w, V = len(ch.a), 2 * len(chosen), len(task.vocabulary)
    left, right, of_a, of_b, result = (np.arange(i * w, (i + 1) * w) for i in range(5))
    flag = 5 * w + np.arange(3)  # one for each position
    D, F = 5 * w + 3, 4 * w
    shape: dict[str, Any] = {"d_model": D, "n_heads": 2, "d_head": w, "d_mlp": F, "activation": "quadratic"}
    cfg = ModelConfig(vocab_size=V, n_ctx=3, mlp_bias=False, **shape)
    start = decoder_only.init(cfg, 0)
    named = {name: np.zeros_like(x) for name, x in flatten(start).items()}
    angle = 2 * np.pi * np.array(chosen)[:, None] * np.arange(n) / n
    waves = np.stack([np.cos(angle), np.sin(angle)], axis=1).reshape(w, n)
    named["embed.W_E"][np.ix_(ch.a, left)] = waves.T
    named["embed.W_E"][np.ix_(ch.b, right)] = waves.T
    named["pos_embed.W_pos"][np.arange(3), flag] = 1
    for head, (source, target) in enumerate(((left, of_a), (right, of_b))):
        named["blocks.0.attn.W_Q"][head, flag[2], 0] = 1e4
        named["blocks.0.attn.W_K"][head, flag[head], 0] = 1
        named["blocks.0.attn.W_V"][head, source, np.arange(w)] = 1
        named["blocks.0.attn.W_O"][head, np.arange(w), target] = 1
    neuron = iter(range(F))
    for i in range(0, w, 2):
        cos_cos, sin_sin, sin_cos, cos_sin = (i, i, i), (i + 1, i + 1, i), (i + 1, i, i + 1), (i, i + 1, i + 1)
        for (a, b, out), sign in ((cos_cos, 1), (sin_sin, -1), (sin_cos, 1), (cos_sin, 1)):
            for side in (1, -1):
                at = next(neuron)
                named["blocks.0.mlp.W_in"][[of_a[a], of_b[b]], at] = 1, side
                named["blocks.0.mlp.W_out"][at, result[out]] = sign * side / 4
    named["unembed.W_U"][np.ix_(result, ch.c)] = gain * waves
    return Subject(task, Objective(cfg, 1), unflatten(named, start), start, 0, "float64")


HANDMADE = [("x + y", 13), ("x - y", 13), ("x * y", 13), ("x / y", 13), ("Z13: x*y", 13)]


@pytest.mark.parametrize(("operation", "p"), HANDMADE)
def test_a_network_built_by_hand_is_read_for_what_it_is(operation, p):
    chosen = (
        (1, 5) if operation in ("x * y", "x / y") else CHOSEN
    )  # of Z_12 for the products: coprime, so that they tell all
    s = by_hand(operation, p, chosen)
    answered = s.right >= 0
    assert np.array_equal(s.logits.argmax(axis=-1)[answered], s.right[answered])
    assert s.key_frequencies == chosen
    # of products, the answer 0 stands in no cosine: its logit is 0, and the rest sum to 0
    assert losses.cosine_variance_explained(s) >= 0.999
    assert losses.restricted_loss(s) == pytest.approx(losses.full_loss(s)["all"], abs=1e-9)
    assert losses.excluded_loss(s) == pytest.approx(math.log(len(s.task.vocabulary) - 1), abs=1e-9)
    assert losses.excluded_quotient_loss(s) == pytest.approx(losses.full_loss(s)["train"], abs=1e-9)
    assert losses.cosine_residual_loss(s) == pytest.approx(losses.full_loss(s)["all"], abs=1e-9)
    alpha, n = losses.cosine_coefficients(s), len(s.characters.a)
    assert {k for k, value in alpha.items() if abs(value) > 1e-6} == set(chosen)
    assert alpha[chosen[0]] == pytest.approx(100 * n * np.sqrt(n / 2))  # ‖Σ cos(w(a + b − c))‖² = n³/2
    assert spectra.embedding_key_share(s) == pytest.approx(1)
    assert spectra.logit_map_key_share(s) == pytest.approx(1)
    assert spectra.logit_families(s)["sum"] == pytest.approx(1)
    assert spectra.phase_alignment(s) == pytest.approx(1)
    assert interventions.attend_at_rate(s, 1.0) == pytest.approx(s.logits)
    assert geometry.logit_lens(s)["feed-forward"] == 1
    assert gradients.right_logits(s).std() < 1e-9


def test_neurons_that_square_a_sum_have_four_fifths_of_their_variance_at_their_frequency():
    s = by_hand()
    shares = s.neuron_shares
    # (cos a + cos b)² = 1 + cos 2a/2 + cos 2b/2 + 2 cos a cos b: energies 1/8, 1/8 and 1
    assert shares.max(axis=0) == pytest.approx(np.full(shares.shape[1], 0.8))
    assert set(np.array(s.characters.frequencies)[shares.argmax(axis=0)]) == set(CHOSEN)
    # the four products put together leave cos w_k(a + b) alone
    assert list(spectra.readout_variance_explained(s).values()) == pytest.approx([1.0] * 4)


def test_xor_is_read_in_walsh_functions():
    s = subject("x xor y", p=8)
    ch = s.characters
    assert ch.basis @ ch.basis.T == pytest.approx(np.eye(8))
    s = replace(s)
    s.__dict__["logits"] = 30 * sum(np.sqrt(8) * ch.basis[k][ch.product][..., None] * np.sqrt(8) * ch.basis[k]
                                    for k in (1, 2, 4))  # fmt: skip
    assert s.key_frequencies == (1, 2, 4)
    assert losses.cosine_variance_explained(s) == pytest.approx(1)
    assert losses.excluded_loss(s) == pytest.approx(math.log(8))


# ---------------------------------------------------------------------------------------------------- slow twins


def dft(p: int) -> list[np.ndarray]:
    """Per frequency its orthonormal waves, by the formula of the docstring."""
    x = np.arange(p)
    some = [np.full((1, p), 1 / math.sqrt(p))]
    for k in range(1, (p + 1) // 2):
        some.append(math.sqrt(2 / p) * np.array([np.cos(2 * np.pi * k * x / p), np.sin(2 * np.pi * k * x / p)]))
    return some


def slow_part(T: np.ndarray, k: int, sign: int = 1) -> np.ndarray:
    """P_k T for addition (sign −1: along the difference), summed wave by wave."""
    p = len(T)
    made = np.zeros_like(T)
    for wave in (np.cos, np.sin):
        D = np.array([[wave(2 * np.pi * k * (a + sign * b) / p) for b in range(p)] for a in range(p)])
        D /= np.linalg.norm(D)
        for c in range(T.shape[2]):
            made[:, :, c] += np.sum(D * T[:, :, c]) * D
    return made


def slow_loss(L: np.ndarray, pairs: np.ndarray) -> float:
    told = [math.log(sum(math.exp(z) for z in L[a, b])) - L[a, b, (a + b) % len(L)] for a, b in pairs]
    return float(sum(told) / len(told))


def test_spectra_against_numpy_fft():
    s = subject()
    W, p = s.params.embed.W_E[:P], P
    full = np.abs(np.fft.fft(W, axis=0)) ** 2
    energy = np.array([full[0].sum()] + [full[k].sum() + full[p - k].sum() for k in range(1, (p + 1) // 2)])
    found = spectra.embedding_spectrum(s)
    assert np.allclose(list(found.values()), energy / energy.sum(), atol=TOLERANCE, rtol=0)
    norms = sorted(np.linalg.norm(row @ W) for waves in dft(p) for row in waves)
    slow = sum((2 * i - p - 1) * x for i, x in enumerate(norms, 1)) / (p * sum(norms))
    assert abs(spectra.embedding_gini(s) - slow) < TOLERANCE
    W_L = s.params.blocks[0].mlp.W_out @ s.params.unembed.W_U[:, :p]
    norms = sorted(np.linalg.norm(W_L @ row) for waves in dft(p) for row in waves)
    slow = sum((2 * i - p - 1) * x for i, x in enumerate(norms, 1)) / (p * sum(norms))
    assert abs(spectra.logit_map_gini(s) - slow) < TOLERANCE
    keyed = replace(s, keys=(1, 6))
    slow = sum(np.sum((W_L @ row) ** 2) for k in (1, 6) for row in dft(p)[k]) / np.sum(W_L**2)
    assert abs(spectra.logit_map_key_share(keyed) - slow) < TOLERANCE
    assert abs(spectra.embedding_key_share(keyed) - (energy[1] + energy[6]) / energy.sum()) < TOLERANCE


def test_phases_against_numpy_fft():
    s = subject()
    W_L = s.params.blocks[0].mlp.W_out @ s.params.unembed.W_U[:, :P]
    pushed = most = 0.0
    for neuron in range(s.neurons.shape[2]):
        k = s.neuron_shares[:, neuron].argmax() + 1
        over_sum = [np.mean([s.neurons[a, (x - a) % P, neuron] for a in range(P)]) for x in range(P)]
        heard, said = np.fft.fft(over_sum)[k], np.fft.fft(W_L[neuron])[k]
        pushed += abs(heard) * abs(said) * math.cos(np.angle(heard) - np.angle(said))
        most += abs(heard) * abs(said)
    assert abs(spectra.phase_alignment(s) - pushed / most) < TOLERANCE
    assert abs(spectra.phase_alignment(s)) < 0.9  # it does not read as 1 whatever it is shown


@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_attention_rate_against_loops(n_layers):
    s = subject(n_layers=n_layers)
    assert interventions.attend_at_rate(s, 1.0) == pytest.approx(s.logits, abs=1e-12)
    seen: dict[str, np.ndarray] = {}

    def mixed(name, value):
        if name.endswith("hook_pattern"):
            value = value.copy()
            first = value.shape[-1] - value.shape[-2]
            for query in range(value.shape[-2]):
                for key in range(first + query + 1):
                    value[..., query, key] = 0.25 * value[..., query, key] + 0.75 / (first + query + 1)
            seen[name] = value.sum(axis=-1)
        return value

    logits, _ = decoder_only.forward(s.params, s.tokens, s.objective.model, read=1, tap=mixed)
    assert all(total == pytest.approx(1) for total in seen.values())
    assert len(seen) == n_layers
    said = logits.reshape(P, P, -1)[..., :-1].argmax(axis=-1)
    assert interventions.attention_rate(s)["rate 0.25"] == pytest.approx(np.mean(said == s.right), abs=TOLERANCE)


def test_the_transform_of_a_table_and_its_families_against_fft2():
    s = subject()
    T = s.logits - s.logits.mean(axis=2, keepdims=True)
    full = np.abs(np.fft.fft2(T, axes=(0, 1), norm="ortho")) ** 2
    total = full.sum()
    i = np.arange(1, P)
    slow = {
        "constant": full[0, 0].sum(), "left only": full[1:, 0].sum(), "right only": full[0, 1:].sum(),
        "sum": full[i, i].sum(), "difference": full[i, P - i].sum(),
    }  # fmt: skip
    slow["mixed"] = total - sum(slow.values())
    found = spectra.logit_families(s)
    assert max(abs(found[name] - slow[name] / total) for name in slow) < TOLERANCE
    x = s.seen["hook_resid_post"]
    full = np.abs(np.fft.fft2(x, axes=(0, 1), norm="ortho")) ** 2
    assert abs(spectra.sum_share(s) - full[i, i].sum() / (full.sum() - full[0, 0].sum())) < TOLERANCE
    q = np.array([full[k, k].sum() + full[P - k, P - k].sum() for k in range(1, 7)])
    q /= q.sum()
    assert abs(spectra.effective_frequencies(s) - math.exp(-sum(v * math.log(v) for v in q))) < TOLERANCE


def test_neurons_against_loops():
    s = subject()
    waves, N = dft(P), s.neurons
    shares = np.zeros((6, N.shape[2]))
    for f in range(N.shape[2]):
        centre = N[:, :, f] - N[:, :, f].mean()
        for k in range(1, 7):
            rows = [*waves[0], *waves[k]]
            shares[k - 1, f] = sum((u @ centre @ v) ** 2 for u in rows for v in rows) / max(np.sum(centre**2), 1e-300)
    assert np.allclose(s.neuron_shares, shares, atol=TOLERANCE, rtol=0)
    best = shares.max(axis=0)
    assert spectra.neuron_specialisation(s) == np.mean(best > 0.85)
    assert sum(spectra.neurons_by_frequency(s).values()) == np.sum(best > 0.85)
    assert abs(spectra.neuron_variance_explained(s) - np.mean(best[best > 0])) < TOLERANCE
    ipr = []
    for f in range(N.shape[2]):
        e = [np.sum((waves[k] @ N[:, :, f].mean(axis=1)) ** 2) for k in range(1, 7)]
        if sum(e) > 0:
            ipr.append(sum(v * v for v in e) / sum(e) ** 2)
    assert abs(spectra.neuron_ipr(s) - np.mean(ipr)) < TOLERANCE
    assert weights.activation_sparsity(s) == np.mean([value == 0 for value in N.ravel()])


def test_attention_periodicity_is_a_least_squares_fit():
    s = subject()
    pattern = s.seen["attn.hook_pattern"]
    a, b = (grid.ravel() for grid in np.meshgrid(range(P), range(P), indexing="ij"))
    for h in range(2):
        A = pattern[:, :, h, 0].ravel()
        fits = []
        for k in range(1, 7):
            w = 2 * np.pi * k / P
            X = np.stack([np.ones(P * P), np.cos(w * a) - np.cos(w * b), np.sin(w * a) - np.sin(w * b)], axis=1)
            residual = A - X @ np.linalg.lstsq(X, A, rcond=None)[0]
            fits.append(1 - np.sum(residual**2) / np.sum((A - A.mean()) ** 2))
        assert abs(spectra.attention_periodicity(s)[f"head {h}"] - max(fits)) < TOLERANCE
        assert spectra.attention_frequencies(s)[f"head {h}"] == np.argmax(fits) + 1
        assert abs(spectra.self_attention(s)[f"head {h}"] - np.mean(pattern[:, :, h, 2])) < TOLERANCE


def test_restricted_and_excluded_losses_against_loops():
    s = replace(subject(), keys=(1, 4))
    L, facts = s.logits, s.task.facts
    every = np.argwhere(np.ones((P, P)))
    kept = slow_part(L, 1) + slow_part(L, 4)
    mean = L.mean(axis=(0, 1))
    splits = {"all": every, "train": facts["train_pairs"], "test": facts["test_pairs"]}
    for split, pairs in splits.items():
        assert abs(losses.full_loss(s)[split] - slow_loss(L, pairs)) < TOLERANCE
        assert abs(losses.restricted_loss_by_split(s)[split] - slow_loss(kept + mean, pairs)) < TOLERANCE
        assert abs(losses.excluded_loss_by_split(s)[split] - slow_loss(L - kept, pairs)) < TOLERANCE
    assert abs(losses.restricted_loss(s) - slow_loss(kept + mean, every)) < TOLERANCE
    assert abs(losses.excluded_loss(s) - slow_loss(L - kept, splits["train"])) < TOLERANCE
    for k in (1, 4):
        one = slow_part(L, k)
        assert abs(losses.restricted_by_frequency(s)[k] - slow_loss(one + mean, every)) < TOLERANCE
        assert abs(losses.excluded_by_frequency(s)[k] - slow_loss(L - one, splits["train"])) < TOLERANCE
    along = slow_part(L, 1, -1) + slow_part(L, 4, -1)
    assert abs(losses.excluded_quotient_loss(s) - slow_loss(L - along, splits["train"])) < TOLERANCE
    centre = L - L.mean(axis=2, keepdims=True)
    cost = sum(np.sum(w**2) for w in flatten(s.params).values())
    part = slow_part(centre, 1) + slow_part(centre, 4)
    found = memory.circuit_efficiency(s)
    assert abs(found["key frequencies"] - math.sqrt(np.mean(part**2)) / cost) < TOLERANCE
    assert abs(found["the rest"] - math.sqrt(np.mean((centre - part) ** 2)) / cost) < TOLERANCE


@pytest.mark.parametrize("scale", [30.0, 900.0])
def test_an_excluded_loss_whose_terms_underflow_is_still_right(scale):
    """Where the waves carry what the rest must win back: exp of the one is inf, of the other 0."""
    s = replace(subject(), keys=(1, 4))
    wave = np.cos(2 * np.pi * (np.arange(P)[:, None] + np.arange(P))[:, :, None] / P + np.arange(P))
    s = replace(s, said=s.logits + scale * wave + np.eye(P)[0] * scale)
    kept = slow_part(s.logits, 1) + slow_part(s.logits, 4)
    z = s.logits - kept
    exact = np.logaddexp.reduce(z, axis=-1) - np.take_along_axis(z, s.right[..., None], axis=-1)[..., 0]
    assert losses.excluded_loss(s) == pytest.approx(exact[s.train].mean(), rel=1e-12)


def test_cosines_against_loops():
    s = replace(subject(), keys=(2, 5))
    L = s.logits - s.logits.mean(axis=2, keepdims=True)
    grid = np.array([[[a + b - c for c in range(P)] for b in range(P)] for a in range(P)])
    made, squares = np.zeros_like(L), 0.0
    for k, alpha in losses.cosine_coefficients(s).items():
        g = np.cos(2 * np.pi * k * grid / P)
        g /= np.linalg.norm(g)
        assert abs(alpha - np.sum(g * L)) < TOLERANCE
        if k in (2, 5):
            made, squares = made + np.sum(g * L) * g, squares + np.sum(g * L) ** 2
    assert abs(losses.cosine_variance_explained(s) - squares / np.sum(L**2)) < TOLERANCE
    every = np.argwhere(np.ones((P, P)))
    assert abs(losses.cosine_residual_loss(s) - slow_loss(made, every)) < TOLERANCE
    W_L, N = s.params.blocks[0].mlp.W_out @ s.params.unembed.W_U[:, :P], s.neurons
    for (name, found), row in zip(spectra.readout_variance_explained(s).items(), [*dft(P)[2], *dft(P)[5]], strict=True):
        y = N @ (W_L @ row)
        part = slow_part(y[..., None], int(name.split()[1]))
        assert abs(found - np.sum(part**2) / np.sum((y - y.mean()) ** 2)) < TOLERANCE


def test_weights_against_loops():
    s = subject()
    theta = [float(x) for w in flatten(s.params).values() for x in w.ravel()]
    first = [float(x) for w in flatten(s.start).values() for x in w.ravel()]
    norm = math.sqrt(sum(x * x for x in theta))
    assert abs(weights.weight_norm(s) - norm) < TOLERANCE
    assert (
        abs(weights.weight_norms(s)["embed.W_E"] - math.sqrt(sum(x * x for x in s.params.embed.W_E.flat))) < TOLERANCE
    )
    dot = sum(x * y for x, y in zip(theta, first, strict=True)) / norm / math.sqrt(sum(x * x for x in first))
    assert abs(weights.trajectory_cosine(s) - dot) < TOLERANCE
    q = [abs(x) / sum(map(abs, theta)) for x in theta]
    assert abs(weights.weight_entropy(s) - math.exp(-sum(x * math.log(x) for x in q)) / len(q)) < TOLERANCE
    W = s.params.blocks[0].mlp.W_in
    sigma = np.sqrt(np.linalg.eigvalsh(W @ W.T))
    q = sigma / sigma.sum()
    assert abs(weights.effective_rank(s)["blocks.0.mlp.W_in"] - math.exp(-sum(q * np.log(q)))) < TOLERANCE
    assert abs(weights.stable_rank(s)["blocks.0.mlp.W_in"] - np.sum(sigma**2) / sigma.max() ** 2) < TOLERANCE
    L = s.logits
    square = [(L[a, b, c] - sum(L[a, b]) / P) ** 2 for a in range(P) for b in range(P) for c in range(P)]
    assert abs(weights.logit_scale(s) - math.sqrt(sum(square) / len(square))) < TOLERANCE
    margins = [L[a, b, (a + b) % P] - max(L[a, b, c] for c in range(P) if c != (a + b) % P)
               for a in range(P) for b in range(P)]  # fmt: skip
    assert abs(weights.margin(s) - np.mean(margins)) < TOLERANCE


def slow_gradient(s: Subject, batch, params=None) -> np.ndarray:
    """By the complex step, one weight at a time."""
    params = s.params if params is None else params
    names, found = flatten(params), []
    for name, w in names.items():
        for place in np.ndindex(w.shape):
            moved = {other: x.astype(complex) for other, x in names.items()}
            moved[name][place] += 1e-30j
            logits, _ = decoder_only.forward(unflatten(moved, params), batch.tokens, s.objective.model, read=1)
            loss, _ = cross_entropy.forward(logits, batch.targets)
            found.append(loss.imag / 1e-30)
    return np.array(found)


def test_gradients_against_the_complex_step():
    s = subject(p=7, d_model=4, d_mlp=5, n_heads=1)
    whole, test = slow_gradient(s, s.task.train), slow_gradient(s, s.task.test)
    theta = np.concatenate([w.ravel() for w in flatten(s.params).values()])

    def cosine(x, y):
        return x @ y / math.sqrt(x @ x) / math.sqrt(y @ y)

    assert abs(weights.growth_alignment(s) - cosine(-whole, theta)) < TOLERANCE
    assert abs(gradients.train_test_cosine(s) - cosine(whole, test)) < TOLERANCE
    q = np.abs(whole[whole != 0]) / np.abs(whole).sum()
    assert abs(weights.gradient_entropy(s) - math.exp(-sum(q * np.log(q))) / whole.size) < TOLERANCE
    order = generator(s.seed, "halves").permutation(24)
    a, b = (slow_gradient(s, map_tree(lambda x, r=rows: x[r], s.task.train)) for rows in (order[:12], order[12:]))
    assert abs(gradients.gradient_alignment(s) - cosine(a, b)) < TOLERANCE


def test_signal_to_noise_is_that_of_the_batches_it_draws(monkeypatch):
    s = subject(p=7, d_model=4, d_mlp=5, n_heads=1)
    monkeypatch.setattr(gradients, "BATCHES", 3)
    draw = generator(s.seed, "signal to noise")
    found = [slow_gradient(s, map_tree(lambda x, r=r: x[r], s.task.train)) for r in
             [draw.integers(0, 24, 24) for _ in range(3)]]  # fmt: skip
    mean = np.sum(found, axis=0) / 3
    noise = math.sqrt(sum(np.sum((g - mean) ** 2) for g in found) / 2)
    assert abs(gradients.gradient_signal_to_noise(s) - math.sqrt(mean @ mean) / noise) < TOLERANCE


def test_symmetricity_against_the_complex_step_and_its_untrained_control(monkeypatch):
    monkeypatch.setattr(gradients, "TRIPLES", 5)
    s = subject(p=7, d_model=4, d_mlp=5, n_heads=1)
    found = []
    for a, b, c in gradients.triples(s):
        sides = []
        for position in (0, 1):
            g = []
            for d in range(4):
                pos = s.params.pos_embed.W_pos.astype(complex)  # moving a position moves what the embedding says there
                pos[position, d] += 1e-30j
                moved = s.params._replace(pos_embed=s.params.pos_embed._replace(W_pos=pos))
                logits, _ = decoder_only.forward(moved, np.array([[a, b, 7]]), s.objective.model, read=1)
                g.append(logits[0, 0, c].imag / 1e-30)
            sides.append(np.array(g))
        found.append(sides[0] @ sides[1] / np.linalg.norm(sides[0]) / np.linalg.norm(sides[1]))
    assert abs(gradients.gradient_symmetricity(s) - np.mean(found)) < TOLERANCE


def test_distance_irrelevance_against_loops():
    s = subject()
    M = np.array([[s.logits[a, (a - d) % P, (2 * a - d) % P] for a in range(P)] for d in range(P)])
    assert abs(gradients.distance_irrelevance(s) - np.mean([row.std() for row in M]) / M.std()) < TOLERANCE


def test_accuracies_and_the_lens_against_loops():
    s = subject()
    said = {(a, b): int(np.argmax(s.logits[a, b])) for a in range(P) for b in range(P)}
    shown = {tuple(pair) for pair in s.task.facts["train_pairs"].tolist()}
    test = [tuple(pair) for pair in s.task.facts["test_pairs"].tolist()]
    right = {pair: said[pair] == sum(pair) % P for pair in said}
    W_U = s.params.unembed.W_U[:, :P]
    for after, name in geometry.STREAM.items():
        x = s.seen[name]
        hits = [int(np.argmax(x[a, b] @ W_U)) == (a + b) % P for a in range(P) for b in range(P)]
        assert geometry.logit_lens(s)[after] == np.mean(hits)
    assert geometry.logit_lens(s)["feed-forward"] == np.mean(list(right.values()))
    free = [pair for pair in test if pair[::-1] not in shown]
    full, _ = decoder_only.forward(s.params, s.task.test.tokens, s.objective.model, read=1)
    told = dict(zip(test, full[:, 0].argmax(axis=-1) == s.task.test.targets[:, 0], strict=True))
    assert memory.accuracy(s)["test"] == np.mean(list(told.values()))
    assert memory.mirror_free_accuracy(s) == np.mean([told[pair] for pair in free])
    share = np.mean([sum(pair) % P == s.task.facts["majority_class"] for pair in test])
    assert memory.majority_accuracy(s) == pytest.approx(share, abs=TOLERANCE)


def test_parallelograms_close_on_a_line_and_not_on_a_circle():
    s = subject()
    E = np.zeros((P + 1, 8))
    related, unrelated = geometry.quadruples(s)
    assert all((i + j - m - n) % P == 0 for i, j, m, n in related)
    gap = [
        np.sum((s.params.embed.W_E[[i, j]].sum(0) - s.params.embed.W_E[[m, n]].sum(0)) ** 2) for i, j, m, n in related
    ]
    off = [
        np.sum((s.params.embed.W_E[[i, j]].sum(0) - s.params.embed.W_E[[m, n]].sum(0)) ** 2) for i, j, m, n in unrelated
    ]
    assert abs(geometry.parallelogram_error(s) - np.mean(gap) / np.mean(off)) < TOLERANCE
    assert geometry.parallelogram_quality(s) == np.mean(np.array(gap) < 0.01 * np.mean(off))
    circle = s.params._replace(embed=s.params.embed._replace(W_E=E + np.cos(2 * np.pi * np.arange(P + 1) / P)[:, None]))
    assert geometry.parallelogram_error(replace(s, params=circle)) > 0.5


def test_local_complexity_counts_the_kinks_near_a_point():
    s = subject()
    block = s.params.blocks[0]
    far = block.mlp._replace(b_in=block.mlp.b_in + 1e6)
    at = s.params._replace(blocks=(block._replace(mlp=far),))
    assert geometry.local_complexity(replace(s, params=at)) == 0
    on = block.mlp._replace(b_in=0 * block.mlp.b_in, W_in=np.zeros_like(block.mlp.W_in))
    assert geometry.local_complexity(replace(s, params=s.params._replace(blocks=(block._replace(mlp=on),)))) == 0
    assert 0 < geometry.local_complexity(s) <= 12


def test_collapse_is_a_loss_of_exactly_zero():
    s = by_hand(gain=1e4)
    assert weights.softmax_collapse(s) == 1
    assert weights.softmax_collapse(s.twin) == 0


def test_memorised_noise_tells_the_spoilt_examples_apart():
    s = by_hand()
    task = tasks.make("arithmetic", p=P, train_fraction=0.5, seed=0, label_noise=0.3)
    assert memory.memorised_noise(replace(s, task=task)) == {"as spoilt": 0, "as true": 1}


def test_the_walk_of_the_learning_coefficient_against_loops(monkeypatch):
    """The same draws; the gradients by the complex step, every number of the walk by itself."""
    s = subject(p=5, d_model=4, n_heads=1, d_mlp=3)
    train, draws, rng = s.task.train, 3, generator(s.seed, "langevin")
    n, names = len(train.tokens), flatten(s.params)
    star = [float(x) for w in names.values() for x in w.ravel()]
    w, excess, heat = list(star), 0.0, n / math.log(n)

    def mean_loss(at: list[float], rows: np.ndarray) -> float:
        params = posterior.like(np.array(at), s.params)
        L = decoder_only.forward(params, train.tokens[rows], s.objective.model, read=1)[0][:, 0]
        right = train.targets[rows, 0]
        return sum(math.log(sum(math.exp(z) for z in L[i])) - L[i, right[i]] for i in range(len(rows))) / len(rows)

    for _ in range(draws):
        rows = rng.integers(0, n, n)
        excess += mean_loss(w, rows) - mean_loss(star, rows)
        g = slow_gradient(s, map_tree(lambda x, rows=rows: x[rows], train), posterior.like(np.array(w), s.params))
        noise = rng.standard_normal(len(w))
        w = [w[i] - 0.5e-5 * (heat * g[i] + 100 * (w[i] - star[i])) + math.sqrt(1e-5) * noise[i] for i in range(len(w))]
    real = posterior.langevin
    monkeypatch.setattr(posterior, "langevin", lambda *given: real(*given, draws=draws))
    assert abs(posterior.local_learning_coefficient(s) - heat * excess / draws) < TOLERANCE


def test_the_learning_coefficient_of_a_quadratic_bowl():
    """L = ‖w‖²/2 in d dimensions: nβ E L(w) = d/2 · nβ/(nβ + γ) by the walk's stationary law (small ε)."""
    n, d = 100, 20
    found = posterior.langevin(
        np.zeros(d), lambda w, rows: (float(w @ w) / 2, w), n, generator(0, "bowl"), step=2e-3, pull=5.0, draws=40_000
    )
    beta = n / math.log(n)
    assert found == pytest.approx(d / 2 * beta / (beta + 5), rel=0.08)


def test_phases_are_told_from_the_two_curves():
    steps = [0, 100, 1000, 5000, 9000, 14000]
    excluded = np.array([4.7, 0.5, 0.1, 3.0, 8.0, 9.0])
    test = np.array([4.7, 20.0, 22.0, 21.0, 18.0, 0.01])
    found = progress.phases(steps, excluded, steps, test)
    assert found == ((0, 1000), (1000, 9000), (9000, 14000))
    assert progress.phases(steps, np.array([4.7, 3, 2, 1, 0.5, 0.1]), steps, test + 5) == ((0, 14000), None, None)
    assert progress.phases(steps, excluded, steps, np.full(6, 20.0)).clean_up is None


def test_the_key_frequencies_run_to_the_last_one():
    ch = characters.of(subject().task.facts)
    assert ch.frequencies == [1, 2, 3, 4, 5, 6]
    grid = np.array([[[a + b - c for c in range(P)] for b in range(P)] for a in range(P)])
    assert key_frequencies(np.cos(2 * np.pi * 6 * grid / P), ch) == (6,)
    assert key_frequencies(np.zeros((P, P, P)), ch) == ()


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return Path(train(tiny(), tmp_path_factory.mktemp("runs") / "run").run)


def test_the_command_answers_what_the_issue_asks_for(trained, capsys):
    assert cli.run(["analyse", str(trained), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts.keys() >= {"key_frequencies", "phases", "measures"}
    assert all(m.keys() >= {"value", "definition", "reference", "control"} for m in facts["measures"].values())
    assert facts["measures"].keys() | facts["skipped"].keys() == {n for n, m in MEASURES.items() if not m.costly}
    assert facts["measures"]["gradient_symmetricity"]["untrained_reads_no_worse"] in (True, False)
    assert facts["measures"]["accuracy"]["definition"] == MEASURES["accuracy"].definition
    assert cli.run(["analyse", str(trained)]) == 0
    assert "key frequencies" in capsys.readouterr().out


def test_one_measure_at_one_step(trained, capsys):
    tokens = ["analyse", str(trained), "--step", "30", "--measure", "local_learning_coefficient", "--json"]
    assert cli.run(tokens) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["step"] == 30
    assert list(facts["measures"]) == ["local_learning_coefficient"]
    assert math.isfinite(facts["measures"]["local_learning_coefficient"]["value"])


def refusal(capsys, *tokens: object) -> str:
    assert cli.run(list(map(str, tokens))) == 2
    return capsys.readouterr().err


def test_what_cannot_be_measured_is_refused(trained, tmp_path, capsys):
    assert "cosine_coefficients" in refusal(capsys, "analyse", trained, "--measure", "cosine_coeficients")
    assert "nearest saved steps" in refusal(capsys, "analyse", trained, "--step", "11")
    assert "no label was spoilt" in refusal(capsys, "analyse", trained, "--measure", "memorised_noise")
    composite = train(tiny({"task": {"p": 9}}), tmp_path / "run").run
    said = refusal(capsys, "analyse", composite)
    assert "odd prime" in said and "weight_norm" in said and "embedding_gini" not in said
    assert cli.run(["analyse", str(composite), "--measure", "weight_norm"]) == 0
    capsys.readouterr()
    assert "odd prime" in refusal(capsys, "analyse", composite, "--measure", "embedding_gini")


@pytest.mark.parametrize("task", ["addition"])
def test_another_task_is_refused_with_what_applies(tmp_path, capsys, task):
    run = fake_runs.make(tmp_path / "run", fake_runs.config(task={"name": task}))
    said = refusal(capsys, "analyse", run)
    assert "weight_norm" in said
    assert "embedding_gini" not in said
    assert "operation on two numbers" in said
    assert cli.run(["analyse", str(run), "--measure", "weight_norm", "--measure", "stable_rank"]) == 0


def test_an_operation_without_a_basis_gets_what_applies(tmp_path):
    run = train(tiny({"task": {"operation": "x**2 + y**2"}}), tmp_path / "run").run
    found = analysis.analyse(run)
    assert found.key_frequencies is None
    assert "weight_norm" in found.measures
    assert "no Fourier basis" in found.skipped["embedding_spectrum"]


@pytest.mark.parametrize("name", ["S3: x*y*x", "x + y + z", "gcd(x, y)"])
def test_what_has_no_characters_says_why(name):
    with pytest.raises(BadInput, match=r"no function of the product|operands|basis"):
        characters.of(tasks.make("arithmetic", operation=name, p=7).facts if ":" not in name else
                      tasks.make("arithmetic", operation=name).facts)  # fmt: skip


def test_every_measure_reads_a_random_network():
    s = subject()
    for name, m in MEASURES.items():
        if m.costly or why_not(name, s):
            continue
        value = m.of(s)
        values = list(value.values()) if isinstance(value, dict) else [value]
        assert np.all(np.isfinite(values)), name
        assert m.high is None or isinstance(value, float), name


def test_the_page_lists_every_measure():
    assert markdown() in (ROOT / "docs/grokking.md").read_text("utf-8")


def test_the_report_tells_what_the_network_computes(trained):
    run = reading.Run.at(trained)
    assert circuit.applies(run)
    section = circuit.build(run)
    assert "frequenc" in section.text
    last = open_subject(trained)
    curve = progress.over_checkpoints(trained, last)
    assert curve["step"].tolist() == [30, 40]
    assert curve["excluded_loss"][-1] == pytest.approx(losses.excluded_loss(last), rel=1e-5)
    assert curve["test_loss"][0] == pytest.approx(losses.full_loss(open_subject(trained, 30))["test"], rel=1e-5)


def test_the_report_draws_the_logit_of_a_network_built_by_hand():
    s = by_hand()
    assert "in 2 of 6 frequencies (2 and 6): these hold 100\u00a0% of the logits' energy" in circuit._told(s, 7)
    (panel,) = circuit._logit(s)
    distance, spoken = panel.figure.data[0].x, panel.figure.data[0].y
    expected = 100 * sum(np.cos(2 * np.pi * k * np.array(distance) / P) for k in CHOSEN)
    assert np.array(spoken) == pytest.approx(expected, abs=1e-9)
    assert np.array(panel.figure.data[1].y) == pytest.approx(np.zeros(P), abs=1e-9)
    first = circuit._circles(s)[0].figure.data[0]
    assert np.hypot(first.x, first.y) == pytest.approx(np.full(P + 1, np.sqrt(2)), rel=0.01)  # both sides' waves
