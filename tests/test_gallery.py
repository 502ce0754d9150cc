"""Guards the gallery of positional encodings: its pictures' numbers, its pages, the command `onelayer positions`."""

import json
from pathlib import Path

import fake_runs
import numpy as np
import pytest
from backends import CHROMIUM, needs

from onelayer import cli, positions
from onelayer.errors import BadInput
from onelayer.positions import Size
from onelayer.report import gallery
from onelayer.report.figures import positions as figures
from onelayer.studies import position_pictures as pictures

SIZE = Size(d_model=16, n_heads=2, d_head=8, n_ctx=12)


def found(name: str, n: int = 12, **constants):
    method = positions.get(name, **(positions.fitted(name, n) | constants))
    return pictures.pictures(method, pictures.draw(method, SIZE), SIZE, n)


# ---------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("name", positions.available())
def test_a_method_has_the_pictures_of_its_stages(name):
    method, seen = positions.get(name), found(name)
    assert ("added" in seen) == method.has("embedding")
    assert ("turned" in seen) == method.has("query_key")
    assert ("bias" in seen) == method.has("score")
    assert {"gram", "spectrum", "singular", "gram_by_offset"} <= set(seen) or not ({"added", "turned"} & set(seen))
    for key, value in seen.items():
        values = value.mean if isinstance(value, pictures.ByOffset) else value
        assert key == "bias" or np.all(np.isfinite(values)), key


def test_the_picture_of_the_readme():
    method = positions.get("sinusoidal")
    table = pictures.added(method, None, Size(128, 4, 32, 50), 50)
    assert table is not None
    for t in (0, 1, 7, 49):
        for k in (0, 3, 63):
            angle = t * 10_000 ** (-2 * k / 128)
            assert table[t, 2 * k] == pytest.approx(np.sin(angle), abs=1e-13)
            assert table[t, 2 * k + 1] == pytest.approx(np.cos(angle), abs=1e-13)


def test_the_gram_matrix_of_sines_is_a_sum_of_cosines_of_the_offset():
    seen = found("sinusoidal")
    frequencies = 10_000.0 ** (-np.arange(8) / 8)
    for t, s in ((0, 0), (3, 1), (2, 11)):
        assert seen["gram"][t, s] == pytest.approx(np.cos((t - s) * frequencies).sum() / 16, rel=1e-12)
    along = seen["gram_by_offset"]
    np.testing.assert_allclose(along.low, along.high, rtol=1e-12)  # only the offset counts
    spread = found("random_fixed")["gram_by_offset"]
    assert np.max(spread.high - spread.low) > 0.01  # and here it does not


@pytest.mark.parametrize("name", [m for m in positions.available() if positions.get(m).has("query_key")])
def test_turned_places_are_alike_by_offset_alone(name):
    along = found(name)["gram_by_offset"]
    np.testing.assert_allclose(along.low, along.high, rtol=1e-10, atol=1e-12)


def test_the_bias_of_alibi_against_the_offset():
    seen = found("alibi")
    slopes = 2.0 ** (-8 * np.array([1, 2]) / 2)
    np.testing.assert_array_equal(seen["bias_by_offset"].offsets, np.arange(12))
    np.testing.assert_allclose(seen["bias_by_offset"].mean, -slopes[:, None] * np.arange(12), rtol=1e-12)
    assert np.isnan(seen["bias"][:, 3, 4]).all()  # it may not look ahead


def test_the_spectrum_finds_a_wave():
    t = np.arange(32)
    amplitude = pictures.spectrum(np.stack([np.cos(2 * np.pi * 5 * t / 32), np.ones(32)], axis=1))
    assert np.argmax(amplitude[:, 0]) == 5
    assert amplitude[5, 0] == pytest.approx(16)
    np.testing.assert_allclose(amplitude[:, 1], 0, atol=1e-12)


def test_by_offset_by_a_loop():
    values = np.random.default_rng(0).standard_normal((2, 4, 4))
    along = pictures.by_offset(values)
    for i, offset in enumerate(along.offsets):
        pairs = [values[:, t, s] for t in range(4) for s in range(4) if t - s == offset]
        for part, f in ((along.mean, np.mean), (along.low, np.min), (along.high, np.max)):
            np.testing.assert_allclose(part[:, i], f(pairs, axis=0), rtol=1e-14)


def test_bits_count():
    bits = pictures.bits(128, 7)
    np.testing.assert_array_equal(bits @ 2 ** np.arange(7), np.arange(128))
    rows = gallery.counting().counter
    assert rows is not None
    lamps = list(rows.rows.values())
    np.testing.assert_array_equal(lamps[0], bits)
    np.testing.assert_array_equal(np.round(lamps[1]), bits)  # each sine is on the side of its bit
    assert all(lamp.min() >= 0 and lamp.max() <= 1 and lamp.shape == (128, 7) for lamp in lamps)


@pytest.mark.parametrize("n", [1, 513])
def test_too_few_or_too_many_positions(n):
    with pytest.raises(BadInput, match="2 to 512"):
        pictures.pictures(positions.get("alibi"), None, SIZE, n)


def test_the_first_look_leaves_a_gap_between_probes():
    figure = figures.first_look(np.arange(12).reshape(2, 3, 2) / 12, ["a", "b"], ["x", "y", "z"], ["1", "2"])
    values = np.array(figure.data[0].z)
    assert values.shape == (2, 8)
    np.testing.assert_array_equal(np.isnan(values[0]), [False, False, True, False, False, True, False, False])
    assert values[1, 4] == 9 / 12
    assert [a.text for a in figure.layout.annotations] == ["<b>x</b>", "<b>y</b>", "<b>z</b>"]


