"""Per example: how large each example's gradient is, how two examples pull, and which pull hardest on one weight.

An example's gradient g_n is its share of the batch's: the shares add up to the gradient.

ghost     ‖g_n‖² = Σ_{p,p′} (l_p · l_p′)(r_p · r_p′)       over the rows p, p′ of example n, where ∂W = Σ l ⊗ r
          so no example's gradient is ever written down; a table's l is one-hot: (l_p · l_p′) = [same token].
gram      ⟨g_m, g_n⟩ the same way, and from it cosines between examples; between groups (classes, train against test)
          the groups' gradients themselves.
snr       mean² / variance of each entry over the examples, N g_n being the sample:
          Σ_n g_n² = Σ_n Σ_{p,p′} (l_p l_p′) ⊗ (r_p r_p′)
pull      g_n of one entry, sorted: who pulls most, who pulls against

Source    Goodfellow 2015, arXiv:1510.01799; ghost norm: Li et al. 2021, arXiv:2110.05679, and for all layers
          Bu et al. 2022, arXiv:2205.10683. Signal to noise: Liu et al. 2020, arXiv:2001.07384.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, flatten, map_tree
from ..errors import BadInput
from .gates import backward, forward
from .sites import Site, contract, sites
from .trace import Trace, available_memory

__all__ = [
    "Pull", "alignment", "classes", "cosines", "gram", "group_gradients", "lengths", "norms", "overview", "pull", "snr",
    "strongest",
]  # fmt: skip


def norms(t: Trace, tensor: str) -> Array:
    """‖g_n‖ of one weight tensor [B], without any g_n."""
    found = sites(t, tensor)
    if any(site.kind == "opaque" for site in found):
        each = _one_by_one(t, tensor)
        return np.sqrt(np.sum(each**2, axis=tuple(range(1, each.ndim))))
    square = sum(_ghost(a, b) for a in found for b in found)
    return np.sqrt(np.maximum(square, 0.0))


def lengths(t: Trace) -> Array:
    """‖g_n‖ over all weights together [B]."""
    return np.sqrt(sum((norms(t, name) ** 2 for name in t.weights), np.zeros(len(t.batch.tokens))))


def _ghost(a: Site, b: Site) -> Array:
    """Σ_{p,p′} (l_p · l_p′)(r_p · r_p′) within each example [B]."""
    assert a.right is not None and b.right is not None
    P, Q = a.right.shape[1], b.right.shape[1]
    if a.kind == "sum":
        total = a.right.sum(axis=1)
        return _squared(total)
    if a is b and a.kind == "outer":
        assert a.left is not None
        M, N = a.left.shape[-1], a.right.shape[-1]
        if P == 1:
            return _squared(a.left[:, 0]) * _squared(a.right[:, 0])
        if P * (M + N) > M * N:  # long sequences: the gradient itself is the smaller thing
            return np.array([np.sum((x.T @ y) ** 2) for x, y in zip(a.left, a.right, strict=True)])
    left = _left_products(a, b)
    return np.sum(left * (a.right @ np.swapaxes(b.right, 1, 2)), axis=(1, 2)) if P and Q else np.zeros(len(a.right))


def _squared(x: Array) -> Array:
    """|x|² of each row, without an array of squares."""
    return np.einsum("bn,bn->b", x, x)


def _left_products(a: Site, b: Site) -> Array:
    """l_p · l_p′ within each example [B P Q]; a table's l is one-hot."""
    assert a.left is not None and b.left is not None
    if a.kind == "table" and b.kind == "table":
        return (a.left[:, :, None] == b.left[:, None, :]).astype(np.float64)
    if a.kind == "table":
        return np.take_along_axis(np.swapaxes(b.left, 1, 2), a.left[:, :, None], axis=1)
    if b.kind == "table":
        return np.swapaxes(_left_products(b, a), 1, 2)
    return a.left @ np.swapaxes(b.left, 1, 2)


def _one_by_one(t: Trace, tensor: str, examples: Sequence[int] | None = None) -> Array:
    """g_n [n *shape] by a small forward and backward an example: for what a position method learns by its own rule."""
    chosen = range(len(t.batch.tokens)) if examples is None else examples
    out = []
    for n in chosen:
        _, cache = forward(t.params, map_tree(lambda a, n=n: a[n : n + 1], t.batch), t.cfg)
        out.append(flatten(backward(t.dlogits[n : n + 1], cache, t.cfg))[tensor])
    return np.stack(out)


# ---------------------------------------------------------------------------------------------------- pairs


