"""Flow: how gradients and updates run through the net over training. A watcher of a run.

    flow = Flow(objective, period=113)                  objective: training.step.make_objective(config, task)
    train(config, callback=flow, watch=flow)            writes flow.jsonl into the run; its weights are bitwise the same

A record   of one step, tensor by tensor under the flat names:
    gradient, update, weight   Euclidean norms: of the raw gradient, of w′ − w, of w before the step
    alignment                  cosine between this step's gradient and the one before; "all": of all tensors as one
    ranks                      of each matrix (heads side by side, D × HK): `stable` ‖W‖²/σ₁² and `effective`
                               exp(−Σ p ln p) with p = σ/Σσ, both between 1 and the smaller side; `singular`, the
                               largest σ
  and of the forward pass on the step's batch:
    dead                       share of hidden units whose activation has no slope on any example: no gradient reaches
                               their weights (relu: all x ≤ 0); by block
    idle                       share of (example, unit) without slope
    saturation                 ‖∂pattern/∂scores‖ (Frobenius) of each head, mean over queries: near 0 where the softmax
                               has made up its mind and passes no gradient on; at most ½, at two equal keys
    frequency                  ‖∂W_E‖ at each frequency of the first `period` tokens, taken as a cycle

Saturation ∂A_i/∂s_j = A_i ([i = j] − A_j), so its squared norm is Σ A² − 2 Σ A³ + (Σ A²)².

Source    Effective rank: Roy & Vetterli 2007 (EUSIPCO). Stable rank: Rudelson & Vershynin 2007, arXiv:math/0503442.
          Dashboards of this kind: Schneider, Dangel & Hennig 2021, Cockpit, arXiv:2102.06604.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import Array, flatten
from ..errors import BadInput
from . import gates
from .journal import Journal, Schedule

__all__ = ["Flow", "by_frequency", "cosines", "norms", "rank", "saturation"]

KEPT = 16  # singular values


class Flow(Journal):
    """period: how many of the first tokens are a cycle (p); None: the gradient is not split by frequency."""

    FILE = "flow.jsonl"

    def __init__(
        self, objective: Any, *, every: Schedule = "log", period: int | None = None, path: Path | str | None = None
    ) -> None:
        super().__init__(every, path)
        vocab = objective.model.vocab_size
        if period is not None and not 2 <= period <= vocab:
            raise BadInput(f"the period counts tokens that are a cycle: allowed 2 to {vocab}, received {period}")
        self.objective, self.period, self.previous = objective, period, None

    def see(self, step: Any) -> None:
        super().see(step)
        self.previous = step.gradient

    def measure(self, step: Any) -> dict[str, Any]:
        gradient, before, after = (flatten(tree) for tree in (step.gradient, step.before.params, step.after.params))
        found: dict[str, Any] = {
            "gradient": norms(gradient),
            "update": norms({name: after[name] - before[name] for name in before}),
            "weight": norms(before),
            "ranks": {name: rank(matrix) for name, x in before.items() if (matrix := _matrix(name, x)) is not None},
        }
        if self.previous is not None:
            found["alignment"] = cosines(gradient, flatten(self.previous))
        found |= self._forward(step.before.params, step.batch)
        table = next(name for name in reversed(gradient) if name.endswith("embed.W_E"))
        if self.period is not None:
            found["frequency"] = [float(x) for x in by_frequency(gradient[table][: self.period])]
        return found

    def _forward(self, params: Any, batch: Any) -> dict[str, Any]:
        """What the forward pass tells: one pass, of which two kinds of values are looked at."""
        dead, idle, saturated = {}, {}, {}

        def look(name: str, x: Array) -> Array:
            if name.endswith("hook_pre") and self.objective.model.activation == "relu":
                off = (x <= 0).reshape(-1, x.shape[-1])
                block = name.removesuffix(".mlp.hook_pre")
                dead[block], idle[block] = float(off.all(axis=0).mean()), float(off.mean())
            elif name.endswith("hook_pattern"):
                saturated[name.removesuffix(".hook_pattern")] = [float(h) for h in saturation(x)]
            return x

        gates.forward(params, batch, self.objective.model, look)
        return {"dead": dead, "idle": idle, "saturation": saturated}


def norms(tensors: dict[str, Array]) -> dict[str, float]:
    """The length of each tensor, added up in float64."""
    return {name: float(np.sqrt(np.sum(np.square(x, dtype=np.float64)))) for name, x in tensors.items()}


def cosines(a: dict[str, Array], b: dict[str, Array]) -> dict[str, float]:
    """⟨a, b⟩/‖a‖‖b‖ tensor by tensor, and of all as one vector; 0 where one of them is zero."""
    products = {name: float(np.sum(np.multiply(a[name], b[name], dtype=np.float64))) for name in a}
    one, two = norms(a), norms(b)
    products["all"] = sum(products.values())
    for sizes in (one, two):
        sizes["all"] = float(np.sqrt(sum(x * x for x in sizes.values())))
    return {name: x / (one[name] * two[name]) if one[name] and two[name] else 0.0 for name, x in products.items()}


def saturation(pattern: Array) -> Array:
    """pattern [B H T S] -> ‖∂pattern/∂scores‖ [H], mean over examples and queries."""
    square, cube = np.sum(pattern**2, axis=-1), np.sum(pattern**3, axis=-1)
    return np.sqrt(np.maximum(square - 2 * cube + square**2, 0.0)).mean(axis=(0, 2), dtype=np.float64)


def rank(matrix: Array) -> dict[str, Any]:
    """Stable and effective rank, and the largest singular values; ranks of a zero matrix are 0."""
    s = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    share = s[s > 0] / max(s.sum(), 1e-300)
    return {
        "stable": float(np.sum(s * s) / s[0] ** 2) if s[0] else 0.0,
        "effective": float(np.exp(-np.sum(share * np.log(share)))) if s[0] else 0.0,
        "singular": [float(x) for x in s[:KEPT]],
    }


def _matrix(name: str, x: Array) -> Array | None:
    """A weight as the map that it is: heads side by side; None for vectors."""
    if not name.rpartition(".")[2].startswith("W_") or x.ndim < 2:
        return None
    if x.ndim == 3:
        return x.reshape(-1, x.shape[2]) if name.endswith("W_O") else x.transpose(1, 0, 2).reshape(x.shape[1], -1)
    return x


def by_frequency(table: Array) -> Array:
    """table [p D] -> the norm of its part at each frequency 0..p//2; the squares add up to ‖table‖²."""
    p = len(table)
    square = np.sum(np.abs(np.fft.rfft(table.astype(np.float64), axis=0)) ** 2, axis=1) / p
    twice = np.full(len(square), 2.0)
    twice[0] = 1.0
    if p % 2 == 0:
        twice[-1] = 1.0
    return np.sqrt(twice * square)
