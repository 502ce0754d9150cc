"""A user's own operation, such as `(x**2 + 3*y) % p`: read as a syntax tree, checked, and worked out by table.

Meaning   Whole numbers, with Python's own rules for + - * // % ** and the comparisons (-7 // 2 = -4, -7 % 5 = 3,
          0**0 = 1, x < y is 0 or 1). The answer is what is left of the result after division by p, so it lies in
          0..p-1 whether or not `% p` is written, also when the result is negative.

Domain    A pair at which Python would divide by zero, or raise to a negative power, has no answer (-1 in the table).
          Only the branch of `a if test else b` that is taken counts.

Safety    The text goes through `ast.parse` and nothing else: no eval, no exec, no compile. An allow-list over the tree
          admits the nodes of `_ALLOWED`. Length, nodes, depth, numbers and exponents are bounded, and so are the values
          in between: where only a remainder is read (at the root, or left of `% p` or `% 7`) every step works on
          remainders, elsewhere each step's bound is known before it is taken, and one beyond 2**62 is refused.

Every refusal says what was found, at which column (counted from 1), and what is allowed.
"""

import ast
import operator
import warnings
from typing import NamedTuple, NoReturn

import numpy as np

from onelayer.errors import BadInput

__all__ = ["Expression", "parse", "power_mod", "table"]

MAX_LENGTH = 200  # characters
MAX_DEPTH = 24  # nested parts
MAX_LITERAL = 10**9  # below 2**31, so that a product of two remainders fits in 62 bits
MAX_EXPONENT = 1024
MAX_VALUE = 2**62

_ALLOWED = (
    f"Allowed: the names x, y, p, whole numbers up to {MAX_LITERAL:,}, parentheses, + - * // % **, one comparison "
    "(== != < <= > >=), and `a if test else b`"
)
_NUMERIC = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.Pow)
_RING = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
_COMPARE = {ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
            ast.Gt: operator.gt, ast.GtE: operator.ge}  # fmt: skip
_FOUND = {
    ast.Call: "a call", ast.Attribute: "an attribute", ast.Subscript: "an index", ast.Lambda: "a lambda",
    ast.BoolOp: "`and` or `or`", ast.Tuple: "a tuple", ast.List: "a list", ast.NamedExpr: "an assignment",
    ast.JoinedStr: "a string",
}  # fmt: skip
_REFUSED = {  # operators that Python has and a table of whole numbers has not
    ast.Div: ("/", " (write // for the quotient; division mod p is the operation named x / y)"),
    ast.BitXor: ("^", " (a power is written **)"),
    ast.MatMult: ("@", ""), ast.LShift: ("<<", ""), ast.RShift: (">>", ""), ast.BitOr: ("|", ""), ast.BitAnd: ("&", ""),
}  # fmt: skip


class Expression(NamedTuple):
    text: str
    tree: ast.expr


class _Lanes(NamedTuple):
    """The pairs at which a part of the expression is wanted."""

    text: str
    p: int
    x: np.ndarray  # int64 [N]
    y: np.ndarray  # int64 [N]


class _Value(NamedTuple):
    value: np.ndarray  # int64 [N], 0 where there is no answer
    defined: np.ndarray  # bool [N]


# ---------------------------------------------------------------------------------------------------- reading


