"""Guards the page of a run: it is one file, loads nothing, shows what was measured, and survives a broken run."""

import base64
import gzip
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import fake_runs
import numpy as np
import plotly.graph_objects as go
import pytest
from backends import CHROMIUM, needs
from hypothesis import given
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs

from onelayer import cli, positions, tasks
from onelayer.errors import BadInput
from onelayer.grokking import fourier
from onelayer.report import write_report
from onelayer.report.figures import plots, theme
from onelayer.report.page import render, sections
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.sections import SECTIONS
from onelayer.report.wording import percent, phases
from onelayer.tasks import Batch
from onelayer.training import configure

ELSEWHERE = ("flow", "curvature", "answers", "walk", "walk_back")  # what a watcher noted; what a run of words has
UNWATCHED = [name for name in SECTIONS if name not in ELSEWHERE]
ALL = set(UNWATCHED) | {"answers", "walk", "walk_back"}  # where it is not known what the run is


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at the default size, and its page. Read only."""
    cfg = fake_runs.config(
        task={"name": "arithmetic", "operation": "x + y", "p": 113}, model={"d_model": 128, "n_heads": 4}
    )
    path = fake_runs.make(tmp_path_factory.mktemp("runs") / "default", cfg)
    write_report(path)
    return path


@pytest.fixture(scope="module")
def shown(made: Path) -> dict[str, Section]:
    """The sections of that page."""
    return sections(Run.at(made))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return fake_runs.make(tmp_path / "small")


# ---------------------------------------------------------------------------------------------------- one file


class Elements(HTMLParser):
    """Every start tag with its attributes, and what stands in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.content: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.content.append((*self.tags[-1], data))


def test_the_page_loads_nothing(made: Path) -> None:
    text = (made / "report.html").read_text()
    elements = Elements(text)
    policy = next(a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; ")
    assert "http" not in policy and "*" not in policy
    for tag, attributes in elements.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), f"<{tag} {name}={value!r}>"
    ours = [data for tag, attributes, data in elements.content if attributes.get("id") != "plotly"]
    assert not re.search(r"https?:|@import|url\(", "".join(ours))


def test_the_modules_of_the_page_load_nothing_from_outside() -> None:
    from onelayer.report.page import ASSETS, MODULES

    for name in MODULES:
        source = (ASSETS / f"{name}.js").read_text()
        assert not re.search(r"https?:|fetch\(|XMLHttpRequest|WebSocket|importScripts|import\(", source)
        imported = re.findall(r'from "([^"]+)"', source)
        assert all(target.removeprefix("onelayer/") in MODULES for target in imported)
    assert {path.stem for path in ASSETS.glob("*.js")} == set(MODULES), "a module that no page carries"


def test_the_page_carries_plotly_whole(made: Path) -> None:
    elements = Elements((made / "report.html").read_text())
    packed = next(data for tag, attributes, data in elements.content if attributes.get("id") == "plotly")
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()


def test_the_page_is_small_enough(made: Path) -> None:
    assert (made / "report.html").stat().st_size < 5e6


def test_nothing_else_is_left_in_the_directory(small: Path) -> None:
    before = {path.name for path in small.iterdir()}
    page = write_report(small)
    assert page == small / "report.html"
    assert {path.name for path in small.iterdir()} == before | {"report.html"}


def test_a_page_is_replaced_whole(small: Path) -> None:
    (small / "report.html").write_text("the old page")
    assert write_report(small).read_text().startswith("<!doctype html>")


def test_the_same_run_gives_the_same_page(small: Path) -> None:
    assert write_report(small).read_bytes() == write_report(small).read_bytes()


def test_text_and_data_cannot_break_out_of_their_place() -> None:
    evil = "</script><script>alert(1)</script><img src=x>"
    figure = plots.bars(np.array([1.0]), np.array([2.0]), x_title=evil, y_title="y")
    part = Section(evil, evil, (Panel(figure, evil),), {evil: evil}, {evil: evil})
    plain = render("t", "t", {"s": Section("", "-", (Panel(figure, ""),), {"": ""}, {"": ""})})
    elements = Elements(render(evil, evil, {"s": part}))
    assert [tag for tag, _ in elements.tags] == [tag for tag, _ in Elements(plain).tags]
    embedded = next(data for tag, a, data in elements.content if a == {"type": "application/json"})
    assert json.loads(embedded)["layout"]["xaxis"]["title"]["text"] == evil


