"""Every operation of the literature on grokking, as a table of answers: one line each, with what is known about it.

Numbers   x, y and the answer lie in 0..p-1; what an operation computes is taken mod p (never negative). A pair that has
          no answer (y = 0 for x / y) holds -1 in the table and is no example.

Groups    An element is its place in a list: permutations of 0..n-1 in lexicographic order (A_n: the even ones among
          them); D_n, of order 2n: the rotations r^k as k, then the reflections r^k s as n + k; Z_n: k. The identity is
          always 0. x*y means first x, then y: of permutations (x*y)(i) = y(x(i)), as in the code of Power et al.
          A name is the group, a colon, and one of x*y, x*y*x^-1, x*y*x: `S5: x*y*x^-1`, `D30: x*y`; `S5` is `S5: x*y`.

Basis     In which Fourier basis an analysis should look: "sum" and "difference" are the characters of Z_p in x + y and
          in x - y, "log" the same after the discrete logarithm, "walsh" the characters of the bits, "group" the matrix
          elements of the group's irreducible representations. None: no basis is known to fit.

Verdicts  What others reported, and where; a figure is theirs, for their model and recipe. "untested": we know of none.
"""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from onelayer.arrays import generator
from onelayer.errors import BadInput, nearest, unknown
from onelayer.tasks import expression
from onelayer.tasks.expression import power_mod

__all__ = ["DEFAULT_P", "OPERATIONS", "Operation", "answers", "find", "is_commutative", "markdown"]

DEFAULT_P = 113
MAX_EXAMPLES = 2**20  # rows of a full table: p up to 1024 for two operands
MAX_ORDER = 1024

Basis = Literal["sum", "difference", "log", "walsh", "group"]


@dataclass(frozen=True)
class Operation:
    name: str
    formula: str
    table: Callable[[int], np.ndarray]  # p -> answers [p] * arity, -1 where there is none
    commutative: bool | None  # None: a user's own, whose table says
    verdict: str
    source: str
    basis: Basis | None = None
    arity: int = 2
    needs: Literal["any", "prime", "power of two"] = "any"
    group: "Group | None" = None  # where x and y live, if not among the numbers 0..p-1; its order is then p


@dataclass(frozen=True)
class Group:
    """Z_n, D_n, S_n or A_n."""

    family: Literal["Z", "D", "S", "A"]
    n: int

    @property
    def order(self) -> int:
        return {"Z": self.n, "D": 2 * self.n}.get(self.family) or math.factorial(self.n) // (1 + (self.family == "A"))

    @property
    def name(self) -> str:
        return f"{self.family}{self.n}"


# ---------------------------------------------------------------------------------------------------- numbers

POWER = "Power et al. 2022, arXiv:2201.02177"
POWER_CODE = f"{POWER}, and its code"
NANDA = "Nanda et al. 2023, arXiv:2301.05217"
DOSHI = "Doshi et al. 2024, arXiv:2406.03495"
XU = "Xu 2026, README of the integrability study"
PAL = "Pal 2026, doi:10.5281/zenodo.19256206"
STANDER = "Stander et al. 2023, arXiv:2312.06581"
FU = "Fu 2026, run logs, doi:10.5281/zenodo.21020292"


def _everywhere(*operands: np.ndarray) -> bool:
    return True


def _tabulate(f: Callable, domain: Callable, arity: int, reduce: bool, p: int) -> np.ndarray:
    operands = np.meshgrid(*[np.arange(p, dtype=np.int64)] * arity, indexing="ij")
    value = np.broadcast_to(f(*operands, p), (p,) * arity)
    return np.where(domain(*operands), value % p if reduce else value, -1).astype(np.int64)


def _numbers(
    name: str, formula: str, f: Callable, commutative: bool, verdict: str, source: str, basis: Basis | None = None, *,
    domain: Callable = _everywhere, arity: int = 2, reduce: bool = True,
    needs: Literal["any", "prime", "power of two"] = "any",
) -> Operation:  # fmt: skip
    """f(x, y, p) over arrays of operands; the answer is f mod p unless `reduce` is off."""
    table = partial(_tabulate, f, domain, arity, reduce)
    return Operation(name, formula, table, commutative, verdict, source, basis, arity, needs)


