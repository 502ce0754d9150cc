"""Interventions: cut frequencies out of a network, scale it, or give its key circles to another, and see what follows.

Shapes    S a set of frequencies, not the constant     L [n n C] logits, N [n n F] neurons over the pairs of places
          E [n D] the embedding's rows of the numbers that have a place; other rows (`=`, zero of a product) stay

Cut       each replaces one thing and runs the rest of the network as it is
          embedding  keep   Σ over the rows j of the constant and of S of F_jᵀ F_j E
          neurons    keep   the products F_i(a) F_j(b) with both i and j of S or the constant
          logits     keep   Σ_{k in S} P_k L + mean over the pairs of L        as in the restricted loss
          remove S   embedding, neurons: keep all the others.   logits: L − Σ_{k in S} P_k L, as in the excluded loss
Control   as many frequencies as S has, drawn from the others: the mean over the draws

Rescale   θ → αθ, then the logits times a number, so that their root mean square (less each pair's mean) is σ times what
          it was: what the loss hangs on, the norm of the weights or the scale of the logits
          α changes more than the norm: attention's scores go with α², a path through three matrices with α³
          share   of the variance of ln loss over the grid (α, σ): of the means over α (what σ alone explains), of those
                  over σ (the norm alone), and the rest; losses below 1e-16, where float64 ends, count as that

Rate      every head's attention becomes αA + (1 − α)·uniform over the positions that it may look at: does the network
          need to look at one operand more than at the other?

Circles   the embedding's rows of the numbers become the donor's constant and its waves of its key frequencies, and
          nothing else

Source    Restricted and excluded: Nanda et al. 2023, arXiv:2301.05217. Norm or scale: Khanh 2026, arXiv:2606.18465;
          Liu et al. 2022, arXiv:2210.01117. Attention rate: Zhong et al. 2023, arXiv:2306.17844, who train at each.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import generator, map_tree
from ..errors import BadInput, unknown
from ..layers import unembedding
from ..models import decoder_only
from ..training.branch import Edit, digest
from ..training.run_directory import Run
from . import losses
from .subject import Subject, centred, open_subject, why_no_characters

__all__ = ["ABLATED", "ablate", "ablations", "attend_at_rate", "attention_rate", "circles", "outcome", "rescale"]

ABLATED = ("embedding", "neurons", "logits")
DRAWS = 5
LEAST = 1e-16
RATES = (0.0, 0.25, 0.5, 0.75)
NORMS, SCALES = (0.5, 0.7, 1.0, 1.4, 2.0), (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


# ---------------------------------------------------------------------------------------------------- cut


def ablate(s: Subject, where: str, frequencies: Sequence[int], keep: bool = False) -> np.ndarray:
    """The logits [n n C] with these frequencies removed there, or with them alone."""
    if where not in ABLATED:
        raise unknown("place to ablate", where, ABLATED)
    ch = s.characters
    if wrong := set(frequencies) - set(ch.frequencies):
        named(s, [str(k) for k in wrong])
    if where == "logits":
        return losses.restricted(s, frequencies)[ch.product] if keep else losses.removed(s, frequencies)
    kept = set(frequencies) if keep else set(ch.frequencies) - set(frequencies)
    return (_embedding if where == "embedding" else _neurons)(s, sorted(kept))


def named(s: Subject, words: Iterable[str]) -> list[int]:
    """The frequencies that are called so: numbers, or the names of a group's representations."""
    if reason := why_no_characters(s):
        raise BadInput(f"frequencies cannot be cut out of a run of {s.task.name}: {reason}")
    ch = s.characters
    known = {str(ch.name(k)): k for k in ch.frequencies}
    words = list(words)
    if wrong := [word for word in words if word not in known]:
        some = list(known) if ch.names is not None else [f"{ch.frequencies[0]} to {ch.frequencies[-1]}"]
        raise BadInput(f"{s.task.name} has no frequency {', '.join(wrong)}; its frequencies are {', '.join(some)}")
    return [known[word] for word in words]


