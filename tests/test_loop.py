"""Guards the loop: when it measures, keeps and stops, what its figures mean, and that divergence costs nothing."""

import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import fingerprint, last_checkpoint, tiny

from onelayer.errors import BadInput
from onelayer.training import RECIPES, Run, checkpoint, configure, loop, resume, train
from onelayer.training.config import StopConfig
from onelayer.training.events import Advanced, Checkpointed, Evaluated, Finished, Started
from onelayer.training.figures import Figures, fold, phase
from onelayer.training.files import StorageError

# ---------------------------------------------------------------------------------------------------- boundaries

COUNT = st.integers(1, 60)


@given(COUNT, COUNT, COUNT, st.integers(0, 60), st.integers(0, 200))
def test_boundaries_miss_nothing_that_is_due(every, keep_every, dense_every, dense_until, steps):
    config = tiny({
        "steps": steps,
        "evaluation": {"every": every, "dense_every": dense_every, "dense_until": dense_until},
        "checkpoint": {"every": keep_every},
    })  # fmt: skip
    visited, step = [0], 0
    while step < steps:
        step = loop.next_boundary(config, step)
        assert step > visited[-1]
        visited.append(step)
    assert visited[-1] == steps
    due = {s for s in range(steps + 1) if loop.evaluates(config, s) or s % keep_every == 0}
    assert due <= set(visited)
    assert loop.pinned(config, steps) <= set(visited)


def test_pinned_steps_double_twice_in_each_doubling():
    config = tiny({"steps": 10**4, "evaluation": {"every": 1}, "checkpoint": {"pinned": "log"}})
    assert sorted(loop.pinned(config, 100)) == [0, 8, 12, 16, 23, 32, 46, 64, 91]


# ---------------------------------------------------------------------------------------------------- figures


def records(train, test, every=10):
    return [
        {"step": every * i, "train_accuracy": a, "test_accuracy": b}
        for i, (a, b) in enumerate(zip(train, test, strict=True))
    ]


def test_first_crossing_sustained_crossing_and_collapse_are_told_apart():
    train_accuracy = [0.1, 0.99] + [1.0] * 10
    test_accuracy = [0.0, 0.1, 0.99, 0.2, 0.995, 1.0, 1.0, 0.5, 0.99, 0.99, 0.99, 1.0]
    series = records(train_accuracy, test_accuracy)
    figures = fold(series, StopConfig(sustained=4))
    assert figures == Figures(
        step_memorised=10, step_generalised=20, step_sustained=80, minimum_after=0.2, streak=4, streak_start=80
    )
    assert fold(series[:7], StopConfig(sustained=3)).step_sustained == 40
    assert fold(series[:10], StopConfig(sustained=4)).step_sustained is None
    assert fold(series, StopConfig(sustained=4, threshold=0.999)).step_generalised == 50
    assert fold([], StopConfig()) == Figures()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40), st.integers(1, 6), st.integers(0, 40))
def test_figures_agree_with_their_definition_and_can_be_folded_in_parts(pairs, sustained, cut):
    series = records([a for a, _ in pairs], [b for _, b in pairs])
    stop = StopConfig(threshold=0.5, sustained=sustained)
    figures = fold(series, stop)
    above = [r["test_accuracy"] >= 0.5 for r in series]
    first = next((i for i, good in enumerate(above) if good), None)
    held = next((i for i in range(len(above)) if all(above[i : i + sustained]) and i + sustained <= len(above)), None)
    assert figures.step_generalised == (None if first is None else 10 * first)
    assert figures.step_sustained == (None if held is None else 10 * held)
    assert figures.minimum_after == (None if first is None else min(r["test_accuracy"] for r in series[first:]))
    assert figures.step_memorised == next((r["step"] for r in series if r["train_accuracy"] >= 0.5), None)
    assert fold(series, stop) == fold([*series[:cut], *series[cut:]], stop)


def test_phases_have_names():
    assert phase(Figures()) == "memorising"
    assert "not yet" in phase(Figures(step_memorised=1))
    assert phase(Figures(1, 2, None, 0.9, 1, 2)) == "generalising"
    assert phase(Figures(1, 2, 2, 0.9, 0, None)) == "fell back"
    assert phase(Figures(1, 2, 2, 0.9, 7, 2)) == "generalised"


