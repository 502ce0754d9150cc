"""Guards the measures during training: when they are taken, that a resumed run takes the same, and what is refused."""

import itertools
import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import fingerprint, tiny

from onelayer import cli
from onelayer.errors import BadInput
from onelayer.grokking import probe
from onelayer.grokking.measures import MEASURES
from onelayer.grokking.subject import open_subject
from onelayer.training import Run, engines, ensemble, resume, run_directory, train
from onelayer.training.config import EvaluationConfig
from onelayer.training.events import Advanced
from onelayer.training.measuring import KEY, due, last_measured

P7 = {"evaluation": {"every": 5, "measures": "progress", "measures_every": 5}}


def measured(run: Path) -> dict[int, dict]:
    return {r["step"]: r[KEY] for r in Run(run).metrics if KEY in r}


# ---------------------------------------------------------------------------------------------------- when

WHEN = EvaluationConfig(measures="progress", measures_every=20, measures_growth=1.5)


def record(step: int, loss: float = 1.0, accuracy: float = 0.5) -> dict:
    return {"step": step, "train_loss": loss, "test_loss": 2.0, "train_accuracy": accuracy, "test_accuracy": 0.1}


def test_where_nothing_moves_measurements_thin_out():
    taken, last = [], None
    for step in range(0, 1001, 10):
        if due(WHEN, record(step), last):
            last = record(step)
            taken.append(step)
    assert taken == [0, 20, 40, 60, 90, 140, 210, 320, 480, 720]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (record(1020), False),
        (record(1020, loss=1.19), False),
        (record(1020, loss=1.21), True),
        (record(1020, loss=0.8), True),
        (record(1020, accuracy=0.53), True),
        (record(1010, loss=9.0), False),
    ],
)
def test_where_something_moves_they_are_dense_but_never_closer_than_asked(now, expected):
    assert due(WHEN, now, record(1000)) == expected


@given(st.lists(st.tuples(st.floats(1e-9, 9), st.floats(0, 1)), min_size=1, max_size=40), st.integers(0, 40))
def test_the_schedule_goes_on_from_the_records_alone(series, cut):
    """As a resumed run finds it: from the lines that stand in metrics.jsonl."""
    records, taken = [], []
    for i, (loss, accuracy) in enumerate(series):
        now = record(10 * i, loss, accuracy)
        found = last_measured(json.loads(json.dumps(records)))
        if due(WHEN, now, found):
            now[KEY] = {}
            taken.append(i)
        records.append(now)
    again = last_measured(records[:cut])
    for now in records[cut:]:
        assert (KEY in now) == due(WHEN, now, again)
        again = now if KEY in now else again
    assert all(10 * (b - a) >= 20 for a, b in itertools.pairwise(taken))


# ---------------------------------------------------------------------------------------------------- what


def test_the_lines_hold_what_the_registry_measures_of_the_checkpoint(tmp_path):
    config = tiny(P7, {"dtype": "float64", "checkpoint": {"pinned": "all"}, "steps": 15})
    run = train(config, tmp_path / "run", probe=probe.prepare).run
    found = measured(run)
    assert list(found)[:3] == [0, 5, 10]
    for step, told in found.items():
        s = open_subject(run, step)
        assert list(told) == list(probe.PROGRESS)
        for name, value in told.items():
            exact = MEASURES[name].of(s)
            if isinstance(exact, dict):
                assert list(value) == [str(key) for key in exact]
                assert list(value.values()) == pytest.approx(list(exact.values()), rel=1e-5, abs=1e-9), (step, name)
            else:
                assert value == pytest.approx(exact, rel=1e-5, abs=1e-9), (step, name)


def test_measuring_changes_no_weight_and_no_other_number(tmp_path):
    plain = train(tiny({"evaluation": {"every": 5}}), tmp_path / "plain").run
    other = train(tiny(P7), tmp_path / "other", probe=probe.prepare).run
    strip = [{k: v for k, v in r.items() if k != KEY} for r in Run(other).metrics]
    assert strip == Run(plain).metrics
    assert measured(other)


