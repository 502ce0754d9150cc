"""Optimizers: how parameters move once their gradient is known. This file is the registry.

A step    grads → filters → optimizer, at lr × schedule(step) → projections

optimizer    init(params) -> State     update(grads, state, params, *, lr, …) -> (params, state)
             A new tensor is join(p, decay, gradient) = p + decay + gradient; with join=Parts the step comes back
             taken apart, under flat names such as `embed.W_E.decay`.
filter       init(params) -> State     apply(grads, state, params, …) -> (grads, state)
projection   init(params) -> State     project(params, state) -> params
schedule     schedule(step, …) -> what the learning rate is multiplied by

All are pure. Trees are nested NamedTuples of arrays, as the model's parameters are; a number that multiplies (lr,
weight_decay, …) may be a Python number or a 0-d array, traced or not. Adding a method is a file and a line below.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

from onelayer.arrays import Array, flatten, unflatten
from onelayer.errors import BadInput, unknown

__all__ = ["FILTERS", "OPTIMIZERS", "PROJECTIONS", "SCHEDULES", "Parts", "decay_mask", "get", "make", "settings"]

# name: where it stands; imported when asked for
OPTIMIZERS = {name: f"onelayer.optimizers.{name}" for name in ("adamw", "adam", "sgd", "lion", "muon")}
FILTERS = {f: f"onelayer.optimizers.filters.{f}" for f in ("clip", "grokfast_ema", "grokfast_ma", "orthogonal")}
PROJECTIONS = {name: f"onelayer.optimizers.projections.{name}" for name in ("constant_norm", "frozen")}
SCHEDULES = dict.fromkeys(
    ("constant", "linear_warmup", "cosine", "inverse_sqrt", "noam"), "onelayer.optimizers.schedules"
)
KINDS = {"optimizer": OPTIMIZERS, "filter": FILTERS, "projection": PROJECTIONS, "schedule": SCHEDULES}

_ALLOWED = {  # the setting, wherever it occurs: what it may be, in words and as a test; all others are non-negative
    **dict.fromkeys(
        ("beta1", "beta2", "adam_beta1", "adam_beta2", "momentum", "alpha"), ("0 ≤ {} < 1", lambda x: 0 <= x < 1)
    ),
    **dict.fromkeys(("eps", "adam_eps", "max_norm", "scale"), ("0 < {} < ∞", lambda x: 0 < x < math.inf)),
    **dict.fromkeys(("window", "ns_steps", "total", "d_model"), ("a whole number, 1 ≤ {}", lambda x: x >= 1)),
    "floor": ("0 ≤ {} ≤ 1", lambda x: 0 <= x <= 1),
}
_OTHERWISE = ("0 ≤ {} < ∞", lambda x: 0 <= x < math.inf)


class Parts(NamedTuple):
    """One tensor's step taken apart: its new value is their sum. `update(…, join=Parts)` has one at each leaf."""

    before: Array
    decay: Array
    gradient: Array


def get(name: str, kind: str = "optimizer") -> Any:
    """The module called `name` (of a schedule: the function)."""
    if kind not in KINDS:
        raise unknown("kind of training rule", kind, KINDS)
    if name not in KINDS[kind]:
        raise unknown(kind, name, KINDS[kind])
    module = import_module(KINDS[kind][name])
    return getattr(module, name) if kind == "schedule" else module


def _functions(method: Any) -> dict[str, Callable[..., Any]]:
    names = ("init", "update", "apply", "project")
    return {name: getattr(method, name) for name in names if hasattr(method, name)}


def _keywords(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only arguments that are plain numbers, switches or words, with their defaults."""
    named = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in named if p.kind is p.KEYWORD_ONLY and isinstance(p.default, int | float | str)}


def settings(name: str, kind: str = "optimizer") -> dict[str, Any]:
    """Every setting of a method with its default: `settings("adamw")["beta2"]` is 0.999."""
    method = get(name, kind)
    found: dict[str, Any] = {}
    for function in [method] if kind == "schedule" else _functions(method).values():
        found |= _keywords(function)
    return found


def make(name: str, kind: str = "optimizer", **given: Any) -> Any:
    """A method with its settings filled in: `make("adamw", weight_decay=1.0).update(grads, state, params, lr=1e-3)`.

    It has the module's functions (a schedule is one function). Bad settings are refused; arrays are not looked at.
    """
    method, known = get(name, kind), settings(name, kind)
    for key, value in given.items():
        if key not in known:
            raise unknown(f"setting of {kind} {name}", key, known)
        _check(f"{name}'s {key}", key, value, known[key])
    if kind == "schedule":
        return partial(method, **given)
    functions = _functions(method)
    takes = {job: _keywords(f) for job, f in functions.items()}
    return SimpleNamespace(**{
        job: partial(f, **{k: v for k, v in given.items() if k in takes[job]}) for job, f in functions.items()
    })  # fmt: skip


def _check(what: str, key: str, value: Any, default: Any) -> None:
    """Refuse a Python value of the wrong type or out of its range."""
    if not isinstance(value, bool | int | float | str):
        return
    words, fits = _ALLOWED.get(key, _OTHERWISE)
    if isinstance(default, bool | str):
        words, right = f"a {type(default).__name__}", type(value) is type(default)
    elif isinstance(value, bool | str) or (isinstance(default, int) and isinstance(value, float)):
        right = False
    else:
        right = fits(value)
    if not right:
        raise BadInput(f"{what} cannot be {value!r}; allowed: {words.format(key)}; its default is {default!r}")


def decay_mask(params: Any, factors: Mapping[str, float | int]) -> Any:
    """A tree like params of what weight_decay is multiplied by, chosen by patterns over the flat names.

    `decay_mask(params, {"*.b_*": 0, "*.ln*": 0, "embed.*": 0.1})`: 1 where no pattern fits; the last that fits counts.
    """
    names = list(flatten(params))
    for pattern in factors:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise unknown("tensor in the weight decay's exceptions", pattern, names)
    mask = dict.fromkeys(names, 1.0)
    for pattern, factor in factors.items():
        mask |= {name: factor for name in names if fnmatchcase(name, pattern)}
    return unflatten(mask, params)
