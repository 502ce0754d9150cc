"""All runs at a glance: an SQLite index over the directories below a root, made anew from them whenever it must be.

The directories are the truth. A row is read again where the run's files are of another time or size than when the row
was made, and goes with its directory; an index that is lost, damaged or of another version is rebuilt from nothing.
Where the root cannot be written, the index lives in memory.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .figures import Figures, fold
from .lock import holder
from .run_directory import Run

__all__ = ["NAME", "listing", "rebuild", "row"]

NAME = "index.sqlite"
VERSION = 2
_FILES = ("config.json", "manifest.json", "metrics.jsonl", "result.json")
_TABLE = f"""
    PRAGMA user_version = {VERSION};
    CREATE TABLE IF NOT EXISTS runs (name TEXT PRIMARY KEY, stamp TEXT NOT NULL, row TEXT NOT NULL);
"""


def row(path: Path) -> dict[str, Any]:
    """One run in short; "problem" says what is wrong with a directory that cannot be read."""
    try:
        run = Run(path)
        config, manifest, records = run.config, run.manifest, run.metrics
        figures = fold(records, config.stop)
    except BadInput as error:
        return {"run": str(path), "status": "unreadable", "problem": str(error)}
    last = records[-1] if records else {}
    result = run.result or {}
    return {
        "run": str(path),
        "status": result.get("status", "unfinished"),
        "created": manifest.get("created"),
        "task": config.task.name,
        **{name: config.task.settings.get(name) for name in ("operation", "p", "train_fraction")},
        "seed": config.seed,
        "engine": config.engine,
        "recipe": config.recipe,
        "step": result.get("step", last.get("step")),
        "seconds": result.get("seconds"),
        **{name: value for name, value in figures._asdict().items() if name in _SHOWN},
        **{name: last.get(name) for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")},
        **{name: value for name, value in last.items() if name.startswith("valid_") or "teacher_forced" in name},
    }


_SHOWN = tuple(name for name in Figures._fields if name.startswith("step_") or name == "minimum_after")


def listing(root: Path) -> list[dict[str, Any]]:
    """A row for each run below the root, oldest first; only what changed since the last time is read again."""
    if not root.is_dir():
        raise BadInput(f"there is no directory {root}; `--root DIR` says where the runs are")
    with closing(_open(root)) as database:
        known = {name: (stamp, text) for name, stamp, text in database.execute("SELECT name, stamp, row FROM runs")}
        rows, fresh = [], []
        for path, stamp in _runs(root):
            if known.get(path.name, ("", ""))[0] == stamp:
                found = json.loads(known[path.name][1]) | {"run": str(path)}
            else:
                found = row(path)
                fresh.append((path.name, stamp, json.dumps(found)))
            if found["status"] == "unfinished" and holder(path):
                found["status"] = "running"
            rows.append(found)
        gone = known.keys() - {Path(found["run"]).name for found in rows}
        try:
            with database:
                database.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", fresh)
                database.executemany("DELETE FROM runs WHERE name = ?", [(name,) for name in gone])
        except sqlite3.Error:
            pass  # locked by another listing, or a full disk: the rows are right all the same
    return sorted(rows, key=lambda found: (str(found.get("created", "")), found["run"]))


def rebuild(root: Path) -> list[dict[str, Any]]:
    """The listing, from the directories alone."""
    (root / NAME).unlink(missing_ok=True)
    return listing(root)


def _runs(root: Path) -> Iterator[tuple[Path, str]]:
    """Each directory with a config in it, and the times and sizes of the files that its row is made from."""
    for entry in os.scandir(root):
        path = Path(entry.path)
        if entry.is_dir() and (path / "config.json").exists():
            yield path, "|".join(_stamp(path / name) for name in _FILES)


def _stamp(path: Path) -> str:
    try:
        about = path.stat()
    except OSError:
        return "-"
    return f"{about.st_mtime_ns}:{about.st_size}"


def _open(root: Path) -> sqlite3.Connection:
    path = root / NAME
    try:
        return _checked(path)
    except (sqlite3.Error, ValueError):
        pass
    try:
        path.unlink(missing_ok=True)  # an index holds nothing that the directories do not
        return _checked(path)
    except (sqlite3.Error, OSError, ValueError):
        database = sqlite3.connect(":memory:")
        database.executescript(_TABLE)
        return database


def _checked(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=2)
    try:
        if database.execute("PRAGMA user_version").fetchone()[0] not in (0, VERSION):
            raise ValueError("of another version")
        database.executescript(_TABLE)
        for _, _, text in database.execute("SELECT name, stamp, row FROM runs"):
            json.loads(text)
        return database
    except BaseException:
        database.close()
        raise
