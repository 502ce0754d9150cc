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

from ..arrays import Array, Tap, keep
from ..fused import fused
from ..layers import softmax
from ..positions import Felt, Method, Places
from .attention import Params, all_of, plus


class Joint(NamedTuple):
    """The weights of n products of the same rows, side by side."""

    W: Float[np.ndarray, "D nHK"]
    b: Float[np.ndarray, " nHK"] | None


class Cache(NamedTuple):
    p: Params
    x_q: Float[np.ndarray, "B T D"]
    x_k: Float[np.ndarray, "B S D"]
    joints: tuple[Joint, ...]  # of q, k and v; or of q, and of k and v
    z: Float[np.ndarray, "B T H K"]
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
    H, D, K = p.W_Q.shape
    scale, plain = x_q.dtype.type(K**-0.5), not looks_at_q(position)
    weights, biases = (scale * p.W_Q if plain else p.W_Q, p.W_K, p.W_V), (p.b_Q, p.b_K, p.b_V)
    if plain and p.b_Q is not None:
        biases = scale * p.b_Q, *biases[1:]
    if _same(x_q, x_k):
        joints = (_joint(weights, biases),)
        q, k, v = _project(x_q, joints[0], (H, K))
    else:
        joints = _joint(weights[:1], biases[:1]), _joint(weights[1:], biases[1:])
        (q,), (k, v) = _project(x_q, joints[0], (H, K)), _project(x_k, joints[1], (H, K))

    q_turned, k_turned, c_turn = position.encode_qk(p.pos, q, k, places) if position.has("query_key") else (q, k, None)
    q_turned, k_turned = _heads(q_turned if plain else scale * q_turned), _heads(k_turned)
    bias, c_bias = position.bias(p.pos, q, k, x_q, x_k, places) if position.has("score") else (None, None)
    z, c_mix = mix(q_turned, k_turned, _heads(v), places.mask, bias)
    out = z.reshape(-1, H * K) @ p.W_O.reshape(H * K, D)
    if p.b_O is not None:
        out += p.b_O
    return out.reshape(x_q.shape), Cache(p, x_q, x_k, joints, z, c_mix, c_turn, c_bias)


def in_rows_backward(
    dout: Float[np.ndarray, "B T D"], c: Cache, position: Method
) -> tuple[Float[np.ndarray, "B T D"], Float[np.ndarray, "B S D"], Params]:
    p, (H, D, K), scale = c.p, c.p.W_Q.shape, dout.dtype.type(c.p.W_Q.shape[2] ** -0.5)
    (B, T), S, plain = c.x_q.shape[:2], c.x_k.shape[1], not looks_at_q(position)
    rows = np.ascontiguousarray(dout).reshape(-1, D)
    dz = _heads((rows @ p.W_O.reshape(H * K, D).T).reshape(B, T, H, K))
    if len(c.joints) == 1:
        dy = (np.empty((B, T, 3, H, K), dout.dtype),)
        dq, dk, dv = (dy[0][:, :, i] for i in range(3))
    else:
        dy = np.empty((B, T, 1, H, K), dout.dtype), np.empty((B, S, 2, H, K), dout.dtype)
        dq, dk, dv = dy[0][:, :, 0], dy[1][:, :, 0], dy[1][:, :, 1]

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

    rows_of, W = [a.reshape(-1, a.shape[2] * H * K) for a in dy], [joint.W for joint in c.joints]
    (rows_q, rows_kv), (W_q, W_kv) = ((a[0][:, : H * K], a[-1][:, -2 * H * K :]) for a in (rows_of, W))
    dx_q, dx_k = (rows_q @ W_q.T).reshape(c.x_q.shape), (rows_kv @ W_kv.T).reshape(c.x_k.shape)
    dW_Q, dW_K, dW_V = np.concatenate([_outer(x, a, (H, K)) for x, a in zip((c.x_q, c.x_k), rows_of, strict=False)])
    db_Q = db_K = db_V = None
    if p.b_Q is not None:
        db_Q, db_K, db_V = np.concatenate([a.sum(axis=0).reshape(-1, H, K) for a in rows_of])
    if plain:
        dW_Q, db_Q = scale * dW_Q, None if db_Q is None else scale * db_Q
    dparams = Params(
        dW_Q, dW_K, dW_V, (c.z.reshape(-1, H * K).T @ rows).reshape(H, K, D),
        db_Q, db_K, db_V, None if p.b_O is None else rows.sum(axis=0), all_of(p.pos, dpos_turn, dpos_bias),
    )  # fmt: skip
    return plus(dx_q, felt.x_q), plus(dx_k, felt.x_k), dparams


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


def _joint(weights: Sequence[Any], biases: Sequence[Any]) -> Joint:
    W = np.concatenate(weights).transpose(1, 0, 2)
    return Joint(W.reshape(len(W), -1), None if biases[0] is None else np.concatenate(biases).reshape(-1))


def _project(x: np.ndarray, joint: Joint, heads: tuple[int, int]) -> list[np.ndarray]:
    """x W + b, a view [B T H K] of each product."""
    y = x.reshape(-1, x.shape[-1]) @ joint.W
    if joint.b is not None:
        y += joint.b
    y = y.reshape(*x.shape[:2], -1, *heads)
    return [y[:, :, i] for i in range(y.shape[2])]


def _outer(x: np.ndarray, rows: np.ndarray, heads: tuple[int, int]) -> np.ndarray:
    """Σ xᵀ ∂y of each of the n products: [n H D K]."""
    dW = x.reshape(len(rows), -1).T @ rows
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
