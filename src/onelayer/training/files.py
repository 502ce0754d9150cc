"""Files that survive a crash: written under a temporary name, flushed to the disk, then renamed.

A rename within one directory is atomic, so a reader sees the old file or the new one, never half of either. The file
is flushed before the rename (or the name could reach the disk before the content) and the directory after it (or the
name might not reach the disk at all).

Source    T. S. Pillai et al., All file systems are not created equal, OSDI 2014.
"""

import errno
import json
import os
from pathlib import Path
from typing import Any

from ..errors import BadInput, WorkFailed

__all__ = [
    "StorageError", "flush_directory", "parse_json", "read_json", "replace_file", "storage", "write_all", "write_file",
]  # fmt: skip

LARGEST_JSON = 1 << 20  # bytes; a config or a manifest has a few thousand


class StorageError(WorkFailed):
    """The disk would not take what was to be written. What stood there before still stands."""


def storage(action: str, path: Path, error: OSError) -> StorageError:
    """The same failure in words: what could not be done, where, why, and how to mend it."""
    remedy = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
        errno.EROFS: "use a directory on a disk that can be written",
        errno.EACCES: "use a directory that you may write to",
        errno.EPERM: "use a directory that you may write to",
        errno.ENOENT: "put the directory back",
    }.get(error.errno or 0, "see to the disk")
    return StorageError(f"could not {action} {path}: {error.strerror or error}. To mend it: {remedy}")


def flush_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, content: bytes, flush: bool = True) -> None:
    """A new file, on the disk when this returns (where `flush`). It refuses to overwrite."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        write_all(handle, content)
        if flush:
            os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, content: bytes) -> None:
    """`os.write` may write less than it is given."""
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def replace_file(path: Path, content: bytes) -> None:
    """The file as a whole or not at all; an older one is replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        write_file(temporary, content)
        os.replace(temporary, path)
        flush_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage("write", path, error) from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return dict(pairs)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def parse_json(text: bytes | str) -> Any:
    """JSON, strictly: no key twice, no NaN or Infinity, no nesting deep enough to exhaust the stack. ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """A JSON object from a file that may hold anything; BadInput says what is wrong with it."""
    try:
        with open(path, "rb") as file:
            text = file.read(largest + 1)
        if len(text) > largest:
            raise ValueError(f"larger than {largest} bytes")
        value = parse_json(text)
        if not isinstance(value, dict):
            raise ValueError(f"a JSON object is expected, received {type(value).__name__}")
        return value
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise BadInput(f"{path} is not what onelayer writes: {error}") from error
