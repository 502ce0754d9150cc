"""Kernels of layers/cross_entropy.py: the loss and, in the same pass, ∂logits; no one-hot rows are built.

For the softmax (in the logits' precision or in float64) without label smoothing; all else stays with the definition.
"""

from typing import Any, NamedTuple

import numpy as np

from .compile import compiled, exp, fits, spread


class Cache(NamedTuple):
    dlogits: Any


@compiled
def _forward(first, part, z, targets, weights, losses, dz, temperature):
    for i in range(z.shape[0]):
        top = z[i, 0]
        for j in range(z.shape[1]):
            top = z[i, j] if z[i, j] > top else top
        total = top * 0
        for j in range(z.shape[1]):
            e = exp((z[i, j] - top) / temperature)
            dz[i, j] = e
            total += e
        losses[i] = weights[i] * (np.log(total) - (z[i, targets[i]] - top) / temperature)
        factor = weights[i] / (total * temperature)
        for j in range(z.shape[1]):
            dz[i, j] *= factor
        dz[i, targets[i]] -= weights[i] / temperature


def forward(
    definition: Any, logits: Any, targets: Any, weights: Any = None, *,
    smoothing: float = 0.0, never: int | None = None, temperature: float = 1.0, variant: str = "softmax",
) -> Any:  # fmt: skip
    plain = smoothing == 0.0 and variant in ("softmax", "float64") and logits.size > 0
    if not plain or not fits(logits) or not isinstance(targets, np.ndarray):
        return definition(
            logits, targets, weights, smoothing=smoothing, never=never, temperature=temperature, variant=variant
        )
    V, kind = logits.shape[-1], np.dtype(np.float64) if variant == "float64" else logits.dtype
    z, wanted = logits.astype(kind, copy=False).reshape(-1, V), np.ascontiguousarray(targets).reshape(-1)
    if wanted.min() < 0 or wanted.max() >= V:  # no class: the definition gives it no mass
        return definition(logits, targets, weights, temperature=temperature, variant=variant)
    w = np.ones(wanted.shape, kind) if weights is None else np.asarray(weights, kind).reshape(-1)
    losses, dz = np.empty(wanted.shape, kind), np.empty_like(z)
    spread(_forward, z.size, (z, wanted, w / w.sum(), losses, dz), (kind.type(temperature),))
    return losses.sum(), Cache(dz.reshape(logits.shape))


def backward(definition: Any, c: Any) -> Any:
    return c.dlogits if isinstance(c, Cache) else definition(c)


KERNELS = {"layers.cross_entropy.forward": forward, "layers.cross_entropy.backward": backward}
