"""Guards runs of strings: what they keep, that they resume to the bit, how they stop and choose, and their door."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from tiny import fingerprint, tiny

from onelayer import cli
from onelayer.errors import BadInput
from onelayer.report.terminal import Display
from onelayer.tasks import reverse
from onelayer.training import Run, RunConfig, budget, checkpoint, configure, loop, resume, train
from onelayer.training.config import StopConfig
from onelayer.training.events import Advanced, Evaluated
from onelayer.training.figures import Figures, fold, phase
from onelayer.training.opened import open_text, validation_loss
from onelayer.training.step import make_objective
from onelayer.words.final import conclude

SMALL = {
    "model": {"d_model": 8, "n_heads": 2, "d_mlp": 12},
    "batch_tokens": 60,
    "bucket": 2,
    "steps": 24,
    "evaluation": {"every": 3, "train_examples": 20},
    "checkpoint": {"every": 6, "pinned": "none", "average": 2},
    "schedule": {"warmup": 2, "total": 24},
    "optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.01},
}
LETTERS = "abcdef"


@pytest.fixture
def words(tmp_path) -> Path:
    """Words, and their letters apart: train, valid and test."""
    rng = np.random.default_rng(0)
    for name, n in (("train", 60), ("valid", 12), ("test", 12)):
        some = ["".join(rng.choice(list(LETTERS), rng.integers(1, 7))) + name[0] for _ in range(n)]
        (tmp_path / f"{name}.tsv").write_text("".join(f"{word}\t{' '.join(word.upper())}\n" for word in some))
    return tmp_path


def config(words: Path, *changes: dict) -> RunConfig:
    files = {name: str(words / f"{name}.tsv") for name in ("train", "valid", "test")}
    return configure(None, SMALL, {"task": {"name": "pairs", "target_units": "words", **files}}, *changes)


def interrupted(config: RunConfig, path: Path, step: int) -> Path:
    def leave(event):
        if isinstance(event, Advanced) and event.step >= step:
            signal.raise_signal(signal.SIGTERM)

    assert train(config, path, leave).status == "interrupted"
    return path


def kept(run: Path) -> dict[str, bytes]:
    """The weights that a run still has, by step."""
    return {path.parent.name: path.read_bytes() for path in (run / "checkpoints").glob("*/model.safetensors")}


# ---------------------------------------------------------------------------------------------------- resume

HOW = {
    "tokens": {},
    "accumulated": {"accumulate": 2, "loss": {"label_smoothing": 0.1}},
    "by number": {"batch_tokens": None, "batch_size": 7},
    "muon, drawn ids": {
        "optimizer": "muon",
        "model": {"position_ids": "random", "position_ids_settings": {"reach": 32}},
    },
}


@pytest.mark.parametrize(
    ("how", "step"),
    [("tokens", 7), ("tokens", 12), ("tokens", 19), ("accumulated", 7), ("by number", 12), ("muon, drawn ids", 19)],
)
def test_a_run_goes_on_as_if_nothing_had_been(words, how, step):
    """To the last bit: weights, moments, measurements, the best weights, and those that are averaged."""
    setting = config(words, HOW[how])
    whole = train(setting, words / "whole")
    run = interrupted(setting, words / "run", step)
    assert resume(run).figures == whole.figures
    assert fingerprint(run) == fingerprint(words / "whole")
    assert kept(run).items() >= kept(words / "whole").items()


def test_a_crash_that_takes_a_checkpoint_takes_no_best_weights(words):
    whole = train(config(words), words / "whole").run
    run = train(config(words), words / "run").run
    (run / "result.json").unlink()
    (run / "checkpoints" / "step-24" / "model.safetensors").write_bytes(b"")  # as if the disk had lost it
    best = max(step for step in loop.bests(Run(run).metrics, config(words).stop) if step <= 18)
    assert best in Run(run).snapshots, "the best as of the checkpoint that it goes back to is still there"
    resume(run)
    assert fingerprint(run) == fingerprint(whole)


def test_data_that_changed_is_refused_by_its_name(words):
    run = interrupted(config(words), words / "run", 7)
    text = (words / "valid.tsv").read_text()
    (words / "valid.tsv").write_text(text.replace("a", "b", 1))
    with pytest.raises(BadInput, match=r"valid\.tsv is no longer what it was"):
        resume(run)
    (words / "valid.tsv").unlink()
    with pytest.raises(BadInput, match=r"cannot read .*valid\.tsv"):
        resume(run)
    (words / "valid.tsv").write_text(text)
    assert resume(run).status == "finished"


def test_examples_that_are_drawn_otherwise_are_refused(tmp_path, monkeypatch):
    drawn = configure(None, SMALL, {"task": {"name": "reverse", "n_train": 60, "n_valid": 9, "n_test": 9}})
    run = interrupted(drawn.model_copy(update={"batch_tokens": 200}), tmp_path / "run", 7)
    monkeypatch.setattr(reverse, "_reversed", lambda symbols: symbols)
    with pytest.raises(BadInput, match="no longer draws what it drew"):
        resume(run)


# ---------------------------------------------------------------------------------------------------- what is kept


def test_the_best_weights_stay_and_those_before_them_go(words):
    setting = config(words, {"optimizer": {"lr": 0.5}, "checkpoint": {"average": 0, "keep": 1}})
    run = train(setting, words / "run").run
    figures = fold(Run(run).metrics, setting.stop)
    losses = {record["step"]: record["valid_loss"] for record in Run(run).metrics}
    assert figures.best == min(losses.values())
    assert losses[figures.step_best] == figures.best
    assert set(Run(run).snapshots) == {figures.step_best, 24}
    assert open_text(run).step == figures.step_best
    assert not checkpoint.is_whole(run / "checkpoints" / f"step-{figures.step_best}") or figures.step_best == 24


def test_a_run_is_opened_for_its_words_without_its_data(words):
    run = train(config(words), words / "run").run
    task = config(words).task.make(0)
    for file in words.glob("*.tsv"):
        file.unlink()
    opened = open_text(run)
    assert (opened.weights, opened.source, opened.target) == ("best", task.text.source, task.text.target)
    assert opened.model == make_objective(config(words), task).model
    assert opened.params.unembed.W_U.dtype == np.float32
    record = next(r for r in Run(run).metrics if r["step"] == opened.step)
    assert validation_loss(opened, task) == pytest.approx(record["valid_loss"], rel=1e-6)
    average = open_text(run, "average")
    assert average.steps == (18, 24)
    for name in ("unembed.W_U", "encoder.blocks.0.attn.W_Q"):
        both = [Run(run).parameters(step)[name].astype(float) for step in average.steps]
        found = average.params
        for part in name.split("."):
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        assert np.allclose(found, (both[0] + both[1]) / 2, atol=1e-7)
    assert open_text(run, 18).step == 18
    for wrong in ("bset", 5):
        with pytest.raises(BadInput, match=r"best|18"):
            open_text(run, wrong)


def test_what_a_run_of_numbers_lacks_is_said(tmp_path):
    run = train(tiny({"steps": 2}), tmp_path / "run").run
    assert not (run / "units.json").exists()
    with pytest.raises(BadInput, match=r"units\.json"):
        open_text(run)


def test_an_evaluation_measures_valid_and_a_sample_of_train_and_never_test(words):
    run = train(config(words, {"steps": 3}), words / "run").run
    names = set(Run(run).metrics[-1])
    assert names == {
        "step", "loss", "grad_norm", "weight_norm", "train_loss", "train_teacher_forced_accuracy",
        "valid_loss", "valid_teacher_forced_accuracy",
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------- stopping


def test_it_stops_when_it_learns_no_more(words):
    setting = config(words, {"optimizer": {"lr": 0.0}, "stop": {"patience": 3}, "steps": 240})
    result = train(setting, words / "run")
    assert result.step == 9, "the first evaluation is the best, and three follow it"
    assert "valid_loss did not become better in 3 evaluations, since step 0" in result.reason


def test_of_a_loss_less_is_better():
    stop = StopConfig(metric="valid_loss", threshold=0.5, sustained=2, best="valid_loss")
    losses = [2.0, 0.4, 0.7, 0.5, 0.3, 0.3]
    series = [{"step": i, "valid_loss": v, "train_loss": v - 0.2} for i, v in enumerate(losses)]
    figures = fold(series, stop)
    assert figures == Figures(1, 1, 3, 0.7, 3, 3, step_best=4, best=0.3, since_best=1)
    assert phase(figures) == "generalised"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stop": {"best": "valid_los"}}, "valid_los is not measured.*valid_loss"),
        ({"stop": {"on": "sustained"}}, "test_accuracy is not measured.*valid_teacher_forced_accuracy"),
        ({"stop": {"best": None, "patience": 2}}, "patience = 2"),
        ({"batch_size": 4}, "batch_size = 4 and batch_tokens = 60"),
        ({"engine": "jax"}, "batch_tokens = 60 is for the engine numpy"),
        ({"batch_tokens": 8}, "longest example"),
    ],
)
def test_what_cannot_be_is_refused_before_a_directory_is_made(words, change, said):
    with pytest.raises(BadInput, match=said):
        train(config(words, change), words / "run")
    assert not (words / "run").exists()


def test_a_run_fitted_to_its_time_says_how_many_steps_it_has(words):
    planned = budget.planned(config(words), 130)
    assert (planned.steps, planned.evaluation.every, planned.checkpoint.every) == (120, 6, 6)
    assert planned.schedule.settings["total"] == 120
    result = train(config(words, {"seconds": 2.0}), words / "run", fit=True)
    found = Run(words / "run").config
    assert found.steps % found.evaluation.every == 0
    assert found.schedule.settings["total"] == found.steps
    assert result.seconds < 4


# ---------------------------------------------------------------------------------------------------- the door


def door(words: Path, *more: str) -> list[str]:
    files = [f"--{name}={words / f'{name}.tsv'}" for name in ("train", "valid", "test")]
    small = ["--model.d-model", "8", "--model.n-heads=2", "--model.d-mlp", "12", "--batch-tokens", "200"]
    return ["train", "pairs", *files, "--source-units", "characters", "--target-units", "words", *small, *more]


def test_the_door_for_any_pairs(words, capsys, monkeypatch):
    monkeypatch.chdir(words)
    out = words / "run"
    assert cli.run(door(Path(), "--minutes", "0.03", "--out", str(out), "--no-report", "--json")) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told.keys() >= {"task", "seconds", "steps", "tokens_per_second", "metrics", "run"}
    assert told["metrics"].keys() == {"valid", "test"}
    assert told["metrics"]["test"].keys() >= {"exact_match", "word_error_rate", "phone_error_rate"}
    assert told["tokens_per_second"] > 0
    found = Run(out).config
    assert (found.seconds, found.recipe) == (1.8, "pairs")
    assert found.task.settings["train"] == os.path.abspath("train.tsv")
    assert found.task.settings["target_units"] == "words"
    before = fingerprint(out)
    assert cli.run(door(words, "--minutes", "1", "--out", str(out))) == 2
    assert "not empty" in capsys.readouterr().err
    assert fingerprint(out) == before


def test_an_interrupted_door_is_gone_on_with(words, capsys, monkeypatch):
    whole = words / "whole"
    assert cli.run(door(words, "--steps", "8", "--evaluation.every", "4", "--out", str(whole), "--no-report")) == 0
    run = words / "run"

    def leave(self, event):
        if isinstance(event, Evaluated) and event.step == 4:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Display, "__call__", leave)
        with pytest.raises(SystemExit):
            cli.run(door(words, "--steps", "8", "--evaluation.every", "4", "--out", str(run), "--no-report", "--json"))
    capsys.readouterr()
    assert cli.run(["resume", str(run), "--no-report", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["steps"] == 8
    assert fingerprint(run) == fingerprint(whole)
    final = conclude(whole)
    assert told["metrics"] == final.metrics
    assert set(final.valid_loss) <= {"best", "average", "last"}


def test_a_word_that_is_no_option_is_named_with_the_tasks_own(words, capsys):
    assert cli.run(["train", "pairs", "--trian", "a.tsv"]) == 2
    assert "did you mean '--train'?" in capsys.readouterr().err
