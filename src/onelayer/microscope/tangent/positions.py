"""R{positions}: by hand where a stage is linear in what moves; by the complex step through the stage where it is not.

By hand   sinusoidal, alibi     a constant is added: R passes by
          learned, t5           a table is looked up and added: R looks up the table's direction
          rope                  a rotation by the place: R is turned likewise, and back
By step   every other method, and only its own stage: the stage's functions are handed x + ih Rx and answer y + ih Ry.
          Exact as well (complex_step.py), at the price of complex arithmetic there. `by_hand` says which it is.

          What the forward stage leaves (a complex cache) goes to its backward, which is handed ∂y + ih R∂y.

Source    positions/*.py; Squire & Trapp 1998
"""

from typing import Any

import numpy as np

from ...arrays import Array, map_tree
from ...positions import Felt, Method
from .. import complex_step

__all__ = ["BY_HAND", "by_hand", "stage_backward", "stage_forward"]

BY_HAND = ("none", "sinusoidal", "learned", "rope", "alibi", "t5")
STEP = complex_step.STEP


def by_hand(position: Method) -> bool:
    """Whether R{this method} is written out; otherwise its stages take the complex step."""
    return position.name in BY_HAND


def stage_forward(
    position: Method, stage: str, p: Any, rp: Any, xs: tuple[Array, ...], rxs: tuple[Array, ...], where: Any
) -> tuple[tuple[Array, ...] | None, Any]:
    """R of a stage's outputs (None: nothing is added), and the complex cache (None: by hand)."""
    call = {"embedding": "encode_x", "query_key": "encode_qk", "score": "bias", "value": "mix"}[stage]
    function = getattr(position, call)
    if by_hand(position):
        if rp is None and stage != "query_key":  # a constant was added
            return (rxs if stage == "embedding" else None), None
        return function(rp, *rxs, where)[:-1], None
    *ys, cache = function(_move(p, rp), *(_move(x, rx) for x, rx in zip(xs, rxs, strict=True)), where)
    return tuple(_slope(y) for y in ys), cache


def stage_backward(
    position: Method, stage: str, rdys: tuple[Array, ...], dys: tuple[Array, ...], c: Any, moved: Any
) -> Any:
    """R of what the stage's backward returns. c: the plain cache; moved: the complex one (None: by hand)."""
    call = {"embedding": "encode_x", "query_key": "encode_qk", "score": "bias", "value": "mix"}[stage]
    function = getattr(position, f"{call}_backward")
    if by_hand(position):
        return function(*rdys, c)
    out = function(*(_move(dy, rdy) for dy, rdy in zip(dys, rdys, strict=True)), moved)
    return map_tree(_slope, out)


def felt(f: Felt | None) -> Felt:
    return Felt() if f is None else f


def _move(x: Any, rx: Any) -> Any:
    return map_tree(lambda a, d: a + 1j * STEP * d, x, rx)


def _slope(y: Array) -> Array:
    return np.imag(y) / STEP
