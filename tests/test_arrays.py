"""The shims of the ground floor on every backend: against a plain loop, against `math`, and their own transposes."""

import math
from functools import partial
from typing import NamedTuple

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close_trees, complex_step, pairing, random_array, random_ids

from onelayer.arrays import (
    at_scope,
    erf,
    flatten,
    gather_rows,
    generator,
    keep,
    map_tree,
    natural,
    real_part,
    scatter_add_rows,
    sum_to,
    unflatten,
    zeros_like_tree,
)
from onelayer.layers import linear

N = 6  # rows of a table


class Leafy(NamedTuple):
    w: np.ndarray
    b: np.ndarray | None


class Nested(NamedTuple):
    first: Leafy
    blocks: tuple[Leafy, ...]


def nested() -> Nested:
    leaf = Leafy(random_array(2, 3), random_array(3))
    return Nested(leaf, (leaf, Leafy(random_array(4, 1), None)))


# ---------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("shape", [(5,), (2, 5), (3, 1, 2), (0,)])
@pytest.mark.parametrize("rest", [(), (3,), (3, 2)])
def test_gather_rows(xp, shape, rest):
    table, ids = random_array(N, *rest), random_ids(N, *shape)
    got = xp(gather_rows, table, ids)
    assert got.shape == (*shape, *rest)
    assert np.array_equal(got, table[ids])


@pytest.mark.parametrize("shape", [(9,), (3, 4), (2, 1, 7), (0,)])
@pytest.mark.parametrize("rest", [(), (3,), (3, 2)])
def test_scatter_add_rows_sums_repeated_ids(xp, shape, rest):
    ids, rows = random_ids(N - 1, *shape), random_array(*shape, *rest)  # id N − 1 never occurs, some occur often
    want = np.zeros((N, *rest))
    for index in np.ndindex(shape):
        want[ids[index]] += rows[index]
    assert ids.size == 0 or len(set(ids.ravel())) < ids.size
    got = xp(partial(scatter_add_rows, n=N), rows, ids)
    assert got.dtype == rows.dtype
    assert_close_trees(got, want, 1e-15)


def test_scatter_is_the_transpose_of_gather(xp):
    table, ids, rows = random_array(N, 3), random_ids(N, 4, 5), random_array(4, 5, 3)
    gathered, scattered = xp(gather_rows, table, ids), xp(partial(scatter_add_rows, n=N), rows, ids)
    assert pairing(gathered, rows) == pytest.approx(pairing(table, scattered), rel=1e-13)


def test_scatter_add_rows_keeps_complex_rows():
    rows, ids = random_array(4, 3) + 1j * random_array(4, 3, seed=1), np.array([2, 0, 2, 2])
    got = scatter_add_rows(rows, ids, N)
    assert_close_trees(got[2], rows[0] + rows[2] + rows[3], 1e-15)


# ---------------------------------------------------------------------------------------------------- erf

POINTS = np.concatenate([np.linspace(-7, 7, 1401), [0.46875, -0.46875, 4.0, -4.0, 1e-300, 1e-8, 26.0, 40.0, -40.0]])


def test_erf_is_that_of_math(xp):
    want = np.array([math.erf(x) for x in POINTS])
    got = xp(erf, POINTS)
    assert np.max(np.abs(got - want)) <= 1e-15
    small = np.abs(POINTS) < 0.4
    some = small & (want != 0)
    assert np.max(np.abs(got[some] / want[some] - 1)) <= 1e-15  # relative, where erf is small


def test_erf_keeps_float32(xp):
    got = xp(erf, POINTS.astype(np.float32))
    assert got.dtype == np.float32
    assert np.max(np.abs(got - [math.erf(np.float32(x)) for x in POINTS])) <= 3e-7


def test_erf_by_complex_step():
    x = np.linspace(-3, 3, 41)
    assert_close_trees(complex_step(lambda x: erf(x).sum(), x), 2 / math.sqrt(math.pi) * np.exp(-x * x), 1e-14)


# ---------------------------------------------------------------------------------------------------- real part, sum_to


def test_real_part(xp):
    x = random_array(2, 3)
    assert np.array_equal(xp(real_part, x), x)
    assert np.array_equal(xp(real_part, x + 1j), x)


@given(st.data())
def test_sum_to_is_the_transpose_of_broadcasting(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=3)))
    added = tuple(data.draw(st.lists(st.integers(1, 3), max_size=2)))
    stretched = added + tuple(data.draw(st.integers(2, 4)) if n == 1 else n for n in shape)
    small, large = random_array(*shape), random_array(*stretched)
    got = sum_to(large, shape)
    assert got.shape == shape
    assert pairing(np.broadcast_to(small, stretched), large) == pytest.approx(pairing(small, got), rel=1e-9, abs=1e-12)


