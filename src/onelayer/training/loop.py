"""The loop: an engine driven from one boundary to the next, until the run has learnt, ended, failed or been stopped.

A boundary is a step at which something else than training is due: an evaluation, a checkpoint, the end. Boundaries hang
on the config alone, so that a resumed run cuts its steps into the same chunks as one that was never interrupted.

At a boundary, in this order: evaluate and write the line; look whether to stop; write a checkpoint if one is due or the
run stops. A checkpoint notes how far the metrics had come (bytes and SHA-256); a resume cuts them back to there, and
takes an older checkpoint where either does not verify.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Self

import numpy as np

from ..arrays import flatten, unflatten
from ..errors import BadInput
from . import checkpoint, engines, metrics, run_directory
from .config import RunConfig
from .engines import Diverged, Engine, TrainState
from .events import Advanced, Checkpointed, Evaluated, Event, Finished, Result, Started
from .figures import Figures, fold, observe
from .files import StorageError, replace_file
from .run_directory import Run

__all__ = ["resume", "train"]

Callback = Callable[[Event], object]


def ignore(event: Event) -> None:
    """The default callback."""


def train(config: RunConfig, out: Path | str | None = None, callback: Callback = ignore) -> Result:
    """A new run in the directory `out` (None: runs/<task>-<operation>-<seed>-<time>), to its end."""
    path = run_directory.default_path(config) if out is None else Path(out)
    task = config.task.make(config.seed)  # bad input shows before anything is written
    engine = engines.get(config.engine)(config, task)
    with run_directory.create(path, config) as run:
        return _Session(run, config, engine, _scalars(task.facts), callback).drive([])


def resume(run: Path | str, changes: Mapping[str, Any] | None = None, callback: Callback = ignore) -> Result:
    """Goes on with a run, bit for bit; `changes={"steps": 20_000}` moves its end. A finished run stays as it is."""
    path = Path(run)
    with run_directory.reopen(path, changes) as (opened, notes):
        config = opened.config
        task = config.task.make(config.seed)
        engine = engines.get(config.engine)(config, task)
        return _Session(opened, config, engine, _scalars(task.facts), callback).drive(notes)


# ---------------------------------------------------------------------------------------------------- boundaries


def evaluates(config: RunConfig, step: int) -> bool:
    """Whether the run is measured at this step."""
    when = config.evaluation
    return step % when.every == 0 or step == config.steps or (step <= when.dense_until and step % when.dense_every == 0)


def next_boundary(config: RunConfig, step: int) -> int:
    """The first step after this one at which an evaluation, a checkpoint or the end is due."""
    when = config.evaluation
    strides = [when.every, config.checkpoint.every]
    if step < when.dense_until:
        strides.append(when.dense_every)
    return min(config.steps, *(step // stride * stride + stride for stride in strides))


def pinned(config: RunConfig, last: int) -> set[int]:
    """The boundaries, up to the last, whose models are kept: each is the first to reach a step that is pinned."""
    match config.checkpoint.pinned:
        case "none":
            wanted = []
        case "all":
            wanted = range(last + 1)
        case "log":
            wanted = [0, *(math.ceil(2 ** (k / 2)) for k in range(6, 2 * max(last, 1).bit_length()))]
        case steps:
            wanted = steps
    return {next_boundary(config, step - 1) for step in wanted if 0 <= step <= last}


# ---------------------------------------------------------------------------------------------------- signals


class Stop:
    """Ctrl-C and polite kills, taken note of: the chunk is finished first. A second one acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, *_: object) -> None:
        self._restore()


# ---------------------------------------------------------------------------------------------------- a session


class _Session:
    """One process's part of a run, under the run's lock."""

    def __init__(self, run: Run, config: RunConfig, engine: Engine, facts: dict[str, Any], callback: Callback) -> None:
        self.run, self.config, self.engine, self.facts, self.callback = run, config, engine, facts, callback
        self.checkpoints = run.path / "checkpoints"

    def drive(self, notes: list[str]) -> Result:
        """From wherever the directory stands to an end of some kind."""
        (self.run.path / "result.json").unlink(missing_ok=True)
        checkpoint.clean(self.checkpoints)
        found, state = self._restore(notes)
        about = found.about if found else {}
        begun = time.monotonic() - about.get("seconds", 0.0)
        log = metrics.MetricsLog(self.run.path / "metrics.jsonl", about.get("metrics", {}).get("bytes", 0))
