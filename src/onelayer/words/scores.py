"""The scores of a model of strings on pairs of strings: everything is decoded, and only what was said is judged."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..decoding import metrics
from ..decoding.decode import Beam, Greedy, How
from ..errors import BadInput
from ..tasks import Pair
from .answers import Speaks, answers

__all__ = ["Scored", "in_words", "score"]


class Scored(NamedTuple):
    metrics: dict[str, Any]  # by name; BLEU and chrF have their signature beside them
    said: list[str]  # the best answer to each pair
    cut: int  # how many of them the limit ended


def score(
    opened: Speaks,
    pairs: Sequence[Pair],
    names: Sequence[str],
    how: How = Greedy(),  # noqa: B008  frozen
    limit: int | None = None,
    lowercase: bool = False,
) -> Scored:
    """The metrics of these names. Where sources or references are long, `limit` may be needed: an answer that it cuts
    counts as it stands. lowercase: of BLEU and chrF.
    """
    if opened.source is None:
        raise BadInput("a language model has no answers to score; words/language.py measures its surprise at a text")
    best = [found[0] for found in answers(opened, [pair.source for pair in pairs], how, limit)]
    said = [answer.text for answer in best]
    found = metrics.score(names, said, [pair.references for pair in pairs], lowercase)
    return Scored(found, said, sum(answer.cut for answer in best))


def in_words(how: How) -> str:
    """How answers are found, for a caption or a JSON object: `beam 5, length penalty 0.6`."""
    match how:
        case Greedy():
            return "greedy"
        case Beam(width, alpha):
            return f"beam {width}, length penalty {alpha:g}"
        case _:
            settings = {"temperature": how.temperature, "top-k": how.top_k, "top-p": how.top_p, "seed": how.seed}
            given = [f"{name} {value:g}" for name, value in settings.items() if value is not None]
            return ", ".join(["sampling", *given])