def _embedding(s: Subject, kept: Sequence[int]) -> np.ndarray:
    p, ch = s.params, s.characters
    W = p.embed.W_E.copy()
    rows = ch.rows([0, *kept])
    W[ch.a] = rows.T @ (rows @ W[ch.a])
    head = p.unembed if p.unembed.W_U is not None else unembedding.tied(p.unembed, p.embed.W_E)  # read out as before
    return s.moved(p._replace(embed=p.embed._replace(W_E=W), unembed=head), s.keys).logits


def _neurons(s: Subject, kept: Sequence[int]) -> np.ndarray:
    ch, cfg = s.characters, s.objective.model
    n, rows = len(ch.a), ch.rows([0, *kept])
    at = f"blocks.{cfg.n_layers - 1}.mlp.hook_post"

    def cut(name: str, value: np.ndarray) -> np.ndarray:
        if name != at:
            return value
        T = value.reshape(n, n, -1)
        for axis in (0, 1):
            T = np.moveaxis(np.tensordot(rows.T, np.tensordot(rows, T, axes=(1, axis)), axes=(1, 0)), 0, axis)
        return T.reshape(value.shape)

    logits, _ = decoder_only.forward(s.params, s.tokens, cfg, read=1, tap=cut)
    return logits.reshape(n, n, -1)[..., :-1]


def attend_at_rate(s: Subject, rate: float) -> np.ndarray:
    """The logits [n n C] with every attention pattern drawn towards the uniform one; at rate 1 they are its own."""

    def mixed(name: str, value: np.ndarray) -> np.ndarray:
        if not name.endswith("hook_pattern"):
            return value
        queries, keys = value.shape[-2:]
        allowed = np.tri(queries, keys, keys - queries)  # the last query sees every key
        return rate * value + (1 - rate) * allowed / allowed.sum(axis=-1, keepdims=True)

    n = len(s.numbers[0])
    logits, _ = decoder_only.forward(s.params, s.tokens, s.objective.model, read=1, tap=mixed)
    return logits.reshape(n, n, -1)[..., :-1]


def attention_rate(s: Subject) -> dict[str, float]:
    """rate -> accuracy over all pairs"""
    asked = s.right >= 0
    said = {f"rate {rate:g}": attend_at_rate(s, rate).argmax(axis=-1) for rate in RATES}
    return {name: float(np.mean(answer[asked] == s.right[asked])) for name, answer in said.items()}


def outcome(s: Subject, logits: np.ndarray) -> dict[str, float]:
    """Loss and accuracy on the pairs of either split."""
    said = logits.argmax(axis=-1)
    found = {}
    for name, among in (("train", s.train), ("test", s.test)):
        asked = among & (s.right >= 0)
        found[f"{name}_loss"] = losses.cross_entropy(logits, s.right, among)
        found[f"{name}_accuracy"] = float(np.mean(said[asked] == s.right[asked]))
    return found


def ablations(
    s: Subject, frequencies: Sequence[int] | None = None, where: Sequence[str] = ABLATED, each: bool = False
) -> list[dict[str, Any]]:
    """The whole network; then, for each place: without these frequencies (None: the key ones), with them alone, each
    one of them, and the same of others drawn at random."""
    if reason := why_no_characters(s):
        raise BadInput(f"frequencies cannot be cut out of a run of {s.task.name}: {reason}")
    chosen = list(s.key_frequencies if frequencies is None else dict.fromkeys(frequencies))
    if not chosen:
        raise BadInput("this network has no key frequency; name some: --frequencies 3,7")
    others = [k for k in s.characters.frequencies if k not in chosen]
    rows = [{"where": "", "what": "whole network", "frequencies": [], **outcome(s, s.logits)}]
    for place in where:

        def of(what: str, ks: Sequence[int], keep: bool, place: str = place) -> dict[str, Any]:
            return {
                "where": place,
                "what": what,
                "frequencies": [s.characters.name(k) for k in ks],
                **outcome(s, ablate(s, place, ks, keep)),
            }

        rows += [of("removed", chosen, False), of("alone", chosen, True)]
        if others:
            rows += [_others(s, place, len(chosen), others, keep) for keep in (False, True)]
        if each:
            rows += [
                of(f"{s.characters.name(k)} {what}", [k], keep)
                for what, keep in (("removed", False), ("alone", True))
                for k in chosen
            ]
    return rows


