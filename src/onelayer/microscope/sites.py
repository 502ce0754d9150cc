"""Sites: where a weight's gradient is put together, and from what.

A weight is used at one site (a tied table at two or three), and there its gradient is a sum over rows, one row for each
example and position:

    outer   ∂W = Σ left ⊗ right        a matrix: left came in, right is the gradient of what went out
    table   ∂W[id] = Σ right           an embedding: left is one-hot
    sum     ∂b = Σ right               a bias, or a gain (right = x̂ ∂y)

All else is bookkeeping of which axes of that sum are kept: examples, rows, or, inside attention, the other end of the
look: a query's gradient is itself a sum over sources, a key's and a value's a sum over queries (`expanded`).

    ∂W_Q = Σ x_t ⊗ ∂q_t      ∂q_t = Σ_s ∂scores_ts k_s/√K           kept apart for each source s
    ∂W_K = Σ x_s ⊗ ∂k_s      ∂k_s = Σ_t ∂scores_ts q_t/√K           kept apart for each query t
    ∂W_V = Σ x_s ⊗ ∂v_s      ∂v_s = Σ_t A_ts ∂z_t
    ∂W_O = Σ z_t ⊗ ∂out_t    z_t  = Σ_s A_ts v_s
    with rotary positions ∂q and ∂k are turned back, row by row, which is linear too.

Source    sublayers/attention.py; per-row outer products: Goodfellow 2015, arXiv:1510.01799
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from ..arrays import Array, scatter_add_rows
from ..errors import unknown
from .trace import Trace

__all__ = ["Site", "contract", "expanded", "place_of", "sites"]

Stage = Literal["query", "key", "out", "row"]


class Place(NamedTuple):
    """Where a weight stands: stack "", "encoder." or "decoder."; block number, −1 below all, len(blocks) above all."""

    stack: str
    block: int
    sublayer: str  # attn, cross_attn, mlp, ln1, ln_cross, ln2; embed, pos_embed, ln_final, unembed
    leaf: str  # W_Q, gain, pos.W_bias …

    @property
    def scope(self) -> str:
        return f"{self.stack}blocks.{self.block}"


class Site(NamedTuple):
    kind: Literal["outer", "table", "sum", "opaque"]  # opaque: what a position method learns by its own rule
    gradient: str  # the named gradient that is gathered here; a gate on it is a gate on this site alone
    left: Array | None  # outer: [B P M]; table: ids [B P]
    right: Array | None  # [B P N]
    shape: tuple[int, ...]
    layout: Literal["", "heads", "transposed"]  # of [M N]: as it is; [D HK] -> [H D K]; [N M]
    stage: Stage  # what a row is: a query, a key (of attention), attention's output, or a row of its own
    attention: str  # the attention it belongs to: "blocks.0.attn"
    use: str  # embed, source_embed or unembed for a table; what tied tables are told apart by
    first: int  # the position of row 0 in its sequence


def place_of(tensor: str) -> Place:
    """`decoder.blocks.0.attn.pos.W_bias` -> ("decoder.", 0, "attn", "pos.W_bias")."""
    parts = tensor.split(".")
    stack = f"{parts.pop(0)}." if parts[0] in ("encoder", "decoder") else ""
    if parts[0] == "blocks":
        return Place(stack, int(parts[1]), parts[2], ".".join(parts[3:]))
    above = parts[0] in ("ln_final", "unembed")
    return Place(stack, 10**6 if above else -1, parts[0], ".".join(parts[1:]))


def sites(t: Trace, tensor: str, gradients: Mapping[str, Array] | None = None) -> list[Site]:
    """The sites of a weight, with the trace's gradients or those of a replay."""
    if tensor not in t.weights:
        raise unknown("weight", tensor, t.weights)
    g = t.gradients if gradients is None else gradients
    stack, tied = _stack(t, tensor), t.cfg.tied
    place = place_of(tensor)
    if tensor.endswith("embed.W_E"):
        found = [_table(t, tensor, "embed", stack, g)]
        if tied == "all":
            found.append(_table(t, tensor, "source_embed", t.cache.encoder, g))
        if tied != "none" and place.stack != "encoder.":
            found.append(_unembed(t, g, transposed=True))
        return found
    return [_site(t, tensor, place, stack, g)]


def _stack(t: Trace, tensor: str) -> Any:
    """The cache of the stack that the weight belongs to."""
    if t.cfg.architecture == "decoder_only":
        return t.cache
    return t.cache.encoder if tensor.startswith("encoder.") else t.cache.decoder


def _table(t: Trace, tensor: str, use: str, stack: Any, g: Mapping[str, Array]) -> Site:
    prefix = "encoder." if use == "source_embed" else place_of(tensor).stack
    name = f"{prefix}hook_embed"
    right = g[name] if t.cfg.scale == 1.0 else t.cfg.scale * g[name]
    shape = t.weights[tensor].shape
    return Site("table", name, stack.embed.tokens, right, shape, "", "row", "", use, 0)


