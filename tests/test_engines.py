"""Guards the engines: the same first bits, the same batches, the same weights after 50 steps; loud divergence."""

from typing import Any

import numpy as np
import pytest
from oracles import assert_close_trees

from onelayer.arrays import flatten
from onelayer.errors import BadInput
from onelayer.training import engines, recipes
from onelayer.training.batches import Batches
from onelayer.training.engines import Diverged

SMALL = {
    "dtype": "float64",
    "task": {"p": 13},
    "model": {"d_model": 16, "n_heads": 2, "d_mlp": 24},
}

ADDITION = {"name": "addition", "n_digits": 2, "n_train": 40, "n_test": 30}


def pair(recipe: str = "default", **changes: Any) -> tuple[Any, Any]:
    config = recipes.configure(recipe, SMALL, changes)
    task = config.task.make(config.seed)
    return engines.get("numpy")(config, task), engines.get("jax")(config, task)


@pytest.mark.parametrize("recipe", ["default", "power-2022", "omnigrok-2022", "muon"])
def test_the_engines_agree_after_50_steps(recipe: str) -> None:
    small_batches = {"batch_size": 16} if recipes.configure(recipe).batch_size else {}
    ours, theirs = pair(recipe, **small_batches)
    a, b = ours.start(), theirs.start()
    assert_close_trees(theirs.to_host(b), a, 0)
    a, figures = ours.run(a, 0, 50)
    b, others = theirs.run(b, 0, 50)
    assert_close_trees(theirs.to_host(b).params, a.params, 1e-10)
    np.testing.assert_allclose(others["loss"], figures["loss"], rtol=1e-10)
    np.testing.assert_allclose(others["grad_norm"], figures["grad_norm"], rtol=1e-9)
    assert theirs.evaluate(b) == pytest.approx(ours.evaluate(a), rel=1e-9)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
@pytest.mark.parametrize("batch_size", [None, 16])
def test_steps_cut_into_chunks_are_the_same_steps(engine: str, batch_size: int | None) -> None:
    config = recipes.configure("default", SMALL, {"batch_size": batch_size})
    task = config.task.make(0)
    whole = engines.get(engine)(config, task)
    once, figures = whole.run(whole.start(), 0, 7)
    parts = engines.get(engine)(config, task)
    state, first = parts.run(parts.start(), 0, 3)
    state = parts.from_host(parts.to_host(state))
    state, second = parts.run(state, 3, 4)
    for name, tensor in flatten(whole.to_host(once)).items():
        assert np.array_equal(flatten(parts.to_host(state))[name], tensor), name
    assert np.array_equal(np.concatenate([first["loss"], second["loss"]]), figures["loss"])


@pytest.mark.parametrize(
    ("ids", "settings", "task"),
    [
        ("random", {"reach": 24}, {"name": "arithmetic", "p": 13}),
        ("abacus", {"offset": 5}, ADDITION | {"sum_order": "low_first"}),
        ("coupled", {"offset": 5}, ADDITION),
    ],
)
@pytest.mark.parametrize("position", ["learned", "rope"])
def test_drawn_position_ids_reach_both_engines_alike(ids: str, settings: Any, task: Any, position: str) -> None:
    model = SMALL["model"] | {"position": position, "position_ids": ids, "position_ids_settings": settings}
    config = recipes.configure("default", {"dtype": "float64", "task": task, "model": model, "batch_size": 16})
    made = config.task.make(0)
    ours, theirs = engines.get("numpy")(config, made), engines.get("jax")(config, made)
    assert len({ours.batches.at(step).ids.tobytes() for step in range(8)}) > 1, "each step draws anew"
    a, _ = ours.run(ours.start(), 0, 5)
    b, _ = theirs.run(theirs.start(), 0, 5)
    assert_close_trees(theirs.to_host(b).params, a.params, 1e-10)
    assert theirs.evaluate(b) == pytest.approx(ours.evaluate(a), rel=1e-9)


def test_seeds_differ_and_repeat() -> None:
    first, again, other = (pair(seed=seed)[0].start().params for seed in (0, 0, 1))
    assert all(np.array_equal(a, flatten(again)[name]) for name, a in flatten(first).items())
    assert not np.array_equal(first.embed.W_E, other.embed.W_E)


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_divergence_names_tensor_and_step_and_leaves_the_state(engine: str) -> None:
    config = recipes.configure("default", SMALL, {"optimizer": {"lr": 1e300}})
    runner = engines.get(engine)(config, config.task.make(0))
    state = runner.start()
    before = {name: np.array(a) for name, a in flatten(runner.to_host(state)).items()}
    with pytest.raises(Diverged, match="diverged at step 1") as caught:
        runner.run(state, 0, 6)
    assert (caught.value.step, caught.value.kind) == (1, "loss")
    assert all(np.array_equal(a, before[name]) for name, a in flatten(runner.to_host(state)).items())


@pytest.mark.parametrize("engine", ["numpy", "jax"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_number_among_the_weights_is_found(engine: str, value: float) -> None:
    config = recipes.configure("default", SMALL)
    runner = engines.get(engine)(config, config.task.make(0))
    state = runner.to_host(runner.start())
    W_out = np.array(state.params.blocks[0].mlp.W_out)
    W_out[3, 2] = value
    mlp = state.params.blocks[0].mlp._replace(W_out=W_out)
    params = state.params._replace(blocks=(state.params.blocks[0]._replace(mlp=mlp),))
    with pytest.raises(Diverged) as caught:
        runner.run(runner.from_host(state._replace(params=params)), 5, 2)
    assert (caught.value.step, caught.value.kind) == (5, "loss")


def test_an_epoch_shows_every_example_once_and_hangs_on_the_step_alone() -> None:
    config = recipes.configure("default", SMALL)
    train = config.task.make(0).train
    n = len(train.tokens)
    model = engines.get("numpy")(config, config.task.make(0)).objective.model
    batches = Batches(train, n // 3, 1, model)
    epoch = [batches.indices(step) for step in range(3)]
    assert len(set(np.concatenate(epoch))) == 3 * (n // 3)
    assert np.array_equal(Batches(train, n // 3, 1, model).indices(1), epoch[1])
    assert not np.array_equal(batches.indices(3), epoch[0])


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="unknown engine 'nunpy'; did you mean 'numpy'"):
        engines.get("nunpy")
    with pytest.raises(BadInput, match="a batch of 999 is more than the"):
        pair(batch_size=999)
    with pytest.raises(BadInput, match="has no source to read, so model"):
        pair(model=SMALL["model"] | {"architecture": "encoder_decoder"})
