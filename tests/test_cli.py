"""The command line's promises: exit codes, messages, one JSON line, lazy imports; and each command's own --help."""

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
from backends import needs
from pydantic import BaseModel, ConfigDict, Field

from onelayer import cli
from onelayer.cli._common import Json, answer, plain
from onelayer.errors import BadInput, WorkFailed


class Optimizer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    lr: float = Field(default=0.1, gt=0)


def toy(
    *,
    p: int = 7,
    engine: Literal["numpy", "jax"] = "numpy",
    optimizer: Optimizer = Optimizer(),  # noqa: B008  frozen
    fault: str = "",
    as_json: Json = False,
) -> None:
    """A command as any other.

    $ onelayer toy --p 5
    """
    faults = {
        "bad": BadInput("p must be prime, received 9"),
        "failed": WorkFailed("the loss became NaN at step 3"),
        "disk": OSError(28, "No space left on device", "runs/x"),
        "stop": KeyboardInterrupt(),
        "told": KeyboardInterrupt("interrupted; continue with `onelayer resume runs/x`"),
        "bug": ZeroDivisionError("a defect of ours"),
    }
    if fault in faults:
        raise faults[fault]
    if fault == "config":
        Optimizer.model_validate({"lr": -1.0, "rl": 2})
    answer({"p": p, "engine": engine, "lr": optimizer.lr}, f"p is {p}", as_json=as_json)


@pytest.fixture(autouse=True)
def _toy_is_a_command(monkeypatch):
    module = ModuleType("onelayer.cli.toy")
    module.toy = toy  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "toy", "What a toy does, in a line.")


def run(*tokens: str) -> int:
    return cli.run(tokens)


def test_help_lists_commands_by_their_line_and_shows_a_command_by_its_docstring(capsys):
    assert run("--help") == 0
    assert "What a toy does, in a line." in capsys.readouterr().out
    assert run("toy", "--help") == 0
    out = capsys.readouterr().out
    assert "A command as any other." in out
    assert "$ onelayer toy --p 5" in out
    assert "--optimizer.lr" in out


# ---------------------------------------------------------------------------------------------------- exit codes


def test_done_is_0_and_says_so_on_stdout(capsys):
    assert run("toy", "--p", "5") == 0
    assert capsys.readouterr() == ("p is 5\n", "")


def test_json_is_one_object_on_the_last_line(capsys):
    assert run("toy", "--engine", "jax", "--optimizer.lr", "0.5", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == {"p": 7, "engine": "jax", "lr": 0.5}
    assert err == ""


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["grk"], ["'grk'", "did you mean 'grok'", "toy", *cli.COMMANDS]),
        (["toy", "--pp", "3"], ["--pp", "--p"]),
        (["toy", "--p", "x"], ["--p", '"x"', "int"]),
        (["toy", "3"], ["3"]),
        (["toy", "--engine", "nunpy"], ['"nunpy"', '"numpy"', '"jax"']),
        (["toy", "--optimizer.lrr", "3"], ["--optimizer.lrr", "--optimizer.lr"]),
        (["toy", "--optimizer.lr", "-1"], ["lr: Input should be greater than 0", "-1"]),
        (["toy", "--fault", "bad"], ["p must be prime, received 9"]),
        (["toy", "--fault", "config"], ["lr: Input should be greater than 0, received -1.0; rl: Extra inputs"]),
    ],
)
def test_bad_input_is_2_with_words_on_stderr(capsys, tokens, words):
    assert run(*tokens) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("onelayer: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("failed", 1, "the loss became NaN at step 3"),
        ("disk", 1, "No space left on device: 'runs/x'"),
        ("stop", 130, "interrupted"),
        ("told", 130, "onelayer resume runs/x"),
    ],
)
def test_failed_is_1_and_interrupted_is_130(capfd, fault, code, words):
    assert run("toy", "--fault", fault) == code
    assert words in capfd.readouterr().err


def test_a_defect_of_ours_is_not_dressed_up():
    with pytest.raises(ZeroDivisionError):
        run("toy", "--fault", "bug")


# ---------------------------------------------------------------------------------------------------- as a process


def process(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], text=True, stderr=subprocess.PIPE, timeout=60, **options)


def test_module_and_main_answer_help_version_and_exit_codes():
    for arguments in ([], ["--help"], ["-h"]):
        got = process("-m", "onelayer", *arguments, stdout=subprocess.PIPE)
        assert (got.returncode, got.stderr) == (0, "")
        assert "onelayer COMMAND" in got.stdout
    assert process("-m", "onelayer", "--version", stdout=subprocess.PIPE).stdout.strip() == "0.1.0"
    assert process("-m", "onelayer", "nonsense", stdout=subprocess.PIPE).returncode == 2


@needs("/dev/full")
def test_a_full_disk_under_stdout_is_1_with_one_message():
    with open("/dev/full", "w") as full:
        got = process("-m", "onelayer", "--help", stdout=full)
    assert got.returncode == 1
    assert got.stderr == "onelayer: [Errno 28] No space left on device\n"


OFFER_A_TOY = """
import sys, types
from onelayer import cli
from onelayer.cli._common import answer
cli.COMMANDS["toy"] = "a toy"
sys.modules["onelayer.cli.toy"] = types.SimpleNamespace(toy=lambda: answer({}, "said"))
""".strip().replace("\n", "; ")


def test_a_reader_that_leaves_is_no_failure():
    reader, writer = os.pipe()
    os.close(reader)
    got = process("-c", f"{OFFER_A_TOY}; raise SystemExit(cli.run(['toy']))", stdout=writer)
    os.close(writer)
    assert (got.returncode, got.stderr) == (0, "")


HEAVY = ("jax", "plotly", "torch", "matplotlib", "scipy", "numba", "fastapi", "optax", "jinja2")


@pytest.mark.parametrize("statement", ["import onelayer", "import onelayer.cli as cli; cli.run(['--help'])"])
def test_nothing_heavy_is_imported_for_help(statement):
    loaded = f"{statement}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    got = process("-c", loaded, stdout=subprocess.PIPE)
    assert got.stdout.splitlines()[-1] == "[]", got.stderr


# ---------------------------------------------------------------------------------------------------- each command


@pytest.mark.parametrize("name", [*cli.COMMANDS, "toy"])
def test_every_command_has_help_with_an_example_and_json(name, capsys):
    command = getattr(importlib.import_module(f"onelayer.cli.{name}"), name)
    assert f"$ onelayer {name}" in (inspect.getdoc(command) or ""), "the docstring shows an example"
    assert cli.run([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"$ onelayer {name}" in out
    assert "--json" in out


def test_every_file_of_the_folder_is_a_command():
    assert cli.__file__ is not None
    files = {path.stem for path in Path(cli.__file__).parent.glob("[!_]*.py")}
    assert files | {"toy"} == set(cli.COMMANDS)


# ---------------------------------------------------------------------------------------------------- JSON


def test_plain_says_in_json_what_numpy_and_paths_say():
    value = {
        "n": np.int64(3),
        "x": np.float32(0.5),
        "a": np.array([[1.0, np.nan]]),
        "p": Path("runs/x"),
        1: (None, True),
    }
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "n": 3,
        "x": 0.5,
        "a": [[1.0, None]],
        "p": "runs/x",
        "1": [None, True],
    }
    assert plain([float("inf"), "ω"]) == [None, "ω"]
