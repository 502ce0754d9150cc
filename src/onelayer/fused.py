"""Fused kernels: where a function looks for one, and how it is told to.

A function that is marked `@fused` is the definition: the maths, one array operation after the other. Inside
`with using(kernels):` a kernel of the same name may do its work instead, in one pass over the memory; everywhere else,
and wherever the kernel declines (complex numbers, JAX, PyTorch, strided arrays), the definition runs.
The training engine turns kernels on around its steps; the microscope and the gradient checks never do.
The kernels, and the tests that hold each to its definition: kernels/ and tests/test_kernels.py.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, TypeVar

__all__ = ["Kernel", "fused", "has_kernel", "using"]

Kernel = Callable[..., Any]  # kernel(definition, *args, **kwargs): its own result, or the definition's
Function = TypeVar("Function", bound=Callable[..., Any])

_active: ContextVar[Mapping[str, Kernel]] = ContextVar("kernels")
_NONE: Mapping[str, Kernel] = {}


def fused(definition: Function) -> Function:
    """Mark a function for which a kernel may stand in: `layers.softmax.forward` is its name among the kernels."""
    name = _name(definition)

    @wraps(definition)
    def call(*args: Any, **kwargs: Any) -> Any:
        kernel = _active.get(_NONE).get(name)
        return definition(*args, **kwargs) if kernel is None else kernel(definition, *args, **kwargs)

    return call  # type: ignore[return-value]


def has_kernel(function: Callable[..., Any]) -> bool:
    """Whether a kernel would be asked, here and now."""
    return _name(function) in _active.get(_NONE)


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}".removeprefix("onelayer.")


@contextmanager
def using(*kernels: Mapping[str, Kernel]) -> Iterator[None]:
    """Inside, these kernels stand in for the functions of their names. Of several for one, the last is asked first, and
    hands on to the one before as to the definition."""
    token = _active.set(kernels[0] if len(kernels) == 1 else _chained(*kernels))
    try:
        yield
    finally:
        _active.reset(token)


def _chained(*kernels: Mapping[str, Kernel]) -> Mapping[str, Kernel]:
    chained: dict[str, Kernel] = {}
    for some in kernels:
        for name, kernel in some.items():
            chained[name] = _before(kernel, chained[name]) if name in chained else kernel
    return chained


def _before(kernel: Kernel, other: Kernel) -> Kernel:
    def asked(definition: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return kernel(partial(other, definition), *args, **kwargs)

    return asked
