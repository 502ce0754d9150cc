"""Memory between steps: what one step frees, the next asks for again.

By default glibc gives large freed blocks back to the system at once, and the next step pays for every page anew: on the
grokking step some 3,500 page faults, an eighth of its time. `keep_freed_memory` has the process keep them. It is a
setting of the whole process; its cost is that memory, once used, stays with the process until its end.

All threads share one heap, and it grows into huge pages: a step that goes through 100 MB otherwise waits for the
processor to look its pages up.

Source    mallopt(3), madvise(2); the figures and their command stand in docs/performance.md
"""

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
MADV_HUGEPAGE, PAGE = 14, 4096
ROOM = 1 << 29  # bytes, of which none is taken before it is used


def keep_freed_memory() -> bool:
    """Whether it could be set: on glibc, which is Linux's usual C library; elsewhere nothing is done."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = (M_MMAP_THRESHOLD, 2**30), (M_TRIM_THRESHOLD, 2**30), (M_ARENA_MAX, 1)
    if mallopt is None or not all(mallopt(what, value) == 1 for what, value in settings):
        return False
    _huge_pages()
    return True


@cache
def _huge_pages() -> None:
    """Let the heap grow into pages of 2 MB, where the system has such."""
    c = ctypes.CDLL(None)
    c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    c.free.argtypes, c.madvise.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    room = c.malloc(ROOM)
    if room:
        start = -(-room // PAGE) * PAGE
        c.madvise(start, (room + ROOM - start) // PAGE * PAGE, MADV_HUGEPAGE)
        c.free(room)
