"""Language modelling: say what comes next, in any text file.

Split     by position in the text: the last 10 % (test_share) are test, the 5 % before them (valid_share) valid, what is
          before that is train. Test text is seen neither in training nor when the best weights are chosen. Where units
          are not characters, the cuts move on to the end of their line.

Units     characters: the text as it is, line ends and all. words, bpe: line by line; <eos> stands at the end of each,
          and white space within counts as single spaces. The vocabulary is train's; the rest of the text has <unk> for
          what train does not show, and facts["unknown"] counts it.

Windows   tokens [N T] are T = context successive tokens, targets [N T] the same shifted by one; every place is asked.
          Train is every window of its text, as a view that costs no memory. Valid and test are cut into windows that do
          not overlap, so that each of their tokens is asked once, but the first and up to T - 1 last ones.

Score     Nats a token is the mean loss. Bits a character is the sum of it in bits over the characters that the targets
          spell (facts["characters"]), which makes units comparable.

Source    The split, 90 : 10, and published figures for tiny Shakespeare: github.com/karpathy/nanoGPT, whose 10 % are
          our test. What counting words can do: Witten & Bell 1991, doi:10.1109/18.87000, in `ngram_nats`.
"""

from itertools import chain

import numpy as np
from jaxtyping import Int
from numpy.lib.stride_tricks import sliding_window_view

from onelayer.arrays import Array
from onelayer.errors import BadInput, unknown
from onelayer.tasks import Batch, Task, Text, splits
from onelayer.tasks.files import read_text
from onelayer.tasks.text import KINDS, Kind
from onelayer.tasks.units import BPE_SIZE, EOS, PAD, SPECIALS, UNK, Units, clean

__all__ = ["make", "ngram_nats"]


def make(
    path: str = "",
    units: Kind = "characters",
    context: int = 64,
    bpe_size: int = BPE_SIZE,
    lower: bool = False,
    valid_share: float = 0.05,
    test_share: float = 0.1,
    seed: int = 0,
) -> Task:
    """What comes next in the text at `path`, from up to `context` tokens. Nothing is drawn; the seed is the run's."""
    if units not in KINDS:
        raise unknown("units", units, KINDS)
    context, seed = splits.check_whole("context", context, 1, 2**16), splits.check_seed(seed)
    shares = {"valid_share": valid_share, "test_share": test_share}
    for name, share in shares.items():
        if not 0 < splits.check_share(name, share) < 1:
            raise BadInput(f"{name} = {share} is out of range. Allowed: more than 0 and less than 1, such as 0.1")
    if valid_share + test_share >= 1:
        raise BadInput(
            f"valid_share + test_share = {valid_share + test_share:g} leaves nothing to train on. Lower them"
        )

    whole, fact = read_text(path, "path")
    parts = _cut(clean(whole.replace("\r\n", "\n"), lower=lower), units, valid_share, test_share)
    size = bpe_size if units == "bpe" else None
    learnt = Units.learn(units, [parts["train"]] if units == "characters" else parts["train"].split("\n"), size, lower)
    if len(learnt.vocabulary) < len(SPECIALS) + 2:
        raise BadInput(
            f"the vocabulary of {path}, in {units}, has one symbol, {learnt.vocabulary[-1]!r}: there is nothing to "
            "tell apart. Give other text, or other units"
        )
    ids = {split: _encode(part, learnt) for split, part in parts.items()}
    for split, some in ids.items():
        if len(some) <= context:
            raise BadInput(
                f"{split} has {len(some):,} tokens, too few for a context of {context}, which needs {context + 1}. "
                "Lower the context, give more text, or change the shares"
            )
    batches = {split: _windows(some, context, 1 if split == "train" else context) for split, some in ids.items()}
    held_out = {split: batches[split] for split in ("valid", "test")}
    missing = {split: int(np.sum(batch.targets == UNK)) for split, batch in held_out.items()}
    return Task(
        name=f"{units} of {fact['path'].replace(chr(92), '/').rpartition('/')[2]}",
        vocabulary=learnt.vocabulary,
        n_ctx=context,
        read=context,
        train=batches["train"],
        valid=batches["valid"],
        test=batches["test"],
        facts={
            "sizes": {split: len(batch.tokens) for split, batch in batches.items()},
            "tokens": {split: len(some) for split, some in ids.items()},
            "text": {split: len(part) for split, part in parts.items()},  # in characters
            "characters": {split: int(_characters(ids[split], learnt, context).sum()) for split in held_out},
            "units": {"target": units},
            "vocabulary_sizes": {"target": len(learnt.vocabulary)},
            "unknown": missing,
            "bigram_nats": ngram_nats(ids["train"], ids["test"], 2, len(learnt.vocabulary)),
            "files": [fact],
            "lower": lower,
            "seed": seed,
            "warnings": [
                f"{n:,} tokens of {split} are symbols that train does not show (<unk>)"
                for split, n in missing.items()
                if n
            ],
        },
        text=Text(None, learnt, {}, ("bits_per_character",)),
        pad=PAD,
    )


