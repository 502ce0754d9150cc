"""Kernels of layers/activations.py: bias, function and slope in one pass over rows, one written where they lie.

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


_W32, _W64 = horner(_series(11), np.float32), horner(_series(30), np.float64)


@overload(_scaled)
def _(place):
    return (lambda place: _W32(place)) if place == types.float32 else (lambda place: _W64(place))


@compiled
def _relu(first, part, x, bias):
    zero = x.dtype.type(0)
    for i in range(x.shape[0]):
        row = x[i]
        for j in range(row.size):
            v = row[j] + bias[j]
            row[j] = v if v > 0 else v * zero


@compiled
def _gelu(first, part, x, y, bias):
    number = x.dtype.type
    half, root, k, one = number(0.5), number(math.sqrt(0.5)), number(_K), number(1)
    density = number(1 / math.sqrt(2 * math.pi))
    for i in range(x.shape[0]):
        row, out = x[i], y[i]
        for j in range(row.size):
            v = row[j] + bias[j]
            u = abs(v) * root
            bell = exp(-half * v * v)
            tail = half * bell * _scaled((u - k) / (u + k))
            below = one - tail if v > 0 else tail
            out[j] = v * below
            row[j] = below + v * bell * density


@compiled
def _gelu_tanh(first, part, x, y, bias):
    number = x.dtype.type
    c, a, one = number(2 * math.sqrt(2 / math.pi)), number(0.044715), number(1)
    a3 = number(3) * a
    for i in range(x.shape[0]):
        row, out = x[i], y[i]
        for j in range(row.size):
            v = row[j] + bias[j]
            square = v * v
            half = one / (one + exp(-c * v * (one + a * square)))  # (1 + tanh u)/2
            out[j] = v * half
            row[j] = half + c * v * half * (one - half) * (one + a3 * square)


@compiled
def _silu(first, part, x, y, bias):
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        row, out = x[i], y[i]
        for j in range(row.size):
            v = row[j] + bias[j]
            sigmoid = one / (one + exp(-v))
            out[j] = v * sigmoid
            row[j] = sigmoid * (one + v * (one - sigmoid))


_WITH_SLOPE = {"gelu": _gelu, "gelu_tanh": _gelu_tanh, "silu": _silu}
IN_PLACE = ("relu", *_WITH_SLOPE)


def activate(x: Any, bias: Any, kind: str) -> tuple[Any, Any]:
    """f(x + bias) of the rows x, and the slope. One of the two is written over x: the caller must own it.

    ReLU's slope is not kept (None): it is 1 where f > 0, else 0.
    """
    bias = np.zeros(x.shape[1], x.dtype) if bias is None else bias
    if kind == "relu":
        spread(_relu, x.size, (x,), (bias,))
        return x, None
    y = np.empty_like(x)
    spread(_WITH_SLOPE[kind], x.size, (x, y), (bias,))
    return y, x


@compiled
def _times(first, part, a, b, product):
    for i in range(a.size):
        product[i] = a[i] * b[i]


def forward(definition: Any, x: Any, kind: str) -> Any:
    if kind not in IN_PLACE or not fits(x) or x.ndim == 0 or x.size == 0:
        return definition(x, kind)
    y, slope = activate(x.reshape(-1, x.shape[-1]).copy(), None, kind)
    slope = (y > 0).astype(x.dtype) if slope is None else slope
    return y.reshape(x.shape), activations.Cache(slope.reshape(x.shape))


def backward(definition: Any, dy: Any, c: Any) -> Any:
    if not fits(dy, c.slope):
        return definition(dy, c)
    dx = np.empty_like(dy)
    spread(_times, dy.size, (dy.reshape(-1), c.slope.reshape(-1), dx.reshape(-1)))
    return dx


KERNELS = {"layers.activations.forward": forward, "layers.activations.backward": backward}
