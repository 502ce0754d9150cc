"""Cross-entropy: the surprise, in nats, at the right answer; averaged over the rows that count.

Shapes    logits z [*rows V]     targets y [*rows] of integers     weights w [*rows] ≥ 0, 0 on padding; None: all 1
          loss: one number

Forward   loss = Σ w (log Σ s(z/τ) − Σ_v q_v log s(z_v/τ)) / Σ w
          s = exp is the softmax; τ is the temperature
          q = (1 − ε) [v = y] + ε/n      label smoothing ε over the n classes that may occur: all but `never`
                                         (padding), which gets no mass
          variants   softmax     in the logits' own precision
                     float64     the same, computed in float64: no rounding of small losses to zero
                     stablemax   s(x) = x + 1 for x ≥ 0, 1/(1 − x) below: grows linearly, so it cannot collapse

Backward  ∂a is ∂loss/∂a;   P = s/Σ s
          ∂z = w/Σw · (P − q)/τ                     softmax: what was said minus what should have been said
          ∂z = w/Σw · s′/s · (P − q)/τ              any s; s′/s is 1 for exp, 1/s for stablemax above 0, s below
          For the softmax each row of ∂z sums to 0. Targets are compared by index, never by value.

Source    Label smoothing: Szegedy et al. 2015, arXiv:1512.00567. StableMax: Prieto et al. 2025, arXiv:2501.04697.
          Every step: docs/derivations/cross_entropy.md
"""

from typing import NamedTuple

from jaxtyping import Inexact, Integer, Real

from ..arrays import Array, array_namespace, real_part
from ..errors import unknown
from ..fused import fused

VARIANTS = ("softmax", "float64", "stablemax")


class Cache(NamedTuple):
    share: Inexact[Array, "*rows V"]  # P
    wanted: Inexact[Array, "*rows V"]  # q
    growth: Inexact[Array, "*rows V"] | None  # s′/s; None for exp, where it is 1
    weight: Inexact[Array, "*rows 1"]  # w/Σw/τ


@fused
def forward(
    logits: Inexact[Array, "*rows V"],
    targets: Integer[Array, "*rows"],
    weights: Real[Array, "*rows"] | None = None,
    *,
    smoothing: float = 0.0,
    never: int | None = None,
    temperature: float = 1.0,
    variant: str = "softmax",
) -> tuple[Inexact[Array, ""], Cache]:
    if variant not in VARIANTS:
        raise unknown("loss variant", variant, VARIANTS)
    xp = array_namespace(logits)
    if variant == "float64" and xp.isdtype(logits.dtype, "real floating"):
        logits = xp.astype(logits, xp.float64)
    real = real_part(logits).dtype
    z = logits if temperature == 1.0 else logits / temperature

    log_s, share, growth = _stablemax(z) if variant == "stablemax" else _softmax(z)
    wanted = _wanted(targets, logits.shape[-1], smoothing, never, xp, real)
    w = xp.ones(targets.shape, dtype=real) if weights is None else xp.astype(weights, real)
    w = w / xp.sum(w)
    # q may put no mass where log s is −∞-like, so the sum is over finite numbers only
    rows = -xp.sum(wanted * log_s, axis=-1)
    return xp.sum(w * rows), Cache(share, wanted, growth, w[..., None] / temperature)


@fused
def backward(c: Cache) -> Inexact[Array, "*rows V"]:
    """∂loss/∂logits, in the precision in which the loss was computed."""
    dz = c.weight * (c.share - c.wanted)
    return dz if c.growth is None else c.growth * dz


def _softmax(z: Array) -> tuple[Array, Array, None]:
    """log P and P of the softmax. (log P itself takes the place of log s: both differ by a constant, Σ q = 1.)"""
    xp = array_namespace(z)
    shifted = z - xp.max(real_part(z), axis=-1, keepdims=True)
    exp = xp.exp(shifted)
    total = xp.sum(exp, axis=-1, keepdims=True)
    return shifted - xp.log(total), exp / total, None


def _stablemax(z: Array) -> tuple[Array, Array, Array]:
    xp = array_namespace(z)
    above = real_part(z) >= 0
    zero = xp.zeros_like(z)
    low = 1 / (1 - xp.where(above, zero, z))
    s = xp.where(above, z + 1, low)
    total = xp.sum(s, axis=-1, keepdims=True)
    return xp.log(s / total), s / total, xp.where(above, 1 / s, s)


def _wanted(targets: Array, n: int, smoothing: float, never: int | None, xp, dtype) -> Array:
    classes = xp.arange(n, dtype=targets.dtype)
    right = xp.astype(targets[..., None] == classes, dtype)
    if smoothing == 0.0:
        return right
    allowed = xp.ones((n,), dtype=dtype) if never is None else xp.astype(classes != never, dtype)
    return (1 - smoothing) * right + smoothing * allowed / xp.sum(allowed)
