"""Guards what a run leaves on the disk: configs that say all, checkpoints that verify, one writer, full disks."""

import errno
import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import fingerprint, last_checkpoint, tiny

from onelayer.arrays import generator
from onelayer.errors import BadInput
from onelayer.training import RECIPES, Run, checkpoint, configure, index, metrics, resume, train
from onelayer.training.config import differences, dotted, load, merge, nest, parse_value, resolve
from onelayer.training.files import StorageError, read_json
from onelayer.training.lock import RunLocked, holder, lock
from onelayer.training.run_directory import default_path, slug

FLAT = st.dictionaries(st.text("xyz", min_size=1), st.integers(), min_size=1)
NESTED = st.dictionaries(st.text("abc", min_size=1), FLAT)
DEEP = "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000


WITH_TINY = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
WORDS = {  # what is wrong with a checkpoint, and a word of what is said about it
    "format": "not a checkpoint",
    "step": "step 39",
    "shape": "[8, 4]",
    "dtype": "float64",
    "extra": "W_X",
    "missing": "W_E",
    "nan": "W_E",
    "inf": "W_E",
    "pickle": "safetensors",
    "no state": "tensors",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run; tests work on copies of it."""
    return train(tiny(), tmp_path_factory.mktemp("finished") / "run").run


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


# ---------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_config_survives_json_and_toml(recipe, tmp_path):
    config = configure(recipe)
    for suffix, text in ((".json", config.to_json()), (".toml", config.to_toml())):
        path = tmp_path / f"config{suffix}"
        path.write_text(text)
        again = resolve(load(path))
        assert again == config
        assert hash(again) == hash(config)
        assert again.to_json() == config.to_json()


def test_a_config_differs_from_a_changed_one_in_that_field_alone():
    changed = configure("default", {"optimizer": {"beta2": 0.99}})
    found = list(differences(configure().as_dict(), changed.as_dict()))
    assert found == [("optimizer.beta2", 0.98, 0.99)]
    assert changed != configure()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"modle": {}}, ["modle", "model"]),
        ({"model": {"d_modl": 8}}, ["model.d_modl", "d_model"]),
        ({"task": {"operaton": "x"}}, ["operaton", "'operation'"]),
        ({"optimizer": {"beta3": 0.1}}, ["beta3", "'beta1'", "weight_decay"]),
        ({"optimizer": "adamv"}, ["adamv", "adam, adamw"]),
        ({"optimizer": {"lr": "fast"}}, ["optimizer.lr", "'fast'", "number"]),
        ({"optimizer": {"lr": float("nan")}}, ["optimizer.lr", "nan", "finite"]),
        ({"optimizer": {"beta1": 1.5}}, ["beta1", "1.5"]),
        ({"schedule": {"name": "cosine", "warmpu": 3}}, ["warmpu", "'warmup'"]),
        ({"filters": [{"name": "clip", "max_norm": -1}]}, ["filters.0", "max_norm", "-1"]),
        ({"projections": [{"name": "constant"}]}, ["projections.0", "constant_norm"]),
        ({"loss": {"variant": "hinge"}}, ["loss.variant", "'hinge'", "'stablemax'"]),
        ({"evaluation": {"every": 0}}, ["evaluation.every", "0", "greater than or equal to 1"]),
        ({"model": {"d_model": 30}}, ["4 heads", "30", "1, 2, 3, 5, 6, 10, 15, 30"]),
        ({"model": {"position": "rop"}}, ["rop", "rope"]),
        ({"engine": "numpyy"}, ["engine", "'numpyy'", "'numpy'"]),
        ({"steps": -1}, ["steps", "-1"]),
        ({"seed": "a", "batch_size": 0}, ["seed", "batch_size"]),
    ],
)
def test_a_bad_config_names_the_field_what_came_and_what_may(data, words):
    with pytest.raises(BadInput) as error:
        resolve(data)
    for word in words:
        assert word in str(error.value)


def test_what_looks_like_code_stays_text():
    assert parse_value("__import__('os').system('true')") == "__import__('os').system('true')"
    with pytest.raises(BadInput):
        resolve({"engine": "__import__('os')"})
    values = [parse_value(text) for text in ("null", "none", "1e-3", "[1, 2]", "x + y")]
    assert values == [None, "none", 1e-3, [1, 2], "x + y"]


def test_another_name_takes_nothing_from_the_old_settings():
    config = configure("muon", {"optimizer": "sgd"})
    assert config.optimizer.settings == {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    assert configure("muon", {"optimizer": {"lr": 1.0}}).optimizer.settings["momentum"] == 0.95


@given(NESTED)
def test_dotted_fields_and_nested_ones_are_the_same(nested):
    assert nest(dict(dotted(nested))) == nested
    assert merge(nested, nested) == nested


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        "[" * 100_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        "x" * 2_000_000,
    ],
    ids=["empty", "list", "half", "twice", "nan", "deep", "deep-objects", "large"],
)
def test_json_that_is_no_config_is_refused_with_its_path(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"config\.json"):
        resolve(read_json(path))


def test_names_of_runs_are_plain():
    assert slug("x**2 + 3*y") == "x-pow-2-plus-3-times-y"
    assert slug("../../etc/passwd\0<b>") == "over-over-etc-over-passwd-b"
    name = default_path(tiny(), "/nowhere").name
    assert name.startswith("arithmetic-x-plus-y-0-")


# ---------------------------------------------------------------------------------------------------- directories


def test_a_run_holds_what_is_documented(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {"config.json", "manifest.json", "metrics.jsonl", "checkpoints", "result.json", "lock"}
    run = Run(finished)
    assert run.config == tiny()
    assert (run.status, run.snapshots) == ("finished", [30, 40])
    assert [record["step"] for record in run.metrics] == list(range(0, 41, 5))
    session = run.manifest["sessions"][0]
    assert session["versions"]["numpy"] == np.__version__
    assert {"git", "blas", "threads", "device", "platform"} <= session.keys()
    assert run.parameters()["embed.W_E"].shape == (8, 8)


def test_an_existing_directory_is_never_overwritten(run):
    before = fingerprint(run)
    with pytest.raises(BadInput, match="not empty"):
        train(tiny(), run)
    assert fingerprint(run) == before


def test_an_empty_directory_will_do_and_a_file_will_not(tmp_path):
    (tmp_path / "empty").mkdir()
    assert train(tiny({"steps": 0}), tmp_path / "empty").status == "finished"
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot create"):
        train(tiny(), tmp_path / "file")


def test_bad_input_leaves_nothing_behind(tmp_path):
    with pytest.raises(BadInput):
        train(tiny({"task": {"operation": "x / y", "p": 9}}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_refused(tmp_path, run):
    for path, words in ((tmp_path, "no config.json"), (tmp_path / "nope", "does not exist")):
        with pytest.raises(BadInput, match=words):
            resume(path)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"version": 99}))
    with pytest.raises(BadInput, match="version 99"):
        resume(run, {"steps": 50})


# ---------------------------------------------------------------------------------------------------- checkpoints


def test_tensors_in_any_memory_order_come_back_as_they_were(tmp_path):
    base = generator(0, "orders").standard_normal((3, 4, 5)).astype("float32")
    orders = {
        "plain": base,
        "transposed": base.T,
        "strided": base[:, ::2],
        "reversed": base[::-1],
        "moved": np.moveaxis(base, 0, -1),
        "broadcast": np.broadcast_to(base[0, 0], (2, 5)),
        "scalar": np.asarray(7, dtype=np.int32),
        "empty": np.zeros((0, 3)),
    }
    checkpoint.save(tmp_path, 3, orders, {}, {})
    found = checkpoint.load(tmp_path / "step-3", orders, {})
    for name, x in orders.items():
        assert found.model[name].dtype == x.dtype
        np.testing.assert_array_equal(found.model[name], x)


def tensors(run: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What a good checkpoint of this run holds: the templates that `load` compares with."""
    from safetensors.numpy import load_file

    path = last_checkpoint(run)
    return load_file(path / "model.safetensors"), load_file(path / "optimizer.safetensors")


FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "digest")


