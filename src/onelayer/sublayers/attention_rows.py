"""Attention in NumPy without copies: the same numbers as `attention`, in fewer and larger products.

Shapes    those of `attention`; y [B T n H K] are the rows of one product: q, k and v side by side (n = 3) where one
          sequence looks at itself, or q alone (n = 1) and k with v (n = 2)

Copies    BLAS reads and writes heads where they lie, strides and all. q, k, v are views of y; z and ∂q, ∂k, ∂v are
          written into the rows that the next product reads.
Scale     1/√K stands in W_Q and b_Q, and q is q/√K from the start; what ∂ of those lacks to ∂W_Q, ∂b_Q is the same
          factor. A method that turns q or looks at it is given q itself, and the scale is a pass of its own.

Core      `mix` and `mix_backward` go from q, k and v to z and back. Where there is no score bias, a kernel may take
          their place that holds no pattern (kernels/attention.py).

When      NumPy, real, in C order; no tap; no method that mixes the values itself. All else is `attention`'s own.
          STAND_INS names the functions that these take the place of (see fused.py).

Source    docs/performance.md; the maths is that of attention.py
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ..arrays import Array, Tap, aligned, keep
from ..fused import fused
from ..layers import linear, softmax
from ..positions import Felt, Method, Places
from .attention import Params, all_of, plus


class Cache(NamedTuple):
    p: Params
    x_q: Float[np.ndarray, "B T D"]
    x_k: Float[np.ndarray, "B S D"]
    joints: tuple[linear.Cache, ...]  # of q, k and v; or of q, and of k and v
    attended: "Attended"


class Attended(NamedTuple):
    """What the backward needs of the way from q, k and v on."""

    pos: Any
    out: linear.Cache
    mix: Any
    encode_qk: Any
    bias: Any


class Mixed(NamedTuple):
    """`mix`'s own cache; a kernel's is another (kernels/attention.py)."""

    q: Float[np.ndarray, "B H T K"]  # as multiplied: turned, and divided by √K
    k: Float[np.ndarray, "B H S K"]
    v: Float[np.ndarray, "B H S N"]
    pattern: Float[np.ndarray, "B H T S"]


def fits(p: Params, x_q: Array, x_k: Array, position: Method, tap: Tap) -> bool:
    weights = [a for a in p[:-1] if a is not None]
    given = (x_q, x_k, *weights)
    return (
        tap is keep
        and not position.has("value")
        and all(isinstance(a, np.ndarray) and a.dtype == x_q.dtype and a.flags.c_contiguous for a in given)
        and x_q.dtype in (np.float32, np.float64)
        and len({b is None for b in (p.b_Q, p.b_K, p.b_V)}) == 1
    )


def in_rows(
    p: Params, x_q: Float[np.ndarray, "B T D"], x_k: Float[np.ndarray, "B S D"], places: Places, position: Method
) -> tuple[Float[np.ndarray, "B T D"], Cache]:
    (H, _, K), (weights, biases) = p.W_Q.shape, _scaled(p, position)
    if _same(x_q, x_k):
        made = (linear.forward(_joint(weights, biases), x_q),)
    else:
        pairs = ((weights[:1], biases[:1]), x_q), ((weights[1:], biases[1:]), x_k)
        made = tuple(linear.forward(_joint(*few), x) for few, x in pairs)
    q, k, v = (view for y, _ in made for view in side_by_side(y, (H, K)))
    out, attended = attend(p.W_O, p.b_O, p.pos, (q, k, v), (x_q, x_k), places, position)
    return out, Cache(p, x_q, x_k, tuple(c for _, c in made), attended)


def in_rows_backward(
    dout: Float[np.ndarray, "B T D"], c: Cache, position: Method
) -> tuple[Float[np.ndarray, "B T D"], Float[np.ndarray, "B S D"] | None, Params]:
    """∂x_q, ∂x_k and the parameters' gradients; where both are the same rows, ∂x_q has it all."""
    H, _, K = c.p.W_Q.shape
    dy = [aligned((*joint.x.shape[:2], joint.weight.shape[1]), dout.dtype) for joint in c.joints]
    dq, dk, dv = (view for rows in dy for view in side_by_side(rows, (H, K)))
    felt, dW_O, db_O, dpos = attend_backward(dout, c.attended, position, dq, dk, dv)

    found = [linear.backward(rows, joint) for rows, joint in zip(dy, c.joints, strict=True)]
    dW = np.concatenate([_apart(d.weight, (H, K)) for _, d in found])
    biases = [d.bias.reshape(-1, H, K) for _, d in found if d.bias is not None]
    db = np.concatenate(biases) if biases else None
    (dW_Q, dW_K, dW_V), (db_Q, db_K, db_V) = _scaled_backward(dW, db, position)
    dparams = Params(dW_Q, dW_K, dW_V, dW_O, db_Q, db_K, db_V, db_O, dpos)
    dx_q = plus(found[0][0], felt.x_q)
    return (dx_q, plus(found[1][0], felt.x_k), dparams) if len(found) > 1 else (plus(dx_q, felt.x_k), None, dparams)


