"""A row of numbers as one value inside a kernel: as many lanes as two of the processor's registers hold.

Loops leave it to the compiler what is done side by side, and it takes half of AVX-512's width; sums that many rows add
to are read from memory and written back at each. Values of this kind stay in registers, and are worked on whole:

    load(a, i, j)    a[i, j : j + lanes]           store(a, i, j, x)    puts it there
    each(a, i, j)    a[i, j] in every lane         fill(number)         the number in every lane
    column(a, j)     a[:, j], of the last row again in lanes beyond it
    x + y, x − y, x y, x / y, with numbers too     choose(a, b, x, y)   x where a < b, else y
    exp(x)           as in compile.py              lanes(a)             how many, of a's kind
    total(x)         of all lanes

For matrix products there are wider ones, `broad_load` and `broad_each` with `broad(a)` lanes: four registers, where the
processor has the 32 that sums of some rows of that width take.

Nothing is checked: arrays must have room for whole rows, and lie without gaps along the last axis (for `each` they need
not). The arrays are 2-D; i and j count from 0.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from .compile import exact, horner

__all__ = [
    "broad", "broad_each", "broad_load", "choose", "column", "dense", "each", "exp", "fill", "lanes", "load", "store",
    "total",
]  # fmt: skip

_AVX512 = llvm.get_host_cpu_features().get("avx512f")
BYTES, BROAD = (128, 256) if _AVX512 else (64, 64)  # two registers, and four (or two, of 16)
FLAGS = ("contract",)


def inside(code: Callable[..., Any]) -> Any:
    """An intrinsic: called without the `context` that it is written with."""
    return intrinsic(code)


def lanes(array: Any) -> int:
    return BYTES // array.itemsize


def broad(array: Any) -> int:
    return BROAD // array.itemsize


@overload(lanes)
def _(array):
    count = BYTES * 8 // array.dtype.bitwidth
    return lambda array: count


@overload(broad)
def _(array):
    count = BROAD * 8 // array.dtype.bitwidth
    return lambda array: count


class Lanes(types.Type):
    def __init__(self, dtype: Any, size: int = BYTES) -> None:
        self.dtype, self.count = dtype, size * 8 // dtype.bitwidth
        super().__init__(f"Lanes({dtype} x {self.count})")


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        number = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(number, kind.count))


def _place(context: Any, builder: Any, kind: Any, args: Any, what: Any) -> Any:
    """Where array[i, j] is, as a pointer to `what`."""
    value, i, j = args
    array = context.make_array(kind)(context, builder, value)
    steps = cgutils.unpack_tuple(builder, array.strides, 2)
    offset = builder.add(builder.mul(i, steps[0]), builder.mul(j, steps[1]))
    return cgutils.pointer_add(builder, array.data, offset, what.as_pointer())


def _in_all(builder: Any, number: Any, count: int) -> Any:
    one = builder.insert_element(
        ir.Constant(ir.VectorType(number.type, count), ir.Undefined), number, ir.IntType(32)(0)
    )
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count))


def _loading(size: int) -> Any:
    @inside
    def load(context, array, i, j):
        kind = Lanes(array.dtype, size)

        def code(context, builder, signature, args):
            there = _place(context, builder, array, args, context.get_value_type(kind))
            return builder.load(there, align=array.dtype.bitwidth // 8)

        return kind(array, types.intp, types.intp), code

    return load


def _repeating(size: int) -> Any:
    @inside
    def each(context, array, i, j):
        kind = Lanes(array.dtype, size)

        def code(context, builder, signature, args):
            there = _place(context, builder, array, args, context.get_value_type(array.dtype))
            return _in_all(builder, builder.load(there), kind.count)

        return kind(array, types.intp, types.intp), code

    return each


load, broad_load = _loading(BYTES), _loading(BROAD)
each, broad_each = _repeating(BYTES), _repeating(BROAD)


@inside
def store(context, array, i, j, x):
    def code(context, builder, signature, args):
        there = _place(context, builder, array, args[:3], args[3].type)
        builder.store(args[3], there, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, x), code


@inside
def column(context, array, j):
    kind = Lanes(array.dtype)

    def code(context, builder, signature, args):
        given = context.make_array(array)(context, builder, args[0])
        rows, step = (cgutils.unpack_tuple(builder, of, 2)[0] for of in (given.shape, given.strides))
        first = _place(context, builder, array, (args[0], step.type(0), args[1]), context.get_value_type(array.dtype))
        start, each_step, last = (
            _in_all(builder, number, kind.count)
            for number in (builder.ptrtoint(first, step.type), step, builder.sub(rows, step.type(1)))
        )
        row = ir.Constant(last.type, list(range(kind.count)))
        row = builder.select(builder.icmp_signed("<", row, last), row, last)
        there = builder.inttoptr(builder.add(start, builder.mul(row, each_step)), ir.VectorType(first.type, kind.count))
        vector, size = context.get_value_type(kind), array.dtype.bitwidth
        lanes_on = ir.VectorType(ir.IntType(1), kind.count)
        gather = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [there.type, ir.IntType(32), lanes_on, vector]),
            f"llvm.masked.gather.v{kind.count}f{size}.v{kind.count}p0",
        )  # fmt: skip
        on, off = ir.Constant(lanes_on, [1] * kind.count), ir.Constant(vector, ir.Undefined)
        return builder.call(gather, [there, ir.IntType(32)(size // 8), on, off])

    return kind(array, types.intp), code


@inside
def fill(context, number):
    kind = Lanes(number)
    return kind(number), lambda _, builder, __, args: _in_all(builder, args[0], kind.count)


@inside
def choose(context, a, b, x, y):
    def code(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return x(a, b, x, y), code


def _operator(function: Any, name: str) -> None:
    @inside
    def both(context, x, y):
        return x(x, y), lambda _, builder, __, args: getattr(builder, name)(*args, flags=FLAGS)

    @overload(function)
    def _(x, y):
        if isinstance(x, Lanes) and isinstance(y, Lanes):
            return lambda x, y: both(x, y)
        if isinstance(x, Lanes) and y == x.dtype:
            return lambda x, y: both(x, fill(y))
        if isinstance(y, Lanes) and x == y.dtype:
            return lambda x, y: both(fill(x), y)
        return None


for _function, _name in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
):  # fmt: skip
    _operator(_function, _name)


@inside
def _floor(context, x):
    def code(context, builder, signature, args):
        (vector,) = args
        number = "f32" if x.dtype == types.float32 else "f64"
        name = f"llvm.floor.v{x.count}{number}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector.type, [vector.type]), name)
        return builder.call(function, [vector])

    return x(x), code


@inside
def _power_of_2(context, n):
    """2ⁿ by its bits, for whole n."""
    bits, bias, below = (32, 127, 23) if n.dtype == types.float32 else (64, 1023, 52)

    def code(context, builder, signature, args):
        whole = ir.VectorType(ir.IntType(bits), n.count)
        biased = builder.add(builder.fptosi(args[0], whole), ir.Constant(whole, [bias] * n.count))
        return builder.bitcast(builder.shl(biased, ir.Constant(whole, [below] * n.count)), args[0].type)

    return n(n), code


def _exponential(number: Any, least: float, most: float, terms: int) -> Any:
    taylor = horner([1 / math.factorial(k) for k in range(terms)], number)
    least, most, half, per_ln2 = number(least), number(most), number(0.5), number(1 / math.log(2))
    high, low = number(0.693359375), number(-2.12194440054690583e-4)

    @exact
    def exponential(x):
        x = choose(x, fill(least), fill(least), x)
        x = choose(fill(most), x, fill(most), x)
        n = _floor(x * per_ln2 + half)
        r = (x - n * high) - n * low
        return taylor(r) * _power_of_2(n)

    return exponential


_exp32, _exp64 = _exponential(np.float32, -87, 88, 8), _exponential(np.float64, -708, 709, 14)


def exp(x: Any) -> Any:
    """eˣ in each lane; its maths is that of compile.py."""
    raise TypeError("lanes are values of a compiled kernel; outside of one there is numpy.exp")


@overload(exp)
def _(x):
    return (lambda x: _exp32(x)) if x.dtype == types.float32 else (lambda x: _exp64(x))


@inside
def total(context, x):
    """Of all lanes; in which order they are added is left to the processor."""

    def code(context, builder, signature, args):
        number = args[0].type.element
        add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(number, [number, args[0].type]),
            f"llvm.vector.reduce.fadd.v{x.count}f{x.dtype.bitwidth}",
        )  # fmt: skip
        return builder.call(add, [ir.Constant(number, -0.0), args[0]], fastmath=("reassoc",))

    return x.dtype(x), code


@inside
def dense(context, row):
    """The same row, known to lie without gaps: loops over it then vectorise."""
    return types.Array(row.dtype, row.ndim, "C")(row), lambda _, __, ___, args: args[0]
