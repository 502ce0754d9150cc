"""Characters: the waves in which an operation on n numbers becomes a product, and what a table holds of each.

Shapes    basis F [n n], orthonormal rows     frequency [n], that of each row, 0 for the constant
          table T [n n *rest], a number for each pair (x, y) of places     profile S [n *rest]

Places    x stands for the number a[x] on the left, b[x] on the right, c[x] in the answer, so ordered that the operation
          is the group's product of places:
          x + y   a = b = c = 0, 1, 2 …                    x − y   b = 0, −1, −2 …
          x · y   a = b = c = 1, g, g² …, g a primitive root of the prime p; zero has no place
          x / y   the same with b = 1, g⁻¹, g⁻² …         x xor y  the group is Z₂ⁿ
          D_n, S_n, A_n   a place is an element, a = b = c; a "frequency" is then the number of an irreducible
                  representation, and its waves are the matrix elements (representations.py)
          One set of formulas then serves them all.

Basis     cyclic  F_0 = 1/√n, F_{2k−1} = √(2/n) cos 2πkx/n, F_{2k} = √(2/n) sin 2πkx/n, k up to and including (n − 1)/2
                  (even n: and (−1)^x/√n at k = n/2)
          Walsh   F_k = (−1)^{ones in the binary k & x}/√n

Families  of the energy Σ T̂², T̂ = F T Fᵀ over (x, y), constant row and column apart:
          constant, left only, right only, sum (functions of x∘y), difference (of x∘y⁻¹; of a group that does not
          commute, all else in which both sides have one representation), mixed (all others)
          The part of frequency k along the sum, P_k T: S[s] = mean of T over the pairs with x∘y = s, then
          F_kᵀF_k S at s = x∘y.

Source    Nanda et al. 2023, arXiv:2301.05217, sections 4.1 to 4.3, for addition; elsewhere the same with the group's
          own characters; Chughtai et al. 2023, arXiv:2302.03025, for groups that do not commute.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import BadInput
from ..tasks import operations
from ..tasks.operations import Group, product_table
from . import representations
from .fourier import powers_of_a_root


class Characters(NamedTuple):
    basis: np.ndarray
    frequency: np.ndarray
    product: np.ndarray  # [n, n] places
    quotient: np.ndarray  # [n, n]
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray | None  # None: the answer is another function of the product
    names: tuple[str, ...] | None = (
        None  # of the representations, the trivial one's first; None: frequencies are numbers
    )

    @property
    def frequencies(self) -> list[int]:
        """All but the constant."""
        return sorted(set(self.frequency.tolist()) - {0})

    def name(self, k: int) -> int | str:
        """What a frequency is called."""
        return k if self.names is None else self.names[k]

    def rows(self, frequencies: Iterable[int]) -> np.ndarray:
        """The basis functions [m, n] of these frequencies."""
        return self.basis[np.isin(self.frequency, list(frequencies))]


def waves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(F, frequency) of the cyclic group."""
    frequency = (np.arange(n) + 1) // 2
    angle = 2 * np.pi * frequency[:, None] * np.arange(n) / n
    basis = np.sqrt(2 / n) * np.where(np.arange(n)[:, None] % 2 == 1, np.cos(angle), np.sin(angle))
    basis[0] = 1 / np.sqrt(n)
    if n % 2 == 0:
        basis[-1] = np.cos(np.pi * np.arange(n)) / np.sqrt(n)
    return basis, frequency


def cyclic(a: np.ndarray, b: np.ndarray, c: np.ndarray | None) -> Characters:
    n = len(a)
    basis, frequency = waves(n)
    x = np.arange(n)
    return Characters(basis, frequency, (x[:, None] + x) % n, (x[:, None] - x) % n, a, b, c)


def walsh(n: int) -> Characters:
    x = np.arange(n)
    basis = (-1.0) ** np.bitwise_count(x[:, None] & x) / np.sqrt(n)
    product = x[:, None] ^ x
    return Characters(basis, x, product, product, x, x, x)


def group(g: Group, c: np.ndarray | None) -> Characters:
    """The matrix elements of its irreducible representations."""
    found, product = representations.of(g), product_table(g)
    n = len(product)
    frequency = np.repeat(np.arange(len(found)), [len(one.rows) for one in found])
    basis = np.concatenate([np.full((1, n), n**-0.5), *(one.rows for one in found[1:])])
    quotient = product[:, representations.inverses(product)]
    x = np.arange(n)
    return Characters(basis, frequency, product, quotient, x, x, c, tuple(one.name for one in found))


