"""Guards every hand-derived gradient: each is held against the complex step, and the checker must fail when it should.

The cases are those of `onelayer gradcheck`, one test each, so that a failure names the layer.
"""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from onelayer.layers import activations, layer_norm, linear
from onelayer.microscope import complex_step, gradcheck
from onelayer.microscope.gradcheck import Case

NAMES = [case.name for case in gradcheck.cases()]


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {case.name: case for case in gradcheck.cases()}


def test_every_case_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if "coder" not in name])
def test_the_backward_is_the_derivative_of_the_forward(name: str, cases: dict[str, Case]) -> None:
    row = gradcheck.check(cases[name])
    assert row.error <= 1e-12, row


def test_the_models_backwards_are_the_derivatives_of_their_forwards() -> None:
    """Both models in every norm placement, through the command, where no shape check slows each of 20,000 forwards."""
    command = [sys.executable, "-m", "onelayer", "gradcheck", "--only", "coder", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["cases"] == len([name for name in NAMES if "coder" in name]) == 20
    assert facts["worst"]["error"] <= 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_a_second_backward_on_the_same_cache_gives_the_same_bits(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    y, cache = case.forward(case.x)
    dy = gradcheck.random_like(y, 1, name)
    first, second = (gradcheck.flatten(case.backward(dy, cache)) for _ in range(2))
    assert all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_the_backward_is_linear_in_dy(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    y, cache = case.forward(case.x)
    a, b = (gradcheck.random_like(y, seed, name) for seed in (1, 2))
    both = gradcheck.map_tree(lambda u, v: 2 * u - 3 * v, a, b)
    whole, of_a, of_b = (gradcheck.flatten(case.backward(dy, cache)) for dy in (both, a, b))
    largest = max(np.max(np.abs(g)) for g in whole.values())
    for key in whole:
        np.testing.assert_allclose(whole[key], 2 * of_a[key] - 3 * of_b[key], rtol=0, atol=1e-13 * largest)


# ---------------------------------------------------------------------------- the checker must fail when it should


def wrong(case: Case, backward: Any) -> float:
    return gradcheck.check(case._replace(backward=backward)).error


def test_a_wrong_factor_fails(cases: dict[str, Case]) -> None:
    case = cases["activation quadratic"]
    assert gradcheck.check(case).passed
    assert wrong(case, lambda dy, c: 2.001 / 2 * activations.backward(dy, c)) == pytest.approx(5e-4, rel=1e-6)


def test_a_gain_pulled_outside_the_means_fails(cases: dict[str, Case]) -> None:
    def backward(dy: Any, c: Any) -> Any:
        _, dp = layer_norm.backward(dy, c)
        bare, _ = layer_norm.backward(dy, c._replace(gain=np.ones_like(c.gain)))
        return gradcheck.Pair(dp, c.gain * bare)

    assert wrong(cases["layer norm"], backward) > 0.1


@pytest.mark.parametrize("dropped", ["mean", "projection"])
def test_a_dropped_mean_fails(dropped: str, cases: dict[str, Case]) -> None:
    def backward(dy: Any, c: Any) -> Any:
        dx, dp = layer_norm.backward(dy, c)
        dx_hat = c.gain * dy
        if dropped == "mean":
            return gradcheck.Pair(dp, dx + c.rstd * dx_hat.mean(-1, keepdims=True))
        return gradcheck.Pair(dp, dx + c.rstd * c.x_hat * (c.x_hat * dx_hat).mean(-1, keepdims=True))

    assert wrong(cases["layer norm"], backward) > 0.01


def test_a_forgotten_epsilon_fails(cases: dict[str, Case]) -> None:
    def backward(dy: Any, c: Any) -> Any:
        bare = c.x_hat / c.x_hat.std(-1, keepdims=True)  # as if ε were 0
        dx, dp = layer_norm.backward(dy, c._replace(x_hat=bare))
        return gradcheck.Pair(dp, dx)

    assert wrong(cases["layer norm, large ε"], backward) > 1e-3


def test_a_transposed_weight_of_the_right_shape_fails() -> None:
    p = gradcheck.random_like(linear.Params(np.empty((4, 4)), np.empty(4)), 0, "square")
    x = gradcheck.random_like(np.empty((2, 3, 4)), 0, "square input")

    def backward(dy: Any, c: Any) -> Any:
        dx, dp = linear.backward(dy, c._replace(weight=c.weight.T))
        return gradcheck.Pair(dp, dx)

    case = Case("square", gradcheck.Pair(p, x), lambda both: linear.forward(both.p, both.x), backward)
    assert gradcheck.check(case).error > 0.1


def test_a_gradient_that_is_missing_or_not_finite_fails(cases: dict[str, Case]) -> None:
    case = cases["linear"]

    def missing(dy: Any, c: Any) -> Any:
        dx, dp = linear.backward(dy, c)
        return gradcheck.Pair(dp._replace(bias=None), dx)

    def not_finite(dy: Any, c: Any) -> Any:
        dx, dp = linear.backward(dy, c)
        return gradcheck.Pair(dp, np.nan * dx)

    with pytest.raises(AssertionError, match="differ in"):
        wrong(case, missing)
    assert wrong(case, not_finite) == np.inf


def test_the_complex_step_itself() -> None:
    x = np.array([0.3, -1.2, 2.0])
    got = complex_step.gradient(lambda x: np.sum(np.exp(x) * np.sin(x)), x)
    np.testing.assert_allclose(got, np.exp(x) * (np.sin(x) + np.cos(x)), rtol=1e-15)
    along = complex_step.directional(lambda x: x**3, x, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(along, 3 * x**2 * [1.0, 2.0, 3.0], rtol=1e-15)
