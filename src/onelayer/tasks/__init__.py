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
from onelayer.tasks.units import Units

__all__ = [
    "FROM_FILES", "NUMBERS", "TASKS", "WORDS", "Batch", "Pair", "Task", "Text", "Units", "get", "make",
]  # fmt: skip


class Batch(NamedTuple):
    tokens: Int[Array, "B T"]  # decoder input
    targets: Int[Array, "B R"]  # what the last R positions must say (R = Task.read; R = T for language models)
    weights: Float[Array, "B R"] | None = None  # loss weight, 0 on padding; None: all ones
    source: Int[Array, "B S"] | None = None  # encoder input (encoder-decoder tasks)
    source_mask: Bool[Array, "B S"] | None = None  # True where a real token stands
    ids: Int[Array, "B T"] | None = None  # where the tokens stand, if not at 0, 1, 2 …: positions/ids.py
    source_ids: Int[Array, "B S"] | None = None


class Pair(NamedTuple):
    """An example in words: what is read ("" for a language model), and every answer that counts as right."""

    source: str
    references: tuple[str, ...]  # the first is what is trained on


@dataclass(frozen=True, eq=False)
class Text:
    """What a task of strings has beside its arrays: how strings become tokens and come back, and the strings.

    pairs[split][i] is example i of the split's Batch, unpadded and untokenised: metrics are of these strings.
    """

    source: Units | None  # None: a language model, which reads nothing beforehand
    target: Units
    pairs: dict[str, list[Pair]]  # "train", "valid", "test"
    metrics: tuple[str, ...] = ("exact_match",)  # names that decoding/metrics.py knows


@dataclass(frozen=True, eq=False)
class Task:
    """A task drawn: its splits, and what is known about them.

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
    valid: Batch | None = None  # by which a run chooses its best weights and stops; None: there is no such split
    text: Text | None = None  # where the examples come from strings
    source_vocabulary: tuple[str, ...] | None = None  # of the encoder's tokens; None: `vocabulary`
    pad: int | None = None  # the token that fills up; it has no loss, no key, and gets no smoothing mass

    @property
    def source_n_ctx(self) -> int | None:
        """The longest source; None where nothing is read beforehand."""
        return None if self.train.source is None else self.train.source.shape[1]


NUMBERS = {  # name: the module whose `make` draws it; imported when asked for
    "arithmetic": "onelayer.tasks.arithmetic",
    "addition": "onelayer.tasks.addition",
    "parity": "onelayer.tasks.parity",
    "probes": "onelayer.tasks.probes",
}
WORDS = {  # of strings: a model reads one and says another, or says what comes next
    "copy": "onelayer.tasks.copy",
    "reverse": "onelayer.tasks.reverse",
    "sort": "onelayer.tasks.sort",
    "sums": "onelayer.tasks.sums",
    "dates": "onelayer.tasks.dates",
    "numbers": "onelayer.tasks.numbers",
    "phonemes": "onelayer.tasks.phonemes",
    "scan": "onelayer.tasks.scan",
    "pairs": "onelayer.tasks.pairs",
    "language": "onelayer.tasks.language",
}
TASKS = NUMBERS | WORDS
FROM_FILES = ("scan", "pairs", "language")  # which have no default: their settings name the files


def get(name: str) -> Callable[..., Task]:
    """The `make` of the task called `name`."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return import_module(TASKS[name]).make


def make(name: str, **settings: Any) -> Task:
    """`make("arithmetic", operation="x + y", p=113)`: the task drawn from its settings."""
    return get(name)(**settings)
