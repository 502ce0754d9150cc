"""Units: how a string is cut into tokens, and how tokens are put together again.

Kinds     characters   every character (a Unicode code point) is a token
          words        what stands between white space is a token; joined again by single spaces
          bpe          byte-pair merges learnt from the training strings (the library `tokenizers`). A piece that begins
                       a word begins with ▁; no piece reaches over white space, or from a letter to a punctuation mark

Text      is first brought to Unicode's composed form, NFC: é typed as one code point or as e and an accent is the same
          letter, and the same token. `lower` makes it small letters. Where units are words or bpe, white space counts
          as single spaces, and to bpe ▁ is white space too. `decode(encode(text))` gives back `clean(text)`.

Tokens    0 <pad> fills up   1 <bos> begins a target   2 <eos> ends a source and a target   3 <unk> stands for what the
          training strings did not show; then the vocabulary, built on the training strings alone. A text that says
          "<eos>" in so many letters gets ordinary tokens.

Source    Byte-pair encoding: Sennrich, Haddow & Birch 2016, arXiv:1508.07909; ▁ for the space, so that words come back
          as they were: Kudo & Richardson 2018, arXiv:1808.06226. NFC: Unicode Standard Annex 15.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unicodedata import normalize

from onelayer.errors import BadInput, unknown
from onelayer.tasks.extras import need

__all__ = ["BOS", "EOS", "KINDS", "PAD", "SPECIALS", "UNK", "Units"]

PAD, BOS, EOS, UNK = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
KINDS = ("characters", "words", "bpe")
SPACE = "▁"
BPE_SIZE = 4000


@dataclass(frozen=True)
class Units:
    """A vocabulary and the two ways through it. `Units.learn("characters", strings)`."""

    kind: str
    vocabulary: tuple[str, ...]  # SPECIALS first
    lower: bool = False  # whether a text is made small letters before it is cut
    merges: tuple[tuple[str, str], ...] = ()  # bpe: which two pieces become one, the first merge first

    @classmethod
    def learn(cls, kind: str, strings: Iterable[str], size: int | None = None, lower: bool = False) -> "Units":
        """The units of these strings. size: of the vocabulary, <pad> to <unk> included. The most frequent are kept;
        None: all, and 4,000 for bpe."""
        if kind not in KINDS:
            raise unknown("units", kind, KINDS)
        texts = (clean(text, kind, lower) for text in strings)
        if kind == "bpe":
            vocabulary, merges = _learn_merges(list(texts), BPE_SIZE if size is None else size)
            return cls(kind, vocabulary, lower, merges)
        counts = Counter(piece for text in texts for piece in _cut(kind, text))
        kept = sorted(counts, key=lambda piece: (-counts[piece], piece))
        if size is not None:
            kept = kept[: max(0, size - len(SPECIALS))]
        return cls(kind, (*SPECIALS, *sorted(kept)), lower)

    def clean(self, text: str) -> str:
        """The text as these units take it, and give it back: NFC, in small letters where `lower`, and where units are
        not characters, single spaces."""
        return clean(text, self.kind, self.lower)

    def encode(self, text: str) -> list[int]:
        """Token ids, without <bos> and <eos>; <unk> where a symbol is not known."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; many at once are faster where units are bpe."""
        texts = [self.clean(text) for text in texts]
        if self.kind == "bpe":
            return [list(found.ids) for found in self._bpe.encode_batch(texts)]
        known = self._known
        return [[known.get(piece, UNK) for piece in _cut(self.kind, text)] for text in texts]

    def unknown(self, text: str) -> list[str]:
        """The symbols of a text that the vocabulary lacks, each once, in order."""
        text = self.clean(text)
        if self.kind == "bpe":
            found = self._bpe.encode(text)
            missing = [text[a:b] for i, (a, b) in zip(found.ids, found.offsets, strict=True) if i == UNK]
            return list(dict.fromkeys(missing))
        return [piece for piece in dict.fromkeys(_cut(self.kind, text)) if piece not in self._known]

    def decode(self, ids: Iterable[Any]) -> str:
        """The string up to <eos>; <pad> and <bos> say nothing."""
        pieces = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                pieces.append(self.vocabulary[i])
        if self.kind == "bpe":
            return "".join(pieces).replace(SPACE, " ").strip()
        return ("" if self.kind == "characters" else " ").join(pieces)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` takes them back."""
        merges = {"merges": [list(pair) for pair in self.merges]} if self.kind == "bpe" else {}
        return {"kind": self.kind, "lower": self.lower, "vocabulary": list(self.vocabulary), **merges}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Units":
        """The units that `to_dict` wrote down; BadInput where it did not."""
        kind, pieces, merges = data.get("kind"), data.get("vocabulary"), data.get("merges", [])
        if kind not in KINDS:
            raise unknown("units", kind, KINDS)
        if not isinstance(pieces, list | tuple) or not all(isinstance(piece, str) for piece in pieces):
            raise BadInput(
                "units: `vocabulary` is a list of strings; these units were damaged, or not written by onelayer"
            )
        if tuple(pieces[: len(SPECIALS)]) != SPECIALS:
            raise BadInput(
                f"units: the vocabulary begins with {', '.join(SPECIALS)}; received {pieces[: len(SPECIALS)]}"
            )
        pairs = tuple(tuple(pair) for pair in merges)
        known = set(pieces)
        for pair in pairs:
            if len(pair) != 2 or not known.issuperset((*pair, "".join(pair))):
                raise BadInput(f"units: the merge {pair} is not of two pieces of the vocabulary into a third one")
        return cls(kind, tuple(pieces), bool(data.get("lower", False)), pairs)

    @cached_property
    def _known(self) -> dict[str, int]:
        """The specials' own names are no pieces of a text."""
        return {piece: i for i, piece in enumerate(self.vocabulary) if i >= len(SPECIALS)}

    @cached_property
    def _bpe(self) -> Any:
        return _tokenizer(self.vocabulary, self.merges)


def clean(text: str, kind: str = "characters", lower: bool = False) -> str:
    """What Units.clean says, for units that are yet to be learnt."""
    text = normalize("NFC", text.lower() if lower else text)
    if kind == "characters":
        return text
    return " ".join((text.replace(SPACE, " ") if kind == "bpe" else text).split())


def _cut(kind: str, text: str) -> list[str]:
    return list(text) if kind == "characters" else text.split()


# ---------------------------------------------------------------------------------------------------- byte-pair merges


def _learn_merges(texts: list[str], size: int) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """(vocabulary, merges). The same texts give the same merges: of equally frequent pairs the lower ids come first."""
    alphabet = set(SPACE).union(*texts) - {" "}
    least = len(SPECIALS) + len(alphabet)
    if size < least:
        raise BadInput(
            f"a bpe vocabulary of {size} is too small: {len(SPECIALS)} special tokens and the {len(alphabet)} "
            f"different characters of the training text alone are {least}. Allowed: {least} or more"
        )
    library = need("tokenizers", "bpe units")
    tokenizer = _tokenizer(SPECIALS, ())
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=list(SPECIALS), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tuple(vocabulary), tuple((a, b) for a, b in model["merges"])


def _tokenizer(vocabulary: Sequence[str], merges: Sequence[tuple[str, str]]) -> Any:
    """The library's tokenizer. Specials are not registered with it, so that no text can spell one."""
    library = need("tokenizers", "bpe units")
    known = {piece: i for i, piece in enumerate(vocabulary)}
    tokenizer = library.Tokenizer(library.models.BPE(vocab=known, merges=list(merges), unk_token=SPECIALS[UNK]))
    cut = library.pre_tokenizers
    tokenizer.pre_tokenizer = cut.Sequence([cut.Metaspace(SPACE, prepend_scheme="always"), cut.Punctuation("isolated")])
    return tokenizer
