"""Guards the promise that a resumed run is the one that never stopped: same parameters, same metrics, at any death."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import fingerprint, last_checkpoint, tiny

from onelayer.arrays import flatten, generator
from onelayer.errors import BadInput
from onelayer.training import Run, RunConfig, checkpoint, engines, resume, train
from onelayer.training.config import resolve
from onelayer.training.events import Advanced, Checkpointed, Evaluated, Started

WITH_TINY = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}


class Crash(BaseException):
    """The process ends here, as far as the disk can tell: no handler of ours looks at it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """What the run comes to if nothing happens to it."""
    return fingerprint(train(tiny(), tmp_path_factory.mktemp("whole") / "run").run)


def interrupted(config: RunConfig, path: Path, step: int) -> Path:
    """The run, left with a signal once it has taken so many steps."""

    def leave(event):
        if isinstance(event, Advanced) and event.step >= step:
            signal.raise_signal(signal.SIGTERM)

    assert train(config, path, leave).status == "interrupted"
    return path


# ---------------------------------------------------------------------------------------------------- what is restored

METHODS = {
    "adamw": {},
    "minibatches": {"batch_size": 7},
    "sgd": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}},
    "plain sgd": {"optimizer": "sgd"},
    "lion": {"optimizer": {"name": "lion", "lr": 1e-3, "weight_decay": 1.0}},
    "muon": {"optimizer": {"name": "muon", "weight_decay": 0.1}},
    "cosine": {"schedule": {"name": "cosine", "warmup": 5, "total": 40}},
    "filters": {"filters": ["clip", {"name": "grokfast_ma", "window": 4}, "grokfast_ema", "orthogonal"]},
    "norm held": {"projections": ["constant_norm"], "optimizer": {"weight_decay": 0.0}},
    "float64": {"dtype": "float64", "loss": {"variant": "stablemax"}},
    "decay by name": {"optimizer": {"decay": {"*.b_*": 0.0}}},
    "two blocks": {"model": {"n_layers": 2, "norm": "pre", "activation": "gelu", "position": "rope"}},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_as_if_nothing_had_been(name, tmp_path):
    config = tiny(METHODS[name], {"steps": 20})
    train(config, tmp_path / "whole")
    resume(interrupted(config, tmp_path / "run", 8))
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize("name", METHODS)
def test_a_state_lies_in_memory_as_a_checkpoint_gives_it_back(name):
    """In C order: products and sums round otherwise in another, and a resumed run would not be the same to the bit."""
    config = tiny(METHODS[name])
    engine = engines.get("numpy")(config, config.task.make(0))
    state, _ = engine.run(engine.start(), 0, 3)
    assert [n for n, x in flatten(state).items() if not np.asarray(x).flags.c_contiguous] == []


def test_the_jax_engine_goes_on_as_if_nothing_had_been(tmp_path):
    whole = train(tiny({"engine": "jax", "steps": 20, "batch_size": 8}), tmp_path / "whole").run
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-20")  # as if it had died after step 10
    assert resume(run).step == 20
    assert fingerprint(run) == fingerprint(whole)


def test_leaving_at_a_step_that_is_pinned_keeps_the_whole(tmp_path):
    config = tiny({"steps": 20, "checkpoint": {"every": 20, "pinned": [0, 5, 10]}})
    train(config, tmp_path / "whole")
    run = interrupted(config, tmp_path / "run", 10)
    assert not (run / "checkpoints" / "step-5" / "optimizer.safetensors").exists(), "5 is kept for looking back alone"
    assert (run / "checkpoints" / "step-10" / "optimizer.safetensors").exists()
    resume(run)
    assert fingerprint(run) == fingerprint(tmp_path / "whole")
    assert Run(run).snapshots == Run(tmp_path / "whole").snapshots == [0, 5, 10, 20]


def test_a_seed_is_alive(tmp_path, whole):
    assert fingerprint(train(tiny({"seed": 1}), tmp_path / "run").run) != whole


LOOKS = [
    {"checkpoint": {"every": 1}},
    {"checkpoint": {"every": 1000}},
    {"checkpoint": {"pinned": "all"}},
    {"evaluation": {"every": 1}},
    {"evaluation": {"every": 40}},
]


@pytest.mark.parametrize("change", LOOKS)
def test_looking_and_keeping_change_nothing(change, tmp_path):
    weights = Run(train(tiny(change), tmp_path / "run").run).parameters()
    again = Run(train(tiny(), tmp_path / "again").run).parameters()
    assert all(np.array_equal(weights[name], again[name]) for name in again)


# ---------------------------------------------------------------------------------------------------- kills


CALLS = ("write", "fsync", "rename", "replace", "ftruncate", "mkdir")


