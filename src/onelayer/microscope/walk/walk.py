"""Where a walk begins: one entry of a weight's gradient, of an activation, or of its gradient."""

from typing import Any

import numpy as np

from ...arrays import Array
from ..provenance import split
from ..sites import sites
from .gradients import Gradients
from .terms import Term, num, unit

__all__ = ["Walk"]


class Walk(Gradients):
    def weight(self, tensor: str, at: tuple[int, ...]) -> Term:
        """The gradient of one entry of a weight: a sum over the rows of its sites."""
        t = self.t
        found, value = sites(t, tensor), float(t.weight_gradients[tensor][at])
        name = f"∂{tensor}[{','.join(map(str, at))}]"

        def terms() -> list[Term]:
            return [term for site in found for term in self.rows(tensor, site, at)]

        formulas = {"outer": "Σ what came in · gradient of what went out", "table": "Σ over the rows that look it up",
                    "sum": "Σ over rows", "opaque": "Σ over queries"}  # fmt: skip
        return Term(name, " + ".join(formulas[site.kind] for site in found), value, terms)

    def rows(self, tensor: str, site: Any, at: tuple[int, ...]) -> list[Term]:
        t = self.t
        if site.kind == "opaque":
            parts = split(t, tensor, "position")
            return [Term(f"{label}", "the part of one query", float(part[at]))
                    for label, part in zip(parts.labels[0], parts.parts, strict=True)]  # fmt: skip
        g = t.gradients[site.gradient] if site.gradient != "unembed.route_tied" else t.dlogits
        left, j, heads = self.factors(tensor, site, at)
        out = []
        for b, p in np.argwhere(left != 0):
            place = (int(b), int(p)) if heads is None else (int(b), int(p), heads)
            size, gradient = float(left[b, p]), float(g[(*place, j)])
            where = f"example {b}, position {site.first + p}"
            shown = f"{num(size)} · ∂{site.gradient}[{','.join(map(str, (*place, j)))}] = {num(size)} · {num(gradient)}"
            name = "logits" if site.gradient == "unembed.route_tied" else site.gradient
            u = unit(g.shape[-1], j, size)
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

    def element(self, side: str, name: str, at: tuple[int, ...]) -> Term:
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
            return Term(label, formula, value)
        term = self.value if side == "value" else self.grad
        return term(name, at[:-1], unit(array.shape[-1], at[-1]), label)