def refused(path: Path, like: tuple) -> bool:
    try:
        checkpoint.load(path, *like)
    except (checkpoint.Rejected, BadInput):
        return True
    return False


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_checkpoint_is_refused(run, name):
    like, path = tensors(run), last_checkpoint(run)
    whole = (path / name).read_bytes()
    for size in {0, 1, 8, len(whole) // 2, len(whole) - 2}:
        (path / name).write_bytes(whole[:size])
        assert refused(path, like), f"{name} cut to {size} of {len(whole)} bytes"
    (path / name).write_bytes(whole)
    assert not refused(path, like)


def test_a_flipped_bit_is_refused_wherever_it_is(run):
    like, path, rng = tensors(run), last_checkpoint(run), generator(0, "flips")
    for k in range(120):
        name = FILES[k % 4]
        whole = bytearray((path / name).read_bytes())
        place = int(rng.integers(len(whole) - (name == "digest")))  # but for the newline that ends the digest
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (path / name).write_bytes(damaged)
        assert refused(path, like), f"bit of byte {place} of {name}"
        (path / name).write_bytes(whole)


def test_pages_zeroed_doubled_and_junk_behind_are_refused(run):
    like, path = tensors(run), last_checkpoint(run)
    for name in FILES[:3]:
        whole = (path / name).read_bytes()
        for damaged in (whole[:64] + bytes(64) + whole[128:], whole[:64] + whole, whole + b"junk", whole + whole):
            (path / name).write_bytes(damaged)
            assert refused(path, like)
        (path / name).write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_missing_files_and_directories_in_their_place_are_refused(run, name):
    like, path = tensors(run), last_checkpoint(run)
    (path / name).unlink()
    assert refused(path, like)
    (path / name).mkdir()
    assert refused(path, like)


def resealed(path: Path, **changes: object) -> None:
    """Change state.json and give it a digest that fits: what no accident does."""
    import hashlib

    state = json.loads((path / "state.json").read_text()) | changes
    for name in FILES[:2]:
        if (path / name).exists():
            state["sha256"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    text = json.dumps(state).encode()
    (path / "state.json").write_bytes(text)
    (path / "digest").write_text(hashlib.sha256(text).hexdigest())


def test_a_future_version_is_no_damage_and_says_what_to_install(run):
    resealed(last_checkpoint(run), version=2)
    with pytest.raises(BadInput, match=r"version 2.*newer"):
        resume(run, {"steps": 50})


@pytest.mark.parametrize("case", WORDS)
def test_a_sealed_checkpoint_that_does_not_fit_is_refused_in_words(run, case):
    from safetensors.numpy import save_file

    (model, optimizer), path = tensors(run), last_checkpoint(run)
    W_E = model["embed.W_E"]
    changed, changes = dict(model), {}
    match case:
        case "format":
            changes = {"format": "another"}
        case "step":
            changes = {"step": 39}
        case "shape":
            changed["embed.W_E"] = W_E[:, :4].copy()
        case "dtype":
            changed["embed.W_E"] = W_E.astype("float64")
        case "extra":
            changed["embed.W_X"] = W_E
        case "missing":
            del changed["embed.W_E"]
        case "nan" | "inf":
            changed["embed.W_E"] = np.where(np.arange(8) == 3, np.float32(case), W_E)
        case "no state":
            changes = {"tensors": 3}
    save_file(changed, path / "model.safetensors")
    if case == "pickle":
        (path / "model.safetensors").write_bytes(pickle.dumps(changed))
    if case in ("shape", "dtype", "extra", "missing", "nan", "inf"):
        shapes = {name: [str(x.dtype), list(x.shape)] for name, x in changed.items()}
        changes = {"tensors": {"model": shapes, "optimizer": checkpoint.shapes(optimizer)}}
    resealed(path, **changes)
    with pytest.raises(checkpoint.Rejected) as error:
        checkpoint.load(path, model, optimizer)
    assert WORDS[case] in str(error.value)


def test_a_pickle_is_not_run(run, tmp_path):
    class Payload:
        def __reduce__(self):
            return Path(tmp_path / "ran").touch, ()

    path = last_checkpoint(run)
    for name in FILES[:2]:
        (path / name).write_bytes(pickle.dumps(Payload()))
    resealed(path)
    resume(run, {"steps": 50})
    assert not (tmp_path / "ran").exists()


def test_the_newest_is_damaged_and_the_one_before_is_taken(run, tmp_path):
    longer = train(tiny({"steps": 60}), tmp_path / "longer").run
    path = last_checkpoint(run)
    (path / "model.safetensors").write_bytes(b"")
    notes = []
    resume(run, {"steps": 60}, lambda event: notes.extend(getattr(event, "notes", ())))
    assert any("went back to the checkpoint of step 30" in note and "model.safetensors" in note for note in notes)
    assert (run / "checkpoints" / "rejected-step-40-0" / "model.safetensors").exists(), "nothing is deleted"
    assert fingerprint(run) == fingerprint(longer)


def test_all_are_damaged_and_the_run_is_refused_and_left_alone(run):
    for step in (30, 40):
        (run / "checkpoints" / f"step-{step}" / "digest").write_text("0")
    before = sorted(str(path) for path in run.rglob("*"))
    metrics_before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(BadInput, match="none of its checkpoints verifies"):
        resume(run, {"steps": 60})
    after = sorted(str(path) for path in run.rglob("*") if path.name != "result.json")
    assert [path for path in before if not path.endswith("result.json")] == after
    assert (run / "metrics.jsonl").read_bytes() == metrics_before


def test_checkpoints_that_are_gone_are_not_taken_for_a_young_run(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(BadInput, match="checkpoints are gone"):
        resume(run, {"steps": 60})


def test_another_runs_checkpoint_is_refused(run, tmp_path):
    other = train(tiny({"seed": 1}), tmp_path / "other").run
    shutil.rmtree(last_checkpoint(run))
    shutil.copytree(last_checkpoint(other), run / "checkpoints" / "step-40")
    notes = []
    resume(run, {"steps": 45}, lambda event: notes.extend(getattr(event, "notes", ())))
    assert any("seed was 1, received 0" in note for note in notes)


def test_an_older_checkpoint_renamed_newer_is_refused(run):
    shutil.copytree(run / "checkpoints" / "step-30", run / "checkpoints" / "step-50")
    assert refused(run / "checkpoints" / "step-50", tensors(run))


def test_pinned_steps_keep_their_model_and_older_ones_go(tmp_path):
    run = train(tiny({"checkpoint": {"pinned": [0, 7, 20]}}), tmp_path / "run").run
    assert Run(run).snapshots == [0, 10, 20, 30, 40], "7 is honoured at the next boundary"
    assert not (run / "checkpoints" / "step-10" / "optimizer.safetensors").exists()
    assert (run / "checkpoints" / "step-30" / "optimizer.safetensors").exists()
    assert Run(run).parameters(10)["embed.W_E"].shape == (8, 8)
    with pytest.raises(BadInput, match=r"step 11.*0, 10, 20, 30, 40"):
        Run(run).parameters(11)


def test_what_a_killed_writer_left_is_cleaned_and_nothing_else(run):
    (run / "checkpoints" / ".step-50.123.tmp").mkdir()
    (run / "checkpoints" / "notes.txt").write_text("mine")
    resume(run, {"steps": 45})
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step-40", "step-45", "notes.txt"}


# ---------------------------------------------------------------------------------------------------- metrics


def test_a_torn_tail_is_passed_over_and_a_damaged_middle_is_not(run):
    path = run / "metrics.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (1, 10, len(lines[-1]) - 1):
        path.write_bytes(whole[:-cut])
        reading = metrics.read(path)
        assert (len(reading.records), reading.torn) == (8, True)
    for damaged in (
        whole.replace(b'"step":20', b'"step":21'),
        b"".join([*lines[:3], b"garbage\n", *lines[3:]]),
        whole.replace(b"\n", b"\r\n", 1),
        b"\xef\xbb\xbf" + whole,
    ):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match="is damaged: line"):
            metrics.read(path)


def test_metrics_damaged_after_a_checkpoint_send_the_run_back_before_the_damage(run, tmp_path):
    longer = train(tiny({"steps": 60}), tmp_path / "longer").run
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step":35', b'"step":36'))
    resume(run, {"steps": 60})
    assert fingerprint(run) == fingerprint(longer)


@given(st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_line_comes_back_as_it_was(record):
    assert metrics.decode(metrics.encode({"step": 3, **record})) == {"step": 3} | record


def test_a_line_of_another_checksum_is_refused():
    line = metrics.encode({"step": 1, "loss": 0.5})
    for place in range(len(line)):
        with pytest.raises(ValueError, match="torn or damaged"):
            metrics.decode(line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :])


# ---------------------------------------------------------------------------------------------------- one writer


def test_a_second_writer_is_refused_and_readers_are_not(run):
    with lock(run):
        with pytest.raises(RunLocked, match=f"process {os.getpid()} on"):
            resume(run, {"steps": 60})
        assert Run(run).status == "running"
        assert len(Run(run).metrics) == 9
    assert holder(run) is None
    resume(run, {"steps": 45})


def test_the_lock_of_a_process_that_died_is_free(run):
    code = (
        "import os, signal, sys; from pathlib import Path; from onelayer.training.lock import lock; "
        "held = lock(Path(sys.argv[1])); held.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(run)], check=False).returncode == -9
    assert json.loads((run / "lock").read_text())["pid"] != os.getpid()
    with lock(run):
        pass


def test_one_of_several_writers_wins(tmp_path):
    code = (
        "import sys, time; from tiny import tiny; from onelayer.training import train; "
        "from onelayer.errors import BadInput\n"
        "try: train(tiny({'steps': 400}), sys.argv[1])\n"
        "except BadInput as error: sys.exit(2)"
    )
    racers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], env=WITH_TINY) for _ in range(3)]
    assert sorted(racer.wait(timeout=120) for racer in racers) == [0, 2, 2]
    assert Run(tmp_path / "run").status == "finished"


