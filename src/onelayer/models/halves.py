"""The halves of a block: it looks around, then it thinks. Both models are made of them.

Shapes    x [B T D]     mid, post [B n D], of the last n positions

Forward   look      mid  = x + attention(x)                norm "pre":  mid  = x + attention(norm(x))
                                                           norm "post": mid  = norm(x + attention(x))
          think     post = mid + feed_forward(mid)         and so with the feed-forward network

Backward  ∂a is ∂loss/∂a: the same wiring, upwards; two roads lead back from every sum, and their gradients add.

Caches    and gradients are those of the norm and of what it is for, a pair.

Source    Every step: docs/derivations/models.md
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from jaxtyping import Inexact

from ..arrays import Array, Tap, array_namespace, at_scope, keep
from ..fused import fused
from ..positions import Method, Places
from ..sublayers import attention, feed_forward, normalise
from .config import ModelConfig

Look: TypeAlias = Callable[..., tuple[Array, tuple[Any, Any]]]  # as `look`
LookBackward: TypeAlias = Callable[..., tuple[Array, tuple[Any, Any]]]  # as `look_backward`


@fused
def look(
    p: Any, x: Inexact[Array, "B T D"], n: int, places: Places, position: Method, cfg: ModelConfig, tap: Tap = keep
) -> tuple[Inexact[Array, "B n D"], tuple[Any, Any]]:
    """x -> mid, at the last n positions: self-attention, its norm, and the sum with the stream. p: a block."""
    last = x[:, x.shape[1] - n :, :]
    if cfg.norm == "post":
        out, c_attn = attention.forward(p.attn, last, x, places, position, at_scope(tap, "attn"))
        mid, c_ln1 = normalise.of_sum(p.ln1, last, tap("hook_attn_out", out), cfg.norm_eps, at_scope(tap, "ln1"))
    else:
        a, c_ln1 = normalise.forward(p.ln1, x, cfg.norm_eps, at_scope(tap, "ln1"))
        asks = a[:, x.shape[1] - n :, :]
        out, c_attn = attention.forward(p.attn, asks, a, places, position, at_scope(tap, "attn"))
        mid = last + tap("hook_attn_out", out)
    return tap("hook_resid_mid", mid), (c_ln1, c_attn)


@fused
def look_backward(
    dmid: Inexact[Array, "B n D"], c: tuple[Any, Any], position: Method, cfg: ModelConfig, tap: Tap = keep
) -> tuple[Inexact[Array, "B T D"], tuple[normalise.Params, attention.Params]]:
    """∂x, and the gradients of ln1 and attn."""
    (c_ln1, c_attn), dmid = c, tap("hook_resid_mid", dmid)
    if cfg.norm == "post":
        dsum, d_ln1 = normalise.backward(dmid, c_ln1, at_scope(tap, "ln1"))
        dx_q, dx_k, d_attn = attention.backward(tap("hook_attn_out", dsum), c_attn, position, at_scope(tap, "attn"))
        dx = add_last(dx_k, tap("route_skip_attn", dsum) + dx_q)
    else:
        dx_q, dx_k, d_attn = attention.backward(tap("hook_attn_out", dmid), c_attn, position, at_scope(tap, "attn"))
        through, d_ln1 = normalise.backward(add_last(dx_k, dx_q), c_ln1, at_scope(tap, "ln1"))
        dx = add_last(through, tap("route_skip_attn", dmid))
    return dx, (d_ln1, d_attn)


@fused
def think(
    p: Any, mid: Inexact[Array, "B n D"], cfg: ModelConfig, tap: Tap = keep
) -> tuple[Inexact[Array, "B n D"], tuple[Any, Any]]:
    """mid -> post: the feed-forward network, its norm, and the sum with the stream. p: a block."""
    if cfg.norm == "post":
        out, c_mlp = feed_forward.forward(p.mlp, mid, cfg.activation, at_scope(tap, "mlp"))
        post, c_ln2 = normalise.of_sum(p.ln2, mid, tap("hook_mlp_out", out), cfg.norm_eps, at_scope(tap, "ln2"))
    else:
        m, c_ln2 = normalise.forward(p.ln2, mid, cfg.norm_eps, at_scope(tap, "ln2"))
        out, c_mlp = feed_forward.forward(p.mlp, m, cfg.activation, at_scope(tap, "mlp"))
        post = mid + tap("hook_mlp_out", out)
    return post, (c_ln2, c_mlp)


@fused
def think_backward(
    dpost: Inexact[Array, "B n D"], c: tuple[Any, Any], cfg: ModelConfig, tap: Tap = keep
) -> tuple[Inexact[Array, "B n D"], tuple[normalise.Params, feed_forward.Params]]:
    """∂mid, and the gradients of ln2 and mlp."""
    c_ln2, c_mlp = c
    if cfg.norm == "post":
        dskip, d_ln2 = normalise.backward(dpost, c_ln2, at_scope(tap, "ln2"))
        through, d_mlp = feed_forward.backward(tap("hook_mlp_out", dskip), c_mlp, at_scope(tap, "mlp"))
    else:
        dm, d_mlp = feed_forward.backward(tap("hook_mlp_out", dpost), c_mlp, at_scope(tap, "mlp"))
        (through, d_ln2), dskip = normalise.backward(dm, c_ln2, at_scope(tap, "ln2")), dpost
    return tap("route_skip_mlp", dskip) + tap("route_mlp", through), (d_ln2, d_mlp)


def add_last(x: Inexact[Array, "B T D"] | None, more: Inexact[Array, "B n D"]) -> Inexact[Array, "B T D"]:
    """x with `more` added to its last n positions; None is zero, and n is T then."""
    if x is None:
        return more
    skip = x.shape[1] - more.shape[1]
    if skip == 0:
        return x + more
    xp = array_namespace(x)
    return xp.concat([x[:, :skip, :], x[:, skip:, :] + more], axis=1)