# ---------------------------------------------------------------------------------------------------- sections


def test_every_section_shows_itself(shown: dict[str, Section]) -> None:
    assert list(shown) == UNWATCHED
    for name, section in shown.items():
        assert section.text and "Not shown" not in section.text, name
        assert section.panels or section.listings or section.table or name in ("summary", "microscope")
        for panel in section.panels:
            assert panel.caption
            assert panel.figure.layout.xaxis.title.text and panel.figure.layout.yaxis.title.text


def test_the_summary_says_what_the_metrics_say(shown: dict[str, Section]) -> None:
    summary = shown["summary"]
    text = summary.text.replace("\u00a0", " ")
    assert (
        "A decoder-only Transformer of 1 layer was trained on x + y mod 113 with 3,830 questions; 8,939 others" in text
    )
    assert "at least 99 % of the training set at step 16." in text
    assert "at least 99 % of the unseen questions at step 256: it memorised first" in text
    assert "after 16.0 times as many steps" in text
    assert "It did not hold that for 5 evaluations in a row" in text
    assert "lowest value after the first crossing was 99.4 %" in text
    assert "98 % of those (a, b) whose mirror (b, a) is unseen too" in text
    assert "most frequent answer would be right for 0.8 %" in text
    assert summary.facts["memorised at step"] == "16"


def test_a_run_that_never_learnt_is_told_as_such(small: Path) -> None:
    cfg = json.loads((small / "config.json").read_text())
    cfg["stop"]["threshold"] = 1.0
    (small / "config.json").write_text(json.dumps(cfg))
    shown = sections(Run.at(small))
    assert "In 512 steps it did not come to answer 100" in shown["summary"].text
    assert "It never answered as much as 100" in shown["summary"].text
    assert shown["summary"].facts["generalised at step"] == "not reached"


@pytest.mark.parametrize("position", positions.available())
def test_any_position(tmp_path: Path, position: str) -> None:
    path = fake_runs.make(tmp_path / "run", fake_runs.config(model={"position": position}))
    shown = sections(Run.at(path))
    assert not [name for name, section in shown.items() if "Not shown" in section.text]
    assert f"“{position}”" in shown["position"].text
    assert bool(shown["position"].panels) == (position != "none")


@pytest.mark.parametrize("norm", ["none", "pre", "post"])
def test_any_norm(tmp_path: Path, norm: str) -> None:
    shown = sections(Run.at(fake_runs.make(tmp_path / "run", fake_runs.config(model={"norm": norm}))))
    assert not [name for name, section in shown.items() if "Not shown" in section.text]


def test_the_configuration_shown_repeats_the_run(small: Path) -> None:
    run = Run.at(small)
    shown = json.loads(sections(run)["recipe"].listings["Configuration (config.json)"])
    assert configure(shown["recipe"], shown) == run.config


@pytest.mark.parametrize("task", [name for name in tasks.NUMBERS if name != "arithmetic"])
def test_any_task(tmp_path: Path, task: str) -> None:
    shown = sections(Run.at(fake_runs.make(tmp_path / "run", fake_runs.config(task={"name": task}))))
    assert not [name for name, section in shown.items() if "Not shown" in section.text]
    assert len(shown["attention"].panels) == 2, "one for each head"
    assert "embedding" not in shown


def test_two_layers_show_the_last_one(tmp_path: Path) -> None:
    path = fake_runs.make(tmp_path / "run", fake_runs.config(model={"n_layers": 2}))
    assert "in the last of 2 layers" in sections(Run.at(path))["attention"].text


