"""What the microscope page carries: the exact numbers of some examples at some checkpoints, packed.

Of every example its own loss is traced, not the mean over the examples shown: an example's gradient does not change
with its company. Gradients are kept for the whole loss and, where several positions are read, for each position's loss
alone. All passes run in float64; numbers are stored as float32.

Block    one a checkpoint: float32 numbers, then uint16 indices, gzipped, in base64. Before that, the first bytes of all
         numbers are written, then all second ones, and so on: exponents resemble each other, and pack.
Layout   every example takes `stride` numbers; a view's values begin at its `value`, its gradients at its `gradient`[i],
         i being 0 for the whole loss and 1 + r for the r-th position that is read. All is row-major.
"""

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from onelayer.arrays import Array, flatten, generator, unflatten
from onelayer.errors import BadInput
from onelayer.layers import cross_entropy
from onelayer.microscope.gates import replay
from onelayer.microscope.provenance import routes
from onelayer.microscope.trace import Trace, trace
from onelayer.report.microscope.stream import Parts
from onelayer.report.microscope.views import GRADIENT, VALUE, Look, Rule, Top, View, views
from onelayer.report.run import Run
from onelayer.tasks import Batch
from onelayer.training.batches import lengths, narrow, numbered
from onelayer.training.objective import init
from onelayer.training.step import make_objective

__all__ = ["BUDGET", "Example", "Payload", "build", "choose", "usual"]

BUDGET = 7_600_000  # bytes of all blocks together: what leaves a page of 8 MB room for itself
ENOUGH = 6  # checkpoints: rather fewer examples than fewer of these


class Example(NamedTuple):
    split: str  # train or test
    number: int


# ---------------------------------------------------------------------------------------------------- which examples


def choose(run: Run, asked: Sequence[str] | None = None, each: int = 3) -> list[Example]:
    """`["train:3", "test:5", "7"]` as examples (a bare number is of the test split); None: some, spread over both."""
    sizes = {"train": len(run.task.train.tokens), "test": len(run.task.test.tokens)}
    if asked is None:
        return [Example(split, number) for split, n in sizes.items() for number in spread(n, each)]
    return list(dict.fromkeys(_example(word, sizes) for word in asked))


def _example(word: str, sizes: Mapping[str, int]) -> Example:
    split, _, number = word.strip().rpartition(":")
    split = split or "test"
    if split not in sizes or not number.isdecimal():
        raise BadInput(f"an example is train:N, test:N or N, counted from 0; received {word!r}; such as train:3,test:5")
    if int(number) >= sizes[split]:
        last = sizes[split] - 1
        raise BadInput(f"the {split} split has {last + 1} examples; received {word!r}, allowed: 0 to {last}")
    return Example(split, int(number))


def spread(n: int, count: int) -> list[int]:
    """`count` of the numbers below n (all, where there are fewer), evenly, none at either end."""
    count = min(n, count)
    return [int((2 * i + 1) * n / (2 * count)) for i in range(count)]


