"""R{multi-head attention}: every product of two things that move becomes two products.

Forward   q = x_q W_Q + b_Q          Rq = Rx_q W_Q + x_q RW_Q + Rb_Q;  and so Rk, Rv with x_k
          s = q kᵀ/√K + bias         Rs = (Rq kᵀ + q Rkᵀ)/√K + Rbias
          A = softmax(s)             RA = A (Rs − Σ A Rs)
          z = A v                    Rz = RA v + A Rv
          out = Σ_h z_h W_O[h]       Rout = Σ_h Rz_h W_O[h] + z_h RW_O[h] + Rb_O

Backward  ∂z = ∂out W_Oᵀ             R∂z = R∂out W_Oᵀ + ∂out RW_Oᵀ
          ∂A = ∂z vᵀ                 R∂A = R∂z vᵀ + ∂z Rvᵀ
          ∂v = Aᵀ ∂z                 R∂v = RAᵀ ∂z + Aᵀ R∂z
          ∂s by softmax              R∂s by R{softmax}
          ∂q = ∂s k/√K               R∂q = (R∂s k + ∂s Rk)/√K
          ∂k = ∂sᵀ q/√K              R∂k = (R∂sᵀ q + ∂sᵀ Rq)/√K
          ∂W_Q = Σ x_qᵀ ∂q           R∂W_Q = Σ Rx_qᵀ ∂q + x_qᵀ R∂q;      so W_K, W_V;     R∂W_O = Σ Rzᵀ ∂out + zᵀ R∂out
          ∂x_q = Σ_h ∂q W_Qᵀ         R∂x_q = Σ_h R∂q W_Qᵀ + ∂q RW_Qᵀ;    so ∂x_k
          A position method's R acts where the method does (positions.py).

Source    sublayers/attention.py, differentiated once more.
"""

import math
from typing import Any, NamedTuple

from ...arrays import Array
from ...positions import Method, Places
from ...sublayers import attention
from ...sublayers.attention import all_of, by_head, join, outer, permute, plus, project, summed, transpose
from . import positions, softmax
from .seen import Seen

__all__ = ["Moved", "backward", "forward"]


class Moved(NamedTuple):
    x_q: Array
    x_k: Array
    q: Array  # turned
    k: Array
    v: Array
    z: Array
    pattern: Array
    encode_qk: Any  # complex caches, where a position method takes the complex step
    bias: Any
    mix: Any


def forward(
    rp: attention.Params, rx_q: Array, rx_k: Array, c: attention.Cache, seen: Seen, places: Places, position: Method
) -> tuple[Array, Moved]:
    p = c.p
    rq = project(rx_q, p.W_Q, rp.b_Q) + project(c.x_q, rp.W_Q, None)
    rk = project(rx_k, p.W_K, rp.b_K) + project(c.x_k, rp.W_K, None)
    rv = project(rx_k, p.W_V, rp.b_V) + project(c.x_k, rp.W_V, None)
    asked, moved_asked = (seen.value("hook_q"), seen.value("hook_k")), (rq, rk)
    m_turn = m_bias = m_mix = rbias = None
    if position.has("query_key"):
        turned, m_turn = positions.stage_forward(position, "query_key", p.pos, rp.pos, asked, moved_asked, places)
        assert turned is not None
        rq, rk = turned
    scale = 1 / math.sqrt(p.W_Q.shape[-1])
    rscores = by_head(scale * rq) @ transpose(by_head(c.k)) + by_head(scale * c.q) @ transpose(by_head(rk))
    if position.has("score"):
        looked, moved_looked = (*asked, c.x_q, c.x_k), (*moved_asked, rx_q, rx_k)
        rbias, m_bias = positions.stage_forward(position, "score", p.pos, rp.pos, looked, moved_looked, places)
    rscores = plus(rscores, None if rbias is None else rbias[0])
    pattern = c.softmax.pattern
    rpattern = softmax.forward(rscores, pattern)
    if position.has("value"):
        mixed, m_mix = positions.stage_forward(position, "value", p.pos, rp.pos, (pattern, c.v), (rpattern, rv), places)
        assert mixed is not None
        rz = mixed[0]
    else:
        rz = by_head(rpattern @ by_head(c.v) + pattern @ by_head(rv))
    rout = join(rz, p.W_O, rp.b_O) + join(c.z, rp.W_O, None)
    return rout, Moved(rx_q, rx_k, rq, rk, rv, rz, rpattern, m_turn, m_bias, m_mix)


def backward(
    rdout: Array, dout: Array, rp: attention.Params, m: Moved, c: attention.Cache, seen: Seen, position: Method
) -> tuple[Array, Array, attention.Params]:
    """R∂x_q, R∂x_k and R of the parameters' gradients."""
    p, pattern = c.p, c.softmax.pattern
    dz, dpattern, dscores = (seen.gradient(f"hook_{name}") for name in ("z", "pattern", "attn_scores"))
    dq, dk, dv = (seen.gradient(f"hook_{name}") for name in ("q", "k", "v"))
    rdz = project(rdout, permute(p.W_O), None) + project(dout, permute(rp.W_O), None)
    rdpos_turn = rdpos_bias = rdpos_mix = None
    if position.has("value"):
        rdpattern, rdv, rdpos_mix = positions.stage_backward(position, "value", (rdz,), (dz,), c.mix, m.mix)
    else:
        rdpattern = by_head(rdz) @ transpose(by_head(c.v)) + by_head(dz) @ transpose(by_head(m.v))
        rdv = by_head(transpose(m.pattern) @ by_head(dz) + transpose(pattern) @ by_head(rdz))
    rdscores = softmax.backward(rdpattern, dpattern, m.pattern, pattern)

    scale = 1 / math.sqrt(p.W_Q.shape[-1])
    rdq = scale * by_head(rdscores @ by_head(c.k) + dscores @ by_head(m.k))
    rdk = scale * by_head(transpose(rdscores) @ by_head(c.q) + transpose(dscores) @ by_head(m.q))
    if position.has("query_key"):
        turned = seen.gradient("hook_rot_q"), seen.gradient("hook_rot_k")
        rdq, rdk, rdpos_turn = positions.stage_backward(
            position, "query_key", (rdq, rdk), turned, c.encode_qk, m.encode_qk
        )
    felt = None
    if position.has("score"):
        felt, rdpos_bias = positions.stage_backward(position, "score", (rdscores,), (dscores,), c.bias, m.bias)
    felt = positions.felt(felt)
    rdq, rdk = plus(rdq, felt.q), plus(rdk, felt.k)

    rdx_q = join(rdq, permute(p.W_Q), None) + join(dq, permute(rp.W_Q), None)
    rdx_k = join(rdk, permute(p.W_K), None) + join(dk, permute(rp.W_K), None)
    rdx_k = rdx_k + join(rdv, permute(p.W_V), None) + join(dv, permute(rp.W_V), None)
    rdparams = attention.Params(
        W_Q=outer(m.x_q, dq) + outer(c.x_q, rdq),
        W_K=outer(m.x_k, dk) + outer(c.x_k, rdk),
        W_V=outer(m.x_k, dv) + outer(c.x_k, rdv),
        W_O=permute(outer(rdout, c.z) + outer(dout, m.z)),
        b_Q=summed(rdq, p.b_Q), b_K=summed(rdk, p.b_K), b_V=summed(rdv, p.b_V), b_O=summed(rdout, p.b_O),
        pos=all_of(p.pos, rdpos_turn, rdpos_bias, rdpos_mix),
    )  # fmt: skip
    return plus(rdx_q, felt.x_q), plus(rdx_k, felt.x_k), rdparams
