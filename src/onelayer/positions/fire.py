"""FIRE: a small network reads how far away a key stands, as a share of how far away it could stand.

Shapes    ids t [T] or [B T], s [S] or [B S]     r, m, u [*T S]     W_in b_in [M]     W_out [M H]     log_c log_L [1]
          bias [H T S] or [B H T S]

Forward   u = ln(1 + c r) / ln(1 + c max(L, m))      r = |t − s|      m = max(t, s), which is t where queries look back
          b[h, t, s] = Σ_j W_out[j, h] relu(W_in[j] u + b_in[j])
          u stays within 0..1 at any length, so a longer sequence asks nothing new of the network. Up to L the
          denominator is constant and the bias is relative. With L far above the training length u is never stretched,
          and nothing is interpolated: set L to about that length.
          c = e^log_c and L = e^log_L stay positive. An output bias would be the same for a whole row, which softmax
          does not feel, so there is none.

Backward  ∂a is ∂loss/∂a; Σ runs over all pairs (and examples); n = max(L, m), g = ln(1 + c r), e = ln(1 + c n)
          ∂W_out = Σ relu(·) ∂b      ∂pre = (W_out ∂b) [pre > 0]      ∂W_in = Σ u ∂pre      ∂b_in = Σ ∂pre
          ∂u = Σ_j W_in ∂pre         ∂g = ∂u/e                        ∂e = −∂u u/e
          ∂c = Σ ∂g r/(1 + c r) + ∂e n/(1 + c n)      ∂L = Σ_(m ≤ L) ∂e c/(1 + c L)      ∂log_c = c ∂c, ∂log_L = L ∂L

Constants hidden M = 32; start_c 0.1; length 512, the first L: made for thousands of tokens, give it the training n.
Source    Li et al. 2023, arXiv:2310.04418 (c and L learnt; the paper looks back only: |t − s| and max(t, s) are our
          reading where a query looks ahead). Every step: docs/derivations/positions.md
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, array_namespace, real_part, sum_to
from ..errors import BadInput
from . import as_float, offset

CROSSES = False
EXTRAPOLATES = "yes"
PAIRWISE = True
COST = "M H T S"


class Params(NamedTuple):
    W_in: Array  # [M]
    b_in: Array  # [M]
    W_out: Array  # [M, H]
    log_c: Array  # [1]
    log_L: Array  # [1]


class Cache(NamedTuple):
    p: Params
    r: Array  # [*, T, S]
    m: Array  # [*, T, S]
    u: Array  # [*, T, S]
    hidden: Array  # [*, T, S, M]


def init(
    rng: np.random.Generator, size: Any, *, hidden: int = 32, start_c: float = 0.1, length: float = 512.0
) -> Params:
    bound = hidden**-0.5
    return Params(
        W_in=rng.uniform(-1, 1, hidden),
        b_in=rng.uniform(-1, 1, hidden),
        W_out=rng.uniform(-bound, bound, (hidden, size.n_heads)),
        log_c=np.asarray([math.log(start_c)]),
        log_L=np.asarray([math.log(length)]),
    )


def fitted(n: int) -> dict[str, Any]:
    return {"length": float(max(n, 1))}


def check(size: Any, *, hidden: int, start_c: float, length: float) -> None:
    for name, value in (("hidden", hidden), ("start_c", start_c), ("length", length)):
        if not value > 0:
            raise BadInput(f"{name} of fire must be greater than 0; received {value}")


def bias(
    p: Params, q: Array, k: Array, x_q: Array, x_k: Array, places: Any, *, hidden: int, start_c: float, length: float
) -> tuple[Array, Cache]:
    xp = array_namespace(q)
    r = xp.abs(as_float(offset(places), q))
    m = as_float(_furthest(places), q)
    scale, n = xp.exp(p.log_c), _at_least(m, xp.exp(p.log_L))
    u = xp.log1p(scale * r) / xp.log1p(scale * n)
    pre = u[..., None] * p.W_in + p.b_in
    h = xp.where(real_part(pre) > 0, pre, xp.asarray(0, dtype=pre.dtype))
    b = h @ p.W_out
    return (xp.permute_dims(b, (2, 0, 1)) if b.ndim == 3 else xp.permute_dims(b, (0, 3, 1, 2))), Cache(p, r, m, u, h)


def bias_backward(dbias: Array, c: Cache, *, hidden: int, length: float, **_: float) -> tuple[None, Params]:
    xp, p = array_namespace(dbias), c.p
    same = c.u.ndim == 2  # for every example
    db = xp.permute_dims(xp.sum(dbias, axis=0), (1, 2, 0)) if same else xp.permute_dims(dbias, (0, 2, 3, 1))
    rows_b, rows_h = xp.reshape(db, (-1, db.shape[-1])), xp.reshape(c.hidden, (-1, c.hidden.shape[-1]))
    dpre = xp.where(real_part(rows_h) > 0, rows_b @ p.W_out.T, xp.asarray(0, dtype=rows_b.dtype))
    u = xp.reshape(c.u, (-1,))
    du = xp.reshape(dpre @ p.W_in, c.u.shape)

    scale, L = xp.exp(p.log_c), xp.exp(p.log_L)
    n = _at_least(c.m, L)
    e = xp.log1p(scale * n)
    dg, de = du / e, -du * c.u / e
    dc = sum_to(dg * c.r / (1 + scale * c.r) + de * n / (1 + scale * n), (1,))
    near = real_part(c.m) <= real_part(L)
    dL = sum_to(xp.where(near, de * scale / (1 + scale * n), xp.zeros_like(de)), (1,))
    return None, Params(
        W_in=u @ dpre, b_in=sum_to(dpre, p.b_in.shape), W_out=rows_h.T @ rows_b, log_c=scale * dc, log_L=L * dL
    )


def _furthest(places: Any) -> Array:
    """max(t, s), as integers [*, T, S]."""
    t, s = places.q_ids[..., :, None], places.k_ids[..., None, :]
    return array_namespace(offset(places)).where(t > s, t, s)


def _at_least(m: Array, L: Array) -> Array:
    xp = array_namespace(L)
    return xp.where(m > real_part(L), m, L)
