"""A run opened for looking: its model at a step, its task, and the batch that is looked at; or for its words.

    run = open_run("runs/arithmetic-x-plus-y-0-…", step=2000)
    run.params, run.batch, run.model, run.loss            what `microscope.trace` asks for

    run = open_text("runs/reverse-0-…")                   a run of strings, and no data: what decoding asks for
    run.params, run.model, run.source, run.target

To be looked at, the weights are read as float64, whatever the run's precision: what is seen is then exact in what was
saved. For words they are as the run had them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .. import kernels
from ..arrays import generator, map_tree, unflatten
from ..errors import BadInput, unknown
from ..fused import using
from ..models.config import ModelConfig
from ..sublayers import attention_blocked, attention_rows
from ..tasks import Batch, Task
from ..tasks.units import Units
from . import evaluation, objective, units_file
from . import step as steps
from .batches import lengths, numbered
from .config import RunConfig
from .figures import fold
from .files import read_json
from .loop import averaged
from .run_directory import Run

__all__ = ["Opened", "OpenedText", "open_run", "open_text", "scores", "update_before", "validation_loss"]


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
    split: Literal["train", "valid", "test"] = "train",
    examples: int | None = None,
    only: int | None = None,
    dtype: str = "float64",
) -> Opened:
    """The run at a step (None: the last saved), and the first `examples` of a split (None: all), or `only` that one."""
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
    splits = [name for name in ("train", "valid", "test") if getattr(task, name) is not None]
    if split not in splits:
        raise unknown("split", split, splits)
    batch = numbered(getattr(task, split), goal.model, generator(config.seed, "ids", split), training=False)
    if examples is not None:
        if not 1 <= examples <= len(batch.tokens):
            raise BadInput(f"the {split} split has {len(batch.tokens)} examples; received {examples}")
        batch = map_tree(lambda a: a[:examples], batch)
    if only is not None:
        if not 0 <= only < len(batch.tokens):
            raise BadInput(f"the {split} split has examples 0 to {len(batch.tokens) - 1}; received {only}")
        batch = map_tree(lambda a: a[only : only + 1], batch)
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


# ---------------------------------------------------------------------------------------------------- for its words

WEIGHTS = ("best", "average", "last")
SCORES = "scores.json"  # in a run's directory: what it came to when it was over, by which weights (words/final.py)


@dataclass(frozen=True, eq=False)
class OpenedText:
    path: Path
    config: RunConfig
    task: str  # its name, in words
    model: ModelConfig
    params: Any  # in the run's precision
    source: Units | None  # None: a language model
    target: Units
    metrics: tuple[str, ...]  # by which its strings are judged
    pad: int | None
    weights: str  # best, average, last, or step
    step: int  # whose weights these are; of an average, the last of its steps
    steps: tuple[int, ...]  # all of them


def scores(path: Path | str) -> dict[str, Any]:
    """What a run of strings came to at its last step; nothing where it was not judged there."""
    stored = Path(path) / SCORES
    found = read_json(stored) if stored.exists() else {}
    return found if found.get("step") == (Run(path).result or {}).get("step") else {}


def open_text(path: Path | str, weights: str | int = "chosen") -> OpenedText:
    """A run of strings with its weights and vocabularies; its data is not needed.

    weights: chosen, those that its scores are of (where it was not judged: best); best, of the evaluation with the best
    `stop.best` (where a run kept none: last); average, the mean of those of the last `checkpoint.average` checkpoints;
    last; or a step.
    """
    run = Run(path)
    config, about = run.config, units_file.read(run.path)
    saved = run.snapshots
    if not saved:
        raise BadInput(f"{path} has no checkpoint yet; train it for longer, or with a smaller checkpoint.every")
    if weights == "chosen":
        weights = scores(run.path).get("weights", "best")
    name, at = _which(run, config, saved, weights)
    model = config.model.build(**{key: value for key, value in about["model"].items() if value is not None})
    named = _mean([run.parameters(step) for step in at])
    try:
        params = unflatten(named, objective.init(model, config.seed))
    except KeyError as error:
        raise BadInput(f"{path} lacks the tensor {error}; its config asks for another model") from error
    source = None if about["source"] is None else Units.from_dict(about["source"])
    return OpenedText(
        run.path, config, about["task"], model, params, source, Units.from_dict(about["target"]),
        tuple(about["metrics"]), about["pad"], name, at[-1], tuple(at),
    )  # fmt: skip


def _which(run: Run, config: RunConfig, saved: list[int], weights: str | int) -> tuple[str, list[int]]:
    """What the weights are called, and the steps whose mean they are."""
    if isinstance(weights, int):
        if weights not in saved:
            raise BadInput(f"{run.path} has no weights of step {weights}; allowed: {', '.join(map(str, saved))}")
        return "step", [weights]
    if weights not in WEIGHTS:
        raise unknown("weights", weights, ("chosen", *WEIGHTS, "a step"))
    best = fold(run.metrics, config.stop).step_best
    if weights == "best" and best is not None and best in saved:
        return "best", [best]
    if weights == "average":
        steps = [step for step in averaged(config, saved[-1]) if step in saved]
        if not steps:
            every, average = config.checkpoint.every, config.checkpoint.average
            raise BadInput(
                f"{run.path} kept no checkpoints to average: it has checkpoint.average = {average}, checkpoint.every = "
                f"{every}, and came to step {saved[-1]}; allowed: best, last, or a step"
            )
        return "average", steps
    return "last", [saved[-1]]


def _mean(trees: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Tensor by tensor, summed in float64; of one tree, that tree."""
    if len(trees) == 1:
        return trees[0]
    return {
        name: np.mean([tree[name] for tree in trees], axis=0, dtype=np.float64).astype(x.dtype)
        for name, x in trees[0].items()
    }


def validation_loss(opened: OpenedText, task: Task) -> float:
    """The loss on the task's valid split (test, where it has none), as an evaluation in training measures it."""
    goal = steps.make_objective(opened.config, task)
    name = "test" if task.valid is None else "valid"
    batch = task.test if task.valid is None else task.valid
    split = numbered(batch, goal.model, generator(opened.config.seed, "ids", name), training=False)
    if split.weights is not None:
        split = split._replace(weights=split.weights.astype(opened.config.dtype))
    with using(kernels.available(), attention_rows.STAND_INS, attention_blocked.STAND_INS):
        found, _ = evaluation.judged(opened.params, split, goal, evaluation.chunk(task, split), lengths(split))
    return evaluation.summarise(task, name, found)[f"{name}_loss"]
