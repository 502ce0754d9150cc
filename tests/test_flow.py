"""Guards what is noted of gradients and updates over training, its journal and figures; and that no run feels it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onelayer.arrays import flatten
from onelayer.errors import BadInput
from onelayer.layers import softmax
from onelayer.microscope import flow, journal
from onelayer.microscope.flow import Flow
from onelayer.report.run import Run
from onelayer.report.sections import curvature as curvature_section
from onelayer.report.sections import flow as flow_section
from onelayer.training import loop, step
from onelayer.training.config import RunConfig, resolve
from onelayer.training.engines.numpy_engine import Engine


def config(**changes: Any) -> RunConfig:
    small: dict[str, Any] = {
        "task": {"p": 7, "train_fraction": 0.6}, "model": {"d_model": 8, "n_heads": 2, "d_mlp": 12}, "steps": 12,
        "stop": {"on": "none"}, "evaluation": {"every": 4}, "checkpoint": {"every": 4}, "seed": 5,
    }  # fmt: skip
    return resolve(small | changes)


def watcher(cfg: RunConfig, **how: Any) -> Flow:
    return Flow(step.make_objective(cfg, cfg.task.make(cfg.seed)), **how)


def test_a_watched_run_has_the_same_weights_and_a_journal(tmp_path: Path) -> None:
    cfg = config()
    seen = watcher(cfg, every=1, period=7)
    loop.train(cfg, tmp_path / "with", callback=seen, watch=seen)
    loop.train(cfg, tmp_path / "without")
    files = [tmp_path / run / "checkpoints/step-12" for run in ("with", "without")]
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes()
    assert [r["step"] for r in journal.read(tmp_path / "with/flow.jsonl")] == list(range(12))


def test_the_figures_are_those_of_the_step() -> None:
    cfg = config(dtype="float64")
    engine = Engine(cfg, cfg.task.make(cfg.seed))
    seen = watcher(cfg, every=1, period=7)
    steps: list[Any] = []

    def watch(stepped: Any) -> None:
        steps.append(stepped)
        seen(stepped)

    engine.watch = watch
    engine.run(engine.start(), 0, 3)
    first, last = (flatten(steps[i].gradient) for i in (1, 2))
    record, name = seen.records[2], "blocks.0.attn.W_Q"
    moved = flatten(steps[2].after.params)[name] - flatten(steps[2].before.params)[name]
    assert record["gradient"][name] == pytest.approx(np.linalg.norm(last[name]))
    assert record["update"][name] == pytest.approx(np.linalg.norm(moved))
    a, b = (np.concatenate([x.ravel() for x in g.values()]) for g in (first, last))
    assert record["alignment"]["all"] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert "alignment" not in seen.records[0]
    assert np.linalg.norm(record["frequency"]) == pytest.approx(np.linalg.norm(last["embed.W_E"][:7]))
    assert 0 <= record["dead"]["blocks.0"] <= record["idle"]["blocks.0"] <= 1
    assert len(record["saturation"]["blocks.0.attn"]) == 2


def test_a_dead_unit_is_counted() -> None:
    """A unit whose bias is far below zero is on for nobody, and one whose bias is far above is on for all."""
    cfg = config(dtype="float64")
    engine = Engine(cfg, cfg.task.make(cfg.seed))
    start = engine.start()
    b_in = start.params.blocks[0].mlp.b_in.copy()
    b_in[:] = 100.0
    b_in[[1, 4, 7]] = -100.0
    block = start.params.blocks[0]
    params = start.params._replace(blocks=(block._replace(mlp=block.mlp._replace(b_in=b_in)),))
    seen = engine.watch = watcher(cfg, every=1)
    engine.run(start._replace(params=params), 0, 1)
    assert seen.records[0]["dead"]["blocks.0"] == pytest.approx(3 / 12)
    assert seen.records[0]["idle"]["blocks.0"] == pytest.approx(3 / 12)


def test_saturation_is_the_norm_of_the_softmaxs_jacobian() -> None:
    scores = np.random.default_rng(0).standard_normal((2, 3, 4, 5)) * 3
    pattern, cache = softmax.forward(scores)
    columns = [softmax.backward(np.broadcast_to(e, scores.shape), cache) for e in np.eye(5)]
    wanted = np.sqrt(np.sum(np.square(columns), axis=(0, -1))).mean(axis=(0, 2))
    assert np.allclose(flow.saturation(pattern), wanted, rtol=1e-12)
    certain, torn = np.array([1.0, 0, 0, 0, 0]), np.array([0.5, 0.5, 0, 0, 0])
    assert flow.saturation(np.broadcast_to(certain, (1, 1, 1, 5)))[0] == 0.0
    assert flow.saturation(np.broadcast_to(torn, (1, 1, 1, 5)))[0] == pytest.approx(0.5)


def test_ranks() -> None:
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    flat = flow.rank(Q[:, :4])
    assert flat["stable"] == pytest.approx(4) and flat["effective"] == pytest.approx(4)
    line = flow.rank(np.outer(Q[0], Q[1]))
    assert line["stable"] == pytest.approx(1) and line["effective"] == pytest.approx(1, abs=1e-6)
    two = flow.rank(Q @ np.diag([3.0, 1, 0, 0, 0, 0]) @ Q.T)
    assert two["stable"] == pytest.approx(10 / 9)
    assert two["effective"] == pytest.approx(4 / 3**0.75)  # p = ¾, ¼
    assert flow.rank(np.zeros((3, 2)))["effective"] == 0.0


def test_frequencies() -> None:
    a = np.arange(8)
    table = 2 * np.cos(2 * np.pi * 3 * a / 8)[:, None] * np.ones((1, 2)) + 5 * np.cos(np.pi * a)[:, None] * [[1.0, 0.0]]
    found = flow.by_frequency(table)
    assert np.allclose(found, [0, 0, 0, np.sqrt(2 * 4 * 4), np.sqrt(8 * 25)], atol=1e-12)


def test_a_resumed_runs_journal_is_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    cfg = config()
    whole, part = watcher(cfg, every=2), watcher(cfg, every=2)
    loop.train(cfg, tmp_path / "whole", callback=whole, watch=whole)
    loop.train(config(steps=8), tmp_path / "part", callback=part, watch=part)
    file = tmp_path / "part/flow.jsonl"
    with file.open("a") as f:  # what a session noted before it was killed, beyond its last checkpoint
        f.write(json.dumps({"step": 8, "gradient": {}}) + "\n" + '{"step": 10, "gra')
    again = watcher(cfg, every=2)
    loop.resume(tmp_path / "part", {"steps": 12}, callback=again, watch=again)
    records, wanted = (list(journal.read(tmp_path / run / "flow.jsonl")) for run in ("part", "whole"))
    assert [r["step"] for r in records] == [0, 2, 4, 6, 8, 10]
    assert records[:4] == wanted[:4]
    assert records[4]["gradient"] == wanted[4]["gradient"]


def test_schedules() -> None:
    log = [s for s in range(2000) if journal.due(s, "log")]
    assert log[:9] == list(range(9)) and 1024 in log and 40 < len(log) < 90
    assert [s for s in range(10) if journal.due(s, 3)] == [0, 3, 6, 9]
    assert journal.due(7, lambda s: s == 7)
    for bad in ("often", 0, -1, True):
        with pytest.raises(BadInput, match="whole number of steps"):
            Flow(step.make_objective(config(), config().task.make(0)), every=bad)
    with pytest.raises(BadInput, match="2 to 8"):
        watcher(config(), period=9)


def test_the_sections_of_a_page(tmp_path: Path) -> None:
    from onelayer.microscope.curvature import Follow

    cfg = config()
    seen = watcher(cfg, every=2, period=7)
    follow = Follow(seen.objective, ["along_gradient", "along_update", "trace"], every=6, products=6)
    loop.train(config(steps=2), tmp_path / "plain")
    plain = Run.at(tmp_path / "plain")
    assert not flow_section.applies(plain) and not curvature_section.applies(plain)
    both = lambda event: (seen(event), follow(event))  # noqa: E731
    loop.train(cfg, tmp_path / "run", callback=both, watch=both)
    run = Run.at(tmp_path / "run")
    assert flow_section.applies(run) and curvature_section.applies(run)
    section = flow_section.build(run)
    lines = {trace.name: trace for trace in section.panels[0].figure.data}
    assert set(lines) == set(seen.records[0]["gradient"])
    wanted = [r["gradient"]["unembed.W_U"] for r in seen.records]
    assert list(lines["unembed.W_U"].y) == wanted
    assert all(p.figure.layout.xaxis.type == "log" for p in section.panels[:-1])
    colours = [[t.line.color for t in p.figure.data] for p in section.panels[:2]]
    assert colours[0] == colours[1]
    assert len(curvature_section.build(run).panels) == 2
    (tmp_path / "run/flow.jsonl").write_text("")
    with pytest.raises(BadInput, match="holds no record"):
        flow_section.build(run)
