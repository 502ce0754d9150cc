"""Kernels of layers/layer_norm.py and rms_norm.py: the means and what is made of them, a row at a time."""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import aligned, keep
from ..layers import layer_norm, rms_norm
from .compile import fits, lent, parts, spread, strided
from .lanes import dense

BLOCK = 64  # rows, summed before they are normed


@lent
def layer_rows(x, x_hat, rstd, y, gain, bias, eps):
    D, number = x.shape[1], x.dtype.type
    one, share, gain, bias = number(1), number(1 / D), dense(gain), dense(bias)
    for i in range(x.shape[0]):
        row, hat, out = dense(x[i]), dense(x_hat[i]), dense(y[i])
        mean = row.dtype.type(0)
        for j in range(D):
            mean += row[j]
        mean *= share
        square = row.dtype.type(0)
        for j in range(D):
            square += (row[j] - mean) * (row[j] - mean)
        r = one / np.sqrt(square * share + eps)
        rstd[i] = r
        for j in range(D):
            hat[j] = r * (row[j] - mean)
        for j in range(D):
            out[j] = gain[j] * hat[j] + bias[j]


@lent
def layer_rows_backward(dy, x_hat, rstd, dx, gain, dgain, dbias):
    D = dy.shape[1]
    share = dy.dtype.type(1 / D)
    gain, own_gain, own_bias = dense(gain), dense(dgain), dense(dbias)
    for i in range(dy.shape[0]):
        asked, hat, out = dense(dy[i]), dense(x_hat[i]), dense(dx[i])
        mean = asked.dtype.type(0)
        along = asked.dtype.type(0)
        for j in range(D):
            d = gain[j] * asked[j]
            mean += d
            along += d * hat[j]
        mean *= share
        along *= share
        for j in range(D):
            own_gain[j] += asked[j] * hat[j]
            own_bias[j] += asked[j]
        for j in range(D):
            out[j] = rstd[i] * (gain[j] * asked[j] - mean - hat[j] * along)


@lent
def rms_rows(x, x_hat, rms_inverse, y, gain, eps):
    D, number = x.shape[1], x.dtype.type
    one, share, gain = number(1), number(1 / D), dense(gain)
    for i in range(x.shape[0]):
        row, hat, out = dense(x[i]), dense(x_hat[i]), dense(y[i])
        square = number(0)
        for j in range(D):
            square += row[j] * row[j]
        r = one / np.sqrt(square * share + eps)
        rms_inverse[i] = r
        for j in range(D):
            hat[j] = r * row[j]
        for j in range(D):
            out[j] = gain[j] * hat[j]


@lent
def rms_rows_backward(dy, x_hat, rms_inverse, dx, gain, dgain):
    D = dy.shape[1]
    share, gain, own_gain = dy.dtype.type(1 / D), dense(gain), dense(dgain)
    for i in range(dy.shape[0]):
        asked, hat, out = dense(dy[i]), dense(x_hat[i]), dense(dx[i])
        along = dy.dtype.type(0)
        for j in range(D):
            along += gain[j] * asked[j] * hat[j]
        along *= share
        for j in range(D):
            own_gain[j] += asked[j] * hat[j]
        for j in range(D):
            out[j] = rms_inverse[i] * (gain[j] * asked[j] - hat[j] * along)


# ------------------------------------------------------------------------------------------ as a part of other kernels

LAYER, RMS = 1, 2


