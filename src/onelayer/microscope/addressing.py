"""Addressing: how much of a gradient comes through what stands somewhere, and how much through where it stands.

Through the first block's scores S = q kᵀ/√K. ∂a is ∂loss/∂a, ∂S what the softmax sends back; every split is exact.

Embedding methods   x = c + π (token, position), so q = q_c + q_π, k = k_c + k_π, and the score has four terms:

                    S    = (q_c k_c + q_c k_π + q_π k_c + q_π k_π)/√K
                    ∂W_Q = Σ_ts ∂S_ts x_t ⊗ k_s/√K    of x_t take c or π, of k_s take k_c or k_π; ∂W_K likewise
                    ∂W_V = Σ x_s ⊗ ∂v_s               ∂W_O = Σ z_t ⊗ ∂out_t,  z_i = A x_i W_V: two terms each

                    A term is named query·key. What is neither (a bias b_Q b_K b_V, a norm's own bias) is "constant".
                    A norm before the scores is taken at the scale 1/σ that it had: then it is linear, and splits.

Other methods       x is all content. What the method adds is told from what would be left if all tokens stood at the
                    same place (all ids 0):

                    S = S⁰ + (S_turned − S⁰) + b      "content" S⁰: q, k as encoded at equal ids (rotary: q·k itself);
                                                      "position": what turning adds, q·(R − 1)k; "bias": b
                    ∂W_Q, ∂W_K: ∂S through each of the three; "bias" only where b looks at q, k
                    ∂W_V, ∂W_O: values as mixed at equal ids, and what the true ids add to that ("position")

Figures   `split`   weight -> term -> gradient; the terms sum to the weight's gradient
          `pulls`   term -> [head]: Σ ∂S S_term, how fast the loss would grow were that term of the scores scaled up.
                    A constant added to a query's whole row pulls nothing, since ∂S sums to 0 along it.
          `shares`  weight -> term -> [head]: ⟨g_term, g⟩/⟨g, g⟩. They sum to 1; a share below 0 works against the
                    rest, and one above 1 is worked against.

Scope     the attention of the first block of a decoder: above it c and π are no longer apart. An embedding's table W_E
          is content and W_pos position by themselves; neither is listed.

Source    the four terms: Ke, He & Liu 2020, arXiv:2006.15595, section 3.1; Dai et al. 2019, arXiv:1901.02860, section
          3.3, on the score. That the gradient splits alike is sublayers/attention.py's backward, term by term.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..errors import BadInput
from ..layers import cross_entropy, layer_norm
from ..models import decoder_only
from ..models.config import ModelConfig
from ..positions import Method, Places
from ..sublayers.attention import by_head, outer, permute, project, transpose
from .journal import Journal, Schedule

__all__ = ["Addressing", "pulls", "shares", "split"]

Terms = dict[str, Array]


class Pass(NamedTuple):
    """What one forward and backward left in the first block's attention."""

    p: Any  # the attention's parameters
    cache: Any  # attention.Cache
    block: Any  # decoder_only.BlockCache
    content: Array  # the token embeddings [B T D]
    x: Array  # content and position
    places: Places
    position: Method
    dscores: Array  # [B H T S]
    dout: Array  # [B T D]
    gradients: Any  # attention.Params


def split(params: Any, batch: Any, cfg: ModelConfig, ids: Array | None = None, **loss: Any) -> dict[str, Terms]:
    """W_Q W_K W_V W_O of the first block -> term -> gradient; loss: settings of `layers.cross_entropy.forward`."""
    return _split(_run(params, batch, cfg, ids, loss))


def pulls(params: Any, batch: Any, cfg: ModelConfig, ids: Array | None = None, **loss: Any) -> Terms:
    """term of the score -> [head]."""
    return _pulls(_run(params, batch, cfg, ids, loss))


