"""Guards training/engines/host.py and examples.py: NumPy inside a compiled JAX program, and the engine that uses it."""

from typing import Any

import jax
import numpy as np
import pytest
from backends import needs
from oracles import assert_close_trees

from onelayer.training import engines, recipes
from onelayer.training.engines import Diverged, examples, host, shares
from onelayer.training.objective import loss_and_grads

TAKEN: dict[str, Any] = {
    "dtype": "float64",
    "task": {"p": 31},
    "model": {"d_model": 40, "n_heads": 2, "d_mlp": 60},
}


def shape(*sizes: int, dtype: str = "float32") -> Any:
    return jax.ShapeDtypeStruct(sizes, dtype)


# ------------------------------------------------------------------------------------------ a function of arrays


def test_a_function_is_called_with_what_the_program_has():
    seen: list[Any] = []

    def both(table: np.ndarray, ids: np.ndarray, which: np.ndarray, nothing: np.ndarray) -> list[np.ndarray]:
        seen.append((table.dtype, ids.dtype, which.dtype, nothing.shape))
        return [table[ids] * which[:, None], table.sum()]

    call = host.function("test both", both)

    @jax.jit
    def program(table: Any, ids: Any) -> Any:
        rows, total = call([shape(2, 3), shape()], table * 2, ids, ids > 0, table[:0])
        return rows + 1, total

    table, ids = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 0], np.int32)
    rows, total = program(table, ids)
    np.testing.assert_array_equal(rows, 2 * table[ids] * [[1], [0]] + 1)
    assert total == 2 * table.sum()
    assert seen == [(np.float32, np.int32, bool, (0, 3))]


def test_in_a_loop():
    call = host.function("test next", lambda x: [x + 1])
    steps = jax.jit(lambda x: jax.lax.scan(lambda x, _: (call([shape(4)], x)[0], x[0]), x, None, length=7))
    last, seen = steps(np.zeros(4, np.float32))
    np.testing.assert_array_equal(last, np.full(4, 7))
    np.testing.assert_array_equal(seen, np.arange(7))


def raising(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda x: raising(ValueError("no such number")), "ValueError: no such number"),
        (lambda x: raising(OSError("\ud800")), "OSError"),  # what cannot be encoded
        (lambda x: [np.zeros(5)], "was to give shape"),
        (lambda x: [np.zeros(1)], "was to give shape"),
        (lambda x: [np.zeros(3, complex)], "Cannot cast"),
        (lambda x: [], "zip"),
    ],
)
def test_a_mistake_ends_the_program_and_is_told(wrong, said):
    call = host.function("test mistake", wrong)
    with pytest.raises(Exception, match=said):
        jax.block_until_ready(jax.jit(lambda x: call([shape(3)], x))(np.zeros(3, np.float32)))


def test_of_several_of_one_name_the_last_is_called():
    for n in (1, 2):
        call = host.function("test same", lambda x, n=n: [x + n])
        assert jax.jit(lambda x, call=call: call([shape()], x)[0])(np.float32(0)) == n


def test_another_interface_is_done_without(monkeypatch):
    assert host.works()
    monkeypatch.setattr(host, "KINDS", {})
    assert not host.works.__wrapped__()


# ------------------------------------------------------------------------------------------ the engine


@pytest.fixture
def handed(monkeypatch) -> list[int]:
    """How many steps the kernels were handed."""
    steps, of_examples = [], examples.of_examples

    def counted(*given: Any) -> Any:
        steps.append(1)
        return of_examples(*given)

    monkeypatch.setattr(examples, "of_examples", counted)
    monkeypatch.setattr(examples, "WORTHWHILE", 0)
    return steps


def run(name: str, config: Any, n: int) -> tuple[Any, Any]:
    engine = engines.get(name)(config, config.task.make(config.seed))
    state, figures = engine.run(engine.start(), 0, n)
    return engine.to_host(state).params, figures


