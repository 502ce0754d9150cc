"""Multi-head attention: each position asks (q) and answers (k); what is fetched (v) is mixed by how well these match.

Shapes    x_q [B T D]: who asks     x_k [B S D]: who is asked (the same, for self-attention)     out [B T D]
          W_Q W_K W_V [H D K]     W_O [H K D]     b_Q b_K b_V [H K] and b_O [D], or None
          q z [B T H K]     k v [B S H K]     scores, pattern A [B H T S]     mask: bool, broadcasts to [B 1 T S]

Forward   q = x_q W_Q + b_Q      k = x_k W_K + b_K      v = x_k W_V + b_V           per head
          scores = q kᵀ/√K       A = softmax(scores) over the allowed keys          (a row with none is all zero)
          z = A v                out = Σ_h z_h W_O[h] + b_O
          A position method may turn q and k, add a bias to the scores, or take over the mixing of values.

Backward  ∂a is ∂loss/∂a; Σ runs over batch and positions
          ∂z = ∂out W_Oᵀ                 ∂W_O = Σ zᵀ ∂out             ∂b_O = Σ ∂out
          ∂A = ∂z vᵀ                     ∂v = Aᵀ ∂z
          ∂scores = A (∂A − Σ_S A ∂A)    ∂q = ∂scores k/√K            ∂k = ∂scoresᵀ q/√K
          ∂W_Q = Σ x_qᵀ ∂q, and so W_K, W_V with x_k                  ∂b_Q = Σ ∂q
          ∂x_q = Σ_h ∂q W_Qᵀ             ∂x_k = Σ_h (∂k W_Kᵀ + ∂v W_Vᵀ)
          Σ ∂b_K = 0 up to rounding: a constant added to all keys moves all scores of a row alike.

Taps      hook_q hook_k hook_v (before positions), hook_rot_q hook_rot_k (after), hook_bias, hook_attn_scores,
          hook_pattern, hook_z;
          in the backward the same names carry the gradients, and route_q route_k route_v what flows on into x,
          route_bias_q route_bias_k what a score bias that looks at x sends there.

Source    Vaswani et al. 2017, arXiv:1706.03762, section 3.2. Every step: docs/derivations/attention.md
"""

import math
from typing import Any, NamedTuple

from jaxtyping import Inexact

from ..arrays import Array, Tap, array_namespace, keep, map_tree, sum_to
from ..fused import fused
from ..layers import softmax
from ..positions import Felt, Method, Places


class Params(NamedTuple):
    W_Q: Inexact[Array, "H D K"]
    W_K: Inexact[Array, "H D K"]
    W_V: Inexact[Array, "H D K"]
    W_O: Inexact[Array, "H K D"]
    b_Q: Inexact[Array, "H K"] | None = None
    b_K: Inexact[Array, "H K"] | None = None
    b_V: Inexact[Array, "H K"] | None = None
    b_O: Inexact[Array, " D"] | None = None
    pos: Any = None  # what the position method learns here


class Cache(NamedTuple):
    p: Params
    x_q: Inexact[Array, "B T D"]
    x_k: Inexact[Array, "B S D"]
    q: Inexact[Array, "B T H K"]  # as multiplied: after the position method turned it
    k: Inexact[Array, "B S H K"]
    v: Inexact[Array, "B S H K"]
    z: Inexact[Array, "B T H K"]
    softmax: softmax.Cache
    encode_qk: Any
    bias: Any
    mix: Any


@fused
def forward(
    p: Params,
    x_q: Inexact[Array, "B T D"],
    x_k: Inexact[Array, "B S D"],
    places: Places,
    position: Method,
    tap: Tap = keep,
) -> tuple[Inexact[Array, "B T D"], Cache]:
    q = tap("hook_q", project(x_q, p.W_Q, p.b_Q))
    k = tap("hook_k", project(x_k, p.W_K, p.b_K))
    v = tap("hook_v", project(x_k, p.W_V, p.b_V))
    z, c = attend(p, q, k, v, x_q, x_k, places, position, tap)
    return join(z, p.W_O, p.b_O), c


def attend(
    p: Params, q: Array, k: Array, v: Array, x_q: Array, x_k: Array, places: Places, position: Method, tap: Tap = keep
) -> tuple[Inexact[Array, "B T H K"], Cache]:
    """From queries, keys and values to z; a decoder that keeps k, v and x_k from earlier tokens starts here."""
    scale = 1 / math.sqrt(q.shape[-1])
    q_turned, k_turned, c_turn = position.encode_qk(p.pos, q, k, places) if position.has("query_key") else (q, k, None)
    q_turned, k_turned = tap("hook_rot_q", q_turned), tap("hook_rot_k", k_turned)
    scores = by_head(scale * q_turned) @ transpose(by_head(k_turned))
    bias, c_bias = position.bias(p.pos, q, k, x_q, x_k, places) if position.has("score") else (None, None)
    if bias is not None:
        scores = scores + tap("hook_bias", bias)
    pattern, c_softmax = softmax.forward(tap("hook_attn_scores", scores), places.mask)
    pattern = tap("hook_pattern", pattern)
    c_softmax = softmax.Cache(pattern)
    if position.has("value"):
        z, c_mix = position.mix(p.pos, pattern, v, places)
    else:
        z, c_mix = by_head(pattern @ by_head(v)), None
    z = tap("hook_z", z)
    return z, Cache(p, x_q, x_k, q_turned, k_turned, v, z, c_softmax, c_turn, c_bias, c_mix)


