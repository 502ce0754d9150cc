"""Grokfast-MA: amplify the slow component of the gradient, found as the mean of the last W gradients.

State     t how many gradients were seen, the last W of them (0 before the first), the oldest first

Filter    g ← g + λ (mean of the last W gradients, this one included)      once W were seen; until then g stays

Symbols   g grads   W window   λ lamb

          The window is a tuple: the oldest gradient drops out and nothing is copied. Its W gradients are summed anew at
          every step (about a millisecond for each 3 million numbers): a running sum would keep the rounding errors
          of the large early gradients for ever. A checkpoint holds W copies of the parameters; the EMA holds one.

Source    Lee et al. 2024, arXiv:2405.20233, algorithm 1 and github.com/ironjr/grokfast (mean, warm-up).
"""

from typing import Any, NamedTuple

from jaxtyping import Int

from onelayer.arrays import Array, array_namespace, flatten, map_tree, zeros_like_tree

__all__ = ["State", "apply", "init"]


class State(NamedTuple):
    count: Int[Array, ""]
    window: tuple[Any, ...]  # W trees like params


def init(params: Any, *, window: int = 100) -> State:
    xp = array_namespace(next(iter(flatten(params).values())))
    zero = zeros_like_tree(params)
    return State(xp.zeros((), dtype=xp.int32), (zero,) * window)


def apply(grads: Any, state: State, params: Any, *, lamb: Any = 5.0) -> tuple[Any, State]:
    leaves = flatten(grads).values()
    xp = array_namespace(next(iter(leaves)))
    count, window = xp.asarray(state.count + 1), (*state.window[1:], grads)
    full = xp.asarray(count >= len(window), dtype=xp.result_type(*leaves))
    share = lamb * full / len(window)
    total = map_tree(lambda *all_g: sum(all_g[1:], start=all_g[0]), *window)
    return map_tree(lambda g, s: g + xp.asarray(share, dtype=g.dtype) * s, grads, total), State(count, window)
