"""Benchmarks: this package's training step beside its peers', in one process, in turn, as medians with their spread.

A case is a workload with its arithmetic counted; a contender is one way to carry it out. `run` builds every contender
that is installed, lets all of them warm up, then goes round and round: each takes its turn in every round, between two
measurements of the machine's own matrix-product rate, so that a noisy neighbour disturbs all alike. Ratios of medians
are what is compared; milliseconds are of this machine and this hour.

Adding a case is a file with a `case() -> Case` and a line in CASES.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ..errors import unknown

__all__ = ["CASES", "Case", "Contender", "NotInstalled", "get"]

CASES = {  # name: (the module, what `case` is called with)
    "grok": (".grok", ()),
    "encoder-decoder": (".encoder_decoder", ()),
    "language-model-1": (".language_model", (1,)),
    "language-model-4": (".language_model", (4,)),
    "long-1024": (".long_context", (1024,)),
    "long-4096": (".long_context", (4096,)),
    "generation": (".generation", ()),
    "microscope": (".microscope", ()),
}


class NotInstalled(Exception):
    """A contender's library is absent; the text says what to install."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work. make() -> a function that does it once, and waits until it is done."""

    name: str
    make: Callable[[], Callable[[], Any]]
    flops: float | None = None  # of its matrix products, where they differ from the case's
    memory: Callable[[], dict[str, float]] | None = None  # "peak" and "allocated" bytes of one step


@dataclass(frozen=True)
class Case:
    name: str
    text: str  # what is measured, in a sentence
    contenders: tuple[Contender, ...]
    flops: float | None  # the arithmetic of the matrix products that the work needs
    rows: tuple[int, int, int]  # the product whose rate stands for the machine's: m × k × n
    bounds: tuple[tuple[str, str, float], ...] = ()  # (one, other): at least so many times faster; "ours": our best
    costs: tuple[tuple[str, str, float], ...] = ()  # (what, unit): at most so many units
    facts: dict[str, Any] = field(default_factory=dict)


def get(name: str) -> Case:
    if name not in CASES:
        raise unknown("benchmark", name, CASES)
    module, arguments = CASES[name]
    return import_module(module, __package__).case(*arguments)


def products(*shapes: tuple[float, ...]) -> float:
    """Arithmetic of matrix products (m, k, n[, how many]): 2 m k n each; a training step does each three times."""
    return sum(2.0 * m * k * n * (count[0] if count else 1) for m, k, n, *count in shapes)


def all_cases() -> Iterator[Case]:
    return (get(name) for name in CASES)
