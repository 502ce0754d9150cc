"""A run's measurements: `metrics.jsonl`, one JSON object a line, only ever appended to.

Each line ends with the CRC-32 of what stands before it, so that a line is whole or known not to be. What a crash can
leave behind is a torn last line, which a reader passes over and a resume cuts off; a bad line that good ones follow is
damage and is refused. Nothing in a line depends on the clock: the same run writes the same bytes, interrupted or not.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import BadInput
from .files import parse_json, storage, write_all

__all__ = ["MetricsLog", "Reading", "decode", "encode", "read"]

LONGEST_LINE = 1 << 20  # bytes; a line has a few hundred, with measures a few thousand
_CHECKED = re.compile(rb'(\{.+),"crc32":"([0-9a-f]{8})"\}\n')


def encode(record: Mapping[str, Any]) -> bytes:
    """One line, with its check."""
    body = json.dumps(dict(record), separators=(",", ":"), allow_nan=False).encode()[:-1]
    return body + b',"crc32":"%08x"}\n' % zlib.crc32(body)


def decode(line: bytes) -> dict[str, Any]:
    """The record of a line, ValueError if it is not exactly as it was written."""
    match = _CHECKED.fullmatch(line)
    if match is None or zlib.crc32(match[1]) != int(match[2], 16):
        raise ValueError("the line is torn or damaged")
    return parse_json(match[1] + b"}")


class Reading(NamedTuple):
    records: list[dict[str, Any]]
    size: int  # bytes of the whole lines
    torn: bool  # whether a torn tail stands behind them


def read(path: Path) -> Reading:
    """Every whole line of the file, which may be growing meanwhile; BadInput where one in the middle is damaged."""
    records: list[dict[str, Any]] = []
    size, bad = 0, 0
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                try:
                    record = decode(line)
                except ValueError:
                    bad = bad or number
                    continue
                if bad:
                    raise BadInput(
                        f"{path} is damaged: line {bad} is not what onelayer wrote, though good lines follow it. "
                        f"`onelayer resume {path.parent}` goes back to the last checkpoint before it"
                    )
                records.append(record)
                size += len(line)
    except FileNotFoundError:
        return Reading([], 0, False)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    return Reading(records, size, bool(bad))


class MetricsLog:
    """The writer's end: appends lines, and knows how many bytes it wrote and their SHA-256."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """Opens the file and cuts it back to its first `size` bytes."""
        self._path = path
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._digest = hashlib.sha256(_first(self._handle, size))
                os.ftruncate(self._handle, size)
                os.lseek(self._handle, size, os.SEEK_SET)
                os.fsync(self._handle)
            except OSError:
                os.close(self._handle)
                raise
        except OSError as error:
            raise storage("write", path, error) from error
        self.size = size

    def append(self, record: Mapping[str, Any]) -> None:
        line = encode(record)
        try:
            write_all(self._handle, line)
        except OSError as error:
            raise storage("append to", self._path, error) from error
        self._digest.update(line)
        self.size += len(line)

    def flush(self) -> None:
        """What was appended is on the disk when this returns."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise storage("write", self._path, error) from error

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def _first(handle: int, size: int) -> bytes:
    parts, left = [], size
    while left and (part := os.pread(handle, left, size - left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def sha256_of_first(path: Path, size: int) -> str:
    """Of the file's first `size` bytes, or of all of it where it is shorter."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(size)).hexdigest()
    except OSError:
        return hashlib.sha256(b"").hexdigest()
