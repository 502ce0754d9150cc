"""Guards the measures of groups (irreducible representations), of parity (Walsh), and of the loss near the weights."""

import importlib.util
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_grokking import P, by_hand, dft, slow_gradient, subject
from tiny import tiny

from onelayer import cli, tasks
from onelayer.arrays import flatten, generator, map_tree, unflatten
from onelayer.errors import BadInput
from onelayer.grokking import (
    analysis,
    characters,
    controls,
    geometry,
    landscape,
    losses,
    parity,
    representations,
    spectra,
    weights,
)
from onelayer.grokking.measures import MEASURES, why_not
from onelayer.grokking.subject import Subject, as_vector, open_subject
from onelayer.models import decoder_only
from onelayer.models.config import ModelConfig
from onelayer.tasks import operations
from onelayer.tasks.operations import Group
from onelayer.training import Run, objective, train
from onelayer.training.objective import Objective

ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-10

# ---------------------------------------------------------------------------------------------------- slow twins


def dihedral(n: int) -> dict[str, list[np.ndarray]]:
    """Every representation as matrices, an element each: rotations r^k as k, reflections r^k s as n + k."""
    found = {"A1": [np.eye(1)] * 2 * n, "A2": [np.eye(1)] * n + [-np.eye(1)] * n}
    if n % 2 == 0:
        turned = [np.eye(1) * (-1) ** k for k in range(n)]
        found |= {"B1": turned + turned, "B2": turned + [-m for m in turned]}
    for k in range(1, (n + 1) // 2):
        turns = []
        for j in range(n):
            a = 2 * np.pi * k * j / n
            turns.append(np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]))
        found[f"E{k}"] = turns + [m @ np.diag([1.0, -1.0]) for m in turns]
    return found


