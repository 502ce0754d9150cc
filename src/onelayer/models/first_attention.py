"""The first attention's queries, keys and values from tables of tokens and of places: an exact shortcut in NumPy.

Shapes    tokens [B T]     x [B T D]     N = 3HK: q, k and v side by side (attention_rows.py)
          token [V N]     place [T N]     rstd [V T]     y [B T N]

Why       In the first layer a row is a sum, x = E[token] + P[place], and a product of a sum is the sum of the products:
          x W = (E W)[token] + (P W)[place]. That is V + T rows to be multiplied instead of B·T, forwards and twice
          backwards. Norm "pre" is in the way by one number a row: centring is linear, and the gain is E's and P's.

Forward   W = [W_Q W_K W_V]      norm "pre": E, P centred (layer norm)
          token, place and b by one product: rows W, rows = gain E over gain P over b_norm; to b comes b_QKV
          rstd[v, t] = 1/√(mean (E[v] + P[t])² + ε)
          y = rstd[v, t] (token[v] + place[t]) + b    and on as in attention; where norm is not "pre", rstd is 1
          x = E[token] + P[place], neither centred, goes on past attention.

Backward  ∂a is ∂loss/∂a; what is looked up adds up what all who looked there send back
          ∂token[v] = Σ rstd ∂y over the rows with v          ∂place[t] = Σ rstd ∂y over those at t          ∂b = Σ ∂y
          ∂rstd[v, t] = Σ ∂y · (token[v] + place[t])          over the rows with v at t
          ∂W = rowsᵀ ∂(token over place over b)               ∂rows = ∂(token over place over b) Wᵀ
          c = −rstd³ ∂rstd / D       ∂gain = Σ ∂rows (E over P)
          ∂E = gain ∂rows[E] + (Σ_t c) E + c P                ∂P = gain ∂rows[P] + (Σ_v c) P + cᵀ E
          past attention, to ∂E and ∂P: Σ ∂x over the same rows

Exact     where places are numbered alike for all examples and a method adds to the embeddings what hangs on the place
          alone (as all do), turns q and k, or adds a `PAIRWISE` bias. `fits` says so, and whether it is less work:
          without the kernel that looks rows up, NumPy's passes over y take as long as the products.
          Equal to the plain path up to rounding: tests/test_first_attention.py.

Source    docs/performance.md. Every step: docs/derivations/first_attention.md
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from ..arrays import Array, Tap, aligned, gather_rows, keep, natural, scatter_add_rows
from ..fused import fused, has_kernel
from ..layers import embedding, layer_norm, linear, rms_norm
from ..positions import Method, Places
from ..sublayers import attention, attention_blocked, attention_rows, normalise
from . import decoder_only, encoder_decoder
from .config import ModelConfig
from .first import First, FirstBackward

LOOK_UP = 60  # multiply-adds of a product that take as long as a number of y: looked up, and its gradient added up
ONCE = 4  # times as long takes what is done once a step: on one thread, and each thread's gradients are added up
WORTHWHILE = 1 << 25  # multiply-adds, the least to be saved


class Tables(NamedTuple):
    """What the examples meet in the place of a first block's `attn`, and of its `ln1` where norm is "pre".

    x = E[token] + P[place]: in the gradient these are None, for `leave` returns what they feel.
    """

    token: Float[np.ndarray, "V N"]
    place: Float[np.ndarray, "T N"]
    rstd: Float[np.ndarray, "V T"] | None
    b: Float[np.ndarray, " N"] | None
    W_O: Float[np.ndarray, "H K D"]
    b_O: Float[np.ndarray, " D"] | None
    pos: Any
    E: Float[np.ndarray, "V D"] | None
    P: Float[np.ndarray, "T D"] | None


class Seen(NamedTuple):
    """The parameters, with Tables in them. Its gradient is of the same kind; where the positions' is to be, stands
    ∂P, what each place feels past attention."""

    params: Any


class Stack(NamedTuple):
    """What the tables of a stack (`decoder_only.Params`, an encoder, a decoder) were made of."""

    ln1: Any  # of norm "pre", else None
    attn: attention.Params
    W: Float[np.ndarray, "D N"]
    x: Float[np.ndarray, "V+T D"]  # E over P
    rows: Float[np.ndarray, "R D"]  # as they meet W
    rstd: Any  # [V T], of norm "pre"
    pos_embed: Any


class Looked(NamedTuple):
    """A first attention's cache."""

    tables: Tables
    tokens: Integer[np.ndarray, "B T"]
    attended: attention_rows.Attended


class Cache(NamedTuple):
    model: decoder_only.Cache | encoder_decoder.Cache


