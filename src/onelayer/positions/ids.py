"""Position ids: which number the place of a token gets. Any method may be used under any of these numberings.

Shapes    tokens [B T] -> ids, int64 [T] where all examples share them, else [B T]

sequential  0, 1, 2, …
random      T numbers out of 0..reach−1, sorted: one draw a batch, in training and in evaluation alike. So all of
            `reach` is met in training, and a long sequence holds nothing new; only the order is left to go by.
abacus      a digit's place in its number, counted from 1, plus an offset; 0 for all that is no digit. The numbers must
            be written with the lowest digit first. The offset is one draw from 0..offset a batch; 0 in evaluation.
coupled     digits of equal significance get equal ids, in operands and sum alike: 2 + start + significance. A sign
            gets the id that goes on from the operand before it, and `=` the one that leads to the sum's first digit.
            The start is one draw from 0..offset a batch; 0 in evaluation. That is telling the model how the task is
            built: an oracle, to be reported apart from the methods.

Constants   reach 2048 (made for long texts: `fitted` takes 8 times the training length); offset 99;
            digits: the token ids of the digits; equals: that of `=`;
            operand_order, sum_order: "high_first" or "low_first", as in the addition task.

Source    random: Ruoss et al. 2023, arXiv:2305.16843. abacus: McLeish et al. 2024, arXiv:2405.17399.
          coupled: Cho et al. 2024, arXiv:2405.20671, whose ids fall where these rise: another name for the same rows.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BadInput, unknown

__all__ = ["NUMBERINGS", "Numbering", "available", "fitted", "get"]

DIGITS = tuple(range(10))
ORDERS = ("high_first", "low_first")


@dataclass(frozen=True)
class Numbering:
    """A numbering with its constants bound: `numbering.draw(tokens, rng)`."""

    name: str
    constants: tuple[tuple[str, Any], ...] = ()

    def draw(self, tokens: np.ndarray, rng: np.random.Generator, training: bool = True) -> np.ndarray:
        """The ids of a batch, from a generator keyed by what the batch is for."""
        return NUMBERINGS[self.name](tokens, rng, training, **dict(self.constants))

    def reach(self, n_ctx: int) -> int:
        """How many different ids sequences of up to n_ctx tokens may get: the rows that a table needs."""
        constants = dict(self.constants)
        if self.name == "random":
            if constants["reach"] < n_ctx:
                raise BadInput(f"random ids need a reach of at least n_ctx = {n_ctx}; received {constants['reach']}")
            return constants["reach"]
        return n_ctx + {"sequential": 0, "abacus": 1, "coupled": 3}[self.name] + constants.get("offset", 0)


def sequential(tokens: np.ndarray, rng: np.random.Generator, training: bool) -> np.ndarray:
    return np.arange(tokens.shape[1], dtype=np.int64)


def random(tokens: np.ndarray, rng: np.random.Generator, training: bool, *, reach: int = 2048) -> np.ndarray:
    T = tokens.shape[1]
    if reach < T:
        raise BadInput(f"{T} different ids cannot be drawn out of {reach}; set reach to at least {T}")
    return np.sort(rng.choice(reach, size=T, replace=False)).astype(np.int64)


def abacus(
    tokens: np.ndarray,
    rng: np.random.Generator,
    training: bool,
    *,
    digits: tuple[int, ...] = DIGITS,
    offset: int = 99,
) -> np.ndarray:
    is_digit = np.isin(tokens, digits)
    shift = rng.integers(0, offset + 1) if training else 0
    return np.where(is_digit, _index_in_run(is_digit) + 1 + shift, 0).astype(np.int64)


def coupled(
    tokens: np.ndarray,
    rng: np.random.Generator,
    training: bool,
    *,
    digits: tuple[int, ...] = DIGITS,
    equals: int = 11,
    operand_order: str = "high_first",
    sum_order: str = "high_first",
    offset: int = 99,
) -> np.ndarray:
    is_digit = np.isin(tokens, digits)
    in_sum = np.cumsum(tokens == equals, axis=1) > 0
    index, length = _index_in_run(is_digit), _length_of_run(is_digit)
    longest = np.max(np.where(is_digit & ~in_sum, length, 0), axis=1, keepdims=True)  # a sum may have one digit more

    operand = length - 1 - index if operand_order == "high_first" else index
    total = longest - index if sum_order == "high_first" else index
    sign = -1 if operand_order == "high_first" else longest
    before_sum = longest + 1 if sum_order == "high_first" else -1
    significance = np.where(is_digit, np.where(in_sum, total, operand), np.where(tokens == equals, before_sum, sign))
    start = rng.integers(0, offset + 1) if training else 0
    return np.maximum(significance + 2 + start, 0).astype(np.int64)


NUMBERINGS = {"sequential": sequential, "random": random, "abacus": abacus, "coupled": coupled}


def available() -> tuple[str, ...]:
    return tuple(NUMBERINGS)


def fitted(name: str, n: int) -> dict[str, Any]:
    """Settings for sequences of n tokens in training, where a default was made for thousands; {} where none was."""
    return {"random": {"reach": 8 * n}, "abacus": {"offset": n}, "coupled": {"offset": n}}.get(name, {})


def get(name: str, **constants: Any) -> Numbering:
    """The numbering of that name with its constants; BadInput lists what is allowed."""
    if name not in NUMBERINGS:
        raise unknown("position_ids", name, NUMBERINGS)
    parameters = inspect.signature(NUMBERINGS[name]).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for given, value in constants.items():
        if given not in known:
            if not known:
                raise BadInput(f"position_ids '{name}' has no constants, received '{given}'; leave its settings empty")
            raise unknown(f"constant of position_ids '{name}'", given, known)
        if given in ("operand_order", "sum_order") and value not in ORDERS:
            raise unknown(f"{given} of position_ids '{name}'", value, ORDERS)
        if given in ("reach", "offset") and not (isinstance(value, int) and value >= (given == "reach")):
            raise BadInput(
                f"{given} of position_ids '{name}' is a whole number from {int(given == 'reach')}; received {value}"
            )
    constants = {key: tuple(value) if isinstance(value, list) else value for key, value in constants.items()}
    return Numbering(name, tuple(sorted((known | constants).items())))


def _starts(inside: np.ndarray) -> np.ndarray:
    """Where each place's run of True began [B T] (anything outside of runs)."""
    T = inside.shape[1]
    begins = inside & ~np.pad(inside, ((0, 0), (1, 0)))[:, :T]
    return np.maximum.accumulate(np.where(begins, np.arange(T), 0), axis=1)


def _index_in_run(inside: np.ndarray) -> np.ndarray:
    """0, 1, 2 … along each run of True."""
    return np.arange(inside.shape[1]) - _starts(inside)


def _length_of_run(inside: np.ndarray) -> np.ndarray:
    """How long the run is that a place belongs to."""
    from_end = _index_in_run(inside[:, ::-1])[:, ::-1]
    return _index_in_run(inside) + from_end + 1
