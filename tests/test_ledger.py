"""Guards the ledger: what each group of a gradient did to a weight adds up to what training did, to the last bits."""

from typing import Any

import numpy as np
import pytest

from onelayer.arrays import flatten
from onelayer.errors import BadInput
from onelayer.microscope import groupings, provenance, routes
from onelayer.microscope.ledger import Ledger
from onelayer.microscope.trace import trace
from onelayer.training import loop
from onelayer.training.config import RunConfig, resolve
from onelayer.training.engines.numpy_engine import Engine


def config(**changes: Any) -> RunConfig:
    """A tiny net on addition modulo 7, in float64."""
    small: dict[str, Any] = {
        "task": {"p": 7, "train_fraction": 0.6}, "dtype": "float64", "seed": 3,
        "model": {"d_model": 8, "n_heads": 2, "d_mlp": 12, "norm": "pre", "activation": "gelu"},
        "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.1},
    }  # fmt: skip
    return resolve(small | changes)


def kept(cfg: RunConfig, by: Any = "route", steps: int = 8, first: int = 0, **how: Any) -> tuple[Ledger, Engine]:
    """A ledger of some steps, after the same steps without one gave the same bits."""
    task = cfg.task.make(cfg.seed)
    engine = Engine(cfg, task)
    state, _ = engine.run(engine.start(), 0, first)
    plain, _ = engine.run(state, first, steps)
    engine.watch = ledger = Ledger(cfg, engine.objective, by, **how)
    watched, _ = engine.run(state, first, steps)
    before, after = flatten(plain), flatten(watched)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    return ledger, engine


def test_300_steps_of_adamw_add_up() -> None:
    ledger, _ = kept(config(), "route", steps=300)
    assert ledger.completeness <= 1e-11
    assert ledger.residual <= 1e-11
    assert len(ledger.moved("embed.W_E")) == 2 * (1 + 3 * 2) + 1
    moved = {name: np.max(np.abs(x)) for name, x in ledger.moved("embed.W_E").items()}
    assert min(moved.values()) > 1e-4  # each has done something: the sum is not one group's


@pytest.mark.parametrize("by", ["loss_token", "head", "class", "operand", "operand:1"])
def test_every_grouping_adds_up(by: str) -> None:
    ledger, _ = kept(config(), by, steps=4)
    assert ledger.completeness <= 1e-12


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "lr": 0.1, "weight_decay": 0.01},
        {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"name": "adam", "weight_decay": 0.1, "decay": {"embed.*": 0.0}},
        {"name": "lion", "lr": 1e-3, "weight_decay": 0.1},
        {"name": "muon", "weight_decay": 0.1},
        {"name": "muon", "heads": "separate", "nesterov": False, "debias": True, "scaling": "rms"},
    ],
    ids=lambda o: "-".join(map(str, o.values()))[:24],
)
def test_every_optimizer_adds_up_also_where_the_ledger_is_opened_late(optimizer: dict[str, Any]) -> None:
    ledger, _ = kept(config(optimizer=optimizer), steps=6, first=3)
    assert ledger.completeness <= 1e-12

    carries = optimizer["name"] != "sgd" or "momentum" in optimizer  # plain sgd has a velocity, and it moves nothing
    assert np.any(ledger.moved("embed.W_E")["earlier"]) == carries
    assert ledger.note.startswith("attributed") == (optimizer["name"] in ("lion", "muon"))


@pytest.mark.parametrize(
    "filters",
    [
        [{"name": "clip", "max_norm": 0.05}],
        [{"name": "grokfast_ema", "alpha": 0.9}],
        [{"name": "grokfast_ma", "window": 3}],
        [{"name": "orthogonal"}],
        [{"name": "grokfast_ema"}, {"name": "clip", "max_norm": 0.05}],
    ],
    ids=lambda f: "+".join(x["name"] for x in f),
)
def test_every_filter_and_a_projection_add_up(filters: list[dict[str, Any]]) -> None:
    ledger, _ = kept(config(filters=filters, projections=["constant_norm"]), steps=6, first=2)
    assert ledger.completeness <= 1e-12
    assert np.any(ledger.moved("embed.W_E")["projection"])


def test_a_part_is_what_the_run_would_have_done_with_it_alone() -> None:
    """Of plain SGD each group's Δ is minus the rate times the sum of its gradients: no part is just the remainder."""
    ledger, engine = kept(config(optimizer={"name": "sgd", "lr": 0.1}), "operand", steps=3)
    wanted = np.zeros((7, *ledger.moved("embed.W_E")["0"].shape))
    engine.watch, state = None, engine.start()
    for step in range(3):
        shares = groupings.operand()(state.params, engine.batches.train, engine.objective)
        wanted -= 0.1 * shares["embed.W_E"].parts[:7]
        state, _ = engine.run(state, step, 1)
    for k in range(7):
        assert np.allclose(ledger.moved("embed.W_E")[str(k)], wanted[k], rtol=1e-12, atol=1e-15)
    assert not np.any(ledger.moved("embed.W_E")["7"])  # "=" is never the first operand


