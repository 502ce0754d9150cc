"""Addition of whole numbers of n digits, with carries: `3 5 + 8 9 = 1 2 4`.

Tokens    The digits are 0..base-1, `+` is base, `=` is base + 1. A number has always n digits, a sum n + 1, with
          leading zeros. A decoder sees the operands and all but the last digit of the sum [B, 3n + 2]:

              position    0 … n-1   n   n+1 … 2n   2n+1   2n+2 … 3n+1
              token       a         +   b          =      s₀ … sₙ₋₁
              target                               s₀     s₁ … sₙ         read = n + 1

          `=` says the sum's first digit, and each digit of the sum says the next. The right digits are fed (teacher
          forcing), so under a causal mask no position sees what it must say.

Orders    "high_first" as we write, or "low_first", in which a carry is known before it is needed; chosen for the
          operands and for the sum each.

Split     No test pair, and no mirror (b, a) of one, is in train: unordered pairs are drawn, all different and each
          equally likely, then turned at random.

Carries   A column whose digits sum to base or more starts a chain of length 1; every next column whose digits sum to
          base - 1 hands the carry on and adds 1. An example's length is its longest chain, 0 where nothing is carried:
          35 + 89 has 1 (5+9 carries; 3+8 carries by itself), 37 + 65 has 2 (7+5 carries, 3+6 hands it on).
          Every length that occurs in test is a group, `carry_chain_0`, `carry_chain_1`, …

Source    The task as grokking (5 digits, 700 examples): Nanda et al. 2023, arXiv:2301.05217, appendix. Carry chains:
          Burks, Goldstine & von Neumann 1946; in Transformers: Quirke & Barez 2023, arXiv:2310.13121.
"""

import math
from typing import Literal

import numpy as np

from onelayer.arrays import generator
from onelayer.errors import BadInput, unknown
from onelayer.tasks import Batch, Task, splits

__all__ = ["carry_chain", "make"]

ORDERS = ("high_first", "low_first")
MAX_EXAMPLES = 2**20
MAX_NUMBER = 2**30  # so that a pair of operands is one whole number below 2**60

Order = Literal["high_first", "low_first"]


def make(
    n_digits: int = 5,
    n_train: int = 700,
    n_test: int = 2000,
    operand_order: Order = "high_first",
    sum_order: Order = "high_first",
    base: int = 10,
    seed: int = 0,
) -> Task:
    """a + b for a and b of n_digits digits; sum_order="low_first" is the reversed sum."""
    base = splits.check_whole("base", base, 2, 64)
    n_digits = splits.check_whole("n_digits", n_digits, 1, math.floor(math.log(MAX_NUMBER) / math.log(base) + 1e-9))
    n_train = splits.check_whole("n_train", n_train, 1, MAX_EXAMPLES)
    n_test = splits.check_whole("n_test", n_test, 1, MAX_EXAMPLES)
    seed = splits.check_seed(seed)
    for name, order in (("operand_order", operand_order), ("sum_order", sum_order)):
        if order not in ORDERS:
            raise unknown(name, order, ORDERS)
    numbers = base**n_digits
    unordered = numbers * (numbers + 1) // 2
    if n_train + n_test > unordered:
        raise BadInput(f"n_train + n_test = {n_train + n_test:,}, but numbers of {n_digits} digits have {unordered:,} "
                       "unordered pairs. Raise n_digits, or ask for fewer examples")  # fmt: skip

    pairs = _draw(unordered, n_train + n_test, seed)
    operands = [_digits(pairs[:, i], n_digits, base, operand_order) for i in (0, 1)]
    sums = _digits(pairs.sum(axis=1), n_digits + 1, base, sum_order)
    plus, equals = (np.full((len(pairs), 1), token) for token in (base, base + 1))
    tokens = np.concatenate([operands[0], plus, operands[1], equals, sums[:, :-1]], axis=1)

    chain = carry_chain(pairs, n_digits, base)[n_train:]
    shown, asked = sums[:n_train], sums[n_train:]
    return Task(
        name=f"addition of {n_digits} digits" + (f" in base {base}" if base != 10 else ""),
        vocabulary=(*map(str, range(base)), "+", "="),
        n_ctx=3 * n_digits + 2,
        read=n_digits + 1,
        train=Batch(tokens[:n_train], shown, None),
        test=Batch(tokens[n_train:], asked, None),
        groups={f"carry_chain_{n}": np.flatnonzero(chain == n) for n in np.unique(chain)},
        facts={
            "n_digits": n_digits,
            "base": base,
            "operand_order": operand_order,
            "sum_order": sum_order,
            "train_pairs": pairs[:n_train],
            "test_pairs": pairs[n_train:],
            "carry_chain": chain,  # of each test example
            "majority_accuracy": splits.majority(shown, asked),  # every digit of the sum right
            "majority_token_accuracy": splits.majority(shown, asked, np.mean),  # digits right
            "seed": seed,
            "warnings": [],
        },
    )


def carry_chain(pairs: np.ndarray, n_digits: int, base: int = 10) -> np.ndarray:
    """The length of the longest carry chain of each a + b; pairs [N, 2] -> [N]."""
    columns = sum(_digits(pairs[:, i], n_digits, base, "low_first") for i in (0, 1))
    running = longest = np.zeros(len(pairs), dtype=np.int64)
    for column in np.asarray(columns).T:
        handed_on = np.where((column == base - 1) & (running > 0), running + 1, 0)
        running = np.where(column >= base, 1, handed_on)
        longest = np.maximum(longest, running)
    return longest


def _draw(unordered: int, n: int, seed: int) -> np.ndarray:
    """n pairs [n, 2], no two the same or each other's mirror. The t-th unordered pair is the t-th entry of a lower
    triangle: (row, column) with row = floor((sqrt(8 t + 1) - 1) / 2), exact in whole numbers."""
    rng = generator(seed, "split")
    chosen = splits.distinct(unordered, n, rng)
    rows = np.array([(math.isqrt(8 * t + 1) - 1) // 2 for t in chosen.tolist()], dtype=np.int64)
    pairs = np.stack([rows, chosen - rows * (rows + 1) // 2], axis=1)
    return np.where(rng.integers(0, 2, (n, 1)) == 1, pairs[:, ::-1], pairs)


def _digits(numbers: np.ndarray, n: int, base: int, order: str) -> np.ndarray:
    """numbers [N] -> digits [N, n]."""
    low_first = numbers[:, None] // base ** np.arange(n) % base
    return low_first if order == "low_first" else np.ascontiguousarray(low_first[:, ::-1])
