"""Weights: how large, how many directions they use, how far they went.

Shapes    θ all weights as one vector, θ₀ where they began, g the gradient of the training loss     W a matrix, σ its
          singular values; a head's matrices are taken one by one and averaged

Norms            √Σ θ², of all and of each tensor
Logit scale      root mean square of the logits, less each pair's mean over the answers, over the loss's temperature;
                 margin: the right answer's logit less the best other, the mean over the pairs (Khanh 2026,
                 arXiv:2606.18465, measures a scale of this kind; its own definition was not at hand)
Effective rank   exp(−Σ q ln q), q = σ/Σσ     Stable rank  Σσ²/σ₁²
Trajectory       cos(θ, θ₀)
Collapse         the share of training examples whose loss is exactly 0 in the precision of the run;
                 cos(−g, θ): near 1, the loss falls by growing alone (naive loss minimisation)
Entropy          exp(−Σ q ln q)/size, q = |θ|/Σ|θ|: 1 where all weights are of a size; AGE the same of |g|
Sparsity         the share of exact zeros among the neurons over all pairs

Source    Effective rank: Roy & Vetterli 2007. Collapse: Prieto et al. 2025, arXiv:2501.04697. Entropy of gradients:
          Zhou et al. 2025 (NeuralGrok); sparsity and entropy of weights: Golechha 2024, arXiv:2405.12755.
"""

import numpy as np

from ..arrays import flatten, map_tree
from ..training import objective as objectives
from .characters import entropy
from .subject import Subject, as_vector


def weight_norms(s: Subject) -> dict[str, float]:
    named = {name: float(np.linalg.norm(np.ravel(w))) for name, w in flatten(s.params).items()}
    return {"all": float(np.linalg.norm(as_vector(s.params))), **named}


def weight_norm(s: Subject) -> float:
    return weight_norms(s)["all"]


def logit_scale(s: Subject) -> float:
    return float(np.sqrt(s.energy / s.logits.size)) / s.objective.temperature


def margin(s: Subject) -> float:
    answered = s.right >= 0
    z, y = s.logits[answered], s.right[answered]  # a copy
    rows = np.arange(len(y))
    said = z[rows, y]
    z[rows, y] = -np.inf
    return float(np.mean(said - z.max(axis=1)))


def _matrices(s: Subject) -> dict[str, np.ndarray]:
    """name -> [stack, rows, columns]."""
    found = {name: w for name, w in flatten(s.params).items() if w.ndim >= 2 and min(w.shape[-2:]) > 1}
    return {name: w.reshape(-1, *w.shape[-2:]) for name, w in found.items()}


def ranks(w: np.ndarray) -> tuple[float, float]:
    """(effective, stable) of one matrix; 0 of one that is zero."""
    sigma = np.linalg.svd(w, compute_uv=False)
    return (float(np.exp(entropy(sigma))), float(np.sum(sigma**2) / sigma[0] ** 2)) if sigma[0] > 0 else (0.0, 0.0)


def effective_rank(s: Subject) -> dict[str, float]:
    return {name: float(np.mean([ranks(w)[0] for w in stack])) for name, stack in _matrices(s).items()}


def stable_rank(s: Subject) -> dict[str, float]:
    return {name: float(np.mean([ranks(w)[1] for w in stack])) for name, stack in _matrices(s).items()}


def trajectory_cosine(s: Subject) -> float:
    return cosine(as_vector(s.params), as_vector(s.start))


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    """0 where one of them is zero."""
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms > 0 else 0.0


def softmax_collapse(s: Subject) -> float:
    params = map_tree(lambda w: w.astype(s.dtype), s.params)
    logits = objectives.forward(params, s.task.train, s.objective)[0][:, -1]
    if s.objective.variant == "float64":
        logits = logits.astype(np.float64)
    logits = logits / logits.dtype.type(s.objective.temperature)
    z = logits - logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), s.task.train.targets[:, -1]]
    return float(np.mean(loss == 0))


def growth_alignment(s: Subject) -> float:
    return cosine(-s.train_gradient, as_vector(s.params))


def weight_entropy(s: Subject) -> float:
    theta = np.abs(as_vector(s.params))
    return float(np.exp(entropy(theta)) / theta.size)


def gradient_entropy(s: Subject) -> float:
    g = np.abs(s.train_gradient)
    return float(np.exp(entropy(g)) / g.size) if g.any() else 0.0


def activation_sparsity(s: Subject) -> float:
    return float(np.mean(s.neurons == 0))
