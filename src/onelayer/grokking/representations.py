"""Irreducible representations of a finite group: the functions on it that belong to each, as an orthonormal basis.

Shapes    product [n n] places: the group's multiplication table, its identity at place 0
          rows [m n] of one representation ρ: m = d², d its dimension, and 2d² for a pair that complex conjugation
          exchanges, which real functions cannot tell apart

What      the matrix elements ρ_ij(g), i, j = 1..d, span the space of ρ; all spaces together are all functions on the
          group (Peter and Weyl). The part of f in it is  P f(g) = d/n Σ_h χ(g⁻¹h) f(h),  χ = tr ρ; a product of group
          elements becomes a product of matrices, ρ(xy) = ρ(x) ρ(y): what cosines are to addition.

How       A[g, h] = w(g⁻¹h), w any numbers that are the same within a class of conjugate elements and of their inverses,
          acts as one number on each of these spaces. With w drawn at random the numbers differ, so the eigenspaces of
          the symmetric A are the spaces, and their sizes give d. No table of characters is needed.

Names     D_n: A1, A2 (and B1, B2 where n is even), E1, E2 …, E_k turning by 2πk/n; S_n: the partition, 3+2;
          others: the dimension, with a letter where there are several, and ± for a pair

Source    Chughtai, Chan & Nanda 2023, arXiv:2302.03025 (logits as characters of a·b·c⁻¹); Stander et al. 2023,
          arXiv:2312.06581. Spaces and characters: Serre 1977, Linear representations of finite groups, chapter 2.
          The sum over a partition's contents: Frobenius 1900, as in Macdonald 1995, I.7.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..arrays import generator
from ..errors import WorkFailed
from ..tasks.operations import Group, product_table

TIE = 1e-7  # eigenvalues closer than this part of the largest are one
DRAWS = 8


class Irreducible(NamedTuple):
    name: str
    dimension: int
    rows: np.ndarray  # [d² n], orthonormal
    character: np.ndarray  # [n]; of a pair, the sum of both


def inverses(product: np.ndarray) -> np.ndarray:
    return np.argmin(product, axis=1)


def classes(product: np.ndarray) -> np.ndarray:
    """[n]: the least element that is conjugate to each."""
    conjugates = product[product, inverses(product)[:, None]]  # x y x⁻¹ at [x, y]
    return conjugates.min(axis=0)


@lru_cache(maxsize=8)
def of(group: Group) -> tuple[Irreducible, ...]:
    """The trivial one first, then by dimension."""
    product = product_table(group)
    spaces = _spaces(product)
    n = len(product)
    found = []
    for rows in spaces:
        whole = rows.T @ rows[:, 0] * n  # d χ, as the space's own delta function at the identity
        d, pair = _dimension(len(rows))
        found.append(Irreducible("pair" if pair else "", d, rows, whole / d))
    trivial = next(i for i, one in enumerate(found) if one.dimension == 1 and np.allclose(one.character, 1))
    first = found.pop(trivial)
    found.sort(key=lambda one: (one.dimension, *(-np.round(one.character, 6))))
    return tuple(_named(group, [first, *found]))


def _spaces(product: np.ndarray) -> list[np.ndarray]:
    inverse, of_class = inverses(product), classes(product)
    merged = np.unique(np.minimum(of_class, of_class[inverse]), return_inverse=True)[1]
    for draw in range(DRAWS):
        w = generator(draw, "class function").standard_normal(merged.max() + 1)
        size = np.bincount(merged)
        value, vector = np.linalg.eigh((w / np.sqrt(size))[merged][product[inverse]])
        cut = np.flatnonzero(np.diff(value) > TIE * np.abs(value).max()) + 1
        spaces = np.split(vector.T, cut)
        if all(_dimension(len(rows))[0] for rows in spaces):
            return spaces
    raise WorkFailed("the representations of this group could not be told apart by their eigenvalues")


def _dimension(m: int) -> tuple[int, bool]:
    """(d, is it a pair) of m = d² or 2d²; d = 0 for any other number, which two spaces with one eigenvalue have."""
    for pair in (False, True):
        d = round((m / (1 + pair)) ** 0.5)
        if d * d * (1 + pair) == m:
            return d, pair
    return 0, False


# ---------------------------------------------------------------------------------------------------- names


def _named(group: Group, found: list[Irreducible]) -> list[Irreducible]:
    if group.family == "D":
        names = [_dihedral(group.n, one) for one in found]
    elif group.family == "S":
        swap = [one.character[1] / one.dimension for one in found]  # place 1 exchanges the last two
        names = [_partition(group.n, one.dimension, round(x * group.n * (group.n - 1) / 2))
                 for one, x in zip(found, swap, strict=True)]  # fmt: skip
    else:
        names = _plain(found)
    return [one._replace(name=name) for one, name in zip(found, names, strict=True)]


def _dihedral(n: int, one: Irreducible) -> str:
    turn, flip = one.character[1], one.character[n]  # r, and s
    if one.dimension == 1:
        return ("A" if turn > 0 else "B") + ("1" if flip > 0 else "2")
    return f"E{round(np.arccos(np.clip(turn / 2, -1, 1)) * n / (2 * np.pi))}"


def _partition(n: int, dimension: int, content: int) -> str:
    """The partition of that dimension (hook lengths) and that sum of column − row; unique up to n = 6."""
    fits = [p for p in _partitions(n, n) if (_hooks(p), _content(p)) == (dimension, content)]
    assert len(fits) == 1
    return "+".join(map(str, fits[0]))


def _partitions(n: int, most: int) -> list[tuple[int, ...]]:
    if n == 0:
        return [()]
    return [(k, *rest) for k in range(min(n, most), 0, -1) for rest in _partitions(n - k, k)]


def _hooks(p: tuple[int, ...]) -> int:
    columns = [sum(row > j for row in p) for j in range(p[0])]
    cells = [(i, j) for i, row in enumerate(p) for j in range(row)]
    hooks = np.prod([p[i] - j + columns[j] - i - 1 for i, j in cells])
    return int(np.prod(np.arange(1, sum(p) + 1)) // hooks)


def _content(p: tuple[int, ...]) -> int:
    return sum(j - i for i, row in enumerate(p) for j in range(row))


def _plain(found: list[Irreducible]) -> list[str]:
    names, dimensions = [], [(one.dimension, one.name) for one in found]
    for i, (d, pair) in enumerate(dimensions):
        alike = dimensions.count((d, pair))
        letter = chr(ord("a") + dimensions[:i].count((d, pair))) if alike > 1 else ""
        names.append(f"{d}{letter}" + ("±" if pair else ""))
    return names
