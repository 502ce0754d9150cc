"""What the kernels share: how they are compiled, when one may run, how its rows are spread over threads, and exp.

exp       eˣ = 2ⁿ eʳ with n = ⌊x/ln 2 + ½⌉ and |r| ≤ ln 2/2: a short Taylor polynomial for eʳ, and 2ⁿ by its bits.
          Written out so that the compiler vectorises it; x is held in the range where 2ⁿ is a normal number.
          Relative error: 2e-7 in float32, 4e-16 in float64.

Source    Cody & Waite 1980, Software manual for the elementary functions (ln 2 in two parts, so that r is exact).
"""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import intp, types
from numba.extending import intrinsic, overload

from .. import threads

__all__ = ["compiled", "exact", "exp", "fits", "horner", "lent", "parts", "spread", "strided"]


def _compile(f: Callable[..., Any], *allowed: str, signature: Any = None, **more: Any) -> Any:
    settings = {"fastmath": set(allowed), "nogil": True, "cache": True, "error_model": "numpy", **more}
    return numba.njit(signature, **settings)(
        inspect.unwrap(f)
    )  # unwrapped: in the tests every function is checked for shapes


def compiled(f: Callable[..., Any]) -> Any:
    """Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning, for divergence must show.

    An integer beside a float32 makes a float64, and all that follows slow: a kernel writes its numbers as its arrays'.
    """
    return _compile(f, "reassoc", "contract", "nsz")


def lent(f: Callable[..., Any]) -> Any:
    """`compiled`, for arrays that the caller holds: none is made inside, and slices of them count no references, which
    threads would have to agree on at each."""
    return _compile(f, "reassoc", "contract", "nsz", _nrt=False)


def strided(*kinds: Any) -> Callable[[Callable[..., Any]], Any]:
    """`lent`, once for each precision whatever the strides: a long kernel is compiled for seconds. kinds, of the
    arguments after `first` and `part`: how many axes, where it is an array of real numbers (0: one such number), a
    tuple of such, or numba's type. The last argument is an array of real numbers, or a tuple that begins with one."""

    def decorate(f: Callable[..., Any]) -> Any:
        @cache
        def of(dtype: Any) -> Any:
            number = numba.from_dtype(dtype)

            def typed(kind: Any) -> Any:
                if isinstance(kind, tuple):
                    return types.Tuple([typed(one) for one in kind])
                return kind if not isinstance(kind, int) else types.Array(number, kind, "A") if kind else number

            signature = types.void(intp, intp, *map(typed, kinds))
            return _compile(f, "reassoc", "contract", "nsz", _nrt=False, signature=signature)

        def call(*args: Any) -> None:
            last = args[-1][0] if isinstance(args[-1], tuple) else args[-1]
            of(last.dtype)(*map(_writable, args))

        return call

    return decorate


def _writable(x: Any) -> Any:
    """What is compiled for arrays that may be written to takes no others, though it only reads this one."""
    if type(x) is tuple:
        return tuple([_writable(one) for one in x])
    return x.copy() if isinstance(x, np.ndarray) and not x.flags.writeable and x.dtype.kind == "f" else x


def exact(f: Callable[..., Any]) -> Any:
    """Products and sums in the order in which they are written."""
    return _compile(f, "contract")


def fits(*arrays: Any) -> bool:
    """Whether a kernel may take these: NumPy, all float32 or all float64, in C order (None is passed over)."""
    given = [a for a in arrays if a is not None]
    kind = getattr(given[0], "dtype", None)
    return kind in (np.float32, np.float64) and all(
        isinstance(a, np.ndarray) and a.dtype == kind and a.flags.c_contiguous for a in given
    )


# ---------------------------------------------------------------------------------------------------- threads

WORTHWHILE = 1 << 17  # numbers below which a second thread costs more than it brings


def spread(kernel: Callable[..., None], size: int, rows: tuple[Any, ...], shared: tuple[Any, ...] = ()) -> None:
    """kernel(first, part, *rows, *shared), in as many parts as there are threads; `parts` says how many.

    Each part gets its share of the `rows` arrays, cut along the first axis: it then counts from 0, which the compiler
    needs to know to vectorise (an index from elsewhere might be negative). first: the number of its first row.
    """
    count, total = parts(size), len(rows[0])
    if count == 1:
        kernel(0, 0, *rows, *shared)
        return
    edges = [total * i // count for i in range(count + 1)]

    def one(part: int) -> None:
        first, last = edges[part], edges[part + 1]
        kernel(first, part, *(array[first:last] for array in rows), *shared)

    threads.spread(one, count)


def parts(size: int) -> int:
    """Into how many parts the work on so many numbers is split."""
    return threads.count() if size >= WORTHWHILE else 1


# ---------------------------------------------------------------------------------------------------- polynomials, exp


def horner(terms: Sequence[float], number: Any) -> Any:
    """Σ terms[k] xᵏ for use inside a kernel, in the precision of `number`; the terms are written into the code."""
    highest, second, *others = (number(term) for term in reversed(terms))
    rest = tuple(others)

    @exact
    def polynomial(x):
        y = highest * x + second
        for term in rest:
            y = y * x + term
        return y

    return polynomial


def _of_bits(number: Any, bits: Any, kind: Any) -> Any:
    """Inside a kernel: the number that has these bits."""

    def typed(context, bits_type):
        return number(bits), lambda _, builder, __, args: builder.bitcast(args[0], kind())

    return intrinsic(typed)


_float32_of_bits = _of_bits(types.float32, types.int32, ir.FloatType)
_float64_of_bits = _of_bits(types.float64, types.int64, ir.DoubleType)


_F, _I = np.float32, np.int32
_TAYLOR32 = horner([1 / math.factorial(k) for k in range(8)], np.float32)
_TAYLOR64 = horner([1 / math.factorial(k) for k in range(14)], np.float64)
_HIGH, _LOW = 0.693359375, -2.12194440054690583e-4  # ln 2, the first with few bits
_HIGH32, _LOW32, _PER_LN2 = _F(_HIGH), _F(_LOW), _F(1 / math.log(2))


@exact
def _exp32(x):
    x = _F(-87) if x < _F(-87) else x
    x = _F(88) if x > _F(88) else x
    n = np.floor(x * _PER_LN2 + _F(0.5))
    r = (x - n * _HIGH32) - n * _LOW32
    return _TAYLOR32(r) * _float32_of_bits((_I(n) + _I(127)) << _I(23))


@exact
def _exp64(x):
    x = -708.0 if x < -708.0 else x
    x = 709.0 if x > 709.0 else x
    n = np.floor(x * (1 / 0.6931471805599453) + 0.5)
    r = (x - n * _HIGH) - n * _LOW
    return _TAYLOR64(r) * _float64_of_bits((np.int64(n) + np.int64(1023)) << np.int64(52))


def exp(x: Any) -> Any:
    """eˣ inside a kernel, in x's own precision."""
    return math.exp(x)


@overload(exp)
def _(x):
    return (lambda x: _exp32(x)) if x == types.float32 else (lambda x: _exp64(x))
