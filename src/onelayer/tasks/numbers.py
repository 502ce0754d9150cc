"""Numbers in words to digits, or back, in several languages. `quatre-vingt-dix-sept` is `97`.

Draws     How many digits a number has is drawn first, uniformly, so that short ones are as frequent as long ones; then
          the number, then the language. To words, the source says in which language: `fr 97`.

Split     by number, drawn by the seed: none of valid or test is in train, in whatever language. Numbers below 100 are
          never held out: they are the words that all others are made of. The groups are the languages.

Source    The library num2words; facts["num2words"] says which release.
"""

from functools import cache
from importlib.metadata import version
from typing import Literal

import numpy as np

from onelayer.arrays import generator
from onelayer.errors import BadInput, unknown
from onelayer.tasks import Task, splits, text
from onelayer.tasks.extras import need
from onelayer.tasks.files import Row

__all__ = ["make"]

DIRECTIONS = ("to_digits", "to_words")
HELD_OUT_FROM = 100
MAX_EXAMPLES = 2**20


def make(
    languages: tuple[str, ...] = ("en", "de", "fr"),
    direction: Literal["to_digits", "to_words"] = "to_digits",
    largest: int = 999_999,
    n_train: int = 30_000,
    n_valid: int = 500,
    n_test: int = 1000,
    seed: int = 0,
) -> Task:
    """Whole numbers from 0 to `largest`."""
    if direction not in DIRECTIONS:
        raise unknown("direction", direction, DIRECTIONS)
    library = need("num2words", "numbers in words")
    if not languages:
        raise BadInput("languages: none was given. Name at least one, such as en")
    for language in languages:
        if language not in library.CONVERTER_CLASSES:
            raise unknown("language", language, library.CONVERTER_CLASSES)
    largest = splits.check_whole("largest", largest, 999, 10**12)
    sizes = {"test": n_test, "valid": n_valid, "train": n_train}
    sizes = {split: splits.check_whole(f"n_{split}", n, 1, MAX_EXAMPLES) for split, n in sizes.items()}
    if sizes["test"] + sizes["valid"] > (largest - HELD_OUT_FROM) // 2:
        raise BadInput(
            f"n_valid + n_test = {sizes['test'] + sizes['valid']:,} is more than half of the numbers from "
            f"{HELD_OUT_FROM} to {largest:,}, and train needs some. Ask for fewer, or raise largest"
        )
    seed = splits.check_seed(seed)

    @cache  # short numbers are drawn many times
    def said(number: int, tongue: str) -> str:
        return " ".join(library.num2words(number, lang=tongue).split())

    groups: dict[str, set[str]] = {}
    rows: dict[str, list[Row]] = {}
    taken: set[int] = set()
    for split, n in sizes.items():
        rng = generator(seed, "numbers", split)
        numbers = _draw(n, HELD_OUT_FROM if split != "train" else 0, largest, taken, split != "train", rng)
        rows[split] = []
        for number, language in zip(numbers, rng.integers(0, len(languages), n).tolist(), strict=True):
            tongue = languages[language]
            words = said(number, tongue)
            row = (words, str(number)) if direction == "to_digits" else (f"{tongue} {number}", words)
            rows[split].append(row)
            if split == "test":
                groups.setdefault(tongue, set()).add(row[0])
        taken |= set(numbers) if split != "train" else set()
    return text.build(
        f"numbers {direction.replace('_', ' ')} in {', '.join(languages)}",
        rows["train"],
        rows["valid"],
        rows["test"],
        metrics=("exact_match",),
        groups={tongue: groups[tongue] for tongue in sorted(groups)},
        facts={
            "direction": direction,
            "largest": largest,
            "num2words": version("num2words"),
            "seed": seed,
        },
    )


def _draw(n: int, least: int, largest: int, taken: set[int], different: bool, rng: np.random.Generator) -> list[int]:
    """n numbers that are not taken. different: none of them twice."""
    drawn: list[int] = []
    seen = set(taken)
    while len(drawn) < n:
        digits = rng.integers(len(str(least)), len(str(largest)) + 1, n)
        low = np.where(digits == 1, 0, 10 ** (digits - 1))
        for number in rng.integers(low, np.minimum(10**digits, largest + 1)).tolist():
            if number not in seen:
                drawn.append(number)
                if different:
                    seen.add(number)
    return drawn[:n]
