"""Tasks: what a model is asked, what it should answer, and which questions it is trained on. This file is the registry.

A task is data. `make(name, **settings)` draws it from its settings and a seed, so that the same call gives the same
bits, and a run can be repeated from its config alone. Adding one is a file with a `make(...) -> Task` and a line below.

Reading   A model sees `tokens` [B T] and is judged on its last R positions alone: `targets` [B R], R being the task's
          `read`. R = 1 for `a b =` (the answer is said at `=`), R = T for a language model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from onelayer.arrays import Array
from onelayer.errors import unknown

__all__ = ["TASKS", "Batch", "Task", "get", "make"]


class Batch(NamedTuple):
    tokens: Int[Array, "B T"]  # decoder input
    targets: Int[Array, "B R"]  # what the last R positions must say (R = Task.read; R = T for language models)
    weights: Float[Array, "B R"] | None = None  # loss weight, 0 on padding; None: all ones
    source: Int[Array, "B S"] | None = None  # encoder input (encoder-decoder tasks)
    source_mask: Bool[Array, "B S"] | None = None  # True where a real token stands
    ids: Int[Array, "B T"] | None = None  # where the tokens stand, if not at 0, 1, 2 …: positions/ids.py
    source_ids: Int[Array, "B S"] | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """A task drawn: its two splits, and what is known about them.

    groups: named index sets into the test split, e.g. "mirror_free"; each is evaluated on its own.
    facts:  what analyses and reports want to know; "warnings" is a list of sentences that a caller should show.
    """

    name: str
    vocabulary: tuple[str, ...]
    n_ctx: int
    read: int
    train: Batch  # finite tasks: the whole of either split
    test: Batch
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


TASKS = {  # name: the module whose `make` draws it; imported when asked for
    "arithmetic": "onelayer.tasks.arithmetic",
    "addition": "onelayer.tasks.addition",
    "parity": "onelayer.tasks.parity",
    "probes": "onelayer.tasks.probes",
}


def get(name: str) -> Callable[..., Task]:
    """The `make` of the task called `name`."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return import_module(TASKS[name]).make


def make(name: str, **settings: Any) -> Task:
    """`make("arithmetic", operation="x + y", p=113)`: the task drawn from its settings."""
    return get(name)(**settings)