def joint(p: Params, position: Method) -> linear.Params:
    """The weights of q, k and v side by side, as they meet the rows."""
    return _joint(*_scaled(p, position))


def joint_backward(d: linear.Params, p: Params, position: Method) -> tuple[Sequence[Any], Sequence[Any]]:
    """∂W_Q, ∂W_K, ∂W_V and ∂b_Q, ∂b_K, ∂b_V."""
    H, _, K = p.W_Q.shape
    dW = np.ascontiguousarray(_apart(d.weight, (H, K)))
    return _scaled_backward(dW, None if d.bias is None else d.bias.reshape(3, H, K), position)


def _scaled(p: Params, position: Method) -> tuple[Sequence[Any], Sequence[Any]]:
    """1/√K in W_Q and b_Q, unless the method looks at q."""
    weights, biases = (p.W_Q, p.W_K, p.W_V), (p.b_Q, p.b_K, p.b_V)
    if looks_at_q(position):
        return weights, biases
    scale = p.W_Q.dtype.type(p.W_Q.shape[2] ** -0.5)
    return (scale * p.W_Q, *weights[1:]), biases if p.b_Q is None else (scale * p.b_Q, *biases[1:])


def _scaled_backward(
    dW: Float[np.ndarray, "3 H D K"], db: Float[np.ndarray, "3 H K"] | None, position: Method
) -> tuple[Sequence[Any], Sequence[Any]]:
    if looks_at_q(position):
        return tuple(dW), (None, None, None) if db is None else tuple(db)
    scale = dW.dtype.type(dW.shape[3] ** -0.5)
    return (scale * dW[0], *dW[1:]), (None, None, None) if db is None else (scale * db[0], *db[1:])


# ------------------------------------------------------------------------------------------ from q, k and v on


def attend(
    W_O: Float[np.ndarray, "H K D"], b_O: Float[np.ndarray, " D"] | None, pos: Any,
    qkv: Sequence[np.ndarray], x: tuple[Any, Any], places: Places, position: Method,
) -> tuple[Float[np.ndarray, "B T D"], Attended]:  # fmt: skip
    """q, k and v [B T H K], q divided by √K unless the method looks at it. x: what a score bias may look at."""
    (q, k, v), (H, K, D), plain = qkv, W_O.shape, not looks_at_q(position)
    q_turned, k_turned, c_turn = position.encode_qk(pos, q, k, places) if position.has("query_key") else (q, k, None)
    q_turned, k_turned = _heads(q_turned if plain else q.dtype.type(K**-0.5) * q_turned), _heads(k_turned)
    bias, c_bias = position.bias(pos, q, k, *x, places) if position.has("score") else (None, None)
    z, c_mix = mix(q_turned, k_turned, _heads(v), places.mask, bias)
    out, c_out = linear.forward(linear.Params(W_O.reshape(H * K, D), b_O), z.reshape(*z.shape[:2], H * K))
    return out, Attended(pos, c_out, c_mix, c_turn, c_bias)