def thinned(items: Sequence[int], count: int) -> list[int]:
    """`count` of the items, evenly, first and last among them."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


# ---------------------------------------------------------------------------------------------------- the whole


@dataclass(frozen=True)
class Payload:
    about: dict[str, Any]  # what the page's script is told, as JSON
    blocks: dict[int, str]  # step -> packed numbers
    left_out: list[int]  # checkpoints that there was no room for


def build(run: Run, examples: Sequence[Example], steps: Sequence[int] | None = None, budget: int = BUDGET) -> Payload:
    """Trace the examples at these checkpoints (None: as many as there is room for, first and last among them)."""
    if not examples:
        raise BadInput("no example was given; name at least one, such as train:3")
    objective = make_objective(run.config, run.task)
    settings = {name: getattr(objective, name) for name in ("variant", "smoothing", "never", "temperature")}
    batch = _batch(run, examples)
    like = init(objective.model, 0)

    def look(step: int) -> Step:
        weights = run.weights(step)
        params = unflatten({name: np.asarray(weights[name], np.float64) for name in flatten(like)}, like)
        return Step(trace(params, batch, objective.model, **run.words, **settings))

    known = _known(run, steps)
    first = look(known[-1])
    packed = {known[-1]: first.packed()}
    size = len(packed[known[-1]])
    room = int(budget // (1.02 * size))
    if room < (1 if steps is None else len(known)):
        raise BadInput(
            f"one checkpoint takes {size / 1e6:.1f} MB of the page and there is room for {budget / 1e6:.1f} MB; "
            f"asked for: {len(known)} with {len(examples)} examples. Name fewer examples, or fewer steps"
        )
    chosen = thinned(known, room)
    losses: dict[int, list[float]] = {}
    for step in chosen:
        here = first if step == known[-1] else look(step)
        packed[step] = packed.get(step) or here.packed()
        losses[step] = here.losses
    if sum(map(len, packed.values())) > budget and steps is None and len(chosen) > 1:
        return build(run, examples, None, int(budget * 0.9))
    about = {
        "model": {**objective.model.model_dump(include={"d_model", "n_heads", "d_mlp", "n_layers", "norm", "norm_kind",
                  "norm_eps", "activation", "position", "architecture"}), "head_width": objective.model.head_width},
        "loss": settings,
        "vocabulary": list(run.task.vocabulary),
        "examples": _described(run, examples, batch),
        "steps": [{"step": step, "loss": losses[step]} for step in chosen],
        "curves": _curves(run),
        "views": first.described(),
        "routes": first.routes_described(),
        "stride": first.stride, "index_stride": first.index_stride,
        "read": int(batch.targets.shape[1]),
    }  # fmt: skip
    return Payload(about, {step: packed[step] for step in chosen}, sorted(set(known) - set(chosen)))


def usual(run: Run, steps: Sequence[int] | None = None, budget: int = BUDGET) -> tuple[list[Example], Payload]:
    """Three examples of either split; two, or one, where otherwise there were no room for a handful of checkpoints."""
    for each in (3, 2, 1):
        examples = choose(run, each=each)
        try:
            payload = build(run, examples, steps, budget)
        except BadInput:
            if each == 1:
                raise
            continue
        if each == 1 or not payload.left_out or len(payload.blocks) >= ENOUGH:
            return examples, payload
    raise AssertionError


def _known(run: Run, steps: Sequence[int] | None) -> list[int]:
    saved = run.checkpoints
    if not saved:
        raise BadInput(f"{run.directory.path} has no checkpoint, and the page shows weights; let the run reach one")
    if steps is None:
        return saved
    for step in steps:
        if step not in saved:
            near = ", ".join(map(str, sorted(sorted(saved, key=lambda s: abs(s - step))[:3])))
            raise BadInput(f"step {step} was not saved; the nearest are {near}; saved: {', '.join(map(str, saved))}")
    return sorted(set(steps))


def _batch(run: Run, examples: Sequence[Example]) -> Batch:
    model, seed = run.model, run.config.seed
    splits = {
        name: numbered(getattr(run.task, name), model, generator(seed, "ids", name), training=False)
        for name in ("train", "test")
    }

    def rows(field: str) -> Array | None:
        found = [getattr(splits[e.split], field) for e in examples]
        return None if found[0] is None else np.stack([x[e.number] for x, e in zip(found, examples, strict=True)])

    batch = Batch(*(rows(field) for field in Batch._fields))
    return narrow(batch, np.arange(len(examples)), lengths(batch))  # as wide as the longest of them


def _described(run: Run, examples: Sequence[Example], batch: Batch) -> list[dict[str, Any]]:
    words = run.task.vocabulary
    sources = run.source_vocabulary
    told = []
    for n, example in enumerate(examples):
        weights = np.ones(batch.targets.shape[1]) if batch.weights is None else batch.weights[n]
        told.append(
            {
                "split": example.split,
                "index": example.number,
                "tokens": [words[i] for i in batch.tokens[n]],
                "source": None if batch.source is None else [sources[i] for i in batch.source[n]],
                "targets": batch.targets[n].tolist(),
                "weights": (weights / max(weights.sum(), 1e-300)).tolist(),
            }
        )
    return told


def _curves(run: Run) -> dict[str, list[Any]]:
    """The losses over training, for the picture above the slider; nothing where none was recorded."""
    try:
        names = [name for name in ("train_loss", "test_loss") if name in run.metrics]
        columns = {name: run.metrics[name] for name in ("step", *names)}
    except BadInput:
        return {"step": []}
    every = max(1, len(columns["step"]) // 300)
    return {name: [_brief(x) for x in values[::every]] for name, values in columns.items()}


def _brief(x: float) -> float | None:
    return float(f"{x:.5g}") if np.isfinite(x) else None


# ---------------------------------------------------------------------------------------------------- one checkpoint


class Step:
    """The numbers of one checkpoint, and where each stands."""

    def __init__(self, t: Trace) -> None:
        R = t.batch.targets.shape[1]
        self.losses, own = _own(t)
        self.t = through(t, {"logits": own[:, None, None]})
        self.gates = [{}] if R == 1 else [{}, *({"logits": only(r)} for r in range(R))]
        self.numbers: list[Array] = []  # each [B, n]
        self.indices: list[Array] = []
        self.stride = self.index_stride = 0
        self.routes = [self._routes(block) for block in _blocks(self.t)]
        looks = [Look.of(through(self.t, gate), self._ends(i)) for i, gate in enumerate(self.gates)]
        self.views = [self._view(view, looks) for view in views(self.t)]

    def _routes(self, scope: str) -> dict[str, Any]:
        """‖part‖ and ⟨part, gradient⟩ at each position, of each route into a block, for each part of the loss."""
        stack = scope[: scope.index("blocks.")]
        found = [part for part in routes(self.t, f"{stack}embed.W_E", scope) if part.label != "unembed"]
        rows = self.t.values[f"{scope}.hook_resid_pre"].shape[1]
        name = f"{scope}.hook_resid_pre"
        parts, at = [], []
        for gate in self.gates:
            every = np.stack([replay(self.t, {**part.gates, **gate}).gradients[name] for part in found])
            whole = every.sum(axis=0)
            norms = np.sqrt(np.sum(every**2, axis=-1))  # [routes B T]
            products = np.sum(every * whole, axis=-1)
            at.append([self._put(np.moveaxis(norms, 0, 1)), self._put(np.moveaxis(products, 0, 1))])
            parts.append(every)
        labels = [[_plain(stage) for stage in part.label.split(" · ")] for part in found]
        return {"scope": scope, "labels": labels, "at": at, "parts": parts, "positions": rows, "stack": stack}

    def _ends(self, i: int) -> dict[str, Parts]:
        """The gradient into each block by the last stage of its route, for the i-th part of the loss."""
        return {block["scope"]: _by_end(block["parts"][i], block["labels"]) for block in self.routes}

    def routes_described(self) -> list[dict[str, Any]]:
        return [{key: block[key] for key in ("scope", "labels", "at", "positions", "stack")} for block in self.routes]

    def _view(self, view: View, looks: Sequence[Look]) -> dict[str, Any]:
        t = looks[0].trace
        shown = t.values.get(view.name, t.gradients.get(view.name))
        assert shown is not None
        shape, axes = shown.shape[1:], view.axes
        if "h" in axes and axes.index("h") == 1:  # [T H K] is kept as [H T K]: a head is what one looks at
            shape = (shape[1], shape[0], *shape[2:])
            axes = axes[1] + axes[0] + axes[2:]
        rows = shape[axes.index("t") if "t" in axes else axes.index("s")]
        own = t.batch.source if view.stack == "encoder." and t.batch.source is not None else t.batch.tokens
        about: dict[str, Any] = {
            "name": view.name, "label": view.label, "axes": axes, "shape": list(shape), "part": view.part,
            "stack": view.stack, "sources": view.sources, "first": own.shape[1] - rows,
        }  # fmt: skip
        if view.value is not None:
            about["value"] = {"at": [self._put(_head_first(t.values[view.name], view.axes))],
                              **self._rule(view, view.value, looks[:1], VALUE)}  # fmt: skip
        if view.gradient is not None:
            about["gradient"] = {"at": [self._put(_head_first(x.trace.gradients[view.name], view.axes)) for x in looks],
                                 **self._rule(view, view.gradient, looks, GRADIENT)}  # fmt: skip
        return about

    def _rule(self, view: View, rule: Rule, looks: Sequence[Look], side: str) -> dict[str, Any]:
        about: dict[str, Any] = {"kind": rule.kind, **rule.uses}
        if rule.weights:
            given = [name for name in rule.weights if name in self.t.weights]
            about["weights"] = {name.rpartition(".")[2]: self._put_vector(self.t.weights[name]) for name in given}
        if rule.terms is not None:
            parts = [rule.terms(look) for look in looks]
            about["labels"] = list(parts[0])
            stored = [[self._put(_head_first(x, view.axes)) for x in list(some.values())[:-1]] for some in parts]
            about["terms"] = stored
        if rule.top is not None:
            about["keep"] = rule.top.keep
            about["top"] = [self._put_top(rule.top, look.trace, view.axes) for look in looks]
        return about

    def _put_top(self, top: Top, t: Trace, axes: str) -> list[int]:
        left, weight = top.left(t), top.weight(t)
        index, factor = _largest(left, weight, top.keep)
        if "h" in axes:  # [B T (H K) n] -> [B H T K n]
            heads = t.cfg.n_heads
            index, factor = (_head_first(x.reshape(*x.shape[:2], heads, -1, top.keep), axes) for x in (index, factor))
        return [self._put_index(index), self._put(factor)]

    def _put(self, x: Array) -> int:
        """Among the numbers; the answer is where, in an example's stretch."""
        at, flat = self.stride, np.ascontiguousarray(x, dtype=np.float32).reshape(len(x), -1)
        self.numbers.append(flat)
        self.stride += flat.shape[1]
        return at

    def _put_vector(self, x: Array) -> int:
        return self._put(np.broadcast_to(x, (len(self.losses), *x.shape)))

    def _put_index(self, x: Array) -> int:
        at, flat = self.index_stride, np.ascontiguousarray(x, dtype=np.uint16).reshape(len(x), -1)
        self.indices.append(flat)
        self.index_stride += flat.shape[1]
        return at

    def described(self) -> list[dict[str, Any]]:
        return self.views

    def packed(self) -> str:
        numbers = np.concatenate(self.numbers, axis=1)
        indices = np.concatenate(self.indices, axis=1) if self.indices else np.zeros((len(numbers), 0), np.uint16)
        return base64.b64encode(gzip.compress(_planes(numbers) + _planes(indices), 6, mtime=0)).decode()


