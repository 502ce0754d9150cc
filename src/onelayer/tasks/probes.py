"""Probes: seven small questions about places, each of which one layer can answer under some positional encoding.

Letters   ids 0..7 are `a` … `h`; 8..15 the same letters marked, `A` … `H`; 16 is `=`. One alphabet for all seven.
          x_t is the letter at place t, counted from 0; the question at place t is about x_0 … x_t alone.

lookup     letters. Say the letter at the place that this one names: x_(x_t), a = 0, …, h = 7. Asked from place 8 on.
back       letters. Say the letter 3 places back: x_(t−3). Asked from place 3 on.
recent     letters, each marked with probability 1/4. Say the most recent marked letter, this place included.
nth        as `recent`, but say the marked letter before the most recent one. Asked once there are two.
align      a₁ … aₘ = b₁ … bₘ, independent. At bᵢ say aᵢ: the digit of equal place in the other number.
mirror     as `align`, but at bᵢ say aₘ₊₁₋ᵢ.
majority   letters. Say the most frequent one so far; where two are equally frequent, nothing is asked.

Ceilings  The answer is always in what was seen: a model that knows the order can be right every time, and hand-set
          weights of one layer are, under the numbering and method that SOLVED_BY names (tests/test_probes.py).
          A causal layer without positions sees its own letter and the multiset of the letters before it, no more.
          Letters are drawn independently and uniformly, so that the one asked for is any of the N candidates in that
          multiset, all equally likely: the best guess is the most frequent, right with probability E[max count]/N.
          `order_free_ceiling` is the mean of that over the questions. `majority` asks for nothing else: there it is 1.

Lengths   Training shows sequences of n letters (align and mirror: of up to n). stretch = 2 tests on sequences of 2 n,
          and asks only what is new there: at places from `beyond` on, or about numbers whose text is longer than it.

Source    absolute and relative addressing as separate abilities: Kazemnejad et al. 2023, arXiv:2305.19466; flip-flop:
          Liu et al. 2023, arXiv:2306.00946; counting marks: Golovneva et al. 2024, arXiv:2405.18719; digit alignment:
          McLeish et al. 2024, arXiv:2405.17399. The forms here, and the ceilings, are our own.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from onelayer.arrays import generator
from onelayer.errors import BadInput, unknown
from onelayer.tasks import Batch, Task, splits

__all__ = ["PROBES", "SOLVED_BY", "VOCABULARY", "draw", "make", "order_free_ceiling"]

A = 8  # letters
EQUALS = 2 * A
VOCABULARY = (*"abcdefgh", *"ABCDEFGH", "=")
MARKED = 0.25  # the probability of a mark
BACK = 3
PAIRED = ("align", "mirror")

SOLVED_BY = {  # probe: (position, numbering)
    "lookup": ("learned", "sequential"),
    "back": ("t5", "sequential"),
    "recent": ("t5", "sequential"),
    "nth": ("cope", "sequential"),
    "align": ("learned", "abacus"),
    "mirror": ("learned", "coupled"),
    "majority": ("none", "sequential"),
}


def make(
    probe: str = "back",
    n: int = 16,
    stretch: float = 1.0,
    n_train: int = 8192,
    n_test: int = 1024,
    seed: int = 0,
) -> Task:
    """A probe: training sequences of n letters, test sequences of stretch × n."""
    if probe not in PROBES:
        raise unknown("probe", probe, PROBES)
    n = splits.check_whole("n", n, A + 1, 64)
    if isinstance(stretch, bool) or not isinstance(stretch, int | float) or not 1 <= stretch <= 4:
        raise BadInput(
            f"stretch = {stretch!r} is out of range: test sequences are that many times as long. Allowed: 1 to 4"
        )
    n_train, n_test = (splits.check_whole(k, v, 1, 2**20) for k, v in (("n_train", n_train), ("n_test", n_test)))
    length, beyond = round(stretch * n), 0 if stretch == 1 else n
    train = draw(probe, n_train, n, generator(seed, "probe", probe, "train"))
    test = draw(probe, n_test, length, generator(seed, "probe", probe, "test"), beyond)
    read = n  # the last n places are judged, of longer test sequences too
    return Task(
        name=f"probe {probe}, {n} letters" + (f", tested on {length}" if length > n else ""),
        vocabulary=VOCABULARY,
        n_ctx=length,  # a learned table gets rows for the test's places too, which training never touches
        read=read,
        train=train,
        test=Batch(test.tokens, test.targets[:, -read:], None if test.weights is None else test.weights[:, -read:]),
        facts={
            "probe": probe,
            "n": n,
            "stretch": float(stretch),
            "ceiling": 1.0,
            "order_free_ceiling": order_free_ceiling(probe, length, max(beyond, length - read)),
            "seed": seed,
        },
    )


def draw(probe: str, size: int, length: int, rng: np.random.Generator, beyond: int = 0) -> Batch:
    """`size` sequences: tokens, targets, weights [size length], weights 1 where something is asked, else 0.

    beyond: ask only at places from it on; align and mirror: only of texts longer than it.
    """
    if probe not in PROBES:
        raise unknown("probe", probe, PROBES)
    if probe in PAIRED:
        tokens, targets, asked = _pair(size, length, beyond, rng, mirrored=probe == "mirror")
    else:
        tokens, targets, asked = PROBES[probe](size, length, rng)
        asked = asked & (np.arange(length) >= beyond)
    return Batch(tokens.astype(np.int32), np.where(asked, targets, 0).astype(np.int32), asked.astype(np.float32))


# ------------------------------------------------------------------------------------------ tokens, answers, asked?

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]  # [size length] each


def _letters(size: int, length: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, A, (size, length))


def _lookup(size: int, length: int, rng: np.random.Generator) -> Drawn:
    x = _letters(size, length, rng)
    asked = np.broadcast_to(np.arange(length) >= A, x.shape)
    return x, np.take_along_axis(x, np.minimum(x, length - 1), axis=1), asked


def _back(size: int, length: int, rng: np.random.Generator) -> Drawn:
    x = _letters(size, length, rng)
    return x, np.roll(x, BACK, axis=1), np.broadcast_to(np.arange(length) >= BACK, x.shape)


def _marked(size: int, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Letters, which are marked, and the place of the last marked one up to each place (−1: there is none)."""
    x = _letters(size, length, rng)
    marked = rng.random(x.shape) < MARKED
    return x, marked, np.maximum.accumulate(np.where(marked, np.arange(length), -1), axis=1)