def _over(x: np.ndarray, y: np.ndarray, p: int) -> np.ndarray:
    """x / y mod a prime p by Fermat's little theorem: the inverse of y is y^(p-2)."""
    return x * power_mod(y, np.asarray(p - 2), p)


def _digit_sum(n: np.ndarray) -> np.ndarray:
    return np.sum([n // 10**k % 10 for k in range(5)], axis=0)


def _logarithm(x: np.ndarray, y: np.ndarray, p: int) -> np.ndarray:
    """The least k >= 0 with x^k = y mod p; -1 where there is none."""
    log, power = np.full(x.shape, -1, dtype=np.int64), np.ones_like(x)
    for k in range(p - 1):
        log = np.where((log < 0) & (power == y) & (x > 0), k, log)
        power = power * x % p
    return log


def _random(x: np.ndarray, y: np.ndarray, p: int) -> np.ndarray:
    return generator(0, "random table", p).integers(0, p, x.shape)


def _quotient_if_odd(x: np.ndarray, y: np.ndarray, p: int) -> np.ndarray:
    return np.where(y % 2 == 1, _over(x, y, p), x - y)


_NUMBERS = (
    _numbers("x + y", "x + y", lambda x, y, p: x + y, True,
             "groks: the field's standard; one layer, p = 113, 30 % at 8,000 to 10,000 steps", NANDA, "sum"),
    _numbers("x - y", "x - y", lambda x, y, p: x - y, False, "groks", POWER, "difference"),
    _numbers("x * y", "x·y", lambda x, y, p: x * y, True,
             "groks; sparse in the characters of the multiplicative group", "Nguyen 2026, arXiv:2606.17399", "log"),
    _numbers("x / y", "x·y⁻¹, y ≠ 0", _over, False, "groks; 50 % with Adam alone takes 10⁵ to 10⁶ steps", POWER, "log",
             domain=lambda x, y: y != 0, needs="prime"),
    _numbers("x**2 + y**2", "x² + y²", lambda x, y, p: x * x + y * y, True, "groks: 30 % of p = 97 at 2,600 steps", XU),
    _numbers("(x + y)**2", "(x + y)²", lambda x, y, p: (x + y) ** 2, True,
             "groks: of the learnable form h(g₁(x) + g₂(y))", DOSHI, "sum"),
    _numbers("x**2 - y**2", "x² - y²", lambda x, y, p: x * x - y * y, False,
             "groks: of the learnable form h(g₁(x) + g₂(y))", DOSHI),
    _numbers("x**2 + x*y + y**2", "x² + xy + y²", lambda x, y, p: x * x + x * y + y * y, True,
             f"needs far more data; none at 30 % of p = 97 within 7,500 steps ({XU})", POWER),
    _numbers("x**2 + x*y + y**2 + x", "x² + xy + y² + x", lambda x, y, p: x * x + x * y + y * y + x, False,
             "very hard: only near the full table", POWER),
    _numbers("x**3 + x*y", "x³ + xy", lambda x, y, p: x**3 + x * y, False,
             f"hard; none at 30 % of p = 97 within 7,500 steps ({XU})", POWER),
    _numbers("x**3 + x*y**2 + y", "x³ + xy² + y", lambda x, y, p: x**3 + x * y * y + y, False,
             "never, at any fraction up to 95 %", POWER),
    _numbers("x / y if y odd else x - y", "x·y⁻¹ if y is odd, x - y if y is even", _quotient_if_odd, False, "groks",
             POWER, needs="prime"),
    _numbers("x + y if x even else x * y", "x + y if x is even, x·y if x is odd",
             lambda x, y, p: np.where(x % 2 == 0, x + y, x * y), False, "untested: in the code, not in the paper",
             POWER_CODE),
    _numbers("x + y if x even else x - y", "x + y if x is even, x - y if x is odd",
             lambda x, y, p: np.where(x % 2 == 0, x + y, x - y), False, "untested: in the code, not in the paper",
             POWER_CODE),
    _numbers("x ** y", "x^y, 0⁰ = 1", lambda x, y, p: power_mod(x, y, p), False, "groks, p = 97",
             "Tveit et al. 2025, arXiv:2504.16041"),
    _numbers("gcd(x, y)", "gcd of the whole numbers, gcd(0, 0) = 0", lambda x, y, p: np.gcd(x, y), True,
             "groks, p = 97; but the answer is 1 for about 61 % of pairs", "Tveit et al. 2025, arXiv:2504.16041"),
    _numbers("x mod y", "remainder of x by y, y ≠ 0", lambda x, y, p: x % np.maximum(y, 1), False, "untested", "—",
             domain=lambda x, y: y != 0),
    _numbers("log_x(y)", "least k ≥ 0 with x^k = y; pairs without one are left out", _logarithm, False, "untested", "—",
             reduce=False, needs="prime"),
    _numbers("digit_sum(x + y)", "sum of the decimal digits of x + y, carries and all",
             lambda x, y, p: _digit_sum(x + y), True, "untested", "—"),
    _numbers("max(x, y)", "the larger", lambda x, y, p: np.maximum(x, y), True, "untested", "—"),
    _numbers("min(x, y)", "the smaller", lambda x, y, p: np.minimum(x, y), True, "untested", "—"),
    _numbers("x < y", "1 if x < y, else 0", lambda x, y, p: x < y, False, "untested", "—"),
    _numbers("x + y over the integers", "x + y, not reduced: 0..2p-2", lambda x, y, p: x + y, True,
             "groks below a critical amount of data: the toy of representation theory",
             "Liu et al. 2022, arXiv:2205.10343", reduce=False),
    _numbers("x xor y", "bitwise exclusive or: addition in Z₂ⁿ", lambda x, y, p: x ^ y, True, "untested", "—", "walsh",
             needs="power of two"),
    _numbers("x!", "x!, one operand", lambda x, p: _factorials(p), False,
             "reported among operations of 'Grokking at the edge of numerical stability'",
             "Prieto et al. 2025, arXiv:2501.04697", arity=1),
    _numbers("x + y + z", "x + y + z, three operands", lambda x, y, z, p: x + y + z, True,
             "learnable by construction; a Transformer was seen stuck near 30 % test accuracy at p = 97, 30 %", DOSHI,
             "sum", arity=3),
    _numbers("(x + y)**z", "(x + y)^z, 0⁰ = 1, three operands", lambda x, y, z, p: power_mod((x + y) % p, z, p), False,
             "untested: said to be solved, source not seen", "—", arity=3),
    _numbers("random table", "each answer drawn once, uniformly, for each p", _random, False,
             "control: must never generalise; beating the majority line on test is a leak", "Zhang et al. 2017, "
             "arXiv:1611.03530"),
)  # fmt: skip


def _factorials(p: int) -> np.ndarray:
    return np.array(list(itertools.accumulate(range(1, p), lambda a, b: a * b % p, initial=1)), dtype=np.int64)


# ---------------------------------------------------------------------------------------------------- groups


_WORDS = {
    "x*y": lambda product, inverse: product,
    "x*y*x^-1": lambda product, inverse: product[product, inverse[:, None]],
    "x*y*x": lambda product, inverse: product[product, np.arange(len(product))[:, None]],
}
_FAMILIES = {  # letter: (name, smallest n, largest n)
    "Z": ("cyclic", 2, MAX_ORDER),
    "D": ("dihedral", 3, MAX_ORDER // 2),
    "S": ("symmetric", 3, 6),
    "A": ("alternating", 3, 6),
}


def product_table(g: Group) -> np.ndarray:
    """The multiplication table [order, order] of a group; element 0 is the identity."""
    if g.family == "Z":
        k = np.arange(g.n)
        return (k[:, None] + k) % g.n
    if g.family == "D":  # r^a s^f · r^b s^g = r^(a ± b) s^(f + g), minus where f = 1, for s r = r^-1 s
        k = np.arange(2 * g.n)
        turn, flip = k % g.n, k // g.n
        sign = np.where(flip == 1, -1, 1)
        return (turn[:, None] + sign[:, None] * turn) % g.n + g.n * (flip[:, None] ^ flip)
    q = np.array(_permutations(g))
    place = g.n ** np.arange(g.n)[::-1]
    return np.searchsorted(q @ place, q[:, q] @ place).T  # q[y][q[x]] is first x, then y


def element_names(g: Group) -> tuple[str, ...]:
    """A permutation as the images of 0, 1, …; r2s is the rotation r² followed by s, as a product."""
    if g.family == "Z":
        return tuple(map(str, range(g.n)))
    if g.family == "D":
        return tuple(f"r{k}{s}" for s in ("", "s") for k in range(g.n))
    return tuple("".join(map(str, q)) for q in _permutations(g))


def _permutations(g: Group) -> list[tuple[int, ...]]:
    return [q for q in itertools.permutations(range(g.n)) if g.family == "S" or _is_even(q)]


def _is_even(permutation: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 0


def _word_table(g: Group, word: str, p: int) -> np.ndarray:
    product = product_table(g)
    inverse = np.argmin(product, axis=1)  # x * x^-1 = 0, and 0 is the least entry of a row
    return _WORDS[word](product, inverse).astype(np.int64)


def _in_group(g: Group, word: str = "x*y", verdict: str = "untested", source: str = "—") -> Operation:
    return Operation(
        name=f"{g.name}: {word}",
        formula=f"{word.replace('*', '·').replace('^-1', '⁻¹')} in {g.name}",
        table=partial(_word_table, g, word),
        commutative=word == "x*y" and (g.family == "Z" or g.order == 3),
        verdict=verdict,
        source=source,
        basis="sum" if (g.family, word) == ("Z", "x*y") else "group",
        group=g,
    )


_GROUPS = (
    _in_group(Group("S", 5), "x*y", f"groks at a higher fraction; with Muon at 40 % in 300 to 650 steps ({FU}); what "
              f"is learnt: {STANDER}", POWER),
    _in_group(Group("S", 5), "x*y*x^-1", "groks at a higher fraction", POWER),
    _in_group(Group("S", 5), "x*y*x", "groks at a higher fraction", POWER),
    _in_group(Group("S", 4), "x*y", "not at width 64", PAL),
    _in_group(Group("S", 6), "x*y", "groks", STANDER),
    _in_group(Group("A", 4), "x*y", "never: 144 pairs are too few", FU),
    _in_group(Group("A", 5), "x*y", "groks at 50 % in 400 to 500 steps (Muon); AdamW fails for 2 of 5 seeds", FU),
    _in_group(Group("D", 30), "x*y", "groks at 50 % in 200 steps (Muon), 1,100 to 2,900 (AdamW)", FU),
    _in_group(Group("D", 60), "x*y", "groks at 50 % in 100 steps (Muon), 700 to 900 (AdamW)", FU),
    _in_group(Group("Z", 113), "x*y", "groks: it is x + y", NANDA),
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------- finding one


def _key(name: str) -> str:
    """Names are found whatever their spacing and capitals; ^, ², × … count as what they mean."""
    key = re.sub(r"\s+", "", name.lower())
    for written, meant in (("^-1", "⁻¹"), ("^", "**"), ("²", "**2"), ("³", "**3"), ("·", "*"), ("×", "*"), ("÷", "/"),
                           ("−", "-")):  # fmt: skip
        key = key.replace(written, meant)
    return key


OPERATIONS: dict[str, Operation] = {o.name: o for o in (*_NUMBERS, *_GROUPS)}
_ALIASES = {
    "add": "x + y", "addition": "x + y", "+": "x + y", "sub": "x - y", "subtraction": "x - y", "-": "x - y",
    "mul": "x * y", "multiplication": "x * y", "*": "x * y", "div": "x / y", "division": "x / y", "/": "x / y",
    "random": "random table", "s5conj": "S5: x*y*x^-1", "s5aba": "S5: x*y*x",
}  # fmt: skip
_BY_KEY = {_key(name): name for name in OPERATIONS} | {_key(alias): name for alias, name in _ALIASES.items()}
_GROUP_NAME = re.compile(r"([zdsa])(\d+)(?::(.*))?")


def find(name: str) -> Operation:
    """The operation called `name`: one of OPERATIONS, a word in a group, or an expression in x, y and p."""
    if not isinstance(name, str):
        raise BadInput(f"an operation is named by a text such as 'x + y'; received {name!r}")
    key = _key(name)
    if key in _BY_KEY:
        return OPERATIONS[_BY_KEY[key]]
    if match := _GROUP_NAME.fullmatch(key):
        return _find_in_group(name, match[1].upper(), match[2], match[3])
    if re.search(r"\b[xyp]\b|[0-9(.]", name) is None:
        raise unknown("operation", name, [*OPERATIONS, *_ALIASES])
    return _own(name)


def _find_in_group(name: str, family: str, digits: str, word: str | None) -> Operation:
    title, low, high = _FAMILIES[family]
    n = int(digits[:9])
    if not low <= n <= high:
        raise BadInput(f"{name!r}: of the {title} groups, {family}{low} to {family}{high} are at hand")
    words = {_key(w): w for w in _WORDS}
    if word is not None and word not in words:
        raise unknown(f"word in the group {family}{n}", word, _WORDS)
    own = _in_group(Group(family, n), words[word or "x*y"])  # pyright: ignore[reportArgumentType]
    return OPERATIONS.get(own.name, own)


def _own(text: str) -> Operation:
    try:
        parsed = expression.parse(text)
    except BadInput as error:
        names = ", ".join(map(repr, nearest(text, OPERATIONS)[:5]))
        raise BadInput(f"{error}. The nearest of the operations that have a name: {names}") from None
    return Operation(
        name=parsed.text, formula=f"({parsed.text}) mod p", table=partial(expression.table, parsed), commutative=None,
        verdict="your own", source="—",
    )  # fmt: skip


def answers(operation: Operation, p: int = DEFAULT_P) -> tuple[int, np.ndarray]:
    """(p, table [p] * arity): the operation's answers, -1 where there is none.

    A group's size is in its name: its p is the group's order, and any other p than that or DEFAULT_P is refused.
    """
    p = _checked(operation, p)
    table = operation.table(p)
    if not np.any(table >= 0):
        raise BadInput(f"{operation.name!r} has no answer at any pair for p = {p}: it divides by zero, or raises to a "
                       "negative power, everywhere")  # fmt: skip
    return p, table


def _checked(operation: Operation, p: object) -> int:
    if isinstance(p, bool) or not isinstance(p, int | np.integer):
        raise BadInput(f"p is a whole number; received {p!r}")
    p = int(p)
    if operation.group is not None:
        order = operation.group.order
        if p not in (order, DEFAULT_P):
            raise BadInput(f"{operation.name!r} has {order} elements, so p is {order}; received p = {p}. Leave p out")
        return order
    high = max(n for n in range(2, MAX_ORDER + 1) if n**operation.arity <= MAX_EXAMPLES)
    if not 2 <= p <= high:
        raise BadInput(f"p = {p} is out of range for {operation.name!r}. Allowed: 2 to {high} (a table of at most "
                       f"{MAX_EXAMPLES:,} examples is held in memory)")  # fmt: skip
    if operation.needs == "prime" and not _is_prime(p):
        near = sorted((n for n in range(2, high + 1) if _is_prime(n)), key=lambda n: abs(n - p))[:3]
        raise BadInput(f"{operation.name!r} needs a prime p, in which every number but 0 has an inverse; received "
                       f"p = {p} = {_factored(p)}. Nearest primes: {', '.join(map(str, near))}")  # fmt: skip
    if operation.needs == "power of two" and p & (p - 1):
        near = sorted((2**k for k in range(1, 11)), key=lambda n: abs(n - p))[:2]
        raise BadInput(f"{operation.name!r} needs p to be a power of two, so that answers stay below p; received "
                       f"p = {p}. Nearest: {', '.join(map(str, near))}")  # fmt: skip
    return p


def _least_factor(n: int) -> int:
    return next((d for d in range(2, math.isqrt(n) + 1) if n % d == 0), n)


def _is_prime(n: int) -> bool:
    return n > 1 and _least_factor(n) == n


def _factored(n: int) -> str:
    factors = []
    while n > 1:
        factors.append(str(_least_factor(n)))
        n //= _least_factor(n)
    return " · ".join(factors)


def is_commutative(table: np.ndarray) -> bool:
    """Whether exchanging any two operands leaves every answer (and every absence of one) as it is."""
    swaps = [np.swapaxes(table, i, i + 1) for i in range(table.ndim - 1)]
    return bool(swaps) and all(np.array_equal(table, swap) for swap in swaps)


# ---------------------------------------------------------------------------------------------------- the page


def markdown() -> str:
    """The table of docs/tasks.md."""
    rows = ["| operation | answer | p | commutes | basis | verdict of the literature | source |", "|---" * 7 + "|"]
    for o in OPERATIONS.values():
        p = str(o.group.order) if o.group else o.needs
        commutes = "yes" if o.commutative else "no"
        rows.append(f"| `{o.name}` | {o.formula} | {p} | {commutes} | {o.basis or '—'} | {o.verdict} | {o.source} |")
    return "\n".join(rows)