def _planes(x: Array) -> bytes:
    """The first bytes of all numbers, then the second ones …, little end first."""
    x = np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("<"))
    return x.view(np.uint8).reshape(-1, x.dtype.itemsize).T.tobytes()


def _own(t: Trace) -> tuple[list[float], Array]:
    """Each example's own loss, and what ∂loss/∂logits of the mean is to be multiplied by to become that of its own."""
    w = np.ones(t.batch.targets.shape) if t.batch.weights is None else t.batch.weights
    sums = w.sum(axis=1)
    logits, losses = t.values["logits"], []
    for n in range(len(sums)):
        weights = None if t.batch.weights is None else w[n : n + 1]
        one = slice(n, n + 1)
        loss, _ = cross_entropy.forward(logits[one], t.batch.targets[one], weights, **t.settings)
        losses.append(float(loss))
    return losses, np.divide(sums.sum(), sums, out=np.zeros_like(sums), where=sums > 0)


def through(t: Trace, gates: Mapping[str, Any]) -> Trace:
    """The trace, its backward run again with these gates."""
    if not gates:
        return t
    run = replay(t, gates)
    return replace(t, gradients=run.gradients, weight_gradients=flatten(run.weights))


def only(r: int) -> Any:
    """The gate through which the r-th position's loss alone passes."""

    def gate(x: Array) -> Array:
        return np.where(np.arange(x.shape[1])[None, :, None] == r, x, 0.0)

    return gate


