"""Guards the microscope's commands: what they say is what Python says, and what they refuse, in what words."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny

from onelayer import cli
from onelayer.arrays import flatten, unflatten
from onelayer.microscope import explain, load, names, replay, split, trace
from onelayer.microscope.curvature import by_complex_step, linearise, sharpness
from onelayer.report.run import Run as Report
from onelayer.report.sections import explained
from onelayer.training import Run, train
from onelayer.training.opened import open_run

SIZE = {
    "task": {"p": 11},
    "model": {"d_model": 16, "n_heads": 2, "d_mlp": 20},
    "checkpoint": {"every": 10, "pinned": "all"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Forty steps, saved every five."""
    return train(tiny(SIZE), tmp_path_factory.mktemp("runs") / "run").run


@pytest.fixture(scope="module")
def opened(run):
    return open_run(run)


@pytest.fixture(scope="module")
def t(opened):
    return trace(opened.params, opened.batch, opened.model, vocabulary=opened.task.vocabulary, **opened.loss)


def answer(capsys: pytest.CaptureFixture[str], *tokens: Any) -> dict:
    words = [str(token) for token in tokens]
    assert cli.run([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def said(capsys: pytest.CaptureFixture[str], *tokens: Any) -> str:
    assert cli.run([str(token) for token in tokens]) == 0
    return capsys.readouterr().out


def refusal(capsys: pytest.CaptureFixture[str], *tokens: Any) -> str:
    assert cli.run([str(token) for token in tokens]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("onelayer: ")
    return err


# ---------------------------------------------------------------------------------------------------- trace


def test_trace_names_everything_and_saves_it(run, t, tmp_path, capsys):
    out = tmp_path / "trace.safetensors"
    facts = answer(capsys, "trace", run, "--out", out)
    assert [row["name"] for row in facts["names"]] == list(names(t))
    rows = {row["name"]: row for row in facts["names"]}
    assert rows["embed.W_E"]["gradient_norm"] == pytest.approx(np.linalg.norm(t.gradient("embed.W_E")), rel=1e-12)
    assert rows["blocks.0.route_mlp"]["norm"] is None
    np.testing.assert_array_equal(load(out).gradient("embed.W_E"), t.gradient("embed.W_E"))
    assert "blocks.0.attn.hook_pattern" in said(capsys, "trace", run, "--step", 10, "--examples", 3)


def test_a_trace_that_does_not_fit_writes_nothing(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["onelayer.microscope.trace"], "available_memory", lambda: 100_000)
    out = tmp_path / "trace.safetensors"
    assert "take at most about" in refusal(capsys, "trace", run, "--out", out)
    assert "there is no directory" in refusal(capsys, "trace", run, "--out", tmp_path / "nowhere" / "t.safetensors")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- provenance


def test_provenance_adds_up(run, t, capsys):
    (found,) = answer(capsys, "provenance", run, "blocks.0.attn.W_K", "--by", "source,head")["tensors"]
    assert found["residual"] <= 1e-12
    assert found["sum"] == pytest.approx(found["norm"], rel=1e-12)
    shares = split(t, "blocks.0.attn.W_K", ("source", "head")).shares
    assert sorted(part["share"] for part in found["parts"]) == pytest.approx(sorted(shares.ravel().tolist()), rel=1e-12)
    text = said(capsys, "provenance", run, "blocks.0.attn.W_?", "--by", "route", "--top", 1)
    assert text.count("residual") == 4
    assert "more" in text


# ---------------------------------------------------------------------------------------------------- examples


def test_examples_of_all_tensors_and_of_one_weight(run, t, capsys):
    facts = answer(capsys, "examples", run)
    rows = {row["tensor"]: row for row in facts["tensors"]}
    assert rows.keys() == t.weights.keys()
    assert all(-1 <= row["other"] <= 1 and row["largest"] >= row["mean"] for row in rows.values())
    assert np.diagonal(facts["cosines"]) == pytest.approx(np.ones(5))
    alone = open_run(run, examples=1)
    first = trace(alone.params, alone.batch, alone.model, **alone.loss)
    length = np.sqrt(sum(np.sum(g**2) for g in first.weight_gradients.values()))
    every = answer(capsys, "examples", run, "--top", len(t.batch.tokens))["strongest"]
    assert next(row["norm"] for row in every if row["example"] == 0) == pytest.approx(length, rel=1e-10)

    one = answer(capsys, "examples", run, "blocks.0.attn.W_Q[0,3,5]", "--top", 40)
    assert one["gradient"] == pytest.approx(t.gradient("blocks.0.attn.W_Q")[0, 3, 5], rel=1e-10)
    assert sum(row["share"] for row in one["pulls"]) == pytest.approx(one["gradient"], rel=1e-8)
    assert "cosine of answers" in said(capsys, "examples", run, "--split", "test")


# ---------------------------------------------------------------------------------------------------- ledger


def test_the_ledger_is_that_of_the_run_to_the_last_bit(run, capsys, tmp_path):
    facts = answer(capsys, "ledger", run, "embed.W_E[3,5]", "--loss", "--out", tmp_path / "ledger.safetensors")
    assert facts["difference"] == 0.0
    one = facts["entry"]
    assert one.pop("end") == pytest.approx(Run(run).parameters()["embed.W_E"][3, 5], rel=1e-6)
    assert "decay" in one
    assert sum(one.values()) == pytest.approx(Run(run).parameters()["embed.W_E"][3, 5], abs=1e-6)
    assert sum(row["share"] for row in facts["groups"]) == pytest.approx(1, rel=1e-5)
    assert facts["loss"]["error"] <= 1e-4
    assert Path(facts["saved"]).is_file()
    text = said(capsys, "ledger", run, "--by", "operand", "--classes", "2", "--step", 10)
    assert "to the last bit" in text
    assert "0 mod 2" in text


def test_a_ledger_of_a_config_starts_anew(run, capsys):
    text = said(capsys, "ledger", run / "config.json", "--step", 3, "--by", "loss_token")
    assert "a run of its own" in text
    assert "steps 0 to 3" in text


# ---------------------------------------------------------------------------------------------------- curvature


def test_curvature_says_what_python_says(run, opened, capsys):
    facts = answer(capsys, "curvature", run, "--top", 0, "--bottom", 0, "--products", 6)
    at = linearise(opened.params, opened.batch, opened.model, **opened.loss)
    assert facts["along_gradient"] == pytest.approx(sharpness(at, at.gradient), rel=1e-10)
    assert {"trace", "trace_error", "along_update"} <= facts.keys()
    assert "along_update" not in answer(capsys, "curvature", run, "--step", 0, "--top", 0, "--bottom", 0)
    assert "along the gradient" in said(capsys, "curvature", run, "--kind", "gauss_newton", "--top", 0, "--bottom", 0)


def test_curvature_without_scipy_says_what_to_install(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    assert "onelayer[curvature]" in refusal(capsys, "curvature", run, "--examples", 5)


# ---------------------------------------------------------------------------------------------------- replay


def test_replay_cuts_what_it_is_told_to(run, t, capsys):
    facts = answer(capsys, "replay", run, "--gate", "*.route_q=0", "--gate", "blocks.0.route_mlp=1")
    rows = {row["tensor"]: row for row in facts["tensors"]}
    assert rows["unembed.W_U"]["change"] == 0
    gone = replay(t, {"blocks.0.attn.route_q": 0}).weights.embed.W_E
    assert rows["embed.W_E"]["replayed"] == pytest.approx(np.linalg.norm(gone), rel=1e-12)
    assert rows["embed.W_E"]["change"] > 0


def test_a_run_is_trained_again_with_a_route_cut(run, capsys):
    same = answer(capsys, "replay", run, "--gate", "*.route_q=1", "--train", 20)["evaluations"]
    assert [row["step"] for row in same] == [0, 5, 10, 15, 20]
    assert all(row["cut_test_loss"] == pytest.approx(row["test_loss"], rel=1e-4) for row in same)
    cut = answer(capsys, "replay", run, "--gate", "*.attn.route_[qkv]=0", "--train", 20)["evaluations"]
    assert abs(cut[-1]["cut_train_loss"] - cut[-1]["train_loss"]) > 1e-3
    assert "with the gates" in said(capsys, "replay", run, "--gate", "logits=0", "--train", 5)


# ---------------------------------------------------------------------------------------------------- drawn places


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_a_run_whose_places_are_drawn_is_looked_at_where_its_tokens_stood(position, tmp_path, capsys):
    """The batch carries the ids that an evaluation draws: the loss is the run's, the curvature that of this loss."""
    model = SIZE["model"] | {"position": position, "position_ids": "random"}
    run = train(tiny(SIZE, {"model": model, "steps": 10}), tmp_path / "run").run
    recorded = Run(run).metrics[-1]
    assert answer(capsys, "trace", run)["loss"] == pytest.approx(recorded["train_loss"], rel=1e-4)
    seen = open_run(run)
    v = unflatten({k: np.ones_like(x) for k, x in flatten(seen.params).items()}, seen.params)
    found = flatten(linearise(seen.params, seen.batch, seen.model, **seen.loss).hessian(v))
    wanted = flatten(by_complex_step(seen.params, v, seen.batch, seen.model, **seen.loss))
    for name, x in wanted.items():
        np.testing.assert_allclose(found[name], x, rtol=0, atol=1e-10 * np.max(np.abs(x)) + 1e-14)
    assert answer(capsys, "ledger", run, "--by", "loss_token", "--loss")["difference"] == 0.0
    for command in (["examples"], ["provenance", "blocks.0.attn.W_K"], ["explain", "blocks.0.attn.W_Q[0,3,5]"]):
        answer(capsys, command[0], run, *command[1:])


# ---------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["trace", "--step", 11], ["nearest saved steps", "10"]),
        (["trace", "--examples", 0], ["has", "examples"]),
        (["provenance", "blocks.0.attn.W_X"], ["did you mean 'blocks.0.attn.W_"]),
        (["provenance", "embed.W_E", "--by", "loss_tokens"], ["unknown axis", "loss_token"]),
        (["provenance", "embed.W_E", "--by", ""], ["split by one axis"]),
        (["examples", "blocks.0.attn.W_Q[0,3]"], ["has shape [2, 16, 8]"]),
        (["examples", "--top", 0], ["at least one"]),
        (["ledger", "embed.W_F[0,0]"], ["did you mean 'embed.W_E'"]),
        (["ledger", "--by", "example"], ["cannot be kept by example"]),
        (["ledger", "--by", "rout"], ["did you mean 'route'"]),
        (["ledger", "--by", "route", "--classes", 3], ["groups operands"]),
        (["ledger", "--step", 11], ["nearest saved steps", "10"]),
        (["curvature", "--step", 11], ["nearest saved steps"]),
        (["curvature", "--products", 3], ["at least 6"]),
        (["replay", "--gate", "blocks.0.attn.route_x=0"], ["did you mean 'blocks.0.attn.route_"]),
        (["replay", "--gate", "blocks.0.attn.route_q"], ["NAME=NUMBER"]),
        (["replay", "--gate", "logits=0", "--train", 41], ["up to step 40"]),
        (["replay", "--gate", "logit=0", "--train", 4], ["did you mean 'logits'"]),
        (["replay"], ["--gate"]),
    ],
)
def test_bad_input_is_2_with_words(run, capsys, tokens, words):
    command, *rest = tokens
    err = refusal(capsys, command, run, *rest)
    for word in words:
        assert word in err


@pytest.mark.parametrize("command", ["trace", "provenance", "examples", "ledger", "curvature", "replay"])
def test_a_run_without_checkpoints_is_refused(command, tmp_path, run, capsys):
    for name in ("config.json", "manifest.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    more = {"provenance": ["embed.W_E"], "replay": ["--gate", "logits=0"]}.get(command, [])
    assert "checkpoint" in refusal(capsys, command, tmp_path, *more)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "manifest.json"}


def test_a_config_that_the_ledger_cannot_honour_is_refused(tmp_path, capsys):
    config = tmp_path / "config.toml"
    config.write_text("filters = [{name = 'clip', max_norm = 0}]")
    assert "filters" in refusal(capsys, "ledger", config)


# ---------------------------------------------------------------------------------------------------- in the report


def test_the_report_takes_three_numbers_apart(run, t, opened):
    section = explained.build(Report.at(run))
    names = explained.chosen(t)
    assert len(section.listings) == 3
    for (title, text), name in zip(section.listings.items(), names.values(), strict=True):
        assert title.endswith(name)
        assert text == str(explain(t, name, depth=explained.DEPTH, top=explained.TOP))
        assert explain(t, name, depth=explained.DEPTH, top=explained.TOP).worst <= 1e-12
    answer = opened.batch.targets[0, -1]
    assert float(next(iter(section.listings.values())).split()[0]) == pytest.approx(
        t.values["logits"][0, 0, answer], rel=1e-5
    )