def _cut(text: str, units: str, valid_share: float, test_share: float) -> dict[str, str]:
    n = len(text)
    places = [int(n * round(1 - test_share - valid_share, 9)), int(n * round(1 - test_share, 9))]
    if units != "characters":
        places = [text.find("\n", place) + 1 or n for place in places]
    a, b = places
    return {"train": text[:a], "valid": text[a:b], "test": text[b:]}


def _encode(text: str, units: Units) -> np.ndarray:
    if units.kind == "characters":
        return np.array(units.encode(text), dtype=np.int64)
    lines = units.encode_all(text.removesuffix("\n").split("\n")) if text else []
    return np.array(list(chain.from_iterable((*line, EOS) for line in lines)), dtype=np.int64)


def _windows(ids: np.ndarray, context: int, stride: int) -> Batch:
    windows = sliding_window_view(ids, context + 1)[::stride]
    return Batch(windows[:, :-1], windows[:, 1:])


def _characters(ids: np.ndarray, units: Units, context: int) -> np.ndarray:
    """How many characters each target of the windows that do not overlap spells [N T]. A line's end is one; a word has
    the space before it, but at the line's beginning; <unk>, of which nothing is known, counts as one character."""
    spelt = np.ones(len(ids), dtype=np.int64)
    if units.kind != "characters":
        space = units.kind == "words"  # a piece of bpe spells it itself
        lengths = [1 if i in (UNK, EOS) else len(piece) for i, piece in enumerate(units.vocabulary)]
        spelt = np.array(lengths)[ids] + (space & (ids != EOS)) - ((ids != EOS) & (np.roll(ids, 1) == EOS))
    return sliding_window_view(spelt, context + 1)[::context, 1:]


# ---------------------------------------------------------------------------------------------------- counting


def ngram_nats(train: Int[Array, " N"], test: Int[Array, " M"], n: int, vocabulary: int) -> float:
    """What counting scores: the mean of -ln p over test, p from the n-grams of train, smoothed by Witten and Bell.

    p(w | h) = (c(h w) + d(h) p(w | h without its first token)) / (c(h) + d(h)), down to 1/vocabulary for no history:
    c(h) counts h followed by anything, d(h) the different tokens seen after it.
    """
    if vocabulary**n >= 2**63:
        raise BadInput(f"{n}-grams of {vocabulary} tokens cannot be numbered in 63 bits. Lower n")
    p = np.full(len(test), 1 / vocabulary)
    for order in range(1, n + 1):
        grams, counts = np.unique(_numbered(train, order, vocabulary), return_counts=True)
        histories, first, different = np.unique(grams // vocabulary, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first)
        asked = _numbered(test, order, vocabulary)  # of test[order - 1:]
        c = _looked_up(asked, grams, counts)
        total, kinds = (_looked_up(asked // vocabulary, histories, some) for some in (totals, different))
        tail = p[order - 1 :]
        p[order - 1 :] = np.where(total > 0, (c + kinds * tail) / np.maximum(total + kinds, 1), tail)
    return float(-np.mean(np.log(p)))


def _numbered(ids: np.ndarray, n: int, base: int) -> np.ndarray:
    """Each window of n tokens as one whole number."""
    return sliding_window_view(ids, n) @ base ** np.arange(n - 1, -1, -1, dtype=np.int64)


def _looked_up(wanted: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, values[place], 0)
