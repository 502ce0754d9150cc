"""Constant norm: after each update, all parameters are rescaled together to the length that they had at the start.

State     n = α ‖θ₀‖                             ‖θ‖ = √Σ θ² over all tensors

Project   θ ← θ n / ‖θ‖                          θ = 0 stays 0

Symbols   θ params   α scale

          Without weight decay a net memorises by growing; held on a sphere whose radius suits the task it cannot, and
          generalises almost as soon as it memorises. α < 1 starts on a smaller sphere: project once before step 0.

Source    Liu et al. 2022, Omnigrok, arXiv:2210.01117 (α = 0.8 for modular addition).
"""

from typing import Any, NamedTuple

from jaxtyping import Float

from onelayer.arrays import Array, array_namespace, flatten, map_tree

__all__ = ["State", "init", "norm", "project"]


class State(NamedTuple):
    norm: Float[Array, ""]


def norm(params: Any) -> Float[Array, ""]:
    """‖θ‖, the length of all parameters taken as one vector."""
    leaves = list(flatten(params).values())
    xp = array_namespace(leaves[0])
    return xp.sqrt(sum((xp.sum(p * p) for p in leaves[1:]), start=xp.sum(leaves[0] * leaves[0])))


def init(params: Any, *, scale: Any = 1.0) -> State:
    length = norm(params)
    xp = array_namespace(length)
    return State(xp.asarray(scale * length, dtype=length.dtype))


def project(params: Any, state: State) -> Any:
    length = norm(params)
    xp = array_namespace(length)
    factor = xp.where(length > 0, state.norm / xp.where(length > 0, length, xp.ones_like(length)), length)
    return map_tree(lambda p: xp.asarray(factor, dtype=p.dtype) * p, params)
