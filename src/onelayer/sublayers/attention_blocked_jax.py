"""The blocks of `attention_blocked` as a loop that JAX compiles once, where Python's loops would be written out.

Shapes    n blocks of t queries, N blocks of s keys     q z [n B H t K]     k v [N B H s K]     m l L δ [n B H t 1]
          t and s are BLOCK, or what is needed of it for equal blocks; what is then missing at the end is padding:
          keys that no one may see, and queries with L = ∞, whose pattern e^(s − L) is 0.

Loop      over the pairs (i, j) in which a query of block i may see a key of block j; they are known beforehand.
          Forward, m, l and z of all queries are carried along, and a pair reads and writes those of block i.
          Backward, so are the sums of all gradients: of queries at i, of keys at j.

Mask      [T S] is not held here either. Where queries look back only it is the triangle, made anew for each pair, less
          the padding, which the last row tells: the last query may see all keys that are there.

Why       Written out, (T/BLOCK)² blocks take long to compile, and XLA holds many of them at once: what the backward
          makes anew it finds in the forward, and keeps it.

Source    That of `attention_blocked`, whose functions are the maths. Every step: docs/derivations/attention_blocked.md
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Inexact

from ..arrays import Array
from ..positions import Method, Places
from . import attention_blocked
from .attention_blocked import Cache, Sent, look, looks_back, send_back, settle


def look_at_all(c: Cache, position: Method) -> tuple[Inexact[Array, "B H T K"], Inexact[Array, "B H T 1"]]:
    B, H, T, _ = c.q.shape
    n, t = _parts(T)
    block_at = _blocks(c)

    def one(sums: Any, pair: Any) -> tuple[Any, None]:
        i, j = pair
        m, total, z = _at(sums, i)
        return _put(sums, i, look(block_at(i, j), m, total, z, position)), None

    z = jnp.zeros((n, B, H, t, c.v.shape[-1]), c.q.dtype)
    start = jnp.full_like(z[..., :1], -jnp.inf), z[..., :1], z
    sums, _ = jax.lax.scan(one, start, _pairs(c))
    z, L = settle(*sums)
    return _joined(z, T, axis=2), _joined(L, T, axis=2)


def send_all_back(dz: Inexact[Array, "B H T K"], delta: Inexact[Array, "B H T 1"], c: Cache, position: Method) -> Sent:
    T, S = c.q.shape[2], c.k.shape[2]
    block_at = _blocks(c)
    given = _stacked(dz, 2), _stacked(delta, 2)

    def sent(i: Any, j: Any) -> Sent:
        dz, delta = _at(given, i)
        return send_back(dz, delta, block_at(i, j), position)

    def one(sums: Sent, pair: Any) -> tuple[Sent, None]:
        i, j = pair
        more = sent(i, j)
        queries = _put(sums.queries, i, _plus(_at(sums.queries, i), more.queries))
        keys = _put(sums.keys, j, _plus(_at(sums.keys, j), more.keys))
        return Sent(queries, keys, _plus(sums.pos, more.pos)), None

    queries, keys, pos = jax.eval_shape(sent, 0, 0)
    start = Sent(_zeros(queries, _parts(T)[0]), _zeros(keys, _parts(S)[0]), _zeros(pos))
    sums, _ = jax.lax.scan(one, start, _pairs(c))
    queries = jax.tree.map(lambda a: _joined(a, T, axis=1), sums.queries)
    keys = jax.tree.map(lambda a: _joined(a, S, axis=1), sums.keys)
    return Sent(queries, keys, sums.pos)


# ------------------------------------------------------------------------------------------ blocks


def _parts(length: int) -> tuple[int, int]:
    """How many blocks, and of which size."""
    n = -(-length // attention_blocked.BLOCK)
    return n, -(-length // n)


def _pairs(c: Cache) -> np.ndarray:
    """Which blocks of queries and keys meet [pairs 2]."""
    T, S = c.q.shape[2], c.k.shape[2]
    (n, t), (N, s) = _parts(T), _parts(S)
    seen = [S - T + min((i + 1) * t, T) if looks_back(c.places) else S for i in range(n)]
    return np.asarray([(i, j) for i in range(n) for j in range(N) if j * s < seen[i]], np.int32)


def _blocks(c: Cache) -> Callable[[Any, Any], Cache]:
    """A function of i and j: `c` cut down to queries i and keys j."""
    L = None if c.L is None else _stacked(c.L, 2, fill=jnp.inf)
    queries = _stacked(c.q, 2), _stacked(c.plain[0], 1), _stacked(c.x_q, 1), _stacked(c.places.q_ids, -1), L
    keys = _stacked(c.k, 2), _stacked(c.plain[1], 1), _stacked(c.x_k, 1), _stacked(c.places.k_ids, -1), _stacked(c.v, 2)
    allowed = _allowed(c)

    def block_at(i: Any, j: Any) -> Cache:
        (q, plain_q, x_q, q_ids, L), (k, plain_k, x_k, k_ids, v) = _at(queries, i), _at(keys, j)
        places = Places(q_ids, k_ids, allowed(i, j), c.places.causal)
        return Cache(c.p, x_q, x_k, places, (plain_q, plain_k), q, k, v, L=L)

    return block_at


def _allowed(c: Cache) -> Callable[[Any, Any], Any]:
    """A function of i and j: the block's part of the mask; None where all of it may be seen."""
    T, S = c.q.shape[2], c.k.shape[2]
    (_, t), (N, s) = _parts(T), _parts(S)
    mask, back = c.places.mask, looks_back(c.places)
    if mask is None:
        if N * s == S:
            return lambda i, j: None
        mask = np.ones((1, 1, 1, S), bool)
    columns = _stacked(mask[:, :, -1:, :] if back else mask, 3, fill=False)
    by_row = columns.shape[3] > 1
    rows = _stacked(columns, 3, fill=False) if by_row else columns

    def allowed(i: Any, j: Any) -> Any:
        part = _at(_at(rows, i) if by_row else rows, j)
        query, key = S - T + i * t + np.arange(t), j * s + np.arange(s)
        return part & (query[:, None] >= key[None, :]) if back else part

    return allowed


def _stacked(x: Array, axis: int, fill: Any = 0) -> Array:
    """An axis cut into whole blocks, with padding at its end: they are the new first axis."""
    axis %= x.ndim
    n, size = _parts(x.shape[axis])
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, n * size - x.shape[axis])
    x = jnp.pad(x, padding, constant_values=fill)
    return jnp.moveaxis(jnp.reshape(x, (*x.shape[:axis], n, size, *x.shape[axis + 1 :])), axis, 0)


def _joined(x: Array, length: int, axis: int) -> Array:
    """Its inverse."""
    x = jnp.moveaxis(x, 0, axis)
    x = jnp.reshape(x, (*x.shape[:axis], -1, *x.shape[axis + 2 :]))
    return jax.lax.slice_in_dim(x, 0, length, axis=axis)


def _at(stacked: Any, i: Any) -> Any:
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), stacked)


def _put(stacked: Any, i: Any, block: Any) -> Any:
    return jax.tree.map(lambda a, b: jax.lax.dynamic_update_index_in_dim(a, b, i, 0), stacked, block)


def _plus(sums: Any, more: Any) -> Any:
    return jax.tree.map(jnp.add, sums, more)


def _zeros(like: Any, *blocks: int) -> Any:
    return jax.tree.map(lambda a: jnp.zeros((*blocks, *a.shape), a.dtype), like)