# ---------------------------------------------------------------------------------------------------- the index


def test_the_index_is_made_from_the_directories_and_again(finished, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(finished, tmp_path / name)
    (tmp_path / "no run").mkdir()
    rows = index.listing(tmp_path)
    assert [Path(row["run"]).name for row in rows] == ["a", "b"]
    assert rows[0]["status"] == "finished"
    assert rows[0]["step"] == 40
    assert index.rebuild(tmp_path) == rows
    (tmp_path / index.NAME).write_bytes(b"not a database at all, by any means")
    assert index.listing(tmp_path) == rows
    with sqlite3.connect(tmp_path / index.NAME) as database:
        database.execute("PRAGMA user_version = 77")
    assert index.listing(tmp_path) == rows
    shutil.rmtree(tmp_path / "a")
    assert [Path(row["run"]).name for row in index.listing(tmp_path)] == ["b"]
    resume(tmp_path / "b", {"steps": 45})
    assert index.listing(tmp_path)[0]["step"] == 45


def test_a_run_that_cannot_be_read_is_listed_with_its_problem(run):
    (run / "config.json").write_text("{")
    (row,) = index.listing(run.parent)
    assert row["status"] == "unreadable"
    assert "config.json" in row["problem"]


# ---------------------------------------------------------------------------------------------------- the disk


def failing(monkeypatch, name: str, at: int, error: int) -> None:
    """The call of `os.<name>` with this number fails, and every one after it."""
    real, calls = getattr(os, name), [0]

    def call(*arguments, **options):
        calls[0] += 1
        if calls[0] >= at:
            raise OSError(error, os.strerror(error))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize(
    ("name", "at", "error", "words"),
    [
        ("write", 30, errno.ENOSPC, "free some space"),
        ("write", 27, errno.EIO, "see to the disk"),
        ("fsync", 20, errno.EIO, "see to the disk"),
        ("rename", 3, errno.EROFS, "can be written"),
    ],
)
def test_a_disk_that_fails_is_named_and_costs_nothing(tmp_path, monkeypatch, name, at, error, words):
    whole = train(tiny(), tmp_path / "whole").run
    with monkeypatch.context() as patched:
        failing(patched, name, at, error)
        with pytest.raises(StorageError, match=words) as failure:
            train(tiny(), tmp_path / "run")
    assert "is intact" in str(failure.value)
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(whole)


def test_short_writes_are_completed(tmp_path, monkeypatch, finished):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: real(handle, bytes(content[:1000])))
    assert fingerprint(train(tiny(), tmp_path / "run").run) == fingerprint(finished)


def test_a_limit_on_file_sizes_is_a_full_disk_without_a_full_disk(tmp_path):
    code = (
        "import resource, sys; from tiny import tiny; from onelayer.training import train; "
        "from onelayer.training.files import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "try: train(tiny({'model': {'d_mlp': 64}}), sys.argv[1])\n"
        "except StorageError as error: print(error); sys.exit(1)"
    )
    got = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env=WITH_TINY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert got.returncode == 1, got.stderr
    assert "ulimit" in got.stdout
    assert resume(tmp_path / "run").status == "finished"