def _recent(size: int, length: int, rng: np.random.Generator) -> Drawn:
    x, marked, last = _marked(size, length, rng)
    return x + A * marked, np.take_along_axis(x, np.maximum(last, 0), axis=1), last >= 0


def _nth(size: int, length: int, rng: np.random.Generator) -> Drawn:
    x, marked, last = _marked(size, length, rng)
    before = np.pad(last, ((0, 0), (1, 0)), constant_values=-1)  # [t]: the last marked place before t
    second = np.where(last >= 0, np.take_along_axis(before, np.maximum(last, 0), axis=1), -1)
    return x + A * marked, np.take_along_axis(x, np.maximum(second, 0), axis=1), second >= 0


def _pair(size: int, length: int, beyond: int, rng: np.random.Generator, mirrored: bool) -> Drawn:
    ms = _digits(length, beyond)
    m = rng.integers(ms.start, ms.stop, (size, 1))
    x, place = _letters(size, length, rng), np.arange(length)
    i = place - m - 1  # which digit of the second number, from 0
    tokens = np.where((place == m) | (i >= m), EQUALS, x)  # what follows the second number is `=` too, and is not asked
    source = m - 1 - i if mirrored else i
    return tokens, np.take_along_axis(x, np.clip(source, 0, length - 1), axis=1), (i >= 0) & (i < m)


def _majority(size: int, length: int, rng: np.random.Generator) -> Drawn:
    x = _letters(size, length, rng)
    counts = np.cumsum(x[..., None] == np.arange(A), axis=1)
    ahead = np.sort(counts, axis=-1)
    return x, np.argmax(counts, axis=-1), ahead[..., -1] > ahead[..., -2]


PROBES: dict[str, Callable[..., Drawn]] = {
    "lookup": _lookup, "back": _back, "recent": _recent, "nth": _nth,
    "align": _pair, "mirror": _pair, "majority": _majority,
}  # fmt: skip


def _digits(length: int, beyond: int) -> range:
    """How many digits numbers have whose text, 2 m + 1 tokens, is longer than `beyond` and fits into `length`."""
    return range((beyond + 1) // 2 if beyond else 1, (length - 1) // 2 + 1)


# ------------------------------------------------------------------------------------------ ceilings


def order_free_ceiling(probe: str, length: int, beyond: int = 0) -> float:
    """The best accuracy that can be had from the last letter and the multiset of those before it, on average."""
    if probe not in PROBES:
        raise unknown("probe", probe, PROBES)
    share = most_common_share(max(length, 1))
    total, asked = 0.0, 0.0
    for p, right in _questions(probe, length, beyond, share):
        total, asked = total + p * right, asked + p
    return float(total / asked)


def _questions(probe: str, length: int, beyond: int, share: np.ndarray) -> Iterator[tuple[float, float]]:
    """(how likely it is asked, how likely the best order-free guess is right), over the questions of a sequence."""
    if probe in PAIRED:
        for m in _digits(length, beyond):
            for i in range(m):
                yield 1.0, share[m + i]  # the m digits of the first number and the i before this one
        return
    for t in range(beyond, length):
        if probe == "majority":
            yield 1.0, 1.0
        elif probe in ("lookup", "back"):
            if t >= (A if probe == "lookup" else BACK):
                yield 1.0, share[t]
        else:
            for marks in range(t + 1):  # among the t letters before this one
                p = math.comb(t, marks) * MARKED**marks * (1 - MARKED) ** (t - marks)
                if marks >= 1:
                    yield MARKED * p, 1.0 if probe == "recent" else share[marks]
                elif probe == "recent":
                    yield MARKED * p, 1.0
                if marks >= (1 if probe == "recent" else 2):
                    yield (1 - MARKED) * p, share[marks]


def most_common_share(longest: int) -> np.ndarray:
    """[N], N = 0..longest: E[max count]/N of N letters drawn uniformly. P(max ≤ m) = N!/Aᴺ [zᴺ] (Σ_(j≤m) zʲ/j!)ᴬ."""
    expected = np.zeros(longest + 1)
    scale = np.array([math.exp(math.lgamma(n + 1) - n * math.log(A)) for n in range(longest + 1)])
    for m in range(longest):  # E[max] = Σ_m P(max > m)
        base = np.array([math.exp(-math.lgamma(j + 1)) if j <= m else 0.0 for j in range(longest + 1)])
        power = np.eye(1, longest + 1)[0]
        for _ in range(A):
            power = np.convolve(power, base)[: longest + 1]
        expected += np.where(np.arange(longest + 1) > m, 1 - scale * power, 0.0)
    return expected / np.maximum(np.arange(longest + 1), 1)
