"""The one-layer decoder without norms, its straight stretches multiplied out: an exact shortcut beyond `tables`.

Shapes    tokens [B T]     logits [B 1 V]     pre, post [B F]     rows R, U and scores as in `tables`
          attn_in [HK F], attn_out [HK V]     mlp_out [F V]       base_in [U F], base_out [U V]

Why       Without a norm the way from what a head mixes to a neuron, or to a logit, is straight: two matrices one after
          the other. Their product is one matrix, made once a step; the examples meet it in place of both, and where
          V ≤ D it is the smaller one. These are the circuits by which such nets are read: what a head writes for a
          neuron (OV and W_in), what a neuron says (the neuron-logit map W_out W_U).

Forward   attn_in = W_O W_in          attn_out = W_O W_U          mlp_out = W_out W_U
          base_in = (x + b_O) W_in + b_in                         of each row that asks, x its stream
          base_out = (x + b_O + b_out) W_U + b_U
          pre = base_in[last] + z attn_in                         z: what the heads mixed, as in `tables`
          post = f(pre)
          logits = base_out[last] + z attn_out + post mlp_out

Backward  ∂a is ∂loss/∂a; Σ runs over the examples, Σ_U over the rows of base
          ∂mlp_out = Σ postᵀ ∂logits                ∂pre = f′(pre) (∂logits mlp_outᵀ)
          ∂z = ∂pre attn_inᵀ + ∂logits attn_outᵀ    ∂attn_in = Σ zᵀ ∂pre          ∂attn_out = Σ zᵀ ∂logits
          ∂base[u] = Σ over the examples that ask as u does, of ∂pre and of ∂logits
          A product's gradient goes to both its factors, ∂W_O = ∂attn_in W_inᵀ + ∂attn_out W_Uᵀ and so on; W_in and
          W_U get a share from every circuit that they are part of, and from base.
          ∂x = ∂base_in W_inᵀ + ∂base_out W_Uᵀ      ∂b_O = Σ_U ∂x                 ∂b_out = (Σ_U ∂base_out) W_Uᵀ

Exact     where `tables` is and nothing is normed; `fits` says so, and whether it is less work. Equal to the plain path
          up to rounding: tests/test_circuits.py.

Source    Elhage et al. 2021, A mathematical framework for Transformer circuits; Nanda et al. 2023, arXiv:2301.05217
          (the neuron-logit map). Every step: docs/derivations/circuits.md
"""

from typing import Any, NamedTuple

from jaxtyping import Inexact, Integer

from ..arrays import Array, array_namespace, gather_rows, scatter_add_rows, sum_outer
from ..fused import fused, has_kernel
from ..layers import activations, unembedding
from ..sublayers import feed_forward
from . import tables
from .config import ModelConfig
from .decoder_only import Block, Params
from .tables import Rows, rows_backward, rows_forward


class Reads(NamedTuple):
    """What neurons and logits read: of each row that asks, and of what each head mixes."""

    base_in: Inexact[Array, "U F"]
    base_out: Inexact[Array, "U V"]
    attn_in: Inexact[Array, "HK F"]
    attn_out: Inexact[Array, "HK V"]


class Circuits(NamedTuple):
    """All that an example meets."""

    scores: Inexact[Array, "1 H U R"]
    v: Inexact[Array, "R H K"]
    reads: Reads
    mlp_out: Inexact[Array, "F V"]
    paid: Any = None  # what a kernel has at hand


class Origin(NamedTuple):
    """What the circuits were made of."""

    p: Params
    rows: Rows


class Looked(NamedTuple):
    """What the backward of `answer` needs."""

    reads: Reads
    v: Inexact[Array, "R H K"]
    mlp_out: Inexact[Array, "F V"]
    rows: Integer[Array, "B T"]
    pattern: Inexact[Array, "B H T"]
    z: Inexact[Array, "B HK"]
    post: Inexact[Array, "B F"]
    activation: activations.Cache


class Cache(NamedTuple):
    looked: Looked


LOOK_UP = 3  # multiply-adds of a product that take as long as one of a row that a kernel weighs and adds up


