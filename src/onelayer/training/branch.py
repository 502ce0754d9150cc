"""A branch: a run that begins with another's weights at a step, under a config that may differ. The causal experiment.

    result = branch("runs/a", step=400, changes={"optimizer.weight_decay": 0.0, "steps": 1400}, out="runs/no-decay")
    result = branch("runs/a", step=0, edits=[transplant("runs/b", "embed")], freeze=["embed"], out="runs/given")

Begins    with the parent's weights, as the edits leave them, and with its optimizer's state where there is one: the
          checkpoint is whole, the optimizer and the filters have the same names, and nothing was edited.
          Otherwise the optimizer begins anew. A frozen tensor, and a norm that is held, are what they are then.
Counts    on from the parent's step: schedule, batches and position ids are those of the steps that follow. A branch
          without a change is the parent's own continuation, to the last bit.
Ends      at `steps`, whatever it has learnt: stop.on is none unless the changes say otherwise.
Says      whence it came in its config (`branch`), and so in its manifest. The parent is only read, and not needed any
          more once the branch has begun: it resumes from its own checkpoints.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import optimizers
from ..arrays import flatten, generator, map_tree, unflatten
from ..errors import BadInput, unknown
from ..optimizers.projections import frozen
from ..tasks import Task
from . import checkpoint, objective
from . import step as steps
from .batches import numbered
from .config import RunConfig, differences, dotted, merge, nest, resolve
from .events import Result, Watch
from .loop import Callback, ignore, train
from .measuring import Probe
from .run_directory import Run
from .step import OptState, TrainState

__all__ = ["PARTS", "Begin", "Edit", "branch", "names", "outcome", "prepare", "scale", "transplant"]

PARTS = {  # a word for a part of the network: the tensors it means
    "embed": "embed.*", "positions": "pos_embed.*", "attention": "blocks.*.attn.*", "mlp": "blocks.*.mlp.*",
    "unembed": "unembed.*",
}  # fmt: skip

Weights = dict[str, np.ndarray]  # by flat name


class Edit(NamedTuple):
    """What is done to the weights before the first step, and how the config tells of it."""

    text: str
    apply: Callable[[Weights, RunConfig], Weights]


class Begin(NamedTuple):
    config: RunConfig
    state: TrainState
    kept: bool  # whether the optimizer's state is the parent's
    changed: dict[str, tuple[Any, Any]]  # dotted field: (the parent's value, the branch's), the end of the run left out


def branch(
    run: Path | str,
    step: int | None = None,
    changes: Mapping[str, Any] | None = None,
    *,
    freeze: Sequence[str] = (),
    edits: Sequence[Edit] = (),
    hold_logit_scale: bool = False,
    fresh_optimizer: bool = False,
    out: Path | str | None = None,
    callback: Callback = ignore,
    watch: Watch | None = None,
    probe: Probe | None = None,
) -> Result:
    """A new run that goes on from `run` at a step (None: its last), to its end."""
    begin = prepare(
        run, step, changes, freeze=freeze, edits=edits, hold_logit_scale=hold_logit_scale,
        fresh_optimizer=fresh_optimizer,
    )  # fmt: skip
    return train(begin.config, out, callback, watch, probe, begin.state)


def prepare(
    run: Path | str,
    step: int | None = None,
    changes: Mapping[str, Any] | None = None,
    *,
    freeze: Sequence[str] = (),
    edits: Sequence[Edit] = (),
    hold_logit_scale: bool = False,
    fresh_optimizer: bool = False,
) -> Begin:
    """What a branch begins with; nothing is written. changes: dotted, or nested as in a config file."""
    parent = Run(run)
    old = parent.config
    at, weights, states = _read(parent, old, step)
    asked = merge({"stop": {"on": "none"}}, nest(dict(dotted(changes or {}))))
    config = _end(resolve(merge(old.as_dict(), asked)), at, "steps" in asked)
    if freeze:
        words = [word.strip() for entry in freeze for word in entry.split(",")]
        for word in words:
            if word not in PARTS and not any(fnmatchcase(name, word) for name in weights):
                raise unknown("part or tensor to freeze", word, (*PARTS, *weights))
        tensors = ",".join(PARTS.get(word, word) for word in words)
        added = [*config.as_dict()["projections"], {"name": "frozen", "tensors": tensors}]
        config = resolve(config.as_dict() | {"projections": added})

    before, texts = weights, []
    for edit in edits:
        weights = edit.apply(weights, config)
        texts.append(edit.text)
    task = config.task.make(config.seed)
    goal, rules = steps.make_objective(config, task), steps.make_rules(config)
    template = steps.start(goal, rules, config.seed, config.dtype)
    params = _fitting(weights, template.params, run, config.dtype)
    if hold_logit_scale:
        held = old.loss.temperature * _ratio(weights, before, template.params, task, goal)
        config = resolve(merge(config.as_dict(), {"loss": {"temperature": held}}))

    same = (config.optimizer.name, _words(config.filters)) == (old.optimizer.name, _words(old.filters))
    keep = bool(states) and same and not edits and not fresh_optimizer
    opt = _opt_state(params, template.opt_state, rules, config, old, states if keep else {})
    note = {
        "run": str(os.path.normpath(run)), "step": at, "sha256": digest(before),
        "optimizer": "kept" if keep else "fresh", "edits": texts,
    }  # fmt: skip
    config = resolve(config.as_dict() | {"branch": note})
    told = {
        field: (a, b) for field, a, b in differences(old.as_dict(), config.as_dict())
        if field.partition(".")[0] not in ("branch", "steps", "seconds", "stop")
    }  # fmt: skip
    return Begin(config, TrainState(params, opt), keep, told)


FIGURES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "mirror_free_accuracy", "weight_norm")


def outcome(run: Path | str) -> dict[str, Any]:
    """What became of a branch: its figures before the first of its steps and after the last, and the extremes between.

    unseen_accuracy: on the test pairs that the parent did not train on either; where the split was changed, a test
    pair may be one that the network once knew by heart.
    """
    made = Run(run)
    config, records = made.config, made.metrics
    if config.branch is None:
        raise BadInput(f"{run} is no branch: its weights are those that its seed drew")
    shown = [name for name in FIGURES if name in records[0]]
    before, after = ({name: record[name] for name in shown} for record in (records[0], records[-1]))
    unseen, task = _unseen(config), config.task.make(config.seed)
    if unseen is not None and len(unseen) < len(task.test.tokens):
        for figures, step in ((before, made.snapshots[0]), (after, made.snapshots[-1])):
            figures["unseen_accuracy"] = _accuracy(made, config, task, step, unseen)
    lowest = min(records, key=lambda record: record["test_accuracy"])
    highest = max(records, key=lambda record: record["test_accuracy"])
    return {
        "from": records[0]["step"], "to": records[-1]["step"], "before": before, "after": after,
        "lowest_test_accuracy": {"step": lowest["step"], "value": lowest["test_accuracy"]},
        "highest_test_accuracy": {"step": highest["step"], "value": highest["test_accuracy"]},
    }  # fmt: skip


def _unseen(config: RunConfig) -> np.ndarray | None:
    """Which rows of the test split the parent did not train on; None where there is no telling."""
    assert config.branch is not None
    try:
        old = Run(config.branch.run).config
    except BadInput:
        return None  # the parent is gone, or was moved
    then, now = old.task.make(old.seed), config.task.make(config.seed)
    if then.train.source is not None or then.train.tokens.shape[1:] != now.test.tokens.shape[1:]:
        return None
    known = {row.tobytes() for row in np.asarray(then.train.tokens)}
    return np.flatnonzero([row.tobytes() not in known for row in np.asarray(now.test.tokens)])


def _accuracy(run: Run, config: RunConfig, task: Task, step: int, rows: np.ndarray) -> float | None:
    if not len(rows):
        return None
    goal = steps.make_objective(config, task)
    params = unflatten(run.parameters(step), objective.init(goal.model, config.seed))
    batch = numbered(task.test, goal.model, generator(config.seed, "ids", "test"), training=False)
    return float(np.mean(objective.scores(params, map_tree(lambda a: a[rows], batch), goal)[2]))


# ---------------------------------------------------------------------------------------------------- edits


def names(weights: Mapping[str, Any], what: str) -> list[str]:
    """The tensors that a part's word, or patterns with commas, mean; BadInput for one that means none."""
    return frozen.chosen(weights, ",".join(PARTS.get(word.strip(), word.strip()) for word in what.split(",")))


