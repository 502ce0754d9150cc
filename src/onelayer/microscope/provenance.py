"""Provenance: the gradient of a weight as a sum of parts that say where each came from.

    s = split(t, "blocks.0.attn.W_K", by=("loss_token", "head"))
    s.parts [R H D K]      s.labels      s.total = s.plain up to s.residual      s.norms, s.shares [R H]

Axes      loss_token    which output position's loss            source     which position was looked at (in attention),
          position      which position the weight acted at                 else the one that it acted at
          example       of the batch                            head       of the attention it is in, or next above it
          class         of the output: entries of ∂logits       frequency  of the output: ∂logits by discrete Fourier
          route         through the residual stream: {skip, mlp} × {skip, Q, K, V of each head} of the block next above,
                        2(1 + 3H) into an embedding; "route:blocks.1" names the block, and crossing two names crosses
                        blocks; encoder weights also have "route:memory": K, V of each head of each cross-attention

Why exact A backward is linear in ∂logits and in each of its routes. An axis is a family of gates that add up to 1, so
          the gated backwards add up to the backward. Two axes cross by composing their gates.

Fast      What was already summed in one backward is not run again but summed less (sites.py): examples, positions,
          heads, sources; and loss tokens wherever a token's loss reaches a single row: in the last block of the
          decoder, hence in all of a one-layer model but its embeddings and the norm in front of its attention.
Gated     Everything else: one backward for each part (`cost` says how many were run). `method="gated"` takes this way
          throughout; it is what the fast one is tested against.

          A tensor with a head axis (or W_U with its classes) gives that axis up: part h is the slice of head h.
Residual  max|total − plain| / max|plain|. Where a gradient is zero but for rounding (a key's bias moves all scores of a
          row alike: below 1e-10 of the trace's largest gradient) that largest one takes the place of max|plain|.

Source    research on this: per-position outer products, Katz & Belinkov 2024, arXiv:2402.12865 (feed-forward, no loss
          token); paths of the forward, Elhage et al. 2021, A mathematical framework for Transformer circuits.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, flatten, unflatten
from ..errors import BadInput, unknown
from .gates import Gate, Replay, backward, gated
from .sites import Site, contract, ends, expanded, expands, place_of, sites
from .trace import Trace, available_memory

__all__ = ["AXES", "Split", "routes", "split", "splits"]

AXES = ("loss_token", "source", "position", "head", "example", "class", "frequency", "route")


class Part(NamedTuple):
    """One member of an axis: the gates that let it alone pass."""

    label: str
    gates: dict[str, Gate]
    z: tuple[str, int] | None = None  # W_O by source: z is replaced by what the source sent, in the attention named


class Axis(NamedTuple):
    name: str
    labels: tuple[str, ...]
    how: (
        str  # gated, or kept in the sum: example, row, end (the other end of attention); or slot, the tensor's own axis
    )
    parts: tuple[Part, ...] = ()
    slot: int = 0


@dataclass(frozen=True, eq=False)
class Split:
    """A gradient in parts [*axes, *what is left of the tensor's shape]."""

    tensor: str
    by: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    parts: Array = field(repr=False)
    plain: Array = field(repr=False)
    slots: tuple[int | None, ...] = ()  # the tensor's own axis that an axis of the parts is
    cost: int = 0  # backward passes that were run, beyond the trace's
    largest: float = 0.0  # of the trace's gradients

    @property
    def total(self) -> Array:
        """The sum of the parts, of the tensor's shape."""
        summed = tuple(i for i, slot in enumerate(self.slots) if slot is None)
        total = self.parts.sum(axis=summed)
        for slot in self.slots:
            if slot is not None:
                total = np.moveaxis(total, 0, slot)
        return total

    @property
    def residual(self) -> float:
        error = float(np.max(np.abs(self.total - self.plain), initial=0.0))
        size = float(np.max(np.abs(self.plain), initial=0.0))
        return 0.0 if error == 0.0 else error / (size if size > 1e-10 * self.largest else self.largest)

    @property
    def norms(self) -> Array:
        """The length of each part."""
        return np.sqrt(np.sum(self.parts**2, axis=tuple(range(len(self.by), self.parts.ndim))))

    @property
    def shares(self) -> Array:
        """⟨part, gradient⟩/‖gradient‖²: how much of the gradient each part makes up; they add up to 1, with signs."""
        plain = self.plain
        for i, slot in enumerate(self.slots):
            plain = np.expand_dims(plain, i) if slot is None else np.moveaxis(plain, slot + i, i)
        products = np.sum(self.parts * plain, axis=tuple(range(len(self.by), self.parts.ndim)))
        square = float(np.sum(self.plain**2))
        return products / square if square else np.zeros_like(products)

    def rows(self, top: int | None = None) -> list[dict[str, Any]]:
        """{axis: label …, "norm", "share"}, largest share first."""
        order = np.argsort(-np.abs(self.shares), axis=None, kind="stable")[:top]
        where = zip(*np.unravel_index(order, self.shares.shape), strict=True)
        return [
            dict(zip(self.by, (names[i] for names, i in zip(self.labels, at, strict=True)), strict=True))
            | {"norm": float(self.norms[at]), "share": float(self.shares[at])}
            for at in where
        ]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in (*self.by, "norm", "share"))
        lines = ("".join(f"<td>{x:.3g}</td>" if isinstance(x, float) else f"<td>{x}</td>" for x in row.values())
                 for row in self.rows(12))  # fmt: skip
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        about = f"{self.tensor}: {math.prod(map(len, self.labels))} parts, residual {self.residual:.1e}"
        return f"<p>{about}</p><table><tr>{head}</tr>{body}</table>"


