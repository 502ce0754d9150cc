"""The JAX engine: the same step, compiled; many steps are one program (`scan`), on a CPU or a GPU.

float64, in the weights or in the loss, needs JAX's 64-bit mode, a setting of the whole process: it is turned on here.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...arrays import flatten, map_tree
from ...fused import using
from ...sublayers import attention_blocked
from ...tasks import Batch, Task
from .. import evaluation
from .. import step as steps
from ..batches import Batches, chunks
from ..config import RunConfig
from ..objective import Scores, forward, scores
from ..step import TrainState
from . import Diverged, examples

PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32", "bf16": "BF16_BF16_F32"}  # JAX's names


def in_precision(config: RunConfig) -> Any:
    """A context in which matrix products have the run's precision (float64 arrays keep theirs)."""
    return jax.default_matmul_precision(PRODUCTS[config.precision if config.dtype == "float32" else "float32"])


class Drawn(NamedTuple):
    """What a step draws, or [n] steps: which examples, and the ids of their places. None: all, and 0, 1, 2 …"""

    rows: jax.Array | None  # [n, B]
    ids: jax.Array | None  # [n, B, T]
    source_ids: jax.Array | None  # [n, B, S]


class Engine:
    stride = 2**31  # a chunk is one program: cut otherwise it would be compiled anew

    def __init__(self, config: RunConfig, task: Task) -> None:
        if "float64" in (config.dtype, config.loss.variant):
            jax.config.update("jax_enable_x64", True)
        self.config, self.task = config, task
        self.objective = steps.make_objective(config, task)
        self.rules = steps.make_rules(config)
        self.batches = Batches(task.train, config.batch_size, config.seed, self.objective.model, trim=False)
        self.train = _on_device(self.batches.split("train", task.train), config.dtype)
        self._whole = self._by_kernels()
        self.splits = {
            name: self.train if split is task.train else _on_device(self.batches.split(name, split), config.dtype)
            for name, split in evaluation.splits(task, config).items()
        }
        self._steps = jax.jit(self._scan)
        self._scores = jax.jit(using(attention_blocked.STAND_INS)(partial(scores, objective=self.objective)))
        self._answers = jax.jit(using(attention_blocked.STAND_INS)(self._logits))
        self._locate = jax.jit(self._first_bad)

    def _by_kernels(self) -> Batch | None:
        """All examples, in NumPy, where each step sees them all and kernels take them (examples.py)."""
        batch = self.task.train
        if not (self.batches.whole and self.train.ids is None and examples.taken(self.config, self.objective, batch)):
            return None
        return batch._replace(weights=None if batch.weights is None else batch.weights.astype(self.config.dtype))

    def start(self) -> TrainState:
        return self.from_host(steps.start(self.objective, self.rules, self.config.seed, self.config.dtype))

    def run(self, state: TrainState, step: int, n: int) -> tuple[TrainState, dict[str, np.ndarray]]:
        drawn = self._draw(step, n)
        with in_precision(self.config):
            new, figures = self._steps(state, jnp.arange(step, step + n), drawn, self.train)
        figures = {name: np.asarray(values, dtype=np.float64) for name, values in figures.items()}
        if not np.all(figures.pop("finite")):
            self._raise(state, step, n, drawn)
        return new, figures | {"tokens": np.array([self.batches.tokens(t) for t in range(step, step + n)], float)}

    def evaluate(self, state: TrainState) -> dict[str, float]:
        figures: dict[str, float] = {}
        for split, batch in self.splits.items():
            some = chunks(batch, evaluation.chunk(self.task, batch), in_order=True)
            with in_precision(self.config):
                parts = [self._scores(state.params, part) for _, part in some]
            together = (np.concatenate([np.asarray(a) for a in part]) for part in zip(*parts, strict=True))
            figures |= evaluation.summarise(self.task, split, Scores(*together))
        return figures

    def answers(self, state: TrainState) -> dict[str, np.ndarray]:
        with in_precision(self.config):
            return {name: np.asarray(self._answers(state.params, batch)) for name, batch in self.splits.items()}

    def _logits(self, params: Any, batch: Batch) -> jax.Array:
        return forward(params, batch, self.objective)[0]

    def to_host(self, state: TrainState) -> TrainState:
        return map_tree(np.asarray, state)

    def from_host(self, state: TrainState) -> TrainState:
        return map_tree(jnp.asarray, state)

    def _draw(self, step: int, n: int) -> Drawn:
        """What n steps draw, on the host."""
        steps_ahead = range(step, step + n)
        rows = [self.batches.indices(t) for t in steps_ahead] if self.batches.size is not None else None
        numbered = [self.batches.at(t) for t in steps_ahead] if self.train.ids is not None else []

        def together(arrays: list[Any] | None) -> jax.Array | None:
            return jnp.asarray(np.stack(arrays)) if arrays and arrays[0] is not None else None

        return Drawn(together(rows), together([b.ids for b in numbered]), together([b.source_ids for b in numbered]))

    def _scan(self, state: TrainState, ts: jax.Array, drawn: Drawn, train: Batch) -> tuple[Any, Any]:
        @using(attention_blocked.STAND_INS)
        def one(state: TrainState, at: tuple[jax.Array, Drawn]) -> tuple[TrainState, dict[str, jax.Array]]:
            t, now = at
            new, figures, _ = self._take(state, _batch(train, now), t)
            finite = jnp.isfinite(figures["loss"]) & jnp.isfinite(figures["grad_norm"]) & _all_finite(new.params)
            return new, figures | {"finite": finite}

        return jax.lax.scan(one, state, (ts, drawn))

    def _raise(self, state: TrainState, step: int, n: int, drawn: Drawn) -> None:
        """Retrace the chunk one step at a time to the first tensor that is not finite."""
        for i in range(n):
            batch = _batch(self.train, map_tree(lambda a, i=i: a[i], drawn))
            state, loss, raw = self._locate(state, batch, jnp.asarray(step + i))
            if not np.isfinite(loss):
                raise Diverged(step + i, "loss", "loss")
            for kind, tree in (("gradient", raw), ("update", state.params)):
                for name, tensor in flatten(tree).items():
                    if not np.all(np.isfinite(np.asarray(tensor))):
                        raise Diverged(step + i, name, kind)

    @using(attention_blocked.STAND_INS)
    def _first_bad(self, state: TrainState, batch: Batch, t: jax.Array) -> tuple[TrainState, jax.Array, Any]:
        new, figures, raw = self._take(state, batch, t)
        return new, figures["loss"], raw

    def _take(self, state: TrainState, batch: Batch, t: jax.Array) -> tuple[TrainState, dict[str, jax.Array], Any]:
        if self._whole is None:
            return steps.take(state, batch, t, self.objective, self.rules)
        return steps.take(state, self._whole, t, self.objective, self.rules, gradient=examples.gradient)


def _batch(train: Batch, now: Drawn) -> Batch:
    """The batch of a step, from what it drew."""
    batch = train if now.rows is None else map_tree(lambda a: a[now.rows], train)
    return batch if now.ids is None else batch._replace(ids=now.ids, source_ids=now.source_ids)


def _all_finite(params: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in flatten(params).values()]))


def _on_device(batch: Batch, dtype: str) -> Batch:
    return map_tree(lambda a: jnp.asarray(a, dtype=dtype if a.dtype.kind == "f" else None), batch)
