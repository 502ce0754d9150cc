"""Sieves: what a gradient filter does to the parts of a gradient, given what all parts share.

    grokfast_ema, grokfast_ma   linear in the gradients so far: each part has an average of its own
    clip                        one factor for all, from the whole gradient's length
    orthogonal                  given θ, g − (θ·g/θ·θ) θ is linear; times one factor a tensor, from the whole gradient

A filter that is none of these cannot be honoured part by part, and is refused.

Source    optimizers/filters/*.py
"""

from typing import Any

import numpy as np

from .. import optimizers
from ..arrays import Array, flatten
from ..errors import BadInput

__all__ = ["FILTERS", "Sieve", "check"]

FILTERS = ("clip", "grokfast_ema", "grokfast_ma", "orthogonal")


def check(name: str) -> None:
    """BadInput for a filter that parts do not pass one by one."""
    if name not in FILTERS:
        raise BadInput(
            f"the gradient filter {name!r} is not known to be linear in the gradient, so a part of the gradient is no "
            f"part of the step; a ledger can be kept with {', '.join(FILTERS)}, or with no filter"
        )


class Sieve:
    """One filter of a run, applied to parts: {tensor: [K, *shape]} in float64."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        check(name)
        self.name, self.settings = name, settings
        self.filter, self.state = optimizers.make(name, "filter", **settings), None

    def apply(
        self, parts: dict[str, Array], whole: dict[str, Array], params: dict[str, Array], before: Any
    ) -> dict[str, Array]:
        """The parts as they leave. whole: the gradient that came in; before: the run's filter state before the step.

        The last part of each tensor inherits the averages that the run brought along (zero in a fresh run).
        """
        if self.name == "clip":
            length, limit = np.sqrt(sum(np.sum(g * g) for g in whole.values())), self.settings["max_norm"]
            return {name: x * (limit / max(length, limit)) for name, x in parts.items()}
        if self.name == "orthogonal":
            return {name: _across(x, whole[name], params[name]) for name, x in parts.items()}
        if self.state is None:
            self.state = self._inherited(parts, before)
        out, self.state = self.filter.apply(parts, self.state, params)
        return out

    def _inherited(self, parts: dict[str, Array], before: Any) -> Any:
        def last(tree: Any) -> dict[str, Array]:
            held = flatten(tree)
            return {k: np.concatenate([np.zeros_like(x[:-1]), held[k][None]]) for k, x in parts.items()}

        if self.name == "grokfast_ema":
            return before._replace(h=last(before.h))
        return before._replace(window=tuple(last(tree) for tree in before.window))


def _across(parts: Array, g: Array, p: Array) -> Array:
    """The parts of ⊥Grad of one tensor; the factor is the whole's."""
    square = float(np.sum(p * p))

    def out(y: Array) -> Array:
        return y - (np.sum(p * y) / square if square else 0.0) * p

    across = out(g)
    length, left = np.sqrt(np.sum(g * g)), np.sqrt(np.sum(across * across))
    factor = length / left if left > 100 * np.finfo(g.dtype).eps * length else 0.0
    return np.stack([factor * out(y) for y in parts])
