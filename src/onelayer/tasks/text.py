"""A task of strings: pairs of strings become arrays here, and nowhere else.

Arrays    source       [N S]  the source's tokens, <eos>, then <pad>
          source_mask  [N S]  True on what is not <pad>
          tokens       [N T]  <bos>, the target's tokens, then <pad>: what the decoder reads
          targets      [N T]  the target's tokens, <eos>, then <pad>: what it must say
          weights      [N T]  1 on what must be said, 0 on <pad>; read = T
          S and T are the same for all splits: the longest of any of them, and one.

Vocabulary   of the training strings alone. What else occurs in valid and test is <unk>; facts["unknown"] counts it.

References   Rows of valid and test that have the same source are one example with several right answers; the arrays
             hold the first. Rows of train stay apart: each is something to learn.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np

from onelayer.arrays import generator
from onelayer.errors import BadInput, unknown
from onelayer.tasks import Batch, Pair, Task, Text
from onelayer.tasks.files import Row
from onelayer.tasks.units import BOS, BPE_SIZE, EOS, KINDS, PAD, SPECIALS, UNK, Units

__all__ = ["MAX_LENGTH", "METRICS", "Kind", "build", "cut"]

Kind = Literal["characters", "words", "bpe"]
Ids = list[tuple[list[int], list[int]]]  # of source and target
METRICS = ("exact_match", "word_error_rate", "phone_error_rate", "bleu", "chrf", "bits_per_character")
MAX_LENGTH = 256


def build(
    name: str,
    train: Sequence[Row],
    valid: Sequence[Row],
    test: Sequence[Row],
    source_units: Kind = "characters",
    target_units: Kind = "characters",
    *,
    bpe_size: int = BPE_SIZE,
    shared: bool = False,
    lower: bool = False,
    max_length: int = MAX_LENGTH,
    drop_long: bool = False,
    metrics: Sequence[str] = (),
    groups: Mapping[str, Collection[str]] | None = None,
    more: Mapping[str, Sequence[Row]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Task:
    """The task of these pairs of strings.

    shared:   one vocabulary for source and target, learnt on both, so that their embeddings can be one table.
    groups:   parts of the test split, each by the sources in it; every one is scored on its own.
    more:     further test splits, of which there are strings and no arrays; positions reach as far as they do.
    metrics:  what the decoded strings are judged by; by default what fits the units.
    """
    kinds = {"source_units": source_units, "target_units": target_units}
    for key, kind in kinds.items():
        if kind not in KINDS:
            raise unknown(key, kind, KINDS)
    for metric in metrics:
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
    if shared and source_units != target_units:
        raise BadInput(
            f"shared: one vocabulary needs the same units on both sides; received {source_units} and {target_units}. "
            "Set source_units and target_units alike, or shared to false"
        )
    rows = {"train": train, "valid": valid, "test": test, **(more or {})}
    for split, some in rows.items():
        if not some:
            raise BadInput(f"{split}: there is no pair of source and target. Each split needs at least one")

    source, target = _learn(train, kinds, bpe_size, shared, lower)
    warnings: list[str] = []
    pairs: dict[str, list[Pair]] = {}
    ids: dict[str, Ids] = {}
    dropped: dict[str, int] = {}
    for split, some in rows.items():
        whole = _pairs(some, source, target, merge=split != "train")
        encoded = [(s, t) for s, t in zip(*_encode(whole, source, target), strict=True)]
        kept = [i for i, sides in enumerate(encoded) if max(map(len, sides)) <= max_length]
        pairs[split], ids[split] = [whole[i] for i in kept], [encoded[i] for i in kept]
        dropped[split] = len(whole) - len(kept)
        if dropped[split]:
            warnings.append(_too_long(split, whole, encoded, max_length, drop_long))

    longest = [max(len(sides[k]) for split in ids.values() for sides in split) for k in (0, 1)]
    batches = {split: _batch(ids[split], longest[0] + 1, longest[1] + 1) for split in ("train", "valid", "test")}
    held_out = [split for split in rows if split != "train"]
    trained_on = {pair.source for pair in pairs["train"]}
    overlap = {split: sum(pair.source in trained_on for pair in pairs[split]) for split in held_out}
    unseen = {split: sum(UNK in s or UNK in t for s, t in ids[split]) for split in held_out}
    warnings += _overlap_warnings(overlap, pairs) + _unknown_warnings(unseen, pairs)
    common = Counter(pair.references[0] for pair in pairs["train"]).most_common(1)[0][0]
    return Task(
        name=name,
        vocabulary=target.vocabulary,
        n_ctx=longest[1] + 1,
        read=longest[1] + 1,
        **batches,
        groups={
            group: np.array([i for i, pair in enumerate(pairs["test"]) if pair.source in members], dtype=np.int64)
            for group, members in _cleaned(groups or {}, source).items()
        },
        facts={
            "sizes": {split: len(some) for split, some in pairs.items()},
            "units": {"source": source_units, "target": target_units},
            "vocabulary_sizes": {"source": len(source.vocabulary), "target": len(target.vocabulary)},
            "shared": shared,
            "longest": {"source": longest[0], "target": longest[1]},  # in tokens, without <bos> and <eos>
            "dropped": dropped,
            "overlap": overlap,  # sources that train shows too
            "unknown": unseen,  # examples with a symbol that train does not show
            "majority_accuracy": sum(common in pair.references for pair in pairs["test"]) / len(pairs["test"]),
            "files": [],
            **(facts or {}),
            "warnings": [*(facts or {}).get("warnings", []), *warnings],
        },
        text=Text(source, target, pairs, tuple(metrics) or fitting(source_units, target_units)),
        source_vocabulary=None if shared else source.vocabulary,
        pad=PAD,
    )


def fitting(source_units: str, target_units: str) -> tuple[str, ...]:
    """The metrics that fit the units: characters to words are letters to phones, other words and pieces sentences."""
    if target_units == "words" and source_units == "characters":
        return "exact_match", "word_error_rate", "phone_error_rate"
    return ("exact_match",) if target_units == "characters" else ("exact_match", "bleu", "chrf")


def cut(rows: Sequence[Row], share: float, seed: int, purpose: str) -> tuple[list[Row], list[Row]]:
    """(what is left, the share cut off): whole sources, drawn at random, so that none is on both sides."""
    sources = list(dict.fromkeys(source for source, _ in rows))
    n = max(1, round(share * len(sources)))
    if len(sources) - n < 1:
        raise BadInput(
            f"{purpose}: there are only {len(sources)} different sources in train, too few to hold any out. Name a "
            f"file for {purpose}, or give more pairs"
        )
    chosen = {sources[i] for i in generator(seed, "cut", purpose).permutation(len(sources))[:n]}
    return [row for row in rows if row[0] not in chosen], [row for row in rows if row[0] in chosen]


# ---------------------------------------------------------------------------------------------------- parts of build


def _learn(
    train: Sequence[Row], kinds: Mapping[str, str], bpe_size: int, shared: bool, lower: bool
) -> tuple[Units, Units]:
    """The units of source and target; refused where there would be nothing to tell apart."""

    def learn(kind: str, strings: Iterable[str]) -> Units:
        return Units.learn(kind, strings, bpe_size if kind == "bpe" else None, lower)

    if shared:
        units = [learn(kinds["source_units"], chain.from_iterable(train))] * 2
    else:
        units = [learn(kind, (row[side] for row in train)) for side, kind in enumerate(kinds.values())]
    for (key, kind), one in zip(kinds.items(), units, strict=True):
        own = list(one.vocabulary[len(SPECIALS) :])
        if len(own) < 2:
            raise BadInput(
                f"the vocabulary of train's {key.removesuffix('_units')}s, in {kind}, has one symbol, "
                f"{', '.join(map(repr, own))}: there is nothing to tell apart. Give other text, or other {key} "
                f"(allowed: {', '.join(KINDS)})"
            )
    return units[0], units[1]


def _pairs(rows: Iterable[Row], source: Units, target: Units, merge: bool) -> list[Pair]:
    cleaned = [(source.clean(x), target.clean(y)) for x, y in rows]
    if not merge:
        return [Pair(x, (y,)) for x, y in cleaned]
    answers: dict[str, dict[str, None]] = {}
    for x, y in cleaned:
        answers.setdefault(x, {})[y] = None
    return [Pair(x, tuple(some)) for x, some in answers.items()]


def _encode(pairs: list[Pair], source: Units, target: Units) -> tuple[list[list[int]], list[list[int]]]:
    return source.encode_all([pair.source for pair in pairs]), target.encode_all([pair.references[0] for pair in pairs])


def _batch(ids: Ids, width: int, target_width: int) -> Batch:
    source, source_mask = _ended([s for s, _ in ids], width)
    targets, asked = _ended([t for _, t in ids], target_width)
    tokens = np.concatenate([np.full((len(ids), 1), BOS), np.where(targets == EOS, PAD, targets)[:, :-1]], axis=1)
    return Batch(tokens, targets, asked.astype(np.float32), source, source_mask)


def _ended(ids: list[list[int]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, <eos>, then <pad>; where it is not <pad>), each [N width]."""
    lengths = np.fromiter((len(line) + 1 for line in ids), dtype=np.int64, count=len(ids))
    there = np.arange(width) < lengths[:, None]
    out = np.full(there.shape, PAD, dtype=np.int64)
    out[there] = np.fromiter(chain.from_iterable((*line, EOS) for line in ids), np.int64, int(lengths.sum()))
    return out, there