def test_decay_is_what_decay_does_without_a_gradient() -> None:
    """One step of AdamW: decay takes −ηλw, to the bit of its rounding."""
    ledger, engine = kept(config(), steps=1)
    start = flatten(engine.start().params)["unembed.W_U"]
    assert np.allclose(ledger.moved("unembed.W_U")["decay"], -3e-3 * 0.1 * start, rtol=1e-14)


def test_the_loss_ledger_is_complete_and_signed() -> None:
    cfg = config()
    test = cfg.task.make(cfg.seed).test
    ledger, _ = kept(cfg, "route", steps=20, judge=test)
    assert ledger.loss.error <= 1e-5
    assert ledger.loss.change == pytest.approx(sum(ledger.loss.bought.values()), rel=1e-5)
    rough, _ = kept(cfg, "route", steps=20, judge=test, panels=1, tolerance=1e-300)
    fine, _ = kept(cfg, "route", steps=20, judge=test, panels=4, tolerance=1e-300)
    assert fine.loss.error < rough.loss.error / 20  # Simpson's error falls with the fourth power of the panel


def test_the_quick_routes_are_those_of_provenance() -> None:
    for norm, position in (("none", "learned"), ("pre", "rope"), ("post", "t5")):
        cfg = config(model={"d_model": 8, "n_heads": 2, "d_mlp": 12, "norm": norm, "position": position})
        task = cfg.task.make(cfg.seed)
        engine = Engine(cfg, task)
        t = trace(engine.start().params, task.train, engine.objective.model)
        quick = routes.one_layer(t)
        assert quick is not None
        for name, (labels, parts) in quick.items():
            slow = provenance.split(t, name, "route")
            assert slow.labels[0] == labels
            assert np.max(np.abs(parts - slow.parts)) <= 1e-12 * np.max(np.abs(slow.parts))


def test_a_run_with_a_ledger_writes_the_same_weights(tmp_path) -> None:
    cfg = config(steps=12, stop={"on": "none"}, batch_size=10, dtype="float32")
    ledger = Ledger(cfg, Engine(cfg, cfg.task.make(cfg.seed)).objective, "loss_token")
    loop.train(cfg, tmp_path / "with", watch=ledger)
    loop.train(cfg, tmp_path / "without")
    files = [tmp_path / run / "checkpoints/step-12/model.safetensors" for run in ("with", "without")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert (ledger.first, ledger.last) == (0, 11)
    assert 1e-9 < ledger.completeness < 1e-5  # float32 rounds its weights, and the ledger does not hide it
    saved = ledger.save(tmp_path / "ledger.safetensors")
    assert saved.stat().st_size > 1000


def test_what_a_ledger_says_of_a_tensor() -> None:
    ledger, _ = kept(config(), "route", steps=5)
    rows = ledger.rows("embed.W_E")
    assert sum(row["share"] for row in rows) == pytest.approx(1.0, abs=1e-9)
    assert abs(rows[0]["share"]) >= abs(rows[-1]["share"])
    with pytest.raises(BadInput, match=r"embed\.W_E"):
        ledger.moved("embed.W_X")
    with pytest.raises(BadInput, match="judge="):
        _ = ledger.loss


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"by": "tokens"}, "loss_token"),
        ({"by": "example"}, "not those of the next"),
        ({"by": "operand:x"}, "operand:1"),
        ({"by": "route", "classes": 3}, "groups of its own"),
        ({"by": "operand:9"}, "0 to 2"),
        ({"limit": 1000}, "fewer members"),
        ({"panels": 0}, "one panel or more"),
    ],
)
def test_what_cannot_be_kept_is_refused(how: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        kept(config(), **({"by": "operand", "steps": 1} | how))


def test_a_filter_that_is_not_linear_is_refused() -> None:
    from onelayer.microscope.sieves import check

    with pytest.raises(BadInput, match="clip, grokfast_ema"):
        check("median")


def test_a_skipped_step_is_refused() -> None:
    ledger, engine = kept(config(), "loss_token", steps=2)
    engine.watch = ledger
    with pytest.raises(BadInput, match="after step 1 comes 2, not 5"):
        engine.run(engine.start(), 5, 1)


def test_an_engine_without_single_steps_is_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match="engine = numpy"):
        loop.train(config(engine="jax"), tmp_path / "run", watch=print)
    assert not (tmp_path / "run").exists()
