"""What happens in a run, told to whoever listens: `train(config, callback=print)`.

A callback is called with one of these, and looks. Nothing it does changes the run; if it raises, the run stops there,
and can be resumed.

A watcher, `train(config, watch=…)`, is shown every step as a `Stepped`; only the numpy engine has single steps to show.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..tasks import Task
from .config import RunConfig
from .figures import Figures

__all__ = ["Advanced", "Checkpointed", "Evaluated", "Event", "Finished", "Result", "Started", "Stepped", "Watch"]


class Started(NamedTuple):
    run: Path
    config: RunConfig
    step: int  # 0, or where a resumed run goes on
    facts: dict[str, Any]  # the task's
    notes: tuple[str, ...]  # what is worth saying: a fall-back to an older checkpoint, another machine, a small class
    task: Task | None = None


class Advanced(NamedTuple):
    step: int
    loss: float  # of the last step's batch, before that step
    seconds: float
    rate: float = 0.0  # targets that count, a second of this session's steps


class Stepped(NamedTuple):
    """One step, whole: nothing is copied, so look and leave it as it is."""

    step: int  # its index, from 0
    before: Any  # the TrainState that it began with
    batch: Any
    gradient: Any  # raw, before filters; a tree like the parameters
    after: Any  # the TrainState that it ended with


class Evaluated(NamedTuple):
    step: int
    record: dict[str, Any]  # the line of metrics.jsonl
    figures: Figures
    seconds: float  # of training so far, evaluations and checkpoints included
    says: str = ""  # of a run of strings, where it was asked: a few examples, decoded


class Checkpointed(NamedTuple):
    step: int
    path: Path


class Result(NamedTuple):
    """How a session ended."""

    run: Path
    status: str  # finished, interrupted, diverged
    reason: str
    step: int
    seconds: float
    figures: Figures
    record: dict[str, Any]  # the last evaluation
    facts: dict[str, Any]  # the task's, without its tables
    signal: int | None = None  # that interrupted it
    busy: float = 0.0  # seconds of this session within the engine's steps; the rest is evaluation, metrics, checkpoints
    measuring: float = 0.0  # seconds of this session within the probe's measures
    tokens: int = 0  # targets that counted in this session's steps

    def as_dict(self) -> dict[str, Any]:
        """As it stands in result.json; the run's place is not part of it."""
        return {name: value for name, value in self._asdict().items() if name != "run"} | {
            "figures": self.figures._asdict()
        }

    @classmethod
    def from_dict(cls, run: Path, data: dict[str, Any]) -> "Result":
        fields: dict[str, Any] = data | {"run": run, "figures": Figures(**data["figures"])}
        return cls(**fields)


class Finished(NamedTuple):
    result: Result


Event = Started | Advanced | Evaluated | Checkpointed | Finished
Watch = Callable[[Stepped], object]
