"""The ground floor: what an array is, the letters of its axes, and the few things that the array standard lacks.

Axes      B batch   T target or query positions   S source or key positions   D model width   H heads   K head width
          F feed-forward width   V vocabulary     rows: any leading axes

Standard  Every layer asks `xp = array_namespace(x)` and then speaks the Python array API standard, so one file runs
          on NumPy, JAX, PyTorch, array-api-strict, and on complex NumPy arrays (derivatives by complex step).
          Below is what the standard has not: row gather, scatter-add, erf, and "the real part, real or complex".

Trees     Parameters, caches and optimizer states are NamedTuples of arrays, nested. A tree's flat name is its path
          joined by dots: `blocks.0.attn.W_Q`. `None` is an absent parameter and has no name.

Source    erf: W. J. Cody, Rational Chebyshev approximations for the error function, Math. Comp. 23 (1969).
          Philox: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, is_jax_array, is_numpy_array

__all__ = [
    "Array", "Tap", "aligned", "array_namespace", "at_scope", "constant", "erf", "flatten", "gather_rows", "generator",
    "is_jax_array", "keep", "map_tree", "natural", "real_part", "scaled_ids", "scatter_add_rows", "sigmoid", "sin_cos",
    "softplus", "sum_outer", "sum_to", "turn_pairs", "unflatten", "zeros_like_tree",
]  # fmt: skip

Array: TypeAlias = Any  # NumPy, JAX, PyTorch or array-api-strict; shapes stand in the jaxtyping annotations
Tap: TypeAlias = Callable[[str, Array], Array]


# ---------------------------------------------------------------------------------------------------- shims


def real_part(x: Array) -> Array:
    """The real part, for branching (ReLU, the max-shift of softmax) on real and complex arrays alike."""
    xp = array_namespace(x)
    return xp.real(x) if xp.isdtype(x.dtype, "complex floating") else x


def gather_rows(table: Array, ids: Array) -> Array:
    """table [N, *rest], ids [*rows] of integers in 0..N-1 -> table[ids] [*rows, *rest]."""
    xp = array_namespace(table)
    flat = xp.take(table, xp.reshape(ids, (-1,)), axis=0)
    return xp.reshape(flat, (*ids.shape, *table.shape[1:]))


def scatter_add_rows(rows: Array, ids: Array, n: int) -> Array:
    """The transpose of `gather_rows`: out[i] = sum of rows whose id is i; repeated ids are summed.

    rows [*rows, D...], ids [*rows] -> out [n, D...].
    """
    xp = array_namespace(rows)
    rest = rows.shape[ids.ndim :]
    flat, index = xp.reshape(rows, (-1, *rest)), xp.reshape(ids, (-1,))
    if is_jax_array(rows):
        return xp.zeros((n, *rest), dtype=rows.dtype).at[index].add(flat)
    if is_numpy_array(rows):
        return _scatter_add_numpy(flat, index, n)
    one_hot = xp.astype(index[None, :] == xp.arange(n, dtype=index.dtype)[:, None], rows.dtype)
    return xp.reshape(one_hot @ xp.reshape(flat, (flat.shape[0], math.prod(rest))), (n, *rest))


def _scatter_add_numpy(flat: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
    """Sort the rows by id, then add each run of equal ids at once: several times faster than `np.add.at`.

    Single numbers, and rows of a few, need no sorting: `np.bincount` adds them up in float64.
    """
    width = math.prod(flat.shape[1:])
    if 0 < width <= 8 and flat.dtype.kind == "f":
        places = index if width == 1 else (index[:, None] * width + np.arange(width)).ravel()
        return np.bincount(places, flat.ravel(), n * width).astype(flat.dtype).reshape(n, *flat.shape[1:])
    out = np.zeros((n, *flat.shape[1:]), dtype=flat.dtype)
    if np.all(index[1:] > index[:-1]):  # each comes once
        out[index] = flat
    else:
        index = index.astype(np.uint16) if n <= 2**16 else index  # which NumPy sorts by counting
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        out[ordered[starts]] = np.add.reduceat(flat[order], starts, axis=0)
    return out


_SMALL = (  # numerator and denominator of erf(x)/x in x², |x| ≤ 0.5
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_MIDDLE = (  # of exp(x²) erfc(x) in x, 0.46875 ≤ x ≤ 4
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
     8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_LARGE = (  # of the remainder of the asymptotic series in 1/x², x > 4
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip


def _ratio(x: Array, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Array:
    numerator, denominator = (x * 0 + c[0] for c in coefficients)
    for a, b in zip(coefficients[0][1:], coefficients[1][1:], strict=True):
        numerator, denominator = numerator * x + a, denominator * x + b
    return numerator / denominator


def erf(x: Array) -> Array:
    """The error function, to about 1e-16. Of a complex x = a + ib it keeps the first order in b (complex step)."""
    xp = array_namespace(x)
    a = real_part(x)
    size = xp.abs(a)
    small, middle, large = size, xp.clip(size, 0.46875, 4.0), xp.clip(size, 4.0, 30.0)
    near = xp.clip(small, 0.0, 0.5)
    inside = near * _ratio(near * near, _SMALL)
    tail_middle = xp.exp(-middle * middle) * _ratio(middle, _MIDDLE)
    inverse = 1 / (large * large)
    tail_large = xp.exp(-large * large) / large * (1 / math.sqrt(math.pi) - inverse * _ratio(inverse, _LARGE))
    tail = xp.where(size <= 4.0, tail_middle, tail_large)
    value = xp.sign(a) * xp.where(size <= 0.46875, inside, 1 - tail)
    if not xp.isdtype(x.dtype, "complex floating"):
        return value
    slope = 2 / math.sqrt(math.pi) * xp.exp(-a * a)
    return value + 1j * (slope * xp.imag(x))


def sigmoid(x: Array) -> Array:
    """1/(1 + e^−x), by way of tanh, which overflows on neither side."""
    return 0.5 + 0.5 * array_namespace(x).tanh(0.5 * x)


def softplus(x: Array) -> Array:
    """ln(1 + e^x), without overflow; its derivative is the sigmoid."""
    xp = array_namespace(x)
    positive = real_part(x) > 0
    return xp.where(positive, x, xp.zeros_like(x)) + xp.log1p(xp.exp(xp.where(positive, -x, x)))


def turn_pairs(x: Array, cos: Array, sin: Array, halves: bool = False) -> Array:
    """Each pair of the last axis as a point in a plane, turned: (a, b) ↦ (a cos − b sin, a sin + b cos).

    A pair is features 2i, 2i+1; with `halves` it is features i, n/2 + i. By −sin it turns back: the transpose.
    """
    xp = array_namespace(x)
    if halves:
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        return xp.concat([a * cos - b * sin, a * sin + b * cos], axis=-1)
    a, b = x[..., 0::2], x[..., 1::2]
    return xp.reshape(xp.stack([a * cos - b * sin, a * sin + b * cos], axis=-1), x.shape)


def _sin_cos(ids: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angles = ids[..., None] * factors
    return np.sin(angles), np.cos(angles)


@lru_cache(maxsize=16)
def _kept_sin_cos(ids: tuple[float, ...], factors: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Every step asks for the same places."""
    return _sin_cos(np.array(ids), np.array(factors))


