"""Kernel of optimizers/adamw.py: both moments and the step in one pass over a tensor."""

import inspect
from functools import cache
from typing import Any

import numpy as np

from ..arrays import flatten, unflatten
from ..optimizers import adamw
from .compile import compiled, fits, spread

_JOIN = inspect.signature(adamw.update).parameters["join"].default


@compiled
def _adamw(first, part, p, g, m, v, new_p, new_m, new_v, numbers):
    beta1, rest1, beta2, rest2, decay, pace, root, eps = numbers
    for i in range(p.size):
        mean = beta1 * m[i] + rest1 * g[i]
        second = beta2 * v[i] + rest2 * (g[i] * g[i])
        new_m[i] = mean
        new_v[i] = second
        new_p[i] = p[i] + decay * p[i] + pace * mean / (root * np.sqrt(second) + eps)


def update(
    definition: Any, grads: Any, state: Any, params: Any, *,
    lr: Any = 1e-3, beta1: Any = 0.9, beta2: Any = 0.999, eps: Any = 1e-8, weight_decay: Any = 0.01,
    decay_mask: Any = None, join: Any = _JOIN,
) -> Any:  # fmt: skip
    p, g, m, v = (
        {name: np.ascontiguousarray(x) for name, x in flatten(tree).items()}
        for tree in (params, grads, state.m, state.v)
    )
    if join is not _JOIN or not all(fits(p[n], g[n], m[n], v[n]) for n in p):
        return definition(
            grads, state, params, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
            decay_mask=decay_mask, join=join,
        )  # fmt: skip
    count = np.asarray(state.count + 1)
    t = float(count)
    pace, root = -lr / (1 - beta1**t), 1 / np.sqrt(1 - beta2**t)
    share = dict.fromkeys(p, 1.0) if decay_mask is None else flatten(decay_mask)

    @cache
    def numbers(kind: Any, share: float) -> tuple[Any, ...]:
        settings = (beta1, 1 - beta1, beta2, 1 - beta2, -lr * weight_decay * share, pace, root, eps)
        return tuple(kind.type(number) for number in settings)

    new: tuple[dict[str, Any], ...] = ({}, {}, {})
    for name, x in p.items():
        outs = np.empty_like(x), np.empty_like(x), np.empty_like(x)
        flat = [a.reshape(-1) for a in (x, g[name], m[name], v[name], *outs)]
        spread(_adamw, x.size, tuple(flat), (numbers(x.dtype, float(share[name])),))
        for tensors, out in zip(new, outs, strict=True):
            tensors[name] = out
    moved, first, second = (unflatten(tensors, params) for tensors in new)
    return moved, adamw.State(count, first, second)


KERNELS = {"optimizers.adamw.update": update}