def fits(cfg: ModelConfig, shape: tuple[int, int], read: int | None) -> bool:
    """Whether the shortcut is exact for this model, and saves work on tokens of this shape [B T]."""
    B, D, HK, F, V = shape[0], cfg.d_model, cfg.n_heads * cfg.head_width, cfg.d_mlp, cfg.vocab_size
    mixed = min(B * HK, _added_up(cfg, shape)) if has_kernel(answer) else B * HK
    multiplied_out = mixed * (F + V) + B * F * V + HK * D * (F + V) + F * D * V + V * D * (F + V)
    return cfg.norm == "none" and tables.fits(cfg, shape, read) and multiplied_out < one_by_one(cfg, B)


def adds_rows_up(cfg: ModelConfig, shape: tuple[int, int]) -> bool:
    """Whether a kernel takes less time to weigh rows of tables and add them up than a product of z takes."""
    return _added_up(cfg, shape) <= shape[0] * cfg.n_heads * cfg.head_width


def _added_up(cfg: ModelConfig, shape: tuple[int, int]) -> int:
    """As so many multiply-adds of a product for each neuron: the rows that occur, at most, and those that are met."""
    (B, T), H, K = shape, cfg.n_heads, cfg.head_width
    return min(B, cfg.vocab_size) * T * H * K + LOOK_UP * B * T * H


def one_by_one(cfg: ModelConfig, B: int) -> int:
    """Multiply-adds of so many examples' products, where circuits are not multiplied out."""
    D, HK, F, V = cfg.d_model, cfg.n_heads * cfg.head_width, cfg.d_mlp, cfg.vocab_size
    return B * (HK * D + D * F + F * D + D * V)


# ------------------------------------------------------------------------------------------ once a step


def multiply_out(p: Params, tokens: Integer[Array, "B T"], cfg: ModelConfig) -> tuple[Circuits, Origin]:
    scores, rows = rows_forward(p, tokens, cfg)
    (_, attn, _, mlp), W_U, b_U, last = p.blocks[0], _W_U(p), p.unembed.b_U, _last(p, rows)
    base_in, base_out = last @ mlp.W_in, (last if mlp.b_out is None else last + mlp.b_out) @ W_U
    base_in, base_out = base_in if mlp.b_in is None else base_in + mlp.b_in, base_out if b_U is None else base_out + b_U
    W_O = array_namespace(last).reshape(attn.W_O, (-1, attn.W_O.shape[-1]))
    reads = Reads(base_in, base_out, W_O @ mlp.W_in, W_O @ W_U)
    made = Circuits(scores, rows.v, reads, mlp.W_out @ W_U)
    ready = made._replace(paid=paid(made)) if adds_rows_up(cfg, tokens.shape) else made
    return ready, Origin(p, rows)


@fused
def paid(made: Circuits) -> Any:
    """What a kernel of `answer` has once, for all examples; the definition needs nothing."""
    return None


def multiply_out_backward(d: Circuits, c: Origin, cfg: ModelConfig) -> Params:
    """The gradient of every parameter."""
    xp, p, (_, attn, _, mlp), W_U, last = array_namespace(d.v), c.p, c.p.blocks[0], _W_U(c.p), _last(c.p, c.rows)
    W_O = xp.reshape(attn.W_O, (-1, attn.W_O.shape[-1]))
    dlast = d.reads.base_in @ mlp.W_in.T + d.reads.base_out @ W_U.T
    dW_O = d.reads.attn_in @ mlp.W_in.T + d.reads.attn_out @ W_U.T
    dW_in = last.T @ d.reads.base_in + W_O.T @ d.reads.attn_in
    dW_U = last.T @ d.reads.base_out + W_O.T @ d.reads.attn_out + mlp.W_out.T @ d.mlp_out
    db_in, db_U = xp.sum(d.reads.base_in, axis=0), xp.sum(d.reads.base_out, axis=0)
    if mlp.b_out is not None:
        dW_U = dW_U + mlp.b_out[:, None] * db_U

    d_rows = rows_backward(d.scores, d.v, dlast[None, ...], p, c.rows, cfg)
    db_O = None if attn.b_O is None else xp.sum(dlast, axis=0)
    d_attn = d_rows.attn._replace(W_O=xp.reshape(dW_O, attn.W_O.shape), b_O=db_O)
    d_mlp = feed_forward.Params(
        W_in=dW_in, b_in=None if mlp.b_in is None else db_in,
        W_out=d.mlp_out @ W_U.T, b_out=None if mlp.b_out is None else db_U @ W_U.T,
    )  # fmt: skip
    d_head = unembedding.Params(dW_U, None if p.unembed.b_U is None else db_U)
    return tables.whole(d_rows, Block(None, d_attn, None, d_mlp), None, d_head, cfg)