def gram(t: Trace, tensors: Sequence[str] | None = None, examples: Sequence[int] | None = None) -> Array:
    """⟨g_m, g_n⟩ [n n] over the tensors (None: all weights) and examples (None: all)."""
    chosen = np.arange(len(t.batch.tokens)) if examples is None else np.asarray(examples, dtype=np.int64)
    n, B = len(chosen), len(t.batch.tokens)
    if n == 0 or chosen.min() < 0 or chosen.max() >= B:
        raise BadInput(f"examples are numbered 0 to {B - 1}; received {np.asarray(chosen).tolist()[:5]}")
    length = max(t.shape["T"], t.shape.get("S", 0))
    need = 3 * 8 * (n * length) ** 2
    if need > (free := available_memory()):
        raise BadInput(
            f"all pairs of {n} examples take {need / 1e9:.3g} GB and {free / 1e9:.3g} GB are free; choose at most "
            f"{int(n * (free / need) ** 0.5)} examples"
        )
    return sum((_gram(t, name, chosen) for name in (t.weights if tensors is None else tensors)), np.zeros((n, n)))


def _gram(t: Trace, tensor: str, chosen: Array) -> Array:
    found = sites(t, tensor)
    n = len(chosen)
    if len(found) > 1 or found[0].kind in ("opaque", "sum"):
        if any(site.kind == "opaque" for site in found):
            flat = _one_by_one(t, tensor, chosen.tolist()).reshape(n, -1)
        else:
            parts = [contract(_only_examples(site, chosen), examples=True).reshape(n, -1) for site in found]
            flat = np.sum(parts, axis=0)
        return flat @ flat.T
    site = _only_examples(found[0], chosen)
    assert site.left is not None and site.right is not None
    P = site.right.shape[1]
    rights = site.right.reshape(n * P, -1)
    if site.kind == "table":
        ids = site.left.reshape(-1)
        lefts = (ids[:, None] == ids[None, :]).astype(rights.dtype)
    else:
        rows = site.left.reshape(n * P, -1)
        lefts = rows @ rows.T
    return (lefts * (rights @ rights.T)).reshape(n, P, n, P).sum(axis=(1, 3))


def _only_examples(site: Site, chosen: Array) -> Site:
    return site._replace(
        left=None if site.left is None else site.left[chosen], right=None if site.right is None else site.right[chosen]
    )


def cosines(products: Array) -> Array:
    """A Gram matrix as cosines; 0 where one of the two is no longer than 0."""
    lengths = np.sqrt(np.maximum(np.diagonal(products), 0.0))
    scale = lengths[:, None] * lengths[None, :]
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)


