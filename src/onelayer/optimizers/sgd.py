"""Stochastic gradient descent, with momentum (heavy ball or Nesterov's) and coupled weight decay.

State     v velocity, 0 at first

Update    d = g + λ w θ
          v ← μ v + d
          θ ← θ − η v                     heavy ball
          θ ← θ − η (d + μ v)             Nesterov: the velocity is looked up one step ahead

Symbols   θ params   g grads   η lr   μ momentum   λ weight_decay   w decay_mask (a factor for each tensor; None: all 1)

Coupled   The decay is part of the gradient, so it gathers momentum like the rest: for a constant θ it comes to
          η λ θ / (1 − μ) a step. "Decay" in the code is what this step's λ w θ adds, and "gradient" is all else.

Source    Polyak 1964; Nesterov 1983, in the form of Sutskever et al. 2013 (ICML) as PyTorch and optax have it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from onelayer.arrays import Array, array_namespace, flatten, map_tree, zeros_like_tree

__all__ = ["State", "init", "update"]


class State(NamedTuple):
    velocity: Any  # a tree like params


def init(params: Any) -> State:
    return State(velocity=zeros_like_tree(params))


def update(
    grads: Any, state: State, params: Any, *,
    lr: Any = 0.1, momentum: Any = 0.0, nesterov: bool = False, weight_decay: Any = 0.0, decay_mask: Any = None,
    join: Callable[[Array, Array, Array], Any] = lambda p, decay, gradient: p + decay + gradient,
) -> tuple[Any, State]:  # fmt: skip
    xp = array_namespace(next(iter(flatten(params).values())))

    def one(p: Array, g: Array, v: Array, w: Any) -> tuple[Array, ...]:
        def number(x: Any) -> Array:
            return xp.asarray(x, dtype=p.dtype)

        mu, shrink = number(momentum), number(weight_decay * w) * p
        d = g + shrink
        v = mu * v + d
        step, share = (d + mu * v, 1 + mu) if nesterov else (v, number(1.0))
        decay = number(-lr) * (share * shrink)
        return join(p, decay, number(-lr) * step - decay), v

    mask = map_tree(lambda _: 1.0, params) if decay_mask is None else decay_mask
    moved = map_tree(one, params, grads, state.velocity, mask)
    params, velocity = (map_tree(lambda _, x, i=i: x[i], params, moved) for i in range(2))
    return params, State(velocity)