# ---------------------------------------------------------------------------------------------------- the command


def run(capsys, *tokens: str) -> tuple[int, str, str]:
    code = cli.run(["positions", *tokens])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_table_has_every_method(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.split()[0] in positions.available()] == [
        *positions.available()
    ]
    code, out, _ = run(capsys, "--json")
    rows = {row["name"]: row for row in json.loads(out.splitlines()[-1])["methods"]}
    assert code == 0
    assert tuple(rows) == positions.available()
    assert rows["learned"]["parameters"] == 50 * 128
    assert rows["alibi"]["crosses"] is False
    assert rows["alibi"]["extrapolates"] == "yes"
    assert rows["rope"]["relative"] is True


@pytest.mark.parametrize("name", ["none", "sinusoidal", "learned", "rope", "alibi", "cope"])
def test_show_says_what_there_is(capsys, name):
    code, out, _ = run(capsys, "show", name)
    assert code == 0
    assert out.startswith(positions.get(name).summary)
    assert "--html FILE" in out
    code, out, _ = run(capsys, "show", name, "--json", "--n", "8")
    shown = json.loads(out.splitlines()[-1])["pictures"]
    assert code == 0
    assert set(shown) == set(found(name, 8))


def test_show_takes_constants(capsys):
    _, out, _ = run(capsys, "show", "sinusoidal", "--setting", "base=100", "--json")
    shown = json.loads(out.splitlines()[-1])
    assert shown["pictures"]["added"][3][2] == pytest.approx(np.sin(3 * 100 ** (-2 / 128)))


@pytest.mark.parametrize(("tokens", "said"), [
    (["show", "sinusodal"], "did you mean 'sinusoidal'"),
    (["show", "abacus"], "position_ids='abacus'"),
    (["show"], "show takes the name of a method"),
    (["show", "sinusoidal", "--setting", "base=0.5"], "greater than 1"),
    (["show", "sinusoidal", "--setting", "base=high"], "is a finite number; received 'high'"),
    (["show", "sinusoidal", "--setting", "base=Infinity"], "finite number"),
    (["show", "t5", "--setting", "buckets=8.5"], "is a whole number; received 8.5"),
    (["show", "sinusoidal", "--setting", "basis=100"], "did you mean 'base'"),
    (["show", "sinusoidal", "--setting", "base"], "key=value"),
    (["show", "rope", "--d-model", "12", "--heads", "4"], "must be even; received 3"),
    (["show", "alibi", "--n", "1"], "2 to 512"),
    (["show", "alibi", "--heads", "3"], "must divide"),
    (["show", "alibi", "--html", "/nowhere/x.html"], "cannot write"),
    (["list", "alibi"], "list takes no method"),
    (["show", "alibi", "--run", "/nowhere"], "/nowhere"),
])  # fmt: skip
def test_bad_input(capsys, tokens, said):
    code, _, err = run(capsys, *tokens)
    assert code == 2
    assert said in err


@pytest.mark.parametrize("position", ["learned", "t5", "rope"])
def test_show_of_a_run(tmp_path: Path, capsys, position):
    path = fake_runs.make(tmp_path / "run", fake_runs.config(model={"position": position}))
    page = tmp_path / "shown.html"
    code, out, _ = run(capsys, "show", "--run", str(path), "--html", str(page))
    assert code == 0
    assert str(page) in out
    assert ("Over training" in page.read_text()) == (position != "rope")  # which learns nothing
    code, _, err = run(capsys, "show", "alibi", "--run", str(path))
    assert code == 2
    assert position in err


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_the_report_tells_content_from_position(tmp_path: Path, position):
    from onelayer.report.page import sections
    from onelayer.report.run import Run

    shown = sections(Run.at(fake_runs.make(tmp_path / "run", fake_runs.config(model={"position": position}))))
    section = shown["addressing"]
    assert "Not shown" not in section.text
    query_shares = [panel for panel in section.panels if "W_Q" in panel.caption]
    assert len(query_shares) == 2  # heads
    terms = 4 if position == "learned" else 2
    for panel in query_shares:
        lines = [np.array(trace.y) for trace in panel.figure.data]
        assert len(lines) == terms
        np.testing.assert_allclose(sum(lines), 1, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------- the page


@needs("chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_slider_lights_the_bits(tmp_path: Path, width: int, scheme):
    from playwright.sync_api import sync_playwright

    path = gallery.write_page(tmp_path / "page.html", "binary", "", gallery.method_page(positions.get("binary"), SIZE))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url)
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-figures=drawn]")
        page.locator(".counter input").fill("37")
        lights = page.evaluate(
            "[...document.querySelector('.counter .lamps').children].map(l => l.style.getPropertyValue('--light'))"
        )
        assert lights == ["1", "0", "1", "0", "0", "1", "0"]  # 37 = 100101 in binary
        assert page.locator(".counter output").inner_text() == "37"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert said == []
        browser.close()


def test_the_gallery_has_all_methods(tmp_path: Path):
    parts = gallery.gallery(SIZE, 8)
    assert list(parts) == ["counting", *positions.available(), "numberings"]
    assert all(bool(parts[name].panels) == (name != "none") for name in positions.available())
    page = gallery.write_page(tmp_path / "all.html", "Positional encodings", "", parts)
    assert page.stat().st_size < 4e6
