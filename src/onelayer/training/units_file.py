"""`RUN/units.json`: what a run of strings needs beside its weights, so that it can be used where its data is not.

    source, target    the units (tasks/units.py): vocabularies, merges
    model             what the task fixed of the model's shape: vocabulary sizes, lengths
    metrics, pad      by which the strings are judged; the token that fills up
    data              each file that was read, with its SHA-256, and the SHA-256 of all examples

A resumed run reads its data anew; where that is no longer what it was, the run would not be the same, and is refused.
"""

import hashlib
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..tasks import Task, Text
from .files import read_json

__all__ = ["NAME", "check", "describe", "read"]

NAME = "units.json"
FORMAT, VERSION = "onelayer-units", 1
LARGEST = 1 << 26  # bytes; a vocabulary of 8,000 pieces and its merges has some 300,000


def describe(task: Task) -> dict[str, Any] | None:
    """The content of units.json; None for a task that is not made of strings."""
    text = task.text
    if text is None:
        return None
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": task.name,
        "model": {
            "vocab_size": len(task.vocabulary),
            "n_ctx": task.n_ctx,
            "source_vocab_size": None if task.source_vocabulary is None else len(task.source_vocabulary),
            "source_n_ctx": task.source_n_ctx,
        },
        "pad": task.pad,
        "metrics": list(text.metrics),
        "data": {"files": task.facts.get("files", []), "examples": _digest(text)},
        "source": None if text.source is None else text.source.to_dict(),
        "target": text.target.to_dict(),
    }


def _digest(text: Text) -> str:
    """Of every string that is trained on or judged by."""
    digest = hashlib.sha256()
    for split, pairs in sorted(text.pairs.items()):
        digest.update(f"\0{split}".encode())
        for source, references in pairs:
            digest.update("\0".join((source, *references, "")).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read(run: Path) -> dict[str, Any]:
    """The content, checked for its format; BadInput where the run is not one of strings."""
    path = run / NAME
    if not path.exists():
        raise BadInput(f"{run} has no {NAME}: it is no run of strings. Such runs are those of copy, reverse, pairs, …")
    about = read_json(path, LARGEST)
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise BadInput(
            f"{path} has format {about.get('format')!r} version {about.get('version')!r}; this onelayer reads "
            f"{FORMAT!r} version {VERSION}"
        )
    return about


def check(run: Path, task: Task) -> None:
    """BadInput where the task, drawn anew, is not the one that the run began with."""
    now = describe(task)
    if now is None:
        return
    then = read(run)
    before = {file["path"]: file["sha256"] for file in then["data"]["files"]}
    for file in now["data"]["files"]:
        if before.get(file["path"], file["sha256"]) != file["sha256"]:
            raise BadInput(
                f"{file['path']} is no longer what it was when the run {run} began: its SHA-256 was "
                f"{before[file['path']][:16]}…, and is {file['sha256'][:16]}…. Put the file back, or begin a new run"
            )
    for part in ("target", "source", "model", "data"):
        if now[part] != then[part]:
            raise BadInput(
                f"the task {task.name} no longer draws what it drew when the run {run} began: its {part} differs, as "
                "it can where another version of a package makes the examples. Install the versions that "
                f"{run}/manifest.json names, or begin a new run"
            )
