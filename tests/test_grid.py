"""A study's grid: a run's figures are the loop's own, a stopped file goes on, a changed setting is another run."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from onelayer import training
from onelayer.errors import BadInput
from onelayer.studies import grid
from onelayer.training import configure

TINY = {
    "task": {"p": 7, "train_fraction": 0.9},
    "model": {"d_model": 16, "n_heads": 2, "d_mlp": 32},
    "stop": {"metric": "train_accuracy", "threshold": 0.4, "sustained": 2},
    "evaluation": {"every": 5},
    "steps": 60,
}


def tiny(**change) -> grid.Run:
    return grid.Run({"p": 7}, configure("default", TINY), **change)


def test_the_figures_are_those_of_the_loop(tmp_path: Path):
    run = tiny()
    found, whole = grid.train(run), training.train(run.config, tmp_path / "run")
    assert whole.figures.step_sustained is not None, "the comparison needs a run that crosses the threshold"
    assert found["sustained"] == whole.figures.step_sustained
    assert found["memorised"] == whole.figures.step_memorised
    assert found["lowest_after"] == whole.figures.minimum_after
    assert found["steps"] == whole.step
    assert found["last"]["test_loss"] == whole.record["test_loss"]


def test_where_it_is_measured_and_where_it_ends():
    run = tiny(until=(), grain=0.5)
    curve = grid.train(run)["curve"]
    assert [r["step"] for r in curve] == [0, 5, 10, 15, 22, 33, 49, 60]
    ended = grid.train(tiny(after=2.0))
    assert ended["steps"] == max(2 * ended["sustained"], ended["sustained"] + 5) < 60
    given_up = grid.train(tiny(hopeless=(20, 1.1)))
    assert (given_up["steps"], given_up["status"]) == (20, "given up")
    assert grid.first_below(curve, math.inf) == 0 and grid.first_below(curve, -1.0) is None
    with pytest.raises(BadInput, match="cannot end on 'soon'"):
        grid.train(tiny(until=("soon",)))


def test_the_sample_is_what_is_measured():
    whole, some = (grid.train(replace(tiny(until=()), sample=n))["curve"][0] for n in (None, 3))
    assert whole["test_loss"] == pytest.approx(some["test_loss"], rel=1e-6)  # by another exact path, perhaps
    assert whole["train_loss"] != some["train_loss"]


def test_a_file_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    raw, said = tmp_path / "raw.jsonl", []
    runs = [replace(tiny(), config=tiny().config.model_copy(update={"seed": seed, "steps": 10})) for seed in (0, 1)]
    grid.fill(runs[:1], raw, keep=lambda curve: [r["step"] for r in curve], say=said.append)
    with raw.open("a") as file:
        file.write('{"id": "cut sho')  # as a kill leaves it
    grid.fill(runs, raw, say=said.append)
    rows = grid.read(raw)
    assert [row["seed"] for row in rows] == [0, 1]
    assert rows[0]["curve"] == [0, 5, 10] and "curve" not in rows[1]
    monkeypatch.setattr(grid, "train", lambda *_: pytest.fail("it is there already"))
    grid.fill(runs, raw, say=said.append)
    assert len(said) == 2


def test_a_run_is_what_it_asks_for():
    run = tiny()
    same = replace(run, config=configure("default", json.loads(run.config.to_json())))
    other = [tiny(every=6), tiny(hopeless=(5, 0.5)), replace(run, cell={"p": 8})]
    other.append(replace(run, config=run.config.model_copy(update={"seed": 1})))
    assert same.id == run.id
    assert len({run.id, *(one.id for one in other)}) == 5


def test_few_digits():
    assert grid.rounded({"a": [0.123456789, 3], 5: (1e-9 / 3,)}) == {"a": [0.12346, 3], "5": [3.3333e-10]}
