"""Values: u · row of an activation, as a sum over what the row was computed from."""

import math

import numpy as np

from ...arrays import Array
from ...layers import layer_norm
from ..sites import attention_of
from .ground import Ground
from .terms import Term, bias_term, elements, num, unit

__all__ = ["Values"]


class Values(Ground):
    def value(self, name: str, at: tuple[int, ...], u: Array, label: str = "", formula: str = "") -> Term:
        x = self.t.values[name][at]
        return Term(
            label or f"{name}[{','.join(map(str, at))}]", formula, float(u @ x), lambda: self.value_terms(name, at, u)
        )

    def value_terms(self, name: str, at: tuple[int, ...], u: Array) -> list[Term]:
        """u · row as a sum over what the row was computed from."""
        scope, _, last = name.rpartition(".")
        t, block = self.t, scope.rpartition(".")[0]
        if name == "logits":
            c = t.cache.unembed
            return [*self.final(at, c.W_U @ u), *bias_term("unembedding bias", c.b_U, u)]
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
            return elements(
                f"{self.cfg.activation}(pre)",
                t.values[name][at],
                u,
                [f"{self.cfg.activation}({num(x)})" for x in pre],
            )
        return elements(name, t.values[name][at], u)

    def slope(self, mlp: str) -> Array:
        block = mlp.rsplit(".", 1)[0]
        prefix, stack, _ = self.stack(block)
        return stack.blocks[int(block.removeprefix(prefix).split(".")[1])].mlp.activation.slope

    def final(self, at: tuple[int, ...], u: Array) -> list[Term]:
        """What the unembedding reads."""
        prefix, stack, n = self.stack("decoder.")
        last = f"{prefix}blocks.{n - 1}.hook_resid_post"
        return self.stream(last if stack.ln_final is None else f"{prefix}ln_final.hook_normalized", at, u)

    def stream(self, name: str, at: tuple[int, ...], u: Array) -> list[Term]:
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
            terms = [Term(f"{prefix}embedding", f"u · embed[{self.token(prefix, at)}]", float(u @ embed),
                           lambda: elements(f"{prefix}hook_embed", embed, u))]  # fmt: skip
            if self.cfg.position_method.has("embedding"):
                where = t.values[name][at] - embed
                terms.append(Term(f"{prefix}position {at[1]}", "u · position", float(u @ where),
                                   lambda: elements("position", where, u)))  # fmt: skip
            return terms
        return self.added(scope, last, at, u)

    def normed(self, ln: str, at: tuple[int, ...], u: Array) -> list[Term]:
        """Through a norm, its scale taken as the number it is."""
        c = self.norm(ln)
        gain_u = c.gain * u
        if isinstance(c, layer_norm.Cache):
            pulled = c.rstd[at] * (gain_u - gain_u.mean())
            bias = self.t.weights[f"{ln}.bias"]
        else:
            pulled, bias = c.rms_inverse[at] * gain_u, None
        return [*self.before_norm(ln, at, pulled), *bias_term(f"{ln}.bias", bias, u)]

    def before_norm(self, ln: str, at: tuple[int, ...], u: Array) -> list[Term]:
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

    def added(self, scope: str, last: str, at: tuple[int, ...], u: Array) -> list[Term]:
        """A sum of the stream and a sublayer."""
        if last == "hook_resid_mid":
            below = (at[0], at[1] + self.offset(scope))
            return [*self.stream(f"{scope}.hook_resid_pre", below, u), *self.heads(f"{scope}.attn", at, u)]
        if last == "hook_resid_cross":
            return [*self.stream(f"{scope}.hook_resid_mid", at, u), *self.heads(f"{scope}.cross_attn", at, u)]
        below = f"{scope}.{'hook_resid_cross' if self.crosses(scope) else 'hook_resid_mid'}"
        out = self.value(f"{scope}.hook_mlp_out", at, u, f"{scope}.mlp", "Σ over neurons")
        return [*self.stream(below, at, u), out]

    def heads(self, attention: str, at: tuple[int, ...], u: Array) -> list[Term]:
        p = attention_of(self.t, attention).p
        terms = [
            self.value(f"{attention}.hook_z", (*at, h), p.W_O[h] @ u, f"{attention} head {h}", "u · z W_O")
            for h in range(self.cfg.n_heads)
        ]
        return [*terms, *bias_term(f"{attention}.b_O", p.b_O, u)]

    def sources(self, attention: str, at: tuple[int, ...], u: Array) -> list[Term]:
        b, row, h = at
        c = attention_of(self.t, attention)
        if self.position(attention).has("value"):
            return elements(f"{attention}.hook_z", c.z[at], u)
        weights = c.softmax.pattern[b, h, row]
        return [
            self.value(f"{attention}.hook_v", (b, s, h), a * u, f"from source {self.asked(attention, b, s)}",
                       f"A[{row},{s}] · v = {num(a)} · {num(u @ c.v[b, s, h])}")
            for s, a in enumerate(weights)
        ]  # fmt: skip

    def projected(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[Term]:
        """q, k or v: from what attention reads."""
        b, row, h = at
        p = attention_of(self.t, attention).p
        W, bias = getattr(p, f"W_{which.upper()}")[h], getattr(p, f"b_{which.upper()}")
        return [
            *self.read(attention, which, (b, row), W @ u),
            *bias_term(f"b_{which.upper()}", None if bias is None else bias[h], u),
        ]

    def read(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[Term]:
        scope, kind = attention.rsplit(".", 1)
        if kind == "cross_attn":
            if which != "q":
                return self.stream("encoder.hook_memory", at, u)
            name = "ln_cross.hook_normalized" if self.cfg.norm == "pre" else "hook_resid_mid"
        else:
            name = "ln1.hook_normalized" if self.cfg.norm == "pre" else "hook_resid_pre"
            at = (at[0], at[1] + (self.offset(scope) if which == "q" else 0))
        return self.stream(f"{scope}.{name}", at, u)

    def unturned(self, attention: str, which: str, at: tuple[int, ...], u: Array) -> list[Term]:
        position, c = self.position(attention), attention_of(self.t, attention)
        name = f"{attention}.hook_{which}"
        if not position.has("query_key"):
            return [self.value(name, at, u)]
        dq, dk = np.zeros_like(c.q), np.zeros_like(c.k)
        (dq if which == "q" else dk)[at] = u
        back = position.encode_qk_backward(dq, dk, c.encode_qk)
        return [self.value(name, at, back[0 if which == "q" else 1][at])]

    def neurons(self, scope: str, at: tuple[int, ...], u: Array) -> list[Term]:
        weights, mlp = self.t.weights, f"{scope}.mlp"
        out = weights[f"{mlp}.W_out"] @ u
        post = self.t.values[f"{mlp}.hook_post"][at]
        terms = [
            self.value(f"{mlp}.hook_post", at, unit(len(out), f, out[f]), f"{mlp} neuron {f}",
                       f"post · (W_out u) = {num(post[f])} · {num(out[f])}")
            for f in map(int, np.flatnonzero(post * out))
        ]  # fmt: skip
        return [*terms, *bias_term(f"{mlp}.b_out", weights.get(f"{mlp}.b_out"), u)]

    def into_neuron(self, scope: str, at: tuple[int, ...], u: Array) -> list[Term]:
        weights, mlp = self.t.weights, f"{scope}.mlp"
        pulled = weights[f"{mlp}.W_in"] @ u
        below = "hook_resid_cross" if self.crosses(scope) else "hook_resid_mid"
        name = f"{scope}.ln2.hook_normalized" if self.cfg.norm == "pre" else f"{scope}.{below}"
        return [*self.stream(name, at, pulled), *bias_term(f"{mlp}.b_in", weights.get(f"{mlp}.b_in"), u)]

    # -------------------------------------------------------------- scores

    def score(self, attention: str, at: tuple[int, ...], label: str) -> Term:
        """q · k/√K, in parts of content and position, each element by element; and what the position method adds."""
        b, h, row, s = at
        t, c, position = self.t, attention_of(self.t, attention), self.position(attention)
        scale = 1 / math.sqrt(c.p.W_Q.shape[-1])
        q, k = t.values[f"{attention}.hook_q"][b, row, h], t.values[f"{attention}.hook_k"][b, s, h]

        def product(name: str, x: Array, y: Array, formula: str) -> Term:
            return Term(name, f"{formula} · {num(scale)}", float(scale * (x @ y)), lambda: [
                Term(f"element {i}", f"{num(x[i])} · {num(y[i])} · {num(scale)}", float(scale * x[i] * y[i]))
                for i in range(len(x))
            ])  # fmt: skip

        def terms() -> list[Term]:
            asks, answers = (
                self.told_apart(attention, "q", (b, row), h, q),
                self.told_apart(attention, "k", (b, s), h, k),
            )
            found = [product(f"{m} of q, {n} of k", x, y, "q · k/√K") for m, x in asks for n, y in answers]
            if position.has("query_key"):
                x, y = c.q[b, row, h], c.k[b, s, h]
                turned = float(scale * (x @ y) - scale * (q @ k))
                found.append(Term("turned by position", "(q′ · k′ − q · k)/√K", turned, lambda: [
                    product("turned", x, y, "q′ · k′/√K"), product("less unturned", -q, k, "−q · k/√K")]))  # fmt: skip
            if position.has("score"):
                bias = np.broadcast_to(
                    t.values[f"{attention}.hook_bias"], t.values[f"{attention}.hook_attn_scores"].shape
                )
                found.append(Term("position bias", "", float(bias[at])))
            return found

        return Term(label, "q · k/√K" + (" + bias" if position.has("score") else ""),
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
