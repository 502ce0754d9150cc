"""A study as a grid of runs: each run a line of JSON, so that a stopped study goes on where it was.

    runs = [Run({"fraction": f}, configure("default", {"task": {"train_fraction": f}, "seed": s})) for ...]
    fill(runs, Path("study.jsonl"))           # trains what is not there yet, in the order given
    rows = read(Path("study.jsonl"))          # {"id", "cell", "seed", "sustained", …} of each

A run is known by what it asks for: its cell, what its config changes of the default, when it is measured and when it
ends. So a changed setting is a new run, and an old line is never taken for it.

Measured  at step 0, then every `every` steps, or every `grain` of the step, whichever is longer, and at the last step
Figures   memorised    first evaluation with train accuracy ≥ the config's threshold (99 %)
          crossed      first with test accuracy ≥ it
          sustained    first of `config.stop.sustained` of them in a row
          loss_0.1, loss_0.01    first with test loss below that
          lowest_after           the lowest test accuracy from the first crossing on, as far as was looked
          None where it did not happen up to the last step: the run is censored there
Ends      at config.steps, when it is hopeless, or `after` times as many steps on as it took until all of `until`
Seconds   of training alone, by the clock and by the process; and of training up to the sustained step
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..training import engines
from ..training.config import RunConfig, differences
from ..training.engines import Diverged
from ..training.figures import fold

__all__ = ["Look", "Run", "fill", "first_below", "read", "train"]

Look = Callable[[Any, Any, int], dict[str, float]]  # (engine, state, step) -> more figures of an evaluation
End = Callable[[Any, Any], dict[str, Any]]  # (engine, state after the last step) -> more figures of the run
NO_MATTER = ("recipe", "checkpoint")
FIGURES = ("memorised", "crossed", "sustained", "loss_0.1", "loss_0.01")


@dataclass(frozen=True)
class Run:
    cell: dict[str, Any]  # what the study varies, by name
    config: RunConfig
    every: int = 5
    grain: float = 0.0
    until: tuple[str, ...] = ("sustained",)
    after: float = 1.0
    hopeless: tuple[int, float] | None = None  # at this step, with a lower test accuracy, it is given up
    sample: int | None = None  # the training figures are those of so many examples, drawn once; None: of all

    @property
    def id(self) -> str:
        changed = differences(RunConfig().as_dict(), self.config.as_dict())
        config = [(name, new) for name, _, new in changed if name.split(".")[0] not in NO_MATTER]
        ends = [self.every, self.grain, self.until, self.after, self.hopeless, self.sample]
        asked = [self.cell, config, *ends]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def next(self, step: int) -> int:
        """The step of the next evaluation."""
        return min(self.config.steps, step + max(self.every, int(step * self.grain)))


def train(run: Run, look: Look | None = None, at_end: End | None = None) -> dict[str, Any]:
    """Train one run to its end: its figures, and its curve [(step, train accuracy, test accuracy, test loss, …)]."""
    for name in run.until:
        if name not in FIGURES:
            raise BadInput(f"a run cannot end on {name!r}; on: {', '.join(FIGURES)}")
    looks = run.config.evaluation.model_copy(update={"train_examples": run.sample} if run.sample else {})
    config = run.config.model_copy(update={"evaluation": looks})
    engine: Any = engines.get(config.engine)(config, config.task.make(config.seed))
    state, step, status = engine.start(), 0, "done"
    wall, busy, marks = 0.0, 0.0, [0.0]
    records = [_measured(engine, state, 0, look)]
    while step < (goal := _goal(run, records)):
        n = min(run.next(step), goal) - step
        clock, cpu = time.perf_counter(), time.process_time()
        try:
            state, _ = engine.run(state, step, n)
        except Diverged as error:
            status = str(error)
            break
        wall, busy, step = wall + time.perf_counter() - clock, busy + time.process_time() - cpu, step + n
        marks.append(wall)
        records.append(_measured(engine, state, step, look))
        if run.hopeless and step >= run.hopeless[0] and records[-1]["test_accuracy"] < run.hopeless[1]:
            status = "given up"
            break
    found = figures(run, records)
    at = next((t for t, r in zip(marks, records, strict=True) if r["step"] == found["sustained"]), None)
    seconds = {"seconds": round(wall, 2), "cpu_seconds": round(busy, 2), "seconds_sustained": at and round(at, 2)}
    more = at_end(engine, state) if at_end else {}
    return {"status": status, "steps": step, **found, **seconds, **more, "curve": records}


def figures(run: Run, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a run's evaluations come to."""
    found, last = fold(records, run.config.stop), records[-1]
    return {
        "memorised": found.step_memorised,
        "crossed": found.step_generalised,
        "sustained": found.step_sustained,
        "lowest_after": found.minimum_after,
        "loss_0.1": first_below(records, 0.1),
        "loss_0.01": first_below(records, 0.01),
        "best_test": max(r["test_accuracy"] for r in records),
        "last": {name: value for name, value in last.items() if name != "step"},
    }


def first_below(records: Iterable[dict[str, Any]], bound: float, metric: str = "test_loss") -> int | None:
    return next((r["step"] for r in records if r[metric] < bound), None)


def _goal(run: Run, records: list[dict[str, Any]]) -> int:
    """The last step, as far as is known now."""
    found = figures(run, records)
    reached = [found[name] for name in run.until]
    if not reached or None in reached:
        return run.config.steps
    return min(run.config.steps, max(records[-1]["step"], int(run.after * max(reached))))


def _measured(engine: Any, state: Any, step: int, look: Look | None) -> dict[str, Any]:
    record = {"step": step} | {name: float(value) for name, value in engine.evaluate(state).items()}
    return record | (look(engine, state, step) if look else {})


# ---------------------------------------------------------------------------------------------------- many


def fill(
    runs: Iterable[Run],
    raw: Path,
    look: Look | None = None,
    at_end: End | None = None,
    keep: Callable[[list[dict[str, Any]]], Any] = lambda curve: None,
    say: Callable[[str], object] = print,
) -> None:
    """Train each run that has no line in `raw` yet, and write its line. keep: what stays of its curve, or None."""
    done = {row["id"] for row in read(raw)}
    for run in runs:
        if run.id in done:
            continue
        result = train(run, look, at_end)
        kept = keep(result.pop("curve"))
        row = {"id": run.id, "cell": run.cell, "seed": run.config.seed, **rounded(result)}
        row |= {} if kept is None else {"curve": rounded(kept)}
        append(raw, json.dumps(row))
        done.add(run.id)
        say(f"{run.cell} seed {run.config.seed}: {row['memorised']} / {row['sustained']}, {row['cpu_seconds']} s")


def append(raw: Path, line: str) -> None:
    """A line at the end; one before it that was cut short is ended first."""
    with raw.open("a+b") as file:
        if file.tell() > 0:
            file.seek(-1, 2)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode())


def read(raw: Path) -> list[dict[str, Any]]:
    """The lines of a study so far; one that was cut short is left out."""
    rows = []
    for line in raw.read_text("utf-8").splitlines() if raw.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def rounded(value: Any, digits: int = 5) -> Any:
    """Floats to so many significant digits, wherever they stand: a raw file is kept small."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {str(key): rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, digits) for inner in value]
    return value
