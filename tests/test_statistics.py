"""Intervals against their definitions, by counting and by simulation; censored runs count as infinitely late."""

import math

import numpy as np
import pytest

from onelayer.arrays import generator
from onelayer.studies.statistics import Line, bootstrap, line, middle, ranks, share


@pytest.mark.parametrize("n", [1, 3, 5, 6, 11, 20, 64])
def test_the_interval_of_a_median_covers_it(n: int):
    below = ranks(n)

    def coverage(k: int) -> float:  # that the median lies between the values of rank k and n − 1 − k
        return sum(math.comb(n, i) for i in range(k + 1, n - k)) / 2**n

    assert coverage(below) >= 0.95 or below == 0
    assert coverage(below + 1) < 0.95


def test_censored_runs_are_infinitely_late():
    found = middle([30, None, 10])
    assert (found.median, found.low, found.high, found.n, found.censored) == (30, 10, math.inf, 3, 1)
    assert middle([1, 2, 3, 4]).median == 2.5
    assert middle([None, None, 5]).median == math.inf
    assert math.isnan(middle([]).median)


def test_the_share_is_wilsons():
    for k, n in ((0, 5), (3, 5), (17, 20)):
        for p in share(k, n):  # its ends are where the score test just rejects
            if 0 < p < 1:
                assert abs(k / n - p) / math.sqrt(p * (1 - p) / n) == pytest.approx(1.959964, rel=1e-5)
    assert share(0, 5)[0] == 0 and share(5, 5)[1] == 1


def test_the_bootstrap_of_a_mean_is_about_the_normal_interval():
    x = generator(0, "test_statistics").standard_normal(400)
    low, high = bootstrap([(v,) for v in x], lambda rows: float(np.mean(rows)))
    assert low == pytest.approx(np.mean(x) - 1.96 * np.std(x) / 20, abs=0.02)
    assert high == pytest.approx(np.mean(x) + 1.96 * np.std(x) / 20, abs=0.02)


def test_a_line():
    x = np.arange(5.0)
    assert line(x, 3 - 2 * x) == pytest.approx(Line(3, -2, 1))
    y = np.array([0.0, 1, 0, 1, 0])
    assert line(x, y).r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=1e-12)
    assert math.isnan(line([1, 1], [0, 1]).b)
