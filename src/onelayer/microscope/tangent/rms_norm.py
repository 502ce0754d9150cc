"""R{RMS normalisation}: as R{layer normalisation}, but nothing is centred.

Forward   x̂ = r x                    Rx̂ = r (Rx − x̂ mean(x̂ Rx))
          r = 1/√(mean x² + ε)       Rr = −r² mean(x̂ Rx)
          y = g x̂                    Ry = Rg x̂ + g Rx̂

Backward  ∂x̂ = g ∂y                  R∂x̂ = Rg ∂y + g R∂y
          ∂x = r e                   R∂x = Rr e + r Re
          e = ∂x̂ − x̂ μ               Re = R∂x̂ − Rx̂ μ − x̂ Rμ
          μ = mean(x̂ ∂x̂)             Rμ = mean(Rx̂ ∂x̂ + x̂ R∂x̂)
          ∂g = Σ ∂y x̂                R∂g = Σ R∂y x̂ + ∂y Rx̂

Source    layers/rms_norm.py, differentiated once more.
"""

from typing import NamedTuple

from ...arrays import Array
from ...layers import rms_norm

__all__ = ["Moved", "backward", "forward"]


class Moved(NamedTuple):
    x_hat: Array
    rms_inverse: Array


def mean(x: Array) -> Array:
    return x.mean(axis=-1, keepdims=True)


def forward(rp: rms_norm.Params, rx: Array, c: rms_norm.Cache) -> tuple[Array, Moved]:
    along = mean(c.x_hat * rx)
    rx_hat = c.rms_inverse * (rx - c.x_hat * along)
    return rp.gain * c.x_hat + c.gain * rx_hat, Moved(rx_hat, -(c.rms_inverse**2) * along)


def backward(rdy: Array, dy: Array, rp: rms_norm.Params, m: Moved, c: rms_norm.Cache) -> tuple[Array, rms_norm.Params]:
    dx_hat, rdx_hat = c.gain * dy, rp.gain * dy + c.gain * rdy
    mu, rmu = mean(c.x_hat * dx_hat), mean(m.x_hat * dx_hat + c.x_hat * rdx_hat)
    e, re = dx_hat - c.x_hat * mu, rdx_hat - m.x_hat * mu - c.x_hat * rmu
    rdgain = (rdy * c.x_hat + dy * m.x_hat).sum(axis=tuple(range(dy.ndim - 1)))
    return m.rms_inverse * e + c.rms_inverse * re, rms_norm.Params(gain=rdgain)