def group_gradients(t: Trace, tensor: str, groups: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """The gradient's share that each group of examples has: {"class 7": array of the tensor's shape}."""
    found = sites(t, tensor)
    shares = {}
    for name, members in groups.items():
        chosen = np.asarray(members, dtype=np.int64)
        if any(site.kind == "opaque" for site in found):
            dlogits = np.zeros_like(t.dlogits)
            dlogits[chosen] = t.dlogits[chosen]
            shares[name] = flatten(backward(dlogits, t.cache, t.cfg))[tensor]
        else:
            shares[name] = sum(contract(_only_examples(site, chosen)) for site in found)
    return shares


def alignment(gradients: Mapping[str, Array]) -> tuple[tuple[str, ...], Array]:
    """Names and cosines between gradients of the same tensor: of groups, or of two traces (train against test)."""
    flat = np.stack([np.ravel(x) for x in gradients.values()])
    return tuple(gradients), cosines(flat @ flat.T)


def classes(t: Trace) -> dict[str, Array]:
    """The examples by what their last position should say, or, where there is a source, by the first thing that its
    answer should say: {"class 7": numbers of examples}."""
    wanted = t.batch.targets[:, -1 if t.batch.source is None else 0]
    return {f"class {t.word(int(v))}": np.flatnonzero(wanted == v) for v in np.unique(wanted)}


# ---------------------------------------------------------------------------------------------------- at a glance


def overview(t: Trace, other: Trace | None = None) -> list[dict[str, Any]]:
    """A line for each weight tensor.

    norm: of its gradient.                 mean, largest: of N‖g_n‖ over the N examples, so that they compare with norm.
    snr: the median entry's signal to noise.        classes: the mean cosine between two answers' gradients.
    other: the cosine with the gradient of another trace, as a rule the test split's; None without one.
    """
    B, groups = len(t.batch.tokens), classes(t)
    found = []
    for name, g in t.weight_gradients.items():
        each, pairs = B * norms(t, name), None
        if len(groups) > 1:
            _, table = alignment(group_gradients(t, name, groups))
            pairs = float((table.sum() - np.trace(table)) / (len(table) * (len(table) - 1)))
        both = None if other is None else alignment({"this": g, "other": other.weight_gradients[name]})[1][0, 1]
        found.append({
            "tensor": name, "norm": float(np.linalg.norm(g)), "mean": float(each.mean()), "largest": float(each.max()),
            "snr": float(np.median(snr(t, name))), "classes": pairs, "other": None if both is None else float(both),
        })  # fmt: skip
    return found


def strongest(t: Trace, top: int = 5) -> list[dict[str, Any]]:
    """The examples with the largest gradients: {"example", "tokens", "norm" of N g_n, "share" of Σ‖g_n‖²}."""
    each = lengths(t)
    total = float(np.sum(each**2)) or 1.0
    return [
        {"example": int(n), "tokens": _words(t, n), "norm": len(each) * float(each[n]),
         "share": float(each[n] ** 2) / total}
        for n in np.argsort(-each, kind="stable")[:top]
    ]  # fmt: skip


def _words(t: Trace, n: int) -> str:
    """What is read; where there is a source, that and what should be said. Padding is left out."""
    batch = t.batch
    if batch.source is None:
        return " ".join(t.word(int(token)) for token in batch.tokens[n])
    there = np.ones(batch.source.shape[1], bool) if batch.source_mask is None else batch.source_mask[n]
    asked = np.ones(batch.targets.shape[1], bool) if batch.weights is None else batch.weights[n] > 0
    read = " ".join(t.word(int(token), source=True) for token in batch.source[n][there])
    return f"{read} → {' '.join(t.word(int(token)) for token in batch.targets[n][asked])}"


# ---------------------------------------------------------------------------------------------------- entries


def snr(t: Trace, tensor: str) -> Array:
    """Signal to noise of each entry's gradient: mean² / variance over the examples; 0 where all are 0."""
    found, B = sites(t, tensor), len(t.batch.tokens)
    if len(found) > 1 or found[0].kind == "opaque":
        square = _squares_materialised(t, tensor, found)
    else:
        square = _squares(found[0])
    mean = t.weight_gradients[tensor]  # of N g_n
    variance = np.maximum(B * square - mean**2, 0.0)  # mean of (N g_n)² − mean²
    return np.divide(mean**2, variance, out=np.zeros_like(mean), where=variance > 0)


def _squares(site: Site) -> Array:
    """Σ_n g_n² of each entry."""
    assert site.right is not None
    if site.kind == "sum":
        return np.sum(site.right.sum(axis=1) ** 2, axis=0).reshape(site.shape)
    assert site.left is not None
    P, total = site.right.shape[1], np.zeros(site.shape)
    for p in range(P):
        for q in range(p + 1):
            right = site.right[:, p] * site.right[:, q] * (1 if p == q else 2)
            if site.kind == "table":
                same = site.left[:, p] == site.left[:, q]
                pair = site._replace(left=site.left[:, p : p + 1], right=(same[:, None] * right)[:, None])
            else:
                pair = site._replace(left=(site.left[:, p] * site.left[:, q])[:, None], right=right[:, None])
            total += contract(pair)
    return total


def _squares_materialised(t: Trace, tensor: str, found: list[Site]) -> Array:
    total = np.zeros(t.weights[tensor].shape)
    for n in range(len(t.batch.tokens)):
        if found[0].kind == "opaque":
            g = _one_by_one(t, tensor, [n])[0]
        else:
            g = sum(contract(_only_examples(site, np.array([n]))) for site in found)
        total += g**2
    return total


class Pull(NamedTuple):
    """What each example asks of one entry. The gradient is their sum; descent moves the weight the other way."""

    examples: Array  # numbers, the strongest for the gradient's sign first, the strongest against it last
    shares: Array  # g_n of these, in the same order
    total: float  # the gradient

    def rows(self, t: Trace, top: int = 5) -> list[dict[str, Any]]:
        """The top examples for, then those against, with their tokens."""
        n = len(self.examples)
        ends = [*range(min(top, n)), *range(max(n - top, top), n)]
        return [
            {
                "example": int(self.examples[i]),
                "tokens": _words(t, self.examples[i]),
                "share": float(self.shares[i]),
            }
            for i in ends
        ]


def pull(t: Trace, tensor: str, index: Sequence[int]) -> Pull:
    """The examples that pull one entry of a weight most, and those that pull against."""
    found, at = sites(t, tensor), tuple(index)
    shape = t.weights[tensor].shape
    if len(at) != len(shape) or any(not -n <= i < n for i, n in zip(at, shape, strict=True)):
        raise BadInput(f"{tensor} has shape {list(shape)}; received the index {list(at)}")
    at = tuple(i % n for i, n in zip(at, shape, strict=True))
    if any(site.kind == "opaque" for site in found):
        shares = _one_by_one(t, tensor)[(slice(None), *at)]
    else:
        shares = np.sum([_entry(site, at) for site in found], axis=0)
    total = float(np.sum(shares))
    order = np.argsort(-np.sign(total or 1.0) * shares, kind="stable")
    return Pull(order, shares[order], total)


def _entry(site: Site, at: tuple[int, ...]) -> Array:
    """g_n of one entry [B]."""
    assert site.right is not None
    if site.kind == "sum":
        return site.right.sum(axis=1)[:, np.ravel_multi_index(at, site.shape)]
    assert site.left is not None
    if site.kind == "table":
        return np.sum((site.left == at[0]) * site.right[..., at[1]], axis=1)
    i, j = position_in_rows(site, at)
    return np.sum(site.left[..., i] * site.right[..., j], axis=1)


def position_in_rows(site: Site, at: tuple[int, ...]) -> tuple[int, int]:
    """Which feature of left and which of right an entry of an outer product is."""
    if site.layout == "heads":
        h, d, k = at
        return d, h * site.shape[2] + k
    if site.stage == "out":
        h, k, d = at
        return h * site.shape[1] + k, d
    return at[0], at[1]
