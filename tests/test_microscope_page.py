"""The microscope page: its numbers are the trace's, its formulas give them, its views move together."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import fake_runs
import numpy as np
import pytest
from backends import CHROMIUM, needs
from microscopes import model as small_model

from onelayer import cli
from onelayer.arrays import flatten, unflatten
from onelayer.errors import BadInput
from onelayer.microscope.trace import Trace, trace
from onelayer.report import write_report
from onelayer.report.microscope import payload, write_microscope
from onelayer.report.microscope.stream import reads
from onelayer.report.microscope.views import views
from onelayer.report.run import Run
from onelayer.tasks import Batch
from onelayer.training.objective import init

ADDITION = {"name": "addition", "n_digits": 1, "n_train": 20, "n_test": 10}
SETTINGS = [
    {},
    {"model": {"n_layers": 2, "norm": "pre", "activation": "gelu", "position": "rope", "unembed_bias": True}},
    {"task": ADDITION, "model": {"norm": "post", "norm_kind": "rms", "position": "alibi", "attention_bias": True}},
    {
        "task": ADDITION,
        "model": {"norm": "pre", "position": "shaw", "tied": "unembed"},
        "loss": {"label_smoothing": 0.1},
    },
]


def make(path: Path, settings: dict[str, Any]) -> Path:
    task = {"task": settings["task"]} if "task" in settings else {}
    return fake_runs.make(path, fake_runs.config(**{**settings, "model": dict(settings.get("model", {})), **task}))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return make(tmp_path / "run", {})


class Page:
    """What the page's script reads, read again."""

    def __init__(self, about: dict[str, Any], blocks: list[str]) -> None:
        self.about, self.blocks = about, blocks

    @classmethod
    def at(cls, path: Path) -> "Page":
        text = path.read_text()
        about = re.search(r'<script type="application/json" id="about">(.*?)</script>', text)
        assert about is not None
        return cls(json.loads(about[1]), re.findall(r'<script type="text/plain" id="block-\d+">(.*?)</script>', text))

    def numbers(self, step: int) -> np.ndarray:
        """[example, number]"""
        content = gzip.decompress(base64.b64decode(self.blocks[step]))
        count = self.about["stride"] * len(self.about["examples"])
        planes = np.frombuffer(content[: 4 * count], np.uint8).reshape(4, count)
        return planes.T.copy().view("<f4").reshape(-1, self.about["stride"])

    def array(self, step: int, example: int, view: dict[str, Any], side: str, token: int = 0) -> np.ndarray:
        starts = view[side]["at"]
        at = starts[token if len(starts) > 1 else 0]
        return self.numbers(step)[example, at : at + int(np.prod(view["shape"]))].reshape(view["shape"])


def alone(run: Run, example: dict[str, Any], step: int, token: int | None = None) -> Trace:
    """The trace of one example by itself; token: of one position's share of its loss."""
    split = getattr(run.task, example["split"])
    one = slice(example["index"], example["index"] + 1)
    batch = Batch(*(None if x is None else x[one] for x in split))
    weights, like = run.weights(step), init(run.model, 0)
    params = unflatten({name: np.asarray(weights[name], np.float64) for name in flatten(like)}, like)
    t = trace(params, batch, run.model, smoothing=run.config.loss.label_smoothing)
    if token is None:
        return t
    return payload.through(t, {"logits": payload.only(token)})


