"""A run opened for looking: its model at a step, its task, and the batch that is looked at.

    run = open_run("runs/arithmetic-x-plus-y-0-…", step=2000)
    run.params, run.batch, run.model, run.loss            what `microscope.trace` asks for

The weights are read as float64, whatever the run's precision: what is looked at is then exact in what was saved.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..arrays import generator, map_tree, unflatten
from ..errors import BadInput, unknown
from ..models.config import ModelConfig
from ..tasks import Batch, Task
from . import objective
from . import step as steps
from .batches import numbered
from .config import RunConfig
from .run_directory import Run

__all__ = ["Opened", "open_run", "update_before"]


@dataclass(frozen=True, eq=False)
class Opened:
    config: RunConfig
    task: Task
    model: ModelConfig
    loss: dict[str, Any]  # settings of layers.cross_entropy.forward
    step: int
    params: Any
    batch: Batch


def open_run(
    path: Path | str,
    step: int | None = None,
    split: Literal["train", "test"] = "train",
    examples: int | None = None,
    dtype: str = "float64",
) -> Opened:
    """The run at a step (None: the last saved), and the first `examples` of a split (None: all)."""
    run = Run(path)
    saved = run.snapshots
    if not saved:
        raise BadInput(f"{path} has no checkpoint to look at; train it for longer, or with a smaller checkpoint.every")
    if step is not None and step not in saved:
        near = sorted(saved, key=lambda at: abs(at - step))[:5]
        raise BadInput(
            f"{path} saved nothing at step {step}; the nearest saved steps are {', '.join(map(str, sorted(near)))}, "
            f"of {len(saved)} from {saved[0]} to {saved[-1]}"
        )
    at = saved[-1] if step is None else step
    config = run.config
    task = config.task.make(config.seed)
    goal = steps.make_objective(config, task)
    if split not in ("train", "test"):
        raise unknown("split", split, ("train", "test"))
    batch = numbered(getattr(task, split), goal.model, generator(config.seed, "ids", split), training=False)
    if examples is not None:
        if not 1 <= examples <= len(batch.tokens):
            raise BadInput(f"the {split} split has {len(batch.tokens)} examples; received {examples}")
        batch = map_tree(lambda a: a[:examples], batch)
    named = {name: np.asarray(x, dtype=dtype) for name, x in run.parameters(at).items()}
    try:
        params = unflatten(named, objective.init(goal.model, config.seed))
    except KeyError as error:
        raise BadInput(f"{path} at step {at} lacks the tensor {error}; its config asks for another model") from error
    loss = {
        "variant": goal.variant, "smoothing": goal.smoothing, "never": goal.never, "temperature": goal.temperature
    }  # fmt: skip
    return Opened(config, task, goal.model, loss, at, params, batch)


def update_before(path: Path | str, opened: Opened) -> Any:
    """How the weights moved from the checkpoint before this step to it; None where this is the first."""
    earlier = [at for at in Run(path).snapshots if at < opened.step]
    if not earlier:
        return None
    before = open_run(path, earlier[-1], examples=1).params
    return map_tree(lambda a, b: b - a, before, opened.params)
