"""Kernels of layers/cross_entropy.py: the loss and, in the same pass, ∂logits; no one-hot rows are built. And of the
scores of an evaluation (training/objective.py).

For the softmax, in the logits' precision or in float64, with or without label smoothing: with ε/n on each of the n
classes that may occur, −Σ q log P = log Σ e^z − (1 − ε) z_y − ε/n Σ z. Rows without weight (padding) are passed over.
All else stays with the definition.
"""

from typing import Any, NamedTuple

import numpy as np

from .compile import compiled, exp, fits, spread
from .softmax import LANES, largest


class Cache(NamedTuple):
    dlogits: Any


@compiled
def _forward(first, part, z, targets, weights, losses, dz, temperature, right, each, never):
    zero, lanes = z.dtype.type(0), np.empty(LANES, z.dtype)
    for i in range(z.shape[0]):
        w = weights[i]
        if w == 0:
            losses[i] = zero
            for j in range(z.shape[1]):
                dz[i, j] = zero
            continue
        top = largest(z[i], lanes)
        total, spread = zero, zero
        for j in range(z.shape[1]):
            low = (z[i, j] - top) / temperature
            spread += low
            e = exp(low)
            dz[i, j] = e
            total += e
        if never >= 0:
            spread -= (z[i, never] - top) / temperature
        losses[i] = w * (np.log(total) - right * (z[i, targets[i]] - top) / temperature - each * spread)
        factor, less = w / (total * temperature), w * each / temperature
        for j in range(z.shape[1]):
            dz[i, j] = dz[i, j] * factor - less
        if never >= 0:
            dz[i, never] += less
        dz[i, targets[i]] -= w * right / temperature


def forward(
    definition: Any, logits: Any, targets: Any, weights: Any = None, *,
    smoothing: float = 0.0, never: int | None = None, temperature: float = 1.0, variant: str = "softmax",
) -> Any:  # fmt: skip
    V = logits.shape[-1]
    classes = V if never is None else V - 1
    plain = variant in ("softmax", "float64") and logits.size > 0 and classes > 0 and 0 <= (never or 0) < V
    if not plain or not fits(logits) or not isinstance(targets, np.ndarray):
        return definition(
            logits, targets, weights, smoothing=smoothing, never=never, temperature=temperature, variant=variant
        )
    kind = np.dtype(np.float64) if variant == "float64" else logits.dtype
    z, wanted = logits.astype(kind, copy=False).reshape(-1, V), np.ascontiguousarray(targets).reshape(-1)
    if wanted.min() < 0 or wanted.max() >= V:  # no class: the definition gives it no mass
        return definition(
            logits, targets, weights, smoothing=smoothing, never=never, temperature=temperature, variant=variant
        )
    w = np.ones(wanted.shape, kind) if weights is None else np.asarray(weights, kind).reshape(-1)
    losses, dz = np.empty(wanted.shape, kind), np.empty_like(z)
    numbers = (kind.type(temperature), kind.type(1 - smoothing), kind.type(smoothing / classes))
    place = -1 if never is None or smoothing == 0.0 else never
    spread(_forward, z.size, (z, wanted, w / w.sum(), losses, dz), (*numbers, place))
    return losses.sum(), Cache(dz.reshape(logits.shape))


def backward(definition: Any, c: Any) -> Any:
    return c.dlogits if isinstance(c, Cache) else definition(c)


@compiled
def _surprises(first, part, rows, targets, surprise, hit):
    lanes = np.empty(LANES, rows.dtype)
    for i in range(rows.shape[0]):
        row, right, total = rows[i], rows[i, targets[i]], rows.dtype.type(0)
        top = largest(row, lanes)
        for j in range(row.size):
            total += exp(row[j] - top)
        surprise[i] = np.log(total) + (top - right)
        before = 0  # of several that are expected most, the first is what is said
        if right == top:
            for j in range(targets[i]):
                before += row[j] == top
        hit[i] = right == top and before == 0


def surprises(definition: Any, rows: Any, targets: Any) -> Any:
    """Where a logit is no number, the definition says what is said."""
    plain = fits(rows) and rows.size > 0 and isinstance(targets, np.ndarray) and np.isfinite(rows.sum())
    if not plain or targets.min() < 0 or targets.max() >= rows.shape[1]:
        return definition(rows, targets)
    surprise, hit = np.empty(len(rows), rows.dtype), np.empty(len(rows), bool)
    spread(_surprises, rows.size, (rows, np.ascontiguousarray(targets), surprise, hit))
    return surprise, hit


KERNELS = {
    "training.objective.surprises": surprises,
    "layers.cross_entropy.forward": forward,
    "layers.cross_entropy.backward": backward,
}
