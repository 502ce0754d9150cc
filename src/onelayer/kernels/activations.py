"""Kernels of layers/activations.py: function and slope in one pass over rows, one of them where they lie.

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

from ..arrays import aligned
from ..layers import activations
from .compile import compiled, fits, horner, lent, spread, strided
from .lanes import choose, exp, fill, lanes, load, store

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
    return (lambda place: _W32(place)) if place.dtype == types.float32 else (lambda place: _W64(place))


@lent
def _relu(x, y):
    zero = fill(x.dtype.type(0))
    for i in range(x.shape[0]):
        for j in range(0, x.shape[1], lanes(x)):
            v = load(x, i, j)
            store(x, i, j, choose(zero, v, v, v * zero))


@lent
def _gelu(x, y):
    number = x.dtype.type
    zero, half, root, k, one = fill(number(0)), number(0.5), number(math.sqrt(0.5)), number(_K), number(1)
    density = number(1 / math.sqrt(2 * math.pi))
    for i in range(x.shape[0]):
        for j in range(0, x.shape[1], lanes(x)):
            v = load(x, i, j)
            u = choose(zero, v, v, zero - v) * root
            bell = exp(v * v * -half)
            tail = bell * half * _scaled((u - k) / (u + k))
            below = choose(zero, v, one - tail, tail)
            store(y, i, j, v * below)
            store(x, i, j, below + v * bell * density)


@lent
def _gelu_tanh(x, y):
    number = x.dtype.type
    c, a, one = number(2 * math.sqrt(2 / math.pi)), number(0.044715), number(1)
    a3 = number(3) * a
    for i in range(x.shape[0]):
        for j in range(0, x.shape[1], lanes(x)):
            v = load(x, i, j)
            square = v * v
            half = one / (exp(v * -c * (square * a + one)) + one)  # (1 + tanh u)/2
            store(y, i, j, v * half)
            store(x, i, j, half + v * c * half * (one - half) * (square * a3 + one))


@lent
def _silu(x, y):
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        for j in range(0, x.shape[1], lanes(x)):
            v = load(x, i, j)
            sigmoid = one / (exp(fill(x.dtype.type(0)) - v) + one)
            store(y, i, j, v * sigmoid)
            store(x, i, j, sigmoid * (v * (one - sigmoid) + one))


IN_PLACE = ("relu", "gelu", "gelu_tanh", "silu")


@lent
def act(x, y, kind):
    """f of the rows x, of whole lanes, into y, and the slope over x; kind: the function's place in IN_PLACE.
    ReLU's f stands where x was, and its slope is not written: it is 1 where f > 0, else 0."""
    if kind == 0:
        _relu(x, y)
    elif kind == 1:
        _gelu(x, y)
    elif kind == 2:
        _gelu_tanh(x, y)
    else:
        _silu(x, y)


@strided(2, 2, types.int64, 1)
def _act(first, part, x, y, kind, _):
    act(x, y, kind)


@compiled
def _times(first, part, a, b, product):
    for i in range(a.size):
        product[i] = a[i] * b[i]


def forward(definition: Any, x: Any, kind: str) -> Any:
    if kind not in IN_PLACE or not fits(x) or x.ndim == 0 or x.size == 0:
        return definition(x, kind)
    width = lanes(x)
    slope = aligned((-(-x.size // width), width), x.dtype)
    slope[-1] = 0
    slope.reshape(-1)[: x.size] = x.reshape(-1)
    y = slope if kind == "relu" else aligned(slope.shape, x.dtype)
    spread(_act, x.size, (slope, y), (IN_PLACE.index(kind), y[0]))
    y, slope = (a.reshape(-1)[: x.size].reshape(x.shape) for a in (y, slope))
    return y, activations.Cache((y > 0).astype(x.dtype) if kind == "relu" else slope)


def backward(definition: Any, dy: Any, c: Any) -> Any:
    if not fits(dy, c.slope):
        return definition(dy, c)
    dx = np.empty_like(dy)
    spread(_times, dy.size, (dy.reshape(-1), c.slope.reshape(-1), dx.reshape(-1)))
    return dx


KERNELS = {"layers.activations.forward": forward, "layers.activations.backward": backward}
