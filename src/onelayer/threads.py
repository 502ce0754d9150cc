"""Threads: how many this process may use, and work that is shared out among them.

together(f, items)   f(item) for every item, each thread taking the next one that is left, the results in order. NumPy
                     and the kernels let go of Python's lock while they compute: the threads do run side by side.
alone()              a context in which BLAS keeps to one thread
count()              how many threads a piece of work may use: all of them, or 1 within a share of `together`.

Within a share, BLAS keeps to the share's own thread (by the library `threadpoolctl`). Several products side by side, a
thread each, beat one product after the other on several threads: nothing waits for the slowest between two of them,
and what lies between the products is shared out as well.

Work between steps that is not shared out keeps BLAS to one thread as well: after a product on several, OpenBLAS's
threads wait awake for a tenth of a second and take their cores from the next steps.

OMP_NUM_THREADS bounds the number, as it does for NumPy's BLAS.
"""

import contextvars
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any, TypeVar

__all__ = ["alone", "count", "spread", "together"]

Item = TypeVar("Item")
Found = TypeVar("Found")

_sharing: contextvars.ContextVar[bool] = contextvars.ContextVar("sharing", default=False)


@cache
def _allowed(process: int) -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(os.environ.get("OMP_NUM_THREADS") or allowed)))


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads beside the caller's, of this very process (a fork has none of its parent's)."""
    return ThreadPoolExecutor(max(1, _allowed(process) - 1), "onelayer")


@cache
def _blas(process: int) -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def count() -> int:
    """How many threads this work may use."""
    return 1 if _sharing.get() else _allowed(os.getpid())


def alone() -> Any:
    """Inside, BLAS works on the caller's thread only."""
    return _blas(os.getpid()).limit(limits=1)


def spread(work: Callable[[int], Any], shares: int) -> None:
    """work(0), work(1) … work(shares - 1) side by side; the caller's thread does the first."""
    others = [_pool(os.getpid()).submit(work, share) for share in range(1, shares)]
    try:
        work(0)
    finally:
        wait(others)  # what they work on may be gone when the caller is
    for other in others:
        other.result()


def together(f: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """f of every item, side by side, the results in order; none may wait for another."""
    workers = min(count(), len(items))
    if workers < 2:
        return [f(item) for item in items]
    waiting, found = iter(range(len(items))), [None] * len(items)  # a list's iterator hands out each place once
    contexts = [contextvars.copy_context() for _ in range(workers)]  # which kernels are in use is a matter of context

    def take_turns() -> None:
        _sharing.set(True)
        for place in waiting:
            found[place] = f(items[place])  # type: ignore[call-overload]

    with alone():
        spread(lambda worker: contexts[worker].run(take_turns), workers)
    return found  # type: ignore[return-value]
