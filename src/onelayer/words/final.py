"""What a run of strings came to: its weights chosen by the validation split, then valid and test decoded and judged.

    final = conclude("runs/reverse-0-…")
    final.weights, final.metrics["test"]["exact_match"]

Choice    among the best, the averaged and the last weights: by the task's own metric (of what is decoded greedily, on
          valid), of equals by the loss there; of a language model by its loss. Test has no part in it.
Decoding  greedy; of sentences, which BLEU judges, with a beam.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..decoding.decode import Beam, Greedy, How
from ..errors import BadInput
from ..tasks import Task
from ..training.files import replace_file
from ..training.opened import SCORES, WEIGHTS, OpenedText, open_text, validation_loss
from .language import surprise_at
from .scores import in_words, score

__all__ = ["Final", "choose", "conclude", "keep"]

ERRORS = ("word_error_rate", "phone_error_rate", "bits_per_character")  # of which less is better


class Final(NamedTuple):
    weights: str  # which were chosen
    step: int
    valid_loss: dict[str, float]  # of each of the weights that there were
    metrics: dict[str, dict[str, Any]]  # split -> name -> value
    how: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics,
            "decoding": self.how,
            "weights": self.weights,
            "weights_step": self.step,
            "valid_loss_of_weights": self.valid_loss,
        }


def conclude(run: Path | str, task: Task | None = None, how: How | None = None) -> Final:
    """The metrics of a run on each held-out split. task: the run's, where it is at hand; how: None as above."""
    first = open_text(run)
    task = first.config.task.make(first.config.seed) if task is None else task
    opened, losses = choose(run, task)
    assert task.text is not None
    if opened.source is None:
        metrics = {split: surprise_at(opened.params, opened.model, task, split) for split in ("valid", "test")}
        return Final(opened.weights, opened.step, losses, metrics, "teacher-forced")
    how = (Beam() if "bleu" in opened.metrics else Greedy()) if how is None else how
    lowercase = bool(task.facts.get("lower", False))
    metrics = {
        split: score(opened, pairs, opened.metrics, how, lowercase=lowercase).metrics
        for split, pairs in task.text.pairs.items()
        if split != "train"
    }
    return Final(opened.weights, opened.step, losses, metrics, in_words(how))


def keep(run: Path | str, final: Final, step: int) -> None:
    """Write it into the run's directory, for its page and for decoding. step: the run's last."""
    text = json.dumps({"step": step, **final.as_dict()}, indent=2, ensure_ascii=False)
    replace_file(Path(run) / SCORES, (text + "\n").encode())


def choose(run: Path | str, task: Task) -> tuple[OpenedText, dict[str, float]]:
    """The weights that do best on valid, and the loss of each there."""
    found: dict[tuple[int, ...], OpenedText] = {}  # the same weights under two names are one
    for name in WEIGHTS:
        try:
            opened = open_text(run, name)
        except BadInput:  # none were kept to be averaged
            continue
        found.setdefault(opened.steps, opened)
    losses = {steps: validation_loss(opened, task) for steps, opened in found.items()}
    ranked = sorted(found, key=lambda steps: (*_decoded(found[steps], task, len(found)), losses[steps]))
    return found[ranked[0]], {found[steps].weights: loss for steps, loss in losses.items()}


def _decoded(opened: OpenedText, task: Task, candidates: int) -> tuple[float, ...]:
    """The task's own metric of what is decoded on valid, less being better; nothing where there is no choice."""
    if opened.source is None or candidates < 2 or task.text is None:
        return ()
    pairs = task.text.pairs.get("valid") or task.text.pairs["test"]
    metric = next((name for name in opened.metrics if name != "exact_match"), opened.metrics[0])
    value = score(opened, pairs, (metric,)).metrics[metric]
    return (value if metric in ERRORS else -value,)
