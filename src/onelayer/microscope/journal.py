"""A journal: what a watcher of a run notes down, one JSON object a line, in the run's own directory.

    watcher = Flow(objective)                          or Follow, in curvature.py
    train(config, callback=watcher, watch=watcher)     writes runs/…/flow.jsonl

The callback tells where the run is and at which step it begins: what an interrupted session had noted beyond that step
is dropped, so a resumed run's journal is that of one that was never interrupted. Given a `path`, no callback is needed.

Schedule  an integer n: every n-th step;  "log": step 0 and eight steps in each doubling, for axes on a log scale;
          or a function of the step
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import BadInput

__all__ = ["Journal", "Schedule", "due", "read"]

Schedule: TypeAlias = int | str | Callable[[int], bool]


def due(step: int, every: Schedule) -> bool:
    """Whether the schedule names this step."""
    if callable(every):
        return bool(every(step))
    if every == "log":
        k = round(8 * math.log2(step)) if step else 0
        return step == 0 or any(step == round(2 ** (j / 8)) for j in (k - 1, k, k + 1))
    if isinstance(every, str | bool) or every < 1:
        raise BadInput(
            f"a schedule is a whole number of steps from 1 on, 'log', or a function of the step; received {every!r}"
        )
    return step % every == 0


class Journal:
    """Base of the watchers that write: `measure(step)` says what to note of a step that is due."""

    FILE = ""

    def __init__(self, every: Schedule = "log", path: Path | str | None = None) -> None:
        due(0, every)
        self.every, self.path = every, None if path is None else Path(path)
        self.records: list[dict[str, Any]] = []

    def __call__(self, event: Any) -> None:
        """A `Started` says where to write; a `Stepped` is measured where it is due; other events pass."""
        kind = type(event).__name__
        if kind == "Started":
            self.path = self.path or event.run / self.FILE
            self.records = [r for r in read(self.path) if r["step"] < event.step] if event.step else []
            self.path.write_text("".join(map(_line, self.records)), encoding="utf-8")
        elif kind == "Stepped":
            self.see(event)

    def see(self, step: Any) -> None:
        """A step of the run."""
        if due(step.step, self.every):
            self.note({"step": int(step.step)} | self.measure(step))

    def measure(self, step: Any) -> dict[str, Any]:
        raise NotImplementedError

    def note(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(record))


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal; a last line that was cut off is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"
