"""Random directions with a sinusoid's length: what of the sinusoids' effect is only how loud they are?

Shapes    x [B T D]     ids t [T] or [B T], each below rows     P [rows D]

Forward   x′ = x + P[t]      P[t] = √(D/2) g/‖g‖,  g ~ N(0, 1)^D, drawn once from the seed, row after row
          Every row of a sinusoidal table has length √(D/2), since each pair gives sin² + cos² = 1; so has each here.

Backward  ∂a is ∂loss/∂a
          ∂x = ∂x′      P is constant, and no parameter.

Constants rows; seed.
Source    A control of ours. Every step: docs/derivations/positions.md
"""

from functools import cache
from typing import Any

import numpy as np

from ..arrays import Array, array_namespace, constant, gather_rows, generator
from ..errors import BadInput

CONTROL = True
COST = "B T D"


def init(rng: Any, size: Any, *, rows: int = 2048, seed: int = 0) -> None:
    return None


def check(size: Any, *, rows: int, seed: int) -> None:
    if size.n_ctx > rows:
        raise BadInput(f"amplitude_matched has {rows} rows, but n_ctx is {size.n_ctx}; set rows to at least that")


@cache
def table(rows: int, d_model: int, seed: int) -> np.ndarray:
    """P [rows, D]; a longer table begins with the shorter one."""
    g = generator(seed, "amplitude_matched", d_model).standard_normal((rows, d_model))
    return np.sqrt(d_model / 2) * g / np.sqrt(np.sum(g * g, axis=-1, keepdims=True))


def encode_x(p: None, x: Array, ids: Array, *, rows: int, seed: int) -> tuple[Array, None]:
    if isinstance(ids, np.ndarray) and ids.size and ids.max() >= rows:
        raise BadInput(f"amplitude_matched has {rows} rows, but position {ids.max()} was asked for; set rows higher")
    P = constant(table(rows, x.shape[-1], seed), x)
    return x + gather_rows(P, array_namespace(x).asarray(ids)), None


def encode_x_backward(dx: Array, c: None, *, rows: int, seed: int) -> tuple[Array, None]:
    return dx, None
