"""Which examples a step sees: all of them, or the next few of the epoch's shuffled order.

The order of epoch e is drawn from `generator(seed, "epoch", e)`: it hangs on nothing but seed and step, so a resumed
run sees what the uninterrupted one would have seen. The last few examples that fill no batch wait for another epoch.
"""

import numpy as np

from ..arrays import generator, map_tree
from ..errors import BadInput
from ..tasks import Batch

__all__ = ["Batches"]


class Batches:
    """`Batches(task.train, size, seed).at(step)`: the batch of a step."""

    def __init__(self, train: Batch, size: int | None, seed: int) -> None:
        n = len(train.tokens)
        if size is not None and size > n:
            raise BadInput(f"a batch of {size} is more than the {n} training examples; allowed: 1 to {n}, or none for all")
        self.train, self.seed = train, seed
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
        if self.size is None:
            return self.train
        chosen = self.indices(step)
        return map_tree(lambda a: a[chosen], self.train)