@pytest.mark.parametrize("change", [{}, {"batch_size": 7}, {"task": {"operation": "x / y"}}])
def test_a_resumed_run_measures_the_same_at_the_same_steps(tmp_path, change):
    config = tiny(P7, change)

    def leave(event):
        if isinstance(event, Advanced) and event.step >= 18:
            signal.raise_signal(signal.SIGTERM)

    train(config, tmp_path / "whole", probe=probe.prepare)
    assert train(config, tmp_path / "run", leave, probe=probe.prepare).status == "interrupted"
    resume(tmp_path / "run", probe=probe.prepare)
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


def test_a_moved_end_measures_what_the_longer_run_would_have(tmp_path):
    whole = train(tiny(P7), tmp_path / "whole", probe=probe.prepare).run
    run = train(tiny(P7, {"steps": 20}), tmp_path / "run", probe=probe.prepare).run
    resume(run, {"steps": 40}, probe=probe.prepare)
    assert fingerprint(run) == fingerprint(whole)


def test_the_jax_engine_gives_a_probe_the_same_answers():
    config = tiny(P7, {"dtype": "float64"})
    task = config.task.make(0)
    numpy, jax = (engines.get(name)(config, task) for name in ("numpy", "jax"))
    expected = numpy.answers(numpy.start())
    for split, logits in jax.answers(jax.start()).items():
        assert isinstance(logits, np.ndarray)
        assert np.allclose(logits, expected[split], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "present", "absent"),
    [
        ({"task": {"name": "parity"}}, "weight_norms", "margin"),
        ({"task": {"p": 9}}, "margin", "restricted_loss"),
        ({"task": {"operation": "S3: x*y*x", "p": 6}}, "margin", "logit_spectrum"),
        ({"task": {"operation": "S3: x*y", "p": 6}}, "logit_spectrum", "-"),
        ({"task": {"operation": "(x + y)**2"}}, "restricted_loss", "cosine_variance_explained"),
        ({"task": {"operation": "x * y"}}, "cosine_variance_explained", "-"),
        ({"model": {"tied": "unembed"}}, "restricted_loss", "logit_map_gini"),
    ],
)
def test_progress_is_what_applies(tmp_path, change, present, absent):
    run = train(tiny(P7, {"steps": 10}, change), tmp_path / "run", probe=probe.prepare).run
    told = measured(run)[0]
    assert present in told and absent not in told


def test_a_table_that_is_too_large_is_not_made_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "LARGEST", 7**3)
    run = train(tiny(P7, {"steps": 5}), tmp_path / "run", probe=probe.prepare).run
    assert list(measured(run)[0]) == ["weight_norms", "trajectory_cosine"]
    with pytest.raises(BadInput, match=r"margin does not apply to .* more than 343 values"):
        train(tiny(P7, {"evaluation": {"measures": ["margin"]}}), tmp_path / "other", probe=probe.prepare)


def test_a_measure_of_any_name_can_be_asked_for(tmp_path):
    config = tiny(P7, {"steps": 10, "evaluation": {"measures": ["train_test_cosine", "neuron_specialisation"]}})
    told = measured(train(config, tmp_path / "run", probe=probe.prepare).run)
    assert list(told[10]) == ["train_test_cosine", "neuron_specialisation"]
    s = open_subject(tmp_path / "run", 10)
    assert told[10]["train_test_cosine"] == pytest.approx(MEASURES["train_test_cosine"].of(s), rel=1e-4)


def test_what_is_not_finite_is_null():
    assert probe._brief({"a": math.inf, 3: 0.123456789}) == {"a": None, "3": 0.123457}


def test_the_page_says_what_progress_is():
    text = (Path(__file__).parent.parent / "docs/grokking.md").read_text("utf-8")
    part = text[text.index("**Which.**") : text.index("Others are named instead")]
    assert tuple(re.findall(r"`(\w+)`", part))[1:] == probe.PROGRESS


# ---------------------------------------------------------------------------------------------------- refusals


