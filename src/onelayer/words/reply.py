"""Replies: what a run says to some texts, with what a caller ought to be told beside it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..decoding import metrics
from ..decoding.decode import How
from ..errors import BadInput
from .answers import Said, Speaks, answers, encoded, unknown

__all__ = ["Reply", "judged", "reply", "warnings"]


class Reply(NamedTuple):
    source: str
    unknown: tuple[str, ...]  # symbols of the source that training did not show; each was read as <unk>
    answers: list[Said]  # the best first

    def as_dict(self) -> dict[str, Any]:
        best, *_ = named = [{"answer": a.text, **a._asdict()} for a in self.answers]
        for fields in named:
            del fields["text"], fields["tokens"]
        return {"source": self.source, **best, "unknown": list(self.unknown), "n_best": named}


def reply(
    opened: Speaks,
    texts: Sequence[str],
    how: How,
    limit: int | None = None,
    strict: bool = False,
    tell: Callable[[int], object] | None = None,
) -> list[Reply]:
    """A reply to each text. strict: an unknown symbol is refused; else the text is answered all the same."""
    strange = unknown(opened, texts)
    if strict and strange:
        i, symbols = next(iter(strange.items()))
        known = ", ".join((opened.source or opened.target).vocabulary[4:24])
        raise BadInput(
            f"text {i + 1} holds what training did not show: {_listed(symbols)}. Allowed, among others: {known}; "
            "without --strict it is read as <unk>"
        )
    found = answers(opened, texts, how, limit, tell)
    return [
        Reply(text, tuple(strange.get(i, ())), said) for i, (text, said) in enumerate(zip(texts, found, strict=True))
    ]


def warnings(opened: Speaks, replies: Sequence[Reply]) -> list[str]:
    """A sentence on each thing that a reader should know: unknown symbols, answers that the limit cut."""
    found = []
    strange = [r for r in replies if r.unknown]
    if strange:
        symbols = list(dict.fromkeys(symbol for r in strange for symbol in r.unknown))
        found.append(f"training did not show {_listed(symbols)}, in {_whose(strange, replies)}: read as <unk>")
    if opened.source is None:
        return found
    room = (opened.model.source_n_ctx or opened.model.n_ctx) - 1
    if longer := [r for r in replies if len(encoded(opened, r.source)) - 1 > room]:
        found.append(f"training had sources of up to {room} units; longer: {_whose(longer, replies)}")
    if cut := [r for r in replies if r.answers[0].cut]:
        units = len(cut[0].answers[0].tokens)
        found.append(f"the answer to {_whose(cut, replies)} did not end within {units} units, and was cut there")
    return found


def judged(
    opened: Speaks, replies: Sequence[Reply], references: Sequence[str], names: Sequence[str], lowercase: bool = False
) -> dict[str, Any]:
    """The metrics of the best answers. references: a line for each reply; tabs stand between several right ones."""
    if opened.source is None:
        raise BadInput("a language model's text has no right answer: leave the references out")
    if len(references) != len(replies):
        raise BadInput(
            f"there are {len(replies)} texts and {len(references)} lines of references; line i of one belongs to "
            "line i of the other"
        )
    right = [[opened.target.clean(one) for one in line.split("\t")] for line in references]
    return metrics.score(names, [r.answers[0].text for r in replies], right, lowercase)


def _whose(some: Sequence[Reply], replies: Sequence[Reply]) -> str:
    return repr(some[0].source) if len(some) == 1 else f"{len(some)} of {len(replies)} texts"


def _listed(symbols: Sequence[str]) -> str:
    some = ", ".join(map(repr, symbols[:10]))
    return some if len(symbols) <= 10 else f"{some} and {len(symbols) - 10} more"
