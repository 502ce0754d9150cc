"""Guards `onelayer decode` and the page of where heads looked: what a stranger types, and what then stands where."""

import io
import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from talking import V, model
from tiny import tiny

from onelayer import cli
from onelayer.cli import decode as command
from onelayer.decoding import metrics
from onelayer.decoding.decode import Beam, Greedy, Sample
from onelayer.errors import BadInput
from onelayer.report import alignment
from onelayer.report.alignment import write_alignments
from onelayer.tasks.units import SPECIALS, UNK, Units
from onelayer.training import configure, train
from onelayer.training import opened as opening
from onelayer.words import final, request
from onelayer.words.alignment import align
from onelayer.words.answers import answers

LETTERS = Units("characters", (*SPECIALS, *"abcdefg"))
PHONES = Units("words", (*SPECIALS, *(f"P{i}" for i in range(V - 4))))


def stand_in(architecture: str = "encoder_decoder") -> Any:
    """What `open_text` answers, of a model that has learnt nothing."""
    p, cfg = model(architecture=architecture)
    p.unembed.b_U[UNK] = -50
    crossed = architecture == "encoder_decoder"
    return SimpleNamespace(
        params=p, model=cfg, source=LETTERS if crossed else None, target=PHONES if crossed else LETTERS, step=70,
        weights="average",
        metrics=("exact_match", "phone_error_rate") if crossed else ("bits_per_character",),
    )  # fmt: skip


@pytest.fixture
def run(monkeypatch):
    asked: list[Any] = []

    def decode(*tokens: str, of: str = "encoder_decoder") -> int:
        monkeypatch.setattr(opening, "open_text", lambda path, weights: asked.append(weights) or stand_in(of))
        return cli.run(["decode", "runs/some", *tokens])

    decode.asked = asked  # pyright: ignore[reportFunctionMemberAccess]
    return decode


def expected(texts: list[str], how: Any = Beam(), limit: int | None = None, of: str = "encoder_decoder"):  # noqa: B008
    return answers(stand_in(of), texts, how, limit)


def test_an_answer_a_line(run, capsys):
    assert run("abc", "gfe") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [best.text for best, *_ in expected(["abc", "gfe"])]
    assert err == ""
    assert run.asked == ["chosen"]


def test_n_best_with_scores_and_weights_of_a_step(run, capsys):
    assert run("abc", "--n-best", "3", "--beam", "4", "--length-penalty", "1.2", "--weights", "40") == 0
    out = capsys.readouterr().out
    [found] = expected(["abc"], Beam(4, 1.2, 3))
    assert out == "".join(f"{a.score:.4f}\t{a.text}\n" for a in found) + "\n"
    assert run.asked == [40]


def test_json_says_it_all_and_warns(run, capsys):
    assert run("axb", "ab", "--json", "--beam", "1", "--weights", "last") == 0
    out, err = capsys.readouterr()
    facts = json.loads(out.splitlines()[-1])
    assert (facts["run"], facts["weights"], facts["step"], facts["method"]) == ("runs/some", "last", 70, "greedy")
    first, second = facts["answers"]
    assert (first["source"], first["unknown"], second["unknown"]) == ("axb", ["x"], [])
    [[best]] = expected(["ab"], Greedy())
    assert (second["answer"], second["cut"]) == (best.text, best.cut)
    assert second["log_probability"] == pytest.approx(best.log_probability, rel=1e-12)
    assert [list(n) for n in second["n_best"]] == [["answer", "log_probability", "score", "cut"]]
    assert "training did not show 'x', in 'axb'" in facts["warnings"][0]
    assert facts["warnings"][0] in err
    assert facts["tokens"] == sum(len(a.tokens) for [a] in expected(["axb", "ab"], Greedy()))
    assert run("ab", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["weights"] == "average"  # which the chosen ones are


def test_what_is_longer_than_training_and_what_is_cut_is_said(run, capsys):
    assert run("abcdefgabcdefg", "gfe", "--max-length", "1") == 0
    err = capsys.readouterr().err
    assert "sources of up to 8 units; longer: 'abcdefgabcdefg'" in err
    cut = sum(best.cut for best, *_ in expected(["abcdefgabcdefg", "gfe"], limit=1))
    assert ("did not end within 1 units" in err) == (cut > 0)
    assert run("gfe") == 0
    assert "longer" not in capsys.readouterr().err


def test_a_file_a_pipe_and_references(run, capsys, tmp_path, monkeypatch):
    texts = ["abc", "gfe", "d"]
    said = [best.text for best, *_ in expected(texts)]
    (tmp_path / "in.txt").write_text("abc\r\ngfe\nd\n")
    right = [(said[0],), ("P0", said[1]), ("P0",)]
    (tmp_path / "right.txt").write_text(f"{said[0]}\nP0\t{said[1]}\nP0\n")
    arguments = ("--references", str(tmp_path / "right.txt"), "--json")
    assert run("--file", str(tmp_path / "in.txt"), *arguments) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert [a["answer"] for a in facts["answers"]] == said
    assert facts["metrics"]["exact_match"] == pytest.approx(2 / 3)
    assert facts["metrics"]["phone_error_rate"] == metrics.phone_error_rate(said, right)
    assert "exact_match  0.6667" in err

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"abc\ngfe\nd")))
    assert run("--file", "-") == 0
    assert capsys.readouterr().out.splitlines() == said


