"""The residual stream in parts: what each sublayer reads, as a sum over who wrote it.

reads(t)["blocks.0.mlp"]   [("embedding", [B T D]), ("head 0", …), …, ("biases", …)], which add up to what the
                           feed-forward network of block 0 reads; likewise attention and the unembedding

Norms    y = g r (x − mean x) + b is linear in x once r = 1/√(mean (x − mean x)² + ε) is known: each part passes with
         the r of the whole, and b goes to the part "biases". So the parts still add up, exactly.

Source   Elhage et al. 2021, A mathematical framework for Transformer circuits (heads write to the stream independently)
"""

from typing import Any

import numpy as np

from onelayer.arrays import Array
from onelayer.layers import layer_norm
from onelayer.microscope.trace import Trace

__all__ = ["BIASES", "heads_out", "reads"]

Parts = dict[str, Array]  # label -> [B T D]
BIASES = "biases"


def reads(t: Trace) -> dict[str, Parts]:
    """Reader -> parts: `blocks.0.attn`, `blocks.0.mlp`, …, `unembed`."""
    found: dict[str, Parts] = {}
    if t.cfg.architecture == "decoder_only":
        found["unembed"] = _walk(t, t.params, "", found)
        return found
    _walk(t, t.params.encoder, "encoder.", found)
    found["unembed"] = _walk(t, t.params.decoder, "decoder.", found)
    return found


def heads_out(t: Trace, attention: str) -> Array:
    """What each head writes: z_h W_O[h]  [B H T D]."""
    z, W_O = t.values[f"{attention}.hook_z"], t.weights[f"{attention}.W_O"]
    return np.swapaxes(z, 1, 2) @ W_O


def _walk(t: Trace, stack: Any, prefix: str, found: dict[str, Parts]) -> Parts:
    """Up one stack; the parts of what is read above it."""
    pre, post = t.cfg.norm == "pre", t.cfg.norm == "post"
    embedded = t.values[f"{prefix}hook_embed"]
    entered = t.values[f"{prefix}blocks.0.hook_resid_pre"]
    parts: Parts = {"token": embedded}
    if not np.array_equal(embedded, entered):
        parts["position"] = entered - embedded
    for i, block in enumerate(stack.blocks):
        scope = f"{prefix}blocks.{i}"
        found[f"{scope}.attn"] = _normed(parts, block.ln1, t) if pre else parts
        rows = t.values[f"{scope}.hook_resid_mid"].shape[1]
        below = _last(_together(parts, "embedding", ("token", "position")), rows)
        parts = _write_heads(t, below, f"{scope}.attn", "head")
        parts = _normed(parts, block.ln1, t) if post else parts
        if f"{scope}.hook_cross_out" in t.values:
            found[f"{scope}.cross_attn"] = _normed(parts, block.ln_cross, t) if pre else parts
            parts = _write_heads(t, parts, f"{scope}.cross_attn", "cross head")
            parts = _normed(parts, block.ln_cross, t) if post else parts
        found[f"{scope}.mlp"] = _normed(parts, block.ln2, t) if pre else parts
        parts = {**parts, "feed-forward": t.values[f"{scope}.hook_mlp_out"]}
        parts = _normed(parts, block.ln2, t) if post else parts
        if i < len(stack.blocks) - 1:
            new = [label for label in parts if "head" in label or label == "feed-forward"]
            parts = _together(parts, f"block {i}", new)
    return _normed(parts, stack.ln_final, t)


def _write_heads(t: Trace, parts: Parts, attention: str, word: str) -> Parts:
    heads = heads_out(t, attention)
    parts = {**parts, **{f"{word} {h}": heads[:, h] for h in range(heads.shape[1])}}
    b_O = t.weights.get(f"{attention}.b_O")
    return parts if b_O is None else _biased(parts, b_O)


def _normed(parts: Parts, p: Any, t: Trace) -> Parts:
    """The parts, each through the norm with the whole's 1/standard deviation."""
    if p is None:
        return parts
    centre = isinstance(p, layer_norm.Params)

    def centred(x: Array) -> Array:
        return x - x.mean(axis=-1, keepdims=True) if centre else x

    whole = centred(sum(parts.values(), start=np.zeros(())))
    r = 1 / np.sqrt(np.mean(whole**2, axis=-1, keepdims=True) + t.cfg.norm_eps)
    normed = {label: p.gain * r * centred(x) for label, x in parts.items()}
    return _biased(normed, p.bias) if centre else normed


def _biased(parts: Parts, bias: Array) -> Parts:
    like = next(iter(parts.values()))
    return {**parts, BIASES: parts.get(BIASES, np.zeros_like(like)) + bias}


def _last(parts: Parts, rows: int) -> Parts:
    return {label: x[:, x.shape[1] - rows :] for label, x in parts.items()}


def _together(parts: Parts, label: str, some: Any) -> Parts:
    """Some of the parts as one; it takes the place of the first of them."""
    some = [name for name in some if name in parts]
    if not some:
        return parts
    whole = sum((parts[name] for name in some), start=np.zeros(()))
    return {label if name == some[0] else name: whole if name == some[0] else x
            for name, x in parts.items() if name == some[0] or name not in some}  # fmt: skip
