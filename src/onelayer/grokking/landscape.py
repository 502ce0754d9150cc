"""Landscape: how the loss bends near the weights, and how the run came there.

Shapes    θ [weights]     g_A, g_B gradients of the two halves of the training set, split at random
          Θ [m weights] the run's saved weights up to this step, first to last

Commutator   θ_AB = θ − η g_A(θ), then − η g_B there; θ_BA the other way round.
             defect = ‖θ_AB − θ_BA‖ / (‖η g_A‖ ‖η g_B‖), g at θ, η = 1e-3: to first order ‖H_B ĝ_A − H_A ĝ_B‖ of unit
             gradients, so curvature that is not shared
Sharpness    100 (max f − f)/(1 + f), f the training loss, over θ + A y with A [weights 10] of standard normals and
             |y_i| ≤ ε (|(A⁺θ)_i| + 1), ε = 1e-3. The maximum is sought from corner to corner of that box, by the signs
             of the gradient, ten times at most: exact where f is linear, uphill where it is convex (Keskar: L-BFGS-B)
Top          the largest eigenvalue of the Hessian of the training loss, by Lanczos (microscope/curvature.py)
Persistence  ‖h‖/‖g‖ after 50 steps by the run's own rule from here on, h the moving average of their gradients
             (α = .98, its beginning at zero accounted for), g the last of them: near 1 where the pull is steady, near 0
             where it turns about
Trajectory   turn   Σ of the angles between successive Θ_i, in radians
             PC1    the share of the variance of Θ on its first principal component. Of the untrained twin it is that of
                    a random walk with the same steps, whose share is 6/π² = .61 in the limit

Source    Sharpness: Keskar et al. 2017, arXiv:1609.04836, metric 2.1, and the code of Power et al. 2022. Persistence:
          Lee et al. 2024, arXiv:2405.20233, whose filter it is. Random walks: Antognini & Sohl-Dickstein 2018,
          arXiv:1806.08805. The commutator as a sign of grokking: Xu 2026, README of the integrability study.
"""

from collections.abc import Callable

import numpy as np

from ..arrays import flatten, generator, map_tree
from ..microscope import curvature
from ..microscope.groupings import loss_settings
from ..tasks import Batch
from ..training import step as steps
from ..training.run_directory import Run
from ..training.step import OptState, TrainState
from .subject import Subject, as_vector, like, part

RATE, DIRECTIONS, BOX, ITERATIONS, AHEAD, ALPHA, SNAPSHOTS = 1e-3, 10, 1e-3, 10, 50, 0.98, 64

Slope = Callable[[np.ndarray], np.ndarray]
Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]


def halves(s: Subject) -> tuple[Batch, Batch]:
    order = generator(s.seed, "halves").permutation(len(s.task.train.tokens))
    half = len(order) // 2
    return part(s.task.train, order[:half]), part(s.task.train, order[half:])


def commutator_defect(s: Subject) -> float:
    a, b = halves(s)
    slopes = [lambda at, batch=batch: s.gradient(batch, like(at, s.params))[1] for batch in (a, b)]
    return defect(slopes[0], slopes[1], as_vector(s.params))


def defect(slope_a: Slope, slope_b: Slope, theta: np.ndarray) -> float:
    g_a, g_b = slope_a(theta), slope_b(theta)
    ab = g_a + slope_b(theta - RATE * g_a)  # both less θ, over −η
    ba = g_b + slope_a(theta - RATE * g_b)
    scale = float(np.linalg.norm(g_a) * np.linalg.norm(g_b))
    return float(np.linalg.norm(ab - ba)) / (RATE * scale) if scale > 0 else 0.0


# ---------------------------------------------------------------------------------------------------- curvature


def sharpness(s: Subject) -> float:
    theta = as_vector(s.params)
    A = generator(s.seed, "sharpness").standard_normal((len(theta), DIRECTIONS))
    return keskar(lambda at: s.gradient(s.task.train, like(at, s.params)), theta, A)


def keskar(loss: Loss, theta: np.ndarray, A: np.ndarray) -> float:
    """With loss(θ) -> (f, gradient)."""
    width = BOX * (np.abs(np.linalg.lstsq(A, theta, rcond=None)[0]) + 1)
    f, g = loss(theta)
    highest, corner = f, np.zeros(A.shape[1])
    for _ in range(ITERATIONS):
        uphill = np.where(A.T @ g >= 0, width, -width)
        if np.array_equal(uphill, corner):
            break
        corner = uphill
        value, g = loss(theta + A @ corner)
        highest = max(highest, value)
    return 100 * (highest - f) / (1 + f)


def hessian_top(s: Subject) -> float:
    at = curvature.linearise(s.params, s.task.train, s.objective.model, **loss_settings(s.objective))
    return float(curvature.eigenvalues(at, 1, 0, tolerance=1e-7, seed=s.seed)[0][0])


# ---------------------------------------------------------------------------------------------------- ahead, and behind


def gradient_persistence(s: Subject) -> float:
    rules, params = s.rules, s.params
    state = TrainState(params, OptState(
        tuple(f.init(params) for f in rules.filters), rules.optimizer.init(params),
        tuple(p.init(params) for p in rules.projections),
    ))  # fmt: skip
    first = 0 if s.step is None or s.params is s.start else s.step
    mean, g = map_tree(np.zeros_like, params), params
    for t in range(AHEAD):
        state, _, g = steps.take(state, s.task.train, first + t, s.objective, rules)
        mean = map_tree(lambda h, x: ALPHA * h + (1 - ALPHA) * x, mean, g)
    size = float(np.linalg.norm(as_vector(g)))
    return float(np.linalg.norm(as_vector(mean))) / (1 - ALPHA**AHEAD) / size if size > 0 else 0.0


def trajectory(s: Subject) -> np.ndarray:
    """Θ: at most SNAPSHOTS of the run's saved weights, evenly among them; of the untrained twin, a random walk."""
    assert s.run is not None
    run = Run(s.run)
    saved = [at for at in run.snapshots if s.step is None or at <= s.step]
    chosen = [saved[round(i)] for i in np.linspace(0, len(saved) - 1, min(len(saved), SNAPSHOTS))]
    names = list(flatten(s.params))
    path = np.stack([np.concatenate([run.parameters(at)[name].ravel() for name in names]) for at in chosen])
    path = path.astype(np.float64)
    return random_walk(path, s.seed) if s.params is s.start else path


def random_walk(path: np.ndarray, seed: int) -> np.ndarray:
    """The same beginning and lengths of steps, each step in a direction drawn at random."""
    draw = generator(seed, "random walk").standard_normal((len(path) - 1, path.shape[1]))
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    moves = draw * (lengths / np.linalg.norm(draw, axis=1))[:, None]
    return np.concatenate([path[:1], path[0] + np.cumsum(moves, axis=0)])


def turn(path: np.ndarray) -> float:
    unit = path / np.linalg.norm(path, axis=1, keepdims=True)
    apart, together = (np.linalg.norm(x, axis=1) for x in (unit[1:] - unit[:-1], unit[1:] + unit[:-1]))
    return float(np.sum(2 * np.arctan2(apart, together)))  # acos would lose half of the digits of a small angle


def first_component(path: np.ndarray) -> float:
    centre = path - path.mean(axis=0)
    value = np.linalg.eigvalsh(centre @ centre.T)  # m × m, whatever the number of weights
    return float(value[-1] / value.sum()) if value.sum() > 0 else 0.0


def trajectory_turn(s: Subject) -> float:
    return turn(trajectory(s))


def trajectory_pc1(s: Subject) -> float:
    return first_component(trajectory(s))