def test_typed_in_on_a_terminal(run, capsys, monkeypatch):
    lines = iter(["abc", "xa", ""])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert run() == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [best.text for best, *_ in expected(["abc", "xa"])]
    assert "beam 5, length penalty 0.6" in err
    assert "'x'" in err


def test_a_language_model_is_sampled_unless_told_otherwise(run, capsys):
    drawn = Sample(0.8, seed=4)
    assert run("bad", "--max-length", "20", "--temperature", "0.8", "--seed", "4", of="decoder_only") == 0
    assert capsys.readouterr().out.splitlines() == [expected(["bad"], drawn, 20, "decoder_only")[0][0].text]
    assert run("bad", "--max-length", "20", "--beam", "1", of="decoder_only") == 0
    assert capsys.readouterr().out.splitlines() == [expected(["bad"], Greedy(), 20, "decoder_only")[0][0].text]
    assert run("bad", of="decoder_only") == 0
    assert len(capsys.readouterr().out.strip()) == 3 + 200


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([], ["nothing to decode", "--file"]),
        ([""], ["text 1 is empty"]),
        (["a", "  "], ["text 2 is empty"]),
        (["a", "--file", "in.txt"], ["--file as well"]),
        (["a", "--references", "x"], ["--references", "--file"]),
        (["--file", "no such"], ["cannot read no such"]),
        (["a", "--beam", "0"], ["at least 1 wide"]),
        (["a", "--beam", "2", "--n-best", "3"], ["widen"]),
        (["a", "--beam", "2", "--sample"], ["one of them"]),
        (["a", "--top-k", "2"], ["--top-k", "--sample"]),
        (["a", "--sample", "--temperature", "0"], ["temperature is above 0"]),
        (["a", "--max-length", "0"], ["at least 1 unit"]),
        (["axy", "--strict"], ["text 1", "'x', 'y'", "a, b, c"]),
        (["a", "--attention", "map.png"], [".html", ".json", "map.png"]),
        (["a", "--attention", "no/such/map.html"], ["no directory no/such"]),
    ],
)
def test_bad_input_is_2_and_says_why(run, capsys, monkeypatch, tokens, words):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(*tokens) == 2
    out, err = capsys.readouterr()
    assert out == ""
    for word in words:
        assert word in err