def split(t: Trace, tensor: str, by: str | Sequence[str], *, method: str = "fast", period: int | None = None) -> Split:
    """The gradient of one weight tensor, split. period: how many of the first classes are a cycle (p); None: all."""
    return splits(t, [tensor], by, method=method, period=period)[tensor]


def splits(
    t: Trace, tensors: Iterable[str], by: str | Sequence[str], *, method: str = "fast", period: int | None = None
) -> dict[str, Split]:
    """Several tensors at once (names or patterns, "blocks.*.attn.W_?"): they share the backwards that they need."""
    names = (by,) if isinstance(by, str) else tuple(by)
    if method not in ("fast", "gated"):
        raise unknown("method", method, ("fast", "gated"))
    if len(set(names)) != len(names) or not names:
        raise BadInput(
            f"split by one axis, or by several different ones; received {list(names)}; allowed: {', '.join(AXES)}"
        )
    asked = {tensor: [_axis(t, tensor, name, method, period) for name in names] for tensor in _match(t, tensors)}
    for tensor, axes in asked.items():
        _check_size(t, tensor, axes)
    parts: dict[str, Array] = {}
    costs: dict[str, int] = {}
    for group in _groups(asked):
        choices = [axis.parts if axis.how == "gated" else (None,) for axis in asked[group[0]]]
        count = 0
        for at, chosen in zip(np.ndindex(*map(len, choices)), itertools.product(*choices), strict=True):
            open_gates = [part for part in chosen if part is not None]
            run = _replay(t, open_gates) if open_gates else None
            count += run is not None
            for tensor in group:
                axes = asked[tensor]
                piece = _local(t, tensor, axes, run)
                if tensor not in parts:
                    rest = piece.shape[sum(axis.how != "gated" for axis in axes) :]
                    parts[tensor] = np.zeros((*(len(axis.labels) for axis in axes), *rest), dtype=piece.dtype)
                index = tuple(i if axis.how == "gated" else slice(None) for i, axis in zip(at, axes, strict=True))
                parts[tensor][index] = piece
        costs |= dict.fromkeys(group, count)
    largest = max(float(np.max(np.abs(x), initial=0.0)) for x in t.weight_gradients.values())
    return {
        tensor: Split(
            tensor, names, tuple(axis.labels for axis in axes), parts[tensor], t.weight_gradients[tensor],
            tuple(axis.slot if axis.how == "slot" else None for axis in axes), costs[tensor], largest,
        )
        for tensor, axes in asked.items()
    }  # fmt: skip


