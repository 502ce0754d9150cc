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

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from . import characters
from .subject import Subject, centred

FAINT = 1e-200  # a sum of products of numbers up to 1 below which the smallest of them may have lost digits


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


def removed(s: Subject, frequencies: Iterable[int], product: np.ndarray | None = None) -> np.ndarray:
    """L − Σ_k P_k L."""
    ch = s.characters
    return s.logits - characters.along(s.logits, ch.product if product is None else product, ch, frequencies)


def restricted(s: Subject, frequencies: Iterable[int]) -> np.ndarray:
    """[n C]: the logits with these frequencies alone, which are the same for all pairs with one result."""
    rows = s.characters.rows(frequencies)
    return rows.T @ (rows @ s.spoken) + s.spoken.mean(axis=0)


def restricted_to(s: Subject, frequencies: Iterable[int], among: np.ndarray) -> float:
    """Over the pairs in `among` that have an answer; softmax and logarithm for each result, not for each pair."""
    z = restricted(s, frequencies)
    z = z - z.max(axis=-1, keepdims=True)
    surprise = np.log(np.exp(z).sum(axis=-1, keepdims=True)) - z
    chosen = among & (s.right >= 0)
    return float(np.mean(surprise[s.characters.product[chosen], s.right[chosen]]))


def excluding(s: Subject, sets: Sequence[Iterable[int]], among: np.ndarray) -> list[float]:
    """Without each of these sets of frequencies in turn, over the pairs in `among` that have an answer.

    One exponential for each logit serves all sets: with Q = Σ_k P_k L, a function of the result r = a∘b,
    Σ_c exp(L_c − Q_rc) = exp(max L − min Q_r) Σ_c exp(L_c − max L) exp(min Q_r − Q_rc), a product of matrices for
    each r. Where the sum is so small that it may have lost digits, it is taken again, term by term.
    """
    chosen = np.nonzero(among & (s.right >= 0))
    order = np.argsort(s.characters.product[chosen], kind="stable")
    x, y = (side[order] for side in chosen)
    results, right, L = s.characters.product[x, y], s.right[x, y], s.logits[x, y]
    rows = [s.characters.rows(frequencies) for frequencies in sets]
    Q = np.stack([wave.T @ (wave @ s.spoken) for wave in rows])  # [set n C]
    top, low = L.max(axis=-1), Q.min(axis=-1)  # [pair], [set n]
    grown, factor = np.exp(L - top[:, None]), np.exp(low[..., None] - Q)
    sums = np.empty((len(L), len(rows)))
    edges = np.searchsorted(results, np.arange(len(s.spoken) + 1))
    for r, (begin, end) in enumerate(itertools.pairwise(edges)):
        sums[begin:end] = grown[begin:end] @ factor[:, r].T
    faint, small = sums < FAINT, np.where(sums < FAINT, 1.0, sums)
    lse = np.log(small) + top[:, None] - low[:, results].T
    for i, j in np.argwhere(faint):
        z = L[i] - Q[j, results[i]]
        lse[i, j] = z.max() + np.log(np.exp(z - z.max()).sum())
    said = L[np.arange(len(L)), right][:, None] - Q[:, results, right].T
    return [float(loss) for loss in np.mean(lse - said, axis=0)]


def restricted_loss(s: Subject) -> float:
    return restricted_to(s, s.key_frequencies, s.right >= 0)


def restricted_loss_by_split(s: Subject) -> dict[str, float]:
    splits = {"all": s.right >= 0, "train": s.train, "test": s.test}
    return {name: restricted_to(s, s.key_frequencies, among) for name, among in splits.items()}


def excluded_loss(s: Subject) -> float:
    return excluding(s, [s.key_frequencies], s.train)[0]


def excluded_loss_by_split(s: Subject) -> dict[str, float]:
    splits = {"all": s.right >= 0, "train": s.train, "test": s.test}
    return {name: excluding(s, [s.key_frequencies], among)[0] for name, among in splits.items()}


def restricted_by_frequency(s: Subject) -> dict[int, float]:
    return {k: restricted_to(s, [k], s.right >= 0) for k in s.key_frequencies}


def excluded_by_frequency(s: Subject) -> dict[int, float]:
    if not s.key_frequencies:
        return {}
    found = excluding(s, [[k] for k in s.key_frequencies], s.train)
    return dict(zip(s.key_frequencies, found, strict=True))


def excluded_quotient_loss(s: Subject) -> float:
    return cross_entropy(removed(s, s.key_frequencies, s.characters.quotient), s.right, s.train)


def cosine_coefficients(s: Subject) -> dict[int, float]:
    ch = s.characters
    spoken = centred(s.spoken)[:, ch.c]  # [s c]: ⟨F_j(a∘b) …⟩ is n times its product
    n, found = len(spoken), {}
    for k in ch.frequencies:
        rows = ch.rows([k])
        found[k] = float(np.sqrt(n / len(rows)) * np.sum((rows @ spoken) * rows))
    return found


def cosine_variance_explained(s: Subject) -> float:
    alpha = cosine_coefficients(s)
    return float(sum(alpha[k] ** 2 for k in s.key_frequencies) / s.energy) if s.energy > 0 else 0.0


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
