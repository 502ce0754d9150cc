"""Kernels of layers/activations.py: a function and its slope in one pass.

gelu      Φ(x) = 1 − ½ e^(−u²) W(u) for x ≥ 0 and ½ e^(−u²) W(u) below, u = |x|/√2, W(u) = e^(u²) erfc(u).
          e^(−u²) = e^(−x²/2) is what the density φ needs as well. W falls smoothly from 1 to 0: a polynomial in
          (u − k)/(u + k), which maps [0, ∞) onto [−1, 1). It is fitted below, when the file is first imported.

Source    Shepherd & Laframboise 1981, Math. Comp. 36 (the map). The others' formulas stand in the layer file.
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.polynomial import chebyshev

from ..layers import activations
from .compile import compiled, exp, fits, horner, spread

_K = 3.0


def _scaled_erfc(u: float) -> float:
    if u < 8:
        return math.exp(u * u) * math.erfc(u)
    terms, term = 0.0, 1.0
    for n in range(1, 12):
        terms, term = terms + term, -term * (2 * n - 1) / (2 * u * u)
    return terms / (u * math.sqrt(math.pi))


def _scaled(place: float) -> float:
    """W where (u − k)/(u + k) is `place`. Inside a kernel the polynomials below stand for it."""
    return _scaled_erfc(_K * (1 + place) / (1 - place))


def _series(terms: int) -> list[float]:
    def w(y: np.ndarray) -> np.ndarray:
        return np.array([_scaled(float(v)) for v in y])

    fit: Any = chebyshev.chebinterpolate  # the type stubs know functions of one number only
    return chebyshev.cheb2poly(fit(w, terms - 1)).tolist()


_W32, _W64 = horner(_series(13), np.float32), horner(_series(30), np.float64)


@overload(_scaled)
def _(place):
    return (lambda place: _W32(place)) if place == types.float32 else (lambda place: _W64(place))


@compiled
def _relu(first, part, x, y, slope):
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for i in range(x.size):
        steep = one if x[i] > 0 else zero
        slope[i] = steep
        y[i] = x[i] * steep


@compiled
def _gelu(first, part, x, y, slope):
    number = x.dtype.type
    half, root, k, one = number(0.5), number(math.sqrt(0.5)), number(_K), number(1)
    density = number(1 / math.sqrt(2 * math.pi))
    for i in range(x.size):
        u = abs(x[i]) * root
        bell = exp(-half * x[i] * x[i])
        tail = half * bell * _scaled((u - k) / (u + k))
        below = one - tail if x[i] > 0 else tail
        y[i] = x[i] * below
        slope[i] = below + x[i] * bell * density


@compiled
def _gelu_tanh(first, part, x, y, slope):
    number = x.dtype.type
    c, a = number(math.sqrt(2 / math.pi)), number(0.044715)
    for i in range(x.size):
        square = x[i] * x[i]
        half = 1 / (1 + exp(-2 * c * x[i] * (1 + a * square)))  # (1 + tanh u)/2
        y[i] = x[i] * half
        slope[i] = half + 2 * c * x[i] * half * (1 - half) * (1 + 3 * a * square)


@compiled
def _silu(first, part, x, y, slope):
    for i in range(x.size):
        sigmoid = 1 / (1 + exp(-x[i]))
        y[i] = x[i] * sigmoid
        slope[i] = sigmoid * (1 + x[i] * (1 - sigmoid))


@compiled
def _times(first, part, a, b, product):
    for i in range(a.size):
        product[i] = a[i] * b[i]


def forward(definition: Any, x: Any, kind: str) -> Any:
    if not fits(x) or kind not in ("relu", "gelu", "gelu_tanh", "silu"):
        return definition(x, kind)
    kernel = {"relu": _relu, "gelu": _gelu, "gelu_tanh": _gelu_tanh, "silu": _silu}[kind]
    y, slope = np.empty_like(x), np.empty_like(x)
    spread(kernel, x.size, (x.reshape(-1), y.reshape(-1), slope.reshape(-1)))
    return y, activations.Cache(slope)


def backward(definition: Any, dy: Any, c: Any) -> Any:
    if not fits(dy, c.slope):
        return definition(dy, c)
    dx = np.empty_like(dy)
    spread(_times, dy.size, (dy.reshape(-1), c.slope.reshape(-1), dx.reshape(-1)))
    return dx


KERNELS = {"layers.activations.forward": forward, "layers.activations.backward": backward}