def attend_backward(
    dout: Float[np.ndarray, "B T D"], c: Attended, position: Method, dq: np.ndarray, dk: np.ndarray, dv: np.ndarray
) -> tuple[Felt, np.ndarray, np.ndarray | None, Any]:
    """∂q, ∂k and ∂v are written where they are to be; what comes back is what x feels, ∂W_O, ∂b_O and ∂pos."""
    (*_, H, K), plain = dq.shape, not looks_at_q(position)
    dz, d_out = linear.backward(np.ascontiguousarray(dout), c.out)
    scale, dz = dout.dtype.type(K**-0.5), _heads(dz.reshape(*dz.shape[:2], H, K))
    felt, dpos_turn, dpos_bias = Felt(), None, None
    asked, answered = (_heads(dq), _heads(dk)) if plain else (np.empty_like(a, order="C") for a in (c.mix.q, c.mix.k))
    dscores = mix_backward(dz, c.mix, asked, answered, _heads(dv))
    if not plain:
        turned = scale * _heads(asked), _heads(answered)
        if position.has("query_key"):
            *turned, dpos_turn = position.encode_qk_backward(*turned, c.encode_qk)
        if position.has("score"):
            more, dpos_bias = position.bias_backward(dscores, c.bias)
            felt = felt if more is None else more
        dq[:], dk[:] = plus(turned[0], felt.q), plus(turned[1], felt.k)
    return felt, d_out.weight.reshape(H, K, -1), d_out.bias, all_of(c.pos, dpos_turn, dpos_bias)


def looks_at_q(position: Method) -> bool:
    return position.has("query_key") or position.has("score")


# ------------------------------------------------------------------------------------------ from q, k and v to z


@fused
def mix(
    q: Float[np.ndarray, "B H T K"],
    k: Float[np.ndarray, "B H S K"],
    v: Float[np.ndarray, "B H S N"],
    mask: Bool[np.ndarray, "..."] | None,
    bias: Array | None = None,
) -> tuple[Float[np.ndarray, "B T H N"], Any]:
    scores = np.matmul(q, k.swapaxes(-1, -2))
    pattern, _ = softmax.forward(scores if bias is None else scores + bias, mask)
    z = np.empty((len(q), q.shape[2], q.shape[1], v.shape[3]), q.dtype)
    np.matmul(pattern, v, out=_heads(z))
    return z, Mixed(q, k, v, pattern)


@fused
def mix_backward(
    dz: Float[np.ndarray, "B H T N"],
    c: Any,
    dq: Float[np.ndarray, "B H T K"],
    dk: Float[np.ndarray, "B H S K"],
    dv: Float[np.ndarray, "B H S N"],
) -> Array | None:
    """∂q, ∂k and ∂v are written where they are to be; what comes back is ∂scores, for a bias."""
    np.matmul(c.pattern.swapaxes(-1, -2), dz, out=dv)
    dscores = softmax.backward(np.matmul(dz, c.v.swapaxes(-1, -2)), softmax.Cache(c.pattern))
    np.matmul(dscores, c.k, out=dq)
    np.matmul(dscores.swapaxes(-1, -2), c.q, out=dk)
    return dscores


# ------------------------------------------------------------------------------------------ rows


def _same(x_q: np.ndarray, x_k: np.ndarray) -> bool:
    """Whether these are the same numbers in the same place."""
    return x_q.shape == x_k.shape and x_q.ctypes.data == x_k.ctypes.data


def _joint(weights: Sequence[Any], biases: Sequence[Any]) -> linear.Params:
    """The weights of n products of the same rows, side by side: [D nHK]."""
    W = np.concatenate(weights).transpose(1, 0, 2)
    return linear.Params(W.reshape(len(W), -1), None if biases[0] is None else np.concatenate(biases).reshape(-1))


def side_by_side(y: Float[np.ndarray, "B T nHK"], heads: tuple[int, int]) -> list[np.ndarray]:
    """A view [B T H K] of each of the n products."""
    y = y.reshape(*y.shape[:2], -1, *heads)
    return [y[:, :, i] for i in range(y.shape[2])]


def _apart(dW: np.ndarray, heads: tuple[int, int]) -> np.ndarray:
    """[D nHK] -> [n H D K]"""
    return dW.reshape(len(dW), -1, *heads).transpose(1, 2, 0, 3)


def _heads(x: Any) -> Any:
    """[B T H K] <-> [B H T K], the same memory."""
    return x.transpose(0, 2, 1, 3)


def forward(
    definition: Callable[..., Any],
    p: Params, x_q: Array, x_k: Array, places: Places, position: Method, tap: Tap = keep,
) -> Any:  # fmt: skip
    if fits(p, x_q, x_k, position, tap):
        return in_rows(p, x_q, x_k, places, position)
    return definition(p, x_q, x_k, places, position, tap)


def backward(definition: Callable[..., Any], dout: Array, c: Any, position: Method, tap: Tap = keep) -> Any:
    return in_rows_backward(dout, c, position) if isinstance(c, Cache) else definition(dout, c, position, tap)


STAND_INS = {"sublayers.attention.forward": forward, "sublayers.attention.backward": backward}
