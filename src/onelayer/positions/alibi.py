"""ALiBi, attention with linear biases: the further away a key stands, the lower its score; each head at its own rate.

Shapes    ids t [T] or [B T], s [S] or [B S]     bias [H T S] or [B H T S]

Forward   b[h, t, s] = −m_h |t − s|      m_h = 2^(−8 (h+1)/H), h = 0..H−1      added after the division by √K
          With one head m is 1/256, which is next to no position at all on short sequences.

Backward  nothing is learnt, and the bias looks at nothing: nothing flows back.

Constants none.
Source    Press, Smith & Lewis 2021, arXiv:2108.12409 (the paper's t − s ≥ 0; |t − s| where a query may look ahead).
          Every step: docs/derivations/positions.md
"""

from typing import Any

import numpy as np

from ..arrays import Array, array_namespace, constant
from . import as_float, offset

CROSSES = False
PAIRWISE = True
RELATIVE = True
EXTRAPOLATES = "yes"
COST = "H T S"


def init(rng: Any, size: Any) -> None:
    return None


def slopes(n_heads: int) -> np.ndarray:
    """m [H]."""
    return 2.0 ** (-8 * (np.arange(n_heads) + 1) / n_heads)


def bias(p: None, q: Array, k: Array, x_q: Array, x_k: Array, places: Any) -> tuple[Array, None]:
    distance = array_namespace(q).abs(as_float(offset(places), q))[..., None, :, :]
    return constant(-slopes(q.shape[2]), q)[:, None, None] * distance, None


def bias_backward(dbias: Array, c: None) -> tuple[None, None]:
    return None, None