def parse(text: str) -> Expression:
    """The text as a checked syntax tree; BadInput says what is not allowed, and where."""
    if not isinstance(text, str):
        raise BadInput(f"an expression is a text such as '(x**2 + 3*y) % p'; received {text!r}")
    text = text.strip()
    if not text:
        raise BadInput(f"the expression is empty. {_ALLOWED}")
    if len(text) > MAX_LENGTH:
        raise BadInput(f"the expression has {len(text)} characters; at most {MAX_LENGTH} are allowed: {text[:40]!r}…")
    strange = next((i for i, c in enumerate(text) if not (c.isascii() and c.isprintable())), None)
    if strange is not None:
        raise BadInput(f"expression {text!r}: the character {text[strange]!r} at column {strange + 1}. {_ALLOWED}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser's own remarks, such as on `1if x else y`
            tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        column = error.offset or len(text) + 1  # 0: the text ends too soon
        raise BadInput(f"expression {text!r} cannot be read at column {column}: {error.msg}. {_ALLOWED}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise BadInput(f"expression {text!r} cannot be read: {error}. {_ALLOWED}") from None
    _check(text, tree, 1)
    return Expression(text, tree)


def _refuse(text: str, node: ast.expr, found: str, allowed: str = _ALLOWED, column: int | None = None) -> NoReturn:
    column = node.col_offset if column is None else column
    raise BadInput(f"expression {text!r}: {found} at column {column + 1}. {allowed}")


def _check(text: str, node: ast.expr, depth: int) -> None:
    if depth > MAX_DEPTH:
        _refuse(text, node, f"more than {MAX_DEPTH} nested parts", f"Allowed: a depth of {MAX_DEPTH}")
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            if number > MAX_LITERAL:
                _refuse(text, node, "too large a number", f"Allowed: whole numbers up to {MAX_LITERAL:,}")
            parts = []
        case ast.Constant(value=value):
            _refuse(text, node, f"the constant {value!r}")
        case ast.Name(id="x" | "y" | "p"):
            parts = []
        case ast.Name(id=name):
            _refuse(text, node, f"the name {name!r}")
        case ast.BinOp(left=left, op=op, right=right):
            if not isinstance(op, _NUMERIC):
                sign, mend = _REFUSED[type(op)]
                _refuse(text, node, f"`{sign}`{mend}", column=text.index(sign, left.end_col_offset))
            parts = [left, right]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            parts = [operand]
        case ast.UnaryOp(op=op):
            _refuse(text, node, f"the operator {type(op).__name__}")
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            if type(op) not in _COMPARE:
                _refuse(text, node, f"the comparison {type(op).__name__}")
            parts = [left, right]
        case ast.Compare():
            _refuse(text, node, "a chain of comparisons")
        case ast.IfExp(test=test, body=body, orelse=orelse):
            parts = [test, body, orelse]
        case _:
            _refuse(text, node, _FOUND.get(type(node), f"a {type(node).__name__}"))
    for part in parts:
        _check(text, part, depth + 1)


# ---------------------------------------------------------------------------------------------------- working out


def table(expression: Expression, p: int) -> np.ndarray:
    """Its answers [p, p]: row x, column y, each in 0..p-1, or -1 where there is none."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(p), np.arange(p), indexing="ij"))
    lanes = _Lanes(expression.text, p, x.astype(np.int64), y.astype(np.int64))
    value, defined = _remainder(expression.tree, lanes, p)
    return np.where(defined, value, -1).reshape(p, p)


def power_mod(base: np.ndarray, exponent: np.ndarray, m: int) -> np.ndarray:
    """base**exponent mod m by squaring, elementwise; base in 0..m-1 < 2**31, exponent >= 0, and 0**0 = 1 mod m."""
    base, exponent = np.broadcast_arrays(base, exponent)
    result = np.full(base.shape, 1 % m, dtype=np.int64)
    while np.any(exponent):
        result = np.where(exponent & 1, result * base % m, result)
        base, exponent = base * base % m, exponent >> 1
    return result


def _exact(node: ast.expr, at: _Lanes) -> _Value:
    """The value itself, at most MAX_VALUE in size."""
    match node:
        case ast.Constant(value=int(number)):
            return _everywhere(np.full(at.x.shape, number, dtype=np.int64))
        case ast.Name(id=name):
            return _everywhere({"x": at.x, "y": at.y}.get(name, np.full(at.x.shape, at.p, dtype=np.int64)))
        case ast.UnaryOp(op=op, operand=operand):
            value, defined = _exact(operand, at)
            return _Value(-value if isinstance(op, ast.USub) else value, defined)
        case ast.IfExp():
            return _choose(node, at, None)
        case ast.BinOp(left=left, op=ast.Mod(), right=right) if _modulus(right, at) > 0:
            return _remainder(left, at, _modulus(right, at))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            (a, has_a), (b, has_b) = _exact(left, at), _exact(right, at)
            return _answer(_COMPARE[type(op)](a, b).astype(np.int64), has_a & has_b)
        case ast.BinOp(left=left, op=op, right=right):
            (a, has_a), (b, has_b) = _exact(left, at), _exact(right, at)
            defined = has_a & has_b
            if isinstance(op, ast.FloorDiv | ast.Mod):
                defined &= b != 0
                divide = np.floor_divide if isinstance(op, ast.FloorDiv) else np.remainder
                return _answer(divide(a, np.where(defined, b, 1)), defined)
            if isinstance(op, ast.Pow):
                exponent, defined = _exponent(right, at, b, defined)
                if _largest(a) > 1 and int(exponent.max(initial=0)) * np.log2(_largest(a)) > 62:
                    _too_large(node, at)
                return _answer(a**exponent, defined)
            size = _largest(a) * _largest(b) if isinstance(op, ast.Mult) else _largest(a) + _largest(b)
            if size > MAX_VALUE:
                _too_large(node, at)
            return _answer(_RING[type(op)](a, b), defined)
    raise AssertionError(f"{type(node).__name__} passed the check but has no meaning")


def _remainder(node: ast.expr, at: _Lanes, m: int) -> _Value:
    """The value mod m, in 0..m-1: sums, products and powers are taken on remainders, so that nothing grows."""
    match node:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
            (a, has_a), (b, has_b) = _remainder(left, at, m), _remainder(right, at, m)
            return _answer(_RING[type(op)](a, b) % m, has_a & has_b)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            (a, has_a), (b, has_b) = _remainder(left, at, m), _exact(right, at)
            exponent, defined = _exponent(right, at, b, has_a & has_b)
            return _answer(power_mod(a, exponent, m), defined)
        case ast.UnaryOp(op=op, operand=operand):
            value, defined = _remainder(operand, at, m)
            return _answer(-value % m if isinstance(op, ast.USub) else value, defined)
        case ast.IfExp():
            return _choose(node, at, m)
    value, defined = _exact(node, at)
    return _answer(value % m, defined)


def _choose(node: ast.IfExp, at: _Lanes, m: int | None) -> _Value:
    """Each branch is worked out at the pairs that take it, and nowhere else, as Python would."""
    test, defined = _exact(node.test, at)
    value, has = np.zeros_like(at.x), np.zeros_like(defined)
    for branch, taken in ((node.body, defined & (test != 0)), (node.orelse, defined & (test == 0))):
        lanes = at._replace(x=at.x[taken], y=at.y[taken])
        value[taken], has[taken] = _exact(branch, lanes) if m is None else _remainder(branch, lanes, m)
    return _Value(value, has)


def _exponent(node: ast.expr, at: _Lanes, exponent: np.ndarray, defined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exponents, 0 where there is no answer: a negative power is no whole number."""
    if exponent.max(initial=0) > MAX_EXPONENT:
        _refuse(at.text, node, f"the exponent {exponent.max():,}", f"Allowed: exponents from 0 to {MAX_EXPONENT}")
    defined = defined & (exponent >= 0)
    return np.where(defined, exponent, 0), defined


def _too_large(node: ast.expr, at: _Lanes) -> NoReturn:
    _refuse(at.text, node, f"a value beyond 2**62 (p = {at.p})", "Allowed: smaller ones; take `% p` of the part first")


def _modulus(node: ast.expr, at: _Lanes) -> int:
    """The modulus that a right-hand side of % spells out (a number or p); 0 where it is not that simple."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id="p"):
            return at.p
    return 0


def _largest(a: np.ndarray) -> int:
    return int(np.abs(a).max(initial=0))


def _everywhere(value: np.ndarray) -> _Value:
    return _Value(value, np.ones(value.shape, dtype=bool))


def _answer(value: np.ndarray, defined: np.ndarray) -> _Value:
    return _Value(np.where(defined, value, 0), defined)
