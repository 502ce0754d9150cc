"""The page of a run on words: an encoder-decoder on sentences of several scripts, and a language model on a line."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import fake_runs
import numpy as np
import pytest
from backends import CHROMIUM, needs

from onelayer.arrays import flatten
from onelayer.report import write_report
from onelayer.report.page import sections
from onelayer.report.run import Run
from onelayer.report.section import Matrix, Section
from onelayer.report.walk import backward, scene
from onelayer.report.wording import milestones
from onelayer.training import checkpoint, configure, train
from onelayer.training.metrics import encode
from onelayer.training.objective import init
from onelayer.words import final

PAIRS = """\
გამარჯობა მსოფლიო და ყველა	hello world and all
안녕 하세요 우리 세계	hello our world
नमस्ते दुनिया और सब	hello world and all
مرحبا بالعالم الجميل كله	hello all the beautiful world
der Hund läuft schnell über die lange, lange Straße in das grüne Haus	the dog runs quickly along the long street
الكلب يجري إلى البيت	the dog runs into the house
कुत्ता घर की ओर दौड़ता है	the dog runs to the house
ძაღლი სახლისკენ გარბის სწრაფად	the dog runs to the house
"""


def make(path: Path, steps: int = 40, **model) -> Path:
    """A run that has learnt these pairs by heart, in a second."""
    file = path.with_suffix(".tsv")
    file.write_text(PAIRS, encoding="utf-8")
    shape = {"architecture": "encoder_decoder", "d_model": 16, "n_heads": 2, "d_mlp": 24, "norm": "pre"}
    changes = {
        "task": {"name": "pairs", "train": str(file), "valid": str(file), "test": str(file),
                 "source_units": "words", "target_units": "words"},
        "model": shape | {"position": "sinusoidal", "embed_scale": True} | model,
        "optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.0}, "steps": steps,
        "checkpoint": {"every": steps // 2}, "stop": {"on": "none", "best": "valid_loss"},
        "evaluation": {"every": steps // 4 or 1},
    }  # fmt: skip
    return train(configure("default", changes), path).run


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    path = make(tmp_path_factory.mktemp("words") / "run")
    write_report(path)
    return path


def shown(path: Path) -> dict[str, Section]:
    found = sections(Run.at(path))
    assert not [name for name, section in found.items() if "Not shown" in section.text]
    return found


# ---------------------------------------------------------------------------------------------------- the example


def test_the_example_is_one_that_the_model_gets_right(words: Path) -> None:
    one = scene.choose(Run.at(words))
    assert one.right and one.split == "valid"
    assert one.said == one.wanted
    assert one.pair is not None
    assert [*one.pair.source.split(), "<eos>"] == one.source
    assert [*one.pair.references[0].split(), "<eos>"] == one.wanted
    assert one.read == ["<bos>", *one.wanted[:-1]]


def test_where_none_is_right_it_says_so(tmp_path: Path) -> None:
    one = scene.choose(Run.at(make(tmp_path / "run", steps=2)))
    assert not one.right and one.said != one.wanted


def test_cut_to_its_length_an_example_computes_the_same(words: Path) -> None:
    run = Run.at(words)
    one = scene.choose(run)
    whole = run.values(run.split("valid"), "logits")["logits"][one.number]
    T = len(one.wanted)
    assert len(whole) > T, "there is padding to be cut"
    np.testing.assert_allclose(one.value("logits"), whole[:T], rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- in words


def test_the_summary_says_what_was_measured(words: Path) -> None:
    found = shown(words)
    text, last = found["summary"].text.replace("\u00a0", " "), Run.at(words).records[-1]
    assert "A Transformer of 1 layer that reads and 1 that writes was trained on pairs of run.tsv (8 train, 8" in text
    loss = next(last[f"{split}_loss"] for split in ("valid", "test") if f"{split}_loss" in last)
    assert f"is {loss:.3g} nats per token (perplexity {np.exp(loss):.3g})" in text
    assert "word by word" in text and "onelayer decode" in text
    best = min(Run.at(words).records, key=lambda record: record["valid_loss"])
    assert f"shown on this page, are those of step {best['step']}, where valid loss was best" in text


def test_the_summary_says_what_was_decoded(tmp_path: Path) -> None:
    path = make(tmp_path / "run", steps=2)
    found = {"test": {"exact_match": 0.25, "bleu": 12.5, "bleu_signature": "nrefs:1"}}
    final.keep(path, final.Final("average", 2, {}, found, "greedy"), 2)
    summary = shown(path)["summary"]
    told = "Decoded (greedy, with the average weights), the test split gives: decoded exactly right 25 %, BLEU 12.5."
    assert told in summary.text.replace("\u00a0", " ")
    assert summary.facts["BLEU, test"] == "12.5"
    final.keep(path, final.Final("average", 2, {}, found, "greedy"), 1)
    assert "BLEU" not in shown(path)["summary"].text, "the run has gone on since"


def test_the_page_shows_the_weights_that_the_run_chose(tmp_path: Path) -> None:
    run = Run.at(make(tmp_path / "run", steps=8))
    assert run.step_best == 8
    log = tmp_path / "run" / "metrics.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()]
    with log.open("ab") as file:
        file.write(encode({"step": 9, "train_loss": 1.0, "valid_loss": 2 * records[0]["valid_loss"]}))
    checkpoint.save(tmp_path / "run" / "checkpoints", 9, flatten(init(run.model, 1)), {"count": np.array(9)}, {})
    later = Run.at(tmp_path / "run")
    assert later.checkpoints[-1] == 9 and later.step_best == 8
    np.testing.assert_array_equal(later.weights()["decoder.embed.W_E"], run.weights(8)["decoder.embed.W_E"])


# ---------------------------------------------------------------------------------------------------- attention


def test_attention_of_every_head_of_every_layer(tmp_path: Path) -> None:
    path = make(tmp_path / "run", n_layers=2, n_encoder_layers=3)
    run = Run.at(path)
    galleries = shown(path)["attention"].galleries
    one, long = galleries[:3], galleries[3:]
    assert [len(g.matrices) for g in (*one, *long)] == [3 * 2, 2 * 2, 2 * 2] * 2
    seen = scene.choose(run)
    for gallery, name in zip(
        one, ("encoder.blocks.1.attn", "decoder.blocks.1.attn", "decoder.blocks.1.cross_attn"), strict=True
    ):
        matrix = gallery.matrices["layer 1, head 1"]
        np.testing.assert_allclose(matrix.values, seen.value(f"{name}.hook_pattern")[1], rtol=1e-4, atol=1e-5)
    assert next(iter(one[2].matrices.values())).columns == seen.source
    assert "läuft" in (next(iter(long[0].matrices.values())).rows or []), "the long sentence"


def test_its_answers_are_decoded(words: Path) -> None:
    said = shown(words)["answers"]
    told = said.listings["Read, and said"].splitlines()
    for source, answer in (line.split("\t") for line in PAIRS.splitlines()):
        assert told[told.index(source) + 1] == f"  = {answer}", "learnt by heart"
    assert "8 of these are exactly right" in said.text


def test_a_wrong_answer_stands_beside_what_was_wanted(tmp_path: Path) -> None:
    said = shown(make(tmp_path / "run", steps=2))["answers"]
    assert "0 of these are exactly right" in said.text
    assert "  wanted: hello world and all" in said.listings["Read, and said"]


# ---------------------------------------------------------------------------------------------------- a language model


def test_a_language_model_on_a_line_of_its_text(tmp_path: Path) -> None:
    line = "a line of text that is said\n"
    file = tmp_path / "text.txt"
    file.write_text("ქართული " + 40 * line, encoding="utf-8")
    changes = {
        "task": {"name": "language", "path": str(file), "context": 32},
        "model": {"d_model": 16, "n_heads": 2, "d_mlp": 24, "n_layers": 2},
        "optimizer": {"name": "adamw", "lr": 0.02}, "batch_size": 32, "steps": 120,
        "evaluation": {"every": 120}, "stop": {"on": "none"},
    }  # fmt: skip
    path = train(configure("default", changes), tmp_path / "run").run
    found = shown(path)
    assert "walk" not in found
    assert "A decoder-only Transformer of 2 layers was trained to go on with" in found["summary"].text
    [gallery] = found["attention"].galleries
    assert list(gallery.matrices) == [f"layer {i}, head {h}" for i in range(2) for h in range(2)]
    first = gallery.matrices["layer 1, head 0"]
    assert "".join(first.rows or []) == line.strip().replace(" ", "␣")
    assert not np.triu(first.values, 1).any(), "it looks back only"
    said = found["answers"].listings["Always the likeliest token"]
    prompt, _, answer = said.replace("\n", " ").partition("|")
    assert f"{prompt}{answer}".count("line of text") > 5, "it has learnt the line"
    write_report(path)


# ---------------------------------------------------------------------------------------------------- the walk

MODELS = [
    {"norm": "pre"},
    {"norm": "post", "attention_bias": True, "n_layers": 2},
    {"norm": "none", "position": "rope", "activation": "gelu", "tied": "unembed", "embed_scale": False},
    {"norm": "pre", "norm_kind": "rms", "position": "alibi", "n_encoder_layers": 2, "unembed_bias": True},
    {"norm": "post", "position": "shaw", "tied": "all"},
    {"norm": "none", "position": "fire"},
    {"norm": "none", "position": "none"},
]


def untrained(path: Path, **model) -> Run:
    """A run with first weights, so that nothing in it is small."""
    file = path.with_suffix(".tsv")
    file.write_text(PAIRS, encoding="utf-8")
    task = {"name": "pairs", "train": str(file), "valid": str(file), "test": str(file), "source_units": "words",
            "target_units": "words", "shared": model.get("tied") == "all"}  # fmt: skip
    shape = {"architecture": "encoder_decoder", "d_model": 12, "n_heads": 3, "d_mlp": 20, "position": "sinusoidal"}
    loss = {"label_smoothing": 0.1} if model.get("norm") == "post" else {}
    return Run.at(fake_runs.make(path, fake_runs.config(task=task, model=shape | model, loss=loss), steps=(0,)))


def computed(parts: Sequence[Matrix | str]) -> tuple[np.ndarray, np.ndarray] | None:
    """(what stands before the last =, computed; what stands behind it), where the signs say how."""
    signs, matrices = [p for p in parts if isinstance(p, str)], [p for p in parts if isinstance(p, Matrix)]
    A, *rest = (m.values for m in matrices)
    match signs:
        case ["×", "="]:
            return A @ rest[0], rest[1]
        case ["×", "+", "="]:
            return A @ rest[0] + rest[1], rest[2]
        case ["×", "÷ √K ="]:
            return A @ rest[0] / 2, rest[1]  # K is 4
        case ["÷ √K ="]:
            return np.where(np.isnan(rest[0]), np.nan, A / 2), rest[0]
        case ["∘ (", "− Σ A ∂A ) ="]:
            dA = np.nan_to_num(rest[0])
            return A * (dA - np.sum(A * dA, axis=1, keepdims=True)), rest[1]
        case ["−", "=", scaled]:
            np.testing.assert_allclose(A - rest[0], rest[1], rtol=1e-12)
            count = scaled.removeprefix("× 1/").removesuffix(" =")
            return rest[1] / int(count), rest[2]
        case [*plus, "="] if set(plus) == {"+"}:
            return A + sum(rest[:-1]), rest[-1]
        case ["+", "=", "→ norm →"]:
            return A + rest[0], rest[1]
    return None


@pytest.mark.parametrize("model", MODELS, ids=lambda model: "-".join(map(str, model.values())))
def test_what_is_drawn_as_an_equation_is_one(tmp_path: Path, model: dict) -> None:
    run = untrained(tmp_path / "run", **model)
    found = {name: section for name, section in sections(run).items() if name.startswith("walk")}
    assert not [section.text for section in found.values() if "Not shown" in section.text]
    checked, signs = 0, set()
    for section in found.values():
        for step in section.steps:
            for equation in step.equations:
                sides = computed(equation)
                if sides is None:
                    signs.add("".join(part for part in equation if isinstance(part, str)))
                    continue
                checked += 1
                scale = np.nanmax(np.abs(sides[1]))
                np.testing.assert_allclose(sides[0], sides[1], rtol=1e-9, atol=1e-12 * scale, err_msg=step.title)
    assert checked >= 25
    exact = model.get("position") not in ("alibi", "shaw", "fire")
    assert not exact or all("→" in sign or sign in ("", ",", ",,", "×≈") for sign in signs), signs


def test_the_walk_follows_the_gradients_of_the_trace(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", norm="post")
    one = scene.choose(run)
    drawn = {m.name: m for step in backward.steps(one) for equation in step.equations for m in equation
             if isinstance(m, Matrix)}  # fmt: skip
    np.testing.assert_array_equal(drawn["∂memory"].values, one.slope("encoder.hook_memory"))
    rows = dict(zip(drawn["∂W_E"].rows or [], drawn["∂W_E"].values, strict=True))
    table = one.slope("encoder.embed.W_E")
    for word, row in rows.items():
        np.testing.assert_allclose(row, table[run.source_vocabulary.index(word)], rtol=1e-12)
    assert np.count_nonzero(table.any(axis=1)) == len(rows)


def test_the_way_back_is_checked_without_a_backward(words: Path) -> None:
    one = scene.choose(Run.at(words))
    for name, at in (("decoder.embed.W_E", (5, 2)), ("encoder.blocks.0.attn.W_K", (1, 3, 2))):
        assert backward.complex_step(one, name, at) == pytest.approx(one.slope(name)[at], rel=1e-9, abs=1e-18)
    text = backward.steps(one)[-1].text
    missed = float(re.findall(r"misses by (\S+) of", text)[0].replace("−", "-"))
    differ = float(re.findall(r"differ by (\S+) of", text)[0].replace("−", "-"))
    assert missed < 1e-10 and differ < 1e-8


def test_words_are_not_memorised_and_then_generalised(words: Path) -> None:
    assert milestones(Run.at(words)) == []


def test_the_walk_says_the_numbers_of_the_run(words: Path) -> None:
    one, found = scene.choose(Run.at(words)), shown(words)
    assert one.pair is not None and f"“{one.pair.source}”" in found["walk"].text
    assert "The model gets it right" in found["walk"].text
    text = " ".join(step.text for step in found["walk"].steps)
    assert f"So decoded, it writes “{one.pair.references[0]}”." in text
    assert f"their mean is {one.trace.loss:.3g}".replace("-", "−") in text


# ---------------------------------------------------------------------------------------------------- in a browser


@needs("chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(words: Path, width: int, scheme) -> None:
    """Matrices are drawn with the numbers that they were given, and labels stand where their rows and columns do."""
    from playwright.sync_api import sync_playwright

    given = shown(words)["attention"].galleries[2].matrices["head 1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.set_default_timeout(90_000)  # on a machine that has other work too
        page.goto((words / "report.html").as_uri())
        page.wait_for_selector("html[data-matrices=drawn]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        place = page.locator("#attention .gallery").nth(2)
        place.locator("button", has_text="head 1").click()
        assert place.locator("button[aria-pressed=true]").inner_text() == "head 1"
        assert place.locator(".tokens.rows bdi").all_inner_texts() == list(given.rows or [])
        assert place.locator(".tokens.columns bdi").all_inner_texts() == list(given.columns or [])
        canvas = place.locator(".large canvas")
        canvas.scroll_into_view_if_needed()
        (rows, columns), box = given.values.shape, canvas.bounding_box()
        assert box is not None and given.rows is not None and given.columns is not None
        across, down = box["width"] / columns, box["height"] / rows
        for row, column in ((0, 0), (rows - 1, 1)):
            canvas.hover(position={"x": (column + 0.5) * across, "y": (row + 0.5) * down})
            told = f"head 1[“{given.rows[row]}”, “{given.columns[column]}”] = "
            assert place.locator("output").inner_text().startswith(told)
            label = place.locator(".tokens.rows span").nth(row).bounding_box()
            assert label is not None
            assert label["y"] + label["height"] / 2 == pytest.approx(box["y"] + (row + 0.5) * down, abs=2)
            label = place.locator(".tokens.columns span").nth(column).bounding_box()
            assert label is not None
            assert label["x"] + label["width"] / 2 == pytest.approx(box["x"] + (column + 0.5) * across, abs=2)
        step = page.locator("#walk .step", has=page.locator("h3", has_text="Masked self-attention: scores"))
        equation = step.locator(".equation").first
        equation.scroll_into_view_if_needed()
        equation.locator("canvas").nth(2).hover(position={"x": 2, "y": 2})
        assert equation.locator("output").inner_text().startswith("Q Kᵀ[“<bos>”, “<bos>”] = ")
        bands = [
            [band.is_visible() for band in matrix.locator(".band").all()]
            for matrix in equation.locator("figure.matrix").all()
        ]
        assert bands == [[True, False], [False, True], [True, True]], "Q's row and Kᵀ's column"
        page.wait_for_selector("html[data-figures=drawn]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert said == []
        browser.close()