@pytest.mark.parametrize(
    ("operation", "p", "with_spectrum"),
    [("x * y", 11, True), ("x / y", 11, True), ("x**2 + y**2", 11, True), ("S3", 6, False)],
)
def test_other_operations(tmp_path: Path, operation: str, p: int, with_spectrum: bool) -> None:
    task = {"name": "arithmetic", "operation": operation, "p": p, "train_fraction": 0.5}
    shown = sections(Run.at(fake_runs.make(tmp_path / "run", fake_runs.config(task=task))))
    assert not [name for name, section in shown.items() if "Not shown" in section.text]
    assert ("embedding" in shown) == with_spectrum


@pytest.mark.parametrize(
    ("harm", "lost", "word"),
    [
        (lambda run: shutil.rmtree(run / "checkpoints"),
         {"attention", "circuit", "embedding", "measures", "position"}, "no checkpoint"),
        (lambda run: (run / "metrics.jsonl").unlink(), {"summary", "curves", "weights"}, "no evaluation"),
        (lambda run: (run / "metrics.jsonl").write_bytes(b""), {"summary", "curves", "weights"}, "no evaluation"),
        (lambda run: (run / "metrics.jsonl").write_bytes(b'{"st'), {"summary", "curves", "weights"}, "no evaluation"),
        (lambda run: (run / "manifest.json").unlink(), {"recipe"}, "manifest.json"),
        (lambda run: (run / "manifest.json").write_text("[1"), {"recipe"}, "manifest.json"),
        (lambda run: (run / "config.json").write_text("{"), ALL, "config.json"),
        (lambda run: (run / "config.json").write_text('{"tusk": 1}'), ALL, "unknown field"),
    ],
)  # fmt: skip
def test_a_broken_run_loses_only_what_is_broken(small: Path, harm, lost: set[str], word: str) -> None:
    harm(small)
    shown = sections(Run.at(small))
    assert {name for name, section in shown.items() if section.text.startswith("Not shown: ")} == lost
    assert any(word in shown[name].text for name in lost)
    assert write_report(small).read_text().count("Not shown: ") == len(lost)


def test_a_run_before_its_first_step(small: Path) -> None:
    log = small / "metrics.jsonl"
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])
    shown = sections(Run.at(small))
    assert not [name for name, section in shown.items() if "Not shown" in section.text]
    assert "In 0 steps it did not come to answer" in shown["summary"].text
    assert "Shaded" not in shown["curves"].panels[0].caption


def test_a_damaged_checkpoint_is_passed_over(small: Path) -> None:
    last = small / "checkpoints" / "step-512" / "model.safetensors"
    before = sections(Run.at(small))["embedding"]
    last.write_bytes(last.read_bytes()[:-7])
    after = sections(Run.at(small))["embedding"]
    assert "Not shown" not in after.text
    assert before.text != after.text, "the weights of step 512 cannot have been read"


