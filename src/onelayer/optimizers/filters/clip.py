"""Clip by global norm: a gradient longer than c is shortened to length c; its direction stays.

Filter    g ← g c / max(‖g‖, c)                  ‖g‖ = √Σ g² over all tensors

Symbols   g grads   c max_norm > 0

Source    Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, algorithm 1.
"""

from typing import Any, NamedTuple

from onelayer.arrays import array_namespace, flatten, map_tree

__all__ = ["State", "apply", "init"]


class State(NamedTuple):
    """Nothing to remember."""


def init(params: Any) -> State:
    return State()


def apply(grads: Any, state: State, params: Any, *, max_norm: Any = 1.0) -> tuple[Any, State]:
    leaves = list(flatten(grads).values())
    xp = array_namespace(leaves[0])
    norm = xp.sqrt(sum((xp.sum(g * g) for g in leaves[1:]), start=xp.sum(leaves[0] * leaves[0])))
    factor = max_norm / xp.maximum(norm, xp.asarray(max_norm, dtype=norm.dtype))
    return map_tree(lambda g: xp.asarray(factor, dtype=g.dtype) * g, grads), state
