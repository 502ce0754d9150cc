"""Motion: how an optimizer's step splits over the parts of its gradient, given what all parts share.

A part k has a gradient g_k and a momentum m_k of its own; the sums over k are the optimizer's g and m.

    m_k ← keep m_k + take g_k
    step_k = A (ahead_m m_k + ahead_g g_k)           m_k before it is updated

A is linear, and made from the whole: so Σ step_k is the optimizer's step. What A is:

    sgd      −η                                                exact, nothing is shared
    adam(w)  −η/(1 − β₁ᵗ) / (√v̂ + ε), entry by entry            exact given the second moment v
    lion     −η/|c|, entry by entry; c the interpolated momentum    attributed at the momentum: sign c = c/|c|
    muon     −η s Q, Q the product of Newton–Schulz's factors       attributed at the momentum: NS(G) = Q G

Decay     Decoupled (adamw, lion, muon): −η λ w θ, a part without momentum. Coupled (sgd, adam): λ w θ is one more part
          of the gradient, with a momentum of its own.

Source    optimizers/*.py. That AdamW's momentum is linear in gradients given v: Loshchilov & Hutter 2019,
          arXiv:1711.05101, algorithm 2; attribution through the optimizer over a whole training: Eichin et al. 2025,
          arXiv:2505.20076.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import optimizers
from ..arrays import Array, flatten
from ..errors import unknown
from ..optimizers import muon

__all__ = ["EXACT", "RULES", "Motion", "motions", "note"]


class Motion(NamedTuple):
    keep: float
    take: float
    ahead_m: float
    ahead_g: float
    apply: Callable[[Array], Array]  # A
    decay: Array | None = None  # decoupled: what it moves the weights by
    shrink: Array | None = None  # coupled: what it adds to the gradient


class Step(NamedTuple):
    """What a rule may look at: before and after are the optimizer's states."""

    settings: dict[str, Any]
    lr: float
    before: Any
    after: Any
    gradients: dict[str, Array]  # as the optimizer got them
    params: dict[str, Array]
    factors: dict[str, float]  # of the decay, by tensor


def note(name: str) -> str:
    """In what sense the parts are exact."""
    _known(name)
    return EXACT.get(name, "attributed at the momentum: the step is not linear in it, so each part is given its share")


def motions(name: str, step: Step) -> dict[str, Motion]:
    """The motion of every tensor in one step."""
    _known(name)
    return RULES[name](step)


def _known(name: str) -> None:
    if name not in RULES:
        raise unknown("optimizer that a ledger can take apart", name, RULES)


def _decay(s: Step, name: str) -> Array | None:
    factor = s.settings["weight_decay"] * s.factors.get(name, 1.0)
    return factor * s.params[name] if factor else None


def _scaled(by: Array | float | None) -> Callable[[Array], Array]:
    return lambda x: by * x


def _pushed(by: float, x: Array | None) -> Array | None:
    return None if x is None else by * x


def _sgd(s: Step) -> dict[str, Motion]:
    mu = s.settings["momentum"]
    ahead = (mu * mu, 1 + mu) if s.settings["nesterov"] else (mu, 1.0)
    return {name: Motion(mu, 1.0, *ahead, _scaled(-s.lr), shrink=_decay(s, name)) for name in s.params}


def _adam_scale(s: Step, name: str, lr: float, beta1: float, beta2: float, eps: float) -> Array:
    t, v = int(s.after.count), np.asarray(flatten(s.after.v)[name], dtype=np.float64)
    return -lr / (1 - beta1**t) / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)


def _adaptive(s: Step, decoupled: bool) -> dict[str, Motion]:
    b1, b2, eps = (s.settings[key] for key in ("beta1", "beta2", "eps"))
    found = {}
    for name in s.params:
        scale, decay = _adam_scale(s, name, s.lr, b1, b2, eps), _decay(s, name)
        push = {"decay": _pushed(-s.lr, decay)} if decoupled else {"shrink": decay}
        found[name] = Motion(b1, 1 - b1, b1, 1 - b1, _scaled(scale), **push)
    return found


