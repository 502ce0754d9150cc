"""Guards the first look at all positional encodings: paired data, ceilings, and a page that says what was measured."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from onelayer import positions
from onelayer.errors import BadInput
from onelayer.studies import positions_first_look as study
from onelayer.tasks import Batch, probes

ROOT = Path(__file__).parent.parent
SMALL = study.Budget(n=10, steps=2, batch=4, d_model=8, n_heads=2, d_mlp=8, n_test=4, seeds=2)


def test_every_method_is_a_cell():
    assert {cell.position for cell in study.CELLS} == set(positions.available())
    assert len({cell.name for cell in study.CELLS}) == len(study.CELLS)
    for cell in study.CELLS:
        assert study.find(cell.name) == cell
        study.model(cell, study.Budget())
    with pytest.raises(BadInput, match="unknown cell"):
        study.find("ropes")


def test_cells_are_paired_and_seeds_are_not():
    learned, rope = (study._training(study.Cell(name), SMALL, "back", 0) for name in ("learned", "rope"))
    other = study._training(study.Cell("rope"), SMALL, "back", 1)
    assert all(np.array_equal(a, b) for a, b in zip(learned, rope, strict=True))
    assert not np.array_equal(rope[0], other[0])


def test_training_meets_every_id_that_the_tests_use():
    for name in ("learned + random", "learned + abacus", "learned + coupled"):
        cell, budget = study.find(name), study.Budget(steps=400, batch=4)
        for probe in ("align", "mirror", "back"):
            met = set(study._training(cell, budget, probe, 0)[3].ravel().tolist())
            asked = set(study._test(cell, budget, probe, 0, 4.0)[3].ravel().tolist())
            assert asked <= met, (name, probe)
            rows = study.model(cell, budget).size().n_ctx
            assert max(met | asked) < rows


def test_a_cell():
    found = study.run_cell(study.find("learned"), SMALL)
    assert list(found["accuracy"]) == list(probes.PROBES)
    for by_stretch in found["accuracy"].values():
        assert list(by_stretch) == ["1", "1.5", "2", "4"]
        assert all(len(values) == 2 and 0 <= min(values) <= max(values) <= 1 for values in by_stretch.values())
    assert found["parameters"] == 40 * 8
    assert found["accuracy"]["back"] != found["accuracy"]["recent"]


@pytest.mark.parametrize("p", [7, 31])
def test_the_ceiling_of_a_whole_table(p):
    a, b = (x.ravel() for x in np.meshgrid(np.arange(p), np.arange(p), indexing="ij"))
    tokens = np.stack([a, b, np.full_like(a, p)], axis=1)
    difference = Batch(tokens, ((a - b) % p)[:, None])
    assert study.order_free_ceiling(difference) == pytest.approx((1 + 1 / p) / 2, rel=1e-15)
    assert study.order_free_ceiling(Batch(tokens, ((a + b) % p)[:, None])) == 1


def test_mirrors_stay_together():
    task = study.mirror_closed("x - y", 11, seed=0)
    pairs = [set(map(tuple, batch.tokens[:, :2].tolist())) for batch in (task.train, task.test)]
    assert pairs[0] | pairs[1] == {(a, b) for a in range(11) for b in range(11)}
    assert not pairs[0] & pairs[1]
    assert all((b, a) in side for side in pairs for a, b in side)
    assert np.all(task.train.targets[:, 0] == (task.train.tokens[:, 0] - task.train.tokens[:, 1]) % 11)


def test_subtraction_without_positions_ends_at_its_ceiling():
    found = study.run_sum("x - y", "none", seed=0, p=11, steps=150)
    assert abs(found["train_accuracy"] - found["train_ceiling"]) < 0.02


def test_the_page_is_what_the_figures_say():
    script = runpy.run_path(str(ROOT / "scripts" / "positions_first_look.py"))
    folder = ROOT / "docs" / "experiments"
    data = json.loads((folder / "positions-first-look.json").read_text())
    assert [cell["cell"] for cell in data["cells"]] == [cell.name for cell in study.CELLS]
    assert len(data["sums"]) == 2 * len(study.SUMS) * data["budget"]["seeds"]
    assert script["words"](data, script["means"](data)) == (folder / "positions-first-look.md").read_text()


def test_the_figures_keep_what_theory_says():
    """No seed without positions beats its ceiling by more than chance allows; its subtraction stays within 2 %."""
    data = json.loads((ROOT / "docs" / "experiments" / "positions-first-look.json").read_text())
    none = next(cell for cell in data["cells"] if cell["cell"] == "none")["accuracy"]
    lengths = [0] + [round(s * data["budget"]["n"]) for s in study.STRETCHES]
    for probe, by_stretch in none.items():
        for before, length, values in zip(lengths, lengths[1:], by_stretch.values(), strict=False):
            assert np.mean(values) <= probes.order_free_ceiling(probe, length, before) + 0.03, (probe, length)
    capped = [s for s in data["sums"] if (s["operation"], s["position"]) == ("x - y", "none")]
    assert capped
    assert all(abs(s["train_accuracy"] - s["train_ceiling"]) <= 0.02 for s in capped)
