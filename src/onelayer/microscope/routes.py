"""Routes into a one-layer decoder's embedding, all 2(1 + 3H) of them, for little more than one backward.

Why       In one layer what attention reads hangs on (position, token) alone. So what comes back through W_Q, W_K or W_V
          may be added up by (position, token) first, and carried on as T·V rows instead of B·T:

            ∂q [B T H K] --add up--> [T V H K] --W_Q[h]ᵀ, head by head--> [T V D] --norm's backward--> ∂W_E, ∂W_pos

          Attention's backward itself is run twice: for what the skip around the feed-forward sends, and for what comes
          through the feed-forward. Every map on the way is linear, so the parts add up to the gradient.

Labels    those of provenance.routes: "skip · Q0" is the skip around the feed-forward, then the query of head 0.
Fits      one layer, a decoder, an untied table, positions that act row by row and scores that do not look at x;
          `one_layer` is None elsewhere, and provenance's gates do it there.

Source    models/decoder_only.py; the same shortcut as models/tables.py
"""

from collections.abc import Iterator

import numpy as np

from ..arrays import Array, scatter_add_rows
from ..sublayers import attention, normalise
from .trace import Trace

__all__ = ["one_layer"]

Parts = dict[str, tuple[tuple[str, ...], Array]]  # tensor: labels, parts [K, *shape]


def one_layer(t: Trace) -> Parts | None:
    """The gradients that more than one route reaches; None where the shortcut does not hold."""
    position = t.cfg.position_method
    looks = any("route_bias" in name for name in t.gradients)
    plain = position.name in ("none", "learned", "sinusoidal") or not position.has("embedding")
    if t.cfg.architecture != "decoder_only" or t.cfg.n_layers != 1 or t.cfg.tied != "none" or looks or not plain:
        return None
    block, g = t.cache.blocks[0], t.gradients
    names, found, entered = ("skip", "mlp"), {}, []
    weights: list[dict[str, Array]] = []
    for way in ("route_skip_mlp", "route_mlp"):
        dmid, d_ln1 = g[f"blocks.0.{way}"], None
        if t.cfg.norm == "post":
            dmid, d_ln1 = normalise.backward(dmid, block.ln1)
        seen: dict[str, Array] = {}
        _, _, d_attn = attention.backward(dmid, block.attn, position, _note(seen))
        entered.append(list(_entering(t, dmid, seen)))
        named = {f"blocks.0.attn.{k}": x for k, x in d_attn._asdict().items() if k != "pos" and x is not None}
        named |= {f"blocks.0.ln1.{k}": x for k, x in ({} if d_ln1 is None else d_ln1._asdict()).items()}
        if hasattr(d_attn.pos, "_asdict"):
            named |= {f"blocks.0.attn.pos.{k}": x for k, x in d_attn.pos._asdict().items()}
        weights.append(named)
    for name in weights[0]:
        found[name] = names, np.stack([w[name] for w in weights])

    labels = tuple(f"{way} · {label}" for way, parts in zip(names, entered, strict=True) for label, _, _ in parts)
    rows = np.stack([x for parts in entered for _, x, _ in parts])  # [routes T V D]
    found["embed.W_E"] = labels, t.cfg.scale * rows.sum(axis=1)
    if "pos_embed.W_pos" in t.weights:
        by_place = np.zeros((len(rows), *t.weights["pos_embed.W_pos"].shape), dtype=rows.dtype)
        by_place[:, : rows.shape[1]] = rows.sum(axis=2)
        found["pos_embed.W_pos"] = labels, by_place
    if t.cfg.norm == "pre" and block.ln1 is not None:
        through = [
            (f"{way} · {label}", d) for way, parts in zip(names, entered, strict=True) for label, _, d in parts if d
        ]
        for leaf in through[0][1]:
            found[f"blocks.0.ln1.{leaf}"] = tuple(k for k, _ in through), np.stack([d[leaf] for _, d in through])
    return found


def _entering(t: Trace, dmid: Array, seen: dict[str, Array]) -> Iterator[tuple[str, Array, dict[str, Array]]]:
    """(label, ∂x by position and token [T V D], the gradients of the norm in front of attention), route by route."""
    block, tokens, V = t.cache.blocks[0], t.cache.embed.tokens, t.cfg.vocab_size
    pre = t.cfg.norm == "pre"

    def by_row(x: Array) -> Array:
        """[B n …] of the last n positions -> [T V …]."""
        first = tokens.shape[1] - x.shape[1]
        out = np.zeros((tokens.shape[1], V, *x.shape[2:]), dtype=x.dtype)
        for i in range(x.shape[1]):
            out[first + i] = scatter_add_rows(x[:, i], tokens[:, first + i], V)
        return out

    yield "skip", by_row(dmid), {}
    cache = _norm_rows(block.ln1, tokens, V) if pre else None
    sent = {end: by_row(seen[f"hook_{end.lower()}"]) for end in "QKV"}
    for h in range(t.cfg.n_heads):
        for end, d in sent.items():
            dx = d[:, :, h] @ getattr(block.attn.p, f"W_{end}")[h].T
            dx, d_norm = normalise.backward(dx, cache) if pre else (dx, None)
            yield f"{end}{h}", dx, {} if d_norm is None else d_norm._asdict()


def _norm_rows(c: normalise.Cache, tokens: Array, V: int) -> normalise.Cache:
    """The norm's cache with one row for each (position, token); rows that no example has stay zero, and get nothing."""
    if c is None:
        return None
    place = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)

    def rows(x: Array) -> Array:
        out = np.zeros((tokens.shape[1], V, x.shape[-1]), dtype=x.dtype)
        out[place, tokens] = x
        return out

    return type(c)(c.gain, *(rows(x) for x in c[1:]))


def _note(seen: dict[str, Array]):
    def tap(name: str, x: Array) -> Array:
        seen[name] = x
        return x

    return tap
