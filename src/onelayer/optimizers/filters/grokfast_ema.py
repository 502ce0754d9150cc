"""Grokfast-EMA: amplify the slow component of the gradient, found as its exponential moving average.

State     t how many gradients were seen, h the average

Filter    h ← α h + (1 − α) g                    the first gradient starts the average: h = g
          g ← g + λ h

Symbols   g grads   α alpha   λ lamb

          The average starts at the first gradient, as in the authors' code; so the first step is taken with (1 + λ) g.

Source    Lee et al. 2024, arXiv:2405.20233, algorithm 2 and github.com/ironjr/grokfast. Their runs add weight decay,
          their baseline has none: compare filters at equal decay.
"""

from typing import Any, NamedTuple

from jaxtyping import Int

from onelayer.arrays import Array, array_namespace, flatten, map_tree, zeros_like_tree

__all__ = ["State", "apply", "init"]


class State(NamedTuple):
    count: Int[Array, ""]
    h: Any  # a tree like params


def init(params: Any) -> State:
    xp = array_namespace(next(iter(flatten(params).values())))
    return State(xp.zeros((), dtype=xp.int32), zeros_like_tree(params))


def apply(grads: Any, state: State, params: Any, *, alpha: Any = 0.98, lamb: Any = 2.0) -> tuple[Any, State]:
    leaves = flatten(grads).values()
    xp = array_namespace(next(iter(leaves)))

    def number(value: Any, x: Any) -> Any:
        return xp.asarray(value, dtype=x.dtype)

    kept = alpha * xp.asarray(state.count > 0, dtype=xp.result_type(*leaves))  # α, and 0 at the first gradient
    h = map_tree(lambda h, g: number(kept, g) * h + number(1 - kept, g) * g, state.h, grads)
    return map_tree(lambda g, h: g + number(lamb, g) * h, grads, h), State(xp.asarray(state.count + 1), h)