def shares(parts: Mapping[str, Terms]) -> dict[str, Terms]:
    """weight -> term -> [head], of what `split` found; NaN where a head has no gradient."""
    found = {}
    for name, terms in parts.items():
        whole = sum(terms.values())
        length = np.sum(whole * whole, axis=(1, 2))
        along = {term: np.sum(part * whole, axis=(1, 2)) for term, part in terms.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            found[name] = {term: np.where(length > 0, a / length, np.nan) for term, a in along.items()}
    return found


class Addressing(Journal):
    """A watcher that notes shares and pulls over training: `train(config, callback=it, watch=it)`, position.jsonl.

    objective: training.step.make_objective(config, task). examples: how many of a step's batch are looked at.
    """

    FILE = "position.jsonl"

    def __init__(
        self, objective: Any, *, every: Schedule = "log", examples: int = 256, path: Path | str | None = None
    ) -> None:
        super().__init__(every, path)
        if examples < 1:
            raise BadInput(f"at least one example is looked at; received {examples}")
        refuse(objective.model)
        self.objective, self.examples = objective, examples

    def measure(self, step: Any) -> dict[str, Any]:
        few = type(step.batch)(*(None if a is None else a[: self.examples] for a in step.batch))
        goal = self.objective
        loss = {
            "variant": goal.variant,
            "smoothing": goal.smoothing,
            "never": goal.never,
            "temperature": goal.temperature,
        }
        return record(step.before.params, few, goal.model, **loss)


def record(params: Any, batch: Any, cfg: ModelConfig, **loss: Any) -> dict[str, Any]:
    """Shares and pulls as JSON can say them: a head without gradient is null."""
    seen = _run(params, batch, cfg, None, loss)

    def numbers(terms: Terms) -> dict[str, list[float | None]]:
        return {term: [float(x) if np.isfinite(x) else None for x in value] for term, value in terms.items()}

    return {
        "shares": {name: numbers(terms) for name, terms in shares(_split(seen)).items()},
        "pulls": numbers(_pulls(seen)),
    }


def refuse(cfg: ModelConfig) -> None:
    """BadInput where content and position are not told apart."""
    if cfg.architecture != "decoder_only":
        raise BadInput(f"content and position are told apart in a decoder_only model; received {cfg.architecture}")


# ------------------------------------------------------------------------------------------ one pass


def _run(params: Any, batch: Any, cfg: ModelConfig, ids: Array | None, loss: Mapping[str, Any]) -> Pass:
    refuse(cfg)
    seen: dict[str, Array] = {}

    def note(name: str, x: Array) -> Array:
        seen[name] = x
        return x

    T = batch.tokens.shape[1]
    ids = batch.ids if ids is None else ids
    at: Array = decoder_only.usual_ids(T, cfg) if ids is None else ids
    logits, cache = decoder_only.forward(params, batch.tokens, cfg, read=batch.targets.shape[1], ids=at, tap=note)
    content, x = seen["hook_embed"], seen["blocks.0.hook_resid_pre"]
    _, c = cross_entropy.forward(logits, batch.targets, batch.weights, **loss)
    dlogits = np.asarray(cross_entropy.backward(c), dtype=logits.dtype)
    gradients = decoder_only.backward(dlogits, cache, cfg, tap=note)
    n = cache.blocks[0].attn.x_q.shape[1]
    mask = decoder_only.look_mask(T, n, cfg.causal, None, like=x)
    return Pass(
        p=params.blocks[0].attn,
        cache=cache.blocks[0].attn,
        block=cache.blocks[0],
        content=content,
        x=x,
        places=Places(at[..., T - n :], at, mask, cfg.causal),
        position=cfg.position_method,
        dscores=seen["blocks.0.attn.hook_attn_scores"],
        dout=seen["blocks.0.hook_attn_out"],
        gradients=gradients.blocks[0].attn,
    )


def _split(s: Pass) -> dict[str, Terms]:
    return _of_embedding(s) if s.position.has("embedding") else _of_attention(s)


def _scale(s: Pass) -> float:
    return 1 / math.sqrt(s.p.W_Q.shape[-1])


def _scores(q: Array, k: Array) -> Array:
    return by_head(q) @ transpose(by_head(k))


# ------------------------------------------------------------------------------------------ methods on the embedding


def _parts(s: Pass) -> Terms:
    """What attention reads, [B S D], as content + position (+ constant)."""
    both = {"content": s.content, "position": s.x - s.content}
    norm = s.block.ln1
    if norm is None or s.cache.x_k is s.x:  # no norm, or one that comes after
        return both
    if isinstance(norm, layer_norm.Cache):
        both = {name: norm.gain * norm.rstd * (x - x.mean(axis=-1, keepdims=True)) for name, x in both.items()}
        return both | {"constant": s.cache.x_k - sum(both.values())}
    return {name: norm.gain * norm.rms_inverse * x for name, x in both.items()}


def _projected(parts: Terms, W: Array, b: Array | None) -> Terms:
    found = {name: project(x, W, None) for name, x in parts.items()}
    if b is not None:
        found["constant"] = found.get("constant", 0) + np.broadcast_to(b, found["content"].shape)
    return found


def _of_embedding(s: Pass) -> dict[str, Terms]:
    c, parts, scale, n = s.cache, _parts(s), _scale(s), s.cache.x_q.shape[1]
    last = {name: x[:, -n:] for name, x in parts.items()}
    q, k = _projected(last, s.p.W_Q, s.p.b_Q), _projected(parts, s.p.W_K, s.p.b_K)
    v = _projected(parts, s.p.W_V, s.p.b_V)
    dq = {name: scale * by_head(s.dscores @ by_head(each)) for name, each in k.items()}
    dk = {name: scale * by_head(transpose(s.dscores) @ by_head(each)) for name, each in q.items()}
    dz = project(s.dout, permute(s.p.W_O), None)
    dv = by_head(transpose(c.softmax.pattern) @ by_head(dz))
    z = {name: by_head(c.softmax.pattern @ by_head(each)) for name, each in v.items()}
    return {
        "W_Q": {f"{i}·{j}": outer(x, d) for i, x in last.items() for j, d in dq.items()},
        "W_K": {f"{i}·{j}": outer(x, d) for i, d in dk.items() for j, x in parts.items()},
        "W_V": {name: outer(x, dv) for name, x in parts.items()},
        "W_O": {name: permute(outer(s.dout, each)) for name, each in z.items()},
    }


# ------------------------------------------------------------------------------------------ methods in the attention


def _together(places: Places) -> Places:
    """All at the same place."""
    return places._replace(q_ids=np.zeros_like(places.q_ids), k_ids=np.zeros_like(places.k_ids))


def _before(s: Pass) -> tuple[Array, Array]:
    """Queries and keys before they are turned."""
    return project(s.cache.x_q, s.p.W_Q, s.p.b_Q), project(s.cache.x_k, s.p.W_K, s.p.b_K)


def _through(s: Pass, q: Array, k: Array, cache: Any) -> tuple[Array, Array]:
    """∂q, ∂k of the product of the turned q and k."""
    dq = _scale(s) * by_head(s.dscores @ by_head(k))
    dk = _scale(s) * by_head(transpose(s.dscores) @ by_head(q))
    return s.position.encode_qk_backward(dq, dk, cache)[:2] if s.position.has("query_key") else (dq, dk)


def _of_attention(s: Pass) -> dict[str, Terms]:
    c, position = s.cache, s.position
    terms = {"content": _through(s, c.q, c.k, c.encode_qk)}
    if position.has("query_key"):
        whole = terms["content"]
        terms["content"] = _through(s, *position.encode_qk(s.p.pos, *_before(s), _together(s.places)))
        terms["position"] = tuple(a - b for a, b in zip(whole, terms["content"], strict=True))
    if position.has("score"):
        felt, _ = position.bias_backward(s.dscores, c.bias)
        if felt is not None and (felt.q is not None or felt.k is not None):
            none = [np.zeros_like(d) for d in terms["content"]]
            terms["bias"] = tuple(z if d is None else d for z, d in zip(none, (felt.q, felt.k), strict=True))
    return {
        "W_Q": {name: outer(c.x_q, dq) for name, (dq, _) in terms.items()},
        "W_K": {name: outer(c.x_k, dk) for name, (_, dk) in terms.items()},
        **_values(s),
    }


def _values(s: Pass) -> dict[str, Terms]:
    c, pattern = s.cache, s.cache.softmax.pattern
    dz = project(s.dout, permute(s.p.W_O), None)
    if not s.position.has("value"):
        return {"W_V": {"content": s.gradients.W_V}, "W_O": {"content": s.gradients.W_O}}
    z, mixed = s.position.mix(s.p.pos, pattern, c.v, _together(s.places))
    dv = s.position.mix_backward(dz, mixed)[1]
    found = {"W_V": outer(c.x_k, dv), "W_O": permute(outer(s.dout, z))}
    return {name: {"content": alike, "position": getattr(s.gradients, name) - alike} for name, alike in found.items()}


# ------------------------------------------------------------------------------------------ the score's own terms


def _pulls(s: Pass) -> Terms:
    return {term: np.sum(s.dscores * score, axis=(0, 2, 3)) for term, score in _terms(s).items()}


def _terms(s: Pass) -> Terms:
    """term -> [B H T S], which sum to the scores."""
    scale, n = _scale(s), s.cache.x_q.shape[1]
    if s.position.has("embedding"):
        parts = _parts(s)
        q = _projected({name: x[:, -n:] for name, x in parts.items()}, s.p.W_Q, s.p.b_Q)
        k = _projected(parts, s.p.W_K, s.p.b_K)
        return {f"{i}·{j}": scale * _scores(a, b) for i, a in q.items() for j, b in k.items()}
    q, k = _before(s)
    whole = scale * _scores(s.cache.q, s.cache.k)
    found = {"content": whole}
    if s.position.has("query_key"):
        alike_q, alike_k, _ = s.position.encode_qk(s.p.pos, q, k, _together(s.places))
        found = {"content": scale * _scores(alike_q, alike_k)}
        found["position"] = whole - found["content"]
    if s.position.has("score"):
        bias, _ = s.position.bias(s.p.pos, q, k, s.cache.x_q, s.cache.x_k, s.places)
        found["bias"] = np.broadcast_to(bias, whole.shape)
    return found
