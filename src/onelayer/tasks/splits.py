"""What every finite task does with its examples: divide them, spoil labels on purpose, and know the trivial answer.

Mirrors   An example of a commutative operation and those with its operands exchanged form an orbit: {(a, b), (b, a)},
          or {(a, a)} alone. A network that has learned no more than "order does not matter" answers every test example
          that has a mirror in train, so accuracy is also told on those that have none: the mirror-free ones.

Size      A train fraction f of n examples is floor(f n) of them; f is taken as the decimal number that was written
          (0.29 of 100 is 29, though 0.29 * 100 = 28.999…96 in floating point).
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import TypeGuard

import numpy as np

from onelayer.errors import BadInput

__all__ = [
    "check_seed", "check_share", "check_whole", "distinct", "majority", "mirror_closed_split", "mirror_free", "missing",
    "orbits", "random_split", "replace_labels", "train_size",
]  # fmt: skip

Split = tuple[np.ndarray, np.ndarray]  # the examples of train and of test, as ascending indices


# ---------------------------------------------------------------------------------------------------- checks


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_whole(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise BadInput(f"{name} is a whole number; received {value!r}")
    if not low <= value <= high:
        raise BadInput(f"{name} = {value} is out of range. Allowed: {low:,} to {high:,}")
    return int(value)


def check_share(name: str, value: object) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise BadInput(f"{name} is a share from 0 to 1; received {value!r}")
    return float(value)


def check_seed(seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise BadInput(f"seed is a whole number; received {seed!r}")
    return int(seed)


def train_size(n: int, fraction: object) -> int:
    """floor(fraction * n), so that either split holds at least one example."""
    if not _is_number(fraction) or not 0 < fraction < 1:
        raise BadInput(f"train_fraction = {fraction!r} leaves nothing to train on or nothing to test on. Allowed: more "
                       "than 0 and less than 1, such as 0.3")  # fmt: skip
    size = math.floor(Fraction(str(float(fraction))) * n)
    if not 1 <= size < n:
        raise BadInput(f"train_fraction = {fraction} of {n} examples is {size}: either split needs at least one. "
                       f"Allowed: {1 / n:.3g} up to, not including, 1")  # fmt: skip
    return size


# ---------------------------------------------------------------------------------------------------- splits


def random_split(n: int, size: int, rng: np.random.Generator) -> Split:
    """`size` of n examples, each subset equally likely."""
    order = rng.permutation(n)
    return np.sort(order[:size]), np.sort(order[size:])


def distinct(population: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """n different whole numbers below `population` [n], each sequence equally likely; memory is O(n)."""
    if population < 4 * n:
        return rng.permutation(population)[:n]
    drawn = np.empty(0, dtype=np.int64)
    while len(drawn) < n:
        drawn = np.concatenate([drawn, rng.integers(0, population, n)])
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]  # the first of each, in the order drawn
    return drawn[:n]


def orbits(operands: np.ndarray) -> np.ndarray:
    """operands [N, k] -> for each example the number of its orbit under exchanging operands [N]."""
    return np.unique(np.sort(operands, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def mirror_closed_split(orbit: np.ndarray, size: int, rng: np.random.Generator) -> Split:
    """Whole orbits in random order, each taken into train if it still fits: no test example has a mirror in train.

    Train holds `size` examples, or fewer where no orbit left is small enough (by at most k! - 1 for k operands).
    """
    members = np.bincount(orbit)
    chosen, room = np.zeros(len(members), dtype=bool), size
    for one in rng.permutation(len(members)):
        if members[one] <= room:
            chosen[one], room = True, room - int(members[one])
    return np.flatnonzero(chosen[orbit]), np.flatnonzero(~chosen[orbit])


def mirror_free(orbit: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The places in `test` of the examples of whose orbit none is in train. A diagonal pair (a, a) is its own mirror,
    and not in train if it is in test: it counts."""
    return np.flatnonzero(~np.isin(orbit[test], orbit[train]))


# ---------------------------------------------------------------------------------------------------- labels


def replace_labels(
    targets: np.ndarray, classes: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Replace round(share * N) of the targets [N], drawn at random, each by another of the classes, uniformly.

    Returns the targets, and which were replaced [N]. Every one that was is wrong.
    """
    n = round(share * len(targets))
    replaced = np.zeros(len(targets), dtype=bool)
    if n == 0:
        return targets.copy(), replaced
    if len(classes) < 2:
        raise BadInput(f"label_noise = {share} needs another answer to put in place of the right one; there is none")
    replaced[rng.permutation(len(targets))[:n]] = True
    place = np.searchsorted(classes, targets[replaced])
    spoilt = targets.copy()
    spoilt[replaced] = classes[(place + rng.integers(1, len(classes), n)) % len(classes)]
    return spoilt, replaced


def majority(train: np.ndarray, test: np.ndarray, right: Callable = np.all) -> float:
    """The accuracy on test of always saying what is most frequent in train, position by position.

    train [N, R], test [M, R]; of equally frequent answers the least. `right` says when a row of R counts: all of it, or
    (np.mean) each position for itself.
    """
    guess = np.array([np.bincount(column).argmax() for column in train.T])
    return float(np.mean(right(test == guess, axis=1)))


def missing(classes: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The classes that no training target shows."""
    return np.setdiff1d(classes, train)