def fits(p: Any, cfg: ModelConfig, read: int, *tokens: np.ndarray) -> bool:
    """Whether the shortcut is exact for this model, and saves work on such tokens: [B T], or the source and [B T]."""
    position, D, N = cfg.position_method, cfg.d_model, 3 * cfg.n_heads * cfg.head_width
    longest = max(ids.shape[1] for ids in tokens)
    all_ask = cfg.architecture == "encoder_decoder" or cfg.n_layers > 1 or read >= longest
    pairwise = position.pairwise or not position.has("score")
    alike = cfg.position_ids == "sequential"
    if not (has_kernel(gather) and alike and all_ask and pairwise and longest < attention_blocked.LONG):
        return False
    stacks, saved = _stacks(p), 0
    for ids, W_E in zip(tokens, (_W_E(p, stack) for stack in stacks), strict=True):
        V, T = len(W_E), ids.shape[1]
        once = 3 * D * (N * (V + T) + (V * T if cfg.norm == "pre" else 0))
        saved += (3 * D - LOOK_UP) * N * ids.size - ONCE * once
    in_rows = [attention_rows.fits(s.blocks[0].attn, _W_E(p, s), _W_E(p, s), position, keep) for s in stacks]
    return saved > WORTHWHILE and all(in_rows)


# ------------------------------------------------------------------------------------------ once a step


def meet(p: Any, cfg: ModelConfig, *tokens: np.ndarray) -> tuple[Seen, tuple[Stack, ...]]:
    """The parameters with tables for tokens of such lengths, and what these were made of."""
    stacks = _stacks(p)
    made = [tabulate(_W_E(p, stack), stack, ids.shape[1], cfg) for ids, stack in zip(tokens, stacks, strict=True)]
    seen = [_with_first(stack, tables, None, cfg) for stack, (tables, _) in zip(stacks, made, strict=True)]
    return Seen(_with_stacks(p, seen)), tuple(origin for _, origin in made)


def meet_backward(d: Seen, origins: tuple[Stack, ...], cfg: ModelConfig) -> Any:
    """The gradient of every parameter."""
    stacks, tables = [], []
    for stack, origin in zip(_stacks(d.params), origins, strict=True):
        dE, d_pos, d_ln1, d_attn = tabulate_backward(stack.blocks[0].attn, stack.pos_embed, origin, cfg)
        stack = stack._replace(pos_embed=d_pos)
        stacks.append(_with_first(stack, d_attn, d_ln1, cfg))
        tables.append(dE)
    if stacks[0].embed is None:  # the decoder's table serves both
        tables = [None, tables[0] + tables[1]]
    return _with_stacks(d.params, [
        stack if dE is None else stack._replace(embed=embedding.Params(stack.embed.W_E + dE))
        for stack, dE in zip(stacks, tables, strict=True)
    ])  # fmt: skip


def tabulate(W_E: Float[np.ndarray, "V D"], stack: Any, T: int, cfg: ModelConfig) -> tuple[Tables, Stack]:
    """A stack's tables, and what they were made of."""
    position, (block, *_), V = cfg.position_method, stack.blocks, len(W_E)
    P, c_pos = _places(position, stack.pos_embed, T, W_E)
    ((W, b),) = attention_rows.joints(block.attn, position)
    x = np.concatenate((W_E if cfg.scale == 1 else cfg.scale * W_E, P))
    added, rows, ln1, rstd = (x[:V], x[V:]), x, block.ln1 if cfg.norm == "pre" else None, None
    if isinstance(ln1, layer_norm.Params):
        x = _centred(x)
        rows = np.concatenate((ln1.gain * x, ln1.bias[None]))
    elif ln1 is not None:
        rows = ln1.gain * x
    if ln1 is not None:
        rstd = _rstd(x[:V], x[V:], cfg.norm_eps)
    y = rows @ W
    if len(y) > V + T:
        b = y[-1] if b is None else y[-1] + b
    tables = Tables(y[:V], y[V : V + T], rstd, b, block.attn.W_O, block.attn.b_O, block.attn.pos, *added)
    return tables, Stack(ln1, block.attn, W, x, rows, rstd, c_pos)


