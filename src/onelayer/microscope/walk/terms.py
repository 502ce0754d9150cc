"""A term: one summand with its name, how it came about, and how to take it apart further."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ...arrays import Array

__all__ = ["Term", "bias_term", "elements", "num", "unit"]


class Term(NamedTuple):
    name: str
    formula: str
    value: float
    expand: Callable[[], "list[Term]"] | None = None


def num(x: float) -> str:
    return f"{x:.4g}"


def unit(n: int, i: int, size: float = 1.0) -> Array:
    u = np.zeros(n)
    u[i] = size
    return u


def bias_term(name: str, bias: Array | None, u: Array) -> list[Term]:
    return [] if bias is None else [Term(name, "u · bias", float(u @ bias), lambda: elements(name, bias, u))]


def elements(name: str, x: Array, u: Array, shown: Iterable[str] | None = None) -> list[Term]:
    words = [num(float(one)) for one in x] if shown is None else list(shown)
    return [
        Term(f"{name}, element {i}", f"{num(float(u[i]))} · {words[i]}", float(u[i] * x[i])) for i in np.flatnonzero(u)
    ]