# ---------------------------------------------------------------------------------------------------- stopping


def test_it_stops_when_the_metric_has_held_long_enough(tmp_path):
    stop = {"on": "sustained", "metric": "train_accuracy", "threshold": 0.9, "sustained": 3}
    result = train(tiny({"steps": 2000, "stop": stop}), tmp_path / "run")
    figures = result.figures
    assert figures.step_sustained is not None
    assert result.step == figures.step_sustained + 2 * 5, "three evaluations, five steps apart"
    assert "3 evaluations in a row" in result.reason
    assert last_checkpoint(tmp_path / "run").name == f"step-{result.step}"


def test_it_stops_at_its_last_step_and_measures_there(tmp_path):
    result = train(tiny({"steps": 13}), tmp_path / "run")
    assert (result.step, result.reason) == (13, "all 13 steps done")
    assert [r["step"] for r in Run(tmp_path / "run").metrics] == [0, 5, 10, 13]


def test_it_stops_when_its_time_is_over(tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    result = train(tiny({"seconds": 12}), tmp_path / "run")
    assert result.status == "finished"
    assert "12 seconds" in result.reason
    assert 0 < result.step < 40


def test_events_come_in_order_and_looking_changes_nothing(tmp_path):
    events = []
    train(tiny(), tmp_path / "watched", events.append)
    train(tiny(), tmp_path / "alone")
    assert fingerprint(tmp_path / "watched") == fingerprint(tmp_path / "alone")
    kinds = [type(event) for event in events]
    assert kinds[:4] == [Started, Evaluated, Advanced, Checkpointed]  # it is written beside the first steps
    assert kinds[-1] is Finished
    assert kinds.count(Evaluated) == 9
    assert [e.step for e in events if isinstance(e, Checkpointed)] == [0, 10, 20, 30, 40]
    assert [e.step for e in events if isinstance(e, Advanced)] == list(range(5, 41, 5))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps whose checkpoints are on the disk, each of which takes a while."""
    done, save = [], checkpoint.save

    def slowly(directory, step, *given):
        time.sleep(0.1)
        path = save(directory, step, *given)
        done.append(step)
        return path

    monkeypatch.setattr(checkpoint, "save", slowly)
    return done


def test_steps_go_on_beside_a_checkpoint_and_the_end_waits_for_it(tmp_path, slow):
    seen = []

    def look(event):
        seen.append((type(event), getattr(event, "step", None), [*slow]))

    train(tiny({"steps": 10}), tmp_path / "run", look)
    assert (Advanced, 5, []) in seen  # while step 0's was being written
    told = [(step, done) for kind, step, done in seen if kind is Checkpointed]
    assert told == [(0, [0]), (10, [0, 10])]  # what is told is there
    assert seen[-1][0] is Finished
    assert seen[-1][2] == [0, 10]


def test_a_checkpoint_under_way_is_finished_whatever_ends_the_session(tmp_path, slow):
    def fail(event):
        if isinstance(event, Advanced):
            raise RuntimeError("a callback's")

    with pytest.raises(RuntimeError, match="a callback's"):
        train(tiny(), tmp_path / "run", fail)
    assert slow == [0]
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [0]
    assert resume(tmp_path / "run").status == "finished"


def test_a_checkpoint_that_fails_is_told_at_the_next_boundary(tmp_path, monkeypatch):
    reached = []

    def full(*_):
        raise StorageError("the disk is full")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(StorageError, match=r"the disk is full\. There is no checkpoint yet"):
        train(tiny(), tmp_path / "run", lambda event: reached.append(getattr(event, "step", None)))
    assert reached[-1] == 5
    with pytest.raises(StorageError, match="the disk is full"):  # of the last one as well
        train(tiny({"steps": 5}), tmp_path / "other")
    assert not (tmp_path / "other" / "result.json").exists()


def test_a_line_of_metrics_says_what_was_measured(tmp_path):
    train(tiny(), tmp_path / "run")
    first, *_, last = Run(tmp_path / "run").metrics
    names = {"train_loss", "train_accuracy", "test_loss", "test_accuracy", "mirror_free_accuracy", "weight_norm"}
    assert set(first) == {"step", *names}
    assert set(last) == {"step", "loss", "grad_norm", *names}
    weights = Run(tmp_path / "run").parameters()
    assert last["weight_norm"] == pytest.approx(sum((w.astype("float64") ** 2).sum() for w in weights.values()) ** 0.5)


# ---------------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"optimizer": {"lr": 1e30}}, "loss|gradient|update"),
        ({"optimizer": {"name": "sgd", "lr": 1e38}}, "loss|gradient|update"),
        ({"model": {"init_scale": 1e25}}, "loss|gradient|update|evaluation"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_diverges_names_the_tensor_and_keeps_what_was_good(tmp_path, change, kind):
    result = train(tiny(change), tmp_path / "run")
    assert result.status == "diverged"
    assert pytest.approx(result.step, abs=10) == 0
    assert any(word in result.reason for word in kind.split("|"))
    assert "step" in result.reason
    assert Run(tmp_path / "run").status == "diverged"
    for step in Run(tmp_path / "run").snapshots:
        assert all((abs(w) < float("inf")).all() for w in Run(tmp_path / "run").parameters(step).values())


def test_divergence_late_leaves_the_last_good_checkpoint_as_it_was(tmp_path, monkeypatch):
    from onelayer.training.engines import Diverged, numpy_engine

    real = numpy_engine.Engine.run

    def run(self, state, step, n):
        if step >= 25:
            raise Diverged(step + 2, "blocks.0.mlp.W_in", "gradient")
        return real(self, state, step, n)

    with monkeypatch.context() as patched:
        patched.setattr(numpy_engine.Engine, "run", run)
        result = train(tiny(), tmp_path / "run")
    assert "blocks.0.mlp.W_in" in result.reason
    assert "step 27" in result.reason
    assert last_checkpoint(tmp_path / "run").name == "step-20"
    train(tiny(), tmp_path / "whole")
    assert resume(tmp_path / "run").status == "finished", "the cause was outside the run"
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


def test_a_batch_larger_than_the_data_is_refused_before_a_directory_is_made(tmp_path):
    with pytest.raises(BadInput, match="batch"):
        train(tiny({"batch_size": 1000}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_obeyed_at_the_next_boundary_and_costs_nothing(tmp_path, number):
    def at_12(event):
        if isinstance(event, Advanced) and event.step == 15:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    result = train(tiny(), tmp_path / "run", at_12)
    assert (result.status, result.step, result.signal) == ("interrupted", 15, number)
    assert signal.getsignal(number) is before
    assert last_checkpoint(tmp_path / "run").name == "step-15"
    resume(tmp_path / "run")
    train(tiny(), tmp_path / "whole")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


def test_a_second_interrupt_acts_at_once(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it

    def twice(event):
        if isinstance(event, Advanced) and event.step == 15:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            train(tiny(), tmp_path / "run", twice)
    finally:
        signal.signal(signal.SIGINT, before)
    assert last_checkpoint(tmp_path / "run").name == "step-10"
    resume(tmp_path / "run")
    train(tiny(), tmp_path / "whole")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


# ---------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains(recipe, tmp_path):
    (tmp_path / "text").write_text("".join(f"{a}{b} and {b}{a}\t{b}{a} or {a}{b}\n" for a in "abcd" for b in "efgh"))
    tasks = {
        "words": {"name": "reverse", "n_train": 60, "n_valid": 10, "n_test": 10, "longest": 6, "longer": 7},
        "pairs": {"name": "pairs", "train": str(tmp_path / "text")},
        "translation": {"name": "pairs", "train": str(tmp_path / "text"), "source_units": "words",
                        "target_units": "words", "shared": True},
        "language": {"name": "language", "path": str(tmp_path / "text"), "context": 8},
    }  # fmt: skip
    small = {"model": {"d_model": 8, "n_heads": 2, "d_mlp": 12}, "steps": 12}
    task = {"task": tasks.get(recipe, {"p": 7, "train_fraction": 0.5})}
    fewer = {"batch_size": 8} if configure(recipe).batch_size else {}
    assert configure(None, task).recipe == recipe or recipe not in tasks
    result = train(configure(recipe, small, fewer, task), tmp_path / "run")
    assert (result.status, result.step) == ("finished", 12)
    first, *_, last = Run(tmp_path / "run").metrics
    assert last["train_loss"] < first["train_loss"]
    assert RECIPES[recipe].citation
