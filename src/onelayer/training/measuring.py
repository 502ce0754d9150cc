"""Measures during training: when they are taken, and how a run that asks for them gets them.

What is measured of a network is no business of this folder: a caller hands in a probe, and the config names what it is
to measure (`evaluation.measures`). `train(config, probe=onelayer.grokking.probe.prepare)`; the commands do so.

    probe(config, task) -> measure, or None where nothing that is asked for applies
    measure(params, answers) -> {name: number, or {key: number}}     params of the run, answers {split: logits [N R V]}

What it answers stands in the line of the evaluation, under "measures".

Schedule  at an evaluation at step t, the last measurement having been at step l:
              there was none yet, or t ≥ l + measures_every and (t ≥ measures_growth · l or the run has moved since l)
          It has moved where a loss changed by a factor of MOVED_LOSS or an accuracy by MOVED_ACCURACY. So measurements
          are dense early and around change, thin out as powers of measures_growth where nothing happens, and are never
          closer than measures_every. It hangs on the config and on what was measured, not on the clock nor on the run's
          end: a resumed run measures where the uninterrupted one would have.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import BadInput
from ..tasks import Task
from .config import EvaluationConfig, RunConfig

__all__ = ["KEY", "Measure", "Probe", "due", "last_measured", "prepare"]

Measure = Callable[[Any, Mapping[str, Any]], dict[str, Any]]
Probe = Callable[[RunConfig, Task], Measure | None]

KEY = "measures"
MOVED_LOSS, MOVED_ACCURACY = 1.2, 0.02


def prepare(config: RunConfig, task: Task, probe: Probe | None) -> Measure | None:
    """What measures this run; None where the config asks for nothing, or for nothing that applies."""
    if config.evaluation.measures == "none":
        return None
    if probe is None:
        raise BadInput(
            f"the config asks for evaluation.measures = {_told(config.evaluation.measures)}, but nothing was given "
            "that measures: pass probe=onelayer.grokking.probe.prepare, or set evaluation.measures = none"
        )
    return probe(config, task)


def _told(measures: str | Sequence[str]) -> str:
    return measures if isinstance(measures, str) else ", ".join(measures)


def due(when: EvaluationConfig, record: Mapping[str, Any], last: Mapping[str, Any] | None) -> bool:
    """Whether the evaluation `record` is to be measured, `last` being the last record that was."""
    if last is None:
        return True
    step, before = record["step"], last["step"]
    if step < before + when.measures_every:
        return False
    return step >= when.measures_growth * before or moved(last, record)


def moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a split's loss or accuracy is another than it was."""
    for split in ("train", "test"):
        before, now = (record.get(f"{split}_accuracy") for record in (old, new))
        if before is not None and now is not None and abs(now - before) >= MOVED_ACCURACY:
            return True
        before, now = (record.get(f"{split}_loss") for record in (old, new))
        if before and now and abs(math.log(now / before)) >= math.log(MOVED_LOSS):
            return True
    return False


def last_measured(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((record for record in reversed(records) if KEY in record), None)
