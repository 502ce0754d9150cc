"""Engines: what carries out the steps. `numpy` needs no compiling and can be stepped through; `jax` compiles the same.

Both start from the same bits, draw the same batches and call the same `step.take`; in float64 they agree to 1e-10
after 50 steps. An engine is made from a config and a task; its state is a value that goes in and comes out.
"""

from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np

from ...errors import WorkFailed, unknown
from ...tasks import Task
from ..config import RunConfig
from ..objective import Objective
from ..step import TrainState

__all__ = ["ENGINES", "Diverged", "Engine", "TrainState", "get"]

ENGINES = {"numpy": ".numpy_engine", "jax": ".jax_engine"}


class Diverged(WorkFailed):
    """NaN or infinity: `kind` is loss, gradient or update; `tensor` the first bad one; `step` where it happened."""

    def __init__(self, step: int, tensor: str, kind: str) -> None:
        super().__init__(
            f"the run diverged at step {step}: the {kind} is not finite, first in {tensor}; "
            "lower the learning rate, the decay or the initial scale, or clip the gradient"
        )
        self.step, self.tensor, self.kind = step, tensor, kind


@runtime_checkable
class Engine(Protocol):
    objective: Objective
    stride: int  # steps at a time, at most, so that signals are heard and progress is seen

    def __init__(self, config: RunConfig, task: Task) -> None: ...

    def start(self) -> TrainState:
        """The state before the first step."""
        ...

    def run(self, state: TrainState, step: int, n: int) -> tuple[TrainState, dict[str, np.ndarray]]:
        """n steps from `step` on: the new state, and "loss", "grad_norm" and "tokens" (targets that count) [n].
        Diverged leaves `state` as it was."""
        ...

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """The figures that `evaluation.names` lists: each split's loss and accuracy, and each group's accuracy."""
        ...

    def answers(self, state: TrainState) -> dict[str, np.ndarray]:
        """ "train" and "test": the logits [N R V] of all their examples, on the host."""
        ...

    def to_host(self, state: TrainState) -> TrainState:
        """The state as NumPy arrays, for a checkpoint."""
        ...

    def from_host(self, state: TrainState) -> TrainState:
        """The inverse of `to_host`."""
        ...


def get(name: str) -> type[Engine]:
    """The engine of that name; imported when asked for."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    return import_module(ENGINES[name], __package__).Engine
