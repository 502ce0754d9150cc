"""Guards decoding/room.py: appending is what concat does, and nobody's tokens change under them."""

from collections.abc import Callable

import numpy as np
import pytest

from onelayer.arrays import generator
from onelayer.decoding.room import LEAST, Room, append


def some(n: int, purpose: str = "") -> np.ndarray:
    return generator(3, "test_room", purpose, n).standard_normal((3, n, 2, 4))


def shares(a: np.ndarray, b: np.ndarray) -> bool:
    return a.base is not None and a.base is b.base


def test_one_after_the_other_is_concat():
    kept, parts, moved = some(0), [some(n, f"{i}") for i, n in enumerate([5, 1, 1, LEAST, 1, 70, 1])], 0
    for i, more in enumerate(parts):
        grown = append(kept, more)
        np.testing.assert_array_equal(grown, np.concatenate(parts[: i + 1], axis=1))
        moved, kept = moved + (not shares(grown, kept)), grown
    assert moved == 3  # at the start, and where there was no more room


def test_two_continuations_of_one_beginning_do_not_meet():
    beginning = append(some(0), some(5))
    one, other = (append(beginning, some(2, name)) for name in ("one", "other"))
    third = append(one, some(1, "third"))
    np.testing.assert_array_equal(beginning, some(5))
    np.testing.assert_array_equal(one, np.concatenate([some(5), some(2, "one")], axis=1))
    np.testing.assert_array_equal(other, np.concatenate([some(5), some(2, "other")], axis=1))
    np.testing.assert_array_equal(third, np.concatenate([some(5), some(2, "one"), some(1, "third")], axis=1))
    assert shares(third, one)
    assert not shares(other, one)


@pytest.mark.parametrize(
    "part",
    [lambda a: a[:, :3], lambda a: a[1:], lambda a: a[::-1], lambda a: a[:, 1:], lambda a: a[:, :, :1],
     lambda a: a[..., ::-1], lambda a: a[[2, 0, 1]], lambda a: a.copy()],
)  # fmt: skip
def test_what_is_not_all_of_it_gets_a_copy(part: Callable[[np.ndarray], np.ndarray]):
    whole = append(some(0), some(5))
    kept = part(whole)
    more = part(some(5, "more"))
    grown = append(kept, more)
    np.testing.assert_array_equal(grown, np.concatenate([kept, more], axis=1))
    np.testing.assert_array_equal(whole, some(5))
    assert not shares(grown, whole)


def test_of_other_precision_they_are_joined():
    kept = append(some(0), some(5))
    grown = append(kept, some(1).astype(np.complex128))
    assert grown.dtype == np.complex128
    assert not isinstance(grown, Room)


def test_on_every_backend(xp):
    np.testing.assert_array_equal(xp(append, some(4), some(2, "more")), np.concatenate([some(4), some(2, "more")], 1))
