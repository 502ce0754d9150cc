"""Forget gates (FoX): each token says how much of what came before it is kept, head by head; the far is kept least.

Shapes    x_k [B S D]     w [H D]     b [H]     a f C [B H S]     bias [B H T S]

Forward   a_u = w x_u + b       f_u = σ(a_u), the share that is kept      C_s = Σ_(u ≤ s) ln f_u
          bias[t, s] = Σ_(u = s+1..t) ln f_u = C_t − C_s
          Where a query may look ahead: C_s − C_t for s > t, the same sum over the tokens between the two (our reading,
          for the paper looks back only). Ids are not looked at.

Backward  ∂a is ∂loss/∂a; d = ∂bias, its sign turned where s > t
          ∂C_t = Σ_s d[t, s] as a query, −Σ_t d[t, s] as a key      ∂ln f_u = Σ_(s ≥ u) ∂C_s, a running sum from the end
          ∂a = ∂ln f σ(−a)      ∂w = Σ ∂a x      ∂b = Σ ∂a      ∂x += wᵀ ∂a

Constants open: b at the start, 5 (f = 0.993: nearly nothing is forgotten); w starts as N(0, 1/D).
Source    Lin et al. 2025, arXiv:2503.02130. Every step: docs/derivations/positions.md
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, constant, scatter_add_rows, sigmoid, softplus, sum_to
from . import Felt

CROSSES = False
RELATIVE = True
EXTRAPOLATES = "yes"
COST = "H T S"


class Params(NamedTuple):
    w: Array  # [H, D]
    b: Array  # [H]


class Cache(NamedTuple):
    w: Array
    x: Array  # [B, S, D]
    a: Array  # [B, H, S]
    sign: Array | None  # −1 where a query looks ahead [T, S]; None: none does
    at: Array  # int [T]: which key each query is


def init(rng: np.random.Generator, size: Any, *, open: float = 5.0) -> Params:
    H, D = size.n_heads, size.d_model
    return Params(w=D**-0.5 * rng.standard_normal((H, D)), b=np.full(H, float(open)))


def bias(p: Params, q: Array, k: Array, x_q: Array, x_k: Array, places: Any, *, open: float) -> tuple[Array, Cache]:
    xp = array_namespace(q)
    T, S = q.shape[1], k.shape[1]
    first = S - T if places.first is None else places.first
    a = p.w @ xp.matrix_transpose(x_k) + p.b[:, None]
    C = xp.cumulative_sum(-softplus(-a), axis=-1)
    at = xp.asarray(first + np.arange(T))
    forgotten = xp.take(C, at, axis=-1)[..., None] - C[..., None, :]
    sign = None
    if not places.causal:
        ahead = np.arange(S)[None, :] > (first + np.arange(T))[:, None]
        sign = constant(np.where(ahead, -1.0, 1.0), q)
        forgotten = sign * forgotten
    return forgotten, Cache(p.w, x_k, a, sign, at)


def bias_backward(dbias: Array, c: Cache, *, open: float) -> tuple[Felt, Params]:
    xp = array_namespace(dbias)
    d = dbias if c.sign is None else dbias * c.sign
    as_query = scatter_add_rows(xp.permute_dims(xp.sum(d, axis=-1), (2, 0, 1)), c.at, d.shape[3])
    dC = xp.permute_dims(as_query, (1, 2, 0)) - xp.sum(d, axis=-2)
    dlog = xp.flip(xp.cumulative_sum(xp.flip(dC, axis=-1), axis=-1), axis=-1)
    da = dlog * sigmoid(-c.a)
    dparams = Params(w=xp.tensordot(da, c.x, axes=((0, 2), (0, 1))), b=sum_to(da, (c.w.shape[0], 1))[:, 0])
    return Felt(x_k=xp.matrix_transpose(da) @ c.w), dparams
