"""Losses of a network cut down: with the key frequencies alone (restricted), without them (excluded).

Shapes    L [n n C] logits over the pairs and the numbers     P_k L: the waves of frequency k over the result a∘b

Restricted  cross-entropy of Σ_k P_k L + mean over pairs of L, k the key frequencies
Excluded    cross-entropy of L − Σ_k P_k L
            per frequency: the one k alone is kept, or alone is taken away
            The loss is the mean over the pairs of the split that is named: "all" pairs, "train", or "test". The paper's
            code restricts over all pairs and excludes over the training pairs.
Control     the same along the quotient (differences for +): directions as many, which the answer does not use

Cosines     g_k(a, b, c) = Σ over the rows j of k of F_j(a∘b) F_j(c), for Z_n (2/n) cos w_k(a + b − c)
            α_k = ⟨g_k, L⟩/‖g_k‖     R² = Σ_k α_k² / ‖L − mean over c‖²

Source    Nanda et al. 2023, arXiv:2301.05217, sections 4.2 and 5.1.
"""

from collections.abc import Iterable

import numpy as np

from . import characters
from .subject import Subject, centred


def cross_entropy(logits: np.ndarray, right: np.ndarray, among: np.ndarray) -> float:
    """The mean over the pairs in `among` that have an answer, in nats."""
    chosen = among & (right >= 0)
    z, y = logits[chosen], right[chosen]
    z = z - z.max(axis=-1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=-1)) - z[np.arange(len(y)), y]))


def by_split(s: Subject, logits: np.ndarray) -> dict[str, float]:
    splits = {"all": np.ones_like(s.train), "train": s.train, "test": s.test}
    return {name: cross_entropy(logits, s.right, among) for name, among in splits.items()}


def full_loss(s: Subject) -> dict[str, float]:
    return by_split(s, s.logits)


def kept(s: Subject, frequencies: Iterable[int], product: np.ndarray | None = None) -> np.ndarray:
    """Σ_k P_k L + mean over pairs of L."""
    ch = s.characters
    return characters.along(s.logits, ch.product if product is None else product, ch, frequencies) + s.logits.mean(
        (0, 1)
    )


def removed(s: Subject, frequencies: Iterable[int], product: np.ndarray | None = None) -> np.ndarray:
    """L − Σ_k P_k L."""
    ch = s.characters
    return s.logits - characters.along(s.logits, ch.product if product is None else product, ch, frequencies)


def restricted_loss(s: Subject) -> float:
    return cross_entropy(kept(s, s.key_frequencies), s.right, s.right >= 0)


def restricted_loss_by_split(s: Subject) -> dict[str, float]:
    return by_split(s, kept(s, s.key_frequencies))


def excluded_loss(s: Subject) -> float:
    return cross_entropy(removed(s, s.key_frequencies), s.right, s.train)


def excluded_loss_by_split(s: Subject) -> dict[str, float]:
    return by_split(s, removed(s, s.key_frequencies))


def restricted_by_frequency(s: Subject) -> dict[int, float]:
    return {k: cross_entropy(kept(s, [k]), s.right, s.right >= 0) for k in s.key_frequencies}


def excluded_by_frequency(s: Subject) -> dict[int, float]:
    return {k: cross_entropy(removed(s, [k]), s.right, s.train) for k in s.key_frequencies}


def excluded_quotient_loss(s: Subject) -> float:
    return cross_entropy(removed(s, s.key_frequencies, s.characters.quotient), s.right, s.train)


def cosine_coefficients(s: Subject) -> dict[int, float]:
    ch = s.characters
    spoken = characters.profile(centred(s.logits)[..., ch.c], ch.product)  # [s c]: ⟨F_j(a∘b) …⟩ is n times its product
    n, found = len(spoken), {}
    for k in ch.frequencies:
        rows = ch.rows([k])
        found[k] = float(np.sqrt(n / len(rows)) * np.sum((rows @ spoken) * rows))
    return found


def cosine_variance_explained(s: Subject) -> float:
    alpha, spoken = cosine_coefficients(s), centred(s.logits)
    return float(sum(alpha[k] ** 2 for k in s.key_frequencies) / np.sum(spoken**2))


def cosine_residual_loss(s: Subject) -> float:
    """The loss over all pairs of Σ_k α_k g_k/‖g_k‖ alone, k the key ones; an answer outside the places gets 0."""
    return cross_entropy(cosines(s), s.right, s.right >= 0)


def cosines(s: Subject) -> np.ndarray:
    """[n n C]: what the cosines of the key frequencies make of the logits."""
    ch, alpha = s.characters, cosine_coefficients(s)
    made = np.zeros_like(s.logits)
    for k in s.key_frequencies:
        rows = ch.rows([k])
        made[..., ch.c] += alpha[k] / np.sqrt(len(ch.basis) * len(rows)) * (rows.T @ rows)[ch.product]
    return made
