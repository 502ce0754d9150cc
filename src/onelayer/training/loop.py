"""The loop: an engine driven from one boundary to the next, until the run has learnt, ended, failed or been stopped.

A boundary is a step at which something else than training is due: an evaluation, a checkpoint, the end. Boundaries hang
on the config alone, so that a resumed run cuts its steps into the same chunks as one that was never interrupted.

Where steps can be had one by one, a signal and the end of the time that the run was given are looked for more often:
neither moves a boundary.

At a boundary, in this order: evaluate and write the line; look whether to stop; write a checkpoint if one is due or the
run stops. A checkpoint notes how far the metrics had come (bytes and SHA-256); a resume cuts them back to there, and
takes an older checkpoint where either does not verify.

A checkpoint is written beside the next steps, on a thread of its own. The next boundary waits for it, and so does the
end of the session, however it comes; what went wrong is raised there, and `Checkpointed` told.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from .. import threads
from ..arrays import flatten, unflatten
from ..errors import BadInput
from ..models.config import ModelConfig
from ..tasks import Task
from . import budget, checkpoint, engines, evaluation, measuring, metrics, run_directory, units_file
from .checkpoint import Checkpoint
from .config import RunConfig, StopConfig
from .engines import Diverged, Engine, TrainState, numpy_engine
from .events import Advanced, Checkpointed, Evaluated, Event, Finished, Result, Started, Watch
from .figures import Figures, fold, observe
from .files import StorageError, replace_file

__all__ = ["resume", "train"]

Callback = Callable[[Event], object]
Speak = Callable[[Task, ModelConfig], Callable[[Any], object]]  # (task, model) -> what is asked, with the weights


def ignore(event: Event) -> None:
    """The default callback."""


def train(
    config: RunConfig,
    out: Path | str | None = None,
    callback: Callback = ignore,
    watch: Watch | None = None,
    probe: measuring.Probe | None = None,
    begin: TrainState | None = None,
    speak: Speak | None = None,
    fit: bool = False,
) -> Result:
    """A new run in the directory `out` (None: runs/<task>-<operation>-<seed>-<time>), to its end.

    probe: what measures the network where the config asks for measures (measuring.py).
    begin: the state that a branch starts with, at its config's first step; branch.py makes it.
    speak: what lets a run of strings say something at each evaluation, such as onelayer.words.progress.progress.
    fit: measure first how many steps `config.seconds` allow, and let the run have those (budget.py).
    """
    _check_watch(config, watch)
    if begin is None:
        refuse_branch(config, "it cannot be trained from its config alone")
    path = run_directory.default_path(config) if out is None else Path(out)
    session = _Session(path, config, callback, watch, probe, begin, speak)  # bad input shows before anything is written
    notes = []
    if fit and config.seconds is not None:
        run_directory.refuse_taken(path)  # before the time is spent
        session = session.under(budget.fit(config, session.engine))
        notes.append(f"{session.config.steps:,} steps fit into {config.seconds:g} seconds here, as a few have shown")
    about = units_file.describe(session.task)
    with run_directory.create(path, session.config, {} if about is None else {units_file.NAME: about}):
        return session.drive(notes)


def resume(
    run: Path | str,
    changes: Mapping[str, Any] | None = None,
    callback: Callback = ignore,
    watch: Watch | None = None,
    probe: measuring.Probe | None = None,
    speak: Speak | None = None,
) -> Result:
    """Goes on with a run, bit for bit; `changes={"steps": 20_000}` moves its end. A finished run stays as it is."""
    path = Path(run)
    if not changes and (result := run_directory.finished(path)) is not None:
        return result
    with run_directory.reopen(path, changes) as (opened, notes):
        _check_watch(opened.config, watch)
        session = _Session(path, opened.config, callback, watch, probe, speak=speak)
        units_file.check(path, session.task)
        return session.drive(notes)


def _check_metrics(config: RunConfig, task: Task) -> None:
    """BadInput where the run is to stop, or to choose, by what is not measured."""
    asked = {
        "stop.metric": config.stop.metric if config.stop.on == "sustained" else None,
        "stop.best": config.stop.best,
    }
    known = evaluation.names(task)
    for field, metric in asked.items():
        if metric is not None and metric not in known:
            raise BadInput(
                f"{field} = {metric} is not measured on the task {config.task.name}; allowed: {', '.join(known)}"
                + ("; or stop.on = none" if field == "stop.metric" else "")
            )


def refuse_branch(config: RunConfig, why: str) -> None:
    """BadInput where a run did not begin with the weights that its seed draws."""
    if config.branch is not None:
        raise BadInput(
            f"this run is a branch of {config.branch.run}, off step {config.branch.step}, whose weights its config "
            f"does not hold: {why}. Branch anew: onelayer branch {config.branch.run} --step {config.branch.step}"
        )


def _check_watch(config: RunConfig, watch: Watch | None) -> None:
    if watch is not None and config.engine != "numpy":
        raise BadInput(
            f"the engine {config.engine} compiles its steps and shows none; to watch them, set engine = numpy"
        )


# ---------------------------------------------------------------------------------------------------- boundaries


def evaluates(config: RunConfig, step: int) -> bool:
    """Whether the run is measured at this step."""
    when = config.evaluation
    at_an_end = step in (config.first_step, config.steps)
    return step % when.every == 0 or at_an_end or (step <= when.dense_until and step % when.dense_every == 0)


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
    kept = {next_boundary(config, step - 1) for step in wanted if 0 <= step <= last}
    return kept if config.branch is None else kept | {config.branch.step}


def bests(records: Iterable[Mapping[str, Any]], stop: StopConfig) -> list[int]:
    """The steps of the evaluations that were better than all before them, by `stop.best`."""
    found, figures = [], Figures()
    for record in records:
        figures = observe(figures, record, stop)
        if figures.step_best == record["step"]:
            found.append(record["step"])
    return found


def averaged(config: RunConfig, last: int, more: int = 0) -> list[int]:
    """The steps, up to the last, whose models are averaged: of the last so many checkpoints that were due."""
    every, n = config.checkpoint.every, config.checkpoint.average
    return list(range(last // every * every, 0, -every))[: n + more if n else 0][::-1]


# ---------------------------------------------------------------------------------------------------- signals


class Stop:
    """Ctrl-C and polite kills, taken note of: the steps under way are finished first. A second one acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
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
    """One process's part of a run; it drives under the run's lock."""

    def __init__(
        self,
        path: Path,
        config: RunConfig,
        callback: Callback,
        watch: Watch | None = None,
        probe: measuring.Probe | None = None,
        begin: TrainState | None = None,
        speak: Speak | None = None,
        task: Task | None = None,
    ) -> None:
        self.path, self.config, self.callback, self.begin = path, config, callback, begin
        self.checkpoints = path / "checkpoints"
        self.task = config.task.make(config.seed) if task is None else task
        _check_metrics(config, self.task)
        self.facts = {key: value for key, value in self.task.facts.items() if isinstance(value, str | int | float)}
        self._listeners = watch, probe, begin, speak
        self.engine: Engine = engines.get(config.engine)(config, self.task)
        if isinstance(self.engine, numpy_engine.Engine):
            self.engine.watch = watch
        self.measure = measuring.prepare(config, self.task, probe)
        self.measured: Mapping[str, Any] | None = None  # the last record with measures
        self.measuring = 0.0  # seconds
        self.say = speak(self.task, self.engine.objective.model) if speak and self.task.text is not None else None
        self.log: metrics.MetricsLog
        self.bests: list[int] = []  # steps at which the run was better than ever before
        self.writer: ThreadPoolExecutor
        self.writing: Future[Checkpointed] | None = None  # the checkpoint under way

    def under(self, config: RunConfig) -> "_Session":
        """The same task under another config."""
        return _Session(self.path, config, self.callback, *self._listeners, task=self.task)

    def drive(self, notes: list[str]) -> Result:
        """From wherever the directory stands to an end of some kind."""
        (self.path / "result.json").unlink(missing_ok=True)
        checkpoint.clean(self.checkpoints)
        notes += [str(warning) for warning in self.task.facts.get("warnings", ())]
        found, state = self._restore(notes)
        size = found.about["metrics"]["bytes"] if found else 0
        log, writer = metrics.MetricsLog(self.path / "metrics.jsonl", size), ThreadPoolExecutor(1, "checkpoint")
        with log as self.log, writer as self.writer, Stop() as stop:
            try:
                result = self._advance(found, state, stop, notes)
            except StorageError as error:
                raise StorageError(f"{error}. {self._good()}") from error
        replace_file(self.path / "result.json", run_directory.pretty(result.as_dict()))
        self.callback(Finished(result))
        return result

    def _advance(self, found: Checkpoint | None, state: TrainState, stop: Stop, notes: list[str]) -> Result:
        config = self.config
        records = metrics.read(self.path / "metrics.jsonl").records
        record: dict[str, Any] = records[-1] if records else {}
        self.measured = measuring.last_measured(records)
        figures, self.bests = fold(records, config.stop), bests(records, config.stop)
        step, saved = (found.step, found.step) if found else (config.first_step, None)
        before = float(found.about.get("seconds", 0.0)) if found else 0.0
        begun, busy, tokens, last = time.monotonic(), 0.0, 0.0, {}
        self.callback(Started(self.path, config, step, self.facts, tuple(notes), self.task))

        def seconds() -> float:
            return before + time.monotonic() - begun

        def ended(status: str, reason: str) -> Result:
            self._written()
            times = busy, self.measuring, int(tokens)
            return Result(self.path, status, reason, step, seconds(), figures, record, self.facts, stop.signal, *times)

        try:
            while True:
                self._written()
                late = config.seconds is not None and seconds() >= config.seconds  # a boundary may be far
                if (evaluates(config, step) or late) and record.get("step", -1) < step:
                    record = self._measure(state, step, last)
                    figures = observe(figures, record, config.stop)
                    if figures.step_best == step:
                        self.bests.append(step)
                    self.log.append(record)
                    says = "" if self.say is None else str(self.say(self.engine.to_host(state).params))
                    self.callback(Evaluated(step, record, figures, seconds(), says))
                reason = self._reason(step, figures, seconds())
                branched = self.begin is not None and step == config.first_step  # from here on it needs no parent
                if step != saved and (reason or stop.signal or branched or step % config.checkpoint.every == 0):
                    self._save(state, step, seconds(), whole=True)
                    saved = step
                elif step != saved and (step in pinned(config, step) or step == figures.step_best):
                    self._save(state, step, seconds(), whole=False)
                if reason:
                    return ended("finished", reason)
                if stop.signal:
                    return ended("interrupted", signal.strsignal(stop.signal) or f"signal {stop.signal}")
                n = min(next_boundary(config, step) - step, self.engine.stride)
                started = time.monotonic()
                state, series = self.engine.run(state, step, n)
                busy += time.monotonic() - started
                step += n
                tokens += series.pop("tokens").sum()
                last = {name: float(values[-1]) for name, values in series.items()}
                self.callback(Advanced(step, last["loss"], seconds(), tokens / max(busy, 1e-9)))
        except Diverged as error:
            return ended("diverged", str(error))

    def _measure(self, state: TrainState, step: int, last: dict[str, float]) -> dict[str, Any]:
        """One line of metrics.jsonl: the last step's loss and gradient norm, both splits, the weights' norm, and what a
        probe measures where that is due."""
        values = last | {name: float(value) for name, value in self.engine.evaluate(state).items()}
        weights = flatten(self.engine.to_host(state).params).values()
        values["weight_norm"] = math.sqrt(sum(float(np.sum(np.square(x, dtype=np.float64))) for x in weights))
        for name, value in values.items():
            if not math.isfinite(value):
                raise Diverged(step, name, "evaluation")
        record: dict[str, Any] = {"step": step, **values}
        if self.measure is not None and measuring.due(self.config.evaluation, record, self.measured):
            started = time.monotonic()
            with threads.alone():
                record[measuring.KEY] = self.measure(self.engine.to_host(state).params, self.engine.answers(state))
            self.measured = record
            self.measuring += time.monotonic() - started
        return record

    def _reason(self, step: int, figures: Figures, seconds: float) -> str | None:
        """Why the run ends here, if it does."""
        stop, limit = self.config.stop, self.config.seconds
        if stop.on == "sustained" and figures.step_sustained is not None:
            return f"{stop.metric} at least {stop.threshold} in {stop.sustained} evaluations in a row"
        if step >= self.config.steps:
            return f"all {self.config.steps} steps done"
        if stop.patience is not None and figures.since_best >= stop.patience:
            return f"{stop.best} did not become better in {stop.patience} evaluations, since step {figures.step_best}"
        if limit is not None and seconds >= limit:
            return f"{limit:g} seconds are over"
        return None

    def _save(self, state: TrainState, step: int, seconds: float, whole: bool) -> None:
        """Begin a checkpoint, or the model alone where only looking back asks for it."""
        host = self.engine.to_host(state)
        model, optimizer = flatten(host.params), flatten(host.opt_state)
        for part, tensors in (("update", model), ("optimizer's state", optimizer)):
            if (name := checkpoint.non_finite(tensors)) is not None:
                raise Diverged(step, name, part)
        about = {
            "seconds": seconds,
            "metrics": {"bytes": self.log.size, "sha256": self.log.sha256},
            "config": self.config.as_dict(),
        }
        flush, bests = whole or step in self.bests[-1:], tuple(self.bests)

        def write() -> Checkpointed:
            if whole:
                self.log.flush()
            path = checkpoint.save(self.checkpoints, step, model, optimizer if whole else None, about, flush)
            self._prune(step, bests)
            return Checkpointed(step, path)

        self.writing = self.writer.submit(write)

    def _written(self) -> None:
        """The checkpoint under way, if there is one, is on the disk when this returns."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            self.callback(writing.result())

    def _prune(self, step: int, bests: Collection[int]) -> None:
        """Keep what resuming needs, what is pinned, and what the run chose: as of each checkpoint it may go back to."""
        config = self.config
        keep = config.checkpoint.keep
        due = averaged(config, step, keep - 1)
        back = [at for at in checkpoint.steps(self.checkpoints) if checkpoint.is_whole(self.checkpoints / f"step-{at}")]
        chosen = {max((best for best in bests if best <= at), default=0) for at in (*back[-keep:], step)}
        passing = {*bests, *(range(0, step, config.checkpoint.every) if config.checkpoint.average else ())}
        wanted = pinned(config, step) | {*due, *(chosen if bests else ())}
        checkpoint.prune(self.checkpoints, keep, wanted, passing)

    def _restore(self, notes: list[str]) -> tuple[Checkpoint | None, TrainState]:
        """The newest checkpoint that verifies; the start where there is none yet; BadInput where none verifies."""
        start = self.engine.start()
        host = self.engine.to_host(start)
        model, optimizer = flatten(host.params), flatten(host.opt_state)
        rejected: dict[int, str] = {}
        for step in reversed(checkpoint.steps(self.checkpoints)):
            if checkpoint.is_snapshot(self.checkpoints / f"step-{step}"):
                continue
            try:
                found = checkpoint.load(self.checkpoints / f"step-{step}", model, optimizer)
                self._fits(found)
            except checkpoint.Rejected as error:
                rejected[step] = str(error)
                continue
            for bad, why in rejected.items():
                aside = checkpoint.set_aside(self.checkpoints, bad)
                notes.append(f"went back to the checkpoint of step {step}: {why} (it is kept as {aside.name})")
            state = TrainState(unflatten(found.model, host.params), unflatten(found.optimizer, host.opt_state))
            return found, self.engine.from_host(state)
        if rejected:
            listed = "\n  ".join(list(rejected.values())[:5])
            raise BadInput(
                f"{self.path} cannot be resumed: none of its checkpoints verifies.\n  {listed}\n"
                f"Put them back from a copy, or train anew: onelayer train --config {self.path}/config.json"
            )
        if any(record["step"] > 0 for record in metrics.read(self.path / "metrics.jsonl").records):
            raise BadInput(
                f"{self.path} cannot be resumed: it was measured after step 0, but its checkpoints are gone. "
                f"Put them back from a copy, or train anew: onelayer train --config {self.path}/config.json"
            )
        if self.begin is not None:
            return None, self.engine.from_host(self.begin)
        refuse_branch(self.config, "it cannot be resumed, for it ended before its first checkpoint")
        return None, start

    def _fits(self, found: Checkpoint) -> None:
        """Rejected unless the checkpoint is of this run: the same config, and the metrics it was written beside."""
        name = f"step-{found.step}"
        try:
            run_directory.refuse_changes(found.about["config"], self.config.as_dict(), "written under another config")
            size, digest = int(found.about["metrics"]["bytes"]), found.about["metrics"]["sha256"]
        except (KeyError, TypeError, ValueError) as error:  # BadInput is a ValueError
            raise checkpoint.Rejected(f"{name}: {error}") from error
        if metrics.sha256_of_first(self.path / "metrics.jsonl", size) != digest:
            raise checkpoint.Rejected(f"{name}: metrics.jsonl is no longer what it was at this step")

    def _good(self) -> str:
        steps = [s for s in checkpoint.steps(self.checkpoints) if checkpoint.is_whole(self.checkpoints / f"step-{s}")]
        if not steps:
            return "There is no checkpoint yet"
        return f"The last checkpoint, of step {steps[-1]}, is intact: `onelayer resume {self.path}` goes on from it"