def _cleaned(groups: Mapping[str, Collection[str]], source: Units) -> dict[str, set[str]]:
    return {name: {source.clean(text) for text in members} for name, members in groups.items()}


def _too_long(split: str, pairs: list[Pair], ids: Ids, limit: int, drop: bool) -> str:
    sizes = [max(map(len, sides)) for sides in ids]
    worst = int(np.argmax(sizes))
    told = (
        f"{split}: {sum(size > limit for size in sizes):,} of {len(pairs):,} pairs are longer than "
        f"max_length = {limit} tokens; the longest, {pairs[worst].source[:40]!r}…, has {sizes[worst]:,}"
    )
    if not drop:
        raise BadInput(f"{told}. Raise max_length, or leave them out by drop_long "
                       "(on the command line --task.max-length, --task.drop-long)")  # fmt: skip
    if min(sizes) > limit:
        raise BadInput(f"{told}. None would be left. Raise max_length")
    return f"{told}. They were left out"


def _overlap_warnings(overlap: dict[str, int], pairs: dict[str, list[Pair]]) -> list[str]:
    return [
        f"{n:,} of {len(pairs[split]):,} sources of {split} stand in train too: what they score is partly memory"
        for split, n in overlap.items() if n
    ]  # fmt: skip


def _unknown_warnings(unseen: dict[str, int], pairs: dict[str, list[Pair]]) -> list[str]:
    return [
        f"{n:,} of {len(pairs[split]):,} examples of {split} hold a symbol that train does not show (<unk>)"
        for split, n in unseen.items() if n
    ]  # fmt: skip
