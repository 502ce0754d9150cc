"""Checkpoints: everything that a run needs to go on as though it had never stopped, proof against half a write.

    checkpoints/step-N/model.safetensors       parameters, by flat name
                       optimizer.safetensors   the optimizer's arrays; a snapshot (below) has none
                       state.json              step, config, shapes, where the metrics stood, SHA-256 of either file
                       digest                  SHA-256 of state.json

Writing   into a temporary directory, every file flushed, then one rename (files.py). A crash leaves the temporary
          directory behind, which the next writer removes; it never leaves half a checkpoint.
Reading   recomputes every digest, then compares names, shapes and types with those the config asks for. Nothing is
          executed: safetensors holds numbers only.
Keeping   the last few whole, for resuming; at pinned steps the model alone, for looking back: a snapshot. It is not
          flushed, since nothing hangs on it: a crash of the machine may cost it, and it then does not verify. The best
          model, where a run chooses one, and those that are to be averaged are kept alone too; the best is flushed.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as format_tensors

from ..errors import BadInput
from .files import LARGEST_JSON, flush_directory, parse_json, storage, write_file

__all__ = ["Checkpoint", "Rejected", "load", "prune", "save", "set_aside", "steps"]

FORMAT, VERSION = "onelayer-checkpoint", 1
_NAME = re.compile(r"step-(0|[1-9][0-9]{0,17})")

Tensors = Mapping[str, np.ndarray]


class Rejected(ValueError):
    """A checkpoint that does not verify; says which one and what is wrong with it."""


class Checkpoint(NamedTuple):
    step: int
    model: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    about: dict[str, Any]  # config, seconds, metrics: what the writer put in beside the tensors


def steps(directory: Path) -> list[int]:
    """The steps at which there is something to read, earliest first."""
    if not directory.is_dir():
        return []
    return sorted(int(match[1]) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name)))


# ---------------------------------------------------------------------------------------------------- writing


def _format(tensors: Tensors) -> bytes:
    """C order by all means: safetensors 0.8.0 stores other orders wrongly, and says nothing."""
    return format_tensors({name: np.asarray(x, order="C") for name, x in tensors.items()})


def shapes(tensors: Tensors) -> dict[str, list[Any]]:
    return {name: [str(x.dtype), list(x.shape)] for name, x in tensors.items()}


def non_finite(tensors: Tensors) -> str | None:
    """The first tensor with a NaN or an infinity."""
    return next((name for name, x in tensors.items() if x.dtype.kind in "fc" and not np.all(np.isfinite(x))), None)


def is_whole(path: Path) -> bool:
    """Whether there is more to it than the model."""
    return (path / "optimizer.safetensors").exists()


def save(
    directory: Path, step: int, model: Tensors, optimizer: Tensors | None, about: Mapping[str, Any], flush: bool = True
) -> Path:
    """`directory/step-N`, on the disk when this returns; StorageError, and nothing changed, where that fails.

    optimizer: None for a snapshot. flush: False where nothing hangs on it. The tensors are finite: the loop has looked.
    A checkpoint that is there already was written by this run, so it stays; a snapshot that is there is written anew.
    """
    final = directory / f"step-{step}"
    if is_whole(final):
        return final
    parts = {"model": model} if optimizer is None else {"model": model, "optimizer": optimizer}
    files = {f"{part}.safetensors": _format(tensors) for part, tensors in parts.items()}
    state = {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        **about,
        "tensors": {part: shapes(tensors) for part, tensors in parts.items()},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files["state.json"] = json.dumps(state, indent=1, allow_nan=False).encode()
    files["digest"] = hashlib.sha256(files["state.json"]).hexdigest().encode() + b"\n"
    temporary = directory / f".step-{step}.{os.getpid()}.tmp"
    try:
        directory.mkdir(exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in files.items():
            write_file(temporary / name, content, flush=flush)
        if flush:
            flush_directory(temporary)
        if final.exists():
            _remove(final)
        os.rename(temporary, final)
        if flush:
            flush_directory(directory)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise storage("write the checkpoint", final, error) from error
    return final


def _remove(path: Path) -> None:
    """Gone at once, so that no reader meets half of it."""
    gone = path.with_name(f".{path.name}.gone.tmp")
    os.rename(path, gone)
    shutil.rmtree(gone)


def prune(directory: Path, keep: int, wanted: Collection[int], passing: Collection[int] = ()) -> None:
    """Keep the last `keep` that are whole; of older ones the model alone at `wanted` steps, and nothing at others.

    passing: steps whose model alone was kept for a while, and goes where it is wanted no more and a whole one follows.
    Only what carries a checkpoint's name is touched. A failure is no loss: the next call tries again.
    """
    there = steps(directory)
    whole = [step for step in there if is_whole(directory / f"step-{step}")]
    past = [step for step in there if whole and step < whole[-1] and step in passing]
    for step in dict.fromkeys((*whole[:-keep], *(step for step in past if step not in whole))):
        path = directory / f"step-{step}"
        try:
            if step not in wanted:
                _remove(path)
            elif step in whole:
                (path / "optimizer.safetensors").unlink()
        except OSError:
            continue


def clean(directory: Path) -> None:
    """Remove what a killed writer of ours left unfinished; the caller holds the run's lock."""
    if directory.is_dir():
        for path in directory.glob(".step-*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def set_aside(directory: Path, step: int) -> Path:
    """Move a checkpoint that does not verify out of the way, under another name; nothing is deleted."""
    path = directory / f"step-{step}"
    aside = next(name for k in range(10**6) if not (name := directory / f"rejected-step-{step}-{k}").exists())
    try:
        os.rename(path, aside)
    except OSError as error:
        raise storage("move", path, error) from error
    return aside


# ---------------------------------------------------------------------------------------------------- reading


def _read(path: Path, largest: int) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        what = "is missing" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
        raise Rejected(f"{path.name} {what}") from error
    if len(content) > largest:
        raise Rejected(f"{path.name} is larger than what was written")
    return content


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Rejected(f"state.json lacks {name}")
    return value


def read_state(path: Path) -> dict[str, Any]:
    """The verified content of state.json; Rejected where it is damaged, BadInput where a newer onelayer wrote it."""
    text = _read(path / "state.json", LARGEST_JSON)
    if _read(path / "digest", 200).strip() != hashlib.sha256(text).hexdigest().encode():
        raise Rejected("state.json does not have the digest that was written with it")
    try:
        state = _object(parse_json(text), "its fields")
    except ValueError as error:
        raise Rejected(f"state.json: {error}") from error
    if state.get("format") != FORMAT:
        raise Rejected("it is not a checkpoint of onelayer")
    if state.get("version") != VERSION:
        raise BadInput(
            f"{path} has format version {state.get('version')!r}; this onelayer reads version {VERSION}. "
            "Install the onelayer that wrote it, or a newer one"
        )
    if f"step-{state.get('step')}" != path.name:
        raise Rejected(f"it was written at step {state.get('step')}, and renamed since")
    return state


def is_snapshot(path: Path) -> bool:
    """Whether it was written as a model alone; one that cannot be read is none."""
    try:
        return "optimizer" not in read_state(path).get("tensors", {})
    except Rejected:
        return False


def _tensors(path: Path, state: dict[str, Any], part: str) -> dict[str, np.ndarray]:
    name = f"{part}.safetensors"
    written = _object(_object(state.get("tensors"), "tensors").get(part), f"tensors of the {part}")
    largest = 1 << 20  # the header
    try:
        for dtype, shape in written.values():
            largest += int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    except (TypeError, ValueError, OverflowError) as error:
        raise Rejected(f"state.json describes no tensors: {error}") from error
    content = _read(path / name, largest)
    if hashlib.sha256(content).hexdigest() != _object(state.get("sha256"), "sha256").get(name):
        raise Rejected(f"{name} does not have the digest that was written with it: it is truncated or damaged")
    try:
        return {key: np.array(x) for key, x in parse_tensors(content).items()}  # to be written to, as any other
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Rejected(f"{name} is not in the safetensors format: {error}") from error


def _compare(part: str, found: Tensors, expected: Tensors) -> None:
    for name in expected:
        if name not in found:
            raise Rejected(f"the {part} lacks the tensor {name}")
    for name, x in found.items():
        if name not in expected:
            raise Rejected(f"the {part} has a tensor {name} that the config does not know")
        want = expected[name]
        if x.shape != want.shape or x.dtype != want.dtype:
            raise Rejected(f"{name} in the {part} is {x.dtype}{list(x.shape)}, the config asks for "
                           f"{want.dtype}{list(want.shape)}")  # fmt: skip
    if (name := non_finite(found)) is not None:
        raise Rejected(f"{name} in the {part} holds NaN or infinity")


def load(path: Path, model: Tensors, optimizer: Tensors) -> Checkpoint:
    """The checkpoint, verified, whose tensors are named, shaped and typed as in `model` and `optimizer`."""
    try:
        state = read_state(path)
        found = Checkpoint(state["step"], _tensors(path, state, "model"), _tensors(path, state, "optimizer"), state)
        _compare("model", found.model, model)
        _compare("optimizer", found.optimizer, optimizer)
    except Rejected as error:
        raise Rejected(f"{path.name}: {error}") from error
    return found


def load_model(path: Path) -> dict[str, np.ndarray]:
    """The parameters alone, verified: what looking needs, of a snapshot too."""
    try:
        return _tensors(path, read_state(path), "model")
    except Rejected as error:
        raise BadInput(f"{path} cannot be used: {error}") from error
