"""Small statistics for few seeds: medians in which a censored run is infinitely late, and intervals, which are wide.

median      of the values, a None (it did not happen up to the last step) counting as +∞
interval    of the median: order statistics whose coverage, by the binomial, is at least 95 %; of fewer than 6 values
            the least and the most, whose coverage is 1 − 2^(1−n): 94 % for 5, 75 % for 3
share       Wilson's 95 % interval of k successes in n
bootstrap   percentile interval of a statistic over resampled rows, from a fixed generator
line        least squares y = a + b x, with R²

Source      Median: David & Nagaraja 2003, Order Statistics, 7.1. Share: Wilson 1927. Bootstrap: Efron 1979.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..arrays import generator

__all__ = ["Line", "Middle", "bootstrap", "line", "middle", "share"]

Z = 1.959963984540054  # of the normal distribution, two-sided 95 %


class Middle(NamedTuple):
    """inf: more than half of the runs, or the run at that end, are censored."""

    median: float
    low: float
    high: float
    n: int
    censored: int


class Line(NamedTuple):
    a: float
    b: float
    r2: float


def middle(values: Sequence[float | None]) -> Middle:
    if not values:
        return Middle(math.nan, math.nan, math.nan, 0, 0)
    ordered = sorted(math.inf if v is None else float(v) for v in values)
    n = len(ordered)
    below = ranks(n)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Middle(median, ordered[below], ordered[n - 1 - below], n, sum(v is None for v in values))


def ranks(n: int) -> int:
    """How many values may lie below the interval of the median, and as many above it."""
    below, tail = 0, 2.0**-n  # tail: the chance that the median is beyond the value of rank `below`
    while tail + math.comb(n, below + 1) / 2**n <= 0.025:
        below += 1
        tail += math.comb(n, below) / 2**n
    return below


def share(k: int, n: int) -> tuple[float, float]:
    centre, spread = (k + Z**2 / 2) / (n + Z**2), Z * math.sqrt(k * (n - k) / n + Z**2 / 4) / (n + Z**2)
    return max(0.0, centre - spread), min(1.0, centre + spread)


def bootstrap(
    rows: Sequence[tuple[float, ...]], of: Callable[[np.ndarray], float], times: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of `of(rows)`; a resample in which it cannot be told (nan) is left out."""
    data, rng = np.asarray(rows, dtype=float), generator(seed, "bootstrap")
    values = [of(data[rng.integers(0, len(data), len(data))]) for _ in range(times)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def line(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> Line:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 2 or np.ptp(x) == 0:
        return Line(math.nan, math.nan, math.nan)
    b, a = np.polyfit(x, y, 1)
    left = float(np.sum((y - a - b * x) ** 2))
    return Line(float(a), float(b), 1 - left / float(np.sum((y - np.mean(y)) ** 2)))
