"""Lion: every entry moves by the same amount, the sign of an interpolated momentum; found by program search.

State     m momentum, 0 at first

Update    c = β₁ m + (1 − β₁) g
          m ← β₂ m + (1 − β₂) g
          θ ← θ − η λ w θ − η sign c             sign 0 = 0
                  decay      gradient

Symbols   θ params   g grads   η lr   β₁ beta1   β₂ beta2   λ weight_decay
          w decay_mask (a factor for each tensor; None: all 1)

          A step is larger than Adam's at the same η, so η is taken 3 to 10 times smaller and λ as much larger.

Source    Chen et al. 2023, arXiv:2302.06675, algorithm 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from onelayer.arrays import Array, array_namespace, flatten, map_tree, zeros_like_tree

__all__ = ["State", "init", "update"]


class State(NamedTuple):
    m: Any  # a tree like params


def init(params: Any) -> State:
    return State(m=zeros_like_tree(params))


def update(
    grads: Any, state: State, params: Any, *,
    lr: Any = 1e-4, beta1: Any = 0.9, beta2: Any = 0.99, weight_decay: Any = 0.0, decay_mask: Any = None,
    join: Callable[[Array, Array, Array], Any] = lambda p, decay, gradient: p + decay + gradient,
) -> tuple[Any, State]:  # fmt: skip
    xp = array_namespace(next(iter(flatten(params).values())))

    def one(p: Array, g: Array, m: Array, w: Any) -> tuple[Array, ...]:
        def number(x: Any) -> Array:
            return xp.asarray(x, dtype=p.dtype)

        c = number(beta1) * m + number(1 - beta1) * g
        m = number(beta2) * m + number(1 - beta2) * g
        decay = number(-lr * weight_decay * w) * p
        gradient = number(-lr) * xp.sign(c)
        return join(p, decay, gradient), m

    mask = map_tree(lambda _: 1.0, params) if decay_mask is None else decay_mask
    moved = map_tree(one, params, grads, state.m, mask)
    params, m = (map_tree(lambda _, x, i=i: x[i], params, moved) for i in range(2))
    return params, State(m)
