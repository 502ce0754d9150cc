"""Which examples a step sees, how wide its arrays are, and which numbers their places get.

All          every example, in every step.
By number    the next `size` of the epoch's shuffled order. The last few that fill no batch wait for another epoch.
By tokens    as many as their padding allows: a batch of n examples, whose longest source is S and longest target T,
             has n (S + T) ≤ tokens. Lengths are rounded up to multiples of `bucket`; examples that agree then lie in a
             bucket, in an order that each epoch draws; buckets lie beside those of like length, and batches are cut
             from that row. Where the cuts fall hangs on the lengths alone: every epoch has equally many batches, sees
             each example once, and takes its batches in an order of its own.

Epoch e draws from `generator(seed, "epoch", e)` and nothing else: it hangs on seed and step alone, so a resumed run
sees what the uninterrupted one would have seen. With `accumulate` = k, a step sees k batches in a row as one.

Width     Columns that are padding in every example of a batch are not there: the batch is as wide as its longest.
Ids       Where position ids are drawn, step s takes them from `generator(seed, "ids", s)`; an evaluation from its
          split's name.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..arrays import Array, generator
from ..errors import BadInput
from ..models.config import ModelConfig
from ..tasks import Batch

__all__ = ["Batches", "Lengths", "chunks", "lengths", "narrow", "numbered"]


def numbered(batch: Batch, model: ModelConfig, rng: np.random.Generator, training: bool) -> Batch:
    """The batch with position ids where the model's numbering draws them; as it is where places count 0, 1, 2 …"""
    if model.position_ids == "sequential":
        return batch

    def draw(tokens: np.ndarray | None) -> np.ndarray | None:
        return None if tokens is None else np.broadcast_to(model.numbering.draw(tokens, rng, training), tokens.shape)

    return batch._replace(ids=draw(batch.tokens), source_ids=draw(batch.source))


# ---------------------------------------------------------------------------------------------------- widths


class Lengths(NamedTuple):
    """How many columns of each example are not padding."""

    source: np.ndarray  # [N]; 0 where there is no source
    target: np.ndarray  # [N]


def lengths(batch: Batch) -> Lengths:
    """Targets end with the last that has weight; where only the last few positions are judged, nothing is padding."""
    n, T = batch.tokens.shape
    whole = batch.weights is None or batch.targets.shape[1] != T
    S = 0 if batch.source is None else batch.source.shape[1]
    source = np.full(n, S) if batch.source_mask is None else _last(batch.source_mask)
    return Lengths(source, np.full(n, T) if whole else _last(batch.weights))


def _last(mask: Array) -> np.ndarray:
    """The number of columns up to the last that is not 0; at least 1."""
    there = np.asarray(mask)[:, ::-1] != 0
    return np.where(there.any(axis=1), mask.shape[1] - there.argmax(axis=1), 1)


def narrow(batch: Batch, rows: np.ndarray | slice, of: Lengths) -> Batch:
    """These examples of a batch, without the columns that are padding in all of them."""
    T, t = batch.tokens.shape[1], int(of.target[rows].max())
    R = batch.targets.shape[1]
    s = int(of.source[rows].max())
    read = t if R == T else R  # where the last few positions are judged, no column may go
    widths = Batch(t, read, read, s, s, t, s)
    cut = Batch(*(None if a is None else a[:, :width][rows] for a, width in zip(batch, widths, strict=True)))
    same = cut.source_mask is not None and bool(np.all(of.source[rows] == s)) and bool(np.all(cut.source_mask))
    return cut._replace(source_mask=None) if same else cut


def chunks(
    batch: Batch, most: int, of: Lengths | None = None, in_order: bool = False
) -> Iterator[tuple[np.ndarray | slice, Batch]]:
    """The batch in parts of at most `most` examples, and which they are: like lengths together, so that little is
    padding. Where all are equally long, or `in_order` says so, they stay in order and whole."""
    of = lengths(batch) if of is None else of
    n, T = batch.tokens.shape
    S = 0 if batch.source is None else batch.source.shape[1]
    total = of.source + of.target
    if in_order or np.all(total == T + S):
        for i in range(0, n, most):
            yield slice(i, i + most), Batch(*(None if a is None else a[i : i + most] for a in batch))
        return
    order = np.argsort(total, kind="stable")
    for i in range(0, n, most):
        rows = order[i : i + most]
        yield rows, narrow(batch, rows, of)


# ---------------------------------------------------------------------------------------------------- batches


