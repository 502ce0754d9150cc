"""Binary positions: each place as a binary number, one bit a feature; sines are this with the corners rounded.

Shapes    x [B T D]     ids t [T] or [B T], 0 ≤ t < 2^bits     P [T D] or [B T D]

Forward   x′ = x + P[t]      P[t, i] = amplitude × bit i of t, for i < bits; 0 beyond
          Bit 0 alternates at every step, bit 1 at every second, bit i at every 2^i-th: a wave of wavelength 2^(i+1), as
          a sinusoid's pair k has wavelength 2π base^(2k/D). So each place is unique, but neighbours may be far apart:
          7 and 8 differ in four bits.

Backward  ∂a is ∂loss/∂a
          ∂x = ∂x′      P is constant.

Constants bits (at most the width); amplitude.
Source    The usual way to motivate sinusoids, e.g. Kazemnejad 2019, Transformer Architecture: The Positional Encoding;
          the bits themselves: Leibniz 1703. Every step: docs/derivations/positions.md
"""

from typing import Any

import numpy as np

from ..arrays import Array, array_namespace
from ..errors import BadInput
from . import as_float

EXTRAPOLATES = "defined"
COST = "B T D"


def init(rng: Any, size: Any, *, bits: int = 16, amplitude: float = 1.0) -> None:
    return None


def check(size: Any, *, bits: int, amplitude: float) -> None:
    if not 1 <= bits <= 62:
        raise BadInput(f"binary positions have 1 to 62 bits; received {bits}")
    if size.n_ctx > 2 ** min(bits, size.d_model):
        raise BadInput(
            f"{min(bits, size.d_model)} bits (of {bits}, in a width of {size.d_model}) tell "
            f"{2 ** min(bits, size.d_model)} places apart, but n_ctx is {size.n_ctx}; use more bits or a wider model"
        )


def table(ids: Array, d_model: int, bits: int, amplitude: float, like: Array) -> Array:
    """P [*ids, D]."""
    bits = min(bits, d_model)
    if isinstance(ids, np.ndarray) and ids.size and ids.max() >= 2**bits:
        raise BadInput(f"{bits} bits write the places 0 to {2**bits - 1}; received {ids.max()}; use more bits")
    xp, ids_xp = array_namespace(like), array_namespace(ids)
    powers = ids_xp.asarray(2 ** np.arange(bits, dtype=np.int64), dtype=ids.dtype)
    written = amplitude * as_float((ids[..., None] // powers) % 2, like)
    zeros = xp.zeros((*ids.shape, d_model - bits), dtype=written.dtype)
    return xp.concat([written, zeros], axis=-1)


def encode_x(p: None, x: Array, ids: Array, *, bits: int, amplitude: float) -> tuple[Array, None]:
    return x + table(ids, x.shape[-1], bits, amplitude, like=x), None


def encode_x_backward(dx: Array, c: None, *, bits: int, amplitude: float) -> tuple[Array, None]:
    return dx, None
