"""KERPLE, logarithmic: scores fall with the logarithm of the distance; each head learns how much and from where.

Shapes    ids t [T] or [B T], s [S] or [B S]     raw_a raw_b [H]     bias [H T S] or [B H T S]

Forward   b[h, t, s] = −a_h ln(1 + b_h |t − s|)      a = softplus(raw_a), b = softplus(raw_b): always positive
          The kernel is conditionally positive definite, which is what makes the bias an inner product up to a constant.

Backward  ∂a is ∂loss/∂a; Σ runs over all pairs (and examples); l = ln(1 + b r), r = |t − s|
          ∂a = −Σ ∂b l      ∂b = −a Σ ∂b r/(1 + b r)      ∂raw = σ(raw) times either

Constants none. Starts: a ~ U(0, 2), b ~ U(0, 1), as in the authors' code, which clamps both at 0.01 from below where
          this one takes softplus.
Source    Chi et al. 2022, arXiv:2205.09921; github.com/chijames/KERPLE. Every step: docs/derivations/positions.md
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, sigmoid, softplus, sum_to
from . import as_float, offset

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "yes"
PAIRWISE = True
COST = "H T S"


class Params(NamedTuple):
    raw_a: Array  # [H]
    raw_b: Array  # [H]


class Cache(NamedTuple):
    p: Params
    r: Array  # [*, 1, T, S]
    log: Array  # [*, H, T, S]


def init(rng: np.random.Generator, size: Any) -> Params:
    def raw(positive: np.ndarray) -> np.ndarray:
        return np.log(np.expm1(positive))  # softplus⁻¹

    H = size.n_heads
    return Params(raw_a=raw(rng.uniform(0.01, 2, H)), raw_b=raw(rng.uniform(0.01, 1, H)))


def bias(p: Params, q: Array, k: Array, x_q: Array, x_k: Array, places: Any) -> tuple[Array, Cache]:
    xp = array_namespace(q)
    r = xp.abs(as_float(offset(places), q))[..., None, :, :]
    log = xp.log1p(softplus(p.raw_b)[:, None, None] * r)
    return -softplus(p.raw_a)[:, None, None] * log, Cache(p, r, log)


def bias_backward(dbias: Array, c: Cache) -> tuple[None, Params]:
    a, b = softplus(c.p.raw_a), softplus(c.p.raw_b)
    H = a.shape[0]
    dbias = sum_to(dbias, c.log.shape)
    da = -sum_to(dbias * c.log, (H, 1, 1))[:, 0, 0]
    db = -a * sum_to(dbias * c.r / (1 + b[:, None, None] * c.r), (H, 1, 1))[:, 0, 0]
    return None, Params(raw_a=da * sigmoid(c.p.raw_a), raw_b=db * sigmoid(c.p.raw_b))
