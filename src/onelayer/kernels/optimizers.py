"""Kernels of the step past the gradient: optimizers/adamw.py, a tensor's numbers read once, and the gradient's norm.

Tensors are many and small, and what Python does about each takes as long as the work on most of them: the trees are
gone through once, and a thread is woken once for all its tensors.
"""

import inspect
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]

from .. import threads
from ..arrays import flatten, map_tree
from ..optimizers import adamw
from .compile import compiled, fits, lent
from .lanes import inside

_JOIN = inspect.signature(adamw.update).parameters["join"].default
WORTHWHILE = 3 << 17  # numbers of all tensors below which a second thread costs more than it brings


@inside
def _numbers_at(context, address, like):
    """Inside a kernel: where the numbers at this address begin, of the kind of an array's."""

    def pointed(context, builder, _, args):
        return builder.inttoptr(args[0], context.get_value_type(like.dtype).as_pointer())

    return types.CPointer(like.dtype)(address, like), pointed


@lent
def _note(table, i, p, g, m, v, new_p, new_m, new_v):
    """Where each of a tensor's arrays lies, and how long it is."""
    row = table[i]
    row[0], row[1], row[2], row[3] = p.ctypes.data, g.ctypes.data, m.ctypes.data, v.ctypes.data
    row[4], row[5], row[6], row[7] = new_p.ctypes.data, new_m.ctypes.data, new_v.ctypes.data, p.size


@compiled
def _adamw(table, settings):
    for i in range(len(table)):
        row, size = table[i], table[i, 7]
        p, g = carray(_numbers_at(row[0], settings), size), carray(_numbers_at(row[1], settings), size)
        m, v = carray(_numbers_at(row[2], settings), size), carray(_numbers_at(row[3], settings), size)
        new_p, new_m = carray(_numbers_at(row[4], settings), size), carray(_numbers_at(row[5], settings), size)
        new_v = carray(_numbers_at(row[6], settings), size)
        _move(p, g, m, v, new_p, new_m, new_v, settings[i])


@lent
def _move(p, g, m, v, new_p, new_m, new_v, settings):
    beta1, rest1, beta2, rest2 = settings[0], settings[1], settings[2], settings[3]
    decay, pace, root, eps = settings[4], settings[5], settings[6], settings[7]
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
    old, factors = [], []

    def put(*each: Any, factor: Any = 1.0) -> None:
        old.append([np.asarray(x, order="C") for x in each])
        factors.append(float(factor))

    trees = params, grads, state.m, state.v
    if decay_mask is None:
        map_tree(put, *trees)
    else:
        map_tree(lambda *each: put(*each[:-1], factor=each[-1]), *trees, decay_mask)
    if join is not _JOIN or not fits(*(x for each in old for x in each)):
        return definition(
            grads, state, params, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
            decay_mask=decay_mask, join=join,
        )  # fmt: skip
    count = np.asarray(state.count + 1)
    t = float(count)
    pace, root = -lr / (1 - beta1**t), 1 / np.sqrt(1 - beta2**t)
    new = [[np.empty_like(p) for _ in range(3)] for p, *_ in old]
    table, settings = np.empty((len(old), 8), np.int64), np.empty((len(old), 8), old[0][0].dtype)
    settings[:] = beta1, 1 - beta1, beta2, 1 - beta2, 0, pace, root, eps
    settings[:, 4] = [-lr * weight_decay * factor for factor in factors]
    for i, (before, after) in enumerate(zip(old, new, strict=True)):
        _note(table, i, *before, *after)
    edges = _edges([p.size for p, *_ in old])
    threads.spread(lambda k: _adamw(table[edges[k] : edges[k + 1]], settings[edges[k] : edges[k + 1]]), len(edges) - 1)
    moved, first, second = (_in_tree(params, iter(x)) for x in zip(*new, strict=True))
    return moved, adamw.State(count, first, second)


def _in_tree(like: Any, tensors: Iterator[Any]) -> Any:
    return map_tree(lambda _: next(tensors), like)


def _edges(sizes: list[int]) -> list[int]:
    """Tensors of these sizes, cut into a run for each thread: those whose middle lies in its part of all numbers."""
    total, n = sum(sizes), threads.count()
    if n == 1 or total < WORTHWHILE:
        return [0, len(sizes)]
    middles = [end - size / 2 for end, size in zip(accumulate(sizes), sizes, strict=True)]
    return [0, *(bisect_left(middles, total * k / n) for k in range(1, n)), len(sizes)]


def norm(definition: Any, tree: Any) -> Any:
    """By BLAS, which reads each number once."""
    tensors = flatten(tree).values()
    real = all(isinstance(x, np.ndarray) and x.dtype in (np.float32, np.float64) for x in tensors)
    return np.sqrt(sum(np.vdot(x, x) for x in tensors)) if real else definition(tree)


KERNELS = {"optimizers.adamw.update": update, "training.step.norm": norm}
