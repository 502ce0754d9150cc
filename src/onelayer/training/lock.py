"""One writer per run: the kernel's lock on `RUN/lock`. Readers never ask for it and never wait.

The kernel drops the lock when its holder ends, however it ends, so there is no stale lock to clean up after a kill -9:
the file stays, the lock does not. Its content says who holds it, for people to read.
"""

import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ..errors import BadInput
from .files import storage, write_all

__all__ = ["RunLocked", "holder", "lock"]


class RunLocked(BadInput):
    """Another process is writing this run."""


def _content(path: Path) -> str:
    try:
        about = json.loads(path.read_text())
        return f"process {about['pid']} on {about['host']}, since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _take(handle: int, path: Path) -> bool:
    """A second look after a moment, since `holder` takes the lock for an instant to see whether it is free."""
    for pause in (0.05, 0.05, 0.0):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise storage("lock", path, error) from error
        time.sleep(pause)
    return False


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Holds the run for this process; RunLocked at once where another one holds it."""
    path = run / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise storage("write", path, error) from error
    try:
        if not _take(handle, path):
            raise RunLocked(
                f"{run} is being written by {_content(path)}; a run has one writer at a time. "
                f"Wait for it or stop it, then try again; reading (`onelayer runs show {run}`) is always possible"
            )
        about = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        try:
            os.ftruncate(handle, 0)
            write_all(handle, (json.dumps(about) + "\n").encode())
        except OSError:
            pass  # a full disk must not stand in the way of the lock itself
        yield
    finally:
        os.close(handle)


def holder(run: Path) -> str | None:
    """Who writes the run just now, or None."""
    path = run / "lock"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError:
        return _content(path)
    finally:
        os.close(handle)