def tabulate_backward(
    d: Any, past: Array | None, c: Stack, cfg: ModelConfig
) -> tuple[Array, Any, normalise.Params, attention.Params]:
    """∂W_E, and what the positions, ln1 and attn feel. d: Tables of gradients. past: ∂P past attention."""
    position, V, both, d_ln1 = cfg.position_method, len(d.token), len(c.x), None
    dy = np.concatenate((d.token, d.place, d.b[None]) if len(c.rows) > both else (d.token, d.place))
    drows, dW = dy @ c.W.T, c.rows.T @ dy
    dx = drows[:both]
    if c.ln1 is not None:
        d_gain, dx = np.sum(dx * c.x, axis=0), c.ln1.gain * dx
        shrink = c.rstd * c.rstd * c.rstd * d.rstd / -cfg.d_model
        of_each = np.concatenate((np.sum(shrink, axis=1), np.sum(shrink, axis=0)))
        dx += of_each[:, None] * c.x
        dx[:V] += shrink @ c.x[V:]
        dx[V:] += shrink.T @ c.x[:V]
        if isinstance(c.ln1, layer_norm.Params):
            dx, d_ln1 = _centred(dx), layer_norm.Params(d_gain, drows[-1])
        else:
            d_ln1 = rms_norm.Params(d_gain)
    d_pos = None if past is None else position.encode_x_backward((dx[V:] + past)[None], c.pos_embed)[1]
    d_joint = linear.Params(dW, None if c.attn.b_Q is None else d.b)
    d_attn = attention_rows.joints_backward([d_joint], c.attn, position)
    d_attn = d_attn._replace(W_O=d.W_O, b_O=d.b_O, pos=d.pos)
    return cfg.scale * dx[:V], d_pos, d_ln1, d_attn


def _places(position: Method, p: Any, T: int, W_E: Float[np.ndarray, "V D"]) -> tuple[Float[np.ndarray, "T D"], Any]:
    """What a method adds to the embeddings, and its cache."""
    if p is None:
        return _fixed_places(position, T, W_E.shape[1], W_E.dtype)
    P, c = position.encode_x(p, np.zeros((1, T, W_E.shape[1]), W_E.dtype), natural(T))
    return P[0], c


@lru_cache(maxsize=16)
def _fixed_places(position: Method, T: int, D: int, dtype: Any) -> tuple[Float[np.ndarray, "T D"], Any]:
    """Of a method that learns nothing: every step asks for the same."""
    P = np.zeros((1, T, D), dtype)
    P, c = position.encode_x(None, P, natural(T)) if position.has("embedding") else (P, None)
    return P[0], c