def test_a_section_that_fails_is_loud_and_alone(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: Run) -> Section:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(SECTIONS["weights"], "build", fails)
    with pytest.warns(UserWarning, match="'Weights' failed: ZeroDivisionError: on purpose"):
        shown = sections(Run.at(small))
    assert shown["weights"].text == "Not shown, because drawing it failed: ZeroDivisionError: on purpose"
    assert [name for name, section in shown.items() if "Not shown" in section.text] == ["weights"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(BadInput, match="is not a run"):
            write_report(path)
    assert not list(tmp_path.iterdir())


def test_the_command(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", str(small), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    page = small / "report.html"
    assert facts == {"run": str(small), "report": str(page), "bytes": page.stat().st_size}
    assert cli.run(["report", str(small / "checkpoints")]) == 2
    assert "is not a run" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- figures


def trace(figure: go.Figure, index: int = 0) -> dict:
    """A trace as the page has it: through JSON, binary arrays decoded."""

    def decoded(value):
        if isinstance(value, dict) and "bdata" in value:
            flat = np.frombuffer(base64.b64decode(value["bdata"]), np.dtype(value["dtype"]))
            return flat.reshape([int(n) for n in str(value.get("shape", flat.size)).split(",")])
        return value

    return {key: decoded(value) for key, value in json.loads(figure.to_json())["data"][index].items()}


def test_lines_draw_the_arrays() -> None:
    x, rng = np.array([1, 2, 5, 10]), np.random.default_rng(0)
    series = {"train": rng.random(4), "test": np.array([0.1, np.nan, 1e-9, 3.0])}
    figure = plots.lines(
        x, series, x_title="step", y_title="loss", log_x=True, log_y=True, spans=[plots.Span("s", 2, 5)]
    )
    for index, (name, y) in enumerate(series.items()):
        drawn = trace(figure, index)
        assert drawn["name"] == name
        np.testing.assert_array_equal(drawn["x"], x)
        np.testing.assert_array_equal(drawn["y"], y)
    nothing = plots.lines(
        np.array([0, 1]), {"y": np.array([2.0, 0.0])}, x_title="x", y_title="y", log_x=True, log_y=True
    )
    np.testing.assert_array_equal(trace(nothing)["x"], [np.nan, 1])
    np.testing.assert_array_equal(trace(nothing)["y"], [2, np.nan])
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (2, 5)


def test_bars_and_heat_maps_draw_the_arrays() -> None:
    rng = np.random.default_rng(1)
    x, y = np.arange(3, 8), rng.random(5)
    drawn = trace(plots.bars(x, y, x_title="k", y_title="share"))
    np.testing.assert_array_equal(drawn["x"], x)
    np.testing.assert_array_equal(drawn["y"], y)
    z = rng.standard_normal((4, 5))
    figure = plots.heat_map(z, x=x, x_title="a", y_title="b", value="c", downward=True)
    np.testing.assert_array_equal(trace(figure)["z"], z)
    np.testing.assert_array_equal(trace(figure)["x"], x)
    assert figure.layout.yaxis.autorange == "reversed"
    assert figure.data[0].zmax == -figure.data[0].zmin == np.abs(z).max(), "zero is the colour in the middle"


def test_labels_stand_at_their_rows() -> None:
    figure = plots.heat_map(np.eye(3), x_title="x", y_title="y", value="v", y_labels=["a", "a", "b"])
    assert figure.layout.yaxis.tickvals == (0, 1, 2) and figure.layout.yaxis.ticktext == ("a", "a", "b")
    many = plots.heat_map(np.eye(100), x_title="x", y_title="y", value="v", y_labels=[f"r{i}" for i in range(100)])
    assert many.layout.yaxis.ticktext[1] == f"r{many.layout.yaxis.tickvals[1]}" == "r5"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'train' has the shape \(3,\), the axis \(2,\)"):
        plots.lines(np.arange(2), {"train": np.zeros(3)}, x_title="x", y_title="y")
    with pytest.raises(ValueError, match=r"received the shape \(3,\)"):
        plots.heat_map(np.zeros(3), x_title="x", y_title="y", value="v")
    with pytest.raises(ValueError, match="2 labels were given for 3"):
        plots.heat_map(np.zeros((3, 3)), x_title="x", y_title="y", value="v", x_labels=["a", "b"])


def test_the_sections_draw_the_runs_own_numbers(made: Path, shown: dict[str, Section]) -> None:
    run = Run.at(made)
    loss, accuracy = (panel.figure for panel in shown["curves"].panels)
    for figure, names in ((loss, ("train_loss", "test_loss")), (accuracy, ("train_accuracy", "test_accuracy"))):
        for index, name in enumerate(names):
            np.testing.assert_array_equal(trace(figure, index)["y"], fake_runs.curves()[name])
            np.testing.assert_array_equal(trace(figure, index)["x"], [np.nan, *fake_runs.STEPS[1:]])
    *maps, profile, samples = (panel.figure for panel in shown["attention"].panels)
    a, b = 5, 17
    alone = run.values(Batch(np.array([[a, b, 113]]), np.array([[0]])), "*.hook_pattern")["blocks.0.attn.hook_pattern"][
        0, :, -1
    ]
    for head in range(4):
        assert trace(maps[head])["z"][a, b] == pytest.approx(alone[head, 0], rel=1e-6)
        assert trace(profile, head)["y"][a] == pytest.approx(trace(maps[head])["z"][a].mean(), rel=1e-5)
    np.testing.assert_allclose(trace(samples)["z"].reshape(12, 4, 3).sum(-1), 1, rtol=1e-6)
    table = trace(shown["position"].panels[0].figure)["z"]
    np.testing.assert_array_equal(table, run.weights()["pos_embed.W_pos"].astype(np.float32))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's ratio of relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("template", [theme.light(), theme.dark()])
def test_lines_and_text_stand_out_from_the_page(template: go.layout.Template) -> None:
    page = template.layout.paper_bgcolor
    assert contrast(template.layout.font.color, page) > 7
    assert min(contrast(colour, page) for colour in template.layout.colorway[:3]) > 3


# ---------------------------------------------------------------------------------------------------- numbers in words


def test_phases_follow_the_milestones(made: Path) -> None:
    spans = phases(Run.at(made))
    assert [(s.start, s.stop) for s in spans] == [(1, 16), (16, 256), (256, 512)]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1e-9, "< 0.1 %"), (0.5, "50 %"), (0.99217, "99.2 %"), (0.9994, "99.9 %"), (0.99951, "> 99.9 %"),
     (1 - 1e-12, "> 99.9 %"), (1.0, "100 %")],
)  # fmt: skip
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text.replace(" ", "\u00a0")


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_power_against_the_sums_written_out(n: int, seed: int) -> None:
    table = np.random.default_rng(seed).standard_normal((n, 3, 2))
    a = np.arange(n)
    for k, found in enumerate(fourier.power(table)):
        waves = [np.cos(2 * np.pi * k * a / n), np.sin(2 * np.pi * k * a / n)]
        expected = 0.0
        for wave in waves:
            length = np.sqrt(np.sum(wave**2))
            if length > 1e-6:  # the sine of frequency 0 and n/2 is no wave
                expected += sum(np.dot(wave / length, column) ** 2 for column in table.reshape(n, -1).T)
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert fourier.power(table).sum() == pytest.approx(np.sum(table**2), rel=1e-12)