class Norm(NamedTuple):
    kind: int = 0  # 0: there is none
    gain: Any = None
    bias: Any = None
    eps: float = 0.0

    def of(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gain and bias, zeros where there is none."""
        none = np.zeros(x.shape[-1], x.dtype)
        return none if self.gain is None else self.gain, none if self.bias is None else self.bias


NONE = Norm()


def norm_of(p: Any, eps: float) -> Norm:
    """By its parameters; None: there is none."""
    if p is None:
        return NONE
    return Norm(LAYER, p.gain, p.bias, eps) if isinstance(p, layer_norm.Params) else Norm(RMS, p.gain, None, eps)


def norm_gradient(norm: Norm, dgain: Any, dbias: Any) -> Any:
    """Of its parameters."""
    return None if norm.kind == 0 else layer_norm.Params(dgain, dbias) if norm.kind == LAYER else rms_norm.Params(dgain)


@lent
def normed(x, x_hat, rstd, y, norm, gain, bias, eps):
    if norm == LAYER:
        layer_rows(x, x_hat, rstd, y, gain, bias, eps)
    else:
        rms_rows(x, x_hat, rstd, y, gain, eps)


@lent
def normed_backward(dy, x_hat, rstd, dx, norm, gain, dgain, dbias):
    if norm == LAYER:
        layer_rows_backward(dy, x_hat, rstd, dx, gain, dgain, dbias)
    else:
        rms_rows_backward(dy, x_hat, rstd, dx, gain, dgain)


@lent
def scaled(x_hat, y, gain, bias):
    """What a norm gave."""
    gain, bias = dense(gain), dense(bias)
    for i in range(y.shape[0]):
        hat, row = dense(x_hat[i]), dense(y[i])
        for j in range(row.size):
            row[j] = gain[j] * hat[j] + bias[j]


# ------------------------------------------------------------------------------------------ on their own


@strided(2, 2, 1, 2, 0, 1, 1)
def _layer_forward(first, part, x, x_hat, rstd, y, eps, gain, bias):
    layer_rows(x, x_hat, rstd, y, gain, bias, eps)


@strided(2, 2, 2, 1, 2, 0, 3, 1, 1)
def _layer_of_sum(first, part, x, more, x_hat, rstd, y, eps, rooms, gain, bias):
    for i in range(0, len(x), BLOCK):
        end = min(i + BLOCK, len(x))
        total = rooms[part, : end - i]
        for n in range(end - i):
            row, other, both = dense(x[i + n]), dense(more[i + n]), dense(total[n])
            for j in range(row.size):
                both[j] = row[j] + other[j]
        layer_rows(total, x_hat[i:end], rstd[i:end], y[i:end], gain, bias, eps)


@strided(2, 2, 1, 2, 1, 2, 2)
def _layer_backward(first, part, dy, x_hat, rstd, dx, gain, dgain, dbias):
    layer_rows_backward(dy, x_hat, rstd, dx, gain, dgain[part], dbias[part])


@strided(2, 2, 1, 2, 0, 1)
def _rms_forward(first, part, x, x_hat, rms_inverse, y, eps, gain):
    rms_rows(x, x_hat, rms_inverse, y, gain, eps)


@strided(2, 2, 1, 2, 1, 2)
def _rms_backward(first, part, dy, x_hat, rms_inverse, dx, gain, dgain):
    rms_rows_backward(dy, x_hat, rms_inverse, dx, gain, dgain[part])


def _rows(x: Any) -> Any:
    return x.reshape(-1, x.shape[-1])


def layer_forward(definition: Any, p: Any, x: Any, eps: float = 1e-5) -> Any:
    if not fits(x, p.gain, p.bias) or x.size == 0:
        return definition(p, x, eps)
    x_hat, y, rstd = aligned(x.shape, x.dtype), aligned(x.shape, x.dtype), np.empty((*x.shape[:-1], 1), x.dtype)
    rows = _rows(x), _rows(x_hat), rstd.reshape(-1), _rows(y)
    spread(_layer_forward, x.size, rows, (x.dtype.type(eps), p.gain, p.bias))
    return y, layer_norm.Cache(p.gain, x_hat, rstd)


def of_sum(definition: Any, p: Any, x: Any, more: Any, eps: float, tap: Any = keep) -> Any:
    taken = tap is keep and isinstance(p, layer_norm.Params) and x.shape == more.shape
    if not taken or not fits(x, more, p.gain, p.bias) or x.size == 0:
        return definition(p, x, more, eps, tap)
    x_hat, y, rstd = (aligned(shape, x.dtype) for shape in (x.shape, x.shape, (*x.shape[:-1], 1)))
    rows, rooms = (_rows(x), _rows(more), _rows(x_hat), rstd.reshape(-1), _rows(y)), (parts(x.size), BLOCK, x.shape[-1])
    spread(_layer_of_sum, x.size, rows, (x.dtype.type(eps), aligned(rooms, x.dtype), p.gain, p.bias))
    return y, layer_norm.Cache(p.gain, x_hat, rstd)


def layer_backward(definition: Any, dy: Any, c: Any) -> Any:
    if not fits(dy, *c) or dy.size == 0:
        return definition(dy, c)
    dx, sums = aligned(dy.shape, dy.dtype), np.zeros((2, parts(dy.size), dy.shape[-1]), dy.dtype)
    rows = _rows(dy), _rows(c.x_hat), c.rstd.reshape(-1), _rows(dx)
    spread(_layer_backward, dy.size, rows, (c.gain, *sums))
    return dx, layer_norm.Params(*sums.sum(axis=1))


def rms_forward(definition: Any, p: Any, x: Any, eps: float = 1e-5) -> Any:
    if not fits(x, p.gain) or x.size == 0:
        return definition(p, x, eps)
    x_hat, y, rms_inverse = aligned(x.shape, x.dtype), aligned(x.shape, x.dtype), np.empty((*x.shape[:-1], 1), x.dtype)
    rows = _rows(x), _rows(x_hat), rms_inverse.reshape(-1), _rows(y)
    spread(_rms_forward, x.size, rows, (x.dtype.type(eps), p.gain))
    return y, rms_norm.Cache(p.gain, x_hat, rms_inverse)


def rms_backward(definition: Any, dy: Any, c: Any) -> Any:
    if not fits(dy, *c) or dy.size == 0:
        return definition(dy, c)
    dx, sums = aligned(dy.shape, dy.dtype), np.zeros((parts(dy.size), dy.shape[-1]), dy.dtype)
    rows = _rows(dy), _rows(c.x_hat), c.rms_inverse.reshape(-1), _rows(dx)
    spread(_rms_backward, dy.size, rows, (c.gain, sums))
    return dx, rms_norm.Params(sums.sum(axis=0))


KERNELS = {
    "sublayers.normalise.of_sum": of_sum,
    "layers.layer_norm.forward": layer_forward,
    "layers.layer_norm.backward": layer_backward,
    "layers.rms_norm.forward": rms_forward,
    "layers.rms_norm.backward": rms_backward,
}