def _match(t: Trace, tensors: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for pattern in tensors:
        matched = [name for name in t.weights if fnmatchcase(name, pattern)]
        if not matched:
            raise unknown("weight", pattern, t.weights)
        found |= dict.fromkeys(matched)
    return list(found)


def _check_size(t: Trace, tensor: str, axes: list[Axis]) -> None:
    """BadInput where the parts would not fit."""
    x = t.weights[tensor]
    need = x.nbytes
    for axis in axes:
        need *= len(axis.labels) if axis.how != "slot" else 1
    if need > (free := available_memory()):
        count = " × ".join(f"{len(axis.labels)} {axis.name}" for axis in axes)
        raise BadInput(
            f"the parts of {tensor} ({count}) take {need / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; "
            "split a trace of fewer examples, or by fewer axes"
        )


def _groups(asked: Mapping[str, list[Axis]]) -> list[list[str]]:
    """Tensors that need the very same backwards."""
    groups: dict[Any, list[str]] = {}
    for tensor, axes in asked.items():
        key = tuple(
            tuple((part.label, tuple(part.gates), part.z) for part in axis.parts) if axis.how == "gated" else None
            for axis in axes
        )
        groups.setdefault(key, []).append(tensor)
    return list(groups.values())


def _replay(t: Trace, parts: list[Part]) -> Replay:
    """The backward with the gates of all parts, one after the other where they share a name."""
    together: dict[str, Gate] = {}
    cache = t.cache
    for part in parts:
        for name, gate in part.gates.items():
            together[name] = partial(_both, together[name], gate) if name in together else gate
        if part.z is not None:
            cache = _sent_from(t, *part.z)
    seen: dict[str, Array] = {}
    return Replay(backward(t.dlogits, cache, t.cfg, gated(together, seen)), seen)


def _both(first: Gate, second: Gate, x: Array) -> Array:
    for gate in (first, second):
        x = gate(x) if callable(gate) else gate * x
    return x


def _sent_from(t: Trace, scope: str, source: int) -> Any:
    """The cache, but z holds only what came from one source."""
    named = flatten(t.cache)
    path = next(name for name in named if name.endswith(f"{scope}.z"))
    site = sites(t, f"{scope}.W_O")[0]
    left = next(itertools.islice(expanded(t, site), source, None)).left
    assert left is not None
    return unflatten(named | {path: left.reshape(named[path].shape)}, t.cache)


# ---------------------------------------------------------------------------------------------------- kept in the sum


def _local(t: Trace, tensor: str, axes: list[Axis], run: Replay | None) -> Array:
    """The gradient (of the trace, or of a replay) with the axes that need no gate kept apart, in their order."""
    kept = [axis for axis in axes if axis.how not in ("gated", "slot")]
    if not kept:
        whole = t.weight_gradients[tensor] if run is None else flatten(run.weights)[tensor]
    else:
        whole = _summed_less(t, tensor, kept, run)
    for i, axis in enumerate(a for a in axes if a.how != "gated"):  # each slot goes where its axis stands
        if axis.how == "slot":
            whole = np.moveaxis(whole, axis.slot + sum(a.how not in ("gated", "slot") for a in axes), i)
    return whole


def _summed_less(t: Trace, tensor: str, kept: list[Axis], run: Replay | None) -> Array:
    found = sites(t, tensor, None if run is None else run.gradients)
    shape = tuple(len(axis.labels) for axis in kept)
    out = np.zeros((*shape, *t.weights[tensor].shape), dtype=t.weights[tensor].dtype)
    hows = [axis.how for axis in kept]
    start = 0
    for site in found:
        assert site.right is not None
        P = site.right.shape[1]
        pieces = expanded(t, site, None if run is None else run.gradients) if "end" in hows else iter([site])
        for end, piece in enumerate(pieces):
            summed = contract(piece, examples="example" in hows, rows="row" in hows)
            for target, source in _indices(hows, end, start, P):
                out[target] += summed[source]
        start += P
    return out


def _indices(hows: list[str], end: int, start: int, P: int) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Where a contraction [B? P? …] goes among the kept axes. Two axes may both be its rows: it is their diagonal."""
    everything: dict[str, Any] = {"example": slice(None), "end": end, "row": slice(start, start + P)}
    if hows.count("row") < 2:
        swapped = "example" in hows and "row" in hows and hows.index("row") < hows.index("example")
        if not swapped:
            yield tuple(everything[how] for how in hows), ()
            return
    examples = (slice(None),) if "example" in hows else ()
    for p in range(P):
        yield tuple({**everything, "row": start + p}[how] for how in hows), (*examples, p)


# ---------------------------------------------------------------------------------------------------- axes


def _axis(t: Trace, tensor: str, name: str, method: str, period: int | None) -> Axis:
    kind, _, scope = name.partition(":")
    if kind not in AXES:
        raise unknown("axis", name, AXES)
    if scope and kind != "route":
        raise BadInput(f"only a route names its block; received {name!r}, allowed: {kind!r}")
    found = sites(t, tensor)
    if kind == "route":
        return _gated(name, routes(t, tensor, scope or None))
    if kind == "head":
        return _head_axis(t, tensor, found)
    if kind in ("class", "frequency"):
        return _output_axis(t, tensor, found, kind, period)
    B, R, T = (t.shape[letter] for letter in "BRT")
    if kind == "example":
        labels = tuple(f"n={n}" for n in range(B))
        if method == "fast" and all(site.kind != "opaque" for site in found):
            return Axis(name, labels, "example")
        return _gated(name, [Part(label, {"logits": _only(0, n)}) for n, label in enumerate(labels)])
    if kind == "loss_token":
        labels = tuple(f"t={T - R + i}" for i in range(R))
        how = _loss_token_how(t, tensor, found) if method == "fast" else "gated"
        if how != "gated":
            return Axis(name, labels, how)
        return _gated(name, [Part(label, {"logits": _only(1, i)}) for i, label in enumerate(labels)])
    return _position_axis(t, tensor, found, kind, method)


def _gated(name: str, parts: Iterable[Part]) -> Axis:
    parts = tuple(parts)
    return Axis(name, tuple(part.label for part in parts), "gated", parts)


def _only(axis: int, index: int) -> Gate:
    """The gate through which one slice of an array passes."""

    def gate(x: Array) -> Array:
        at = (slice(None),) * axis + (index,)
        out = np.zeros_like(x)
        out[at] = x[at]
        return out

    return gate


def _loss_token_how(t: Trace, tensor: str, found: list[Site]) -> str:
    """Where a loss token is one row of the site, or one end of its looks; else it takes gates."""
    place, site = place_of(tensor), found[0]
    if len(found) > 1 or site.kind == "opaque" or place.stack == "encoder." or place.block < t.cfg.n_layers - 1:
        return "gated"
    if place.sublayer == "ln1" and t.cfg.norm == "pre":
        return "gated"  # its rows are keys and values too, for every query
    if site.stage != "key":
        return "row"
    return "end" if expands(t, site) else "gated"


def _position_axis(t: Trace, tensor: str, found: list[Site], kind: str, method: str) -> Axis:
    """position: the row at which the weight acts. source: in attention, the row that was looked at."""
    site = found[0]
    if kind == "source" and site.stage in ("query", "out") and site.attention:
        return _source_axis(t, tensor, site, method)
    labels: list[str] = []
    parts: list[Part] = []
    for each in found:
        use = f"{each.use} " if len(found) > 1 else ""
        rows = (
            t.gradients[each.gradient].shape[1] if each.kind == "opaque" or each.right is None else each.right.shape[1]
        )
        own = [f"{use}{'s' if kind == 'source' else 't'}={each.first + i}" for i in range(rows)]
        others = _other_uses(found, each)
        name = "logits" if each.gradient == "unembed.route_tied" else each.gradient
        labels += own
        parts += [Part(label, {name: _only(1, i), **others}) for i, label in enumerate(own)]
    if method == "fast" and site.kind != "opaque":
        return Axis(kind, tuple(labels), "row")
    return _gated(kind, parts)


def _source_axis(t: Trace, tensor: str, site: Site, method: str) -> Axis:
    labels = tuple(f"s={s}" for s in range(ends(t, site)))
    if method == "fast" and site.kind != "opaque" and expands(t, site):
        return Axis("source", labels, "end")
    position = t.cfg.position_method
    if position.has("value") and (site.kind == "opaque" or site.stage == "out"):
        raise BadInput(
            f"{tensor} cannot be split by source: position '{position.name}' mixes the values by a rule of its own; "
            f"allowed: {', '.join(axis for axis in AXES if axis != 'source')}"
        )
    if site.stage == "out":
        return _gated("source", [Part(label, {}, (site.attention, s)) for s, label in enumerate(labels)])
    scores = f"{site.attention}.hook_attn_scores"
    return _gated("source", [Part(label, {scores: _only(3, s)}) for s, label in enumerate(labels)])


def _head_axis(t: Trace, tensor: str, found: list[Site]) -> Axis:
    place, H = place_of(tensor), t.cfg.n_heads
    labels = tuple(f"head {h}" for h in range(H))
    if place.sublayer.endswith("attn") and place.leaf in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
        return Axis("head", labels, "slot", slot=0)
    if found[0].kind == "opaque" and found[0].attention:
        z = f"{found[0].attention}.hook_z"
        return _gated("head", [Part(label, {z: _only(2, h)}) for h, label in enumerate(labels)])
    return _gated("head", _uses(t, tensor, lambda use: _heads_above(t, use)))


def _output_axis(t: Trace, tensor: str, found: list[Site], kind: str, period: int | None) -> Axis:
    V = t.cfg.vocab_size
    if kind == "class":
        labels = tuple(t.vocabulary or (f"v={v}" for v in range(V)))
        if len(found) == 1 and place_of(tensor).sublayer == "unembed":
            return Axis("class", labels, "slot", slot=1 if tensor.endswith("W_U") else 0)
        return _gated("class", [Part(label, {"logits": _only(2, v)}) for v, label in enumerate(labels)])
    p = V if period is None else period
    if not 1 <= p <= V:
        raise BadInput(f"the period counts classes that are a cycle: allowed 1 to {V}, received {period}")
    parts = [Part(f"f={f}", {"logits": partial(_frequency, p, f)}) for f in range(p // 2 + 1)]
    if p < V:
        parts.append(Part("other classes", {"logits": lambda x: np.concatenate([0 * x[..., :p], x[..., p:]], axis=-1)}))
    return _gated("frequency", parts)


def _frequency(p: int, f: int, dlogits: Array) -> Array:
    """The waves of frequency f in the first p classes: c cos(2πfv/p) + s sin(2πfv/p); the other classes get zero."""
    angle = 2 * math.pi * f * np.arange(p) / p
    waves = np.stack([np.cos(angle), np.sin(angle)]) * math.sqrt((1 if f == 0 or 2 * f == p else 2) / p)
    out = np.zeros_like(dlogits)
    out[..., :p] = (dlogits[..., :p] @ waves.T) @ waves
    return out


# ---------------------------------------------------------------------------------------------------- routes

Way = list[Part]  # alternatives that exclude each other and together are everything


def routes(t: Trace, tensor: str, scope: str | None = None) -> list[Part]:
    """The routes through one block (None: the next above that has any) by which gradient comes to the tensor."""
    return _uses(t, tensor, lambda use: _through(t, use, scope))


def _uses(t: Trace, tensor: str, ways: Any) -> list[Part]:
    """The ways to each use of a tensor: a tied table is used at several places, and all but one are shut."""
    found = sites(t, tensor)
    if len(found) == 1:
        return ways(tensor)
    parts: list[Part] = []
    for site in found:
        if site.use == "unembed":
            own = [Part("unembed", {})]
        else:
            prefix = "encoder." if site.use == "source_embed" else place_of(tensor).stack
            own = [Part(f"{site.use}: {part.label}", part.gates) for part in ways(f"{prefix}embed.W_E")]
        others = _other_uses(found, site)
        parts += [Part(part.label, {**part.gates, **others}) for part in own]
    return parts


def _other_uses(found: list[Site], one: Site) -> dict[str, Gate]:
    return {site.gradient: 0 for site in found if site is not one}


def _through(t: Trace, tensor: str, scope: str | None) -> list[Part]:
    above = {name: ways for name, ways in _above(t, tensor) if ways}
    if not above:
        raise BadInput(
            f"{tensor} has one route only: its gradient comes straight from the logits; split it by another axis"
        )
    if scope is not None and scope not in above:
        raise unknown(f"block above {tensor}", scope, above)
    ways = above[next(iter(above)) if scope is None else scope]
    parts = []
    for chosen in itertools.product(*ways):
        gates: dict[str, Gate] = {}
        for part in chosen:
            gates |= part.gates
        parts.append(Part(" · ".join(part.label for part in chosen), gates))
    return parts


def _heads_above(t: Trace, tensor: str) -> list[Part]:
    """The heads of the attention next above (and the skip around it)."""
    for scope, ways in _above(t, tensor, by_head=True):
        found = [way for way in ways if any("head" in part.label for part in way)]
        if found and scope:
            return found[-1]
    raise BadInput(f"the gradient of {tensor} passes no head; split it by another axis: {', '.join(AXES)}")


def _above(t: Trace, tensor: str, by_head: bool = False) -> Iterator[tuple[str, list[Way]]]:
    """The blocks between tensor and loss, nearest first; in each the ways through its sublayers, from the loss down."""
    place, cfg, crosses = place_of(tensor), t.cfg, t.cfg.architecture == "encoder_decoder"
    encoder = place.stack == "encoder."
    count = (cfg.n_encoder_layers or cfg.n_layers) if encoder else cfg.n_layers
    for i in range(max(place.block, 0), count):
        scope = f"{place.stack}blocks.{i}"
        below = "" if i != place.block else place.sublayer
        yield scope, _ways(t, scope, below, crosses and not encoder, by_head)
    if encoder:
        yield "memory", [_memory(t, by_head)]


def _ways(t: Trace, scope: str, below: str, cross: bool, by_head: bool) -> list[Way]:
    """Through a block, down to the sublayer `below` ("": to its input)."""
    pre = t.cfg.norm == "pre"
    if below in ("mlp", "ln2"):
        return []
    ways = [[Part("skip", {f"{scope}.route_mlp": 0}), Part("mlp", {f"{scope}.route_skip_mlp": 0})]]
    if cross:
        if below == "cross_attn" or (below == "ln_cross" and not pre):
            return ways
        skips = below != "ln_cross"
        ways.append(_attention_way(t, f"{scope}.cross_attn", f"{scope}.route_skip_cross", skips, "q", by_head))
        if below == "ln_cross":
            return ways
    if below == "attn" or (below == "ln1" and not pre):
        return ways
    return [*ways, _attention_way(t, f"{scope}.attn", f"{scope}.route_skip_attn", below != "ln1", "qkv", by_head)]


def _attention_way(t: Trace, scope: str, skip: str, skips: bool, ends: str, by_head: bool) -> Way:
    """Around an attention (where there is a way around), or by the query, key or value of one of its heads."""
    biases = [name for name in (f"{scope}.route_bias_q", f"{scope}.route_bias_k") if name in t.gradients]
    biases = biases if "k" in ends else biases[:1]
    shut = {f"{scope}.route_{end}": 0 for end in ends} | dict.fromkeys(biases, 0)
    across = "cross " if scope.endswith("cross_attn") else ""
    around = {skip: 0} if skips else {}
    way = [Part(f"{across}skip", shut)] if skips else []
    for h in range(t.cfg.n_heads):
        one = _only(2, h)
        if by_head:
            way.append(Part(f"{across}head {h}", around | shut | {f"{scope}.route_{end}": one for end in ends}))
        else:
            way += [Part(f"{across}{end.upper()}{h}", around | shut | {f"{scope}.route_{end}": one}) for end in ends]
    if biases:
        way.append(Part(f"{across}bias", {k: v for k, v in (around | shut).items() if k not in biases}))
    return way


def _memory(t: Trace, by_head: bool) -> Way:
    """From the encoder's output into the keys and values of the decoder's cross-attentions."""
    scopes = [f"decoder.blocks.{i}.cross_attn" for i in range(t.cfg.n_layers)]
    names = [n for s in scopes for n in (f"{s}.route_k", f"{s}.route_v", f"{s}.route_bias_k") if n in t.gradients]
    way = []
    for i, scope in enumerate(scopes):
        for h in range(t.cfg.n_heads):
            pairs = ["kv"] if by_head else ["k", "v"]
            for ends_ in pairs:
                gates = dict.fromkeys(names, 0) | {f"{scope}.route_{end}": _only(2, h) for end in ends_}
                way.append(Part(f"memory {i} {f'head {h}' if by_head else f'{ends_.upper()}{h}'}", gates))
        if f"{scope}.route_bias_k" in names:
            way.append(Part(f"memory {i} bias", {k: 0 for k in names if k != f"{scope}.route_bias_k"}))
    return way
