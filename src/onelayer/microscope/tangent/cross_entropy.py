"""R{cross-entropy}: how ∂loss/∂logits moves when the logits do; this is the loss's own Hessian, times Rz.

Forward   ℓ = growth = (log s)′ = s′/s        P = s/Σ s
          RP = P (ℓ Rz/τ − Σ P ℓ Rz/τ)         softmax: ℓ = 1
Backward  ∂z = w/Σw/τ ℓ (P − q)                R∂z = w/Σw/τ (ℓ RP + Rℓ (P − q))
          stablemax: ℓ = 1/s above 0, Rℓ = −ℓ² Rz/τ;  ℓ = s below, Rℓ = ℓ² Rz/τ  (at 0 itself: that of above)

Source    layers/cross_entropy.py, differentiated once more. Smoothing is in q, which does not move.
"""

from ...arrays import Array
from ...layers import cross_entropy

__all__ = ["backward"]


def backward(rlogits: Array, logits: Array, c: cross_entropy.Cache, temperature: float) -> Array:
    """R∂logits."""
    rz = rlogits / temperature
    if c.growth is None:
        return c.weight * _share(rz, c.share)
    rshare = _share(c.growth * rz, c.share)
    rgrowth = c.growth**2 * rz * (1 - 2.0 * (logits >= 0))
    return c.weight * (c.growth * rshare + rgrowth * (c.share - c.wanted))


def _share(rlog_s: Array, share: Array) -> Array:
    weighed = share * rlog_s
    return weighed - share * weighed.sum(axis=-1, keepdims=True)
