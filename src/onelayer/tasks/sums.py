"""Sums: multi-digit addition from string to string. `345+678` is `3201`, the sum 1023 from its last digit on.

Strings   Operands have n digits, the sum n + 1, with leading zeros. sum_order="low_first", the default, says the last
          digit first, so that each carry is known when it is needed; "high_first" writes as we do.

Split     that of the task `addition`, which is the same question for a decoder alone: no test pair is in train, nor its
          mirror b+a. The groups are its carry chains, `carry_chain_0` …: how far the longest carry travels.

Source    The reversed sum: minGPT's adder, github.com/karpathy/minGPT (projects/adder); why it helps: Lee et al. 2023,
          arXiv:2307.03381. The rest as in addition.py.
"""

import numpy as np

from onelayer.errors import unknown
from onelayer.tasks import Task, addition, splits, text
from onelayer.tasks.addition import ORDERS, Order

__all__ = ["make"]


def make(
    n_digits: int = 3,
    sum_order: Order = "low_first",
    operand_order: Order = "high_first",
    n_train: int = 100_000,
    n_valid: int = 500,
    n_test: int = 500,
    seed: int = 0,
) -> Task:
    """a + b for a and b of n_digits digits."""
    for name, order in (("operand_order", operand_order), ("sum_order", sum_order)):
        if order not in ORDERS:
            raise unknown(name, order, ORDERS)
    n_valid, n_test = (splits.check_whole(k, n, 1, 2**19) for k, n in (("n_valid", n_valid), ("n_test", n_test)))
    drawn = addition.make(n_digits, n_train, n_valid + n_test, seed=seed)
    asked, chain = drawn.facts["test_pairs"], drawn.facts["carry_chain"][n_valid:]

    def written(pairs: np.ndarray) -> list[tuple[str, str]]:
        rows = []
        for a, b in pairs.tolist():
            x, y = (_digits(n, n_digits, operand_order) for n in (a, b))
            rows.append((f"{x}+{y}", _digits(a + b, n_digits + 1, sum_order)))
        return rows

    test = written(asked[n_valid:])
    lengths = np.unique(chain).tolist()
    return text.build(
        f"sums of {n_digits} digits",
        written(drawn.facts["train_pairs"]),
        written(asked[:n_valid]),
        test,
        groups={
            f"carry_chain_{n}": {row[0] for row, length in zip(test, chain.tolist(), strict=True) if length == n}
            for n in lengths
        },
        facts={
            "n_digits": n_digits,
            "operand_order": operand_order,
            "sum_order": sum_order,
            "seed": drawn.facts["seed"],
        },
    )


def _digits(number: int, n: int, order: Order) -> str:
    written = f"{number:0{n}d}"
    return written if order == "high_first" else written[::-1]