def sum_outer(x: Array, dy: Array) -> Array:
    """Σ xᵀ ∂y over the rows: [N, I], [N, J] -> [I, J], the gradient of the W in x W.

    For JAX the wider factor stands on the right: on a CPU, XLA takes half as long again the other way round.
    """
    turned = is_jax_array(x) and x.shape[1] > dy.shape[1]
    return (dy.T @ x).T if turned else x.T @ dy


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """NumPy memory, not set to anything, from the beginning of a cache line on: kernels read whole lines."""
    line, kind = 64, np.dtype(dtype)
    room = np.empty(math.prod(shape) * kind.itemsize + line, np.uint8)
    return np.ndarray(shape, kind, room, -room.__array_interface__["data"][0] % line)


def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum x over the axes that broadcasting added or stretched, so that it has `shape`: broadcasting's transpose."""
    xp = array_namespace(x)
    if tuple(x.shape) == tuple(shape):
        return x
    added = x.ndim - len(shape)
    axes = tuple(range(added)) + tuple(added + i for i, n in enumerate(shape) if n == 1 and x.shape[added + i] != 1)
    return xp.reshape(xp.sum(x, axis=axes), shape)


# ---------------------------------------------------------------------------------------------------- taps


def keep(name: str, x: Array) -> Array:
    """The default tap: every named value passes as it is.

    A tap sees each named value (and, in a backward, each gradient) on its way and returns what goes on. One that
    returns x unchanged records; one that returns a multiple of x is a gate; any other is an intervention.
    """
    return x


