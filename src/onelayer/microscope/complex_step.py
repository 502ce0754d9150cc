"""Derivatives by complex step: exact to the last bits, with no step size to choose.

Method    for an analytic f of a real x,  f(x + ih) = f(x) + ih f′(x) − h² f″(x)/2 …,  so  f′(x) = Im f(x + ih)/h
          up to h². Nothing is subtracted, so nothing cancels; at h = 1e-30 the error is rounding alone.
          It asks that f take complex numbers and be analytic on the way: branches look at the real part only,
          and nothing takes an absolute value or a conjugate.

Source    Squire & Trapp 1998, Using complex variables to estimate derivatives of real functions, SIAM Review 40.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import flatten, map_tree, unflatten

__all__ = ["STEP", "directional", "gradient"]

STEP = 1e-30


def gradient(f: Callable[[Any], Any], tree: Any, step: float = STEP) -> Any:
    """∂f/∂tree of a scalar f, entry by entry: as many calls of f as the tree of real NumPy arrays has entries."""
    flat = flatten(tree)
    slopes = {name: np.zeros(x.shape) for name, x in flat.items()}
    for name, x in flat.items():
        for index in np.ndindex(x.shape):
            moved = x.astype(np.complex128)
            moved[index] += 1j * step
            slopes[name][index] = np.imag(f(unflatten(flat | {name: moved}, tree))) / step
    return unflatten(slopes, tree)


def directional(f: Callable[[Any], Any], tree: Any, direction: Any, step: float = STEP) -> Any:
    """The derivative of a tree-valued f along a direction: one call of f. Of a backward: a Hessian product."""
    moved = map_tree(lambda x, d: x + 1j * step * d, tree, direction)
    return map_tree(lambda y: np.imag(y) / step, f(moved))
