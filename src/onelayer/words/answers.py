"""Answers in strings: a text is cut into units, decoded, and put together again.

    opened = open_text("runs/reverse-…")
    answers(opened, ["abc"], Beam(5))[0][0].text

A symbol that the vocabulary lacks is read as <unk>; `unknown` names it, so that a caller can warn or refuse.
A language model goes on with the text: its answer begins with the prompt. Of words or bpe, it has read texts line by
line, each ended by <eos>: so a prompt begins a line, and <eos> ends the answer. Of characters, the limit alone does.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ..decoding.decode import Greedy, How, decode
from ..errors import BadInput
from ..models.config import ModelConfig
from ..tasks.units import EOS, Units

__all__ = ["Said", "Speaks", "Talk", "answers", "encoded", "unknown"]


class Speaks(Protocol):
    """What answering takes: a run opened for its words (training/opened.py), or a `Talk`."""

    @property
    def params(self) -> Any: ...
    @property
    def model(self) -> ModelConfig: ...
    @property
    def source(self) -> Units | None: ...  # None: a language model
    @property
    def target(self) -> Units: ...


class Talk(NamedTuple):
    """Parameters that are at hand, such as those of a run in progress."""

    params: Any
    model: ModelConfig
    source: Units | None
    target: Units


class Said(NamedTuple):
    """One answer."""

    text: str
    tokens: tuple[int, ...]  # without <eos>; of a language model, those after the prompt
    log_probability: float
    score: float
    cut: bool  # the limit ended it


def encoded(opened: Speaks, text: str) -> list[int]:
    """The tokens that the model reads beforehand."""
    if opened.source is None:
        return [*([EOS] if _by_line(opened) else []), *opened.target.encode(text)]
    return [*opened.source.encode(text), EOS]


def unknown(opened: Speaks, texts: Sequence[str]) -> dict[int, list[str]]:
    """Which of the texts hold symbols that the vocabulary lacks, and which symbols these are."""
    units = opened.source or opened.target
    found = {i: units.unknown(text) for i, text in enumerate(texts)}
    return {i: symbols for i, symbols in found.items() if symbols}


def answers(
    opened: Speaks,
    texts: Sequence[str],
    how: How = Greedy(),  # noqa: B008  frozen
    limit: int | None = None,
    tell: Callable[[int], object] | None = None,
) -> list[list[Said]]:
    """The answers to each text, the best first. limit: the most units of an answer; tell: see decoding/decode.py."""
    read = [encoded(opened, text) for text in texts]
    if opened.source is None and not all(read):
        empty = [bool(tokens) for tokens in read].index(False)
        raise BadInput(f"text {empty + 1} is empty: a language model goes on with a text, so give it a beginning")
    ends = opened.source is not None or _by_line(opened)
    found = decode(opened.params, opened.model, read, how, limit, tell=tell, ends=ends)
    before = [tokens[_by_line(opened) :] if opened.source is None else [] for tokens in read]
    return [
        [Said(opened.target.decode([*prompt, *a.tokens]), *a) for a in some]
        for prompt, some in zip(before, found, strict=True)
    ]


def _by_line(opened: Speaks) -> bool:
    """Whether the model, if it is a language model, has read lines with an <eos> after each (tasks/language.py)."""
    return opened.target.kind != "characters"