@pytest.mark.parametrize("p", [2, 3, 5, 7, 97, 113])
def test_powers_of_a_root(p: int) -> None:
    powers = fourier.powers_of_a_root(p)
    assert sorted(powers) == list(range(1, p))
    assert all(powers[i] * powers[1 % (p - 1)] % p == powers[(i + 1) % (p - 1)] for i in range(p - 1))


@pytest.mark.parametrize("n", [4, 6, 8, 9, 15])
def test_a_composite_has_no_root(n: int) -> None:
    with pytest.raises(ValueError, match="is not a prime"):
        fourier.powers_of_a_root(n)


# ---------------------------------------------------------------------------------------------------- in a browser


@needs("chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(made: Path, width: int, scheme) -> None:
    """Every figure is drawn and as wide as its place, nothing is asked of a network, nothing is said in the console."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url)
        )
        page.goto((made / "report.html").as_uri())
        page.wait_for_selector("html[data-figures=drawn]")
        assert said == []
        assert page.locator(".plot").count() == page.locator(".plot .main-svg").count() / 3 > 8
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        spill = "[...document.querySelectorAll('.plot text')].filter(t => { const b = t.getBoundingClientRect(),"
        spill += " p = t.closest('.plot').getBoundingClientRect(); return b.width && (b.left < p.left - 1 ||"
        spill += " b.right > p.right + 1 || b.top < p.top - 1 || b.bottom > p.bottom + 1) }).map(t => t.textContent)"
        assert page.evaluate(spill) == [], "labels that are clipped"
        background = page.locator(".plot .main-svg").first.evaluate("e => e.style.background")
        assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)")
        assert (
            page.evaluate("document.querySelector('#curves .plot')._fullData[1].y[3]")
            == fake_runs.curves()["test_loss"][3]
        )
        page.evaluate("Plotly.relayout(document.querySelector('#weights .plot'), {'xaxis.range': [0, 1]})")
        page.wait_for_function("document.querySelector('#curves .plot').layout.xaxis.range?.[1] === 1")
        browser.close()