def test_a_run_that_asks_for_measures_is_not_run_or_resumed_without(tmp_path):
    with pytest.raises(BadInput, match=r"evaluation\.measures = progress.*probe=.*none"):
        train(tiny(P7), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(tiny(P7, {"steps": 20}), tmp_path / "run", probe=probe.prepare)
    with pytest.raises(BadInput, match="nothing was given that"):
        resume(tmp_path / "run", {"steps": 40})
    assert resume(tmp_path / "run", {"steps": 40}, probe=probe.prepare).step == 40
    with pytest.raises(BadInput, match=r"evaluation\.measures"):
        resume(tmp_path / "run", {"evaluation.measures": "none", "steps": 60})


def test_what_does_not_apply_or_does_not_exist_is_named(tmp_path):
    def refused(measures, **task):
        with pytest.raises(BadInput) as error:
            train(tiny(P7, {"evaluation": {"measures": measures}, "task": task}), tmp_path / "run", probe=probe.prepare)
        assert not (tmp_path / "run").exists()
        return str(error.value)

    assert "restricted_loss" in refused(["restricted_los"])
    said = refused(["weight_norm", "memorised_noise"])
    assert "memorised_noise does not apply" in said and "no label was spoilt" in said and "margin" in said
    assert "odd prime" in refused(["embedding_gini"], p=9)
    with pytest.raises(BadInput, match="measures"):
        tiny({"evaluation": {"measures": "all"}})
    with pytest.raises(BadInput, match="takes no measures"):
        ensemble.check([tiny(P7)])


def test_a_run_of_before_there_were_measures_can_be_resumed(tmp_path):
    """A field that a config lacks, since it was written before there was such a field, counts as its default."""
    run = train(tiny({"steps": 20}), tmp_path / "run").run
    whole = train(tiny(), tmp_path / "whole").run
    files = [run / "config.json", run / "manifest.json", *run.glob("checkpoints/*/state.json")]
    for path in files[:2]:
        data = json.loads(path.read_text())
        for field in ("measures", "measures_every", "measures_growth"):
            del data.get("config", data)["evaluation"][field]
        path.write_text(json.dumps(data))
    assert resume(run, {"steps": 40}).step == 40
    assert fingerprint(run) == fingerprint(whole)
    old = tiny().as_dict()
    del old["evaluation"]["measures"]
    run_directory.refuse_changes(old, tiny().as_dict(), "")
    with pytest.raises(BadInput, match=r"evaluation\.measures was 'none', received 'progress'"):
        run_directory.refuse_changes(old, tiny(P7).as_dict(), "")


def test_grok_measures_and_can_be_told_not_to(tmp_path, capsys):
    size = {"p": 7, "train-fraction": 0.5, "steps": 10, "model.d-model": 8, "model.n-heads": 2, "model.d-mlp": 12}
    small = [*(f"--{name}={value}" for name, value in size.items()), "--no-report"]
    assert cli.run(["grok", *small, "--out", str(tmp_path / "a")]) == 0
    assert list(measured(tmp_path / "a")) == [0, 10]
    assert cli.run(["resume", str(tmp_path / "a"), "--steps", "20", "--no-report"]) == 0
    assert list(measured(tmp_path / "a")) == [0, 10, 20]
    assert cli.run(["grok", *small, "--evaluation.measures", "none", "--out", str(tmp_path / "b")]) == 0
    assert measured(tmp_path / "b") == {}
    capsys.readouterr()
    assert cli.run(["grok", *small, "--evaluation.measures", '["gini"]', "--out", str(tmp_path / "c")]) == 2
    assert "embedding_gini" in capsys.readouterr().err


def test_a_measure_keeps_blas_to_one_thread(tmp_path):
    """Threads that wait awake after a product would take their cores from the next steps."""
    from threadpoolctl import threadpool_info

    seen = []

    def watch(config: Any, task: Any) -> Any:
        def measure(params: Any, answers: Any) -> dict[str, Any]:
            seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            return {}

        return measure

    train(tiny(P7, {"steps": 5}), tmp_path / "run", probe=watch)
    assert seen and set(seen) == {1}