def _blocks(t: Trace) -> list[str]:
    """The blocks that routes are known through: those above an embedding table of their own."""
    names = [n.removesuffix(".hook_resid_pre") for n in t.values if n.endswith(".hook_resid_pre")]
    return [name for name in names if f"{name[: name.index('blocks.')]}embed.W_E" in t.weights]


def _plain(stage: str) -> str:
    """`embed: mlp` is `mlp`: what tied tables put in front is of no interest here."""
    return stage.rpartition(": ")[2]


_ENDS = {"Q": "through queries", "K": "through keys", "V": "through values", "b": "through the scores' bias"}


def _by_end(parts: Array, labels: Sequence[Sequence[str]]) -> Parts:
    """The routes [routes B T D], added up by where they end: around attention, or by queries, keys or values."""
    found: Parts = {}
    for route, x in zip(labels, parts, strict=True):
        end = _ENDS.get(route[-1][0], "around attention")
        found[end] = found[end] + x if end in found else x
    return found


def _head_first(x: Array, axes: str) -> Array:
    return np.swapaxes(x, 1, 2) if "h" in axes and axes.index("h") == 1 else x


def _largest(left: Array, weight: Array, keep: int) -> tuple[Array, Array]:
    """left [B T I], weight [I J] -> of Σ_i left weight, the `keep` largest terms: index and weight [B T J keep]."""
    B, T, _ = left.shape
    index = np.empty((B, T, weight.shape[1], keep), np.int64)
    for b in range(B):
        for t in range(T):
            size = np.abs(left[b, t, :, None] * weight).T  # [J I]
            some = np.argpartition(-size, keep - 1, axis=1)[:, :keep]
            order = np.argsort(-np.take_along_axis(size, some, axis=1), axis=1, kind="stable")
            index[b, t] = np.take_along_axis(some, order, axis=1)
    return index, weight[index, np.arange(weight.shape[1])[:, None]]