@needs("numba")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": {"label_smoothing": 0.1, "temperature": 2.0}},
        {"model": TAKEN["model"] | {"activation": "gelu", "unembed_bias": True}},
    ],
)
def test_the_engines_agree_and_the_kernels_were_handed_each_step(changes, handed, monkeypatch):
    config = recipes.configure("default", TAKEN, changes)
    params, figures = run("jax", config, 50)
    assert len(handed) == 50
    ours, theirs = run("numpy", config, 50)
    assert_close_trees(params, ours, 1e-10)
    np.testing.assert_allclose(figures["loss"], theirs["loss"], rtol=1e-10)
    np.testing.assert_allclose(figures["grad_norm"], theirs["grad_norm"], rtol=1e-9)

    monkeypatch.setattr(examples, "taken", lambda *_: False)
    plain, _ = run("jax", config, 50)
    assert len(handed) == 50
    assert_close_trees(params, plain, 1e-10)


@needs("numba")
@pytest.mark.parametrize("position", ["learned", "rope"])
def test_in_shares_and_with_weights(position, handed, monkeypatch):
    """A thread for each half, and one half that does not count."""
    monkeypatch.setattr(shares, "WORTHWHILE", 1)
    monkeypatch.setattr(shares.threads, "count", lambda: 2)
    config = recipes.configure("default", TAKEN, {"model": TAKEN["model"] | {"position": position, "tied": "unembed"}})
    engine = engines.get("numpy")(config, config.task.make(0))
    goal, params, batch = engine.objective, engine.start().params, engine.batches.at(0)
    assert len(shares.shares(batch, goal)) == 2
    batch = batch._replace(weights=1.0 * (np.arange(len(batch.tokens)) < len(batch.tokens) // 2)[:, None])
    loss, grads = jax.jit(lambda p: examples.gradient(p, batch, goal))(jax.tree.map(jax.numpy.asarray, params))
    plain, expected = loss_and_grads(params, batch, goal)
    assert handed
    assert float(loss) == pytest.approx(float(plain), rel=1e-12)
    assert_close_trees(grads, expected, 1e-12)


@needs("numba")
def test_a_loss_in_float64_of_weights_in_float32(handed):
    config = recipes.configure("default", TAKEN, {"dtype": "float32", "loss": {"variant": "float64"}})
    params, _ = run("jax", config, 3)
    assert len(handed) == 3
    assert params.embed.W_E.dtype == np.float32
    assert_close_trees(params, run("numpy", config, 3)[0], 1e-5)


@needs("numba")
@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 64},
        {"model": TAKEN["model"] | {"norm": "pre"}},
        {"model": TAKEN["model"] | {"activation": "identity"}},
        {"model": TAKEN["model"] | {"d_head": 8}},
        {"dtype": "float32", "precision": "tf32"},
    ],
)
def test_where_it_is_left_to_xla(changes, handed):
    run("jax", recipes.configure("default", TAKEN, changes), 2)
    assert not handed


@needs("numba")
@pytest.mark.parametrize("missing", ["numba", "interface", "cpu", "work"])
def test_without_what_it_takes(missing, handed, monkeypatch):
    patches: dict[str, Any] = {
        "work": (examples, "WORTHWHILE", 1 << 24),
        "numba": (examples.kernels, "available", dict), "interface": (host, "works", lambda: False),
        "cpu": (jax, "default_backend", lambda: "gpu"),
    }  # fmt: skip
    config = recipes.configure("default", TAKEN)
    with monkeypatch.context() as patched:
        patched.setattr(*patches[missing])
        engine = engines.get("jax")(config, config.task.make(0))
    engine.run(engine.start(), 0, 2)
    assert not handed


@needs("numba")
def test_divergence_names_tensor_and_step(handed):
    config = recipes.configure("default", TAKEN, {"optimizer": {"lr": 1e300}})
    engine = engines.get("jax")(config, config.task.make(0))
    with pytest.raises(Diverged, match="diverged at step 1") as caught:
        engine.run(engine.start(), 0, 6)
    assert caught.value.kind == "loss"
    assert handed
