"""A run trained again with routes of its backward cut, beside the run as it was.

    rows = against_run("runs/…", {"*.attn.route_[qk]": 0}, steps=500)
    rows[-1]["test_accuracy"], rows[-1]["cut_test_accuracy"]

The forward is whole in both: only what the weights are told differs. Start, batches and rule are the run's, so that the
gates are the one difference; with all of them at 1 the curves coincide up to rounding, for training takes shortcuts
that a gated backward does not (models/tables.py). Nothing is written.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..microscope.gates import Gate, cut
from ..training import step as training
from ..training.engines.numpy_engine import Engine, check
from ..training.loop import evaluates, refuse_branch
from ..training.run_directory import Run

__all__ = ["against_run"]

SHOWN = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


def against_run(
    path: Path | str,
    gates: Mapping[str, Gate],
    steps: int,
    say: Callable[[int, int], object] = lambda done, steps: None,
) -> list[dict[str, Any]]:
    """A record for each of the run's evaluations up to `steps`: its figures, and as cut_… those under the gates."""
    run = Run(path)
    recorded = {record["step"]: record for record in run.metrics}
    last = max(recorded, default=0)
    if not last:
        raise BadInput(f"{path} was measured at no step after 0; let it train for longer")
    if not 1 <= steps <= last:
        raise BadInput(f"{path} was measured up to step {last}; train for 1 to {last} steps, received {steps}")
    config = run.config
    refuse_branch(config, "it cannot be trained again from its start")
    engine = Engine(config.model_copy(update={"engine": "numpy"}), config.task.make(config.seed))
    rules, gradient, state = training.make_rules(config), cut(gates), engine.start()
    rows = []
    for step in range(steps + 1):
        if step in recorded and (evaluates(config, step) or step == steps):
            under = {f"cut_{name}": x for name, x in engine.evaluate(state).items() if name in SHOWN}
            rows.append({"step": step} | {name: recorded[step].get(name) for name in SHOWN} | under)
            say(step, steps)
        if step < steps:
            batch = engine.batches.at(step)
            state, figures, raw = training.take(state, batch, step, engine.objective, rules, gradient=gradient)
            check(step, figures["loss"], figures["grad_norm"], raw, state.params)
    return rows
