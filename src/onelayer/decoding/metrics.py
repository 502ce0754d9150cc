"""How good answers are: metrics of decoded strings, and of nothing else.

Each takes what was said [N strings] and, for each, every reference that counts as right. What a model scores when it is
shown the right beginning of each answer (teacher forcing) is no such figure, and has no place here.

exact_match         the share of answers that are a reference, symbol for symbol
word_error_rate     the share of answers that are none: 1 − exact_match. The unit is the item, a word to pronounce
phone_error_rate    Σ edits / Σ lengths: phones (what stands between white space) that must be inserted, deleted or
                    replaced to reach the nearest reference, over that reference's length
word_edit_rate      the same of words: what speech recognition calls the word error rate of sentences
character_edit_rate the same of characters
bleu, chrf          of the corpus, by the library sacrebleu, each with its signature: percentages
bits_per_character  nats / ln 2 / characters: of a text, under a language model

Source    phone and word error rate as in Yolchuyeva, Németh & Gyires-Tóth 2019, arXiv:2004.06338;
          BLEU: Papineni et al. 2002; chrF: Popović 2015; their signatures: Post 2018, arXiv:1804.08771.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import BadInput, unknown
from .edit_distance import nearest

__all__ = ["METRICS", "bits_per_character", "score"]

References = Sequence[Sequence[str]]


def exact_match(said: Sequence[str], references: References) -> float:
    return sum(s in right for s, right in zip(said, references, strict=True)) / len(said)


def word_error_rate(said: Sequence[str], references: References) -> float:
    return sum(s not in right for s, right in zip(said, references, strict=True)) / len(said)


def edit_rate(said: Sequence[str], references: References, cut: Callable[[str], Sequence[str]]) -> float:
    """Σ edits / Σ lengths, in the symbols that `cut` makes of a string."""
    edits, length = 0, 0
    for s, right in zip(said, references, strict=True):
        distance, n = nearest(cut(s), [cut(r) for r in right])
        edits, length = edits + distance, length + n
    if length == 0:
        raise BadInput("an edit rate needs references that are not all empty: it is per symbol of theirs")
    return edits / length


def phone_error_rate(said: Sequence[str], references: References) -> float:
    return edit_rate(said, references, str.split)


def word_edit_rate(said: Sequence[str], references: References) -> float:
    return edit_rate(said, references, str.split)


def character_edit_rate(said: Sequence[str], references: References) -> float:
    return edit_rate(said, references, str)


def bleu(said: Sequence[str], references: References, lowercase: bool = False) -> dict[str, Any]:
    """BLEU with sacrebleu's own tokeniser (13a)."""
    return _sacrebleu("BLEU", "bleu", said, references, lowercase)


def chrf(said: Sequence[str], references: References, lowercase: bool = False) -> dict[str, Any]:
    """chrF2: character n-grams up to 6."""
    return _sacrebleu("CHRF", "chrf", said, references, lowercase)


def _sacrebleu(metric: str, name: str, said: Sequence[str], references: References, lowercase: bool) -> dict[str, Any]:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise BadInput(f"{name} needs the library sacrebleu: pip install 'onelayer[words]'") from error
    scorer = getattr(metrics, metric)(lowercase=lowercase)
    most = max(map(len, references))  # a stream each; where a sentence has fewer, None stands for "none"
    streams = [[right[i] if i < len(right) else None for right in references] for i in range(most)]
    result = scorer.corpus_score(list(said), streams)
    # rounding may put a perfect score above 100
    return {name: min(float(result.score), 100.0), f"{name}_signature": str(scorer.get_signature())}


METRICS: dict[str, Callable[..., Any]] = {
    "exact_match": exact_match,
    "word_error_rate": word_error_rate,
    "phone_error_rate": phone_error_rate,
    "word_edit_rate": word_edit_rate,
    "character_edit_rate": character_edit_rate,
    "bleu": bleu,
    "chrf": chrf,
}


def score(names: Sequence[str], said: Sequence[str], references: References, lowercase: bool = False) -> dict[str, Any]:
    """The metrics of these names. lowercase: of the corpus metrics, BLEU and chrF; the others compare as it stands."""
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    if not said or len(said) != len(references):
        raise BadInput(
            f"metrics need at least one item, and an answer to each; received {len(said)} to {len(references)}"
        )
    if not all(references):
        raise BadInput(f"item {[bool(r) for r in references].index(False)} has no reference; each needs one or more")
    found: dict[str, Any] = {}
    for name in names:
        value = METRICS[name](said, references, **({"lowercase": lowercase} if name in ("bleu", "chrf") else {}))
        found |= value if isinstance(value, dict) else {name: value}
    return found


def bits_per_character(nats: float, characters: int) -> float:
    """The surprise at a text, in bits, spread over its characters, however these were cut into tokens."""
    return nats / math.log(2) / characters