def as_shown(x: np.ndarray, axes: str) -> np.ndarray:
    """One example's array with its heads in front, as the page has them."""
    return np.swapaxes(x[0], 0, 1) if axes[0] == "h" and axes[1:] in ("tk", "sk") else x[0]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_numbers_are_those_of_each_examples_own_trace(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = make(tmp_path / "run", settings)
    page = Page.at(write_microscope(path, examples=["train:1", "test:3"]).path)
    run = Run.at(path)
    for example, step, token in ((0, 0, None), (1, 2, None), (1, 1, 0)):
        if token is not None and page.about["read"] == 1:
            continue
        t = alone(run, page.about["examples"][example], page.about["steps"][step]["step"], token)
        if token is None:
            assert page.about["steps"][step]["loss"][example] == pytest.approx(t.loss, rel=1e-12)
        for view in page.about["views"]:
            for side, arrays in (("value", t.values), ("gradient", t.gradients)):
                if side in view:
                    shown = page.array(step, example, view, side, 0 if token is None else token + 1)
                    wanted = as_shown(arrays[view["name"]], view["axes"])
                    np.testing.assert_allclose(shown, wanted, rtol=1e-6, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("settings", SETTINGS)
def test_routes_add_up_to_the_gradient(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Σ ⟨route, ∂x⟩ is ‖∂x‖² at every position, for the whole loss and for each position's."""
    page = Page.at(write_microscope(make(tmp_path / "run", settings), examples=["train:0"]).path)
    assert len(page.about["routes"]) == settings.get("model", {}).get("n_layers", 1)
    by_name = {view["name"]: view for view in page.about["views"]}
    for block in page.about["routes"]:
        count, rows = len(block["labels"]), block["positions"]
        assert count == 2 * (1 + 3 * 2)
        for token, (norms, products) in enumerate(block["at"]):
            dx = page.array(0, 0, by_name[f"{block['scope']}.hook_resid_pre"], "gradient", token)
            product = page.numbers(0)[0, products : products + count * rows].reshape(count, rows)
            norm = page.numbers(0)[0, norms : norms + count * rows].reshape(count, rows)
            square = np.sum(dx.astype(np.float64) ** 2, axis=1)
            np.testing.assert_allclose(product.sum(0), square, rtol=1e-4, atol=1e-5 * square.max())
            assert np.all(np.abs(product) <= norm * np.sqrt(square) * (1 + 1e-4) + 1e-12)


@pytest.mark.parametrize("architecture", ["decoder_only", "encoder_decoder"])
@pytest.mark.parametrize(("norm", "final"), [("none", None), ("pre", None), ("post", None), ("post", True)])
def test_what_is_read_is_the_sum_of_what_was_written(architecture: str, norm: str, final: bool | None) -> None:
    t = small_model(architecture, norm=norm, n_layers=2, final_norm=final)
    for reader, parts in reads(t).items():
        total = sum(parts.values())
        stack = reader.partition("blocks.")[0] if "blocks" in reader else ""
        if reader == "unembed":
            logits = total @ t.weights["unembed.W_U"] + t.weights["unembed.b_U"]
            np.testing.assert_allclose(logits, t.values["logits"], rtol=1e-10, atol=1e-12)
        elif reader.endswith("mlp"):
            pre = total @ t.weights[f"{reader}.W_in"] + t.weights[f"{reader}.b_in"]
            np.testing.assert_allclose(pre, t.values[f"{reader}.hook_pre"], rtol=1e-10, atol=1e-12)
        else:
            q = np.einsum("btd,hdk->bthk", total, t.weights[f"{reader}.W_Q"]) + t.weights[f"{reader}.b_Q"]
            np.testing.assert_allclose(q, t.values[f"{reader}.hook_q"], rtol=1e-10, atol=1e-12)
        assert stack in ("", "encoder.", "decoder.")


@pytest.mark.parametrize(("norm", "final"), [("none", None), ("pre", None), ("post", None), ("post", True)])
def test_an_encoder_decoder_has_its_views(norm: str, final: bool | None) -> None:
    """Every view is in the trace and is packed; every array that a formula reads is a view."""
    t = small_model("encoder_decoder", norm=norm, n_layers=1, final_norm=final)
    step = payload.Step(t)
    names = {view["name"] for view in step.described()}
    assert {f"decoder.blocks.0.{part}.hook_pattern" for part in ("attn", "cross_attn")} <= names
    assert "encoder.blocks.0.mlp.hook_post" in names and "logits" in names
    for view in views(t):
        for rule in (view.value, view.gradient):
            read = [] if rule is None else [x for x in flatten(list(rule.uses.values())).values() if "hook_" in str(x)]
            assert {str(x) for x in read} <= names, view.name
    assert len(step.packed()) > 1000


def test_checkpoints_are_thinned_to_the_room_there_is(small: Path, tmp_path: Path) -> None:
    one = sum(map(len, payload.build(Run.at(small), payload.choose(Run.at(small), ["0"]), [8]).blocks.values()))
    written = write_microscope(small, examples=["0"], budget=int(2.5 * one))
    assert written.steps == [0, 512] and written.left_out == [8]
    assert "Not in this page, for want of room: the checkpoints at step 8." in written.path.read_text()
    assert payload.thinned(list(range(10)), 4) == [0, 3, 6, 9]
    with pytest.raises(BadInput, match=r"room for .* MB; asked for: 3 with 1 examples. Name fewer"):
        write_microscope(small, examples=["0"], steps=[0, 8, 512], budget=int(2.5 * one), out=tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--examples", "test:100000"], "the test split has"),
        (["--examples", "valid:1"], "train:N, test:N or N"),
        (["--examples=-1"], "train:N, test:N or N"),
        (["--steps", "9"], "step 9 was not saved; the nearest are 0, 8, 512"),
        (["--steps", "x"], "numbers with commas"),
        (["--out", "{dir}/absent/page.html"], "in a directory that exists"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    small: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in small.iterdir())
    options = [option.format(dir=small) for option in options]
    assert cli.run(["microscope", str(small), *options]) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in small.iterdir()) == before


def test_a_run_without_checkpoints_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fake_runs.make(tmp_path / "run", steps=())
    assert cli.run(["microscope", str(path)]) == 2
    assert "has no checkpoint" in capsys.readouterr().err
    assert not (path / "microscope.html").exists()


def test_the_command(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    options = ["--examples", "train:2,3", "--steps", "512,0", "--out", str(page), "--json"]
    assert cli.run(["microscope", str(small), *options]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts == {"run": str(small), "page": str(page), "bytes": page.stat().st_size,
                     "examples": ["train:2", "test:3"], "steps": [0, 512], "left_out": []}  # fmt: skip


def test_the_report_says_how_to_get_the_page_and_then_where_it_is(small: Path) -> None:
    assert f"onelayer microscope {small}" in write_report(small).read_text()
    write_microscope(small, examples=["0"])
    assert '<a href="microscope.html">Open the microscope page</a>' in write_report(small).read_text()


# ---------------------------------------------------------------------------------------------------- in a browser

EXPLAIN = """async ({step, example, token, draws}) => {
  const [{ Numbers }, { explain }] = [await import("microscope/numbers"), await import("microscope/formulas")];
  const about = JSON.parse(document.getElementById("about").textContent);
  const numbers = new Numbers(about);
  await numbers.show(step);
  Object.assign(numbers, { example, token });
  const found = [];
  for (const view of about.views) for (const side of ["value", "gradient"]) if (view[side])
    for (const draw of draws) {
      const index = {};
      [...view.axes].forEach((letter, i) => {
        const own = letter === (view.axes.includes("t") ? "t" : "s");
        index[letter] = (own ? view.first : 0) + Math.floor(draw[i] * view.shape[i]);
      });
      found.push({ name: view.name, side, index, kind: view[side].kind, axes: view.axes, first: view.first,
                   ...explain(numbers, view.name, side, index) });
    }
  return found;
}"""


def evaluated(live: str) -> float:
    """`0.80 × (−0.0018 + 0.0037)` as Python reads it."""
    text = re.sub(r"(\d)e−", r"\1e-", live).replace("−", "-").replace("×", "*")
    return eval(text.replace("e^(", "np.exp("), {"np": np, "max": max})


class Browser:
    def __init__(self, playwright: Any, width: int, scheme: Any) -> None:
        self.said: list[str] = []
        self.browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        self.page = self.browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or self.said.append(asked.url))

    def open(self, path: Path) -> None:
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-drawn=yes]")

    def shown(self) -> float:
        return float(self.page.locator("#readout output").get_attribute("data-value"))

    def pointed_at(self, name: str, side: str, x: float, y: float) -> float:
        """The number that the panel says after the mouse went to a place of a map."""
        canvas = self.page.locator(f"figure[data-view='{name}'][data-side={side}] canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        self.page.mouse.move(box["x"] + x, box["y"] + y)
        return self.shown()


@needs("chromium")
@pytest.mark.parametrize(
    ("settings", "width", "scheme"),
    [
        (SETTINGS[0], 1280, "light"),
        (SETTINGS[1], 390, "dark"),
        (SETTINGS[2], 1280, "dark"),
        (SETTINGS[3], 390, "light"),
    ],
)
def test_in_a_browser(tmp_path: Path, settings: dict[str, Any], width: int, scheme: Any) -> None:
    """No request, no word in the console, nothing spills, and every kind of formula gives its value."""
    from playwright.sync_api import sync_playwright

    path = make(tmp_path / "run", settings)
    page_file = write_microscope(path, examples=["train:1", "test:3"]).path
    read = Page.at(page_file).about["read"]
    run, about = Run.at(path), Page.at(page_file).about
    draws = np.random.default_rng(0).random((6, 3)).tolist()
    with sync_playwright() as playwright:
        browser = Browser(playwright, width, scheme)
        browser.open(page_file)
        page = browser.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        told = page.evaluate(EXPLAIN, {"step": 1, "example": 1, "token": int(read > 1), "draws": draws})
        assert browser.said == []
        browser.browser.close()
    t = alone(run, about["examples"][1], about["steps"][1]["step"], 0 if read > 1 else None)
    kinds: dict[str, int] = {}
    for cell in told:
        arrays = t.values if cell["side"] == "value" else t.gradients
        index = [
            cell["index"][a] - (cell["first"] if a == ("t" if "t" in cell["axes"] else "s") else 0)
            for a in cell["axes"]
        ]
        x = as_shown(arrays[cell["name"]], cell["axes"])
        exact, size = x[tuple(index)], np.abs(x).max()
        what = f"{cell['name']} {cell['side']} {cell['index']}: {cell['formula']}"
        assert cell["value"] == pytest.approx(exact, rel=1e-6, abs=1e-9 * size), what
        if cell["adds"]:
            terms = [row["value"] for row in (*cell["rows"], *cell["left"])]
            assert sum(terms) == pytest.approx(exact, rel=1e-4, abs=2e-4 * max(map(abs, [exact, *terms]))), what
        elif re.match(r"[-−(\de]|max", cell["live"]) and not cell["live"].startswith("0:"):
            assert evaluated(cell["live"]) == pytest.approx(exact, rel=5e-3, abs=5e-3 * size), what
        else:
            continue
        kinds[cell["kind"]] = kinds.get(cell["kind"], 0) + 1
    wanted = {
        "scores",
        "softmax",
        "mix",
        "top",
        "terms",
        "sum",
        "dscores",
        "dpattern",
        "dq",
        "dk",
        "dv",
        "act_back",
        "loss",
    }
    if settings.get("model", {}).get("norm"):
        wanted |= {"norm", "norm_back"}
    assert wanted <= kinds.keys()
    known = {"shaw": {"shaw", "bias of shaw", "sent back by shaw"}, "alibi": {"bias of alibi"}}
    named = known.get(run.model.position, set())
    for cell in told:
        assert {row["label"] for row in cell["left"] if not row["label"].endswith(" more")} <= named, cell


@needs("chromium")
def test_the_views_move_together(small: Path) -> None:
    from playwright.sync_api import sync_playwright

    page_file = write_microscope(small, examples=["train:1", "test:3"]).path
    about = Page.at(page_file).about
    pattern, scores, z = (f"blocks.0.attn.hook_{name}" for name in ("pattern", "attn_scores", "z"))
    first, last = (alone(Run.at(small), about["examples"][0], step) for step in (0, 512))
    with sync_playwright() as playwright:
        browser = Browser(playwright, 1280, "light")
        browser.open(page_file)
        page = browser.page
        snapshot = f"document.querySelector(\"figure[data-view='{pattern}'] canvas\").toDataURL()"

        # a hover shows the trace's number, marks what it was read from, and chooses the head everywhere
        assert browser.pointed_at(scores, "gradient", 100, 20 + 26 + 8) == np.float32(
            last.gradients[scores][0, 1, 0, 0]
        )
        assert page.locator("#head").input_value() == "1"
        assert page.locator("#arrows path.arrow").count() == 2
        assert "∂scores = A (∂A − Σ A ∂A)" in page.inner_text("#readout")
        assert browser.pointed_at(z, "gradient", 66, 6) == np.float32(last.gradients[z][0, 0, 1, 0])

        # so do the arrow keys; Enter holds, and a row of the panel leads to the cell that it was read from
        page.keyboard.press("Tab")
        page.locator(f"figure[data-view='{z}'][data-side=value] canvas").focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert browser.shown() == np.float32(last.values[z][0, 0, 1, 3])
        browser.pointed_at(pattern, "value", 100, 25)
        assert browser.shown() == np.float32(last.values[z][0, 0, 1, 3]), "what is held stays"

        # the slider changes the picture and the number
        before = page.evaluate(snapshot)
        page.locator("#step").focus()
        page.keyboard.press("Home")
        page.wait_for_selector("html[data-step='0']")
        assert page.evaluate(snapshot) != before
        assert browser.shown() == np.float32(first.values[z][0, 0, 1, 3])
        page.locator("#readout td button").first.click()
        assert browser.shown() in first.values[pattern].astype(np.float32) or browser.shown() in first.values[
            "blocks.0.attn.hook_v"
        ].astype(np.float32)

        # another example is another picture; Escape lets go; a ribbon says its length and chooses its head
        before = page.evaluate(snapshot)
        page.select_option("#example", "1")
        assert page.evaluate(snapshot) != before
        page.keyboard.press("Escape")
        assert page.locator("#readout output").count() == 0
        ribbon = page.locator(".ribbon[data-route='mlp>V0']")
        ribbon.dispatch_event("pointerdown")
        assert browser.shown() == float(page.locator(".ribbon.chosen").get_attribute("data-norm"))
        assert page.locator("#head").input_value() == "0"
        assert browser.said == []
        browser.browser.close()
