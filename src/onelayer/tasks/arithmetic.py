"""The task of numbers: the whole table of an operation, one part of it for training, the rest for the test.

Tokens    `a b =` [N, 3]: a and b in 0..p-1, then `=`, which is p (n, if answers run over 0..n-1 with n > p). With three
          operands `a b c =`. The answer is said at `=`, so one position is read: targets [N, 1].

Examples  Every pair that has an answer, in the order of the table (row x, column y): p² of them, p (p - 1) for x / y.

Facts     p, operation, formula, commutative, basis, verdict, source
          table             [p, p] answers, -1 where there is none; after permute_labels the permuted one
          train_pairs       [N, 2] operands, likewise test_pairs
          majority_class    the most frequent train target (of equals the least)
          majority_accuracy the share of test targets equal to it: what a constant answer scores on test
          missing_classes   answers in the table that no training example shows
          noisy, clean_targets   with label noise: which train targets were replaced [N], and what all were [N, 1]
          warnings          sentences for the reader

Groups    mirror_free, for a commutative operation: the test pairs whose mirror (b, a) is not in train, the diagonal
          counted. Under split="mirror_closed" that is all of test.

Draws     generator(seed, "split", …), (seed, "label_noise") and (seed, "permute_labels") are independent: a run with
          spoilt labels has the split of its clean twin.
"""

from typing import Literal

import numpy as np

from onelayer.arrays import generator
from onelayer.errors import BadInput, unknown
from onelayer.tasks import Batch, Task, operations, splits
from onelayer.tasks.operations import DEFAULT_P, Operation

__all__ = ["make"]

SPLITS = ("random", "mirror_closed")


def make(
    operation: str = "x + y",
    p: int = DEFAULT_P,
    train_fraction: float = 0.3,
    split: Literal["random", "mirror_closed"] = "random",
    seed: int = 0,
    label_noise: float = 0.0,
    permute_labels: bool = False,
) -> Task:
    """The task of an operation mod p.

    operation       a name in operations.OPERATIONS, a word in a group (`D30: x*y`), or an expression (`x**2 + 3*y`)
    p               the modulus; a group brings its own size
    train_fraction  floor(train_fraction · examples) train, the rest tests: 3,830 of 12,769 at p = 113 and 0.3
    split           "random", or "mirror_closed": (a, b) and (b, a) fall on the same side (commutative operations only)
    label_noise     the share of train labels replaced, each by another answer; test labels stay true
    permute_labels  the negative control: all answers, of train and test together, change places at random
    """
    known = operations.find(operation)
    seed, label_noise = splits.check_seed(seed), splits.check_share("label_noise", label_noise)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    p, table = operations.answers(known, p)
    commutative = operations.is_commutative(table)

    pairs = np.argwhere(table >= 0)
    size = splits.train_size(len(pairs), train_fraction)
    orbit = splits.orbits(pairs) if commutative else None
    train, test = _split(known, p, table, orbit, len(pairs), size, split, seed)

    if permute_labels:
        table = table.copy()
        table[table >= 0] = generator(seed, "permute_labels").permutation(table[table >= 0])
    targets = table[table >= 0]
    classes = np.unique(targets)
    shown, noisy = splits.replace_labels(targets[train], classes, label_noise, generator(seed, "label_noise"))
    symbols = _symbols(known, max(p, int(classes[-1]) + 1))

    groups = {}
    if orbit is not None:
        groups["mirror_free"] = splits.mirror_free(orbit, train, test)
    facts = {
        "p": p,
        "operation": known.name,
        "formula": known.formula,
        "commutative": commutative,
        "basis": known.basis,
        "verdict": known.verdict,
        "source": known.source,
        "table": table,
        "train_pairs": pairs[train],
        "test_pairs": pairs[test],
        "majority_class": int(np.bincount(shown).argmax()),
        "majority_accuracy": splits.majority(shown[:, None], targets[test][:, None]),
        "missing_classes": splits.missing(classes, targets[train]),
        "train_fraction": train_fraction,
        "split": split,
        "seed": seed,
        "label_noise": label_noise,
        "permute_labels": permute_labels,
    }
    if label_noise:
        facts |= {"noisy": noisy, "clean_targets": targets[train][:, None]}
    facts["warnings"] = _warnings(known, facts, classes, groups)
    return Task(
        name=f"{known.name} mod {p}" if known.group is None else known.name,
        vocabulary=(*symbols, "="),
        n_ctx=known.arity + 1,
        read=1,
        train=_batch(pairs[train], shown, len(symbols)),
        test=_batch(pairs[test], targets[test], len(symbols)),
        groups={name: members for name, members in groups.items() if len(members)},
        facts=facts,
    )


def _split(
    known: Operation, p: int, table: np.ndarray, orbit: np.ndarray | None, n: int, size: int, split: str, seed: int
) -> splits.Split:
    rng = generator(seed, "split", split)
    if split == "random":
        return splits.random_split(n, size, rng)
    if orbit is None:
        raise BadInput(f"split = 'mirror_closed' needs a commutative operation; {known.name!r} is not for p = {p}"
                       f"{_witness(table)}. Take split = 'random'")  # fmt: skip
    train, test = splits.mirror_closed_split(orbit, size, rng)
    if len(train) == 0:
        raise BadInput(f"split = 'mirror_closed': no whole orbit fits {size} of {n} examples. Raise train_fraction")
    return train, test


def _witness(table: np.ndarray) -> str:
    """A pair that shows it: `: (0, 1) gives 112, (1, 0) gives 1`."""
    if table.ndim != 2:
        return ""
    a, b = map(int, np.argwhere(table != table.T)[0])
    told = {-1: "has no answer"}
    first, second = (told.get(int(answer), f"gives {answer}") for answer in (table[a, b], table[b, a]))
    return f": ({a}, {b}) {first}, ({b}, {a}) {second}"


def _symbols(known: Operation, n: int) -> tuple[str, ...]:
    return operations.element_names(known.group) if known.group else tuple(map(str, range(n)))


def _batch(operands: np.ndarray, targets: np.ndarray, equals: int) -> Batch:
    tokens = np.concatenate([operands, np.full((len(operands), 1), equals)], axis=1)
    return Batch(tokens=tokens.astype(np.int64), targets=targets[:, None].astype(np.int64), weights=None)


def _warnings(known: Operation, facts: dict, classes: np.ndarray, groups: dict[str, np.ndarray]) -> list[str]:
    told = []
    absent, table, lost = facts["missing_classes"], facts["table"], int(np.sum(facts["table"] < 0))
    if lost and known.verdict == "your own":
        told.append(f"{known.name} has no answer at {lost:,} of {table.size:,} pairs (it divides by zero, or raises to "
                    "a negative power); they are in neither split")  # fmt: skip
    if len(classes) == 1:
        told.append(f"{known.name} always answers {classes[0]} for p = {facts['p']}: there is nothing to learn")
    if len(absent):
        some = ", ".join(map(str, absent[:10])) + (", …" if len(absent) > 10 else "")
        told.append(f"{len(absent)} of {len(classes)} answers have no training example: {some}. Raise train_fraction")
    if any(len(members) == 0 for members in groups.values()):
        told.append("no test pair is free of a mirror in train: mirror-free accuracy cannot be told")
    return told
