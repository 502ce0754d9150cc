"""R{linear}: a product has two factors, and each may move.

Forward   y = x W + b                Ry = Rx W + x RW + Rb
Backward  ∂x = ∂y Wᵀ                 R∂x = R∂y Wᵀ + ∂y RWᵀ
          ∂W = Σ xᵀ ∂y               R∂W = Σ Rxᵀ ∂y + xᵀ R∂y
          ∂b = Σ ∂y                  R∂b = Σ R∂y

Source    layers/linear.py, differentiated once more. It also serves the unembedding (W_U, b_U).
"""

from typing import NamedTuple

from ...arrays import Array

__all__ = ["Moves", "backward", "forward"]


class Moves(NamedTuple):
    """R of weight and bias, and the weight itself."""

    W: Array
    rW: Array
    rb: Array | None


def forward(m: Moves, x: Array, rx: Array) -> Array:
    ry = _rows(rx) @ m.W + _rows(x) @ m.rW
    return (ry if m.rb is None else ry + m.rb).reshape(*x.shape[:-1], m.W.shape[1])


def backward(rdy: Array, dy: Array, m: Moves, x: Array, rx: Array) -> tuple[Array, Array, Array | None]:
    """R∂x, R∂W, R∂b."""
    rdy_, dy_, x_, rx_ = (_rows(a) for a in (rdy, dy, x, rx))
    rdx = rdy_ @ m.W.T + dy_ @ m.rW.T
    rdW = rx_.T @ dy_ + x_.T @ rdy_
    return rdx.reshape(x.shape), rdW, None if m.rb is None else rdy_.sum(axis=0)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])
