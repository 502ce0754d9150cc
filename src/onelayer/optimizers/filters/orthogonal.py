"""⊥Grad: take out of each tensor's gradient what would only stretch the tensor, and keep the gradient's length.

Filter    g⊥ = g − (θ·g / θ·θ) θ                 · over all entries of one tensor
          g ← g⊥ ‖g‖ / ‖g⊥‖

Symbols   θ params   g grads

          A net that is homogeneous in its weights lowers its loss by growing them once it has memorised, until the
          softmax's arithmetic collapses; without the radial part it has to turn instead. θ = 0 leaves g as it is. Where
          g is parallel to θ to rounding (‖g⊥‖ ≤ 100 ϵ ‖g‖, ϵ the machine's; every tensor of one entry), g becomes 0:
          the published formula would blow rounding errors up to full length.

Source    Prieto et al. 2025, arXiv:2501.04697, equation 10 and their code's per-tensor form.
"""

from typing import Any, NamedTuple

from onelayer.arrays import Array, array_namespace, map_tree

__all__ = ["State", "apply", "init"]


class State(NamedTuple):
    """Nothing to remember."""


def init(params: Any) -> State:
    return State()


def _turn(g: Array, p: Array) -> Array:
    xp = array_namespace(g)
    square = xp.sum(p * p)
    radial = xp.sum(p * g) / xp.where(square > 0, square, xp.ones_like(square))
    across = g - radial * p
    length, left = xp.sqrt(xp.sum(g * g)), xp.sqrt(xp.sum(across * across))
    real = left > 100 * xp.finfo(g.dtype).eps * length
    one = xp.ones_like(left)
    return xp.where(real, length / xp.where(real, left, one), 0 * one) * across


def apply(grads: Any, state: State, params: Any) -> tuple[Any, State]:
    return map_tree(_turn, grads, params), state
