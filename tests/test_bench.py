"""Guards bench/: cases build, contenders do the same work, figures are what they say, absent peers are named."""

import json
from typing import Any

import numpy as np
import pytest
from backends import needs
from tiny import tiny

from onelayer import bench, cli
from onelayer.bench import Case, Contender, NotInstalled, generation, measure, memory, microscope, products, report
from onelayer.errors import BadInput


def quiet(line: str) -> None:
    pass


def absent() -> Any:
    raise NotInstalled("nothing: pip install nothing")


def small(**more: Any) -> Case:
    a = np.ones((64, 64), np.float32)
    ways = (
        Contender("ours", lambda: lambda: a @ a, memory=lambda: memory.of_numpy(lambda: a @ a)),
        Contender("theirs", lambda: lambda: [a @ a for _ in range(50)], flops=50 * products((64, 64, 64))),
        Contender("gone", absent),
    )
    return Case("small", "A product.", ways, products((64, 64, 64)), (64, 64, 64), **more)


def test_figures_are_what_they_say():
    found = measure.run(small(bounds=(("ours", "theirs", 5.0), ("ours", "gone", 1.0))), rounds=5, say=quiet)
    assert (found.ratio("ours", "theirs") or 0) > 5
    assert found.skipped == {"gone": "nothing: pip install nothing"}
    facts = report.facts(found)
    assert [row["theirs"] for row in facts["bounds"]] == ["theirs"]
    ours = facts["contenders"]["ours"]
    assert ours["allocated_bytes"] == 64 * 64 * 4 <= ours["peak_bytes"] < 64 * 64 * 4 + 4096  # and Python's own objects
    low, high = facts["contenders"]["ours"]["quartiles"]
    assert low <= facts["contenders"]["ours"]["milliseconds"] <= high
    share, rate = found.share("ours"), found.rate
    assert rate and found.case.flops
    assert share == pytest.approx(found.case.flops / found.measured["ours"].median / rate)
    assert "skipped: gone" in report.table([found])


def test_a_step_of_many_is_timed_as_one():
    def many() -> None:
        np.ones((300, 300)) @ np.ones((300, 300))

    plain = measure.timed(many, measure.CLOCKS["wall"])
    many.steps = 1000  # type: ignore[attr-defined]
    assert measure.timed(many, measure.CLOCKS["wall"]) < plain / 10


def test_every_byte_asked_for_is_counted():
    with memory.counting() as asked:
        kept = [np.zeros(1000), np.empty((10, 10), np.float32)]
        del kept
    assert sum(asked) == 8000 + 400
    before = len(asked)
    np.zeros(10)
    assert len(asked) == before  # and no longer


def test_the_two_ways_to_write_say_the_same(monkeypatch):
    monkeypatch.setattr(generation, "SAID", 6)
    cached, anew = (c.make()() for c in generation.case().contenders)
    assert cached.shape == (generation.B, 6)
    np.testing.assert_array_equal(cached, anew)


@pytest.mark.parametrize("name", bench.CASES)
def test_cases_build(name):
    case = bench.get(name)
    assert len({c.name for c in case.contenders}) == len(case.contenders)
    for ours, theirs, _ in case.bounds:
        for begins in (ours, theirs):
            assert begins == "ours" or any(c.name.startswith(begins) for c in case.contenders)


@needs("torch")
@pytest.mark.parametrize("name", ["grok", "encoder-decoder", "language-model-1"])
def test_peers_have_as_many_weights_as_ours(name, monkeypatch):
    """A peer that is smaller would be faster for a wrong reason."""
    import torch  # pyright: ignore[reportMissingImports]

    from onelayer.arrays import flatten
    from onelayer.bench import ours, peer_torch

    seen: dict[str, Any] = {}
    monkeypatch.setattr(ours, "contenders", lambda objective, *_, **__: seen.update(model=objective.model) or ())
    bench.get(name)
    model = seen["model"]
    from onelayer.training.objective import init

    expected = sum(a.size for n, a in flatten(init(model, 0)).items())
    build = peer_torch._encoder_decoder if model.architecture == "encoder_decoder" else peer_torch._decoder
    net = build(torch, model, 1, True)
    assert sum(p.numel() for p in net.parameters()) == expected


def test_command(capsys):
    assert cli.run(["bench", "generation", "--rounds", "2"]) == 2
    assert "3 rounds" in capsys.readouterr().err
    assert cli.run(["bench", "generation", "--seconds", "0"]) == 2
    assert "above 0 s" in capsys.readouterr().err
    assert cli.run(["bench", "gork"]) == 2
    assert "grok" in capsys.readouterr().err
    assert cli.run(["bench", "grok", "--only", "tensorflow"]) == 2
    assert "tensorflow" in capsys.readouterr().err


def test_command_answers_in_json(capsys, monkeypatch):
    monkeypatch.setattr(bench, "get", lambda name: small())
    assert cli.run(["bench", "grok", "--rounds", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["cases"]["small"]["skipped"] == {"gone": "nothing: pip install nothing"}
    assert said["machine"]["versions"]["numpy"] == np.__version__


def test_a_clock_that_is_none():
    with pytest.raises(BadInput, match="cpu"):
        measure.run(small(), clock="sun", say=quiet)


def test_what_a_thing_costs_is_the_median_of_pairs():
    found = measure.run(small(costs=(("theirs", "ours", 1.0), ("gone", "ours", 1.0))), rounds=3, say=quiet)
    (row,) = report.facts(found)["costs"]
    ours, theirs = (found.measured[name].seconds for name in ("ours", "theirs"))
    assert row["cost"] == pytest.approx(sorted(a / b for a, b in zip(theirs, ours, strict=True))[1])
    assert "theirs: " in report.table([found])
    assert "NOT met" in report.table([found])


def test_every_look_of_the_microscope_can_be_measured(monkeypatch):
    monkeypatch.setattr(microscope, "resolve", lambda data: tiny(data))
    case = bench.get("microscope")
    for contender in case.contenders:
        contender.make()()
    names = {contender.name for contender in case.contenders}
    assert all(what in names and unit in names for what, unit, _ in case.costs)
