"""Guards threads.py and training/engines/shares.py: work side by side is the work one after the other."""

import numpy as np
import pytest
from oracles import assert_close_trees
from tiny import tiny

from onelayer import kernels, positions, threads
from onelayer.arrays import flatten, generator, map_tree
from onelayer.errors import BadInput
from onelayer.fused import using
from onelayer.models import first_attention
from onelayer.sublayers import attention_rows
from onelayer.tasks import Batch
from onelayer.training import engines, objective
from onelayer.training import step as steps
from onelayer.training.engines import shares


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads, whatever the machine has."""
    monkeypatch.setattr(threads, "_allowed", lambda process: 3)
    threads._pool.cache_clear()


def test_results_come_in_order_and_a_share_has_one_thread(three):
    seen = threads.together(lambda i: (i, threads.count()), range(20))
    assert seen == [(i, 1) for i in range(20)]
    assert threads.count() == 3


def test_what_goes_wrong_in_a_share_is_raised(three):
    def work(i: int) -> int:
        if i == 5:
            raise BadInput("the fifth")
        return i

    with pytest.raises(BadInput, match="the fifth"):
        threads.together(work, range(8))
    assert threads.together(lambda i: i, range(8)) == list(range(8))


def batch(model: str) -> tuple[Batch, objective.Objective]:
    shape = {"d_model": 8, "n_heads": 2, "d_mlp": 16, "norm": "pre", "architecture": model}
    config = tiny({"model": shape})
    B, T, S, V = 7, 5, 4, 11
    rng = generator(3, "shares", model)
    tokens, targets, source = (rng.integers(1, V, (B, n)) for n in (T, T, S))
    weights = (rng.random((B, T)) < 0.7).astype(float)
    weights[0] = 0.0  # an example of padding alone
    if model == "decoder_only":
        return Batch(tokens, targets, weights), objective.Objective(config.model.build(vocab_size=V, n_ctx=T), T)
    there = rng.random((B, S)) < 0.8
    there[:, 0] = True
    built = config.model.build(vocab_size=V, n_ctx=T, source_n_ctx=S)
    return Batch(tokens, targets, weights, source, there), objective.Objective(built, T)


@pytest.mark.parametrize("model", ["decoder_only", "encoder_decoder"])
def test_shares_add_up_to_the_batch(three, monkeypatch, model):
    monkeypatch.setattr(shares, "WORTHWHILE", 1)
    data, goal = batch(model)
    params = map_tree(
        lambda w: w + 0.1 * generator(4, "noise", *w.shape).normal(size=w.shape), objective.init(goal.model, 0)
    )
    parts = shares.shares(data, goal)
    assert [len(part.tokens) for part in parts] == [2, 2, 3]
    whole, of_parts = objective.loss_and_grads(params, data, goal), shares.gradient(params, data, goal)
    assert of_parts[0] == pytest.approx(whole[0], rel=1e-13)
    assert_close_trees(of_parts[1], whole[1], 1e-12)
    ahead, scores = shares.forwards(params, data, goal)
    for got, expected in zip(scores, objective.scores(params, data, goal), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert_close_trees(shares.gradient(params, data, goal, ahead)[1], whole[1], 1e-12)


def test_parts_of_a_step_may_be_taken_in_shares(three, monkeypatch):
    """Of each part, and of each share of a part, n_i / Σ n_i is that of the whole step."""
    monkeypatch.setattr(shares, "WORTHWHILE", 1)
    data, goal = batch("decoder_only")
    params = objective.init(goal.model, 0)
    parts = [map_tree(lambda a, rows=rows: a[rows], data) for rows in (slice(0, 3), slice(3, 7))]
    assert objective.weight(parts[0]) != objective.weight(parts[1])
    assert [len(shares.shares(part, goal)) for part in parts] == [3, 3]
    whole = objective.loss_and_grads(params, data, goal)
    loss, grads = objective.accumulated(params, parts, goal, gradient=shares.gradient)
    assert loss == pytest.approx(whole[0], rel=1e-13)
    assert_close_trees(grads, whole[1], 1e-12)


def test_a_share_without_targets_says_nothing(three, monkeypatch):
    monkeypatch.setattr(shares, "WORTHWHILE", 1)
    data, goal = batch("decoder_only")
    weights = np.array(data.weights)
    weights[:2] = 0.0
    data, params = data._replace(weights=weights), objective.init(goal.model, 0)
    assert_close_trees(shares.gradient(params, data, goal)[1], objective.loss_and_grads(params, data, goal)[1], 1e-12)


KINDS = [("decoder_only", {"position": position}) for position in positions.available()] + [
    (model, {"norm": norm, "attention_bias": True, **more})
    for model in ("decoder_only", "encoder_decoder")
    for norm in ("none", "pre", "post")
    for more in ({}, {"norm_kind": "rms", "n_layers": 2}, {"tied": "unembed", "position": "learned"})
]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(("model", "kind"), KINDS)
def test_a_part_s_gradient_is_in_memory_of_its_own(three, monkeypatch, model, kind, fast):
    """The next part's is added to it where it lies."""
    monkeypatch.setattr(first_attention, "WORTHWHILE", -(1 << 60))
    monkeypatch.setattr(shares, "WORTHWHILE", 1)
    data, goal = batch(model)
    goal = goal._replace(model=goal.model.model_copy(update=kind))
    params = objective.init(goal.model, 0)
    with using(*((kernels.available(), attention_rows.STAND_INS) if fast else ({},))):
        found = [flatten(objective.loss_and_grads(params, data, goal)[1]) for _ in range(2)]
        expected = {name: 2 * g for name, g in found[0].items()}
        for gradient in (objective.loss_and_grads, shares.gradient):
            many = {"gradient": gradient, "among": objective.weight(data)}
            grads = objective.accumulated(params, [data, data], goal, **many)[1]
            for name, g in flatten(grads).items():
                np.testing.assert_allclose(g, expected[name], rtol=1e-9, atol=1e-13, err_msg=name)
    for name, g in found[0].items():
        others = [*flatten(params).values(), *found[1].values(), *(x for x in found[0].values() if x is not g)]
        assert g.flags.writeable
        assert not any(np.shares_memory(g, x) for x in others), name
    assert len({id(g) for g in found[0].values()}) == len(found[0])


def test_small_batches_stay_whole(three):
    data, goal = batch("decoder_only")
    assert len(shares.shares(data, goal)) == 1


def test_the_engine_trains_as_on_one_thread(three, monkeypatch):
    config = tiny({"dtype": "float64", "steps": 4})
    task = config.task.make(0)

    def after() -> steps.TrainState:
        engine = engines.get("numpy")(config, task)
        state = engine.start()
        engine.evaluate(state)  # whose forward passes the first step takes over
        return engine.run(state, 0, 4)[0]

    whole = after()
    monkeypatch.setattr(shares, "WORTHWHILE", 1)
    assert_close_trees(after().params, whole.params, 1e-10)


def test_blas_has_its_threads_back(three):
    from threadpoolctl import threadpool_info

    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = blas()
    with threads.alone():
        assert blas() == [1] * len(before)
    assert blas() == before
    assert threads.together(lambda i: blas(), range(2)) == [[1] * len(before)] * 2
    assert blas() == before
