"""Memory between steps: what one step frees, the next asks for again.

By default glibc gives large freed blocks back to the system at once, and the next step pays for every page anew: on the
grokking step some 3,500 page faults, an eighth of its time. `keep_freed_memory` has the process keep them. It is a
setting of the whole process; its cost is that memory, once used, stays with the process until its end.

Source    mallopt(3); the figures and their command stand in docs/performance.md
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Whether it could be set: on glibc, which is Linux's usual C library; elsewhere nothing is done."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(what, 2**30) == 1 for what in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