def transplant(donor: Path | str, what: str, step: int | None = None) -> Edit:
    """The donor's tensors, whole, in the place of the network's own."""
    at, given, _ = _read(Run(donor), Run(donor).config, step)
    chosen = names(given, what)

    def apply(weights: Weights, config: RunConfig) -> Weights:
        for name in chosen:
            own = weights.get(name)
            if own is None or own.shape != given[name].shape:
                has = "none of that name" if own is None else f"one of shape {list(own.shape)}"
                raise BadInput(
                    f"cannot transplant {name} {list(given[name].shape)} of {donor}: the network has {has}. "
                    "Both need the same task size and the same model"
                )
        return weights | {name: given[name] for name in chosen}

    return Edit(f"transplant {what} of {os.path.normpath(donor)} at step {at} ({digest(given)[:12]})", apply)


def scale(factor: float) -> Edit:
    """All weights multiplied by a number: another norm, the same directions."""
    if not 0 < factor < float("inf"):
        raise BadInput(f"weights are scaled by a number above 0, such as 0.5; received {factor}")
    return Edit(f"scale by {factor:g}", lambda weights, config: {name: factor * w for name, w in weights.items()})


# ---------------------------------------------------------------------------------------------------- parts


def digest(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes and bits, by which the weights can be known again."""
    found = hashlib.sha256()
    for name, w in sorted(weights.items()):
        found.update(f"{name} {w.dtype} {w.shape}".encode() + np.asarray(w, order="C").tobytes())
    return found.hexdigest()


def _read(run: Run, config: RunConfig, step: int | None) -> tuple[int, Weights, dict[str, np.ndarray]]:
    """The step, the weights, and the optimizer's arrays by flat name (none where only the model was kept)."""
    saved = run.snapshots
    if step is None and not saved:
        raise BadInput(f"{run.path} has no checkpoint to branch off; train it for longer, or branch off --step 0")
    at = saved[-1] if step is None else step
    if at not in saved and at != 0:
        near = sorted(sorted(saved, key=lambda s: abs(s - at))[:5])
        raise BadInput(
            f"{run.path} saved nothing at step {at}; the nearest saved steps are {', '.join(map(str, near))}; "
            "step 0 is always at hand"
        )
    path = run.path / "checkpoints" / f"step-{at}"
    if at in saved and not checkpoint.is_whole(path):
        return at, run.parameters(at), {}
    if at == 0 and at not in saved and config.branch is not None:
        raise BadInput(f"{run.path} is a branch, of {config.branch.run} at step {config.branch.step}: it has no step 0")
    task = config.task.make(config.seed)
    first = steps.start(
        steps.make_objective(config, task), steps.make_rules(config), config.seed, config.dtype
    )  # the parent's own beginning, and the names and shapes of what it saved
    model, optimizer = flatten(first.params), flatten(first.opt_state)
    if at not in saved:
        return at, model, optimizer
    try:
        found = checkpoint.load(path, model, optimizer)
    except checkpoint.Rejected as error:
        raise BadInput(f"{run.path} cannot be branched off at step {at}: {error}") from error
    return at, found.model, found.optimizer


def _end(config: RunConfig, at: int, asked: bool) -> RunConfig:
    if config.steps <= at:
        whose = "received" if asked else "the parent's config ends at"
        raise BadInput(
            f"a branch off step {at} needs a later end: {whose} {config.steps}; for example --steps {2 * at}"
        )
    return config


def _words(filters: Sequence[Any]) -> list[str]:
    return [f.name for f in filters]


def _fitting(weights: Weights, like: Any, run: Path | str, dtype: str) -> Any:
    """The weights as a tree in the run's precision; BadInput where the config asks for another model."""
    want = flatten(like)
    for name, x in want.items():
        if name not in weights or weights[name].shape != x.shape:
            has = "has no such tensor" if name not in weights else f"has it as {list(weights[name].shape)}"
            raise BadInput(
                f"the branch's config asks for {name} {list(x.shape)}, and {run} {has}: a branch keeps the model and "
                "the number of tokens. Change nothing of model.*, nor task.p"
            )
    if extra := [name for name in weights if name not in want]:
        raise BadInput(f"{run} has {', '.join(extra)}, for which the branch's config has no place")
    return unflatten({name: np.asarray(weights[name], dtype=dtype, order="C") for name in want}, like)


def _opt_state(
    params: Any, template: OptState, rules: steps.Rules, config: RunConfig, old: RunConfig, kept: Mapping[str, Any]
) -> OptState:
    """The parent's where it is kept; what is new, or fresh, begins from the weights as they stand."""
    filters, optimizer = tuple(f.init(params) for f in rules.filters), rules.optimizer.init(params)
    if kept:
        filters = _taken(kept, filters, "filters", config.dtype)
        optimizer = _taken(kept, optimizer, "optimizer", config.dtype)
    projections = []
    for i, (rule, own) in enumerate(zip(config.projections, template.projections, strict=True)):
        if kept and i < len(old.projections) and old.projections[i] == rule:
            projections.append(_taken(kept, own, f"projections.{i}", config.dtype))
            continue
        settings = rule.settings | ({"scale": 1.0} if rule.name == "constant_norm" else {})  # the norm that they have
        projections.append(optimizers.make(rule.name, "projection", **settings).init(params))
    return OptState(filters, optimizer, tuple(projections))


def _taken(kept: Mapping[str, np.ndarray], like: Any, prefix: str, dtype: str) -> Any:
    """The part of a saved state that stands under `prefix`."""
    flat = {name.removeprefix(f"{prefix}."): x for name, x in kept.items() if name.startswith(f"{prefix}.")}
    whole = unflatten(flat, like)
    return map_tree(lambda x: np.asarray(x, dtype=dtype if x.dtype.kind == "f" else x.dtype, order="C"), whole)


def _ratio(weights: Weights, before: Weights, like: Any, task: Task, goal: objective.Objective) -> float:
    """By how much the edits scaled the logits of the training examples (root mean square, less each row's mean)."""
    batch = numbered(task.train, goal.model, generator(0, "ids", "train"), training=False)

    def size(named: Weights) -> float:
        params = unflatten({name: np.asarray(w, dtype=np.float64) for name, w in named.items()}, like)
        logits = objective.forward(params, batch, goal)[0]
        return float(np.sqrt(np.mean((logits - logits.mean(axis=-1, keepdims=True)) ** 2)))

    was, now = size(before), size(weights)
    if not was > 0 or not now > 0:
        raise BadInput("the logit scale cannot be held: the logits of the training examples are all equal")
    return now / was
