"""R{layer normalisation}.

Forward   x̂ = r (x − mean x)         Rx̂ = r (Rx − mean Rx − x̂ mean(x̂ Rx))
          r = 1/√(var x + ε)         Rr = −r² mean(x̂ Rx)
          y = g x̂ + b                Ry = Rg x̂ + g Rx̂ + Rb

Backward  ∂x̂ = g ∂y                  R∂x̂ = Rg ∂y + g R∂y
          ∂x = r e                   R∂x = Rr e + r Re
          e = ∂x̂ − mean ∂x̂ − x̂ μ     Re = R∂x̂ − mean R∂x̂ − Rx̂ μ − x̂ Rμ
          μ = mean(x̂ ∂x̂)             Rμ = mean(Rx̂ ∂x̂ + x̂ R∂x̂)
          ∂g = Σ ∂y x̂                R∂g = Σ R∂y x̂ + ∂y Rx̂          R∂b = Σ R∂y
          The operator that takes Rx to Rx̂ is the one that takes ∂x̂ to ∂x: its Jacobian is symmetric.

Source    layers/layer_norm.py, differentiated once more.
"""

from typing import NamedTuple

from ...arrays import Array
from ...layers import layer_norm

__all__ = ["Moved", "backward", "forward"]


class Moved(NamedTuple):
    x_hat: Array
    rstd: Array


def mean(x: Array) -> Array:
    return x.mean(axis=-1, keepdims=True)


def forward(rp: layer_norm.Params, rx: Array, c: layer_norm.Cache) -> tuple[Array, Moved]:
    along = mean(c.x_hat * rx)
    rx_hat = c.rstd * (rx - mean(rx) - c.x_hat * along)
    return rp.gain * c.x_hat + c.gain * rx_hat + rp.bias, Moved(rx_hat, -(c.rstd**2) * along)


def backward(
    rdy: Array, dy: Array, rp: layer_norm.Params, m: Moved, c: layer_norm.Cache
) -> tuple[Array, layer_norm.Params]:
    rows = tuple(range(dy.ndim - 1))
    dx_hat, rdx_hat = c.gain * dy, rp.gain * dy + c.gain * rdy
    mu, rmu = mean(c.x_hat * dx_hat), mean(m.x_hat * dx_hat + c.x_hat * rdx_hat)
    e = dx_hat - mean(dx_hat) - c.x_hat * mu
    re = rdx_hat - mean(rdx_hat) - m.x_hat * mu - c.x_hat * rmu
    rdgain = (rdy * c.x_hat + dy * m.x_hat).sum(axis=rows)
    return m.rstd * e + c.rstd * re, layer_norm.Params(gain=rdgain, bias=rdy.sum(axis=rows))
