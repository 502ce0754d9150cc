"""What an evaluation measures, on which examples, and what its figures are called; the same for every engine.

Splits    train, and beside it valid where the task has such a split, else test. Where there is a valid split, test is
          left alone until the run is over: nothing may be chosen by it. Of train a fixed sample is measured where
          `evaluation.train_examples` asks for one: drawn once, from `generator(seed, "sample", "train")`.

Figures   SPLIT_loss: in nats for each target that counts, without label smoothing
          SPLIT_accuracy: the share of examples that are answered right
          SPLIT_teacher_forced_accuracy: where the examples are strings, the share of targets that are said right when
          all before them are given. It is no measure of decoded strings, hence another name.
          GROUP_accuracy: of the test split's groups, by name
"""

from typing import Any

import numpy as np

from .. import threads
from ..arrays import generator
from ..tasks import Batch, Task
from .batches import Lengths, chunks
from .config import RunConfig
from .objective import Met, Objective, Scores, judge, meet, meet_again, say

__all__ = ["chunk", "judged", "names", "splits", "summarise"]

CHUNK = 16384  # examples that are evaluated at once, at most
LOGITS = 1 << 22  # numbers that they may have as logits: 16 MB, in float32


def splits(task: Task, config: RunConfig) -> dict[str, Batch]:
    """The examples that each evaluation measures."""
    train, limit = task.train, config.evaluation.train_examples
    if limit is not None and limit < len(train.tokens):
        chosen = np.sort(generator(config.seed, "sample", "train").permutation(len(train.tokens))[:limit])
        train = Batch(*(None if a is None else a[chosen] for a in train))
    return {"train": train, **({"test": task.test} if task.valid is None else {"valid": task.valid})}


def chunk(task: Task, batch: Batch) -> int:
    """How many of the examples to evaluate at once, so that an evaluation takes little memory."""
    return int(min(CHUNK, max(1, LOGITS // (len(task.vocabulary) * batch.targets.shape[1]))))


def judged(
    params: Any, batch: Batch, goal: Objective, most: int, of: Lengths, keep: bool = False, known: Met | None = None
) -> tuple[Scores, np.ndarray | None]:
    """The scores of a split in its order, so many examples at a time, side by side where there are threads; and all of
    its logits where they are kept. known: what other examples met under these parameters."""

    with threads.alone():
        met = (meet_again(known, batch, goal) if known else None) or meet(params, batch, goal)

    def answer(piece: tuple[Any, Batch]) -> tuple[Any, Scores, Any]:
        rows, part = piece
        logits = say(met.params, part, goal)
        return rows, judge(logits, part), logits if keep else None

    pieces = [*chunks(met.batch, _evenly(len(batch.tokens), most), of, in_order=keep)]
    order, parts, logits = zip(*threads.together(answer, pieces), strict=True)
    found = Scores(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    if not isinstance(order[0], slice):
        back = np.argsort(np.concatenate(order))
        found = Scores(*(part[back] for part in found))
    return found, np.concatenate(logits) if keep else None


def _evenly(n: int, most: int) -> int:
    """How many examples a piece has, so that no thread waits for another's, and together they are at most `most`."""
    workers = threads.count()
    rounds = max(1, -(-n // most))
    return max(1, -(-n // (workers * rounds)))


def _accuracy(task: Task) -> str:
    return "accuracy" if task.text is None else "teacher_forced_accuracy"


def names(task: Task) -> list[str]:
    """What an evaluation of the task measures."""
    both = ["train", "test" if task.valid is None else "valid"]
    groups = [name for name, members in task.groups.items() if len(members)] if task.valid is None else []
    return [f"{split}_{kind}" for split in both for kind in ("loss", _accuracy(task))] + [
        f"{name}_accuracy" for name in groups
    ]


def summarise(task: Task, split: str, found: Scores) -> dict[str, float]:
    """The scores of a split's examples [N] -> its loss and accuracy, and its groups' accuracy."""
    losses, counts, correct, hits = found
    total = float(np.sum(counts, dtype=np.float64))
    right = float(np.mean(correct)) if len(correct) else float("nan")
    figures = {
        f"{split}_loss": float(np.sum(losses, dtype=np.float64) / total) if total else float("nan"),
        f"{split}_{_accuracy(task)}": right if task.text is None else float(np.sum(hits, dtype=np.float64) / total),
    }
    if split == "test":
        for name, members in task.groups.items():
            if len(members):
                figures[f"{name}_accuracy"] = float(np.mean(correct[members]))
    return figures