def _unembed(t: Trace, g: Mapping[str, Array], transposed: bool) -> Site:
    x, dlogits = t.cache.unembed.x, g["logits"]
    left, right = (dlogits, x) if transposed else (x, dlogits)
    if transposed and "unembed.route_tied" in g and g is not t.gradients:
        left = _tied_gate(t, g) * left
    shape = (left.shape[-1], right.shape[-1])
    name = "unembed.route_tied" if transposed else "logits"
    first = t.batch.tokens.shape[1] - x.shape[1]
    return Site("outer", name, left, right, shape, "", "row", "", "unembed", first)


def _tied_gate(t: Trace, g: Mapping[str, Array]) -> float:
    """Whether a replay let the tied table's share pass: it is gated after its rows have been summed."""
    return float(np.any(g["unembed.route_tied"] != 0))


def _site(t: Trace, tensor: str, place: Place, stack: Any, g: Mapping[str, Array]) -> Site:
    shape, T = t.weights[tensor].shape, t.batch.tokens.shape[1]
    S = t.batch.source.shape[1] if place.stack == "encoder." and t.batch.source is not None else T
    if place.sublayer == "unembed":
        site = _unembed(t, g, transposed=False)
        return site if place.leaf == "W_U" else site._replace(kind="sum", left=None, shape=shape)
    if place.sublayer == "pos_embed":
        name = f"{place.stack}blocks.0.hook_resid_pre"
        right, ids = g[name], getattr(stack.pos_embed, "ids", None)
        if place.leaf != "W_pos" or ids is None:
            return Site("opaque", name, None, None, shape, "", "row", "", "", 0)
        ids = np.broadcast_to(ids, right.shape[:2])
        return Site("table", name, ids, right, shape, "", "row", "", "", 0)
    if place.sublayer == "ln_final":
        c, name = stack.ln_final, f"{place.stack}ln_final.hook_normalized"
        return _norm(place, c, name, g, shape, S)
    block, scope = stack.blocks[place.block], place.scope
    if place.sublayer.startswith("ln"):
        return _norm(place, getattr(block, place.sublayer), f"{scope}.{place.sublayer}.hook_normalized", g, shape, S)
    if place.sublayer == "mlp":
        c = block.mlp
        if place.leaf.endswith("_in"):
            name, left = f"{scope}.mlp.hook_pre", c.linear_in.x
        else:
            name, left = f"{scope}.hook_mlp_out", c.linear_out.x
        first = S - left.shape[1]
        if place.leaf.startswith("b_"):
            return Site("sum", name, None, g[name], shape, "", "row", "", "", first)
        return Site("outer", name, left, g[name], shape, "", "row", "", "", first)
    return _attention(t, place, getattr(block, place.sublayer), g, shape, S)


def _norm(place: Place, c: Any, name: str, g: Mapping[str, Array], shape: tuple[int, ...], length: int) -> Site:
    right = g[name] * c.x_hat if place.leaf == "gain" else g[name]
    return Site("sum", name, None, right, shape, "", "row", "", "", length - right.shape[1])


def _attention(t: Trace, place: Place, c: Any, g: Mapping[str, Array], shape: tuple[int, ...], length: int) -> Site:
    scope = f"{place.scope}.{place.sublayer}"
    out = f"{place.scope}.{'hook_cross_out' if place.sublayer == 'cross_attn' else 'hook_attn_out'}"
    T, S = c.x_q.shape[1], c.x_k.shape[1]
    first = length - T
    which = place.leaf[-1]
    if place.leaf.startswith("pos."):
        return Site("opaque", out, None, None, shape, "", "query", scope, "", first)
    if which == "O":
        left = None if place.leaf == "b_O" else _flat(c.z)
        kind = "sum" if left is None else "outer"
        return Site(kind, out, left, g[out], shape, "", "row" if left is None else "out", scope, "", first)
    name = f"{scope}.hook_{which.lower()}"
    right, x = _flat(g[name]), c.x_q if which == "Q" else c.x_k
    stage: Stage = "query" if which == "Q" else "key"
    row0 = first if which == "Q" else (0 if place.sublayer == "cross_attn" else length - S)
    if place.leaf.startswith("b_"):
        return Site("sum", name, None, right, shape, "", stage, scope, "", row0)
    return Site("outer", name, x, right, shape, "heads", stage, scope, "", row0)


def _flat(x: Array) -> Array:
    """[B T H K] -> [B T HK]."""
    return x.reshape(*x.shape[:2], -1)


# ---------------------------------------------------------------------------------------------------- the other end


def attention_of(t: Trace, scope: str) -> Any:
    """The cache of the attention called `blocks.0.attn`."""
    block, sublayer = scope.rsplit(".", 1)
    return getattr(_stack(t, scope).blocks[int(block.rsplit(".", 1)[1])], sublayer)


