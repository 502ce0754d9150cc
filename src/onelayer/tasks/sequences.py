"""Sequences of symbols, drawn at random, and what is to be said of each: what copy, reverse and sort have in common.

Symbols   the numbers 0 … vocabulary − 1, written with spaces between; a token each.

Draws     A length from `shortest` to `longest`, uniformly, then each symbol, uniformly. Train may show a sequence more
          than once; what valid or test asks is in no other split.
"""

from collections.abc import Callable

from onelayer.arrays import generator
from onelayer.errors import BadInput
from onelayer.tasks import Task, splits, text
from onelayer.tasks.files import Row

__all__ = ["make"]

MAX_EXAMPLES = 2**20


def make(
    name: str,
    answer: Callable[[list[int]], list[int]],
    vocabulary: int,
    longest: int,
    longer: int,
    n_train: int,
    n_valid: int,
    n_test: int,
    seed: int,
) -> Task:
    """answer: of the symbols of a sequence, those to be said. longer: up to which length `test_longer` goes."""
    vocabulary = splits.check_whole("vocabulary", vocabulary, 2, 10_000)
    longest = splits.check_whole("longest", longest, 1, 500)
    longer = splits.check_whole("longer", longer, longest, 1000)
    sizes = {"train": n_train, "valid": n_valid, "test": n_test}
    sizes = {split: splits.check_whole(f"n_{split}", n, 1, MAX_EXAMPLES) for split, n in sizes.items()}
    seed = splits.check_seed(seed)

    rows: dict[str, list[Row]] = {}
    taken: set[tuple[int, ...]] = set()
    for split, n in (sizes | ({"test_longer": n_test} if longer > longest else {})).items():
        lengths = (longest + 1, longer) if split == "test_longer" else (1, longest)
        drawn = _draw(split, n, vocabulary, *lengths, taken if split != "train" else None, name, seed)
        rows[split] = [(_written(symbols), _written(answer(list(symbols)))) for symbols in drawn]
        taken |= set(drawn)
    return text.build(
        f"{name} of up to {longest} symbols of {vocabulary}",
        rows.pop("train"),
        rows.pop("valid"),
        rows.pop("test"),
        "words",
        "words",
        max_length=1000,
        metrics=("exact_match",),
        more=rows,
        facts={"vocabulary": vocabulary, "longest_trained": longest, "seed": seed},
    )


def _draw(
    split: str, n: int, vocabulary: int, shortest: int, longest: int, taken: set | None, name: str, seed: int
) -> list[tuple[int, ...]]:
    """n sequences; where there is something taken, none of it and none twice."""
    rng = generator(seed, name, split)
    drawn: list[tuple[int, ...]] = []
    seen: set[tuple[int, ...]] = set(taken or ())
    for _ in range(20):
        lengths = rng.integers(shortest, longest + 1, n).tolist()
        for symbols, length in zip(rng.integers(0, vocabulary, (n, longest)).tolist(), lengths, strict=True):
            sequence = tuple(symbols[:length])
            if taken is None or sequence not in seen:
                seen.add(sequence)
                drawn.append(sequence)
        if len(drawn) >= n:
            return drawn[:n]
    raise BadInput(
        f"n_{split} = {n}: of sequences of {shortest} to {longest} out of {vocabulary} symbols too few are in no other "
        f"split; found {len(drawn)}. Ask for fewer, or raise vocabulary or longest"
    )


def _written(symbols: list[int] | tuple[int, ...]) -> str:
    return " ".join(map(str, symbols))
