"""Sandwich: the bias is what two sinusoidal rows say to each other, a fixed, slowly falling function of the distance.

Shapes    ids t [T] or [B T], s [S] or [B S]     P [T width] or [B T width]     bias [H T S] or [B H T S]

Forward   b[h, t, s] = P[t] · P[s] / c_h = Σ_k cos((t − s) ω_k) / c_h      ω_k = base^(−2k/width)      c_h = 8 (h+1)/H
          The sum needs no [T S width]: it is a product of two tables, by cos(α − β) = cos α cos β + sin α sin β.

Backward  nothing is learnt, and the bias looks at nothing: nothing flows back.

Constants base 10,000; width 128, of the rows (not the model's); compress: whether c_h divides, as the paper's name for
          it, compression ratio, says (True), or multiplies (False). Both readings are met in secondary accounts.
Source    Chi et al. 2023, arXiv:2212.10356; c_h as we recall the paper's appendix, not checked against it.
          Every step: docs/derivations/positions.md
"""

from typing import Any

import numpy as np

from ..arrays import Array, array_namespace, constant, sin_cos
from ..errors import BadInput

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "yes"
PAIRWISE = True
COST = "width T S"


def init(rng: Any, size: Any, *, base: float = 10_000.0, width: int = 128, compress: bool = True) -> None:
    return None


def check(size: Any, *, base: float, width: int, compress: bool) -> None:
    if width < 2 or width % 2:
        raise BadInput(f"sandwich pairs the features of its rows, so width must be even and positive; received {width}")
    if not base > 1:
        raise BadInput(f"the base of sandwich must be greater than 1; received {base}")


def ratios(n_heads: int) -> np.ndarray:
    """c [H]."""
    return 8 * (np.arange(n_heads) + 1) / n_heads


def table(ids: Array, width: int, base: float, like: Array) -> Array:
    """P [*ids, width], sines then cosines."""
    xp = array_namespace(like)
    return xp.concat(sin_cos(ids, base ** (-2 * np.arange(width // 2) / width), like), axis=-1)


def bias(
    p: None, q: Array, k: Array, x_q: Array, x_k: Array, places: Any, *, base: float, width: int, compress: bool
) -> tuple[Array, None]:
    xp = array_namespace(q)
    agreement = table(places.q_ids, width, base, q) @ xp.matrix_transpose(table(places.k_ids, width, base, q))
    c = ratios(q.shape[2])
    return constant(1 / c if compress else c, q)[:, None, None] * agreement[..., None, :, :], None


def bias_backward(dbias: Array, c: None, *, base: float, width: int, compress: bool) -> tuple[None, None]:
    return None, None
