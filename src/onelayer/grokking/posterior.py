"""Local learning coefficient: how many directions the loss really feels around the weights.

Shapes    w, w* [weights]     L_m the mean loss of m random training examples     n training examples

Estimate   λ̂ = nβ (mean L(w_t) − L(w*)), over draws w_t that start at w* and
           w ← w − ε/2 (nβ ∇L_m(w) + γ (w − w*)) + N(0, ε)                             stochastic gradient Langevin
           nβ = n/ln n; L(w_t) is that of the step's own m examples, whose mean over the draws stands beside the mean of
           L at w* over the same examples, so that the draw of the examples cancels
Reading    λ̂ < 0 says that w* is no minimum of L: the walk finds lower loss, as it does near untrained weights

Source    Lau et al. 2023, arXiv:2308.12108; ε = 1e-5 and γ = 100 here keep the walk near w* for these networks.
"""

import math
from collections.abc import Callable

import numpy as np

from ..arrays import generator
from ..tasks import Batch
from .subject import Subject, as_vector, like, part

STEP, PULL, DRAWS, BATCH = 1e-5, 100.0, 100, 256


def langevin(
    w_star: np.ndarray,
    loss: Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]],
    n: int,
    rng: np.random.Generator,
    *,
    step: float = STEP,
    pull: float = PULL,
    draws: int = DRAWS,
    batch: int = BATCH,
) -> float:
    """λ̂ with loss(w, examples) -> (loss, gradient)."""
    heat, w, excess = n / math.log(n), w_star, 0.0
    for _ in range(draws):
        rows = rng.integers(0, n, min(batch, n))
        value, g = loss(w, rows)
        excess += value - loss(w_star, rows)[0]
        w = w - step / 2 * (heat * g + pull * (w - w_star)) + math.sqrt(step) * rng.standard_normal(w.size)
    return heat * excess / draws


def local_learning_coefficient(s: Subject) -> float:
    train: Batch = s.task.train

    def loss(w: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray]:
        return s.gradient(part(train, rows), like(w, s.params))

    return langevin(as_vector(s.params), loss, len(train.tokens), generator(s.seed, "langevin"))
