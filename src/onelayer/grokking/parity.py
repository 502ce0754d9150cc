"""Parity in Walsh functions: how much of what the network says is the one character that answers.

Shapes    inputs [m n] of bits: all 2ⁿ, or 4,096 at random where there are more than 2¹⁴     f [m] = logit of 1 − of 0

Basis     χ_S(x) = (−1)^(Σ of the bits of x in S); f^(S) = mean f χ_S. The answer is (1 − χ_S)/2, S the support.
Support   share of the variance of f on the support's character: f^(S)²/var f. (Of a sample of m inputs, a function that
          knows nothing has 1/m on average.)
Degree    shares of the variance by the number of bits in S, over all characters; where all inputs are seen
Restricted  cross-entropy over the inputs of f^(∅) + f^(S) χ_S alone, S the support
Excluded    cross-entropy over the training examples of f − f^(S) χ_S: near ln 2 or above where the answer is in χ_S

Source    Walsh functions: O'Donnell 2014, Analysis of Boolean functions, chapter 1. Restricted and excluded loss: Nanda
          et al. 2023, arXiv:2301.05217, whose cosines the characters of the bits are here.
"""

import numpy as np

from ..arrays import generator
from ..tasks import Batch
from ..training import objective as objectives
from .subject import Subject

WHOLE, SAMPLE = 14, 4096


def inputs(s: Subject) -> np.ndarray:
    """[m n]; all of them stand in the order of the numbers that they write, the first bit being the ones' place."""
    n = s.task.facts["n_bits"]
    if n <= WHOLE:
        return np.arange(2**n)[:, None] >> np.arange(n) & 1
    return generator(s.seed, "walsh").integers(0, 2, (SAMPLE, n))


def said(s: Subject, bits: np.ndarray) -> np.ndarray:
    """f at these inputs."""
    tokens = np.concatenate([bits, np.full((len(bits), 1), 2)], axis=1)
    logits = objectives.forward(s.params, Batch(tokens, np.zeros((len(bits), 1), dtype=np.int64)), s.objective)[0]
    return (logits[:, -1, 1] - logits[:, -1, 0]).astype(np.float64)


def character(s: Subject, bits: np.ndarray) -> np.ndarray:
    """χ_S of the support: 1 where the answer is 0, −1 where it is 1."""
    return 1.0 - 2.0 * (bits[:, s.task.facts["support"]].sum(axis=1) % 2)


def walsh_support_share(s: Subject) -> float:
    bits = inputs(s)
    f = said(s, bits)
    varying = f - f.mean()
    energy = float(np.mean(varying**2))
    return float(np.mean(varying * character(s, bits)) ** 2) / energy if energy > 0 else 0.0


def transform(f: np.ndarray) -> np.ndarray:
    """f^(S) for all S, by the number that S writes: the fast Walsh–Hadamard transform, over 2ⁿ."""
    n = len(f).bit_length() - 1
    table = f.reshape((2,) * n)
    for axis in range(n):
        low, high = np.take(table, 0, axis), np.take(table, 1, axis)
        table = np.stack([low + high, low - high], axis)
    return table.ravel() / len(f)


def walsh_by_degree(s: Subject) -> dict[int, float]:
    energy = transform(said(s, inputs(s))) ** 2
    energy[0] = 0
    degree = np.bitwise_count(np.arange(len(energy)))
    total = energy.sum()
    shares = np.bincount(degree, weights=energy)
    return {int(d): float(share / total) if total > 0 else 0.0 for d, share in enumerate(shares) if d}


def _coefficient(s: Subject) -> tuple[float, float]:
    """(f^(∅), f^(support))"""
    bits = inputs(s)
    f = said(s, bits)
    return float(f.mean()), float(np.mean(f * character(s, bits)))


def _loss(f: np.ndarray, sign: np.ndarray) -> float:
    """Mean cross-entropy, the answer being 1 where the sign is −1."""
    return float(np.mean(np.logaddexp(0.0, sign * f)))


def parity_restricted_loss(s: Subject) -> float:
    constant, spoken = _coefficient(s)
    chi = character(s, inputs(s))
    return _loss(constant + spoken * chi, chi)


def parity_excluded_loss(s: Subject) -> float:
    bits = s.task.train.tokens[:, :-1]
    chi = character(s, bits)
    return _loss(said(s, bits) - _coefficient(s)[1] * chi, chi)
