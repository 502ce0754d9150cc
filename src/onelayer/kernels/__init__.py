"""Fused kernels for NumPy arrays, compiled by numba (extra `[fast]`): one pass over the memory where NumPy makes ten.

The layer files are the definition; a kernel is only faster. It takes real float32 or float64 arrays in C order, and
hands everything else back to the definition. Each is held to it by tests/test_kernels.py: to 1e-12 in float64.
Products of many rows with a layer's weights are written here too (product.py, on rows in registers: lanes.py): they are
faster than BLAS's, and what lies between them is done while it is in the cache (feed_forward.py, attention.py).

`available()` is empty where numba is not installed. Adding a kernel is a function and a line in its file's KERNELS.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from ..fused import Kernel

__all__ = ["available"]

FILES = (
    "activations",
    "attention",
    "circuits",
    "cross_entropy",
    "embedding",
    "feed_forward",
    "first_attention",
    "halves",
    "linear",
    "norms",
    "optimizers",
    "softmax",
    "tables",
)


@cache
def available() -> dict[str, Kernel]:
    """Every kernel by the name of the function that it stands in for."""
    if find_spec("numba") is None:
        return {}
    return {name: kernel for file in FILES for name, kernel in import_module(f".{file}", __package__).KERNELS.items()}