def _centred(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Less each row's mean; it is its own transpose."""
    return x - np.mean(x, axis=1, keepdims=True)


def _rstd(E: Float[np.ndarray, "V D"], P: Float[np.ndarray, "T D"], eps: float) -> Float[np.ndarray, "V T"]:
    """1/√(mean (E[v] + P[t])² + ε), of all pairs by one product; what rounding takes below zero is zero."""
    squares = np.mean(E * E, axis=1)[:, None] + np.mean(P * P, axis=1) + E @ P.T * E.dtype.type(2 / E.shape[1])
    return 1 / np.sqrt(np.maximum(squares, 0) + E.dtype.type(eps))


def _stacks(p: Any) -> tuple[Any, ...]:
    """Encoder and decoder, or the one that there is."""
    return (p.encoder, p.decoder) if isinstance(p, encoder_decoder.Params) else (p,)


def _with_stacks(p: Any, stacks: list[Any]) -> Any:
    return p._replace(encoder=stacks[0], decoder=stacks[1]) if isinstance(p, encoder_decoder.Params) else stacks[0]


def _with_first(stack: Any, attn: Any, ln1: Any, cfg: ModelConfig) -> Any:
    """With another attention in the first block, and another ln1 where that is the attention's."""
    first = stack.blocks[0]._replace(attn=attn, **({"ln1": ln1} if cfg.norm == "pre" else {}))
    return stack._replace(blocks=(first, *stack.blocks[1:]))


def _W_E(p: Any, stack: Any) -> Array:
    return (stack.embed or p.decoder.embed).W_E


# ------------------------------------------------------------------------------------------ for each example


def forward(
    seen: Seen,
    tokens: Integer[np.ndarray, "B T"],
    cfg: ModelConfig,
    *,
    read: int | None = None,
    source: Integer[np.ndarray, "B S"] | None = None,
    source_present: np.ndarray | None = None,
) -> tuple[Float[np.ndarray, "B R V"], Cache]:
    """The model's own, but for how its first blocks look around."""
    if source is None:
        logits, c = decoder_only.forward(seen.params, tokens, cfg, read=read, first=_first(tokens))
    else:
        first = _first(source), _first(tokens)
        logits, c = encoder_decoder.forward(
            seen.params, source, tokens, cfg, source_present=source_present, first=first
        )
    return logits, Cache(c)


def _first(tokens: Integer[np.ndarray, "B T"]) -> First:
    return First(enter, partial(look, tokens))


def backward(dlogits: Float[np.ndarray, "B R V"], c: Cache, cfg: ModelConfig) -> Seen:
    """The gradient of all that the examples met."""
    if isinstance(c.model, decoder_only.Cache):
        return Seen(decoder_only.backward(dlogits, c.model, cfg, first=FirstBackward(leave, look_backward)))
    return Seen(encoder_decoder.backward(dlogits, c.model, cfg, first=FirstBackward(leave, look_backward)))


def enter(
    stack: Any, embed: Any, tokens: Integer[np.ndarray, "B T"], ids: Array, cfg: ModelConfig, tap: Tap = keep
) -> tuple[Float[np.ndarray, "B T D"], tuple[Tables, np.ndarray], None]:
    """`first.enter`: x, two rows of each token and its place."""
    tables = stack.blocks[0].attn
    return gather(tokens, tables.E, tables.P, None, None), (tables, tokens), None


def leave(
    dx: Float[np.ndarray, "B T D"], c: Any, cfg: ModelConfig, tap: Tap = keep
) -> tuple[embedding.Params, Array | None]:
    """`first.leave`, but for the positions: ∂P, which `tabulate_backward` has more of."""
    tables, tokens = c.embed
    dE, dP, *_ = gather_backward(dx, tokens, tables.E, tables.P, None, None)
    dE = dE if cfg.scale == 1 else cfg.scale * dE
    return embedding.Params(dE), dP if cfg.position_method.has("embedding") else None


@fused
def look(
    tokens: Integer[np.ndarray, "B T"], p: Any, x: Float[np.ndarray, "B T D"], n: int, places: Places, position: Method,
    cfg: ModelConfig, tap: Tap = keep,
) -> tuple[Float[np.ndarray, "B T D"], tuple[Any, Looked]]:  # fmt: skip
    """`halves.look`, of a block with Tables."""
    tables, (H, K, _) = p.attn, p.attn.W_O.shape
    y = gather(tokens, tables.token, tables.place, tables.rstd, tables.b)
    q, k, v = attention_rows.side_by_side(y, (H, K))
    out, attended = attention_rows.attend(tables.W_O, tables.b_O, tables.pos, (q, k, v), (None, None), places, position)
    mid, c_ln1 = normalise.of_sum(p.ln1, x, out, cfg.norm_eps)  # the norm of "post"
    return mid, (c_ln1, Looked(tables, tokens, attended))


@fused
def look_backward(
    dmid: Float[np.ndarray, "B T D"], c: tuple[Any, Looked], position: Method, cfg: ModelConfig, tap: Tap = keep
) -> tuple[Float[np.ndarray, "B T D"], tuple[normalise.Params, Tables]]:
    """`halves.look_backward`: what x feels past attention, and the gradients of ln1 and the tables."""
    (c_ln1, (tables, tokens, attended)), (H, K, _) = c, c[1].tables.W_O.shape
    dx, d_ln1 = normalise.backward(dmid, c_ln1)
    dy = aligned((*tokens.shape, 3 * H * K), dx.dtype)
    dq_dk_dv = attention_rows.side_by_side(dy, (H, K))
    _, dW_O, db_O, dpos = attention_rows.attend_backward(dx, attended, position, *dq_dk_dv)
    dtables = gather_backward(dy, tokens, *tables[:4])
    return dx, (d_ln1, Tables(*dtables, dW_O, db_O, dpos, None, None))


@fused
def gather(
    tokens: Integer[np.ndarray, "B T"],
    token: Float[np.ndarray, "V N"],
    place: Float[np.ndarray, "M N"],
    rstd: Float[np.ndarray, "V M"] | None,
    b: Float[np.ndarray, " N"] | None,
) -> Float[np.ndarray, "B T N"]:
    """y. Tokens may be fewer than the M places of the tables."""
    T = tokens.shape[1]
    y = gather_rows(token, tokens)
    y += place[:T]
    if rstd is not None:
        y *= rstd[tokens, natural(T)][:, :, None]
    return y if b is None else y + b


@fused
def gather_backward(
    dy: Float[np.ndarray, "B T N"],
    tokens: Integer[np.ndarray, "B T"],
    token: Float[np.ndarray, "V N"],
    place: Float[np.ndarray, "M N"],
    rstd: Float[np.ndarray, "V M"] | None,
    b: Float[np.ndarray, " N"] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """∂token, ∂place, ∂rstd and ∂b."""
    (V, M), T, drstd = (len(token), len(place)), tokens.shape[1], None
    db = None if b is None else np.sum(dy, axis=(0, 1))
    if rstd is not None:
        along = np.sum(dy * (gather_rows(token, tokens) + place[:T]), axis=2)
        drstd = scatter_add_rows(along, tokens * M + natural(T), V * M).reshape(V, M)
        dy = dy * rstd[tokens, natural(T)][:, :, None]
    dplace = np.zeros_like(place)
    dplace[:T] = np.sum(dy, axis=0)
    return scatter_add_rows(dy, tokens, V), dplace, drstd, db
