"""Guards the grokking pages: phases told from the measures and marked in every plot over steps, pictures of what was
measured, controls beside, and every kind of operation."""

import math
from dataclasses import replace
from pathlib import Path

import fake_runs
import numpy as np
import pytest
from backends import CHROMIUM, needs
from test_grokking import by_hand
from tiny import tiny

from onelayer import tasks
from onelayer.grokking import analysis, characters, losses, probe, progress
from onelayer.grokking.subject import Subject, open_subject
from onelayer.report import write_report
from onelayer.report.figures import plots
from onelayer.report.page import sections
from onelayer.report.run import Run
from onelayer.report.section import Section, Table
from onelayer.report.sections import circuit, measures, weights
from onelayer.report.wording import listed, milestones, number, phases
from onelayer.training import train

P = 13
GROWN = {
    "task": {"p": P, "train_fraction": 0.6},
    "model": {"d_model": 24, "n_heads": 2, "d_mlp": 48},
    "steps": 300,
    "evaluation": {"every": 10, "measures": "progress"},
    "checkpoint": {"every": 100},
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was measured, and generalised or not. Read only."""
    return Path(train(tiny(GROWN), tmp_path_factory.mktemp("runs") / "run", probe=probe.prepare).run)


@pytest.fixture(scope="module")
def shown(grown: Path) -> dict[str, Section]:
    return sections(Run.at(grown))


# ---------------------------------------------------------------------------------------------------- phases

STEPS = np.arange(0, 1001, 10)


def curves(memorised: float, circuit_from: float, falling: float) -> tuple[np.ndarray, np.ndarray]:
    """(excluded, test loss): the one falls by e every `memorised` steps and rises from `circuit_from` on, the other
    climbs to 20 and is halved at `falling`, then falls by e every 20 steps."""
    excluded = 4.7 * np.exp(-STEPS / memorised) + 6 / (1 + np.exp(-(STEPS - circuit_from - 150) / 30))
    test = np.minimum(4.7 + STEPS / 5, 20) / (1 + np.exp((STEPS - falling) / 20))
    return excluded, test


@pytest.mark.parametrize(("circuit_from", "falling"), [(100, 500), (200, 700), (50, 300)])
def test_phases_of_curves_whose_turns_are_known(circuit_from, falling):
    excluded, test = curves(20, circuit_from, falling)
    found = progress.phases(STEPS, excluded, STEPS, test)
    assert found.memorising is not None and found.circuit_formation is not None and found.clean_up is not None
    lowest = int(STEPS[np.argmin(excluded)])
    assert found.memorising == (0, lowest)
    assert found.circuit_formation == (lowest, found.clean_up[0])
    assert abs(found.clean_up[0] - falling) <= 20
    top = 20 / (1 + np.exp((100 - falling) / 20))
    assert found.clean_up[1] == STEPS[np.flatnonzero(test < top / 100)[0]]


def test_a_spike_is_no_phase_and_a_late_collapse_moves_none():
    excluded, test = curves(20, 100, 500)
    calm = progress.phases(STEPS, excluded, STEPS, test)
    spiked = test.copy()
    spiked[[30, 58, 80]] = 60, 30, 55
    assert progress.phases(STEPS, excluded, STEPS, spiked) == calm
    fallen = test.copy()
    fallen[90:] = 25
    assert progress.phases(STEPS, excluded, STEPS, fallen) == calm


def test_what_does_not_occur_is_none():
    excluded, test = curves(20, 100, 500)
    flat = 4.7 * np.exp(-STEPS / 20.0)
    assert progress.phases(STEPS, flat, STEPS, test) == ((0, 1000), None, None)
    never = progress.phases(STEPS, excluded, STEPS, np.minimum(4.7 + STEPS / 5, 20))
    assert never.circuit_formation == (never.memorising[1], 1000) and never.clean_up is None  # type: ignore[index]
    begun = progress.phases(STEPS, excluded, STEPS, np.maximum(test, 1.0))
    assert begun.clean_up is not None and begun.clean_up[1] is None
    at_once = progress.phases(STEPS, excluded, STEPS, 4.7 * np.exp(-STEPS / 10.0))
    assert at_once.circuit_formation is None


def path() -> list[tuple[int, Subject]]:
    """The network built by hand, grown: at first each training pair is answered by heart, then the cosines come up, and
    what was learnt by heart goes."""
    s = by_hand(p=P)
    cosines = s.logits / 100
    by_heart = np.where(s.train[..., None], np.eye(P)[s.right], np.eye(P)[(s.right + 3 * (s.right % 3) + 1) % P])
    moments = []
    for step in range(0, 1001, 10):
        memory = 9 * (1 - math.exp(-step / 30)) / (1 + math.exp((step - 600) / 30))
        waves = 6 / (1 + math.exp(-(step - 400) / 40))
        moments.append((step, replace(s, said=memory * by_heart + waves * cosines, keys=(2, 6))))
    return moments


def test_the_path_of_a_network_built_by_hand_has_all_three_phases():
    moments = path()
    excluded = np.array([losses.excluded_loss(s) for _, s in moments])
    test = np.array([losses.full_loss(s)["test"] for _, s in moments])
    steps = [step for step, _ in moments]
    found = progress.phases(steps, excluded, steps, test)
    assert found.memorising is not None and found.circuit_formation is not None and found.clean_up is not None
    assert 100 <= found.memorising[1] <= 450, "by heart until the cosines come up"
    half = steps[np.flatnonzero(test > test.max() / 2)[-1]]
    assert found.circuit_formation == (found.memorising[1], half) and found.clean_up[0] == half
    assert found.clean_up[1] == steps[np.flatnonzero(test < test.max() / 100)[0]]
    assert excluded[-1] == pytest.approx(math.log(P), rel=0.1)


def test_the_series_is_what_training_measured_or_what_the_checkpoints_say(grown, tmp_path):
    records = Run.at(grown).records
    curve = progress.over_training(records)
    assert curve is not None
    told = {r["step"]: r for r in records if "measures" in r}
    assert curve["step"].tolist() == list(told)
    assert curve["excluded_loss"].tolist() == [r["measures"]["excluded_loss"] for r in told.values()]
    plain = fake_runs.make(tmp_path / "run")
    assert progress.over_training(Run.at(plain).records) is None
    assert Run.at(plain).curve["step"].tolist() == [0, 8, 512]  # type: ignore[index]
    assert analysis.analyse(grown).phases == progress.of_run(grown, open_subject(grown))


def test_missing_numbers_are_gaps():
    keys, table = progress.by_key([{"3": 1.0}, {"3": None, "5": 2.0}, {}])
    assert keys == ["3", "5"]
    assert np.array_equal(table, [[1, np.nan], [np.nan, 2], [np.nan, np.nan]], equal_nan=True)
    assert progress.by_key([])[1].shape == (0, 0)


# ---------------------------------------------------------------------------------------------------- pages


def test_the_phases_stand_in_every_plot_over_steps(grown, shown):
    spans = phases(Run.at(grown))
    assert spans
    drawn = [(name, panel.figure) for name, section in shown.items() for panel in section.panels]
    over = [(name, figure) for name, figure in drawn if (figure.layout.meta or {}).get("axis") == "step"]
    assert {name for name, _ in over} >= {"curves", "circuit", "weights", "embedding"}
    assert len(over) >= 8
    for name, figure in over:
        marked = [(shape.name, shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
        first, last = 10 ** np.array(figure.layout.xaxis.range or (-9, 9), dtype=float)  # of a map: what it shows
        seen = [(s.name, max(s.start, first), min(s.stop, last)) for s in spans if s.start < last and s.stop > first]
        assert [m[0] for m in marked] == [s[0] for s in seen], name
        assert np.allclose([m[1:] for m in marked], [s[1:] for s in seen]), name


def test_the_pictures_hold_what_was_measured(grown, shown):
    records = [r for r in Run.at(grown).records if "measures" in r]
    titles = {panel.figure.layout.yaxis.title.text: panel.figure for panel in shown["circuit"].panels}
    heat = next(p.figure for p in shown["circuit"].panels if p.figure.data[0].type == "heatmap").data[0]
    exact = np.array([list(r["measures"]["logit_spectrum"].values()) for r in records if r["step"] > 0])
    assert np.allclose(np.array(heat.z) ** 2, exact.T, atol=1e-6)
    assert np.allclose(heat.customdata, exact.T, atol=1e-6)
    assert len(heat.x) == exact.shape[0] + 1 and list(heat.y) == [1, 2, 3, 4, 5, 6]
    assert "loss (nats)" in titles
    parts = shown["weights"].panels[1].figure
    whole = np.sqrt(sum(np.square(np.array(line.y)) for line in parts.data))
    norms = [r["measures"]["weight_norms"] for r in records]
    left = [n["all"] ** 2 for n in norms]
    inside = np.array([sum(v**2 for k, v in n.items() if k != "all") for n in norms])
    assert np.allclose(inside, left, rtol=1e-4)
    assert np.allclose(whole[1:], np.sqrt(inside)[1:], rtol=1e-4), "the parts are all of the network"
    loud = shown["weights"].panels[2].figure.data
    assert loud[0].y[-1] == records[-1]["measures"]["logit_scale"]


def test_the_paragraph_says_what_the_measures_say(grown, shown):
    s = open_subject(grown)
    text = shown["circuit"].text.split("\n\n")[0]
    assert f"At step {Run.at(grown).checkpoints[-1]:,}" in text
    if s.key_frequencies:
        assert f"({listed(s.key_frequencies)})" in text
        assert number(losses.restricted_loss(s)) in text and number(losses.excluded_loss(s)) in text
    assert len(shown["circuit"].text.split("\n\n")) <= 2


def test_pizza_or_clock_is_told_beside_the_untrained_network():
    text, panel = circuit._pizza_or_clock(by_hand())
    assert "untrained" in text and "pizza" in text
    names = [line.name for line in panel.figure.data]
    assert names == ["this run", "its untrained twin", "clock (Zhong 2023)", "pizza (Zhong 2023)"]
    s = by_hand()
    same, _ = circuit._pizza_or_clock(replace(s, start=s.params))
    assert "reads the same: it proves nothing here" in same


def test_a_measure_that_reads_as_high_on_its_control_is_marked(shown):
    table = shown["measures"].table
    assert table is not None and table.header[:3] == ("measure", "here", "untrained")
    by_name = {row[0]: row for row in table.rows}
    assert {"restricted loss", "gradient symmetricity", "weight norm"} <= by_name.keys()
    for i, row in enumerate(table.rows):
        told = ("Its untrained twin reads about as" in row[3], "Networks with nothing to find read no worse" in row[3])
        assert any(told) == (i in table.marked), row
    untrained = measures.build(_Untrained())  # type: ignore[arg-type]
    assert untrained.table is not None
    marked = {untrained.table.rows[i][0] for i in untrained.table.marked}
    assert marked >= {"gradient symmetricity", "embedding gini", "restricted loss", "margin"}
    assert "weight norm" not in marked, "neither side of it speaks of structure"


class _Untrained:
    """A run whose last network is its first."""

    class directory:
        path = Path("run")

    checkpoints = (0,)

    @property
    def subject(self) -> Subject:
        s = by_hand()
        return s.moved(s.start, None)


KINDS = [
    ({"task": {"operation": "x * y", "p": 11}}, True),
    ({"task": {"operation": "x xor y", "p": 8}}, True),
    ({"task": {"operation": "(x + y)**2", "p": 7}}, True),
    ({"task": {"operation": "D3: x*y", "p": 6}}, True),
    ({"task": {"operation": "D3: x*y*x", "p": 6}}, False),
    ({"task": {"operation": "x**2 + y**2", "p": 7}}, False),
    ({"task": {"p": 9}}, False),
    ({"task": {"name": "parity", "n_bits": 8, "n_train": 100, "n_test": 100}}, None),
]


@pytest.mark.parametrize(("change", "waves"), KINDS)
def test_every_kind_of_operation_gets_what_applies(tmp_path, change, waves):
    run = train(
        tiny(GROWN, {"steps": 30, "checkpoint": {"every": 10}}, change), tmp_path / "run", probe=probe.prepare
    ).run
    parts = sections(Run.at(run))
    assert not [name for name, section in parts.items() if "Not shown" in section.text]
    assert ("circuit" in parts) == (waves is not None)
    names = [row[0] for row in parts["measures"].table.rows]  # type: ignore[union-attr]
    assert "weight norm" in names
    assert ("restricted loss" in names) == bool(waves)
    if waves is False:
        assert "there are none to take" in parts["circuit"].text and "gradient symmetricity" in parts["circuit"].text
    if waves is None:
        assert "To this run do not apply: " in parts["measures"].text
    if waves:
        told = parts["circuit"].text
        assert ("frequenc" in told or "representations" in told) and parts["circuit"].panels


def test_the_logit_of_a_group_by_the_class_of_its_distance():
    """Logits that are a character of (ab)⁻¹c: one number for each class, and nothing left over."""
    task = tasks.make("arithmetic", operation="D3: x*y", train_fraction=0.5)
    s = replace(by_hand(), task=task)
    ch = characters.of(task.facts)
    n, inverse = len(ch.product), np.argmin(ch.product, axis=1)
    k = max(ch.frequencies)
    rows = ch.rows([k])
    character = n / 2 * (rows.T @ rows)[0]  # χ of the two-dimensional representation
    said = character[ch.product[inverse[ch.product]]]
    s = replace(s, said=said)
    assert s.key_frequencies == (k,)
    (panel,) = circuit._logit(s)
    spoken, residual, fitted = (np.array(line.y) for line in panel.figure.data)
    assert panel.figure.data[0].x[0] == task.vocabulary[0] and len(spoken) == 3
    assert spoken == pytest.approx([2, -1, 0], abs=1e-9)
    assert fitted == pytest.approx(spoken, abs=1e-9) and residual == pytest.approx(np.zeros(3), abs=1e-6)


def test_without_characters_the_milestones_are_marked(tmp_path):
    run = Run.at(fake_runs.make(tmp_path / "run", fake_runs.config(task={"operation": "x**2 + y**2", "p": 11})))
    assert phases(run) == milestones(run) != []


def test_weights_of_a_run_without_measures_have_one_picture(tmp_path):
    assert len(weights.build(Run.at(fake_runs.make(tmp_path / "run"))).panels) == 1


def test_a_map_over_steps_puts_each_cell_around_its_step():
    values, steps = np.arange(8.0).reshape(4, 2) / 8, [0, 10, 100, 1000]
    figure = plots.map_over_steps(values, steps, [1, 2], y_title="k", value="share", spans=[plots.Span("s", 10, 300)])
    assert np.allclose(figure.data[0].x, [10 / math.sqrt(10), math.sqrt(1000), math.sqrt(1e5), 1000])
    assert np.allclose(figure.data[0].customdata, values[1:].T)
    assert figure.layout.xaxis.type == "log"
    with pytest.raises(ValueError, match="two steps"):
        plots.map_over_steps(values[:2], steps[:2], [1, 2], y_title="k", value="share")


def test_numbers_in_words():
    assert [number(x) for x in (0, 0.00123456, 4.7e-6, 12.34, 1234.5, -0.5, 1e7)] == [
        "0", "0.00123", "4.70e-06", "12.3", "1,234", "-0.5", "1.00e+07"]  # fmt: skip
    assert listed([1]) == "1" and listed([1, 2, 3]) == "1, 2 and 3"


def test_a_table_escapes_its_text():
    from onelayer.report.page import render

    text = render("t", "t", {"s": Section("s", "-", table=Table(("<b>",), (("<i>",),), frozenset({0})))})
    assert "&lt;b&gt;" in text and "&lt;i&gt;" in text and 'class="marked"' in text


@needs("chromium")
def test_in_a_browser(grown):
    """Every figure of a measured run is drawn at a telephone's width, and no label is cut off."""
    from playwright.sync_api import sync_playwright

    page_path = write_report(grown)
    assert page_path.stat().st_size < 4e6
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme="dark")
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(page_path.as_uri())
        page.wait_for_selector("html[data-figures=drawn]")
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        spill = "[...document.querySelectorAll('.plot text')].filter(t => { const b = t.getBoundingClientRect(),"
        spill += " p = t.closest('.plot').getBoundingClientRect(); return b.width && (b.left < p.left - 1 ||"
        spill += " b.right > p.right + 1 || b.top < p.top - 1 || b.bottom > p.bottom + 1) }).map(t => t.textContent)"
        assert page.evaluate(spill) == [], "labels that are clipped"
        browser.close()