def test_sum_to_on_every_backend(xp):
    x = random_array(2, 3, 4)
    assert_close_trees(xp(partial(sum_to, shape=(3, 1)), x), x.sum(axis=(0, 2))[:, None], 1e-14)
    assert np.array_equal(xp(partial(sum_to, shape=(2, 3, 4)), x), x)
    assert xp(partial(sum_to, shape=()), x).shape == ()


# ---------------------------------------------------------------------------------------------------- trees, taps


def test_flatten_names_are_paths_and_none_is_absent():
    assert list(flatten(nested())) == ["first.w", "first.b", "blocks.0.w", "blocks.0.b", "blocks.1.w"]
    assert flatten(None) == {}
    assert list(flatten({"a": [np.ones(1), np.ones(2)]})) == ["a.0", "a.1"]


def test_unflatten_undoes_flatten():
    tree = nested()
    back = unflatten(flatten(tree), tree)
    assert type(back) is Nested
    assert type(back.blocks[1]) is Leafy
    assert back.blocks[1].b is None
    assert flatten(back).keys() == flatten(tree).keys()
    assert all(flatten(back)[name] is x for name, x in flatten(tree).items())


def test_unflatten_names_the_missing_tensor():
    flat = flatten(nested())
    del flat["blocks.0.b"]
    with pytest.raises(KeyError, match=r"blocks\.0\.b"):
        unflatten(flat, nested())


def test_map_tree_keeps_types_and_none():
    tree = {"x": nested(), "y": [np.ones(2), None]}
    got = map_tree(lambda a, b: a + 2 * b, tree, tree)
    assert type(got["x"]) is Nested
    assert got["x"].blocks[1].b is None
    assert got["y"][1] is None
    assert_close_trees(got, {"x": map_tree(lambda a: 3 * a, nested()), "y": [np.full(2, 3.0), None]}, 1e-15)


def test_map_tree_refuses_another_shape():
    with pytest.raises(ValueError, match="zip"):
        map_tree(lambda a, b: a, [np.ones(1)], [np.ones(1), np.ones(1)])


def test_zeros_like_tree(xp):
    got = xp(zeros_like_tree, nested())
    assert_close_trees(got, map_tree(np.zeros_like, nested()), 0)


def test_at_scope_prefixes_names_and_lets_keep_pass():
    seen = []

    def tap(name, x):
        seen.append(name)
        return 2 * x

    assert at_scope(tap, "blocks.0")("hook_mid", 3) == 6
    assert seen == ["blocks.0.hook_mid"]
    assert at_scope(keep, "blocks.0") is keep


# ---------------------------------------------------------------------------------------------------- seeds


def test_generator_repeats_itself_and_differs_by_seed_and_purpose():
    def draw(*key):
        return tuple(generator(*key).random(4))

    assert draw(0, "batch", 3) == draw(0, "batch", 3)
    keys = [(0,), (1,), (0, "batch", 3), (0, "batch", 4), (0, "init"), (1, "batch", 3), (0, "batch", 34), (0, "batch")]
    assert len({draw(*key) for key in keys}) == len(keys)


def test_generator_is_philox_with_these_bits():
    assert type(generator(0, "init").bit_generator) is np.random.Philox
    first = [int(x) for x in generator(0, "init").integers(0, 2**32, 3)]
    assert first == [2363382054, 3614506861, 185593709]  # another value would change every published run


def test_natural():
    assert natural(4).tolist() == [0, 1, 2, 3]
    assert natural(4).dtype == np.int64


# ---------------------------------------------------------------------------------------------------- the suite's net


def test_annotations_are_enforced_under_test():
    with pytest.raises(jaxtyping.TypeCheckError):
        linear.forward(linear.Params(np.ones((3, 4)), None), "four")  # pyright: ignore[reportArgumentType]
    with pytest.raises(jaxtyping.TypeCheckError):
        linear.backward(np.ones(4, dtype=int), linear.forward(linear.Params(np.ones((3, 4)), None), np.ones((2, 3)))[1])


def test_dicts_are_met_by_key_not_by_order():
    got = map_tree(lambda a, b: a - b, {"x": 1.0, "y": 10.0}, {"y": 10.0, "x": 1.0})
    assert got == {"x": 0.0, "y": 0.0}