def _lion(s: Step) -> dict[str, Motion]:
    b1, b2 = s.settings["beta1"], s.settings["beta2"]
    before, found = flatten(s.before.m), {}
    for name, g in s.gradients.items():
        size = np.abs(b1 * np.asarray(before[name], dtype=np.float64) + (1 - b1) * g)
        scale = np.divide(-s.lr, size, out=np.zeros_like(size), where=size > 0)
        found[name] = Motion(b2, 1 - b2, b1, 1 - b1, _scaled(scale), decay=_pushed(-s.lr, _decay(s, name)))
    return found


def _muon(s: Step) -> dict[str, Motion]:
    set_, t, lr = s.settings, int(s.after.count), s.lr
    mu, nesterov, ratio = set_["momentum"], set_["nesterov"], set_["adam_ratio"]
    of_m, of_g = (1 / (1 - mu ** (t + nesterov)), 1 / (1 - mu**t)) if set_["debias"] else (1.0, 1.0)
    ahead = (mu * of_m * mu, mu * of_m * (1 - mu) + (1 - mu) * of_g) if nesterov else (of_m * mu, of_m * (1 - mu))
    b1, b2, eps = (set_[f"adam_{key}"] for key in ("beta1", "beta2", "eps"))
    before, by_adam, found = flatten(s.before.m), set(flatten(s.after.v)), {}
    for name, g in s.gradients.items():
        decay = _decay(s, name)
        if name in by_adam:
            scale = _adam_scale(s, name, lr * ratio, b1, b2, eps)
            found[name] = Motion(b1, 1 - b1, b1, 1 - b1, _scaled(scale), decay=_pushed(-lr * ratio, decay))
        else:
            looked = ahead[0] * np.asarray(before[name], dtype=np.float64) + ahead[1] * g
            turn = _orthogonaliser(name, looked, -lr, set_)
            found[name] = Motion(mu, 1 - mu, *ahead, turn, decay=_pushed(-lr, decay))
    return found


def _orthogonaliser(name: str, g: Array, pace: float, settings: dict[str, Any]) -> Callable[[Array], Array]:
    """The linear map that Newton–Schulz, run on g, is: x ↦ pace s Q x, where Q g = NS(g)."""
    joint = g.ndim == 3 and settings["heads"] == "joint"

    def matrix(x: Array) -> Array:
        if not joint:
            return x
        return x.reshape(-1, x.shape[2]) if name.endswith("W_O") else x.transpose(1, 0, 2).reshape(x.shape[1], -1)

    def back(x: Array) -> Array:
        if not joint:
            return x
        h, d, k = g.shape
        return x.reshape(g.shape) if name.endswith("W_O") else x.reshape(d, h, k).transpose(1, 0, 2)

    whole = matrix(g)
    tall = whole.shape[-2] > whole.shape[-1]
    x = np.swapaxes(whole, -1, -2) if tall else whole
    norm = np.sqrt(np.sum(x * x, axis=(-2, -1), keepdims=True)) + settings["eps"]
    x, q = x / norm, np.eye(x.shape[-2]) / norm
    for _ in range(settings["ns_steps"]):
        a = x @ np.swapaxes(x, -1, -2)
        b = -4.7750 * a + 2.0315 * (a @ a)
        x, q = 3.4445 * x + b @ x, 3.4445 * q + b @ q
    size = pace * muon.SCALINGS[settings["scaling"]](*whole.shape[-2:])
    return lambda y: size * back(matrix(y) @ np.swapaxes(q, -1, -2) if tall else q @ matrix(y))


RULES: dict[str, Callable[[Step], dict[str, Motion]]] = {
    "sgd": _sgd,
    "adam": lambda s: _adaptive(s, decoupled=False),
    "adamw": lambda s: _adaptive(s, decoupled=True),
    "lion": _lion,
    "muon": _muon,
}
EXACT = {
    "sgd": "exact",
    "adam": "exact, given the second moment that all parts share",
    "adamw": "exact, given the second moment that all parts share",
}


def factors(params: Any, patterns: dict[str, float]) -> dict[str, float]:
    """What the decay is multiplied by, tensor by tensor."""
    return flatten(optimizers.decay_mask(params, patterns)) if patterns else {}