def _others(s: Subject, place: str, count: int, others: list[int], keep: bool) -> dict[str, Any]:
    draw, count = generator(s.seed, "other frequencies"), min(count, len(others))
    sets = [sorted(draw.choice(others, count, replace=False).tolist()) for _ in range(DRAWS)]
    found = [outcome(s, ablate(s, place, ks, keep)) for ks in sets]
    mean = {name: float(np.mean([x[name] for x in found])) for name in found[0]}
    return {
        "where": place,
        "what": f"{count} other{'s' * (count > 1)} {'alone' if keep else 'removed'}",
        "frequencies": [],
        **mean,
    }


# ---------------------------------------------------------------------------------------------------- scale


def rescale(s: Subject, norms: Sequence[float] = NORMS, scales: Sequence[float] = SCALES) -> dict[str, Any]:
    """{"cells": a record for each (norm, scale), "share": of the variance of ln loss, by split}."""
    if "table" not in s.task.facts or s.task.n_ctx != 3:
        raise BadInput(
            f"{s.task.name} is no operation on two numbers; norm and logit scale are told over all its pairs"
        )
    for name, values in (("norm", norms), ("logit scale", scales)):
        if not values or not all(0 < x < np.inf for x in values):
            raise BadInput(f"each {name} is a number above 0, 1 as it is; received {', '.join(map(str, values))}")
    size = _size(s.logits)
    if not size > 0:
        raise BadInput("the logits are all equal: they have no scale to hold")
    cells = []
    for norm in norms:
        scaled = s.moved(map_tree(lambda w, norm=norm: norm * w, s.params), s.keys).logits
        own = _size(scaled) / size
        for scale in scales:
            cells.append({"norm": norm, "scale": scale, "unheld_scale": own, **outcome(s, scaled * (scale / own))})
    grid = {
        split: np.log([[max(c[f"{split}_loss"], LEAST) for c in cells if c["norm"] == norm] for norm in norms])
        for split in ("train", "test")
    }
    return {"cells": cells, "share": {split: shares(x) for split, x in grid.items()}}


def _size(logits: np.ndarray) -> float:
    return float(np.sqrt(np.mean(centred(logits) ** 2)))


def shares(table: np.ndarray) -> dict[str, float]:
    """Of the variance of a table [norms, scales]: of its columns' means, of its rows' means, the rest; sum 1."""
    total = float(table.var())
    if total == 0:
        return {"scale": 0.0, "norm": 0.0, "both": 0.0}
    scale, norm = float(table.mean(axis=0).var()) / total, float(table.mean(axis=1).var()) / total
    return {"scale": scale, "norm": norm, "both": 1.0 - scale - norm}


# ---------------------------------------------------------------------------------------------------- transplant


def circles(donor: Path | str, step: int | None = None, frequencies: Sequence[int] | None = None) -> Edit:
    """The donor's key circles in the place of the numbers' embedding, for a branch."""
    s = open_subject(donor, step)
    if reason := why_no_characters(s):
        raise BadInput(f"{donor} has no circles to give: {reason}")
    keys = list(s.key_frequencies if frequencies is None else frequencies)
    if not keys:
        raise BadInput(
            f"{donor} has no key frequency at step {s.step}: there is no circle to give. Name a later one, {donor}@STEP"
        )
    ch, W = s.characters, s.params.embed.W_E
    rows = ch.rows([0, *keys])
    given = rows.T @ (rows @ W[ch.a])

    def apply(weights: dict[str, np.ndarray], config: Any) -> dict[str, np.ndarray]:
        own = weights["embed.W_E"]
        if own.shape != W.shape:
            raise BadInput(
                f"the circles of {donor} are rows of {list(W.shape)}, the network's embedding {list(own.shape)}"
            )
        new = own.copy()
        new[ch.a] = given
        return weights | {"embed.W_E": new}

    at = Run(donor).snapshots[-1] if step is None else step
    told = ", ".join(str(ch.name(k)) for k in keys)
    return Edit(f"transplant circles {told} of {donor} at step {at} ({digest({'embed.W_E': W})[:12]})", apply)