def at_scope(tap: Tap, scope: str) -> Tap:
    """The tap that a part sees: its names are prefixed with where it stands."""
    if tap is keep:
        return keep
    return lambda name, x: tap(f"{scope}.{name}", x)


# ---------------------------------------------------------------------------------------------------- trees


def _children(tree: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(tree, "_fields"):
        yield from zip(tree._fields, tree, strict=True)
    elif isinstance(tree, dict):
        yield from tree.items()
    else:
        yield from ((str(i), child) for i, child in enumerate(tree))


_NODES = (tuple, list, dict)


def _is_node(tree: Any) -> bool:
    return isinstance(tree, _NODES)


def flatten(tree: Any, prefix: str = "") -> dict[str, Array]:
    """A tree as {flat name: array}, in the order of its fields; `None` leaves are absent."""
    flat: dict[str, Array] = {}
    _collect(tree, prefix, flat)
    return flat


def _collect(tree: Any, prefix: str, into: dict[str, Array]) -> None:
    if not _is_node(tree):
        if tree is not None:
            into[prefix] = tree
        return
    for name, child in _children(tree):
        _collect(child, f"{prefix}.{name}" if prefix else name, into)


def unflatten(flat: dict[str, Array], like: Any, prefix: str = "") -> Any:
    """The tree of the shape of `like` whose leaves are `flat`'s. KeyError names a tensor that is missing."""
    if like is None:
        return None
    if not _is_node(like):
        return flat[prefix]
    new = [unflatten(flat, child, f"{prefix}.{name}" if prefix else name) for name, child in _children(like)]
    if hasattr(like, "_fields"):
        return type(like)(*new)
    if isinstance(like, dict):
        return dict(zip(like, new, strict=True))
    return type(like)(new)


def map_tree(f: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """f on each array of a tree (and of others of the same shape); `None` stays `None`."""
    if tree is None:
        return None
    if not _is_node(tree):
        return f(tree, *others)
    if isinstance(tree, dict):  # by key: the order of the others' keys is their own
        return {key: map_tree(f, child, *(other[key] for other in others)) for key, child in tree.items()}
    new = [map_tree(f, *branches) for branches in zip(tree, *others, strict=True)]
    if hasattr(tree, "_fields"):
        return type(tree)(*new)
    return type(tree)(new)


def zeros_like_tree(tree: Any) -> Any:
    return map_tree(lambda x: array_namespace(x).zeros_like(x), tree)


# ---------------------------------------------------------------------------------------------------- seeds


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """NumPy's counter-based Philox generator, keyed by the seed and what it is for: `generator(0, "batch", step)`.

    No state is carried from call to call, so a resumed run draws what the uninterrupted one would have drawn.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def natural(n: int) -> np.ndarray:
    """0, 1, … n−1 as int64: positions, and token ids."""
    return np.arange(n, dtype=np.int64)


def constant(values: Any, like: Array) -> Array:
    """NumPy values as an array of `like`'s library, device and real precision (complex `like`: its real part's)."""
    xp = array_namespace(like)
    return xp.asarray(values, dtype=real_part(like).dtype)


def scaled_ids(ids: Array, factors: np.ndarray, like: Array) -> Array:
    """ids [*rows] times factors [n] -> [*rows, n] in `like`'s precision.

    Known positions (NumPy) are multiplied in float64 before they are rounded: an angle of 4,000 keeps its digits.
    """
    if isinstance(ids, np.ndarray):
        return constant(ids[..., None] * factors, like)
    xp = array_namespace(like)
    return xp.astype(ids, real_part(like).dtype)[..., None] * constant(factors, like)


def sin_cos(ids: Array, factors: np.ndarray, like: Array) -> tuple[Array, Array]:
    """The sine and the cosine of ids [*rows] times factors [n], each [*rows, n], in `like`'s precision.

    Of known positions (NumPy) they are taken in float64: an angle of 50 in float32 is off by 2e-6 before its sine is.
    """
    if isinstance(ids, np.ndarray):
        if ids.ndim == 1 and ids.size <= 4096:
            waves = _kept_sin_cos(tuple(ids.tolist()), tuple(factors.tolist()))
        else:
            waves = _sin_cos(ids, factors)
        return constant(waves[0].copy(), like), constant(waves[1].copy(), like)
    xp, angles = array_namespace(like), scaled_ids(ids, factors, like)
    return xp.sin(angles), xp.cos(angles)
