"""Kernels of layers/linear.py: the products are those of product.py, the bias where their sums begin."""

from typing import Any

import numpy as np

from ..layers import linear
from .compile import fits
from .product import multiply, outer


def forward(definition: Any, p: Any, x: Any) -> Any:
    if not fits(x, _lies(p.weight), p.bias) or x.size == 0:
        return definition(p, x)
    y = multiply(x.reshape(-1, x.shape[-1]), p.weight, p.bias)
    return y.reshape(*x.shape[:-1], p.weight.shape[1]), linear.Cache(p.weight, p.bias, x)


def backward(definition: Any, dy: Any, c: Any) -> Any:
    if not fits(dy, _lies(c.weight), c.bias, c.x) or dy.size == 0:
        return definition(dy, c)
    x, rows = c.x.reshape(-1, c.x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx = multiply(rows, c.weight.T).reshape(c.x.shape)
    return dx, linear.Params(outer(x, rows), None if c.bias is None else rows.sum(axis=0))


def _lies(W: Any) -> Any:
    """W as it lies in memory: a tied one is turned."""
    return W.T if isinstance(W, np.ndarray) and not W.flags.c_contiguous else W


KERNELS = {"layers.linear.forward": forward, "layers.linear.backward": backward}
