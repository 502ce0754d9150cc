"""What a positional encoding does, as arrays: the data behind every picture of it. Pure functions.

    added          [position, dimension]     what it adds to an embedding
    turned         [position, dimension]     what it makes of a query of ones (a head's)
    bias           [head, query, key]        what it adds to a score; NaN where the query may not look
    gram           [position, position]      how like two places are: P_t · P_s/D of what is added, or the score of one
                                             and the same query and key (of length 1) once they stand at t and s
    spectrum       [frequency, dimension]    |FFT| over the positions of added or turned, the mean taken off
    singular       [rank]                    singular values of the same
    by_offset      of gram or bias           against the offset t − s: mean, lowest, highest of the pairs

A method has the pictures of the stages at which it acts. Methods that look at queries and keys are shown vectors of
length 1, all features alike.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..arrays import generator, natural
from ..errors import BadInput
from ..positions import Method, Places, Size

__all__ = ["ByOffset", "added", "bias", "bits", "by_offset", "draw", "gram", "pictures", "spectrum", "turned"]

POSITIONS = 50
MOST = 512  # positions: a picture of more would not be seen, and a page would not be sent


class ByOffset(NamedTuple):
    offsets: np.ndarray  # −(n−1) … n−1, those that occur
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def draw(method: Method, size: Size, seed: int = 0) -> Any:
    """The method's parameters before training; None where it has none."""
    return method.init(generator(seed, "position picture"), size)


def pictures(method: Method, params: Any, size: Size, n: int = POSITIONS) -> dict[str, Any]:
    """name -> array (by_offset: a ByOffset), those that the method has."""
    if not 2 <= n <= MOST:
        raise BadInput(f"a picture shows 2 to {MOST} positions; received {n}")
    found: dict[str, Any] = {}
    for name, table in (("added", added(method, params, size, n)), ("turned", turned(method, params, size, n))):
        if table is not None:
            found[name] = table
    if found:
        table = next(iter(found.values()))
        found["gram"] = gram(method, params, size, n)
        found["spectrum"] = spectrum(table)
        found["singular"] = np.linalg.svd(table, compute_uv=False)
    if method.has("score"):
        found["bias"] = bias(method, params, size, n)
    for name in ("gram", "bias"):
        if name in found:
            found[f"{name}_by_offset"] = by_offset(found[name])
    return found


def as_facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same as plain mappings of arrays, for JSON."""
    return {name: value._asdict() if isinstance(value, ByOffset) else value for name, value in found.items()}


def added(method: Method, params: Any, size: Size, n: int) -> np.ndarray | None:
    """[position, dimension]; None where it does not act on the embedding. A table shows as many rows as it has."""
    if not method.has("embedding"):
        return None
    rows = min(n, params.W_pos.shape[0]) if hasattr(params, "W_pos") else n
    table, _ = method.encode_x(params, np.zeros((1, rows, size.d_model)), natural(rows))
    return table[0]


def turned(method: Method, params: Any, size: Size, n: int) -> np.ndarray | None:
    """[position, dimension of a head]; None where it does not act on queries and keys."""
    if not method.has("query_key"):
        return None
    q, _ = _turn(method, params, np.ones((1, n, size.n_heads, size.d_head)))
    return q[0, :, 0]


def gram(method: Method, params: Any, size: Size, n: int) -> np.ndarray:
    """[position, position]; of the embedding where the method acts there, else of queries and keys."""
    table = added(method, params, size, n)
    if table is not None:
        return table @ table.T / size.d_model
    q, k = _turn(method, params, _unit(1, n, size.n_heads, size.d_head))
    return q[0, :, 0] @ k[0, :, 0].T


def bias(method: Method, params: Any, size: Size, n: int) -> np.ndarray:
    """[head, query, key]."""
    q, x = _unit(1, n, size.n_heads, size.d_head), _unit(1, n, size.d_model)
    mask = np.tril(np.ones((n, n), dtype=bool)) if size.causal else np.ones((n, n), dtype=bool)
    values, _ = method.bias(params, q, q, x, x, Places(natural(n), natural(n), mask, size.causal))
    return np.where(mask, np.broadcast_to(values, (1, size.n_heads, n, n))[0], np.nan)


def spectrum(table: np.ndarray) -> np.ndarray:
    """[frequency, dimension]: row f is f cycles over all the positions."""
    return np.abs(np.fft.rfft(table - table.mean(axis=0), axis=0))


def by_offset(values: np.ndarray) -> ByOffset:
    """values [..., t, s] -> each of mean, low, high [..., offset]; NaN in values is left out."""
    t, s = values.shape[-2:]
    offsets = np.arange(-s + 1, t)
    diagonals = [np.diagonal(values, -int(r), axis1=-2, axis2=-1) for r in offsets]
    seen = [i for i, d in enumerate(diagonals) if np.all(np.any(np.isfinite(d), axis=-1))]
    parts = [np.stack([f(diagonals[i], axis=-1) for i in seen], axis=-1) for f in (np.nanmean, np.nanmin, np.nanmax)]
    return ByOffset(offsets[seen], *parts)


def bits(n: int, width: int) -> np.ndarray:
    """[position, bit] of 0 and 1, the bit that alternates fastest first."""
    return natural(n)[:, None] >> np.arange(width) & 1


def _turn(method: Method, params: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids = natural(x.shape[1])
    q, k, _ = method.encode_qk(params, x, x, Places(ids, ids, None))
    return q, k


def _unit(*shape: int) -> np.ndarray:
    """Vectors of length 1, all features alike."""
    return np.full(shape, shape[-1] ** -0.5)
