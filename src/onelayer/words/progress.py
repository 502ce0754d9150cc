"""What a run in progress says: a few examples decoded, and, of a fixed sample, the metrics of what is said.

    look = progress(task, model)           once; the same examples every time
    found = look(params)                   at each validation: found.metrics, found.samples, and str(found)

Training may not import decoding (the house's floors), so a command makes such a callback and hands it down.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..decoding.decode import Greedy, How
from ..errors import BadInput
from ..models.config import ModelConfig
from ..tasks import Pair, Task
from .answers import Talk, answers
from .scores import score

__all__ = ["Progress", "Sample", "progress"]

PROMPT, GOES_ON = 16, 60  # tokens of a language model's prompt, and of what it then says


class Sample(NamedTuple):
    source: str
    said: str
    references: tuple[str, ...]  # empty for a language model

    def __str__(self) -> str:
        if not self.references:
            return f"{self.said!r} (given {self.source!r})"
        if self.said in self.references:
            return f"{self.source} → {self.said} ✓"
        return f"{self.source} → {self.said or '(nothing)'} ✗ {self.references[0]}"


class Progress(NamedTuple):
    samples: list[Sample]
    metrics: dict[str, Any]  # of the first `judged` examples, decoded; empty where none was asked for

    def __str__(self) -> str:
        return "\n".join(str(sample).replace("\n", "↵") for sample in self.samples)


def progress(
    task: Task,
    model: ModelConfig,
    samples: int = 3,
    judged: int = 0,
    how: How = Greedy(),  # noqa: B008  frozen
    limit: int | None = None,
) -> Callable[[Any], Progress]:
    """The callback. The examples come from the validation split, or from test where there is none, spread over it."""
    if task.text is None:
        raise BadInput(f"the task '{task.name}' is not one of strings: there is nothing to decode")
    text = task.text
    if text.source is None:
        return _of_language(task, model, samples)
    pairs = text.pairs.get("valid") or text.pairs["test"]
    some = _spread(pairs, max(samples, judged))
    shown = _spread(list(range(len(some))), samples)

    def look(params: Any) -> Progress:
        talk = Talk(params, model, text.source, text.target)
        if judged:
            found = score(talk, some, text.metrics, how, limit)
            said = [found.said[i] for i in shown]
        else:
            found, said = None, [best.text for best, *_ in answers(talk, [some[i].source for i in shown], how, limit)]
        lines = [Sample(some[i].source, s, some[i].references) for i, s in zip(shown, said, strict=True)]
        return Progress(lines, found.metrics if found else {})

    return look


def _of_language(task: Task, model: ModelConfig, samples: int) -> Callable[[Any], Progress]:
    assert task.text is not None
    units, split = task.text.target, task.test if task.valid is None else task.valid
    rows = _spread(list(range(len(split.tokens))), samples)
    prompts = [units.decode(np.asarray(split.tokens[i])[:PROMPT].tolist()) for i in rows]

    def look(params: Any) -> Progress:
        talk = Talk(params, model, None, units)
        said = answers(talk, prompts, limit=GOES_ON)
        return Progress([Sample(prompt, best.text, ()) for prompt, (best, *_) in zip(prompts, said, strict=True)], {})

    return look


def _spread(items: list[Any] | list[Pair], n: int) -> list[Any]:
    """n of the items, evenly over them, the first among them."""
    return [items[i * len(items) // n] for i in range(n)] if n < len(items) else list(items)
