"""Guards the commands that drive runs: their JSON, their exit codes, what they refuse, and in what words."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from tiny import fingerprint, last_checkpoint, tiny

from onelayer import cli
from onelayer.cli._runs import changes
from onelayer.errors import BadInput
from onelayer.report.terminal import Display, sparkline
from onelayer.training import Run, train

SMALL = [
    "--p", "7", "--train-fraction", "0.5", "--model.d-model", "8", "--model.d-mlp=12",
    "--set", "evaluation.every=5", "--stop.on", "none", "--no-report",
]  # fmt: skip
SHORT = [*SMALL, "--steps", "20"]
FROM_THE_ISSUE = {
    "operation", "p", "train_fraction", "seed", "engine", "recipe", "steps", "seconds", "step_memorised",
    "step_generalised", "step_sustained", "train_accuracy", "test_accuracy", "mirror_free_accuracy",
    "majority_accuracy", "run", "report",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def answer(capsys: pytest.CaptureFixture[str], *tokens: str) -> dict:
    assert cli.run([*tokens, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refusal(capsys: pytest.CaptureFixture[str], *tokens: str, code: int = 2) -> str:
    assert cli.run(tokens) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("onelayer: ")
    return err


# ---------------------------------------------------------------------------------------------------- grok, train


def test_grok_answers_what_the_issue_asks_for(capsys):
    facts = answer(capsys, "grok", "--seed", "1", *SHORT)
    assert facts.keys() >= FROM_THE_ISSUE
    assert (facts["p"], facts["seed"], facts["steps"], facts["engine"], facts["recipe"]) == (
        7,
        1,
        20,
        "numpy",
        "default",
    )
    run = Path(facts["run"])
    assert run.parts[0] == "runs"
    assert run.name.startswith("arithmetic-x-plus-y-1-")
    assert Run(run).config.model.d_model == 8
    assert Run(run).metrics[-1]["test_accuracy"] == facts["test_accuracy"]


def test_grok_writes_its_report(capsys):
    facts = answer(capsys, "grok", *[token for token in SHORT if token != "--no-report"], "--out", "here")
    assert facts["report"] == "here/report.html"
    assert "</html>" in Path("here/report.html").read_text()


def test_grok_in_words(capsys):
    assert cli.run(["grok", *SHORT, "--out", "here"]) == 0
    out, err = capsys.readouterr()
    assert "finished at step 20: all 20 steps done" in out
    assert "training in here" in err
    assert "step     20" in err


def test_a_file_is_laid_over_a_recipe_and_options_over_the_file(capsys):
    Path("mine.toml").write_text('recipe = "fastest"\nsteps = 9\n[optimizer]\nlr = 0.7\n[task]\np = 7\n')
    assert cli.run(["train", "--config", "mine.toml", "--steps=8", "--task.train-fraction=0.5", "--print-config"]) == 0
    out = capsys.readouterr().out
    for line in ('recipe = "fastest"', "steps = 8", "lr = 0.7", "weight_decay = 0.2", "p = 7", "train_fraction = 0.5"):
        assert line in out.splitlines()


def test_train_takes_any_task(capsys):
    size = ["--task.n-bits", "6", "--task.k=2", "--task.n-train", "20", "--task.n-test=10", "--model.d-model", "8"]
    facts = answer(capsys, "train", "parity", *size, "--steps", "3", "--no-report", "--out", "here")
    assert (facts["task"], facts["steps"]) == ("parity", 3)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["grok", "--sed", "3"], ["'--sed'", "'--seed'"]),
        (["grok", "--operatoin", "x"], ["'--operatoin'", "'--operation'"]),
        (["grok", "--modle.d-model", "3"], ["'--modle.d-model'", "--model"]),
        (["grok", "--model.d-modle", "3"], ["model.d_modle", "d_model"]),
        (["grok", "--optimizer.lr"], ["--optimizer.lr needs a value"]),
        (["grok", "--set", "optimizer.lr"], ["FIELD=VALUE", "optimizer.lr"]),
        (["grok", "addition"], ["'addition'", "--seed 1"]),
        (["grok", "--recipe", "nanda"], ["'nanda'", "nanda-2023"]),
        (["grok", "--engine", "jacks"], ["jacks", "jax"]),
        (["grok", "--operation", "x + why"], ["why"]),
        (["grok", "--operation", "__import__('os').abort()"], ["__import__"]),
        (["grok", "--operation", "9**9**9"], ["9**9**9"]),
        (["grok", "--operation", "x / y", "--p", "9"], ["9", "prime"]),
        (["grok", "--train-fraction", "1"], ["1"]),
        (["grok", "--train-fraction", "0"], ["0"]),
        (["grok", "--p", "x"], ["--p", '"x"']),
        (["grok", "--model.d-model", "30"], ["4 heads", "30"]),
        (["grok", "--batch-size", "100000"], ["batch", "100000"]),
        (["grok", "--config", "nope.toml"], ["nope.toml"]),
        (["train", "pairity"], ["'pairity'", "parity"]),
        (["resume", "nope"], ["nope", "not a run"]),
        (["runs", "show", "nope"], ["nope", "not a run"]),
        (["runs", "show"], ["show takes one run"]),
        (["runs", "compare", "nope"], ["two runs"]),
        (["runs", "--root", "nope"], ["nope", "--root"]),
        (["runs", "lits"], ["list"]),
    ],
)
def test_bad_input_is_2_with_the_right_words_and_leaves_nothing(tokens, words, capsys):
    err = refusal(capsys, *tokens)
    for word in words:
        assert word in err
    assert list(Path().iterdir()) == []


def test_a_directory_that_is_not_empty_is_refused_and_untouched(capsys):
    Path("here").mkdir()
    Path("here/thesis.tex").write_text("mine")
    assert "not empty" in refusal(capsys, "grok", *SHORT, "--out", "here")
    assert [path.name for path in Path("here").iterdir()] == ["thesis.tex"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_diverges_is_1_and_still_answers(capsys):
    assert cli.run(["grok", *SHORT, "--out", "here", "--optimizer.lr", "1e30", "--json"]) == 1
    out, err = capsys.readouterr()
    facts = json.loads(out.splitlines()[-1])
    assert facts["status"] == "diverged"
    assert "diverged at step" in err.splitlines()[-1]


def test_overrides_nest():
    assert changes(["--model.d-model", "8", "--optimizer.lr=-0.1", "--set", "stop.on=none", "--schedule", "noam"]) == {
        "model": {"d_model": 8}, "optimizer": {"lr": -0.1}, "stop": {"on": "none"}, "schedule": "noam",
    }  # fmt: skip
    assert changes(["--optimizer.decay", '{"*.b_*": 0}']) == {"optimizer": {"decay": {"*.b_*": 0}}}
    with pytest.raises(BadInput, match="give either"):
        changes(["--schedule", "cosine", "--schedule.warmup", "3"])


# ---------------------------------------------------------------------------------------------------- resume, runs


def test_resume_goes_on_and_refuses_what_would_change_the_run(capsys):
    facts = answer(capsys, "grok", *SHORT, "--out", "here")
    again = answer(capsys, "resume", "here", "--no-report")
    assert (again["steps"], again["seconds"]) == (facts["steps"], facts["seconds"])
    assert "optimizer.lr was 0.01, received 0.5" in refusal(capsys, "resume", "here", "--optimizer.lr", "0.5")
    assert answer(capsys, "resume", "here", "--steps", "30", "--no-report")["steps"] == 30
    assert answer(capsys, "grok", *SMALL, "--steps", "30", "--out", "there")["steps"] == 30
    assert fingerprint(Path("here")) == fingerprint(Path("there"))


def test_runs_lists_shows_and_compares(capsys):
    for seed in ("0", "1"):
        answer(capsys, "grok", *SHORT, "--seed", seed, "--out", f"runs/{seed}")
    assert [Path(row["run"]).name for row in answer(capsys, "runs")["runs"]] == ["0", "1"]
    shown = answer(capsys, "runs", "show", "runs/1")
    assert (shown["seed"], shown["evaluations"], shown["config"]["model"]["d_model"]) == (1, 5, 8)
    compared = answer(capsys, "runs", "compare", "runs/0", "runs/1")
    assert compared["differences"] == {"seed": [0, 1]}
    for tokens in (["runs"], ["runs", "show", "runs/0"], ["runs", "compare", "runs/0", "runs/1"]):
        assert cli.run(tokens) == 0
        assert "100.0 %" in (out := capsys.readouterr().out) or "finished" in out


# ---------------------------------------------------------------------------------------------------- as a process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_how_to_go_on(number, code):
    command = [sys.executable, "-m", "onelayer", "grok", *SMALL, "--steps", "1000000", "--out", "here"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    while not Path("here/checkpoints/step-0").exists() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    step = int(last_checkpoint(Path("here")).name.removeprefix("step-"))
    assert f"stopped at step {step}, and kept: `onelayer resume here` goes on from there" in err
    assert Run("here").status == "interrupted"


# ---------------------------------------------------------------------------------------------------- the display


def test_a_sparkline_runs_from_low_to_high():
    assert sparkline([0.0, 0.5, 1.0], 10) == "▁▅█"
    assert sparkline([i / 99 for i in range(100)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([], 5) == ""
    assert sparkline([3.0, 3.0], 5, 3.0, 3.0) == "▁▁"
    assert sparkline([-9.0, 9.0], 5) == "▁█"


def test_the_display_draws_on_a_terminal_and_writes_lines_elsewhere(tmp_path):
    config = tiny()
    for terminal in (True, False):
        console = Console(force_terminal=terminal, width=100, record=True, file=io.StringIO())
        with Display(console) as display:
            train(config, tmp_path / str(terminal), display)
        text = console.export_text()
        assert "train" in text and "memoris" in text
        assert ("accuracy" in text) and ("█" in text or not terminal)
