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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..arrays import Array
from ..errors import BadInput, unknown
from .trace import Trace
from .walk import Term, Walk

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
    walk = Walk(t)
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


# ---------------------------------------------------------------------------------------------------- the tree


def _grow(term: Term, depth: int, top: int) -> Node:
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
