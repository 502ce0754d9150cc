"""A ledger of a whole run: the run's steps taken again, from its start, with a ledger that looks on.

    kept = of_run("runs/…", by="route")       the run again, up to a step that it saved; kept.difference says how well
    kept = anew(config, by="operand")         a run that never was, of this config
    kept.ledger.rows("embed.W_E")

Nothing is written. The steps are the NumPy engine's. Of a run of that engine, on the same machine and library versions,
they give the same bits (difference 0.0); of a JAX run they give another rounding, which training may enlarge.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, flatten
from ..errors import BadInput
from ..microscope.explain import entry
from ..microscope.ledger import Ledger
from ..training.config import RunConfig
from ..training.engines.numpy_engine import Engine
from ..training.loop import refuse_branch
from ..training.run_directory import Run

__all__ = ["Kept", "anew", "of_run"]

STRIDE = 10  # steps between two words of progress
Say = Callable[[int, int], object]  # steps taken, of how many


FIRST = "first"  # in place of a weight: the first number of the first table of embeddings


class Kept(NamedTuple):
    ledger: Ledger
    step: int
    evaluation: dict[str, float]  # at the end
    difference: float | None  # largest |weights − the run's| / max|the run's| of any tensor; None: nothing to compare
    entry: tuple[str, tuple[int, ...]] | None  # the weight that was asked for


def anew(
    config: RunConfig, by: str = "route", steps: int | None = None, *, classes: int | None = None, loss: bool = False,
    weight: str | None = None, say: Say = lambda done, steps: None,
) -> Kept:  # fmt: skip
    """So many steps of a config (None: all of its own) under a ledger.

    loss: also keep the loss ledger of the test split.   weight: one to be looked up later, "embed.W_E[3,5]" or FIRST;
    what it names is checked before the first step.
    """
    last = config.steps if steps is None else steps
    if last < 1:
        raise BadInput(f"weights move from step 1 on; received step {last}")
    refuse_branch(config, "its steps cannot be taken again from the first one")
    engine = Engine(config.model_copy(update={"engine": "numpy"}), config.task.make(config.seed))
    ledger = Ledger(config, engine.objective, by, classes=classes, judge=engine.test if loss else None)
    state = engine.start()
    known = flatten(state.params)
    weight = next(f"{name}[0,0]" for name in known if name.endswith("embed.W_E")) if weight == FIRST else weight
    chosen = None if weight is None else entry(weight, known)
    engine.watch = ledger
    for step in range(0, last, STRIDE):
        say(step, last)
        state, _ = engine.run(state, step, min(STRIDE, last - step))
    engine.watch = None
    return Kept(ledger, last, engine.evaluate(state), None, chosen)


def of_run(path: Path | str, by: str = "route", step: int | None = None, **how: Any) -> Kept:
    """A run again, to one of its checkpoints (None: the last), whose weights are then compared. how: as for `anew`."""
    run = Run(path)
    saved = [at for at in run.snapshots if at > 0]
    if not saved:
        raise BadInput(
            f"{path} has no checkpoint after step 0 to compare with; train it for longer, or give a config file "
            f"instead: {path}/config.json"
        )
    if step is not None and step not in saved:
        near = sorted(sorted(saved, key=lambda at: abs(at - step))[:5])
        raise BadInput(f"{path} saved nothing at step {step}; the nearest saved steps are {', '.join(map(str, near))}")
    last = saved[-1] if step is None else step
    wanted = run.parameters(last)
    kept = anew(run.config, by, last, **how)
    return kept._replace(difference=_difference(kept.ledger.end, wanted))


def _difference(found: dict[str, Array], wanted: dict[str, Array]) -> float:
    """0.0 is said of the same bits only."""
    gaps = [0.0]
    for name, x in wanted.items():
        size, gap = float(np.max(np.abs(x))), float(np.max(np.abs(found[name].astype(np.float64) - x)))
        gaps.append(gap / size if size else gap)
    return max(gaps)
