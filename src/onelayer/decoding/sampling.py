"""Sampling: a token is drawn by its probability, after the distribution has been sharpened or its tail cut off.

Shapes    log P [R V], of R answers' next token

Shape     temperature τ   P ∝ P^(1/τ): below 1 sharper, above 1 flatter
          top_k           only the k likeliest are left
          top_p (nucleus) only the fewest likeliest whose P, as it then is, sum to p or more; at least one
          in this order; what is left is scaled to sum to 1.

Draw      The tokens stand in a row, the likeliest first; u in [0, 1) falls on one of them.
          u is keyed by the seed, the source and the place, never by where in a batch the source stands: the same
          source gets the same answer, whatever else is being decoded. Where a source is given several times, the
          draws of each differ.

Source    top-k: Fan, Lewis & Dauphin 2018, arXiv:1805.04833, section 5.1; nucleus: Holtzman et al. 2019,
          arXiv:1904.09751, section 3.1.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ..arrays import generator
from .one_by_one import Choose

__all__ = ["drawn", "draws", "shaped"]


def draws(sources: Sequence[Sequence[int]], n: int, seed: int) -> Float[np.ndarray, "N n"]:
    """u for each source and each of n places."""
    times: dict[str, int] = {}
    rows = np.empty((len(sources), n))
    for i, source in enumerate(sources):
        name = ",".join(map(str, source))
        times[name] = times.get(name, 0) + 1
        rows[i] = generator(seed, "decoding", times[name], name).random(n)
    return rows


def shaped(
    log_p: Float[np.ndarray, "R V"], temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> tuple[Int[np.ndarray, "R V"], Float[np.ndarray, "R V"]]:
    """Each row's tokens, the likeliest first, and the probability of each: 0 where it was cut off."""
    order = np.argsort(-log_p, axis=1, kind="stable")
    z = np.take_along_axis(log_p, order, axis=1).astype(np.float64) / temperature
    p = np.exp(z - z[:, :1])
    if top_k is not None:
        p[:, top_k:] = 0
    p /= p.sum(axis=1, keepdims=True)
    if top_p is not None:
        before = np.cumsum(p, axis=1) - p
        p[:, 1:][before[:, 1:] >= top_p] = 0
        p /= p.sum(axis=1, keepdims=True)
    return order, p


def drawn(
    u: Float[np.ndarray, "N n"], temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Choose:
    """The choice that falls where u says."""

    def choose(log_p: np.ndarray, which: np.ndarray, t: int) -> np.ndarray:
        order, p = shaped(log_p, temperature, top_k, top_p)
        reached = np.cumsum(p, axis=1)
        place = (reached <= u[which, t, None] * reached[:, -1:]).sum(axis=1)
        return order[np.arange(len(order)), np.minimum(place, (p > 0).sum(axis=1) - 1)]

    return choose