class Batches:
    """`Batches(task.train, size, seed, model).at(step)`: the batch of a step."""

    def __init__(
        self,
        train: Batch,
        size: int | None,
        seed: int,
        model: ModelConfig,
        *,
        tokens: int | None = None,
        bucket: int = 1,
        accumulate: int = 1,
        trim: bool = True,
    ) -> None:
        """size: examples a batch; tokens: padded tokens a batch; neither: all examples. trim: to the longest."""
        n = len(train.tokens)
        if size is not None and size > n:
            raise BadInput(f"a batch of {size} is more than the {n} training examples; allowed: 1 to {n}, none for all")
        self.train, self.seed, self.model, self.accumulate = train, seed, model, accumulate
        self.size = None if size == n else size
        self.lengths = lengths(train)
        self._buckets = None if tokens is None else _Buckets(self.lengths, tokens, bucket)
        self.whole = self.size is None and self._buckets is None  # every step sees every example
        if self.whole and accumulate > 1:
            raise BadInput(
                f"accumulate = {accumulate} takes so many batches as one, and each batch is all {n} examples already; "
                "set batch_tokens or batch_size, or accumulate to 1"
            )
        S = 0 if train.source is None else train.source.shape[1]
        self._trims = trim and bool(np.any(sum(self.lengths) < train.tokens.shape[1] + S))
        n_read = train.targets.shape[1]
        self._counted = np.full(n, n_read) if train.weights is None else np.count_nonzero(train.weights, axis=1)
        self._epoch, self._parts = -1, [np.empty(0, dtype=np.int64)]

    @property
    def an_epoch(self) -> int:
        """How many batches an epoch has."""
        if self._buckets is not None:
            return len(self._buckets.edges) - 1
        return 1 if self.size is None else len(self.train.tokens) // self.size

    def _part(self, number: int) -> np.ndarray:
        """The examples of the batch with this number, counted from the run's start."""
        epoch, place = divmod(number, self.an_epoch)
        if epoch != self._epoch:
            rng = generator(self.seed, "epoch", epoch)
            if self._buckets is not None:
                self._parts = self._buckets.draw(rng)
            else:
                order, size = rng.permutation(len(self.train.tokens)), self.size or 0
                self._parts = [order[i * size : (i + 1) * size] for i in range(self.an_epoch)]
            self._epoch = epoch
        return self._parts[place]

    def _numbers(self, step: int) -> range:
        return range(step * self.accumulate, (step + 1) * self.accumulate)

    def indices(self, step: int) -> np.ndarray:
        """The examples of a step, as indices into train."""
        if self.whole:
            return np.arange(len(self.train.tokens))
        found = [self._part(number) for number in self._numbers(step)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def at(self, step: int) -> Batch:
        """All that a step sees, as one batch."""
        batch = self.train
        if not self.whole:
            chosen = self.indices(step)
            batch = narrow(batch, chosen, self.lengths) if self._trims else _rows(batch, chosen)
        return numbered(batch, self.model, generator(self.seed, "ids", step), training=True)

    def parts(self, batch: Batch, step: int) -> list[Batch]:
        """`at(step)` as the batches that it was put together from, each as wide as its longest."""
        if self.accumulate == 1:
            return [batch]
        sizes = [len(self._part(number)) for number in self._numbers(step)]
        chosen = self.indices(step)
        of = Lengths(*(a[chosen] for a in self.lengths))
        ends = np.cumsum(sizes).tolist()
        own = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        return [narrow(batch, rows, of) if self._trims else _rows(batch, rows) for rows in own]

    def tokens(self, step: int) -> int:
        """How many targets count in a step."""
        return int(self._counted.sum() if self.whole else self._counted[self.indices(step)].sum())

    def split(self, name: str, batch: Batch) -> Batch:
        """A whole split, numbered as an evaluation numbers it."""
        return numbered(batch, self.model, generator(self.seed, "ids", name), training=False)


def _rows(batch: Batch, rows: np.ndarray | slice) -> Batch:
    return Batch(*(None if a is None else a[rows] for a in batch))


class _Buckets:
    """Examples by their rounded lengths, and where the row of buckets is cut into batches."""

    def __init__(self, of: Lengths, tokens: int, width: int) -> None:
        s, t = (_rounded(lengths, width) for lengths in of)
        longest = int((s + t).max())
        if longest > tokens:
            raise BadInput(
                f"batch_tokens = {tokens} does not hold the longest example, which has {longest} tokens of source and "
                f"target together (lengths rounded up to multiples of bucket = {width}); allowed: {longest} or more"
            )
        pairs, self.bucket, counts = np.unique(np.stack([t, s]), axis=1, return_inverse=True, return_counts=True)
        # By target; of equal targets the sources rise and fall in turns, so that neighbours are alike in both.
        turn = np.where(np.unique(pairs[0], return_inverse=True)[1] % 2 == 0, pairs[1], -pairs[1])
        order = np.lexsort((turn, pairs[0]))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self.bucket = rank[self.bucket.reshape(-1)]
        row = [(int(counts[i]), int(pairs[0, i]), int(pairs[1, i])) for i in order]
        self.edges = _evenly(row, tokens)

    def draw(self, rng: np.random.Generator) -> list[np.ndarray]:
        """The batches of an epoch: the examples in each, in the order in which they are taken."""
        order = rng.permutation(len(self.bucket))
        order = order[np.argsort(self.bucket[order], kind="stable")]
        return [order[self.edges[i] : self.edges[i + 1]] for i in rng.permutation(len(self.edges) - 1)]


def _rounded(lengths: np.ndarray, width: int) -> np.ndarray:
    return np.minimum(-(-lengths // width) * width, lengths.max())


def _evenly(row: list[tuple[int, int, int]], tokens: int) -> list[int]:
    """The cuts with the smallest limit that takes no more batches than `tokens` does: no batch is left with a few."""
    edges = _cuts(row, tokens)
    low, high = max(t + s for _, t, s in row), tokens  # a limit that holds the longest, and one that is known to do
    while low < high:
        middle = (low + high) // 2
        found = _cuts(row, middle)
        if len(found) <= len(edges):
            edges, high = found, middle
        else:
            low = middle + 1
    return edges


def _cuts(row: list[tuple[int, int, int]], tokens: int) -> list[int]:
    """(count, target, source) of each bucket -> where a batch ends and the next begins, each as full as it may be."""
    edges, n, T, S = [0], 0, 0, 0
    for count, t, s in row:
        while count:
            room = tokens // (max(T, t) + max(S, s)) - n
            if room <= 0:
                edges.append(edges[-1] + n)
                n = T = S = 0
                continue
            more = min(room, count)
            n, count, T, S = n + more, count - more, max(T, t), max(S, s)
    return [*edges, edges[-1] + n] if n else edges
