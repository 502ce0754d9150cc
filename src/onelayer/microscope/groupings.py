"""Groupings: how a ledger divides each step's gradient. A grouping is a function of (params, batch, objective).

    by("loss_token"), by("route"), by("head"), by("class"), …     an axis of provenance.py
    by("operand"), by("operand:1")                                which value the example has at a position of its input

It returns {tensor: Shares}, whose parts add up to the gradient of that tensor. A tensor that an axis does not divide
(W_U has no route) has one part, "all". Labels and their order hang on the axis and the model alone, not on the batch.

Cost      operand: each example is in one group, so all groups together cost one gradient.  route, in a one-layer
          decoder: little more than one backward (routes.py).  Other axes: as provenance says.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array, flatten, map_tree
from ..errors import BadInput, unknown
from ..layers import cross_entropy
from ..models.config import ModelConfig
from ..tasks import Batch
from . import gates, provenance, routes
from .trace import Trace, _trace, trace

__all__ = ["ALL", "BY", "Grouping", "Shares", "by", "loss_settings", "operand"]

ALL = "all"


class Shares(NamedTuple):
    labels: tuple[str, ...]
    parts: Array  # [K, *shape]


Grouping: TypeAlias = Callable[[Any, Batch, Any], dict[str, Shares]]
PLACES = ("loss_token", "position", "source")  # axes whose members are places in a sequence
AXES = tuple(axis for axis in provenance.AXES if axis != "example")  # the examples of a batch change with the batch
BY = (*AXES, "operand")


def by(name: str, classes: int | None = None) -> Grouping:
    """The grouping of that name. classes: operands are grouped by value modulo this; None: each value is a group."""
    kind, _, where = name.partition(":")
    if kind == "operand":
        if not (where or "0").isdigit():
            raise BadInput(f"an operand is named by its position, counted from 0: 'operand:1'; received {name!r}")
        return operand(int(where or 0), classes)
    if classes is not None:
        raise BadInput(f"classes={classes} groups operands by their value; {name!r} has groups of its own")
    if kind == "example":
        raise BadInput(
            "the examples of one batch are not those of the next, so a ledger cannot be kept by example; "
            f"allowed: {', '.join(BY)}"
        )
    if kind not in AXES:
        raise unknown("grouping", name, BY)
    return _Axis(name)


def wide(batch: Batch, model: ModelConfig) -> Batch:
    """The batch as wide as the model's longest sequences, filled up with what has no loss and is not looked at: a batch
    of short sequences then has the same places as any other, and the same gradient. As it is, where it is as wide."""
    T, R = batch.tokens.shape[1], batch.targets.shape[1]
    S = 0 if batch.source is None else batch.source.shape[1]
    t, s = max(model.n_ctx - T, 0) if R == T else 0, max((model.source_n_ctx or model.n_ctx) - S, 0) if S else 0
    if not (t or s):
        return batch
    asked = np.ones(batch.targets.shape) if batch.weights is None else batch.weights
    there = None
    if batch.source is not None:
        there = np.ones(batch.source.shape, bool) if batch.source_mask is None else batch.source_mask
    new = Batch(batch.tokens, batch.targets, asked, batch.source, there, batch.ids, batch.source_ids)
    more = (t, t, t, s, s, t, s)
    return Batch(*(None if a is None else np.pad(a, ((0, 0), (0, n))) for a, n in zip(new, more, strict=True)))


def loss_settings(objective: Any) -> dict[str, Any]:
    """The keyword arguments of the cross-entropy, from training's objective."""
    return {key: getattr(objective, key) for key in ("variant", "smoothing", "never", "temperature")}


