"""R{feed-forward network}: linear, activation, linear.

Forward   Rpre = R{x W_in + b_in}    Rpost = f′(pre) Rpre    Ry = R{post W_out + b_out}
Backward  R∂post, R∂W_out, R∂b_out by R{linear};  R∂pre = f′ R∂post + f″ Rpre ∂post;  R∂x, R∂W_in, R∂b_in by R{linear}

Source    sublayers/feed_forward.py, differentiated once more.
"""

from typing import NamedTuple

from ...arrays import Array
from ...sublayers import feed_forward
from . import activations, linear
from .seen import Seen

__all__ = ["Moved", "backward", "forward"]


class Moved(NamedTuple):
    x: Array
    pre: Array
    post: Array


def _moves(rp: feed_forward.Params, c: feed_forward.Cache) -> tuple[linear.Moves, linear.Moves]:
    into, out = c.linear_in.weight, c.linear_out.weight
    return linear.Moves(into, rp.W_in, rp.b_in), linear.Moves(out, rp.W_out, rp.b_out)


def forward(rp: feed_forward.Params, rx: Array, c: feed_forward.Cache) -> tuple[Array, Moved]:
    into, out = _moves(rp, c)
    rpre = linear.forward(into, c.linear_in.x, rx)
    rpost = activations.forward(rpre, c.activation.slope)
    return linear.forward(out, c.linear_out.x, rpost), Moved(rx, rpre, rpost)


def backward(
    rdy: Array, dy: Array, rp: feed_forward.Params, m: Moved, c: feed_forward.Cache, seen: Seen
) -> tuple[Array, feed_forward.Params]:
    into, out = _moves(rp, c)
    rdpost, rdW_out, rdb_out = linear.backward(rdy, dy, out, c.linear_out.x, m.post)
    dpost, dpre = seen.gradient("hook_post"), seen.gradient("hook_pre")
    rdpre = activations.backward(rdpost, dpost, m.pre, c.activation.slope, seen.bend("hook_pre"))
    rdx, rdW_in, rdb_in = linear.backward(rdpre, dpre, into, c.linear_in.x, m.x)
    return rdx, feed_forward.Params(rdW_in, rdb_in, rdW_out, rdb_out)
