"""Kernels of layers/linear.py and unembedding.py: the products of product.py, the bias where their sums begin."""

from typing import Any

import numpy as np

from ..layers import linear, unembedding
from .compile import fits
from .product import multiply, outer


def _lies(W: Any) -> Any:
    """W as it lies in memory: a tied one is turned."""
    return W.T if isinstance(W, np.ndarray) and not W.flags.c_contiguous else W


def _forward(definition: Any, p: Any, x: Any, made: Any) -> Any:
    W, b = p
    if not fits(x, _lies(W), b) or x.size == 0:
        return definition(p, x)
    y = multiply(x.reshape(-1, x.shape[-1]), W, b)
    return y.reshape(*x.shape[:-1], W.shape[1]), made(W, b, x)


def _backward(definition: Any, dy: Any, c: Any, made: Any) -> Any:
    W, b, x = c
    if not fits(dy, _lies(W), b, x) or dy.size == 0:
        return definition(dy, c)
    rows, dy_rows = (a.reshape(-1, a.shape[-1]) for a in (x, dy))
    dx = multiply(dy_rows, W.T).reshape(x.shape)
    return dx, made(outer(rows, dy_rows), None if b is None else dy_rows.sum(axis=0))


def forward(definition: Any, p: Any, x: Any) -> Any:
    return _forward(definition, p, x, linear.Cache)


def backward(definition: Any, dy: Any, c: Any) -> Any:
    return _backward(definition, dy, c, linear.Params)


def unembed(definition: Any, p: Any, x: Any) -> Any:
    return _forward(definition, p, x, unembedding.Cache)


def unembed_backward(definition: Any, dlogits: Any, c: Any) -> Any:
    return _backward(definition, dlogits, c, unembedding.Params)


KERNELS = {
    "layers.linear.forward": forward,
    "layers.linear.backward": backward,
    "layers.unembedding.forward": unembed,
    "layers.unembedding.backward": unembed_backward,
}
