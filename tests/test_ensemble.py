"""Guards training/ensemble.py: each member is the run that it would have been alone, and the distribution is honest."""

import json
import math
from typing import Any

import numpy as np
import pytest

from onelayer import cli
from onelayer.errors import BadInput
from onelayer.training import engines, ensemble
from onelayer.training.config import merge, resolve
from onelayer.training.figures import fold

TINY: dict[str, Any] = {
    "task": {"p": 7, "train_fraction": 0.6},
    "model": {"d_model": 8, "n_heads": 2, "d_mlp": 12},
    "optimizer": {"lr": 0.02},
    "dtype": "float64",
    "engine": "jax",
    "steps": 40,
    "evaluation": {"every": 10},
}


def varied() -> list[Any]:
    return [
        resolve(merge(TINY, more))
        for more in (
            {"seed": 0},
            {"seed": 1, "optimizer": {"lr": 0.005}},
            {"seed": 2, "optimizer": {"weight_decay": 0.1}, "task": {"train_fraction": 0.4}},
            {"seed": 3, "model": {"init_scale": 0.5}},
        )
    ]


def test_each_member_is_the_run_alone():
    found = ensemble.train(varied())
    for member in found.members:
        config = member.config
        engine: Any = engines.get("numpy")(config, config.task.make(config.seed))
        state, alone = engine.start(), []
        for step in range(0, config.steps + 1, 10):
            alone.append({"step": step} | engine.evaluate(state))
            if step < config.steps:
                state, _ = engine.run(state, step, 10)
        assert member.curve == tuple((r["step"], r["train_accuracy"], r["test_accuracy"]) for r in alone)
        assert member.figures._replace(minimum_after=None) == fold(alone, config.stop)._replace(minimum_after=None)
        assert member.steps == 40 and not member.diverged


def test_finished_and_diverged_members_stop(monkeypatch):
    lost = resolve(merge(TINY, {"optimizer": {"lr": 1e200}}))
    done = resolve(merge(TINY, {"seed": 1, "stop": {"threshold": 0.0, "sustained": 2}}))
    monkeypatch.setattr(ensemble, "VARIES", (*ensemble.VARIES, "stop.threshold", "stop.sustained"))
    found = ensemble.train([resolve(merge(TINY, {"stop": {"threshold": 0.0, "sustained": 2}})), done, lost])
    assert [m.steps for m in found.members] == [10, 10, 10]
    assert [m.diverged for m in found.members] == [False, False, True]
    assert found.failures == 1


def test_what_needs_another_program_is_refused():
    first = resolve(TINY)
    with pytest.raises(BadInput, match=r"model\.d_model"):
        ensemble.check([first, resolve(merge(TINY, {"model": {"d_model": 16}}))])
    with pytest.raises(BadInput, match="full batches"):
        ensemble.check([resolve(merge(TINY, {"batch_size": 4}))])
    with pytest.raises(BadInput, match="received 0"):
        ensemble.members(first, 0)
    with pytest.raises(BadInput, match="none"):
        ensemble.check([])


def test_one_that_does_not_fit_says_so(monkeypatch):
    monkeypatch.setattr(ensemble, "_free_memory", lambda device: 1000.0)
    with pytest.raises(BadInput, match="fewer seeds"):
        ensemble.train([resolve(TINY)])


def test_groups_side_by_side_give_the_same(monkeypatch):
    """Also where the others close ranks once half of them are done: two of these are lost at once."""
    lost = [resolve(merge(TINY, {"seed": seed, "optimizer": {"lr": 1e200}})) for seed in (4, 5)]
    configs = [lost[0], *varied()[:1], lost[1], *varied()[1:2]]
    alone = ensemble.train(configs)
    monkeypatch.setattr(ensemble._Program, "_on_cpu", staticmethod(lambda device: False))
    monkeypatch.setattr(ensemble._Size, "paid", lambda self, compiled: True)
    sizes = []
    monkeypatch.setattr(ensemble, "_Size", lambda compiled, made=ensemble._Size: sizes.append(1) or made(compiled))
    together = ensemble.train(configs)
    assert together.side_by_side > 1 and len(sizes) == 2
    assert [m.diverged for m in together.members] == [True, False, True, False]
    for a, b in zip(alone.members, together.members, strict=True):
        np.testing.assert_allclose(np.array(a.curve), np.array(b.curve), atol=1e-12)


@pytest.mark.parametrize("n", [1, 5, 6, 20, 64])
def test_interval_covers_the_median(n):
    """The chance that the median lies outside is at most 5 %, and would exceed it one rank further in."""
    low, high = ensemble._ranks(n)
    assert low + high == n - 1

    def outside(low: int) -> float:
        return 2 * sum(math.comb(n, k) for k in range(low + 1)) / 2**n

    assert n < 6 or outside(low) <= 0.05 < outside(low + 1)


def test_command(tmp_path, capsys):
    out = tmp_path / "many"
    small = ["--p", "7", "--steps", "20", "--model.d-model", "8", "--model.n-heads", "2", "--model.d-mlp", "12"]
    tokens = ["grok", "--seeds", "3", *small, "--json"]
    assert cli.run([*tokens, "--out", str(out)]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["device"] == "CPU"
    assert [m["seed"] for m in said["members"]] == [0, 1, 2]
    assert said["step_sustained"]["median"] is None and said["failures"] == 3
    assert said["precision"] == "float32"
    assert (out / "ensemble.html").stat().st_size > 1e6
    assert json.loads((out / "ensemble.json").read_text())["failures"] == 3
    assert cli.run([*tokens, "--out", str(out)]) == 2


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_precision_is_taken_and_recorded(precision):
    config = resolve(merge(TINY, {"precision": precision, "dtype": "float32", "steps": 2}))
    engine: Any = engines.get("jax")(config, config.task.make(0))
    _, figures = engine.run(engine.start(), 0, 2)
    assert np.isfinite(figures["loss"]).all()
    assert config.as_dict()["precision"] == precision
    with pytest.raises(BadInput, match="precision"):
        resolve(merge(TINY, {"precision": "float8"}))


@pytest.mark.parametrize(
    ("members", "fit", "group"), [(64, 100, 64), (64, 40, 32), (60, 59, 30), (61, 40, 40), (5, 1, 1)]
)
def test_groups_leave_no_remainder_where_they_need_not(members, fit, group):
    assert ensemble._group(members, fit) == group
