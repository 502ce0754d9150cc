"""Explain: one number as a tree, each node the sum of its children.

    print(explain(t, "blocks.0.attn.W_Q[0,3,5]"))        a weight: its gradient
    explain(t, "logits[0,2,5]")                          an activation: its value, by direct path, heads and neurons
    explain(t, "blocks.0.attn.hook_attn_scores[0,1,2,0]")        q·k by content and position, element by element
    explain(t, "∂blocks.0.hook_resid_mid[0,2,5]")        an activation's gradient (or write `grad:` for ∂)

How       Every number here is u · x: a covector u against one row x of a named array. x was computed as a sum of maps
          of other rows, each linear once attention pattern, norm scale and activation slope are taken as the numbers
          they are; pulling u back through each map gives the terms, and they add up to u · x. The same holds for
          gradients, whose maps are linear without any such proviso.

          value of a norm     u · (g x̂ + b) = r (g u − mean(g u)) · x + b · u
          gradient of a norm  u · ∂x = g r (u − mean u − x̂ mean(u x̂)) · ∂y

Node      {"name", "formula", "value", "children"}. Of many terms the largest are shown and the rest are one node, their
          own sum. `residual` is how far the children miss their parent, relative to the largest number in the sum.

Source    the backward passes of layers/, sublayers/ and models/; terms of a logit: Elhage et al. 2021, A mathematical
          framework for Transformer circuits
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import BadInput, unknown
from ..layers import cross_entropy, layer_norm
from .provenance import split
from .sites import attention_of, sites
from .trace import Trace

__all__ = ["Node", "entry", "explain", "parse"]


@dataclass(frozen=True)
class Node:
    name: str
    formula: str
    value: float
    children: tuple["Node", ...] = ()

    @property
    def residual(self) -> float:
        """|Σ children − value| relative to the largest of them all; 0 where there are no children."""
        if not self.children:
            return 0.0
        values = [child.value for child in self.children]
        largest = max(abs(self.value), *map(abs, values))
        return abs(math.fsum(values) - self.value) / largest if largest else 0.0

    @property
    def worst(self) -> float:
        """The largest residual of the tree."""
        return max([self.residual, *(child.worst for child in self.children)])

    def as_dict(self) -> dict[str, Any]:
        children = [child.as_dict() for child in self.children]
        return {"name": self.name, "formula": self.formula, "value": self.value, "children": children}

    def text(self) -> str:
        return "\n".join(self._lines("", ""))

    def _lines(self, first: str, rest: str) -> list[str]:
        lines = [f"{first}{self.value:+.6g}  {self.name}" + (f"   {self.formula}" if self.formula else "")]
        for i, child in enumerate(self.children):
            last = i == len(self.children) - 1
            lines += child._lines(rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
        return lines

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(self.text())}</pre>"


def explain(t: Trace, spec: str, *, depth: int = 3, top: int = 5) -> Node:
    """The tree of one number, `depth` levels down, the `top` terms at each node."""
    if depth < 0 or top < 1:
        raise BadInput(f"depth is at least 0 and top at least 1; received depth {depth} and top {top}")
    side, name, index = parse(t, spec)
    walk = _Walk(t)
    term = walk.weight(name, index) if name in t.weights else walk.element(side, name, index)
    return _grow(term, depth, top)


def parse(t: Trace, spec: str) -> tuple[str, str, tuple[int, ...]]:
    """`∂name[1,2,3]` -> ("gradient", name, index), counted from 0; BadInput names what is near, or the shape."""
    sign, name, place = _parts(spec)
    side = "gradient" if sign or name in t.weights else "value"
    known = (t.gradients if side == "gradient" else t.values) | t.weight_gradients
    return side, name, _index(name, place, known)


def entry(spec: str, tensors: Mapping[str, Array]) -> tuple[str, tuple[int, ...]]:
    """`name[1,2,3]` -> (name, index), one entry of one of these tensors."""
    _, name, place = _parts(spec)
    return name, _index(name, place, tensors)


def _parts(spec: str) -> tuple[str | None, str, str]:
    found = re.fullmatch(r"\s*(∂|grad:)?\s*([\w.]+)\s*\[([-\d\s,]*)\]\s*", spec)
    if not found:
        raise BadInput(f"a number is named by its tensor and its place: blocks.0.attn.W_Q[0,3,5]; received {spec!r}")
    return found[1], found[2], found[3]


def _index(name: str, place: str, known: Mapping[str, Array]) -> tuple[int, ...]:
    if name not in known:
        raise unknown("tensor", name, known)
    shape = known[name].shape
    try:
        index = tuple(int(part) for part in place.split(",") if part.strip())
    except ValueError as error:
        raise BadInput(f"an index is made of whole numbers; received [{place}]") from error
    if len(index) != len(shape) or any(not -n <= i < n for i, n in zip(index, shape, strict=True)):
        raise BadInput(f"{name} has shape {list(shape)}; received the index [{place}]: give {len(shape)} numbers, "
                       f"each from 0 to its length less 1")  # fmt: skip
    return tuple(i % n for i, n in zip(index, shape, strict=True))


# ---------------------------------------------------------------------------------------------------- terms


class _Term(NamedTuple):
    name: str
    formula: str
    value: float
    expand: Callable[[], "list[_Term]"] | None = None


def _grow(term: _Term, depth: int, top: int) -> Node:
    terms = term.expand() if depth and term.expand else []
    while len(terms) == 1 and terms[0].expand:  # a step that only renames is not shown
        terms = terms[0].expand()
    ordered = sorted((one for one in terms if one.value), key=lambda one: -abs(one.value))
    zeros = len(terms) - len(ordered)
    children = [_grow(one, depth - 1, top) for one in ordered[:top]]
    rest = ordered[top:]
    if len(rest) == 1:
        children.append(_grow(rest[0], depth - 1, top))
    elif rest:
        children.append(Node(f"the other {len(rest)} terms", "", math.fsum(one.value for one in rest)))
    if terms and not children:
        children.append(Node(f"{zeros} terms, all zero", "", 0.0))
    return Node(term.name, term.formula, term.value, tuple(children))


def _n(x: float) -> str:
    return f"{x:.4g}"


def _unit(n: int, i: int, size: float = 1.0) -> Array:
    u = np.zeros(n)
    u[i] = size
    return u


class _Walk:
    """Pulls covectors back through the model, step by step. `value` and `grad` answer u · row of a named array."""

    def __init__(self, t: Trace) -> None:
        self.t, self.cfg = t, t.cfg

    # -------------------------------------------------------------- where things stand

    def stack(self, name: str) -> tuple[str, Any, int]:
        """The prefix, cache and number of blocks of the stack that a name belongs to."""
        if self.cfg.architecture == "decoder_only":
            return "", self.t.cache, self.cfg.n_layers
        if name.startswith("encoder."):
            return "encoder.", self.t.cache.encoder, self.cfg.n_encoder_layers or self.cfg.n_layers
        return "decoder.", self.t.cache.decoder, self.cfg.n_layers

    def crosses(self, scope: str) -> bool:
        return self.cfg.architecture == "encoder_decoder" and not scope.startswith("encoder.")

    def norm(self, name: str) -> Any:
        """The cache of the norm called `blocks.0.ln1` or `ln_final`; None where there is none."""
        prefix, stack, _ = self.stack(name)
        parts = name.removeprefix(prefix).split(".")
        return stack.ln_final if parts[0] == "ln_final" else getattr(stack.blocks[int(parts[1])], parts[2])

    def position(self, attention: str) -> Any:
        method = self.cfg.position_method
        return method.across() if attention.endswith("cross_attn") else method

    def offset(self, scope: str) -> int:
        """How many rows of the block's input come before the first that it asks at."""
        values = self.t.values
        return values[f"{scope}.hook_resid_pre"].shape[1] - values[f"{scope}.hook_resid_mid"].shape[1]

    @property
    def loss(self) -> cross_entropy.Cache:
        return self.t.judged

    # -------------------------------------------------------------- where the walk begins

    def weight(self, tensor: str, at: tuple[int, ...]) -> _Term:
        """The gradient of one entry of a weight: a sum over the rows of its sites."""
        t = self.t
        found, value = sites(t, tensor), float(t.weight_gradients[tensor][at])
        name = f"∂{tensor}[{','.join(map(str, at))}]"

        def terms() -> list[_Term]:
            return [term for site in found for term in self.rows(tensor, site, at)]

        formulas = {"outer": "Σ what came in · gradient of what went out", "table": "Σ over the rows that look it up",
                    "sum": "Σ over rows", "opaque": "Σ over queries"}  # fmt: skip
        return _Term(name, " + ".join(formulas[site.kind] for site in found), value, terms)

    def rows(self, tensor: str, site: Any, at: tuple[int, ...]) -> list[_Term]:
        t = self.t
        if site.kind == "opaque":
            parts = split(t, tensor, "position")
            return [_Term(f"{label}", "the part of one query", float(part[at]))
                    for label, part in zip(parts.labels[0], parts.parts, strict=True)]  # fmt: skip
        g = t.gradients[site.gradient] if site.gradient != "unembed.route_tied" else t.dlogits
        left, j, heads = self.factors(tensor, site, at)
        out = []
        for b, p in np.argwhere(left != 0):
            place = (int(b), int(p)) if heads is None else (int(b), int(p), heads)
            size, gradient = float(left[b, p]), float(g[(*place, j)])
            where = f"example {b}, position {site.first + p}"
            shown = f"{_n(size)} · ∂{site.gradient}[{','.join(map(str, (*place, j)))}] = {_n(size)} · {_n(gradient)}"
            name = "logits" if site.gradient == "unembed.route_tied" else site.gradient
            u = _unit(g.shape[-1], j, size)
            out.append(self.grad(name, place, u, where, shown))
        return out

    def factors(self, tensor: str, site: Any, at: tuple[int, ...]) -> tuple[Array, int, int | None]:
        """The factor of each row [B P], the entry of the row's gradient that it multiplies, and its head."""
        ones = np.ones(site.right.shape[:2])
        if site.kind == "table":
            scale = self.cfg.scale if site.use else 1.0
            return scale * (site.left == at[0]), at[1], None
        if site.kind == "sum":
            if tensor.endswith("gain"):
                return self.norm(tensor.removesuffix(".gain")).x_hat[..., at[0]], at[0], None
            return (ones, at[1], at[0]) if len(at) == 2 else (ones, at[0], None)
        if site.layout == "heads":
            return site.left[..., at[1]], at[2], at[0]
        if site.stage == "out":
            return site.left[..., at[0] * site.shape[1] + at[1]], at[2], None
        if site.gradient == "unembed.route_tied":  # [V D]: x came in, and the row's gradient is ∂logits at the token
            return site.right[..., at[1]], at[0], None
        return site.left[..., at[0]], at[1], None

    def element(self, side: str, name: str, at: tuple[int, ...]) -> _Term:
        """One number of an activation, or of its gradient."""
        array = (self.t.values if side == "value" else self.t.gradients)[name]
        label = f"{'' if side == 'value' else '∂'}{name}[{','.join(map(str, at))}]"
        last = name.rsplit(".", 1)[-1]
        if last in ("hook_attn_scores", "hook_pattern", "hook_bias") or last.startswith("route_"):
            value = float(array[at])
            if side == "gradient" and last == "hook_attn_scores":
                return self.dscore(name.rsplit(".", 1)[0], at, 1.0, label)
            if side == "gradient" and last == "hook_pattern":
                return self.dpattern(name.rsplit(".", 1)[0], at, 1.0, label)
            if side == "value" and last == "hook_attn_scores":
                return self.score(name.rsplit(".", 1)[0], at, label)
            formula = "e^score / Σ e^score over the row" if last == "hook_pattern" else ""
            return _Term(label, formula, value)
        term = self.value if side == "value" else self.grad
        return term(name, at[:-1], _unit(array.shape[-1], at[-1]), label)

    # -------------------------------------------------------------- values

    def value(self, name: str, at: tuple[int, ...], u: Array, label: str = "", formula: str = "") -> _Term:
        x = self.t.values[name][at]
        return _Term(
            label or f"{name}[{','.join(map(str, at))}]", formula, float(u @ x), lambda: self.value_terms(name, at, u)
        )

    def value_terms(self, name: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """u · row as a sum over what the row was computed from."""
        scope, _, last = name.rpartition(".")
        t, block = self.t, scope.rpartition(".")[0]
        if name == "logits":
            c = t.cache.unembed
            return [*self.final(at, c.W_U @ u), *_bias("unembedding bias", c.b_U, u)]
        if last in (
            "hook_resid_post",
            "hook_resid_mid",
            "hook_resid_cross",
            "hook_resid_pre",
            "hook_normalized",
            "hook_memory",
        ):
            return self.stream(name, at, u)
        if last == "hook_mlp_out":
            return self.neurons(scope, at, u)
        if last in ("hook_attn_out", "hook_cross_out"):
            return self.heads(f"{scope}.{'cross_attn' if last == 'hook_cross_out' else 'attn'}", at, u)
        if last == "hook_z":
            return self.sources(scope, at, u)
        if last in ("hook_q", "hook_k", "hook_v"):
            return self.projected(scope, last[-1], at, u)
        if last in ("hook_rot_q", "hook_rot_k"):
            return self.unturned(scope, last[-1], at, u)
        if last == "hook_pre":
            return self.into_neuron(block, at, u)
        if last == "hook_post":
            pre, slope = t.values[f"{scope}.hook_pre"][at], self.slope(scope)[at]
            if self.cfg.activation in ("relu", "identity"):
                return [self.value(f"{scope}.hook_pre", at, slope * u, "pre-activation, where it passes")]
            return _elements(
                f"{self.cfg.activation}(pre)", t.values[name][at], u, [f"{self.cfg.activation}({_n(x)})" for x in pre]
            )
        return _elements(name, t.values[name][at], u)

    def slope(self, mlp: str) -> Array:
        block = mlp.rsplit(".", 1)[0]
        prefix, stack, _ = self.stack(block)
        return stack.blocks[int(block.removeprefix(prefix).split(".")[1])].mlp.activation.slope

    def final(self, at: tuple[int, ...], u: Array) -> list[_Term]:
        """What the unembedding reads."""
        prefix, stack, n = self.stack("decoder.")
        last = f"{prefix}blocks.{n - 1}.hook_resid_post"
        return self.stream(last if stack.ln_final is None else f"{prefix}ln_final.hook_normalized", at, u)

    def stream(self, name: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """The residual stream, taken apart all the way down: embedding, position, each head, each feed-forward."""
        t, post = self.t, self.cfg.norm == "post"
        prefix, _, _ = self.stack(name)
        scope, _, last = name.rpartition(".")
        if last == "hook_normalized":
            return self.normed(scope, at, u)
        if last == "hook_memory":
            ends = f"encoder.blocks.{(self.cfg.n_encoder_layers or self.cfg.n_layers) - 1}.hook_resid_post"
            return self.stream(
                ends if self.norm("encoder.ln_final") is None else "encoder.ln_final.hook_normalized", at, u
            )
        if post and last != "hook_resid_pre":
            ln = {"hook_resid_mid": "ln1", "hook_resid_cross": "ln_cross", "hook_resid_post": "ln2"}[last]
            return self.normed(f"{scope}.{ln}", at, u)
        if last == "hook_resid_pre":
            i = int(scope.rsplit(".", 1)[1])
            if i:
                return self.stream(f"{prefix}blocks.{i - 1}.hook_resid_post", at, u)
            embed = t.values[f"{prefix}hook_embed"][at]
            terms = [_Term(f"{prefix}embedding", f"u · embed[{self.token(prefix, at)}]", float(u @ embed),
                           lambda: _elements(f"{prefix}hook_embed", embed, u))]  # fmt: skip
            if self.cfg.position_method.has("embedding"):
                where = t.values[name][at] - embed
                terms.append(_Term(f"{prefix}position {at[1]}", "u · position", float(u @ where),
                                   lambda: _elements("position", where, u)))  # fmt: skip
            return terms
        return self.added(scope, last, at, u)

    def token(self, prefix: str, at: tuple[int, ...]) -> str:
        tokens = self.t.batch.source if prefix == "encoder." else self.t.batch.tokens
        return self.t.word(int(tokens[at]), source=prefix == "encoder.")  # type: ignore[index]

    def place(self, stack: str, b: int, row: int) -> str:
        """A position, with the token that stands there where its word is known."""
        return f"{row} ({self.token(stack, (b, row))})" if self.t.vocabulary else str(row)

    def asked(self, attention: str, b: int, row: int) -> str:
        """The position whose key or value it is."""
        return self.place("encoder." if attention.endswith("cross_attn") else self.stack(attention)[0], b, row)

    def asking(self, attention: str, b: int, row: int) -> str:
        """The position whose query it is."""
        first = 0 if attention.endswith("cross_attn") else self.offset(attention.rpartition(".")[0])
        return self.place(self.stack(attention)[0], b, row + first)

    def normed(self, ln: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """Through a norm, its scale taken as the number it is."""
        c = self.norm(ln)
        gain_u = c.gain * u
        if isinstance(c, layer_norm.Cache):
            pulled = c.rstd[at] * (gain_u - gain_u.mean())
            bias = self.t.weights[f"{ln}.bias"]
        else:
            pulled, bias = c.rms_inverse[at] * gain_u, None
        return [*self.before_norm(ln, at, pulled), *_bias(f"{ln}.bias", bias, u)]

    def before_norm(self, ln: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        prefix, _, count = self.stack(ln)
        if ln.endswith("ln_final"):
            return self.stream(f"{prefix}blocks.{count - 1}.hook_resid_post", at, u)
        scope, kind = ln.rsplit(".", 1)
        if self.cfg.norm == "pre":
            below = {"ln1": "hook_resid_pre", "ln_cross": "hook_resid_mid"}
            name = below.get(kind, "hook_resid_cross" if self.crosses(scope) else "hook_resid_mid")
            return self.stream(f"{scope}.{name}", at, u)
        added = {"ln1": "hook_resid_mid", "ln_cross": "hook_resid_cross", "ln2": "hook_resid_post"}[kind]
        return self.added(scope, added, at, u)

    def added(self, scope: str, last: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """A sum of the stream and a sublayer."""
        if last == "hook_resid_mid":
            below = (at[0], at[1] + self.offset(scope))
            return [*self.stream(f"{scope}.hook_resid_pre", below, u), *self.heads(f"{scope}.attn", at, u)]
        if last == "hook_resid_cross":
            return [*self.stream(f"{scope}.hook_resid_mid", at, u), *self.heads(f"{scope}.cross_attn", at, u)]
        below = f"{scope}.{'hook_resid_cross' if self.crosses(scope) else 'hook_resid_mid'}"
        out = self.value(f"{scope}.hook_mlp_out", at, u, f"{scope}.mlp", "Σ over neurons")
        return [*self.stream(below, at, u), out]

    def heads(self, attention: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        p = attention_of(self.t, attention).p
        terms = [
            self.value(f"{attention}.hook_z", (*at, h), p.W_O[h] @ u, f"{attention} head {h}", "u · z W_O")
            for h in range(self.cfg.n_heads)
        ]
        return [*terms, *_bias(f"{attention}.b_O", p.b_O, u)]

    def sources(self, attention: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        b, row, h = at
        c = attention_of(self.t, attention)
        if self.position(attention).has("value"):
            return _elements(f"{attention}.hook_z", c.z[at], u)
        weights = c.softmax.pattern[b, h, row]
        return [
            self.value(f"{attention}.hook_v", (b, s, h), a * u, f"from source {self.asked(attention, b, s)}",
                       f"A[{row},{s}] · v = {_n(a)} · {_n(u @ c.v[b, s, h])}")
            for s, a in enumerate(weights)
        ]  # fmt: skip

    def projected(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """q, k or v: from what attention reads."""
        b, row, h = at
        p = attention_of(self.t, attention).p
        W, bias = getattr(p, f"W_{which.upper()}")[h], getattr(p, f"b_{which.upper()}")
        return [
            *self.read(attention, which, (b, row), W @ u),
            *_bias(f"b_{which.upper()}", None if bias is None else bias[h], u),
        ]

    def read(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        scope, kind = attention.rsplit(".", 1)
        if kind == "cross_attn":
            if which != "q":
                return self.stream("encoder.hook_memory", at, u)
            name = "ln_cross.hook_normalized" if self.cfg.norm == "pre" else "hook_resid_mid"
        else:
            name = "ln1.hook_normalized" if self.cfg.norm == "pre" else "hook_resid_pre"
            at = (at[0], at[1] + (self.offset(scope) if which == "q" else 0))
        return self.stream(f"{scope}.{name}", at, u)

    def unturned(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        position, c = self.position(attention), attention_of(self.t, attention)
        name = f"{attention}.hook_{which}"
        if not position.has("query_key"):
            return [self.value(name, at, u)]
        dq, dk = np.zeros_like(c.q), np.zeros_like(c.k)
        (dq if which == "q" else dk)[at] = u
        back = position.encode_qk_backward(dq, dk, c.encode_qk)
        return [self.value(name, at, back[0 if which == "q" else 1][at])]

    def neurons(self, scope: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        weights, mlp = self.t.weights, f"{scope}.mlp"
        out = weights[f"{mlp}.W_out"] @ u
        post = self.t.values[f"{mlp}.hook_post"][at]
        terms = [
            self.value(f"{mlp}.hook_post", at, _unit(len(out), f, out[f]), f"{mlp} neuron {f}",
                       f"post · (W_out u) = {_n(post[f])} · {_n(out[f])}")
            for f in map(int, np.flatnonzero(post * out))
        ]  # fmt: skip
        return [*terms, *_bias(f"{mlp}.b_out", weights.get(f"{mlp}.b_out"), u)]

    def into_neuron(self, scope: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        weights, mlp = self.t.weights, f"{scope}.mlp"
        pulled = weights[f"{mlp}.W_in"] @ u
        below = "hook_resid_cross" if self.crosses(scope) else "hook_resid_mid"
        name = f"{scope}.ln2.hook_normalized" if self.cfg.norm == "pre" else f"{scope}.{below}"
        return [*self.stream(name, at, pulled), *_bias(f"{mlp}.b_in", weights.get(f"{mlp}.b_in"), u)]

    # -------------------------------------------------------------- scores

    def score(self, attention: str, at: tuple[int, ...], label: str) -> _Term:
        """q · k/√K, in parts of content and position, each element by element; and what the position method adds."""
        b, h, row, s = at
        t, c, position = self.t, attention_of(self.t, attention), self.position(attention)
        scale = 1 / math.sqrt(c.p.W_Q.shape[-1])
        q, k = t.values[f"{attention}.hook_q"][b, row, h], t.values[f"{attention}.hook_k"][b, s, h]

        def product(name: str, x: Array, y: Array, formula: str) -> _Term:
            return _Term(name, f"{formula} · {_n(scale)}", float(scale * (x @ y)), lambda: [
                _Term(f"element {i}", f"{_n(x[i])} · {_n(y[i])} · {_n(scale)}", float(scale * x[i] * y[i]))
                for i in range(len(x))
            ])  # fmt: skip

        def terms() -> list[_Term]:
            asks, answers = (
                self.told_apart(attention, "q", (b, row), h, q),
                self.told_apart(attention, "k", (b, s), h, k),
            )
            found = [product(f"{m} of q, {n} of k", x, y, "q · k/√K") for m, x in asks for n, y in answers]
            if position.has("query_key"):
                x, y = c.q[b, row, h], c.k[b, s, h]
                turned = float(scale * (x @ y) - scale * (q @ k))
                found.append(_Term("turned by position", "(q′ · k′ − q · k)/√K", turned, lambda: [
                    product("turned", x, y, "q′ · k′/√K"), product("less unturned", -q, k, "−q · k/√K")]))  # fmt: skip
            if position.has("score"):
                bias = np.broadcast_to(
                    t.values[f"{attention}.hook_bias"], t.values[f"{attention}.hook_attn_scores"].shape
                )
                found.append(_Term("position bias", "", float(bias[at])))
            return found

        return _Term(label, "q · k/√K" + (" + bias" if position.has("score") else ""),
                     float(t.values[f"{attention}.hook_attn_scores"][at]), terms)  # fmt: skip

    def told_apart(
        self, attention: str, which: str, at: tuple[int, ...], h: int, whole: Array
    ) -> list[tuple[str, Array]]:
        """q or k as the sum of content, position and constants, where the position was added to the embedding."""
        scope, kind = attention.rsplit(".", 1)
        prefix, _, _ = self.stack(attention)
        if kind != "attn" or not scope.endswith("blocks.0") or not self.cfg.position_method.has("embedding"):
            return [("whole", whole)]
        at = (at[0], at[1] + (self.offset(scope) if which == "q" else 0))
        p = attention_of(self.t, attention).p
        W, bias = getattr(p, f"W_{which.upper()}")[h], getattr(p, f"b_{which.upper()}")
        content = self.t.values[f"{prefix}hook_embed"][at]
        where = self.t.values[f"{scope}.hook_resid_pre"][at] - content
        constant = np.zeros_like(whole) if bias is None else bias[h]
        if self.cfg.norm == "pre":
            c = self.norm(f"{scope}.ln1")
            if isinstance(c, layer_norm.Cache):
                content, where = (c.rstd[at] * c.gain * (x - x.mean()) for x in (content, where))
                constant = constant + self.t.weights[f"{scope}.ln1.bias"] @ W
            else:
                content, where = (c.rms_inverse[at] * c.gain * x for x in (content, where))
        found = [("content", content @ W), ("position", where @ W)]
        return found if not np.any(constant) else [*found, ("constant", constant)]

    # -------------------------------------------------------------- gradients

    def grad(self, name: str, at: tuple[int, ...], u: Array, label: str = "", formula: str = "") -> _Term:
        g = self.t.gradients[name][at]
        return _Term(
            label or f"∂{name}[{','.join(map(str, at))}]", formula, float(u @ g), lambda: self.grad_terms(name, at, u)
        )

    def grad_terms(self, name: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """u · ∂row as a sum over where that gradient came from."""
        scope, _, last = name.rpartition(".")
        block = scope.rpartition(".")[0]
        prefix, stack, count = self.stack(name)
        post = self.cfg.norm == "post"
        if name == "logits":
            return self.dlogits(at, u)
        if last == "hook_embed":
            return self.grad_terms(f"{prefix}blocks.0.hook_resid_pre", at, u)
        if last == "hook_normalized":
            return self.dnormed(scope, at, u)
        if last == "hook_memory":
            scopes = [f"decoder.blocks.{i}.cross_attn" for i in range(self.cfg.n_layers)]
            return [term for one in scopes for term in self.dread(one, "kv", at, u)]
        if last == "hook_resid_post":
            return self.dpost(prefix, stack, count, scope, at, u)
        if last == "hook_mlp_out":
            return (
                self.before_dnorm(f"{scope}.ln2", at, u) if post else self.grad_terms(f"{scope}.hook_resid_post", at, u)
            )
        if last in ("hook_attn_out", "hook_cross_out"):
            ln, above = ("ln1", "hook_resid_mid") if last == "hook_attn_out" else ("ln_cross", "hook_resid_cross")
            return self.before_dnorm(f"{scope}.{ln}", at, u) if post else self.grad_terms(f"{scope}.{above}", at, u)
        if last in ("hook_resid_mid", "hook_resid_cross"):
            if last == "hook_resid_mid" and self.crosses(scope):
                return self.around(scope, "hook_resid_cross", "ln_cross", at, u)
            return self.around(scope, "hook_resid_post", "ln2", at, u)
        if last == "hook_resid_pre":
            return self.dpre(scope, at, u)
        if last == "hook_post":
            return [self.grad(f"{block}.hook_mlp_out", at, u @ self.t.weights[f"{scope}.W_out"])]
        if last == "hook_pre":
            return self.grad_terms(f"{scope}.hook_post", at, self.slope(scope)[at] * u)
        if last == "hook_z":
            out = "hook_cross_out" if scope.endswith("cross_attn") else "hook_attn_out"
            return self.grad_terms(f"{block}.{out}", at[:2], u @ attention_of(self.t, scope).p.W_O[at[2]])
        if last == "hook_v":
            return self.dvalue(scope, at, u)
        if last in ("hook_q", "hook_k"):
            return self.dturned(scope, last[-1], at, u)
        if last in ("hook_rot_q", "hook_rot_k"):
            return self.dlooks(scope, last[-1], at, u)
        return []

    def dlogits(self, at: tuple[int, ...], u: Array) -> list[_Term]:
        """What was said less what should have been said, class by class."""
        c = self.loss
        size = c.weight[at][0] * (np.ones_like(u) if c.growth is None else c.growth[at])
        words = self.t.vocabulary or tuple(map(str, range(len(u))))

        def one(v: int) -> _Term:
            factor = float(u[v] * size[v])
            said, wanted = float(c.share[at][v]), float(c.wanted[at][v])
            formula = f"u · w (P − q) = {_n(float(u[v]))} · {_n(float(size[v]))} ({_n(said)} − {_n(wanted)})"
            parts = [
                _Term("said", f"P = {_n(said)}", factor * said),
                _Term("wanted", f"−q = {_n(-wanted)}", -factor * wanted),
            ]
            return _Term(f"∂logit of {words[v]}", formula, float(u[v] * self.t.dlogits[at][v]), lambda: parts)

        return [one(int(v)) for v in np.flatnonzero(u)]

    def dnormed(self, ln: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """The gradient of what a norm gave."""
        scope, _, kind = ln.rpartition(".")
        if kind == "ln_final":
            return self.dfinal(scope, at, u)
        if self.cfg.norm == "post":
            above = {"ln1": "hook_resid_mid", "ln_cross": "hook_resid_cross", "ln2": "hook_resid_post"}[kind]
            return self.grad_terms(f"{scope}.{above}", at, u)
        if kind == "ln2":
            return self.through_neurons(scope, at, u)
        return self.dread(
            f"{scope}.{'attn' if kind == 'ln1' else 'cross_attn'}", "q" if kind == "ln_cross" else "qkv", at, u
        )

    def dfinal(self, scope: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        if scope.startswith("encoder"):
            return self.grad_terms("encoder.hook_memory", at, u)
        return self.grad_terms("logits", at, u @ self.t.cache.unembed.W_U)

    def before_dnorm(self, ln: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """u · ∂(what went into a norm)."""
        c = self.norm(ln)
        x_hat = c.x_hat[at]
        if isinstance(c, layer_norm.Cache):
            pulled = c.gain * c.rstd[at] * (u - u.mean() - x_hat * np.mean(u * x_hat))
        else:
            pulled = c.gain * c.rms_inverse[at] * (u - x_hat * np.mean(u * x_hat))
        return self.dnormed(ln, at, pulled)

    def dpost(self, prefix: str, stack: Any, count: int, scope: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        i = int(scope.rsplit(".", 1)[1])
        if i < count - 1:
            return self.grad_terms(f"{prefix}blocks.{i + 1}.hook_resid_pre", at, u)
        if stack.ln_final is not None:
            return self.before_dnorm(f"{prefix}ln_final", at, u)
        return self.dfinal(prefix.rstrip("."), at, u)

    def around(self, scope: str, above: str, ln: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """Two roads back from a sum: around the sublayer above, and through it."""
        post = self.cfg.norm == "post"
        sublayer = "mlp" if ln == "ln2" else "cross"
        skip, through = f"{scope}.route_skip_{sublayer}", f"{scope}.route_{sublayer}"

        def skipped() -> list[_Term]:
            return self.before_dnorm(f"{scope}.{ln}", at, u) if post else self.grad_terms(f"{scope}.{above}", at, u)

        def passed() -> list[_Term]:
            if self.cfg.norm == "pre":
                return self.before_dnorm(f"{scope}.{ln}", at, u)
            return self.through_neurons(scope, at, u) if ln == "ln2" else self.dread(f"{scope}.cross_attn", "q", at, u)

        g = self.t.gradients
        return [
            _Term(f"around {scope}.{sublayer}", "u · ∂skip", float(u @ g[skip][at]), skipped),
            _Term(f"through {scope}.{sublayer}", f"u · ∂{sublayer}", float(u @ g[through][at]), passed),
        ]

    def through_neurons(self, scope: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        mlp = f"{scope}.mlp"
        into, slopes = u @ self.t.weights[f"{mlp}.W_in"], self.t.gradients[f"{mlp}.hook_pre"][at]
        return [
            self.grad(f"{mlp}.hook_pre", at, _unit(len(into), f, into[f]), f"{mlp} neuron {f}",
                      f"(W_in u) · ∂pre = {_n(into[f])} · {_n(slopes[f])}")
            for f in map(int, np.flatnonzero(into * slopes))
        ]  # fmt: skip

    def dpre(self, scope: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """The gradient of a block's input: around attention where it asks, and by queries, keys and values."""
        b, row = at
        post, first = self.cfg.norm == "post", self.offset(scope)
        terms = []
        if row >= first:
            above = (b, row - first)

            def skipped() -> list[_Term]:
                return (
                    self.before_dnorm(f"{scope}.ln1", above, u)
                    if post
                    else self.grad_terms(f"{scope}.hook_resid_mid", above, u)
                )

            skip = self.t.gradients[f"{scope}.route_skip_attn"][above]
            terms = [_Term(f"around {scope}.attn", "u · ∂skip", float(u @ skip), skipped)]
        if self.cfg.norm == "pre":
            return terms + self.before_dnorm(f"{scope}.ln1", at, u)
        return terms + self.dread(f"{scope}.attn", "qkv", at, u)

    def dread(self, attention: str, ends: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """The gradient of what attention reads: by query, key and value of each head."""
        b, row = at
        scope, kind = attention.rsplit(".", 1)
        g, p, terms = self.t.gradients, attention_of(self.t, attention).p, []
        first = self.offset(scope) if kind == "attn" else 0
        for end in ends:
            place = row - first if end == "q" else row
            if place < 0:
                continue
            W = getattr(p, f"W_{end.upper()}")
            terms += [
                self.grad(f"{attention}.hook_{end}", (b, place, h), u @ W[h], f"{attention} {end.upper()}{h}",
                          f"u W_{end.upper()}ᵀ · ∂{end}")
                for h in range(self.cfg.n_heads)
            ]  # fmt: skip
            if end != "v" and (name := f"{attention}.route_bias_{end}") in g:
                terms.append(_Term(f"{attention} bias", f"u · ∂bias by {end}", float(u @ g[name][b, place])))
        return terms

    def dvalue(self, attention: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        b, s, h = at
        if self.position(attention).has("value"):
            return []
        pattern, dz = (
            attention_of(self.t, attention).softmax.pattern[b, h, :, s],
            self.t.gradients[f"{attention}.hook_z"],
        )
        return [
            self.grad(f"{attention}.hook_z", (b, i, h), a * u, f"by query {self.asking(attention, b, i)}",
                      f"A[{i},{s}] · ∂z = {_n(a)} · {_n(u @ dz[b, i, h])}")
            for i, a in enumerate(pattern)
        ]  # fmt: skip

    def dturned(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """Back through the turn that the position method gave to q and k, and what its bias saw of them."""
        position, g = self.position(attention), self.t.gradients
        c, pulled = attention_of(self.t, attention), u
        if position.has("query_key"):
            q, k = (np.zeros_like(self.t.values[f"{attention}.hook_{end}"]) for end in "qk")
            (q if which == "q" else k)[at] = u
            dq, dk = self.turn(attention, q, k)
            pulled = (dq if which == "q" else dk)[at]
        name = f"{attention}.hook_rot_{which}"
        terms = [self.grad(name, at, pulled)]
        felt = float(u @ g[f"{attention}.hook_{which}"][at]) - terms[0].value
        if position.has("score") and position.name not in ("alibi", "t5"):
            return [*terms, _Term("by the position bias", f"u · ∂{which} felt by the bias", felt)]
        return self.dlooks(attention, which, at, pulled) if c is not None else terms

    def turn(self, attention: str, q: Array, k: Array) -> tuple[Array, Array]:
        from ..positions import Places

        T, S = q.shape[1], k.shape[1]
        length = T if attention.endswith("cross_attn") else S
        places = Places(np.arange(length - T, length), np.arange(S), None, self.cfg.causal)
        return self.position(attention).encode_qk(attention_of(self.t, attention).p.pos, q, k, places)[:2]

    def dlooks(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[_Term]:
        """∂q over its sources, ∂k over its queries."""
        b, row, h = at
        c = attention_of(self.t, attention)
        scale = 1 / math.sqrt(c.p.W_Q.shape[-1])
        others = (c.k if which == "q" else c.q)[b, :, h]
        factors = scale * (others @ u)
        dscores = self.t.gradients[f"{attention}.hook_attn_scores"][b, h]
        terms = []
        for i, factor in enumerate(factors):
            t_, s = (row, i) if which == "q" else (i, row)
            name = f"source {self.asked(attention, b, i)}" if which == "q" else f"query {self.asking(attention, b, i)}"
            formula = f"{'k' if which == 'q' else 'q'}/√K · ∂score[{t_},{s}] = {_n(factor)} · {_n(dscores[t_, s])}"
            terms.append(self.dscore(attention, (b, h, t_, s), float(factor), name, formula))
        return terms

    def dscore(self, attention: str, at: tuple[int, ...], factor: float, label: str, formula: str = "") -> _Term:
        """∂score_s = A_s (∂A_s − Σ A′ ∂A′): was looking there better than looking as the row does on average?"""
        b, h, row, s = at
        pattern = attention_of(self.t, attention).softmax.pattern[b, h, row]
        slopes = self.t.gradients[f"{attention}.hook_pattern"][b, h, row]
        size = factor * float(pattern[s])

        def average() -> list[_Term]:
            return [
                self.dpattern(
                    attention,
                    (b, h, row, i),
                    -size * float(x),
                    f"∂pattern of source {self.asked(attention, b, i)}",
                    f"−A A′ = {_n(-x)} A",
                )
                for i, x in enumerate(pattern)
                if x
            ]

        def terms() -> list[_Term]:
            here = self.dpattern(
                attention,
                at,
                size,
                f"∂pattern of source {self.asked(attention, b, s)}",
                f"A ∂A = {_n(pattern[s])} · {_n(slopes[s])}",
            )
            mean = float(pattern @ slopes)
            less = _Term(
                "less the row's average", f"−A Σ A′ ∂A′ = −{_n(pattern[s])} · {_n(mean)}", -size * mean, average
            )
            return [here, less]

        value = factor * float(self.t.gradients[f"{attention}.hook_attn_scores"][at])
        return _Term(label, formula or "A_s (∂A_s − Σ A ∂A)", value, terms)

    def dpattern(self, attention: str, at: tuple[int, ...], factor: float, label: str, formula: str = "") -> _Term:
        """∂A_ts = ∂z_t · v_s."""
        b, h, row, s = at
        value = factor * float(self.t.gradients[f"{attention}.hook_pattern"][at])
        if self.position(attention).has("value"):
            return _Term(label, formula, value)
        v = attention_of(self.t, attention).v[b, s, h]
        return _Term(
            label, formula or "∂z · v", value, lambda: self.grad_terms(f"{attention}.hook_z", (b, row, h), factor * v)
        )


def _bias(name: str, bias: Array | None, u: Array) -> list[_Term]:
    return [] if bias is None else [_Term(name, "u · bias", float(u @ bias), lambda: _elements(name, bias, u))]


def _elements(name: str, x: Array, u: Array, shown: Iterable[str] | None = None) -> list[_Term]:
    words = [_n(float(one)) for one in x] if shown is None else list(shown)
    return [
        _Term(f"{name}, element {i}", f"{_n(float(u[i]))} · {words[i]}", float(u[i] * x[i])) for i in np.flatnonzero(u)
    ]