class _Axis:
    """An axis of provenance, over every tensor that has it."""

    def __init__(self, axis: str) -> None:
        self.axis, self.divided, self.fits = axis, None, False

    def __call__(self, params: Any, batch: Batch, objective: Any) -> dict[str, Shares]:
        if self.axis in PLACES:
            batch = wide(batch, objective.model)
        t = self._traced(params, batch, objective.model, loss_settings(objective))
        if self.axis == "route" and (quick := routes.one_layer(t)) is not None:
            whole = {name: Shares((ALL,), g[None]) for name, g in t.weight_gradients.items()}
            return whole | {name: Shares(*parts) for name, parts in quick.items()}
        if self.divided is None:
            self.divided = [name for name in t.weights if self._divides(t, name)]
            if not self.divided:
                raise BadInput(f"no tensor of this model is divided by {self.axis}; allowed: {', '.join(BY)}")
        found = {name: Shares((ALL,), g[None]) for name, g in t.weight_gradients.items()}
        for name, s in provenance.splits(t, self.divided, self.axis).items():
            found[name] = Shares(s.labels[0], _whole(s))
        return found

    def _traced(self, params: Any, batch: Batch, cfg: ModelConfig, settings: dict[str, Any]) -> Trace:
        """The first trace is refused where it would not fit; later ones are as large, and not measured again."""
        t = _trace(params, batch, cfg, settings) if self.fits else trace(params, batch, cfg, **settings)
        self.fits = True
        return t

    def _divides(self, t: Trace, name: str) -> bool:
        try:
            return len(provenance.split(t, name, self.axis).labels[0]) > 0
        except BadInput:
            return False


def _whole(s: provenance.Split) -> Array:
    """Parts of the tensor's own shape: where a part is a slice of the tensor, the rest of it is zero."""
    slot = s.slots[0]
    if slot is None:
        return s.parts
    out = np.zeros((len(s.labels[0]), *s.plain.shape), dtype=s.plain.dtype)
    for i, part in enumerate(s.parts):
        np.moveaxis(out[i], slot, 0)[i] = part
    return out


def operand(position: int = 0, classes: int | None = None) -> Grouping:
    """By the token at a position of each example's input (its source, where there is one)."""

    def divide(params: Any, batch: Batch, objective: Any) -> dict[str, Shares]:
        tokens = batch.tokens if batch.source is None else batch.source
        if not 0 <= position < tokens.shape[1]:
            raise BadInput(f"the input has positions 0 to {tokens.shape[1] - 1}, received operand:{position}")
        K = int(objective.model.vocab_size) if classes is None else classes
        modulo = "" if classes is None else f" mod {classes}"
        return _by_example(params, batch, objective, tokens[:, position] % K, [f"{k}{modulo}" for k in range(K)])

    return divide


def _by_example(params: Any, batch: Batch, objective: Any, group: Array, labels: list[str]) -> dict[str, Shares]:
    """Each group's examples through the model on their own; their mean loss, weighed by their share of the batch."""
    flat = flatten(params)
    parts = {name: np.zeros((len(labels), *x.shape), dtype=x.dtype) for name, x in flat.items()}
    total = _weight(batch)
    for k in range(len(labels)):
        mine = np.flatnonzero(group == k)
        if len(mine):
            some = map_tree(lambda a, mine=mine: a[mine], batch)
            share = _weight(some) / total
            for name, g in flatten(_gradient(params, some, objective)).items() if share else ():
                parts[name][k] = share * g
    return {name: Shares(tuple(labels), x) for name, x in parts.items()}


def _weight(batch: Batch) -> float:
    return float(batch.targets.size if batch.weights is None else np.sum(batch.weights, dtype=np.float64))


def _gradient(params: Any, batch: Batch, objective: Any) -> Any:
    logits, cache = gates.forward(params, batch, objective.model)
    _, c = cross_entropy.forward(logits, batch.targets, batch.weights, **loss_settings(objective))
    return gates.backward(np.asarray(cross_entropy.backward(c), dtype=logits.dtype), cache, objective.model)


def residual(shares: Mapping[str, Shares], gradient: Mapping[str, Array]) -> float:
    """max|Σ parts − gradient| / max|gradient|, of the worst tensor whose gradient is more than rounding."""
    largest = max(float(np.max(np.abs(g))) for g in gradient.values())
    errors = [0.0]
    for name, g in gradient.items():
        size = float(np.max(np.abs(g)))
        gap = float(np.max(np.abs(shares[name].parts.sum(axis=0) - g)))
        errors.append(gap / (size if size > 1e-10 * largest else largest or 1.0))
    return max(errors)