def _last(p: Params, rows: Rows) -> Inexact[Array, "U D"]:
    """x + b_O of each row that asks."""
    x, b_O = rows.x[0, -rows.seats.asking :, :], p.blocks[0].attn.b_O
    return x if b_O is None else x + b_O


def _W_U(p: Params) -> Inexact[Array, "D V"]:
    W_U = tables.head(p).W_U
    assert W_U is not None
    return W_U


# ------------------------------------------------------------------------------------------ for each example


def forward(p: Circuits, rows: Integer[Array, "B T"], cfg: ModelConfig) -> tuple[Inexact[Array, "B 1 V"], Cache]:
    """The logits of the last position. rows: where an example's tokens stand (`Rows.seats`)."""
    logits, looked = answer(p, rows, cfg.activation)
    return logits[:, None, :], Cache(looked)


def say(p: Circuits, rows: Integer[Array, "B T"], cfg: ModelConfig) -> Inexact[Array, "B 1 V"]:
    """The logits alone, where no backward follows."""
    return answer_alone(p, rows, cfg.activation)[:, None, :]


def backward(dlogits: Inexact[Array, "B 1 V"], c: Cache, cfg: ModelConfig) -> Circuits:
    """The gradient of every circuit."""
    return answer_backward(dlogits[:, 0, :], c.looked)


@fused
def answer(p: Circuits, rows: Integer[Array, "B T"], activation: str) -> tuple[Inexact[Array, "B V"], Looked]:
    z, pattern = tables.look(p.scores, p.v, rows)
    z, asks = array_namespace(z).reshape(z, (z.shape[0], -1)), rows[:, -1] - (p.v.shape[0] - p.scores.shape[2])
    post, c_act = activations.forward(z @ p.reads.attn_in + _own(p.reads.base_in, asks), activation)
    direct = z @ p.reads.attn_out + _own(p.reads.base_out, asks)
    return post @ p.mlp_out + direct, Looked(p.reads, p.v, p.mlp_out, rows, pattern, z, post, c_act)


@fused
def answer_alone(p: Circuits, rows: Integer[Array, "B T"], activation: str) -> Inexact[Array, "B V"]:
    return answer(p, rows, activation)[0]


@fused
def answer_backward(dlogits: Inexact[Array, "B V"], c: Looked) -> Circuits:
    U, (R, H, K) = c.reads.base_in.shape[0], c.v.shape
    asks, dpre = c.rows[:, -1] - (R - U), activations.backward(dlogits @ c.mlp_out.T, c.activation)
    dz = dpre @ c.reads.attn_in.T + dlogits @ c.reads.attn_out.T
    dscores, dv = tables.look_backward(array_namespace(dz).reshape(dz, (-1, H, K)), c.v, c.rows, c.pattern, U)
    d_in, d_out = _own_backward(dpre, asks, U), _own_backward(dlogits, asks, U)
    d_reads = Reads(d_in, d_out, sum_outer(c.z, dpre), sum_outer(c.z, dlogits))
    return Circuits(dscores, dv, d_reads, sum_outer(c.post, dlogits))


def _own(base: Inexact[Array, "U N"], asks: Integer[Array, " B"]) -> Array:
    """Each example's row; where all ask alike, that one, for all."""
    return base if base.shape[0] == 1 else gather_rows(base, asks)


def _own_backward(dy: Inexact[Array, "B N"], asks: Integer[Array, " B"], U: int) -> Inexact[Array, "U N"]:
    return array_namespace(dy).sum(dy, axis=0, keepdims=True) if U == 1 else scatter_add_rows(dy, asks, U)
