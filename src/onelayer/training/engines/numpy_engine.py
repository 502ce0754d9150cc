"""The NumPy engine: the step as it is written, one array after the other. The default.

Where numba is installed, fused kernels stand in for the layers' elementwise passes (kernels/); long attention is done
in blocks (sublayers/attention_blocked.py). A large batch is taken in shares, a thread for each (shares.py).
Where each step sees all training examples, an evaluation's forward pass over them is the next step's: it is kept.
Where the run is measured, so are all logits of an evaluation, until they have been asked for.
"""

from functools import cached_property, partial
from typing import Any

import numpy as np

from ... import kernels
from ...arrays import Array, flatten, map_tree
from ...fused import using
from ...sublayers import attention_blocked, attention_rows
from ...tasks import Batch, Task
from .. import evaluation
from .. import step as steps
from ..batches import Batches, lengths
from ..config import RunConfig
from ..events import Stepped, Watch
from ..objective import Objective, accumulated
from ..step import Gradient, TrainState
from . import Diverged, shares
from .memory import keep_freed_memory


class Engine:
    stride = 25

    def __init__(self, config: RunConfig, task: Task) -> None:
        self.config, self.task = config, task
        self.objective = steps.make_objective(config, task)
        self.rules = steps.make_rules(config)
        train = _in_precision(task.train, config.dtype)
        self.batches = Batches(
            train, config.batch_size, config.seed, self.objective.model,
            tokens=config.batch_tokens, bucket=config.bucket, accumulate=config.accumulate,
        )  # fmt: skip
        self.splits = {
            name: self.batches.split(name, train if split is task.train else _in_precision(split, config.dtype))
            for name, split in evaluation.splits(task, config).items()
        }
        self._lengths = {name: lengths(split) for name, split in self.splits.items()}
        self._ahead: tuple[Any, Any] = (None, None)  # parameters, and their forward passes over the training examples
        self._said: tuple[Any, dict[str, np.ndarray]] = (None, {})  # parameters, and what they answered when evaluated
        self.watch: Watch | None = None
        keep_freed_memory()

    @cached_property
    def test(self) -> Batch:
        """The test split, whether evaluations measure it or not."""
        return self.batches.split("test", _in_precision(self.task.test, self.config.dtype))

    def start(self) -> TrainState:
        return _in_order(steps.start(self.objective, self.rules, self.config.seed, self.config.dtype))

    def run(self, state: TrainState, step: int, n: int) -> tuple[TrainState, dict[str, np.ndarray]]:
        with using(kernels.available(), attention_rows.STAND_INS, attention_blocked.STAND_INS):
            return self._run(state, step, n)

    def _run(self, state: TrainState, step: int, n: int) -> tuple[TrainState, dict[str, np.ndarray]]:
        losses, norms, tokens = np.zeros(n), np.zeros(n), np.zeros(n)
        for i in range(n):
            batch, before = self.batches.at(step + i), state
            gradient = self._gradient(step + i, self._take_ahead(state))
            quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # found below, and named
            with quiet, shares.alone(batch, self.objective):
                state, figures, raw = steps.take(state, batch, step + i, self.objective, self.rules, gradient=gradient)
                state = _in_order(state)
                losses[i], norms[i], tokens[i] = figures["loss"], figures["grad_norm"], self.batches.tokens(step + i)
                check(step + i, losses[i], norms[i], raw, state.params)
            if self.watch is not None:
                with using({}):  # who looks on looks with the definitions
                    self.watch(Stepped(step + i, before, batch, raw, state))
        return state, {"loss": losses, "grad_norm": norms, "tokens": tokens}

    def _gradient(self, step: int, ahead: shares.Ahead | None) -> Gradient:
        """Of a step's batch: in shares, side by side; where the step accumulates, so of a part after the other."""
        if self.config.accumulate == 1:
            return partial(shares.gradient, ahead=ahead)

        def in_parts(params: Any, batch: Batch, objective: Objective) -> tuple[Array, Any]:
            return accumulated(params, self.batches.parts(batch, step), objective, gradient=shares.gradient)

        return in_parts

    def evaluate(self, state: TrainState) -> dict[str, float]:
        with using(kernels.available(), attention_rows.STAND_INS, attention_blocked.STAND_INS):
            return self._evaluate(state)

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        figures: dict[str, float] = {}
        keep, said, met = self.config.evaluation.measures != "none", {}, None
        for split, batch in self.splits.items():
            most = evaluation.chunk(self.task, batch)
            same = batch is self.batches.train and self.batches.whole  # what the next step will see
            if same and len(batch.tokens) <= most:
                ahead, found = shares.forwards(state.params, batch, self.objective)
                self._ahead, met = (state.params, ahead), ahead.met
                logits = np.concatenate([answer for answer, _ in ahead.parts]) if keep else None
            else:
                of = self._lengths[split]
                found, logits = evaluation.judged(state.params, batch, self.objective, most, of, keep, met)
            figures |= evaluation.summarise(self.task, split, found)
            said |= {split: logits} if keep else {}
        self._said = (state.params, said) if keep else (None, {})
        return figures

    def answers(self, state: TrainState) -> dict[str, np.ndarray]:
        """An evaluation of these very parameters has them already."""
        if self._said[0] is not state.params:
            self.evaluate(state)
        (_, said), self._said = self._said, (None, {})
        return said

    def _take_ahead(self, state: TrainState) -> Any:
        """The forward passes that an evaluation left for these very parameters; they are let go of."""
        (params, ahead), self._ahead = self._ahead, (None, None)
        return ahead if params is state.params else None

    def to_host(self, state: TrainState) -> TrainState:
        return state

    def from_host(self, state: TrainState) -> TrainState:
        return state


def _in_order(state: TrainState) -> TrainState:
    """Each array in C order, as a checkpoint gives it back: in another, the same products and sums round otherwise, and
    a resumed run would not be the same to the last bit. Where it is so already, nothing is copied."""
    return map_tree(lambda x: np.asarray(x, order="C"), state)


def check(step: int, loss: float, grad_norm: float, raw: object, params: object) -> None:
    """Diverged, naming the first tensor that is not finite, where the loss, the gradient or the update is not."""
    if not np.isfinite(loss):
        raise Diverged(step, "loss", "loss")
    if not np.isfinite(grad_norm):
        _name_first(step, "gradient", raw)
    flat = flatten(params)
    if not np.isfinite(sum(float(np.vdot(p, p)) for p in flat.values())):
        _name_first(step, "update", params)


def _name_first(step: int, kind: str, tree: object) -> None:
    for name, tensor in flatten(tree).items():
        if not np.all(np.isfinite(tensor)):
            raise Diverged(step, name, kind)


def _in_precision(batch: Batch, dtype: str) -> Batch:
    return batch._replace(weights=None if batch.weights is None else batch.weights.astype(dtype))
