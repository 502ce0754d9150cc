"""The arrays that the microscope page shows, and for each of them the formula that its cells obey.

A view is a named array of the trace. Its value and its gradient each have a rule: a kind, which is a function in
`assets/formulas.js`, and the arrays that the formula reads, which are on the page too. A product with a weight matrix
would need the matrix: its rule carries numbers instead, computed here:

    terms    the value as a sum over a few named parts (the residual stream's writers, heads, routes)
    top      the largest terms of a long sum: which index, and the weight that multiplied what is on the page

Source   the formulas are those of models/*.py, sublayers/*.py and layers/*.py
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from onelayer.arrays import Array
from onelayer.microscope.trace import Trace
from onelayer.report.microscope.stream import BIASES, Parts, heads_out, reads

__all__ = ["Look", "Rule", "Top", "View", "views"]

VALUE, GRADIENT = "value", "gradient"


class Look(NamedTuple):
    """A trace, and what is computed of it once for all views."""

    trace: Trace
    reads: Mapping[str, Parts]
    routes: Mapping[str, Parts]  # block -> last stage of the route -> ∂resid_pre [B T D]

    @classmethod
    def of(cls, t: Trace, routes: Mapping[str, Parts]) -> "Look":
        return cls(t, reads(t), routes)


class Top(NamedTuple):
    """The largest terms of Σ_i left[i] W[i, j]."""

    left: Callable[[Trace], Array]  # [B T I]
    weight: Callable[[Trace], Array]  # [I J]; J is the shape of a row of the view, flattened
    keep: int


class Rule(NamedTuple):
    kind: str
    uses: Mapping[str, Any] = {}  # what the formula reads: role -> name of a view, or [name, side] pairs
    terms: Callable[[Look], Parts] | None = None
    top: Top | None = None
    weights: tuple[str, ...] = ()  # vectors that the formula reads: a norm's gain and bias


class View(NamedTuple):
    name: str
    label: str
    axes: str  # letters: t query or row, s source, h head, k d f v features
    part: str  # of the page
    stack: str  # whose tokens stand along t: "", "encoder.", "decoder."
    sources: str = ""  # whose tokens stand along s
    value: Rule | None = None
    gradient: Rule | None = None


def views(t: Trace) -> list[View]:
    """All views of a model, in the order of its forward pass."""
    if t.cfg.architecture == "decoder_only":
        return [*_stack(t, ""), *_output(t, "")]
    return [*_stack(t, "encoder."), *_stack(t, "decoder."), *_output(t, "decoder.")]


# ---------------------------------------------------------------------------------------------------- stacks


def _stack(t: Trace, st: str) -> Iterator[View]:
    count = (t.cfg.n_encoder_layers or t.cfg.n_layers) if st == "encoder." else t.cfg.n_layers
    for i in range(count):
        yield from _block(t, st, i, count)


def _block(t: Trace, st: str, i: int, count: int) -> Iterator[View]:
    scope, norm = f"{st}blocks.{i}", t.cfg.norm
    cross = f"{scope}.hook_cross_out" in t.values
    resid = f"{scope}.hook_resid_pre"
    if i == 0:
        embed = f"{st}hook_embed"
        same = Rule("same", {"of": [resid, GRADIENT], "why": "positions are added: the gradient passes as it is"})
        yield View(embed, "token embedding", "td", "stream", st, value=Rule("lookup"), gradient=same)
        started = Rule("terms", {"text": "x = W_E[token] + position"}, lambda look: look.reads[f"{scope}.attn"]) \
            if norm != "pre" else Rule("sum", {"of": [[embed, VALUE]], "rest": "position"})  # fmt: skip
    else:
        started = Rule(
            "same", {"of": [f"{st}blocks.{i - 1}.hook_resid_post", VALUE], "why": "the block below wrote it"}
        )
    back = None
    if f"{scope}" in _routed(t, st):
        text = "∂x = around attention + through its queries + keys + values"
        back = Rule("terms", {"text": text}, lambda look: look.routes[scope])
    yield View(resid, "residual stream, before", "td", "stream", st, value=started, gradient=back or Rule("given"))
    if norm == "pre":
        yield _norm_view(t, st, f"{scope}.ln1", [resid], "attn", "read by attention", Rule("given"))

    mid = f"{scope}.hook_resid_mid"
    yield from _attention(t, st, st, f"{scope}.attn", f"{scope}.hook_attn_out", mid, f"{scope}.ln1", resid)
    read_next = "cross_attn" if cross else "mlp"
    skip = f"{scope}.hook_cross_out" if cross else f"{scope}.hook_mlp_out"
    through = f"{scope}.route_{'cross' if cross else 'mlp'}"
    around = "around cross-attention" if cross else "around the feed-forward"
    sums = Rule("sum", {"of": [[skip, GRADIENT], [through, GRADIENT]], "names": [around, "through it"]})
    yield _added(t, st, mid, "residual stream, middle", [resid, f"{scope}.hook_attn_out"], f"{scope}.ln1", sums)

    if cross:
        met = f"{scope}.hook_resid_cross"
        if norm == "pre":
            yield _norm_view(t, st, f"{scope}.ln_cross", [mid], read_next, "read by cross-attention", Rule("given"))
        args = (f"{scope}.cross_attn", f"{scope}.hook_cross_out", met, f"{scope}.ln_cross", mid)
        yield from _attention(t, st, "encoder.", *args)
        yield View(f"{scope}.route_cross", "through cross-attention", "td", "stream", st, gradient=Rule("given"))
        sums = Rule("sum", {"of": [[f"{scope}.hook_mlp_out", GRADIENT], [f"{scope}.route_mlp", GRADIENT]],
                            "names": ["around the feed-forward", "through it"]})  # fmt: skip
        yield _added(t, st, met, "residual stream, after cross-attention", [mid, f"{scope}.hook_cross_out"],
                     f"{scope}.ln_cross", sums)  # fmt: skip
        mid = met
    yield from _feed_forward(t, st, scope, mid)
    above = f"{st}blocks.{i + 1}.hook_resid_pre"
    if i < count - 1:
        back = Rule("same", {"of": [above, GRADIENT], "why": "the block above reads it"})
    elif f"{st}ln_final.hook_normalized" in t.values and st != "encoder.":
        back = _norm_back(t, f"{st}ln_final", [f"{scope}.hook_resid_post"])
    elif st == "encoder.":
        back = Rule("given")
    else:
        back = _top_of(t, "logits", GRADIENT, "W_U", _unembed_T, 4)
    parts = [mid, f"{scope}.hook_mlp_out"]
    yield _added(t, st, f"{scope}.hook_resid_post", "residual stream, after", parts, f"{scope}.ln2", back)


def _added(t: Trace, st: str, name: str, label: str, parts: list[str], ln: str, back: Rule) -> View:
    """A sum of two in the stream, normed where the norm comes after."""
    rule = _norm(parts, ln) if t.cfg.norm == "post" else Rule(
        "sum", {"of": [[part, VALUE] for part in parts]}
    )  # fmt: skip
    return View(name, label, "td", "stream", st, value=rule, gradient=back)


def _norm_view(t: Trace, st: str, ln: str, of: list[str], reader: str, label: str, back: Rule) -> View:
    part = "feed-forward" if reader == "mlp" else "stream"
    return View(f"{ln}.hook_normalized", label, "td", part, st, value=_norm(of, ln), gradient=back)


def _norm(of: list[str], ln: str) -> Rule:
    return Rule("norm", {"of": of}, weights=(f"{ln}.gain", f"{ln}.bias"))


def _norm_back(t: Trace, ln: str, of: list[str], dy: str = "") -> Rule:
    return Rule("norm_back", {"of": of, "dy": dy or f"{ln}.hook_normalized"}, weights=(f"{ln}.gain",))


def _attention(
    t: Trace, st: str, sources: str, attn: str, out: str, summed: str, ln: str, resid: str
) -> Iterator[View]:
    """resid + out = summed; `ln` is the norm after it, or before it."""
    cfg = t.cfg
    position = cfg.position_method.across() if attn.endswith("cross_attn") else cfg.position_method
    turned, biased, mixed = (position.has(stage) for stage in ("query_key", "score", "value"))
    name = {letter: f"{attn}.hook_{letter}" for letter in ("q", "k", "v", "z", "pattern", "attn_scores")}
    q, k = (f"{attn}.hook_rot_{c}" if turned else name[c] for c in "qk")
    sent = f"sent back by {position.name}" if biased or mixed else ""
    back_q = Rule("dq", {"scores": name["attn_scores"], "k": k, "rest": sent})
    back_k = Rule("dk", {"scores": name["attn_scores"], "q": q, "rest": sent})

    def project(letter: str, stack: str, label: str, back: Rule) -> View:
        def terms(look: Look) -> Parts:
            W, b = (look.trace.weights.get(f"{attn}.{kind}_{letter.upper()}") for kind in "Wb")
            parts = look.reads[attn]
            if letter != "q" and attn.endswith("cross_attn"):
                parts = {"memory": look.trace.values["encoder.hook_memory"]}
            rows = look.trace.values[name[letter]].shape[1]
            return _projected({label: x[:, x.shape[1] - rows :] for label, x in parts.items()}, W, b)

        text = f"{letter} = x W_{letter.upper()}, x being the sum of what was written to the stream"
        return View(name[letter], label, "thk" if letter == "q" else "shk", "head", stack, sources,
                    Rule("terms", {"text": text}, terms), back)  # fmt: skip

    same_q, same_k = (
        Rule("same", {"of": [x, GRADIENT], "why": f"turned back by {position.name}", "loose": True}) if turned else rule
        for x, rule in ((q, back_q), (k, back_k))
    )
    yield project("q", st, "queries", same_q)
    yield project("k", sources, "keys", same_k)
    if turned:
        for letter, label, back, axes in (
            ("q", "queries, turned", back_q, "thk"),
            ("k", "keys, turned", back_k, "shk"),
        ):
            rule = Rule("same", {"of": [name[letter], VALUE], "why": f"turned by {position.name}", "loose": True})
            stack = st if letter == "q" else sources
            yield View(f"{attn}.hook_rot_{letter}", label, axes, "head", stack, sources, rule, back)
    yield project("v", sources, "values", Rule("dv", {"pattern": name["pattern"], "z": name["z"],
                                                      "rest": sent}))  # fmt: skip
    rest = f"bias of {position.name}" if biased else ""
    forward, back = Rule("scores", {"q": q, "k": k, "rest": rest}), Rule("dscores", {"pattern": name["pattern"]})
    yield View(name["attn_scores"], "before the softmax", "hts", "attention", st, sources, forward, back)
    forward = Rule("softmax", {"scores": name["attn_scores"]})
    back = Rule("dpattern", {"z": name["z"], "v": name["v"], "rest": position.name if mixed else ""})
    yield View(name["pattern"], "attention pattern", "hts", "attention", st, sources, forward, back)

    def W_O_T(x: Trace) -> Array:
        W = x.weights[f"{attn}.W_O"]
        return np.moveaxis(W, -1, 0).reshape(W.shape[-1], -1)

    yield View(name["z"], "values, mixed", "thk", "head", st, sources,
               Rule("mix", {"pattern": name["pattern"], "v": name["v"], "rest": position.name if mixed else ""}),
               _top_of(t, out, GRADIENT, "W_O", W_O_T, 4))  # fmt: skip

    def by_head(look: Look) -> Parts:
        each = heads_out(look.trace, attn)
        return _with_bias({f"head {h}": each[:, h] for h in range(each.shape[1])}, f"{attn}.b_O" in look.trace.weights)

    back = (
        _norm_back(t, ln, [resid, out], dy=summed)
        if cfg.norm == "post"
        else Rule("same", {"of": [summed, GRADIENT], "why": "it is added to the stream"})
    )
    label = "written by cross-attention" if attn.endswith("cross_attn") else "written by attention"
    yield View(out, label, "td", "stream", st, value=Rule("terms", {"text": "out = Σ_h z_h W_O[h]"}, by_head),
               gradient=back)  # fmt: skip


def _feed_forward(t: Trace, st: str, scope: str, mid: str) -> Iterator[View]:
    cfg, pre, post, out = t.cfg, f"{scope}.mlp.hook_pre", f"{scope}.mlp.hook_post", f"{scope}.hook_mlp_out"
    route, ln = f"{scope}.route_mlp", f"{scope}.ln2"
    into = _top_of(t, pre, GRADIENT, "W_in", lambda x: x.weights[f"{scope}.mlp.W_in"].T, 4)

    def terms(look: Look) -> Parts:
        W, b = (look.trace.weights.get(f"{scope}.mlp.{leaf}") for leaf in ("W_in", "b_in"))
        return _projected(look.reads[f"{scope}.mlp"], W, b)

    if cfg.norm == "pre":
        yield _norm_view(t, st, ln, [mid], "mlp", "read by the feed-forward", into)
    yield View(route, "through the feed-forward", "td", "stream", st,
               gradient=_norm_back(t, ln, [mid]) if cfg.norm == "pre" else into)  # fmt: skip
    text = "pre = x W_in + b_in, x being the sum of what was written to the stream"
    yield View(pre, "before the activation", "tf", "feed-forward", st,
               value=Rule("terms", {"text": text}, terms),
               gradient=Rule("act_back", {"pre": pre, "post": post, "activation": cfg.activation}))  # fmt: skip
    yield View(post, "neurons", "tf", "feed-forward", st,
               value=Rule("act", {"pre": pre, "activation": cfg.activation}),
               gradient=_top_of(t, out, GRADIENT, "W_out", lambda x: x.weights[f"{scope}.mlp.W_out"].T, 3))  # fmt: skip
    back = (
        _norm_back(t, ln, [mid, out], dy=f"{scope}.hook_resid_post")
        if cfg.norm == "post"
        else Rule("same", {"of": [f"{scope}.hook_resid_post", GRADIENT], "why": "it is added to the stream"})
    )
    yield View(out, "written by the feed-forward", "td", "stream", st,
               value=_top_of(t, post, VALUE, "W_out", lambda x: x.weights[f"{scope}.mlp.W_out"], 4),
               gradient=back)  # fmt: skip


def _output(t: Trace, st: str) -> Iterator[View]:
    count = t.cfg.n_layers
    if f"{st}ln_final.hook_normalized" in t.values:
        of = [f"{st}blocks.{count - 1}.hook_resid_post"]
        yield _norm_view(t, st, f"{st}ln_final", of, "out", "read by the unembedding",
                         _top_of(t, "logits", GRADIENT, "W_U", _unembed_T, 4))  # fmt: skip

    def terms(look: Look) -> Parts:
        W = _unembed_T(look.trace).T
        return _projected(look.reads["unembed"], W, look.trace.weights.get("unembed.b_U"))

    yield View("logits", "logits", "tv", "output", st,
               value=Rule("terms", {"text": "logit = x W_U, x being the sum of what was written to the stream"}, terms),
               gradient=Rule("loss"))  # fmt: skip


# ---------------------------------------------------------------------------------------------------- what they carry


def _routed(t: Trace, st: str) -> set[str]:
    """The blocks whose routes are known: those above a table of embeddings of their own."""
    tensor = f"{st}embed.W_E"
    count = (t.cfg.n_encoder_layers or t.cfg.n_layers) if st == "encoder." else t.cfg.n_layers
    return {f"{st}blocks.{i}" for i in range(count)} if tensor in t.weights else set()


def _unembed_T(t: Trace) -> Array:
    """W_Uᵀ [V D], which is the embedding's table where the two are tied."""
    W_U = t.weights.get("unembed.W_U")
    st = "" if t.cfg.architecture == "decoder_only" else "decoder."
    return t.weights[f"{st}embed.W_E"] if W_U is None else W_U.T


def _top_of(t: Trace, left: str, side: str, symbol: str, weight: Callable[[Trace], Array], keep: int) -> Rule:
    def rows(x: Trace) -> Array:
        found = x.values[left] if side == VALUE else x.gradients[left]
        return found.reshape(*found.shape[:2], -1)

    length = rows(t).shape[-1]
    return Rule(
        "top", {"left": [left, side], "weight": symbol, "length": length}, top=Top(rows, weight, min(keep, length))
    )


def _projected(parts: Parts, W: Array, b: Array | None) -> Parts:
    axes = ((-1,), (W.ndim - 2,))
    return _with_bias({label: np.tensordot(x, W, axes) for label, x in parts.items()}, b is not None)


def _with_bias(parts: Parts, biased: bool) -> Parts:
    """The part "biases" last, where there is any: the last part is what the others leave, and is not stored."""
    own = {label: x for label, x in parts.items() if label != BIASES}
    if biased or BIASES in parts:
        own[BIASES] = np.zeros_like(next(iter(own.values())))
    return own
