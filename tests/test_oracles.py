"""The checker is checked: complex step is exact, and a gradient that is wrong in a known way fails with words."""

from typing import NamedTuple

import numpy as np
import pytest
from oracles import (
    DIMS,
    assert_close_trees,
    complex_step,
    pairing,
    random_array,
    random_ids,
    random_like,
    relative_errors,
)


class Pair(NamedTuple):
    a: np.ndarray
    b: np.ndarray | None


def mean(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=-1, keepdims=True)


def layer_norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    centred = x - mean(x)
    return gain * centred / np.sqrt(mean(centred * centred) + 1e-5)


def layer_norm_backward(dy: np.ndarray, x: np.ndarray, gain: np.ndarray, fault: str = "") -> np.ndarray:
    centred = x - mean(x)
    r = 1 / np.sqrt(mean(centred * centred) + 1e-5)
    x_hat, dx_hat = r * centred, gain * dy
    if fault == "gain outside the means":
        return r * gain * (dy - mean(dy) - x_hat * mean(x_hat * dy))
    if fault == "dropped mean":
        return r * (dx_hat - x_hat * mean(x_hat * dx_hat))
    if fault == "epsilon forgotten":
        return r * (dx_hat - mean(dx_hat) - x_hat * mean(x_hat * dx_hat) / mean(x_hat * x_hat))
    return r * (dx_hat - mean(dx_hat) - x_hat * mean(x_hat * dx_hat))


X, GAIN, DY = (random_array(*s, purpose=p) for s, p in [((3, 12), "x"), ((12,), "gain"), ((3, 12), "dy")])


def slope() -> np.ndarray:
    return complex_step(lambda x: pairing(layer_norm(x, GAIN), DY), X)


def test_dimensions_are_all_different():
    assert len(set(DIMS)) == len(DIMS)
    assert DIMS.H * DIMS.K == DIMS.D


def test_complex_step_is_exact():
    x = random_array(3, 4)
    assert_close_trees(complex_step(lambda x: (x * x * x).sum(), x), 3 * x * x, 1e-15)
    assert_close_trees(complex_step(lambda x: np.exp(x).sum(), x), np.exp(x), 1e-15)


def test_complex_step_walks_trees_and_skips_none():
    point = Pair(random_array(2, 3, purpose="a"), None)
    slope = complex_step(lambda p: (p.a * p.a).sum(), point)
    assert isinstance(slope, Pair)
    assert slope.b is None
    assert_close_trees(slope, Pair(2 * point.a, None), 1e-15)


def test_right_gradient_passes():
    assert_close_trees(layer_norm_backward(DY, X, GAIN), slope(), 1e-12)


@pytest.mark.parametrize("fault", ["gain outside the means", "dropped mean", "epsilon forgotten"])
def test_faulty_layer_norm_fails(fault: str):
    with pytest.raises(AssertionError, match="relative error"):
        assert_close_trees(layer_norm_backward(DY, X, GAIN, fault), slope(), 1e-12)


def test_wrong_factor_fails():
    x = random_array(4)
    with pytest.raises(AssertionError, match=r"ratio 1\.0005"):
        assert_close_trees(2.001 * x, complex_step(lambda x: (x * x).sum(), x), 1e-12)


def test_an_error_in_one_small_tensor_is_not_hidden_by_a_large_one():
    want = Pair(np.full(3, 1e6), np.full(2, 1e-6))
    got = Pair(want.a, np.array([1e-6, 1.1e-6]))
    assert relative_errors(got, want) == pytest.approx({"a": 0.0, "b": 0.1})
    with pytest.raises(AssertionError, match=r"b\[1\]: got 1\.1e-06, expected 1e-06, ratio 1\.1; .*1 of 2 tensors"):
        assert_close_trees(got, want, 1e-12)


@pytest.mark.parametrize("got", [np.array([np.nan, 1.0]), np.array([np.inf, 1.0])])
def test_what_is_not_finite_fails(got: np.ndarray):
    with pytest.raises(AssertionError, match=r"\[0\]"):
        assert_close_trees(got, np.ones(2), 1e30)


def test_a_gradient_of_zero_must_be_met_exactly():
    assert relative_errors(np.zeros(2), np.zeros(2)) == {"": 0.0}
    with pytest.raises(AssertionError):
        assert_close_trees(np.array([0.0, 1e-300]), np.zeros(2), 1e30)


def test_a_shape_or_a_name_that_differs_fails():
    with pytest.raises(AssertionError, match="shape"):
        assert_close_trees(np.ones((1, 2)), np.ones(2))
    with pytest.raises(AssertionError, match="tensors differ"):
        assert_close_trees(Pair(np.ones(2), None), Pair(np.ones(2), np.ones(2)))


def test_random_values_are_reproducible_and_away_from_zero():
    tree = Pair(np.zeros((3, 4)), np.zeros((3, 4)))
    first, again, other = random_like(tree), random_like(tree), random_like(tree, seed=1)
    assert np.array_equal(first.a, again.a)
    assert not np.array_equal(first.a, other.a)
    assert not np.array_equal(first.a, first.b)
    assert np.min(np.abs(first.a)) >= 0.1
    assert len(set(random_ids(5, 3, 4).ravel())) < 12