def of(facts: Mapping[str, Any]) -> Characters:
    """Those of a task of numbers; BadInput says why there are none."""
    p, name, basis = facts["p"], facts["operation"], facts["basis"]
    if facts["table"].ndim != 2:
        raise BadInput(f"{name} has {facts['table'].ndim} operands; the transform is over pairs (a, b)")
    if basis is None:
        raise BadInput(f"no Fourier basis is known to fit {name}; operations that have one: docs/tasks.md")
    if basis == "group":
        known = operations.find(name).group
        assert known is not None
        if not name.endswith(": x*y"):
            raise BadInput(f"{name} is no function of the product x·y, by which representations are read; those of its "
                           f"group fit {known.name}: x*y")  # fmt: skip
        return group(known, np.arange(p))
    if basis == "walsh":
        return walsh(p)
    if p < 5 or any(p % d == 0 for d in range(2, int(p**0.5) + 1)):
        raise BadInput(f"the frequencies of {name} need an odd prime p of at least 5, at which each of them tells all "
                       f"numbers apart; received p = {p}. Train with p = 97 or 113")  # fmt: skip
    x = np.arange(p)
    if basis == "log":
        powers = powers_of_a_root(p)
        return cyclic(powers, powers if name == "x * y" else np.roll(powers[::-1], 1), powers)
    if basis == "difference":
        return cyclic(x, -x % p, x)
    return cyclic(x, x, None if name == "(x + y)**2" else x)


# ---------------------------------------------------------------------------------------------------- one axis


def energy_by_frequency(table: np.ndarray, ch: Characters) -> np.ndarray:
    """[n frequencies and the constant first]: Σ over *rest of (F_j · table)² for the rows j of each."""
    energy = np.sum((ch.basis @ table.reshape(len(table), -1)) ** 2, axis=1)
    return np.bincount(ch.frequency, weights=energy)


def gini(x: np.ndarray) -> float:
    """Σ (2i − n − 1) x_i / (n Σ x), x ascending, i from 1: 0 where all are equal, towards 1 where one has it all."""
    x = np.sort(np.abs(np.ravel(x)))
    n = x.size
    return float(np.sum((2 * np.arange(1, n + 1) - n - 1) * x) / (n * np.sum(x)))


def entropy(shares: np.ndarray) -> float:
    """−Σ q ln q with q = shares/Σ shares, 0 ln 0 being 0: the log of how many things the shares are spread over."""
    q = np.ravel(shares) / np.sum(shares)
    q = q[q > 0]
    return float(-np.sum(q * np.log(q)))


def component_norms(table: np.ndarray, ch: Characters) -> np.ndarray:
    """‖F_j · table‖ for each row j. Of a group's representation only the whole has a meaning, for its basis could be
    turned: its rows get their root mean square each."""
    norms = np.linalg.norm(ch.basis @ table.reshape(len(table), -1), axis=1)
    if ch.names is None:
        return norms
    count = np.bincount(ch.frequency)
    return np.sqrt(np.bincount(ch.frequency, weights=norms**2) / count)[ch.frequency]


# ---------------------------------------------------------------------------------------------------- two axes


def transform(table: np.ndarray, ch: Characters) -> np.ndarray:
    """F T Fᵀ over the first two axes; the others ride along."""
    once = np.tensordot(ch.basis, table, axes=(1, 0))
    return np.moveaxis(np.tensordot(ch.basis, once, axes=(1, 1)), 0, 1)


def profile(table: np.ndarray, product: np.ndarray) -> np.ndarray:
    """S[s]: the mean of T over the pairs whose product is s."""
    partner = np.argsort(product, axis=1)  # a row is a permutation: partner[x, s] is the y with x∘y = s
    return np.mean(table[np.arange(len(table))[:, None], partner], axis=0)


def along(table: np.ndarray, product: np.ndarray, ch: Characters, frequencies: Iterable[int]) -> np.ndarray:
    """Σ_k P_k T: what T holds in the waves of these frequencies over the product (or the quotient)."""
    rows = ch.rows(frequencies)
    return np.tensordot(rows.T, np.tensordot(rows, profile(table, product), axes=(1, 0)), axes=(1, 0))[product]


def sum_energy(table: np.ndarray, product: np.ndarray, ch: Characters) -> np.ndarray:
    """[frequency]: the energy ‖P_k T‖², the constant's first."""
    return len(table) * energy_by_frequency(profile(table, product), ch)


def families(table: np.ndarray, ch: Characters) -> dict[str, float]:
    """Shares of Σ T²; they add up to 1."""
    energy = transform(table, ch) ** 2
    total = float(np.sum(energy))
    constant, left, right = (float(np.sum(e)) for e in (energy[0, 0], energy[1:, 0], energy[0, 1:]))
    same = (ch.frequency[:, None] == ch.frequency) & (ch.frequency > 0)
    summed = float(np.sum(sum_energy(table, ch.product, ch)[1:]))
    diagonal = float(np.sum(energy[same]))
    parts = {"constant": constant, "left only": left, "right only": right, "sum": summed,
             "difference": max(diagonal - summed, 0.0)}  # fmt: skip
    parts["mixed"] = max(total - sum(parts.values()), 0.0)
    return {name: part / total for name, part in parts.items()}
