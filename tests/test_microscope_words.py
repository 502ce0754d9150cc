"""The microscope's commands on an encoder-decoder trained on strings: batches that are not equally wide, a valid split,
two vocabularies."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onelayer import cli
from onelayer.arrays import flatten
from onelayer.microscope import load
from onelayer.microscope.groupings import wide
from onelayer.report.microscope import write_microscope
from onelayer.report.run import Run
from onelayer.report.walk import scene
from onelayer.training import configure, train
from onelayer.training.objective import loss_and_grads
from onelayer.training.opened import open_run

PAIRS = "".join(f"{a}\t{b}\n" for a, b in (
    ("და", "d ɑ"), ("კი", "k i"), ("მამა", "m ɑ m ɑ"), ("დედა", "d ɛ d ɑ"), ("ია", "i ɑ"), ("ენა", "ɛ n ɑ"),
    ("მინდა", "m i n d ɑ"), ("კინო", "k i n ɔ"), ("ნინო", "n i n ɔ"), ("ომი", "ɔ m i"), ("დიდი", "d i d i"),
))  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight steps, in batches that are not equally wide."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "pairs.tsv").write_text(PAIRS, encoding="utf-8")
    file = str(folder / "pairs.tsv")
    changes = {
        "task": {"name": "pairs", "train": file, "valid": file, "test": file, "target_units": "words"},
        "model": {"d_model": 8, "n_heads": 2, "d_mlp": 10}, "steps": 8, "batch_tokens": 40, "bucket": 1,
        "evaluation": {"every": 4}, "checkpoint": {"every": 4, "keep": 2}, "dtype": "float64",
    }  # fmt: skip
    return train(configure("words", changes), folder / "run").run


def answer(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    assert cli.run([*map(str, words), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def said(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert cli.run([str(word) for word in words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_trace_and_load(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    facts = answer(capsys, "trace", run, "--split", "valid", "--examples", 3, "--out", tmp_path / "t.safetensors")
    assert facts["split"] == "valid" and facts["sizes"]["B"] == 3
    t = load(tmp_path / "t.safetensors")
    assert t.loss == pytest.approx(facts["loss"], rel=1e-12)
    assert t.batch.source is not None
    assert t.word(t.batch.source[0, 0], source=True) == "დ" and t.word(t.batch.targets[0, 0]) == "d"


def test_explain_names_tokens_on_either_side(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "explain", run, "decoder.blocks.0.cross_attn.hook_z[0,1,0,2]", "--only", 2, "--top", 9)
    assert "from source 0 (მ)" in text and "encoder.embedding   u · embed[მ]" in text
    tree = answer(capsys, "explain", run, "encoder.blocks.0.attn.W_V[1,2,3]", "--examples", 4, "--depth", 5)
    assert tree["residual"] < 1e-10
    text = said(capsys, "explain", run, "∂encoder.blocks.0.attn.hook_v[0,1,0,2]", "--only", 2, "--depth", 2)
    assert "by query 3 (ა)" in text


def test_a_number_of_the_walk_is_found_again_by_explain(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Run.at(run)
    one, name = scene.choose(page), "encoder.blocks.0.attn.W_Q"
    at = np.unravel_index(np.argmax(np.abs(one.slope(name))), one.slope(name).shape)
    place = f"{name}[{','.join(map(str, map(int, at)))}]"
    where = ("--split", one.split, "--only", one.number, "--step", page.step_best)
    tree = answer(capsys, "explain", run, place, *where)["tree"]
    assert tree["value"] == pytest.approx(one.slope(name)[at], rel=1e-9)


def test_only_and_split_are_refused_where_there_is_no_such(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["trace", str(run), "--only", "11"]) == 2
    assert "the train split has examples 0 to 10; received 11" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["loss_token", "source,head", "class", "route:memory"])
def test_provenance_adds_up(run: Path, capsys: pytest.CaptureFixture[str], by: str) -> None:
    facts = answer(capsys, "provenance", run, "encoder.blocks.0.attn.W_V", "--by", by, "--examples", 5)
    assert facts["tensors"][0]["residual"] < 1e-10


def test_examples_are_named_by_what_is_read_and_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = answer(capsys, "examples", run, "--examples", 6)
    assert {row["tokens"] for row in facts["strongest"]} <= {
        f"{' '.join(a)} <eos> → {b} <eos>" for a, b in (line.split("\t") for line in PAIRS.splitlines())
    }
    classes = [row["classes"] for row in facts["tensors"]]
    assert None not in classes, "answers are told apart by what they begin with"
    pulls = answer(capsys, "examples", run, "decoder.embed.W_E[5,2]")["pulls"]
    assert all("→" in row["tokens"] and "<pad>" not in row["tokens"] for row in pulls)


@pytest.mark.parametrize("by", ["loss_token", "source"])
def test_a_ledger_of_batches_that_are_not_equally_wide(run: Path, capsys: pytest.CaptureFixture[str], by: str) -> None:
    facts = answer(capsys, "ledger", run, "encoder.blocks.0.attn.W_V[0,3,2]", "--by", by, "--step", 4)
    assert facts["difference"] == 0.0, "the same run"
    assert facts["completeness"] < 1e-10
    assert "valid_loss" in facts


def test_a_ledger_of_the_first_embedding_by_default(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "ledger", run, "--by", "head", "--step", 4)
    assert "valid loss" in text and "coder.embed.W_E[0,0]" in text


def test_wider_batches_have_the_same_gradient(run: Path) -> None:
    page = Run.at(run)
    seen = open_run(run)
    one = scene.cropped(page.split("train"), 2)
    other = wide(one._replace(source_mask=None, weights=None), page.model)
    assert other.tokens.shape[1] == page.model.n_ctx > one.tokens.shape[1]
    (loss, grads), (again, grads_again) = (loss_and_grads(seen.params, b, page.objective) for b in (one, other))
    assert loss == pytest.approx(again, rel=1e-12)
    for name, g in flatten(grads).items():
        np.testing.assert_allclose(flatten(grads_again)[name], g, rtol=1e-9, atol=1e-12)


def test_curvature_and_replay(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = answer(capsys, "curvature", run, "--examples", 4, "--top", 1, "--bottom", 0, "--products", 0)
    assert np.isfinite([*facts["top"], facts["along_gradient"], facts["along_update"]]).all()
    gate = "decoder.blocks.*.cross_attn.route_[kv]=0"
    rows = answer(capsys, "replay", run, "--gate", gate, "--examples", 4)["tensors"]
    left = {row["tensor"]: row["replayed"] for row in rows}
    assert left["encoder.embed.W_E"] == 0 and left["decoder.embed.W_E"] > 0, (
        "the encoder is reached through memory only"
    )


def test_the_microscope_page_names_both_vocabularies(run: Path) -> None:
    text = write_microscope(run, examples=["train:2", "test:0"], steps=[8]).path.read_text()
    assert '"source":["მ","ა","მ","ა","\\u003ceos>"]' in text, "and no padding"
