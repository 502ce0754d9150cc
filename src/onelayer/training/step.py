"""One training step: gradients, filters, optimizer at the scheduled rate, projections. Pure.

loss, grads  = objective at params
grads        = each filter in turn
params       = optimizer(grads) at lr × schedule(t)
params       = each projection in turn
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .. import optimizers
from ..arrays import Array, array_namespace, flatten, map_tree
from ..errors import BadInput
from ..fused import fused
from ..tasks import Batch, Task
from .config import RunConfig
from .objective import Objective, init, loss_and_grads

__all__ = ["OptState", "Rules", "TrainState", "make_objective", "make_rules", "start", "take"]


Gradient: TypeAlias = Callable[[Any, Batch, Objective], tuple[Array, Any]]


class OptState(NamedTuple):
    filters: tuple[Any, ...]
    optimizer: Any
    projections: tuple[Any, ...]


class TrainState(NamedTuple):
    params: Any
    opt_state: OptState


class Rules(NamedTuple):
    """How a gradient becomes a step: functions with their settings filled in."""

    filters: tuple[Any, ...]
    optimizer: Any
    lr: float
    schedule: Callable[[Any], Any]
    projections: tuple[Any, ...]
    decay: dict[str, float]


def make_objective(config: RunConfig, task: Task) -> Objective:
    has_source = task.train.source is not None
    read: dict[str, Any] = {
        "source_vocab_size": None if task.source_vocabulary is None else len(task.source_vocabulary),
        "source_n_ctx": task.source_n_ctx,
    }
    model = config.model.build(vocab_size=len(task.vocabulary), n_ctx=task.n_ctx, **(read if has_source else {}))
    if has_source != (model.architecture == "encoder_decoder"):
        fitting = "encoder_decoder" if has_source else "decoder_only"
        raise BadInput(
            f"the task '{task.name}' has {'a' if has_source else 'no'} source to read, so model.architecture must be "
            f"{fitting}; received {model.architecture}"
        )
    loss = config.loss
    return Objective(model, task.read, loss.variant, loss.label_smoothing, task.pad, loss.temperature)


def make_rules(config: RunConfig) -> Rules:
    return Rules(
        filters=tuple(f.make() for f in config.filters),
        optimizer=config.optimizer.make(),
        lr=config.optimizer.lr,
        schedule=config.schedule.make(),
        projections=tuple(p.make() for p in config.projections),
        decay=dict(config.optimizer.decay),
    )


def start(objective: Objective, rules: Rules, seed: int, dtype: str) -> TrainState:
    """The state before the first step, NumPy arrays in the run's precision; the same bits for every engine."""
    params = map_tree(lambda a: np.asarray(a, dtype=dtype), init(objective.model, seed))
    projections = tuple(p.init(params) for p in rules.projections)
    for projection, state in zip(rules.projections, projections, strict=True):
        params = projection.project(params, state)
    filters = tuple(f.init(params) for f in rules.filters)
    return TrainState(params, OptState(filters, rules.optimizer.init(params), projections))


def take(
    state: TrainState,
    batch: Batch,
    t: Any,
    objective: Objective,
    rules: Rules,
    gradient: Gradient | None = None,
) -> tuple[TrainState, dict[str, Array], Any]:
    """The step with index t (from 0): the new state, {"loss", "grad_norm"}, and the raw gradient.

    gradient: takes the place of `loss_and_grads`, such as one with a route cut (microscope/gates.py).
    """
    params, opt = state
    loss, raw = (gradient or loss_and_grads)(params, batch, objective)
    grads, filters = raw, []
    for f, s in zip(rules.filters, opt.filters, strict=True):
        grads, s = f.apply(grads, s, params)
        filters.append(s)
    mask = optimizers.decay_mask(params, rules.decay) if rules.decay else None
    lr = rules.lr * rules.schedule(t)
    decay = {"decay_mask": mask} if mask is not None else {}
    params, optimizer = rules.optimizer.update(grads, opt.optimizer, params, lr=lr, **decay)
    for p, s in zip(rules.projections, opt.projections, strict=True):
        params = p.project(params, s)
    new = TrainState(params, OptState(tuple(filters), optimizer, opt.projections))
    return new, {"loss": loss, "grad_norm": norm(raw)}, raw


@fused
def norm(tree: Any) -> Array:
    """Of all numbers of a tree together."""
    leaves = flatten(tree).values()
    xp = array_namespace(*leaves)
    squares = [xp.sum(x * x) for x in leaves]
    return xp.sqrt(sum(squares[1:], start=squares[0]))
