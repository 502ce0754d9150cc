"""Kernel of layers/linear.py: the bias is added to the product where it lies. The product itself is BLAS's."""

from typing import Any

from ..layers import linear
from .compile import fits


def forward(definition: Any, p: Any, x: Any) -> Any:
    if p.bias is None or not fits(x, p.weight, p.bias):
        return definition(p, x)
    y = x.reshape(-1, x.shape[-1]) @ p.weight
    y += p.bias
    return y.reshape(*x.shape[:-1], p.weight.shape[1]), linear.Cache(p.weight, p.bias, x)


KERNELS = {"layers.linear.forward": forward}