def crash_at(monkeypatch: pytest.MonkeyPatch, at: int) -> list[int]:
    """The process ends before the call with this number of any that changes the disk; the list counts them."""
    count = [0]

    def counted(real):
        def call(*arguments, **options):
            count[0] += 1
            if count[0] == at:
                raise Crash
            return real(*arguments, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return count


def test_a_crash_before_any_call_that_changes_the_disk_costs_nothing(tmp_path, monkeypatch):
    config = tiny({"steps": 8, "evaluation": {"every": 2}, "checkpoint": {"every": 4, "keep": 1, "pinned": "all"}})
    with monkeypatch.context() as patched:
        count = crash_at(patched, -1)
        expected = fingerprint(train(config, tmp_path / "whole").run)
    total = count[0]
    assert total > 60
    crashed = 0
    for at in range(1, total + 1):
        path = tmp_path / f"run-{at}"
        with monkeypatch.context() as patched:
            crash_at(patched, at)
            with pytest.raises(Crash):
                train(config, path)
        crashed += 1
        if (path / "config.json").exists():
            resume(path)
        else:  # it had not yet become a run: nothing is lost by beginning again elsewhere
            assert not (path / "metrics.jsonl").exists()
            continue
        assert fingerprint(path) == expected, f"after a crash before call {at} of {total}"
    assert crashed == total


def test_a_crash_during_a_resume_and_crashes_in_a_row_cost_nothing(tmp_path, monkeypatch, whole):
    run = interrupted(tiny(), tmp_path / "run", 15)
    for at in range(2, 60, 4):
        with monkeypatch.context() as patched:
            crash_at(patched, at)
            try:
                resume(run)
                break
            except Crash:
                continue
    resume(run)
    assert fingerprint(run) == whole


KILLED = {"steps": 300, "evaluation": {"every": 10}, "checkpoint": {"every": 20}}


def test_kill_9_at_random_moments_costs_nothing(tmp_path):
    expected = fingerprint(train(tiny(KILLED), tmp_path / "whole").run)
    run, rng = tmp_path / "run", generator(0, "kills")
    code = (
        "import sys; from pathlib import Path; from onelayer.training import resume, train; from tiny import tiny\n"
        f"config, run = tiny({KILLED!r}), Path(sys.argv[1])\n"
        "resume(run) if (run / 'config.json').exists() else train(config, run)"
    )
    kills = 0
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code, str(run)], env=WITH_TINY)
        lines = metrics_lines(run)
        while metrics_lines(run) <= lines and child.poll() is None:  # it has begun to train
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.1)))
        child.kill()
        kills += child.wait() == -signal.SIGKILL
    assert kills, "the run was over before it could be killed"
    assert resume(run).status == "finished"
    assert fingerprint(run) == expected


def metrics_lines(run: Path) -> int:
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_finished_run_stays_as_it_is(tmp_path, whole):
    run = train(tiny(), tmp_path / "run").run
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    events = []
    result = resume(run, callback=events.append)
    assert (result.status, result.step, events) == ("finished", 40, [])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_end_may_be_moved_and_the_run_is_the_longer_one(tmp_path, whole):
    run = train(tiny({"steps": 20}), tmp_path / "run").run
    assert resume(run, {"steps": 40}).step == 40
    assert fingerprint(run) == whole
    assert Run(run).config == tiny()
    assert len(Run(run).manifest["sessions"]) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", 3), ("optimizer.lr", 0.5), ("model.d_model", 16), ("task.p", 11), ("dtype", "float64"), ("engine", "jax"),
     ("batch_size", 4), ("schedule.name", "cosine"), ("evaluation.every", 7), ("checkpoint.every", 7)],
)  # fmt: skip
def test_a_changed_config_is_refused_and_the_field_named(tmp_path, field, value):
    run = interrupted(tiny(), tmp_path / "run", 15)
    before = fingerprint(run)
    with pytest.raises(BadInput, match=field):
        resume(run, {field: value})
    config = json.loads((run / "config.json").read_text())
    *sections, name = field.split(".")
    place = config
    for section in sections:
        place = place[section]
    place[name] = value
    (run / "config.json").write_text(resolve(config).to_json())
    with pytest.raises(BadInput, match=field):
        resume(run)
    assert fingerprint(run) == before


def test_notes_say_where_it_goes_on_and_what_is_different(tmp_path):
    run = interrupted(tiny(), tmp_path / "run", 15)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["sessions"][0]["threads"] = 64
    (run / "manifest.json").write_text(json.dumps(manifest))
    events = []
    resume(run, callback=events.append)
    started = next(event for event in events if isinstance(event, Started))
    assert started.step == 15
    assert any("threads: 64 before" in note for note in started.notes)
    assert [event.step for event in events if isinstance(event, Evaluated)] == [20, 25, 30, 35, 40]


def test_a_run_without_a_checkpoint_yet_begins_again(tmp_path, whole):
    def crash(event):
        if isinstance(event, Checkpointed):
            shutil.rmtree(event.path)
            raise Crash

    with pytest.raises(Crash):
        train(tiny(), tmp_path / "run", crash)
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == []
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == whole


def test_a_callback_that_raises_leaves_a_run_that_can_be_resumed(tmp_path, whole):
    def fail(event):
        if isinstance(event, Evaluated) and event.step == 25:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(tiny(), tmp_path / "run", fail)
    assert Run(tmp_path / "run").status == "unfinished"
    assert last_checkpoint(tmp_path / "run").name == "step-20"
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == whole
