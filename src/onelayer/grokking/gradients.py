"""Gradients: whether examples pull together, how large the pull is beside its noise, and what it asks of the operands.

Shapes    g_A, g_B [weights] of the two halves of the training set, split at random; g_i of one of m random batches
          E_a, E_b: what the embedding says at the two operands of one example

Alignment      cos(g_A, g_B)                    Train–test  cos(g_train, g_test)
Signal/noise   ‖mean_i g_i‖ / √(Σ var_i g_i), over m = 16 batches of up to 256
Symmetricity   the mean over 200 random triples (a, b, c) of cos(∂L_abc/∂E_a, ∂L_abc/∂E_b), L_abc the logit of c
               (an untrained network with even attention has 1: read it beside its control)
Distance       M[x, d] = the right answer's logit at the pair (x, y) of places whose
irrelevance    quotient of the two is d (for addition their difference). q = mean over d of std over x of M / std of M
               (all over the pairs that have an answer): 0 where the logit hangs on the distance alone

Source    Zhong et al. 2023, arXiv:2306.17844, section 4: symmetricity 99.37 % (pizza) and 33.36 % (clock),
          irrelevance .17 and .85.
          Alignment and noise: Fort et al. 2019, arXiv:1901.09491; McCandlish et al. 2018, arXiv:1812.06162.
"""

import numpy as np

from ..arrays import generator
from ..models import decoder_only
from .subject import Subject, part
from .weights import cosine

TRIPLES, BATCHES, BATCH = 200, 16, 256


def gradient_alignment(s: Subject) -> float:
    order = generator(s.seed, "halves").permutation(len(s.task.train.tokens))
    half = len(order) // 2
    first, second = (s.gradient(part(s.task.train, rows))[1] for rows in (order[:half], order[half:]))
    return cosine(first, second)


def train_test_cosine(s: Subject) -> float:
    return cosine(s.train_gradient, s.gradient(s.task.test)[1])


def gradient_signal_to_noise(s: Subject) -> float:
    draw, n = generator(s.seed, "signal to noise"), len(s.task.train.tokens)
    found = [s.gradient(part(s.task.train, draw.integers(0, n, min(BATCH, n))))[1] for _ in range(BATCHES)]
    noise = np.sqrt(np.sum(np.var(found, axis=0, ddof=1)))
    return float(np.linalg.norm(np.mean(found, axis=0)) / noise) if noise > 0 else 0.0


def triples(s: Subject) -> np.ndarray:
    """[TRIPLES, 3]: numbers a, b and an answer c, at random."""
    draw, (a, b) = generator(s.seed, "triples"), s.numbers
    x, y, c = (draw.integers(0, n, TRIPLES) for n in (len(a), len(b), len(s.task.vocabulary) - 1))
    return np.stack([a[x], b[y], c], axis=1)


def gradient_symmetricity(s: Subject) -> float:
    chosen, cfg = triples(s), s.objective.model
    tokens = chosen.copy()
    tokens[:, 2] = len(s.task.vocabulary) - 1
    logits, cache = decoder_only.forward(s.params, tokens, cfg, read=1)
    one = np.zeros_like(logits)
    one[np.arange(len(one)), 0, chosen[:, 2]] = 1.0
    found: dict[str, np.ndarray] = {}

    def keep(name: str, value: np.ndarray) -> np.ndarray:
        found[name] = value
        return value

    decoder_only.backward(one, cache, cfg, tap=keep)
    return float(np.mean([cosine(d[0], d[1]) for d in found["hook_embed"]]))


def right_logits(s: Subject) -> np.ndarray:
    """M [x, d]."""
    quotient = s.characters.quotient
    x = np.arange(len(quotient))[:, None]
    y = np.argsort(quotient, axis=1)
    return s.logits[x, y, s.right[x, y]]


def distance_irrelevance(s: Subject) -> float:
    m = right_logits(s)
    spread = m.std()
    return float(np.mean(m.std(axis=0)) / spread) if spread > 0 else 0.0
