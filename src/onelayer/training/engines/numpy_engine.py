"""The NumPy engine: the step as it is written, one array after the other. The default.

Where numba is installed, fused kernels stand in for the layers' elementwise passes (kernels/); long attention is done
in blocks (sublayers/attention_blocked.py).
Where each step sees all training examples, an evaluation's forward pass over them is the next step's: it is kept.
Where the run is measured, so are all logits of an evaluation, until they have been asked for.
"""

from typing import Any

import numpy as np

from ... import kernels
from ...arrays import flatten, map_tree
from ...fused import using
from ...sublayers import attention_blocked
from ...tasks import Batch, Task
from .. import step as steps
from ..batches import Batches
from ..config import RunConfig
from ..events import Stepped, Watch
from ..objective import forward, judge
from ..step import TrainState
from . import Diverged
from .memory import keep_freed_memory
from .summary import summarise

CHUNK = 8192  # examples that are evaluated at once: bounds the memory of an evaluation


class Engine:
    def __init__(self, config: RunConfig, task: Task) -> None:
        self.config, self.task = config, task
        self.objective = steps.make_objective(config, task)
        self.rules = steps.make_rules(config)
        train = _in_precision(task.train, config.dtype)
        self.batches = Batches(train, config.batch_size, config.seed, self.objective.model)
        self.train = self.batches.split("train", train)
        self.test = self.batches.split("test", _in_precision(task.test, config.dtype))
        self._ahead: tuple[Any, Any] = (None, None)  # parameters, and their forward pass over the training examples
        self._said: tuple[Any, dict[str, np.ndarray]] = (None, {})  # parameters, and what they answered when evaluated
        self.watch: Watch | None = None
        keep_freed_memory()

    def start(self) -> TrainState:
        return _in_order(steps.start(self.objective, self.rules, self.config.seed, self.config.dtype))

    def run(self, state: TrainState, step: int, n: int) -> tuple[TrainState, dict[str, np.ndarray]]:
        with using(kernels.available() | attention_blocked.STAND_INS):
            return self._run(state, step, n)

    def _run(self, state: TrainState, step: int, n: int) -> tuple[TrainState, dict[str, np.ndarray]]:
        losses, norms = np.zeros(n), np.zeros(n)
        for i in range(n):
            batch, ahead = self.batches.at(step + i), self._take_ahead(state)
            before = state
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # found below, and named
                state, figures, raw = steps.take(state, batch, step + i, self.objective, self.rules, ahead)
                state = _in_order(state)
            losses[i], norms[i] = figures["loss"], figures["grad_norm"]
            check(step + i, losses[i], norms[i], raw, state.params)
            if self.watch is not None:
                with using({}):  # who looks on looks with the definitions
                    self.watch(Stepped(step + i, before, batch, raw, state))
        return state, {"loss": losses, "grad_norm": norms}

    def evaluate(self, state: TrainState) -> dict[str, float]:
        with using(kernels.available() | attention_blocked.STAND_INS):
            return self._evaluate(state)

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        figures: dict[str, float] = {}
        keep, said = self.config.evaluation.measures != "none", {}
        for split, batch in (("train", self.train), ("test", self.test)):
            same = batch is self.batches.train and self.batches.size is None  # what the next step will see
            if same and len(batch.tokens) <= CHUNK:
                self._ahead = state.params, forward(state.params, batch, self.objective)
                parts, logits = [judge(self._ahead[1][0], batch)], [self._ahead[1][0]]
            else:
                parts, logits = [], []
                for i in range(0, len(batch.tokens), CHUNK):
                    some = map_tree(lambda a, i=i: a[i : i + CHUNK], batch)
                    answered = forward(state.params, some, self.objective)[0]
                    parts.append(judge(answered, some))
                    logits += [answered] if keep else []
            figures |= summarise(self.task, split, *(np.concatenate(part) for part in zip(*parts, strict=True)))
            said |= {split: logits[0] if len(logits) == 1 else np.concatenate(logits)} if keep else {}
        self._said = (state.params, said) if keep else (None, {})
        return figures

    def answers(self, state: TrainState) -> dict[str, np.ndarray]:
        """An evaluation of these very parameters has them already."""
        if self._said[0] is not state.params:
            self.evaluate(state)
        (_, said), self._said = self._said, (None, {})
        return said

    def _take_ahead(self, state: TrainState) -> Any:
        """The forward pass that an evaluation left for these very parameters; it is let go of."""
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
