"""Which examples a step sees, and which numbers their places get.

All examples, or the next few of the epoch's shuffled order.
The order of epoch e is drawn from `generator(seed, "epoch", e)`: it hangs on nothing but seed and step, so a resumed
run sees what the uninterrupted one would have seen. The last few examples that fill no batch wait for another epoch.
Where position ids are drawn, step s takes them from `generator(seed, "ids", s)`, and an evaluation from its split's.
"""

import numpy as np

from ..arrays import generator, map_tree
from ..errors import BadInput
from ..models.config import ModelConfig
from ..tasks import Batch

__all__ = ["Batches", "numbered"]


def numbered(batch: Batch, model: ModelConfig, rng: np.random.Generator, training: bool) -> Batch:
    """The batch with position ids where the model's numbering draws them; as it is where places count 0, 1, 2 …"""
    if model.position_ids == "sequential":
        return batch

    def draw(tokens: np.ndarray | None) -> np.ndarray | None:
        return None if tokens is None else np.broadcast_to(model.numbering.draw(tokens, rng, training), tokens.shape)

    return batch._replace(ids=draw(batch.tokens), source_ids=draw(batch.source))


class Batches:
    """`Batches(task.train, size, seed, model).at(step)`: the batch of a step."""

    def __init__(self, train: Batch, size: int | None, seed: int, model: ModelConfig) -> None:
        n = len(train.tokens)
        if size is not None and size > n:
            raise BadInput(f"a batch of {size} is more than the {n} training examples; allowed: 1 to {n}, none for all")
        self.train, self.seed, self.model = train, seed, model
        self.size = None if size == n else size
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> np.ndarray:
        """The examples of a step, as indices into train."""
        n = len(self.train.tokens)
        if self.size is None:
            return np.arange(n)
        epoch, place = divmod(step, n // self.size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, generator(self.seed, "epoch", epoch).permutation(n)
        return self._order[place * self.size : (place + 1) * self.size]

    def at(self, step: int) -> Batch:
        batch = self.train
        if self.size is not None:
            chosen = self.indices(step)
            batch = map_tree(lambda a: a[chosen], batch)
        return numbered(batch, self.model, generator(self.seed, "ids", step), training=True)

    def split(self, name: str, batch: Batch) -> Batch:
        """A whole split, numbered as an evaluation numbers it."""
        return numbered(batch, self.model, generator(self.seed, "ids", name), training=False)
