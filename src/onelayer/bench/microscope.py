"""What the microscope costs: everything in gradients, ledgers in steps. One layer, p = 113, all 3,830 pairs, NumPy.

Unit      gradient: the plain forward and backward in float64, layer by layer as the models write it; training's own
          takes a shortcut through tables, and stands beside it. step: the NumPy engine's, which the ledger watches.
Counted   Provenance and ghost norms with their trace. A Hessian product stands on a trace that was made before, as
          Lanczos's hundreds do; one that makes its own is told apart. A ledger with the step that it looks on at.
          `all positions` asks for a loss at each of the three positions, where provenance has three tokens to tell
          apart; its unit is the gradient of that loss.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from ..arrays import generator, map_tree
from ..layers import cross_entropy
from ..microscope import per_example, splits, trace
from ..microscope.curvature import by_complex_step, linearise
from ..microscope.gates import backward, forward
from ..microscope.ledger import Ledger
from ..tasks import Batch
from ..training.config import resolve
from ..training.engines.numpy_engine import Engine
from ..training.objective import loss_and_grads
from . import Case, Contender

__all__ = ["case"]

ATTENTION = ["blocks.*.attn.W_?"]
EVERY = ", all positions"


class Ground:
    """A default run in float64 after its first step, at which everything is measured."""

    def __init__(self) -> None:
        self.config = resolve({"dtype": "float64"})
        self.task = self.config.task.make(self.config.seed)
        self.engine = Engine(self.config, self.task)
        self.objective = self.engine.objective
        self.state, _ = self.engine.run(self.engine.start(), 0, 1)
        self.params, self.cfg = self.state.params, self.objective.model
        tokens = self.task.train.tokens
        self.batch = self.task.train
        self.everywhere = Batch(tokens, np.concatenate([tokens[:, 1:], self.task.train.targets], axis=1))
        self.direction = map_tree(lambda x: generator(0, "direction").standard_normal(x.shape), self.params)


def case() -> Case:
    ground = cache(Ground)  # made by the first contender that is measured, not where the case is only named

    def contender(name: str, do: Callable[..., Any], *more: Any) -> Contender:
        return Contender(name, lambda: partial(do, ground(), *more))

    def on(batch: str, suffix: str) -> tuple[Contender, ...]:
        return (
            contender(f"gradient{suffix}", _gradient, batch),
            contender(f"trace{suffix}", _trace, batch),
            contender(f"loss token × head of the attention weights{suffix}", _provenance, batch),
            contender(f"ghost norms of all weights{suffix}", _ghost, batch),
        )

    return Case(
        "microscope",
        "The microscope's looks at the gradient of 3,830 pairs, in float64.",
        (
            *on("batch", ""),
            *on("everywhere", EVERY),
            contender("training's gradient", lambda g: loss_and_grads(g.params, g.batch, g.objective)),
            Contender("Hessian product", lambda: _product(ground(), "hessian")),
            Contender("Gauss-Newton product", lambda: _product(ground(), "gauss_newton")),
            contender("Hessian product with its trace", _product_anew),
            contender(
                "Hessian product by complex step", lambda g: by_complex_step(g.params, g.direction, g.batch, g.cfg)
            ),
            Contender("step", lambda: _step(ground(), None)),
            Contender("ledger of 26 routes", lambda: _step(ground(), "route")),
            Contender("ledger of 26 operand classes", lambda: _step(ground(), "operand", 26)),
        ),
        None,
        (3830, 128, 512),
        costs=(
            *(
                (f"{name}{suffix}", f"gradient{suffix}", most)
                for suffix in ("", EVERY)
                for name, most in (
                    ("trace", 1.5),
                    ("loss token × head of the attention weights", 3.0),
                    ("ghost norms of all weights", 1.5),
                )
            ),
            ("Hessian product", "gradient", 3.0),
            ("Hessian product with its trace", "gradient", 3.0),
            ("ledger of 26 routes", "step", 10.0),
            ("ledger of 26 operand classes", "step", 10.0),
        ),
    )


def _gradient(g: Ground, batch: str) -> Any:
    b = getattr(g, batch)
    logits, c = forward(g.params, b, g.cfg)
    return backward(cross_entropy.backward(cross_entropy.forward(logits, b.targets)[1]), c, g.cfg)


def _trace(g: Ground, batch: str) -> Any:
    return trace(g.params, getattr(g, batch), g.cfg)


def _provenance(g: Ground, batch: str) -> Any:
    return splits(_trace(g, batch), ATTENTION, ("loss_token", "head"))


def _ghost(g: Ground, batch: str) -> Any:
    t = _trace(g, batch)
    return [per_example.norms(t, name) for name in t.weights]


def _product(g: Ground, kind: str) -> Callable[[], Any]:
    return partial(getattr(linearise(g.params, g.batch, g.cfg), kind), g.direction)


def _product_anew(g: Ground) -> Any:
    return linearise(g.params, g.batch, g.cfg).hessian(g.direction)


def _step(g: Ground, by: str | None, classes: int | None = None) -> Callable[[], Any]:
    watch, at = None if by is None else Ledger(g.config, g.objective, by, classes=classes), 1

    def step() -> None:  # a ledger sees steps in their order; the state is the same one each time
        nonlocal at
        g.engine.watch = watch
        g.engine.run(g.state, at, 1)
        g.engine.watch, at = None, at + 1

    return step
