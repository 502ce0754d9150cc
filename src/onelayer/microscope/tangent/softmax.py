"""R{softmax}: shares of one whole; what one key gains, the others lose, in every order.

Forward   P = softmax(s)             RP = P (Rs − Σ P Rs)
Backward  ∂s = P (∂P − Σ P ∂P)       R∂s = RP (∂P − Σ P ∂P) + P (R∂P − Σ (RP ∂P + P R∂P))
          A key that is masked has P = 0, and so RP = 0: it stays out of sight in every order.

Source    layers/softmax.py, differentiated once more.
"""

from ...arrays import Array

__all__ = ["backward", "forward"]


def total(x: Array) -> Array:
    return x.sum(axis=-1, keepdims=True)


def forward(rscores: Array, pattern: Array) -> Array:
    weighed = pattern * rscores
    return weighed - pattern * total(weighed)


def backward(rdpattern: Array, dpattern: Array, rpattern: Array, pattern: Array) -> Array:
    gap = dpattern - total(pattern * dpattern)
    return rpattern * gap + pattern * (rdpattern - total(rpattern * dpattern + pattern * rdpattern))