def expands(t: Trace, site: Site) -> bool:
    """Whether the other end can be kept apart in closed form: no position rule of its own between it and the rows."""
    if site.stage == "row" or site.kind == "opaque":
        return False
    position = t.cfg.position_method
    if site.attention.endswith("cross_attn"):
        position = position.across()
    looks = position.has("score") and position.name not in _BLIND_BIASES
    mixes = site.stage == "out" or site.gradient.endswith("hook_v")  # by the pattern alone
    return not position.has("value") and (mixes or not looks)


_BLIND_BIASES = ("alibi", "t5")  # biases that look at neither q, k nor x, so that nothing flows back through them


def ends(t: Trace, site: Site) -> int:
    """How many there are at the other end: sources of a query, queries of a key."""
    c = attention_of(t, site.attention)
    return c.x_q.shape[1] if site.stage == "key" else c.x_k.shape[1]


def expanded(t: Trace, site: Site, gradients: Mapping[str, Array] | None = None) -> Iterator[Site]:
    """The site, once for each place at the other end; their sum is the site."""
    g = t.gradients if gradients is None else gradients
    c = attention_of(t, site.attention)
    position = t.cfg.position_method.across() if site.attention.endswith("cross_attn") else t.cfg.position_method
    scale = 1 / math.sqrt(c.p.W_Q.shape[-1])
    dscores, pattern, dz = g[f"{site.attention}.hook_attn_scores"], c.softmax.pattern, g[f"{site.attention}.hook_z"]
    value = site.gradient.endswith("hook_v")
    for end in range(ends(t, site)):
        if site.stage == "out":  # z_t from source s: A_ts v_s
            left = _weigh(pattern[:, :, :, end], c.v[:, end])
            yield site._replace(left=_flat(left))
        elif value:  # ∂v_s from query t: A_ts ∂z_t
            yield site._replace(right=_flat(_weigh(pattern[:, :, end, :], dz[:, end])))
        elif site.stage == "key":  # ∂k_s from query t: ∂scores_ts q_t/√K, turned back
            dk = scale * _weigh(dscores[:, :, end, :], c.q[:, end])
            if position.has("query_key"):
                dk = position.encode_qk_backward(np.zeros_like(c.q), dk, c.encode_qk)[1]
            yield site._replace(right=_flat(dk))
        else:  # ∂q_t from source s: ∂scores_ts k_s/√K, turned back
            dq = scale * _weigh(dscores[:, :, :, end], c.k[:, end])
            if position.has("query_key"):
                dq = position.encode_qk_backward(dq, np.zeros_like(c.k), c.encode_qk)[0]
            yield site._replace(right=_flat(dq))


def _weigh(weights: Array, x: Array) -> Array:
    """weights [B H P], x [B H K] -> [B P H K]."""
    return np.swapaxes(weights, 1, 2)[..., None] * x[:, None]


# ---------------------------------------------------------------------------------------------------- the sum


def contract(site: Site, *, examples: bool = False, rows: bool = False) -> Array:
    """The sum over the site's rows, with examples and rows summed or kept: [B? P? *shape]."""
    assert site.right is not None
    right = site.right
    B, P, N = right.shape
    if site.kind == "sum":
        kept = right if rows else right.sum(axis=1)
        return (kept if examples else kept.sum(axis=0)).reshape(*_kept(B, P, examples, rows), *site.shape)
    assert site.left is not None
    if site.kind == "table":
        return _scatter(site.left, right, site.shape[0], examples, rows)
    left = site.left
    if examples and rows:
        out = left[..., :, None] * right[..., None, :]
    elif examples:
        out = np.swapaxes(left, 1, 2) @ right
    elif rows:
        out = left.transpose(1, 2, 0) @ right.transpose(1, 0, 2)
    else:
        out = left.reshape(B * P, -1).T @ right.reshape(B * P, N)
    return _arrange(out, site)


def _kept(B: int, P: int, examples: bool, rows: bool) -> tuple[int, ...]:
    return ((B,) if examples else ()) + ((P,) if rows else ())


def _arrange(x: Array, site: Site) -> Array:
    """[… M N] as the weight lies: heads apart where it has them."""
    if site.layout == "heads":
        H, _, K = site.shape
        return np.moveaxis(x.reshape(*x.shape[:-1], H, K), -2, -3)
    return x.reshape(*x.shape[:-2], *site.shape)


def _scatter(ids: Array, right: Array, n: int, examples: bool, rows: bool) -> Array:
    B, P, N = right.shape
    if not examples and not rows:
        return scatter_add_rows(right, ids, n)
    if not examples:
        return np.stack([scatter_add_rows(right[:, p], ids[:, p], n) for p in range(P)])
    out = np.zeros((B, P, n, N) if rows else (B, n, N), dtype=right.dtype)
    every = np.arange(B)
    for p in range(P):  # one row of each example at a time, so that no index occurs twice
        target = out[:, p] if rows else out
        target[every, ids[:, p]] += right[:, p]
    return out