def test_lines_that_cannot_be_answered_are_named(run, capsys, tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text("abc\n\nd\n")
    assert run("--file", str(tmp_path / "in.txt")) == 2
    assert "line 2 of" in capsys.readouterr().err
    (tmp_path / "right.txt").write_text("P1\n")
    (tmp_path / "in.txt").write_text("abc\nd\n")
    assert run("--file", str(tmp_path / "in.txt"), "--references", str(tmp_path / "right.txt")) == 2
    assert "2 texts and 1 lines" in capsys.readouterr().err
    for data, words in ((b"", "is empty"), (b"ab\nc\xff\n", "line 2 of standard input")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert run("--file", "-") == 2
        assert words in capsys.readouterr().err


def test_the_method_that_settings_mean():
    assert request.method(False) == Beam(5, 0.6, 1)
    assert request.method(False, n_best=8) == Beam(8, 0.6, 8)
    assert request.method(False, beam=1) == Greedy()
    assert request.method(False, beam=3, length_penalty=0.0) == Beam(3, 0.0, 1)
    assert request.method(True) == Sample()
    assert request.method(True, beam=3) == Beam(3, 0.6, 1)
    assert request.method(False, sample=True, n_best=2, top_p=0.9, seed=3) == Sample(1.0, None, 0.9, 3, 2)
    with pytest.raises(BadInput, match="--length-penalty searches"):
        request.method(False, sample=True, length_penalty=1.0)


# ---------------------------------------------------------------------------------------------------- attention


def test_attention_as_a_page_and_as_numbers(run, capsys, tmp_path):
    page, numbers = tmp_path / "map.html", tmp_path / "map.json"
    assert run("bad", "--attention", str(page), "--json") == 0
    assert json.loads(capsys.readouterr().out)["attention"] == str(page)
    text = page.read_text()
    assert text.count('class="gallery"') == 3  # across, in the encoder, and back
    assert text.count('"layer 1, head 2"') == 3
    assert "bad → " in text
    assert not re.search(r'(src|href)="http', text)

    assert run("bad", "cafe", "--attention", str(numbers)) == 0
    first, second = json.loads(numbers.read_text())
    [[best], [other]] = expected(["bad", "cafe"])
    assert second["answer"] == other.text
    assert first["source_tokens"] == ["b", "a", "d", "<eos>"]
    assert first["decoder_says"] == [*best.text.split(), "<eos>"]
    shape = (2, 3, len(best.tokens) + 1, 4)
    assert np.shape(first["cross"]) == shape
    np.testing.assert_allclose(np.sum(first["cross"], -1), 1, atol=1e-5)


def test_a_page_has_room_for_so_many_answers(tmp_path, monkeypatch):
    speaks = stand_in()
    one = align(speaks, "ab", answers(speaks, ["ab"])[0][0])
    monkeypatch.setattr(alignment, "MOST", 1)
    text = write_alignments(tmp_path / "map.html", [one] * 4, "runs/x").read_text()
    assert text.count("<section") == 1
    assert "3 more answers" in text


def test_the_command_is_lazy():
    assert not hasattr(command, "open_text")


# ---------------------------------------------------------------------------------------------------- a real run


def test_a_run_that_was_trained_answers(tmp_path, capsys):
    settings = {"task": {"name": "reverse", "vocabulary": 5, "longest": 4, "longer": 5, "n_train": 200, "n_valid": 20,
                         "n_test": 20}, "model": {"d_model": 16, "n_heads": 2, "d_mlp": 16}, "steps": 30,
                "evaluation": {"every": 15}, "checkpoint": {"every": 15}}  # fmt: skip
    path = tmp_path / "run"
    train(configure(None, settings), path)
    opened = opening.open_text(path, "last")
    for weights in ("last", "best", "15"):
        assert cli.run(["decode", str(path), "3 1 2", "0", "--weights", weights, "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["step"] in (15, 30)
        if weights == "last":
            [[one], [other]] = answers(opened, ["3 1 2", "0"], Beam())
            assert [a["answer"] for a in facts["answers"]] == [one.text, other.text]
            assert facts["step"] == 30
    assert opening.open_text(path).weights == "best"  # nothing was judged: no weights were chosen
    for chosen, step in (("average", 30), ("last", 30)):
        final.keep(path, final.Final(chosen, step, {}, {}, "greedy"), 30)
        assert opening.open_text(path).weights == chosen
    final.keep(path, final.Final("last", 15, {}, {}, "greedy"), 15)  # it was judged, and then trained on
    assert opening.open_text(path).weights == "best"
    assert cli.run(["decode", str(path), "3 1 2", "--weights", "bset"]) == 2
    assert "best" in capsys.readouterr().err
    assert cli.run(["decode", str(tmp_path), "3 1 2"]) == 2
    assert "not a run" in capsys.readouterr().err

    train(tiny({"steps": 5}), tmp_path / "numbers")
    assert cli.run(["decode", str(tmp_path / "numbers"), "3 1 2"]) == 2
    assert "no run of strings" in capsys.readouterr().err
