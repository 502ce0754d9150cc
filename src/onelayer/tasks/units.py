"""Units: how a string is cut into tokens, and how tokens are put together again.

Kinds     characters   every character (a Unicode code point) is a token
          words        what stands between white space is a token; joined again by single spaces
          bpe          byte-pair merges learnt from the training strings (the library `tokenizers`)

Tokens    0 <pad> fills up   1 <bos> begins a target   2 <eos> ends a source and a target   3 <unk> stands for what the
          training strings did not show; then the vocabulary, built on the training strings alone.

Source    Byte-pair encoding: Sennrich, Haddow & Birch 2016, arXiv:1508.07909.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onelayer.errors import unknown

__all__ = ["BOS", "EOS", "KINDS", "PAD", "SPECIALS", "UNK", "Units"]

PAD, BOS, EOS, UNK = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
KINDS = ("characters", "words", "bpe")


@dataclass(frozen=True)
class Units:
    """A vocabulary and the two ways through it. `Units.learn("characters", strings)`."""

    kind: str
    vocabulary: tuple[str, ...]  # SPECIALS first

    @classmethod
    def learn(cls, kind: str, strings: Iterable[str], size: int | None = None) -> "Units":
        """The units of these strings. size: of a bpe vocabulary; elsewhere the most frequent are kept (None: all)."""
        if kind not in KINDS:
            raise unknown("units", kind, KINDS)
        seen = dict.fromkeys(piece for text in strings for piece in _cut(kind, text))
        return cls(kind, (*SPECIALS, *sorted(seen)))

    def encode(self, text: str) -> list[int]:
        """Token ids, without <bos> and <eos>; <unk> where a symbol is not known."""
        known = {piece: i for i, piece in enumerate(self.vocabulary)}
        return [known.get(piece, UNK) for piece in _cut(self.kind, text)]

    def unknown(self, text: str) -> list[str]:
        """The symbols of a text that the vocabulary lacks, each once, in order."""
        known = set(self.vocabulary)
        return [piece for piece in dict.fromkeys(_cut(self.kind, text)) if piece not in known]

    def decode(self, ids: Sequence[int]) -> str:
        """The string up to <eos>; <pad> and <bos> say nothing."""
        pieces = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                pieces.append(self.vocabulary[i])
        return ("" if self.kind == "characters" else " ").join(pieces)


def _cut(kind: str, text: str) -> list[str]:
    return list(text) if kind == "characters" else text.split()
