"""What a gradient is held against: the complex-step derivative, one error per tensor, and trees of awkward shape.

Complex step   for an analytic f, ∂f/∂x = Im f(x + ih)/h up to h²; at h = 1e-30 that is exact in float64, for no
               difference is taken. Squire & Trapp 1998, Using complex variables to estimate derivatives, SIAM Rev. 40.
Error          max|a − b| / max|b| of each tensor on its own. A bound never grows with size, and a tensor that is zero
               has to be met exactly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from backends import to_backend, to_numpy

from onelayer.arrays import flatten, generator, unflatten

__all__ = [
    "DIMS", "Dims", "assert_close_trees", "complex_step", "pairing", "random_array", "random_ids", "random_like",
    "relative_errors", "to_backend", "to_numpy",
]  # fmt: skip


class Dims(NamedTuple):
    """Every dimension is different, so that a transposed axis cannot pass; H K = D, and K is even for rotations."""

    B: int = 3
    T: int = 4
    S: int = 5
    D: int = 12
    H: int = 2
    K: int = 6
    F: int = 10
    V: int = 7


DIMS = Dims()


def random_array(*shape: int, seed: int = 0, purpose: str = "") -> np.ndarray:
    """Float64 from −1.5 to 1.5, never nearer to zero than 0.1, so that no entry hides and no kink is near."""
    rng = generator(seed, "test", purpose, *shape)
    return rng.choice((-1.0, 1.0), shape) * rng.uniform(0.1, 1.5, shape)


def random_ids(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    """int64 in 0..n−1, repeats included."""
    return generator(seed, "test ids", *shape).integers(0, n, shape)


def random_like(tree: Any, seed: int = 0) -> Any:
    """A tree of the same shapes with fresh random values: parameters away from initialisation, or a dy for outputs."""
    return unflatten({name: random_array(*x.shape, seed=seed, purpose=name) for name, x in flatten(tree).items()}, tree)


def pairing(a: Any, b: Any) -> Any:
    """⟨a, b⟩: the sum of all products of two trees' entries, complex where one of them is. The loss whose dy is b."""
    others = flatten(b)
    return sum((x * others[name]).sum() for name, x in flatten(a).items())


def complex_step(f: Callable[[Any], Any], tree: Any, h: float = 1e-30) -> Any:
    """The gradient of the scalar f at a tree of real NumPy arrays, entry by entry: as many calls as there are entries.

    f is handed a tree in which one tensor is complex. Whatever is an integer, f closes over.
    """
    flat = flatten(tree)

    def slope(name: str) -> np.ndarray:
        x, out = flat[name], np.zeros(flat[name].shape)
        for index in np.ndindex(x.shape):
            moved = x.astype(np.complex128)
            moved[index] += 1j * h
            out[index] = np.imag(f(unflatten(flat | {name: moved}, tree))) / h
        return out

    return unflatten({name: slope(name) for name in flat}, tree)


def relative_errors(got: Any, want: Any) -> dict[str, float]:
    """max|got − want| / max|want| per tensor: 0 where equal, inf where only `want` is zero or one is NaN."""
    ours, theirs = flatten(to_numpy(got)), flatten(to_numpy(want))
    assert ours.keys() == theirs.keys(), f"tensors differ: {sorted(ours.keys() ^ theirs.keys())}"
    return {name: _relative_error(ours[name], theirs[name], name) for name in theirs}


def _relative_error(got: np.ndarray, want: np.ndarray, name: str) -> float:
    assert got.shape == want.shape, f"{name or 'array'}: shape {got.shape}, expected {want.shape}"
    if got.size == 0 or np.array_equal(got, want):
        return 0.0
    worst, scale = np.max(np.abs(got - want)), np.max(np.abs(want))
    return float(worst / scale) if np.isfinite(worst) and scale > 0 else np.inf


def assert_close_trees(got: Any, want: Any, bound: float = 1e-12) -> None:
    """Every tensor's relative error is within the bound; otherwise the worst tensor, its worst index, both values."""
    errors = relative_errors(got, want)
    name = max(errors, key=errors.__getitem__)
    if errors[name] > bound:
        ours, theirs = flatten(to_numpy(got))[name], flatten(to_numpy(want))[name]
        gap = np.where(np.isfinite(ours - theirs), np.abs(ours - theirs), np.inf)
        index = tuple(int(i) for i in np.unravel_index(np.argmax(gap), gap.shape))
        a, b = ours[index], theirs[index]
        raise AssertionError(
            f"{name or 'array'}{list(index)}: got {a}, expected {b}, ratio {a / b if b else np.inf:.6g}; "
            f"relative error {errors[name]:.3g} > {bound:.3g} "
            f"({sum(e > bound for e in errors.values())} of {len(errors)} tensors)"
        )
