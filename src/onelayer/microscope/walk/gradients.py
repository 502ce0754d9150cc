"""Gradients: u · ∂row of an activation, as a sum over where that gradient came from."""

import math
from typing import Any

import numpy as np

from ...arrays import Array
from ...layers import layer_norm
from ..sites import attention_of
from .terms import Term, num, unit
from .values import Values

__all__ = ["Gradients"]


class Gradients(Values):
    def grad(self, name: str, at: tuple[int, ...], u: Array, label: str = "", formula: str = "") -> Term:
        g = self.t.gradients[name][at]
        return Term(
            label or f"∂{name}[{','.join(map(str, at))}]", formula, float(u @ g), lambda: self.grad_terms(name, at, u)
        )

    def grad_terms(self, name: str, at: tuple[int, ...], u: Array) -> list[Term]:
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

    def dlogits(self, at: tuple[int, ...], u: Array) -> list[Term]:
        """What was said less what should have been said, class by class."""
        c = self.loss
        size = c.weight[at][0] * (np.ones_like(u) if c.growth is None else c.growth[at])
        words = self.t.vocabulary or tuple(map(str, range(len(u))))

        def one(v: int) -> Term:
            factor = float(u[v] * size[v])
            said, wanted = float(c.share[at][v]), float(c.wanted[at][v])
            formula = f"u · w (P − q) = {num(float(u[v]))} · {num(float(size[v]))} ({num(said)} − {num(wanted)})"
            parts = [
                Term("said", f"P = {num(said)}", factor * said),
                Term("wanted", f"−q = {num(-wanted)}", -factor * wanted),
            ]
            return Term(f"∂logit of {words[v]}", formula, float(u[v] * self.t.dlogits[at][v]), lambda: parts)

        return [one(int(v)) for v in np.flatnonzero(u)]

    def dnormed(self, ln: str, at: tuple[int, ...], u: Array) -> list[Term]:
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

    def dfinal(self, scope: str, at: tuple[int, ...], u: Array) -> list[Term]:
        if scope.startswith("encoder"):
            return self.grad_terms("encoder.hook_memory", at, u)
        return self.grad_terms("logits", at, u @ self.t.cache.unembed.W_U)

    def before_dnorm(self, ln: str, at: tuple[int, ...], u: Array) -> list[Term]:
        """u · ∂(what went into a norm)."""
        c = self.norm(ln)
        x_hat = c.x_hat[at]
        if isinstance(c, layer_norm.Cache):
            pulled = c.gain * c.rstd[at] * (u - u.mean() - x_hat * np.mean(u * x_hat))
        else:
            pulled = c.gain * c.rms_inverse[at] * (u - x_hat * np.mean(u * x_hat))
        return self.dnormed(ln, at, pulled)

    def dpost(self, prefix: str, stack: Any, count: int, scope: str, at: tuple[int, ...], u: Array) -> list[Term]:
        i = int(scope.rsplit(".", 1)[1])
        if i < count - 1:
            return self.grad_terms(f"{prefix}blocks.{i + 1}.hook_resid_pre", at, u)
        if stack.ln_final is not None:
            return self.before_dnorm(f"{prefix}ln_final", at, u)
        return self.dfinal(prefix.rstrip("."), at, u)

    def around(self, scope: str, above: str, ln: str, at: tuple[int, ...], u: Array) -> list[Term]:
        """Two roads back from a sum: around the sublayer above, and through it."""
        post = self.cfg.norm == "post"
        sublayer = "mlp" if ln == "ln2" else "cross"
        skip, through = f"{scope}.route_skip_{sublayer}", f"{scope}.route_{sublayer}"

        def skipped() -> list[Term]:
            return self.before_dnorm(f"{scope}.{ln}", at, u) if post else self.grad_terms(f"{scope}.{above}", at, u)

        def passed() -> list[Term]:
            if self.cfg.norm == "pre":
                return self.before_dnorm(f"{scope}.{ln}", at, u)
            return self.through_neurons(scope, at, u) if ln == "ln2" else self.dread(f"{scope}.cross_attn", "q", at, u)

        g = self.t.gradients
        return [
            Term(f"around {scope}.{sublayer}", "u · ∂skip", float(u @ g[skip][at]), skipped),
            Term(f"through {scope}.{sublayer}", f"u · ∂{sublayer}", float(u @ g[through][at]), passed),
        ]

    def through_neurons(self, scope: str, at: tuple[int, ...], u: Array) -> list[Term]:
        mlp = f"{scope}.mlp"
        into, slopes = u @ self.t.weights[f"{mlp}.W_in"], self.t.gradients[f"{mlp}.hook_pre"][at]
        return [
            self.grad(f"{mlp}.hook_pre", at, unit(len(into), f, into[f]), f"{mlp} neuron {f}",
                      f"(W_in u) · ∂pre = {num(into[f])} · {num(slopes[f])}")
            for f in map(int, np.flatnonzero(into * slopes))
        ]  # fmt: skip

    def dpre(self, scope: str, at: tuple[int, ...], u: Array) -> list[Term]:
        """The gradient of a block's input: around attention where it asks, and by queries, keys and values."""
        b, row = at
        post, first = self.cfg.norm == "post", self.offset(scope)
        terms = []
        if row >= first:
            above = (b, row - first)

            def skipped() -> list[Term]:
                return (
                    self.before_dnorm(f"{scope}.ln1", above, u)
                    if post
                    else self.grad_terms(f"{scope}.hook_resid_mid", above, u)
                )

            skip = self.t.gradients[f"{scope}.route_skip_attn"][above]
            terms = [Term(f"around {scope}.attn", "u · ∂skip", float(u @ skip), skipped)]
        if self.cfg.norm == "pre":
            return terms + self.before_dnorm(f"{scope}.ln1", at, u)
        return terms + self.dread(f"{scope}.attn", "qkv", at, u)

    def dread(self, attention: str, ends: str, at: tuple[int, ...], u: Array) -> list[Term]:
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
                terms.append(Term(f"{attention} bias", f"u · ∂bias by {end}", float(u @ g[name][b, place])))
        return terms

    def dvalue(self, attention: str, at: tuple[int, ...], u: Array) -> list[Term]:
        b, s, h = at
        if self.position(attention).has("value"):
            return []
        pattern, dz = (
            attention_of(self.t, attention).softmax.pattern[b, h, :, s],
            self.t.gradients[f"{attention}.hook_z"],
        )
        return [
            self.grad(f"{attention}.hook_z", (b, i, h), a * u, f"by query {self.asking(attention, b, i)}",
                      f"A[{i},{s}] · ∂z = {num(a)} · {num(u @ dz[b, i, h])}")
            for i, a in enumerate(pattern)
        ]  # fmt: skip

    def dturned(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[Term]:
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
            return [*terms, Term("by the position bias", f"u · ∂{which} felt by the bias", felt)]
        return self.dlooks(attention, which, at, pulled) if c is not None else terms

    def turn(self, attention: str, q: Array, k: Array) -> tuple[Array, Array]:
        from ...positions import Places

        T, S = q.shape[1], k.shape[1]
        length = T if attention.endswith("cross_attn") else S
        places = Places(np.arange(length - T, length), np.arange(S), None, self.cfg.causal)
        return self.position(attention).encode_qk(attention_of(self.t, attention).p.pos, q, k, places)[:2]

    def dlooks(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[Term]:
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
            formula = f"{'k' if which == 'q' else 'q'}/√K · ∂score[{t_},{s}] = {num(factor)} · {num(dscores[t_, s])}"
            terms.append(self.dscore(attention, (b, h, t_, s), float(factor), name, formula))
        return terms

    def dscore(self, attention: str, at: tuple[int, ...], factor: float, label: str, formula: str = "") -> Term:
        """∂score_s = A_s (∂A_s − Σ A′ ∂A′): was looking there better than looking as the row does on average?"""
        b, h, row, s = at
        pattern = attention_of(self.t, attention).softmax.pattern[b, h, row]
        slopes = self.t.gradients[f"{attention}.hook_pattern"][b, h, row]
        size = factor * float(pattern[s])

        def average() -> list[Term]:
            return [
                self.dpattern(
                    attention,
                    (b, h, row, i),
                    -size * float(x),
                    f"∂pattern of source {self.asked(attention, b, i)}",
                    f"−A A′ = {num(-x)} A",
                )
                for i, x in enumerate(pattern)
                if x
            ]

        def terms() -> list[Term]:
            here = self.dpattern(
                attention,
                at,
                size,
                f"∂pattern of source {self.asked(attention, b, s)}",
                f"A ∂A = {num(pattern[s])} · {num(slopes[s])}",
            )
            mean = float(pattern @ slopes)
            less = Term(
                "less the row's average", f"−A Σ A′ ∂A′ = −{num(pattern[s])} · {num(mean)}", -size * mean, average
            )
            return [here, less]

        value = factor * float(self.t.gradients[f"{attention}.hook_attn_scores"][at])
        return Term(label, formula or "A_s (∂A_s − Σ A ∂A)", value, terms)

    def dpattern(self, attention: str, at: tuple[int, ...], factor: float, label: str, formula: str = "") -> Term:
        """∂A_ts = ∂z_t · v_s."""
        b, h, row, s = at
        value = factor * float(self.t.gradients[f"{attention}.hook_pattern"][at])
        if self.position(attention).has("value"):
            return Term(label, formula, value)
        v = attention_of(self.t, attention).v[b, s, h]
        return Term(
            label, formula or "∂z · v", value, lambda: self.grad_terms(f"{attention}.hook_z", (b, row, h), factor * v)
        )
