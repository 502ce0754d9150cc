"""Kernels of layers/activations.py: a function and its slope in one pass.

gelu      Φ(x) = 1 − ½ e^(−u²) W(u) for x ≥ 0 and ½ e^(−u²) W(u) below, u = |x|/√2, W(u) = e^(u²) erfc(u).
          e^(−u²) = e^(−x²/2) is what the density φ needs as well. W falls smoothly from 1 to 0: a Chebyshev series in
          (u − k)/(u + k), which maps [0, ∞) onto [−1, 1). It is fitted below, when the file is first imported.

Source    Shepherd & Laframboise 1981, Math. Comp. 36 (the map). The others' formulas stand in the layer file.
"""

import math
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from ..layers import activations
from .compile import compiled, exp, fits, spread

_K = 3.0


def _scaled_erfc(u: float) -> float:
    if u < 8:
        return math.exp(u * u) * math.erfc(u)
    terms, term = 0.0, 1.0
    for n in range(1, 12):
        terms, term = terms + term, -term * (2 * n - 1) / (2 * u * u)
    return terms / (u * math.sqrt(math.pi))


def _series(terms: int) -> tuple[float, ...]:
    def w(y: np.ndarray) -> np.ndarray:
        return np.array([_scaled_erfc(_K * (1 + float(v)) / (1 - float(v))) for v in y])

    fit: Any = chebyshev.chebinterpolate  # the type stubs know functions of one number only
    return tuple(fit(w, terms - 1).tolist())


_W64 = _series(30)
_W32 = tuple(np.float32(c) for c in _series(13))


@compiled
def _relu(start, stop, part, x, y, slope):
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for i in range(start, stop):
        steep = one if x[i] > 0 else zero
        slope[i] = steep
        y[i] = x[i] * steep


def _gelu_kernel(series: tuple[Any, ...]) -> Any:
    number = type(series[0])
    half, two, root, k = number(0.5), number(2), number(1 / math.sqrt(2)), number(_K)
    density, one = number(1 / math.sqrt(2 * math.pi)), number(1)

    @compiled
    def kernel(start, stop, part, x, y, slope):
        for i in range(start, stop):
            a = x[i]
            u = abs(a) * root
            bell = exp(-half * a * a)
            w = (u - k) / (u + k)
            b1, b2 = series[-1], number(0)
            for n in range(len(series) - 2, 0, -1):
                b1, b2 = two * w * b1 - b2 + series[n], b1
            tail = half * bell * (w * b1 - b2 + series[0])
            below = one - tail if a > 0 else tail
            y[i] = a * below
            slope[i] = below + a * bell * density

    return kernel


_gelu32, _gelu64 = _gelu_kernel(_W32), _gelu_kernel(_W64)


@compiled
def _gelu_tanh(start, stop, part, x, y, slope):
    number = x.dtype.type
    c, a = number(math.sqrt(2 / math.pi)), number(0.044715)
    for i in range(start, stop):
        square = x[i] * x[i]
        half = 1 / (1 + exp(-2 * c * x[i] * (1 + a * square)))  # (1 + tanh u)/2
        y[i] = x[i] * half
        slope[i] = half + 2 * c * x[i] * half * (1 - half) * (1 + 3 * a * square)


@compiled
def _silu(start, stop, part, x, y, slope):
    for i in range(start, stop):
        sigmoid = 1 / (1 + exp(-x[i]))
        y[i] = x[i] * sigmoid
        slope[i] = sigmoid * (1 + x[i] * (1 - sigmoid))


@compiled
def _times(start, stop, part, a, b, product):
    for i in range(start, stop):
        product[i] = a[i] * b[i]


def forward(definition: Any, x: Any, kind: str) -> Any:
    if not fits(x) or kind not in ("relu", "gelu", "gelu_tanh", "silu"):
        return definition(x, kind)
    gelu = _gelu32 if x.dtype == np.float32 else _gelu64
    kernel = {"relu": _relu, "gelu": gelu, "gelu_tanh": _gelu_tanh, "silu": _silu}[kind]
    y, slope = np.empty_like(x), np.empty_like(x)
    spread(kernel, x.size, x.size, x.reshape(-1), y.reshape(-1), slope.reshape(-1))
    return y, activations.Cache(slope)


def backward(definition: Any, dy: Any, c: Any) -> Any:
    if not fits(dy, c.slope):
        return definition(dy, c)
    dx = np.empty_like(dy)
    spread(_times, dy.size, dy.size, dy.reshape(-1), c.slope.reshape(-1), dx.reshape(-1))
    return dx


KERNELS = {"layers.activations.forward": forward, "layers.activations.backward": backward}