def young(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Young's orthogonal form: S_n acting on standard tableaux; adjacent exchanges first, the others as their words."""
    n = sum(shape)

    def fill(rows: tuple[tuple[int, ...], ...], k: int):
        if k > n:
            yield rows
            return
        for i, row in enumerate(rows):
            if len(row) < shape[i] and (i == 0 or len(rows[i - 1]) > len(row)):
                yield from fill((*rows[:i], (*row, k), *rows[i + 1 :]), k + 1)

    tableaux = list(fill(((),) * len(shape), 1))
    place = {t: i for i, t in enumerate(tableaux)}
    swaps = []
    for i in range(1, n):
        M = np.zeros((len(tableaux),) * 2)
        for t in tableaux:
            at = {v: (r, c) for r, row in enumerate(t) for c, v in enumerate(row)}
            d = (at[i + 1][1] - at[i + 1][0]) - (at[i][1] - at[i][0])
            M[place[t], place[t]] = 1 / d
            other = tuple(tuple({i: i + 1, i + 1: i}.get(v, v) for v in row) for row in t)
            if other in place:
                M[place[other], place[t]] = math.sqrt(1 - 1 / d**2)
        swaps.append(M)
    matrices = []
    for q in itertools.permutations(range(n)):
        word, M = list(q), np.eye(len(tableaux))
        for end in range(n - 1, 0, -1):  # bubble sort: q as a product of adjacent exchanges
            for i in range(end):
                if word[i] > word[i + 1]:
                    word[i], word[i + 1] = word[i + 1], word[i]
                    M = M @ swaps[i]
        matrices.append(M)
    return matrices


def projector(matrices: list[np.ndarray]) -> np.ndarray:
    """d/n Σ_ij ρ_ij(g) ρ_ij(h): from the matrix elements themselves."""
    n, d = len(matrices), len(matrices[0])
    elements = np.array([m.ravel() for m in matrices])
    return d / n * elements @ elements.T


@pytest.mark.parametrize(("group", "known"), [
    (Group("D", 5), dihedral(5)), (Group("D", 6), dihedral(6)),
    (Group("S", 3), {"3": young((3,)), "2+1": young((2, 1)), "1+1+1": young((1, 1, 1))}),
    (Group("S", 4), {"+".join(map(str, p)): young(p) for p in
                     [(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1)]}),
])  # fmt: skip
def test_the_spaces_are_those_of_the_matrix_elements(group, known):
    found = representations.of(group)
    assert found[0].name == next(iter(known))
    assert {one.name for one in found} == known.keys()
    for one in found:
        matrices = known[one.name]
        assert np.max(np.abs(one.rows.T @ one.rows - projector(matrices))) < TOLERANCE
        assert np.max(np.abs(one.character - [np.trace(m) for m in matrices])) < TOLERANCE
        assert one.dimension == len(matrices[0])


@pytest.mark.parametrize(("group", "dimensions"), [
    (Group("A", 4), [1, 1, 3]), (Group("A", 5), [1, 3, 3, 4, 5]), (Group("S", 5), [1, 1, 4, 4, 5, 5, 6]),
    (Group("D", 30), [1] * 4 + [2] * 14),
])  # fmt: skip
def test_dimensions_names_and_orthogonality(group, dimensions):
    found = representations.of(group)
    assert [one.dimension for one in found] == dimensions
    assert len({one.name for one in found}) == len(found)
    basis = np.concatenate([one.rows for one in found])
    assert np.max(np.abs(basis @ basis.T - np.eye(group.order))) < TOLERANCE
    assert found[0].character == pytest.approx(np.ones(group.order))


def network(task: Any) -> tuple[ModelConfig, Any]:
    """A small decoder for a task, and its first weights."""
    shape: dict[str, Any] = {"d_model": 8, "n_heads": 2, "d_mlp": 12}
    cfg = ModelConfig(vocab_size=len(task.vocabulary), n_ctx=task.n_ctx, **shape)
    return cfg, decoder_only.init(cfg, 0)


def speaks(operation: str, name: str, gain: float) -> Subject:
    """A network of the group whose logits are the character of one representation at a·b·c⁻¹."""
    task = tasks.make("arithmetic", operation=operation, train_fraction=0.5, seed=0)
    cfg, first = network(task)
    group = operations.find(operation).group
    matrices = young(tuple(map(int, name.split("+")))) if group.family == "S" else dihedral(group.n)[name]
    n, table = group.order, task.facts["table"]
    inverse = [int(np.flatnonzero(table[x] == 0)[0]) for x in range(n)]
    logits = np.array([[[np.trace(matrices[table[table[a, b], inverse[c]]]) for c in range(n)] for b in range(n)]
                       for a in range(n)])  # fmt: skip
    return Subject(task, Objective(cfg, 1), map_tree(lambda w: w + 0.1, first), first, 0, "float64", said=gain * logits)


@pytest.mark.parametrize(("operation", "name"), [("S4: x*y", "3+1"), ("D7: x*y", "E2")])
def test_logits_that_are_a_character_are_read_as_one(operation, name):
    s = speaks(operation, name, 30.0)
    n, ch = len(s.right), s.characters
    assert [ch.name(k) for k in s.key_frequencies] == [name]
    assert losses.cosine_variance_explained(s) >= 0.999
    assert losses.restricted_loss(s) == pytest.approx(losses.full_loss(s)["all"], abs=1e-9)
    assert losses.excluded_loss(s) == pytest.approx(math.log(n), abs=1e-9)
    assert spectra.logit_families(s)["sum"] == pytest.approx(1)
    assert losses.excluded_quotient_loss(s) < 0.9 * math.log(n)  # directions that the answer does not use


def test_measures_of_a_group_against_loops():
    task = tasks.make("arithmetic", operation="S3: x*y", train_fraction=0.5, seed=0)
    cfg, first = network(task)
    s = Subject(task, Objective(cfg, 1), map_tree(lambda w: w + 0.2, first), first, 0, "float64", keys=(2,))
    assert s.characters.name(2) == "2+1"
    spaces = [projector(young(shape)) for shape in ((3,), (1, 1, 1), (2, 1))]
    W = s.params.embed.W_E[:6]
    shares = [np.sum((Q @ W) ** 2) / np.sum(W**2) for Q in spaces]
    assert np.max(np.abs(np.array(list(spectra.embedding_spectrum(s).values())) - shares)) < TOLERANCE
    sizes = sorted(np.sqrt(np.sum((Q @ W) ** 2) / m) for Q, m in zip(spaces, (1, 1, 4), strict=True) for _ in range(m))
    gini = sum((2 * i - 7) * x for i, x in enumerate(sizes, 1)) / (6 * sum(sizes))
    assert abs(spectra.embedding_gini(s) - gini) < TOLERANCE
    table, L = task.facts["table"], s.logits
    mean = np.array([np.mean([L[a, b] for a in range(6) for b in range(6) if table[a, b] == r], axis=0)
                     for r in range(6)])  # fmt: skip
    kept = spaces[2] @ mean
    told = []
    for a, b in task.facts["train_pairs"]:
        z = L[a, b] - kept[table[a, b]]
        told.append(math.log(np.sum(np.exp(z))) - z[table[a, b]])
    assert abs(losses.excluded_loss(s) - np.mean(told)) < TOLERANCE
    inverse = [int(np.flatnonzero(table[x] == 0)[0]) for x in range(6)]
    trace = [np.trace(m) for m in young((2, 1))]
    g = np.array([[[trace[table[table[a, b], inverse[c]]] for c in range(6)] for b in range(6)] for a in range(6)])
    centre = L - L.mean(axis=2, keepdims=True)
    alpha = np.sum(g * centre) / np.linalg.norm(g)
    assert abs(losses.cosine_coefficients(s)[2] - alpha) < TOLERANCE
    assert abs(losses.cosine_variance_explained(s) - alpha**2 / np.sum(centre**2)) < TOLERANCE


def test_every_measure_reads_a_group_and_other_words_are_refused():
    s = speaks("S3: x*y", "2+1", 1.0)
    for name, m in MEASURES.items():
        if not m.costly and not why_not(name, s):
            value = m.of(replace(s, said=None))
            assert np.all(np.isfinite(list(value.values()) if isinstance(value, dict) else [value])), name
    assert why_not("embedding_gini", s) is None
    with pytest.raises(BadInput, match=r"x\*y\*x\^-1 is no function of the product.*S5: x\*y"):
        characters.of(tasks.make("arithmetic", operation="S5: x*y*x^-1").facts)


def test_a_run_of_a_group_is_analysed_by_name(tmp_path, capsys):
    run = train(tiny({"task": {"operation": "S3: x*y", "p": 6, "train_fraction": 0.6}}), tmp_path / "run").run
    assert cli.run(["analyse", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["measures"]["embedding_spectrum"]["value"].keys() == {"3", "1+1+1", "2+1"}
    assert set(facts["key_frequencies"]) <= {"1+1+1", "2+1"}
    assert cli.run(["analyse", str(run)]) == 0
    assert cli.run(["report", str(run)]) == 0
    assert cli.run(["ablate", str(run), "--frequencies", "2+1", "--each"]) == 0


# ---------------------------------------------------------------------------------------------------- parity


def of_parity(n_bits: int = 5, k: int = 2) -> Subject:
    task = tasks.make("parity", n_bits=n_bits, k=k, n_train=12, n_test=10, seed=3)
    cfg, first = network(task)
    draw = generator(0, "test")
    moved = map_tree(lambda w: w + 0.5 * draw.standard_normal(w.shape), first)
    return Subject(task, Objective(cfg, 1), moved, first, 0, "float64")


def test_parity_in_walsh_functions_against_loops():
    s = of_parity()
    every = list(itertools.product((0, 1), repeat=5))
    tokens = np.array([[*bits, 2] for bits in every])
    z = decoder_only.forward(s.params, tokens, s.objective.model, read=1)[0][:, 0]
    f = dict(zip(every, z[:, 1] - z[:, 0], strict=True))
    sets = [S for d in range(6) for S in itertools.combinations(range(5), d)]
    hat = {S: sum(f[x] * (-1) ** sum(x[i] for i in S) for x in every) / 32 for S in sets}
    support = tuple(s.task.facts["support"].tolist())
    variance = sum(v**2 for v in f.values()) / 32 - hat[()] ** 2
    assert abs(parity.walsh_support_share(s) - hat[support] ** 2 / variance) < TOLERANCE
    for degree, share in parity.walsh_by_degree(s).items():
        assert abs(share - sum(hat[S] ** 2 for S in sets if len(S) == degree) / variance) < TOLERANCE
    told = []
    for x in every:
        sign = (-1) ** sum(x[i] for i in support)  # 1 where the answer is 0
        told.append(math.log(1 + math.exp(sign * (hat[()] + hat[support] * sign))))
    assert abs(parity.parity_restricted_loss(s) - np.mean(told)) < TOLERANCE
    told = []
    for x in s.task.train.tokens[:, :5].tolist():
        sign = (-1) ** sum(x[i] for i in support)
        told.append(math.log(1 + math.exp(sign * (f[tuple(x)] - hat[support] * sign))))
    assert abs(parity.parity_excluded_loss(s) - np.mean(told)) < TOLERANCE


def test_a_network_that_says_the_parity_and_nothing_else(monkeypatch):
    s = of_parity()
    monkeypatch.setattr(parity, "said", lambda s, bits: -20 * parity.character(s, bits))
    assert parity.walsh_support_share(s) == pytest.approx(1)
    assert parity.walsh_by_degree(s)[2] == pytest.approx(1)
    assert parity.parity_restricted_loss(s) == pytest.approx(math.log1p(math.exp(-20)))
    assert parity.parity_excluded_loss(s) == pytest.approx(math.log(2))


def test_many_bits_are_read_from_a_sample(monkeypatch):
    s = of_parity(20, 3)
    assert parity.inputs(s).shape == (4096, 20)
    assert "at most 14 bits" in str(why_not("walsh_by_degree", s))
    assert 0 <= parity.walsh_support_share(s) < 0.5


def test_a_run_of_parity_is_analysed(tmp_path, capsys):
    config = tiny({"task": {"name": "parity", "n_bits": 6, "k": 2, "n_train": 30, "n_test": 20}})
    run = train(config, tmp_path / "run").run
    assert cli.run(["analyse", str(run), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["measures"].keys() >= {"walsh_support_share", "walsh_by_degree", "parity_excluded_loss", "weight_norm"}
    assert "embedding_gini" in facts["skipped"]
    assert "random labels" in facts["measures"]["parity_excluded_loss"]["reads_high_on"]  # the controls of parity
    assert cli.run(["report", str(run)]) == 0
    assert "Networks with nothing to find read no worse: random labels" in (run / "report.html").read_text("utf-8")


# ---------------------------------------------------------------------------------------------------- the landscape


def small(**more) -> Subject:
    return subject(p=7, d_model=4, d_mlp=5, n_heads=1, **more)


def test_the_commutator_against_the_complex_step():
    s = small()
    order = generator(s.seed, "halves").permutation(24)
    a, b = (map_tree(lambda x, r=rows: x[r], s.task.train) for rows in (order[:12], order[12:]))

    def step(params, batch):
        g, at = slow_gradient(s, batch, params), 0
        moved = {}
        for name, w in flatten(params).items():
            moved[name], at = w - 1e-3 * g[at : at + w.size].reshape(w.shape), at + w.size
        return unflatten(moved, s.params), g

    first_a, g_a = step(s.params, a)
    first_b, g_b = step(s.params, b)
    ab, ba = step(first_a, b)[0], step(first_b, a)[0]
    gap = np.concatenate([(flatten(ab)[name] - flatten(ba)[name]).ravel() for name in flatten(s.params)])
    defect = np.linalg.norm(gap) / (np.linalg.norm(1e-3 * g_a) * np.linalg.norm(1e-3 * g_b))
    assert landscape.commutator_defect(s) == pytest.approx(defect, rel=1e-10)


def test_the_commutator_of_a_quadratic_loss():
    """L_A = wᵀMw/2, L_B = wᵀNw/2: θ_AB − θ_BA = η² (N M − M N) w, exactly."""
    M, N, w = np.diag([1.0, 3.0]), np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([0.3, -0.7])
    wanted = np.linalg.norm((N @ M - M @ N) @ w) / np.linalg.norm(M @ w) / np.linalg.norm(N @ w)
    assert abs(landscape.defect(lambda v: M @ v, lambda v: N @ v, w) - wanted) < TOLERANCE


def test_sharpness_of_a_linear_loss_is_at_a_corner():
    draw = np.random.default_rng(0)
    theta, g, A = draw.normal(size=30), 0.1 * draw.normal(size=30), draw.normal(size=(30, 10))
    found = landscape.keskar(lambda at: (5 + float(g @ at), g), theta, A)
    width = 1e-3 * (np.abs(np.linalg.inv(A.T @ A) @ A.T @ theta) + 1)
    highest = max(5 + g @ (theta + A @ (width * np.array(corner))) for corner in itertools.product((-1, 1), repeat=10))
    f = 5 + g @ theta
    assert abs(found - 100 * (highest - f) / (1 + f)) < TOLERANCE
    bowl = lambda at: (float(at @ at), 2 * at)  # noqa: E731
    corners = [bowl(theta + A @ (width * np.array(y)))[0] for y in itertools.product((-1, 1), repeat=10)]
    f = float(theta @ theta)
    assert landscape.keskar(bowl, theta, A) == pytest.approx(100 * (max(corners) - f) / (1 + f), rel=1e-9)


def test_sharpness_and_the_top_eigenvalue_of_a_network():
    s = small()
    H, theta = np.zeros((as_vector(s.params).size,) * 2), as_vector(s.params)
    for i in range(len(theta)):  # the gradient by hand, differentiated by a complex step
        e = np.zeros(len(theta), dtype=complex)
        e[i] = 1e-20j
        grads = objective.loss_and_grads(landscape.like(theta + e, s.params), s.task.train, s.objective)[1]
        H[i] = as_vector(grads).imag / 1e-20
    top = np.linalg.eigvalsh((H + H.T) / 2)[-1]
    assert abs(landscape.hessian_top(s) / top - 1) < TOLERANCE
    found = landscape.sharpness(s)
    A = generator(s.seed, "sharpness").standard_normal((len(theta), 10))
    f, g = s.gradient(s.task.train)
    width = 1e-3 * (np.abs(np.linalg.lstsq(A, theta, rcond=None)[0]) + 1)
    corner = s.gradient(s.task.train, landscape.like(theta + A @ (width * np.sign(A.T @ g)), s.params))[0]
    assert found >= 100 * (corner - f) / (1 + f) - 1e-9  # what one step uphill reaches
    assert found > 0


def test_a_trajectory_and_its_random_walk(tmp_path):
    run = train(tiny({"checkpoint": {"pinned": "all"}}), tmp_path / "run").run
    s = open_subject(run)
    saved = [
        np.concatenate([Run(run).parameters(at)[n].ravel() for n in flatten(s.params)]) for at in Run(run).snapshots
    ]
    exact = [x.astype(np.longdouble) for x in saved]  # of whose small angles acos keeps 10 digits
    cosines = [np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)) for a, b in itertools.pairwise(exact)]
    assert abs(landscape.trajectory_turn(s) - float(np.sum(np.arccos(cosines)))) < TOLERANCE
    centre = np.array(saved, dtype=np.float64) - np.mean(np.array(saved, dtype=np.float64), axis=0)
    sigma = np.linalg.svd(centre, compute_uv=False)
    assert abs(landscape.trajectory_pc1(s) - sigma[0] ** 2 / np.sum(sigma**2)) < TOLERANCE
    walk = landscape.trajectory(s.twin)
    path = landscape.trajectory(s)
    assert np.linalg.norm(np.diff(walk, axis=0), axis=1) == pytest.approx(np.linalg.norm(np.diff(path, axis=0), axis=1))
    assert np.array_equal(walk[0], path[0])
    with pytest.raises(BadInput, match="three checkpoints"):
        analysis.analyse(run, Run(run).snapshots[1], ["trajectory_pc1"])


def test_a_long_random_walk_has_the_share_that_theory_gives():
    path = np.zeros((40, 6000))
    path[:, 0] = np.arange(40)
    assert landscape.first_component(landscape.random_walk(path, 0)) == pytest.approx(6 / math.pi**2, abs=0.03)
    assert landscape.first_component(path) == pytest.approx(1)
    assert landscape.turn(np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])) == pytest.approx(math.pi)


def test_persistence_against_a_plain_loop(tmp_path):
    run = train(tiny({"optimizer": {"name": "sgd", "lr": 0.05}}), tmp_path / "run").run
    s = open_subject(run)
    w, h, gs = as_vector(s.params), 0.0, []
    for _ in range(50):
        g = s.gradient(s.task.train, landscape.like(w, s.params))[1]
        w, gs = w - 0.05 * g, [*gs, g]
    weight = [0.02 * 0.98 ** (49 - t) for t in range(50)]
    h = sum(a * g for a, g in zip(weight, gs, strict=True)) / sum(weight)
    assert abs(landscape.gradient_persistence(s) - np.linalg.norm(h) / np.linalg.norm(gs[-1])) < TOLERANCE


# ---------------------------------------------------------------------------------------------------- and the rest


def test_circularity_against_fft():
    s = subject()
    W = s.params.embed.W_E[:P]
    W = W - W.mean(axis=0)
    value, vector = np.linalg.eigh(W @ W.T)
    shares = []
    for i in np.argsort(-value)[:4]:
        power = np.abs(np.fft.fft(vector[:, i])) ** 2
        shares.append(max(power[k] + power[P - k] for k in range(1, 7)) / power.sum())
    assert abs(geometry.circularity(s) - np.mean(shares)) < TOLERANCE
    assert geometry.circularity(by_hand(chosen=(3,))) == pytest.approx(1)


def test_the_lens_in_margins_and_cosines_against_loops():
    s = replace(subject(), keys=(2, 5))
    W_U = s.params.unembed.W_U
    for after, name in geometry.STREAM.items():
        z = (s.seen[name] @ W_U)[..., :P]
        gaps = [z[a, b, (a + b) % P] - max(z[a, b, c] for c in range(P) if c != (a + b) % P)
                for a in range(P) for b in range(P)]  # fmt: skip
        assert abs(geometry.logit_lens_margin(s)[after] - np.mean(gaps)) < TOLERANCE
        centre = z - z.mean(axis=2, keepdims=True)
        grid = np.array([[[a + b - c for c in range(P)] for b in range(P)] for a in range(P)])
        squares = 0.0
        for k in (2, 5):
            g = np.cos(2 * np.pi * k * grid / P)
            squares += np.sum(g * centre) ** 2 / np.sum(g * g)
        assert abs(geometry.logit_lens_cosines(s)[after] - squares / np.sum(centre**2)) < TOLERANCE


def test_mode_pairs_against_loops():
    s = subject()
    x, waves = s.seen["hook_resid_post"], dft(P)
    energy = np.array([[sum(np.sum(np.einsum("a,b,abd->d", u, v, x) ** 2) for u in rows for v in columns)
                        for columns in waves] for rows in waves])  # fmt: skip
    energy[0, 0] = 0
    q = energy[energy > 0] / energy.sum()
    assert abs(spectra.effective_mode_pairs(s) - math.exp(-np.sum(q * np.log(q)))) < TOLERANCE


def test_the_logit_scale_is_that_which_the_loss_sees():
    s = subject()
    hot = replace(s, objective=s.objective._replace(temperature=4.0))
    assert weights.logit_scale(hot) == pytest.approx(weights.logit_scale(s) / 4)
    built = by_hand(gain=1e3)
    assert weights.softmax_collapse(built) == 1
    assert weights.softmax_collapse(replace(built, objective=built.objective._replace(temperature=1e3))) == 0


# ---------------------------------------------------------------------------------------------------- controls


def script() -> Any:
    spec = importlib.util.spec_from_file_location("controls_script", ROOT / "scripts" / "controls.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_mark_says_that_a_control_reads_as_high():
    assert controls.stands_out(1.0, 0.89, True)
    assert not controls.stands_out(1.0, 0.91, True)
    assert controls.stands_out(0.1, 1.0, False)
    assert not controls.stands_out(1.0, 1.05, False)


@pytest.mark.parametrize(("setting", "facts"), [("sum", {}), ("parity", {"support": None})])
def test_the_tables_of_controls_are_consistent_and_on_their_page(setting, facts):
    told = controls.settings()[setting]
    for row, values in told["measures"].items():
        high = MEASURES[row].high if row in MEASURES else None
        marked = [c for c in told["null"] if high is not None and c in values
                  and not controls.stands_out(values["real"], values[c], high)]  # fmt: skip
        assert values.get("marked", []) == marked, row
        assert controls.reads_high_on(row, facts) == marked
    assert controls.markdown(setting) in (ROOT / "docs" / "controls.md").read_text("utf-8")


def test_every_measure_has_its_controls():
    names = {setting: {row.partition(":")[0] for row in told["measures"]}
             for setting, told in controls.settings().items()}  # fmt: skip
    assert names["sum"] | names["parity"] == MEASURES.keys()
    for setting in controls.settings().values():
        for row, values in setting["measures"].items():
            wanted = {"real", *setting["null"]}
            assert MEASURES.get(row) is None or MEASURES[row].high is None or len(wanted & values.keys()) > 2, row
    assert names["parity"] >= {name for name, m in MEASURES.items() if "parity" in m.needs or not m.needs}
    assert "untrained" in controls.reads_high_on("gradient_symmetricity", {})
    assert controls.reads_high_on("cosine_variance_explained", {}) == []


def test_the_constant_network_of_the_controls_gives_one_answer():
    s = subject()
    found = script().constant(replace(s, keys=(1,)))
    top = found.logits.argmax(axis=-1)
    assert np.all(top == s.task.facts["majority_class"])
    assert found.logits.std(axis=(0, 1)) == pytest.approx(np.zeros(P))
    assert script().values("accuracy", found)["accuracy: test"] == pytest.approx(s.task.facts["majority_accuracy"])
    assert script().values("logit_spectrum", s).keys() == {"logit_spectrum: largest"}
