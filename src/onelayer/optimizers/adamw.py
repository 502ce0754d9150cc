"""AdamW: Adam whose weight decay acts on the weights directly, not through the adaptive scale.

State     t step count, m first moment, v second moment, all 0 at first

Update    t ← t + 1
          m ← β₁ m + (1 − β₁) g                  m̂ = m / (1 − β₁ᵗ)
          v ← β₂ v + (1 − β₂) g²                 v̂ = v / (1 − β₂ᵗ)
          θ ← θ − η λ w θ − η m̂ / (√v̂ + ε)
                  decay       gradient

Symbols   θ params   g grads   η lr   β₁ beta1   β₂ beta2   ε eps   λ weight_decay
          w decay_mask (a factor for each tensor; None: all 1)

          The decay is scaled by η, as in PyTorch and optax: with no gradient, weights halve every ln 2 / (η λ) steps.

Source    Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
          Why decoupled: docs/derivations/optimizers.md
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Int

from onelayer.arrays import Array, array_namespace, flatten, map_tree, zeros_like_tree
from onelayer.fused import fused

__all__ = ["State", "init", "update"]


class State(NamedTuple):
    count: Int[Array, ""]
    m: Any  # trees like params
    v: Any


def init(params: Any) -> State:
    xp = array_namespace(next(iter(flatten(params).values())))
    return State(xp.zeros((), dtype=xp.int32), zeros_like_tree(params), zeros_like_tree(params))


@fused
def update(
    grads: Any, state: State, params: Any, *,
    lr: Any = 1e-3, beta1: Any = 0.9, beta2: Any = 0.999, eps: Any = 1e-8, weight_decay: Any = 0.01,
    decay_mask: Any = None,
    join: Callable[[Array, Array, Array], Any] = lambda p, decay, gradient: p + decay + gradient,
) -> tuple[Any, State]:  # fmt: skip
    leaves = flatten(params).values()
    xp = array_namespace(next(iter(leaves)))

    count = xp.asarray(state.count + 1)
    t = xp.asarray(count, dtype=xp.result_type(*leaves))
    pace, root = -lr / (1 - beta1**t), 1 / xp.sqrt(1 - beta2**t)  # −η m̂ = pace m   √v̂ = root √v

    def one(p: Array, g: Array, m: Array, v: Array, w: Any) -> tuple[Array, ...]:
        def number(x: Any) -> Array:
            return xp.asarray(x, dtype=p.dtype)

        m = number(beta1) * m + number(1 - beta1) * g
        v = number(beta2) * v + number(1 - beta2) * (g * g)
        decay = number(-lr * weight_decay * w) * p
        gradient = number(pace) * m / (number(root) * xp.sqrt(v) + number(eps))
        return join(p, decay, gradient), m, v

    mask = map_tree(lambda _: 1.0, params) if decay_mask is None else decay_mask
    moved = map_tree(one, params, grads, state.m, state.v, mask)
    params, m, v = (map_tree(lambda _, x, i=i: x[i], params, moved) for i in range(3))
    return params, State(count, m, v)
