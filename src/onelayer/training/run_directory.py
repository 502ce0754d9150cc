"""A run is a directory, and the directory is the truth.

    RUN/config.json       every choice, resolved; what `training/config.py` reads
    RUN/manifest.json     when and where: versions, git, BLAS, threads, device, of each session that wrote here
    RUN/units.json        of a task of strings: its vocabularies, and the digests of its data (units_file.py)
    RUN/metrics.jsonl     one line an evaluation (metrics.py)
    RUN/checkpoints/      (checkpoint.py)
    RUN/result.json       how the last session ended, and the run's figures; absent while it runs or after a kill -9
    RUN/scores.json       of a run of strings: what it says, decoded and judged when it was over (words/final.py)
    RUN/report.html       written by report/
    RUN/lock              who writes (lock.py)

`Run` reads; it takes no lock and never waits. The loop writes, under the lock.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from . import checkpoint, environment, metrics
from .config import RunConfig, differences, merge, nest, resolve
from .events import Result
from .files import read_json, replace_file
from .lock import holder, lock

__all__ = ["Run", "create", "default_path", "reopen"]

FORMAT, VERSION = "onelayer-run", 1
_WORDS = {"+": "plus", "-": "minus", "**": "pow", "*": "times", "//": "floordiv", "/": "over", "^": "pow", "%": "mod"}


class Run:
    """A run's directory, read: `Run("runs/…").metrics`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not (self.path / "config.json").is_file():
            is_there = "is a file" if self.path.exists() else "does not exist"
            what = "has no config.json" if self.path.is_dir() else is_there
            raise BadInput(f"{path} is not a run: it {what}. `onelayer runs` lists the runs there are")

    @property
    def config(self) -> RunConfig:
        return resolve(read_json(self.path / "config.json"))

    @property
    def manifest(self) -> dict[str, Any]:
        manifest = read_json(self.path / "manifest.json")
        if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
            raise BadInput(
                f"{self.path}/manifest.json has format {manifest.get('format')!r} version {manifest.get('version')!r}; "
                f"this onelayer reads {FORMAT!r} version {VERSION}"
            )
        return manifest

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record an evaluation, by rising step."""
        return metrics.read(self.path / "metrics.jsonl").records

    @property
    def result(self) -> dict[str, Any] | None:
        """How the last session ended; None while one runs, or after it was cut short."""
        path = self.path / "result.json"
        return read_json(path) if path.exists() else None

    @property
    def status(self) -> str:
        """running, finished, interrupted, diverged, or unfinished (killed, or stopped by an error)."""
        if holder(self.path):
            return "running"
        result = self.result
        return str(result.get("status")) if result else "unfinished"

    @property
    def snapshots(self) -> list[int]:
        """The steps whose parameters can be read."""
        return checkpoint.steps(self.path / "checkpoints")

    def parameters(self, step: int | None = None) -> dict[str, np.ndarray]:
        """Flat name -> array, verified, at a step (the last that there is where None)."""
        steps = self.snapshots
        if not steps:
            raise BadInput(f"{self.path} has no checkpoint yet")
        if step is not None and step not in steps:
            raise BadInput(f"{self.path} has no parameters of step {step}; allowed: {', '.join(map(str, steps))}")
        return checkpoint.load_model(self.path / "checkpoints" / f"step-{steps[-1] if step is None else step}")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


# ---------------------------------------------------------------------------------------------------- names


def slug(text: str, longest: int = 40) -> str:
    """Letters, digits and hyphens that remind of the text: `x**2 + y` is x-pow-2-plus-y."""
    for sign, word in _WORDS.items():
        text = text.replace(sign, f" {word} ")
    return "-".join(re.findall(r"[A-Za-z0-9]+", text))[:longest].strip("-").lower()


def default_path(config: RunConfig, root: Path | str = "runs", at: datetime | None = None) -> Path:
    """runs/<task>-<operation>-<seed>-<time>, with a number behind it where that is taken."""
    operation = slug(str(config.task.settings.get("operation", "")))
    when = (at or datetime.now()).strftime("%Y%m%d-%H%M%S")
    name = "-".join(part for part in (slug(config.task.name), operation, str(config.seed), when) if part)
    path = Path(root) / name
    number = 2
    while path.exists():
        path, number = Path(root) / f"{name}-{number}", number + 1
    return path


# ---------------------------------------------------------------------------------------------------- writing


def pretty(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def refuse_taken(path: Path) -> None:
    """BadInput where something stands in the way of a new run."""
    try:
        taken = path.exists() and any(entry.name != "lock" for entry in path.iterdir())
    except OSError as error:
        raise BadInput(f"cannot create the run {path}: {error.strerror}. Choose another --out") from error
    if taken:
        raise BadInput(
            f"{path} exists and is not empty; a run never overwrites anything. "
            f"Choose another --out, or go on with `onelayer resume {path}` if it is a run"
        )


@contextmanager
def create(path: Path, config: RunConfig, beside: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[Run]:
    """A new run, held for writing. An existing directory must be empty; nothing is ever overwritten.

    beside: JSON objects that are written before the config, which makes the directory a run; by their files' names.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot create the run {path}: {error.strerror}. Choose another --out") from error
    refuse_taken(path)
    with lock(path):
        if (path / "config.json").exists():
            raise BadInput(f"{path} has just become a run of another process. Choose another --out")
        session = environment.describe(config.engine)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "created": session["started"],
            "seed": config.seed,
            "sessions": [session],
            "config": config.as_dict(),
        }
        for name, content in (beside or {}).items():
            replace_file(path / name, (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode())
        replace_file(path / "manifest.json", pretty(manifest))
        replace_file(path / "config.json", config.to_json().encode())
        yield Run(path)


@contextmanager
def reopen(path: Path, changes: Mapping[str, Any] | None = None) -> Iterator[tuple[Run, list[str]]]:
    """A run that is there, held for writing, with `changes` (dotted) made to its config; and what is worth saying.

    Only what decides when a run ends may change; BadInput names any other field.
    """
    run = Run(path)
    with lock(path):
        manifest, old = run.manifest, run.config
        refuse_changes(_resolved(manifest), old.as_dict(), f"{path}/config.json was changed since the run began")
        new = resolve(merge(old.as_dict(), nest(changes or {})))
        refuse_changes(old.as_dict(), new.as_dict(), "a resumed run keeps its config")
        session = environment.describe(new.engine)
        sessions = manifest.get("sessions") or [session]
        notes = [
            f"unlike the run's first session, so the last bits may differ: {difference}"
            for difference in environment.compare(sessions[0], session)
        ]
        manifest |= {"sessions": [*sessions, session], "config": new.as_dict()}
        replace_file(path / "manifest.json", pretty(manifest))
        if new != old:
            replace_file(path / "config.json", new.to_json().encode())
        yield run, notes


def finished(path: Path) -> Result | None:
    """The result of a run that has reached the end which its config asks for."""
    run = Run(path)
    result = run.result
    if result is None or result.get("status") != "finished" or _resolved(run.manifest) != run.config.as_dict():
        return None
    try:
        return Result.from_dict(path, result)
    except (TypeError, KeyError) as error:
        raise BadInput(f"{path}/result.json is not what onelayer writes: {error}") from error


def _resolved(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's config, with the fields that an older onelayer did not know at their defaults."""
    return resolve(manifest.get("config") or {}).as_dict()


def may_change(field: str) -> bool:
    """Whether a config's field decides only when the run ends, not what any of its steps does."""
    return field in ("steps", "seconds") or (field.startswith("stop.") and field != "stop.best")


def refuse_changes(old: Any, new: Any, why: str) -> None:
    """BadInput where two configs differ in more than when the run ends. A field that there was not yet when the old one
    was written counts as its default."""
    old = resolve(old).as_dict() if isinstance(old, Mapping) else old
    changed = [item for item in differences(old, new) if not may_change(item[0])]
    if changed:
        listed = "; ".join(f"{field} was {before!r}, received {after!r}" for field, before, after in changed[:5])
        raise BadInput(
            f"{why}: {listed}. Only steps, seconds and stop.* may change on a resume. "
            "Put the old value back, or begin a new run with the new one"
        )
