"""Bytes of one step: the most held at once, and all that was asked for.

NumPy's allocator can be exchanged (NEP 49). `counting` puts one in place that asks the C library as NumPy does and
adds up what it was asked for; array data alone is counted, not Python's objects.

Source    NEP 49, numpy.org/neps/nep-0049.html; the tables of NumPy's C interface (PyDataMem_SetHandler).
"""

import ctypes
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["counting", "of_jax", "of_numpy", "of_torch"]

_SET_HANDLER = 304  # its place in NumPy's table of C functions, fixed since 1.22

_Malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Calloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_Realloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Free = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _Handler(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("ctx", ctypes.c_void_p),
        ("malloc", _Malloc), ("calloc", _Calloc), ("realloc", _Realloc), ("free", _Free),
    )  # fmt: skip


_held: list[Any] = []  # arrays made under a handler are freed by it: it must outlive them


@contextmanager
def counting() -> Iterator[list[int]]:
    """Inside, every array's bytes are added up: `with counting() as asked: step()`, then sum(asked)."""
    libc = ctypes.CDLL(None)
    for name, arguments in (("malloc", 1), ("calloc", 2)):
        getattr(libc, name).restype = ctypes.c_void_p
        getattr(libc, name).argtypes = [ctypes.c_size_t] * arguments
    libc.realloc.restype, libc.realloc.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    asked: list[int] = []

    def malloc(_: Any, size: int) -> Any:
        asked.append(size)
        return libc.malloc(max(1, size))

    def calloc(_: Any, count: int, size: int) -> Any:
        asked.append(count * size)
        return libc.calloc(max(1, count), max(1, size))

    def realloc(_: Any, block: Any, size: int) -> Any:
        asked.append(size)
        return libc.realloc(block, max(1, size))

    calls = _Malloc(malloc), _Calloc(calloc), _Realloc(realloc), _Free(lambda _, block, __: libc.free(block))
    handler = _Handler(b"counting", 1, None, *calls)
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    name = ctypes.create_string_buffer(b"mem_handler")
    capsule = new_capsule(ctypes.addressof(handler), name, None)
    _held.append((handler, calls, name, capsule))
    old = _set_handler()(capsule)
    try:
        yield asked
    finally:
        _set_handler()(old)


def _set_handler() -> Callable[[Any], Any]:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    core: Any = getattr(np, "_core", None) or np.core
    table = ctypes.cast(pointer(core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER])


def of_numpy(step: Callable[[], Any]) -> dict[str, float]:
    step()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    step()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    with counting() as asked:
        step()
    return {"peak": float(peak), "allocated": float(sum(asked))}


def of_jax(compiled: Any) -> dict[str, float]:
    """Of a compiled program: its temporary buffers and its results. It allocates each of them once."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return {}
    peak = float(sizes.temp_size_in_bytes + sizes.output_size_in_bytes)
    return {"peak": peak, "allocated": peak}


def of_torch(step: Callable[[], Any]) -> dict[str, float]:
    """From PyTorch's profiler: every allocation and release in turn."""
    import torch  # pyright: ignore[reportMissingImports]

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    now, peak, allocated = 0, 0, 0
    results: Any = profile.profiler
    for event in results.kineto_results.events():
        if event.name() == "[memory]":
            size = event.nbytes()
            now, allocated = now + size, allocated + max(0, size)
            peak = max(peak, now)
    return {"peak": float(peak), "allocated": float(allocated)}