@fused
def backward(
    dout: Inexact[Array, "B T D"], c: Cache, position: Method, tap: Tap = keep
) -> tuple[Inexact[Array, "B T D"], Inexact[Array, "B S D"], Params]:
    """∂x_q, ∂x_k and the parameters' gradients."""
    p = c.p
    dz = tap("hook_z", project(dout, permute(p.W_O), None))
    if position.has("value"):
        dpattern, dv, dpos_mix = position.mix_backward(dz, c.mix)
    else:
        dpattern = by_head(dz) @ transpose(by_head(c.v))
        dv, dpos_mix = by_head(transpose(c.softmax.pattern) @ by_head(dz)), None
    dscores = tap("hook_attn_scores", softmax.backward(tap("hook_pattern", dpattern), c.softmax))

    scale = 1 / math.sqrt(p.W_Q.shape[-1])
    dq_turned = tap("hook_rot_q", scale * by_head(dscores @ by_head(c.k)))
    dk_turned = tap("hook_rot_k", scale * by_head(transpose(dscores) @ by_head(c.q)))
    dq, dk, dpos_turn = (
        position.encode_qk_backward(dq_turned, dk_turned, c.encode_qk)
        if position.has("query_key")
        else (dq_turned, dk_turned, None)
    )
    felt, dpos_bias = None, None
    if position.has("score"):
        felt, dpos_bias = position.bias_backward(tap("hook_bias", dscores), c.bias)
    felt = Felt() if felt is None else felt
    dq, dk = (tap(name, plus(d, more)) for name, d, more in (("hook_q", dq, felt.q), ("hook_k", dk, felt.k)))
    dv = tap("hook_v", dv)

    felt_q = None if felt.x_q is None else tap("route_bias_q", felt.x_q)
    felt_k = None if felt.x_k is None else tap("route_bias_k", felt.x_k)
    dx_q = plus(join(tap("route_q", dq), permute(p.W_Q), None), felt_q)
    dx_k = join(tap("route_k", dk), permute(p.W_K), None) + join(tap("route_v", dv), permute(p.W_V), None)
    dparams = Params(
        W_Q=outer(c.x_q, dq), W_K=outer(c.x_k, dk), W_V=outer(c.x_k, dv), W_O=permute(outer(dout, c.z)),
        b_Q=summed(dq, p.b_Q), b_K=summed(dk, p.b_K), b_V=summed(dv, p.b_V), b_O=summed(dout, p.b_O),
        pos=all_of(p.pos, dpos_turn, dpos_bias, dpos_mix),
    )  # fmt: skip
    return dx_q, plus(dx_k, felt_k), dparams


# ------------------------------------------------------------------------------------------ one product for all heads


def project(x: Inexact[Array, "B T D"], W: Inexact[Array, "H D K"], b: Inexact[Array, "H K"] | None) -> Array:
    """Into every head at once: x W + b [B T H K]."""
    xp, (H, D, K) = array_namespace(x), W.shape
    side_by_side = xp.reshape(xp.permute_dims(W, (1, 0, 2)), (D, H * K))
    y = xp.reshape(xp.reshape(x, (-1, D)) @ side_by_side, (*x.shape[:-1], H, K))
    return y if b is None else y + b


def join(z: Inexact[Array, "B T H K"], W: Inexact[Array, "H K D"], b: Inexact[Array, " D"] | None) -> Array:
    """Out of all heads at once: Σ_h z_h W[h] + b [B T D]."""
    xp, (H, K, D) = array_namespace(z), W.shape
    y = xp.reshape(xp.reshape(z, (-1, H * K)) @ xp.reshape(W, (H * K, D)), (*z.shape[:-2], D))
    return y if b is None else y + b


def outer(x: Inexact[Array, "B T D"], dy: Inexact[Array, "B T H K"]) -> Inexact[Array, "H D K"]:
    """Σ over batch and positions of xᵀ ∂y: the gradient of the W in x W."""
    xp = array_namespace(x)
    return xp.permute_dims(xp.tensordot(x, dy, axes=((0, 1), (0, 1))), (1, 0, 2))


def by_head(x: Array) -> Array:
    """[B T H K] <-> [B H T K]; it is its own inverse."""
    return array_namespace(x).permute_dims(x, (0, 2, 1, 3))


def transpose(x: Array) -> Array:
    return array_namespace(x).matrix_transpose(x)


def permute(W: Array) -> Array:
    """[H D K] -> [H K D] and back: the transposed map of each head."""
    return array_namespace(W).permute_dims(W, (0, 2, 1))


def summed(dy: Array, like: Array | None) -> Array | None:
    """A bias's gradient: ∂y summed over all that broadcasting stretched; None where there is no bias."""
    return None if like is None else sum_to(dy, like.shape)


def plus(x: Array, more: Array | None) -> Array:
    return x if more is None else x + more


def all_of(like: Any, *parts: Any) -> Any:
    """The position parameters' gradient: the sum over the stages that have a share in it (None: it has none)."""
    given = [part for part in parts if part is not None]
    total = given[0] if given else like
    for part in given[1:]:
        total = map_tree(lambda a, b: a + b, total, part)
    return total
