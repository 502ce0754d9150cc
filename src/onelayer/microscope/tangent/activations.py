"""R{activations}: the slope moves with x, and how fast is f″.

Forward   y = f(x)                   Ry = f′(x) Rx
Backward  ∂x = f′(x) ∂y              R∂x = f′(x) R∂y + f″(x) Rx ∂y

Bends     relu, identity   f″ = 0 (at relu's kink, too, by the same convention as f′)
          quadratic        f″ = 2
          silu             f″ = σ (1 − σ) (2 + x (1 − 2σ))
          gelu             f″ = φ (2 − x²)                    φ the normal density
          gelu_tanh        f″ = s (u′ + x (u″/2 − t u′²))     t = tanh u, s = 1 − t², u″ = √(2/π) 6 · 0.044715 x

Source    layers/activations.py, differentiated once more.
"""

import math
from collections.abc import Callable

import numpy as np

from ...arrays import Array

__all__ = ["BENDS", "backward", "bend", "forward"]


def silu(x: Array) -> Array:
    sigmoid = 0.5 * (1 + np.tanh(0.5 * x))
    return sigmoid * (1 - sigmoid) * (2 + x * (1 - 2 * sigmoid))


def gelu(x: Array) -> Array:
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) * (2 - x * x)


def gelu_tanh(x: Array) -> Array:
    c, a = math.sqrt(2 / math.pi), 0.044715
    t, first, second = np.tanh(c * x * (1 + a * x * x)), c * (1 + 3 * a * x * x), 6 * c * a * x
    return (1 - t * t) * (first + x * (0.5 * second - t * first * first))


BENDS: dict[str, Callable[[Array], Array] | None] = {  # None: zero everywhere
    "relu": None,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "quadratic": lambda x: np.full_like(x, 2.0),
    "identity": None,
}


def bend(x: Array, kind: str) -> Array | None:
    """f″(x); None where it is zero everywhere."""
    f = BENDS[kind]
    return None if f is None else f(x)


def forward(rx: Array, slope: Array) -> Array:
    return slope * rx


def backward(rdy: Array, dy: Array, rx: Array, slope: Array, bends: Array | None) -> Array:
    return slope * rdy if bends is None else slope * rdy + bends * rx * dy
