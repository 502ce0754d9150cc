"""Gates: run a backward again from what a forward left, with some of its routes turned down, cut, or put right.

A gate acts on one named gradient on its way back; 1 leaves it as it is (bitwise), 0 cuts it, an array scales its
entries, and a function replaces it. The forward, and so the loss, is not touched.

    replay(trace, {"blocks.0.route_skip_mlp": 0})         what would flow if the skip around the feed-forward were cut
    replay(trace, {"*.attn.route_q": 0})                  a name may be a pattern
    step.take(state, batch, t, objective, rules, cut({"*.attn.route_[qk]": 0}))         a training step with a route cut

Every backward is linear in ∂logits and in every one of its routes: gates that add up to 1 give gradients that add up
to the gradient. That one sentence is what provenance rests on.

Source    the routes of models/decoder_only.py and models/encoder_decoder.py
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array, Tap, array_namespace, flatten, keep
from ..errors import unknown
from ..layers import cross_entropy
from ..models import decoder_only, encoder_decoder
from ..models.config import ModelConfig
from ..tasks import Batch

__all__ = ["Gate", "Replay", "backward", "changes", "cut", "forward", "gated", "replay"]

Gate: TypeAlias = Any  # a number, an array, or a function of the gradient


class Replay(NamedTuple):
    weights: Any  # the gradient of every parameter, a tree like params
    gradients: dict[str, Array]  # of everything named on the way


def forward(params: Any, batch: Batch, cfg: ModelConfig, tap: Tap = keep) -> tuple[Array, Any]:
    """The logits that the batch's targets judge, and the cache, of either model."""
    if cfg.architecture == "decoder_only":
        return decoder_only.forward(params, batch.tokens, cfg, read=batch.targets.shape[1], ids=batch.ids, tap=tap)
    return encoder_decoder.forward(
        params, batch.source, batch.tokens, cfg,
        source_present=batch.source_mask, source_ids=batch.source_ids, target_ids=batch.ids, tap=tap,
    )  # fmt: skip


def backward(dlogits: Array, cache: Any, cfg: ModelConfig, tap: Tap = keep) -> Any:
    """The gradient of every parameter, of either model."""
    model = decoder_only if cfg.architecture == "decoder_only" else encoder_decoder
    return model.backward(dlogits, cache, cfg, tap=tap)


def gated(gates: Mapping[str, Gate], seen: dict[str, Array] | None = None) -> Tap:
    """The tap that applies the gates; what passes it, as it goes on, is noted in `seen`."""
    patterns = {name: gate for name, gate in gates.items() if set(name) & set("*?[")}

    def tap(name: str, x: Array) -> Array:
        if name in gates:
            x = _through(gates[name], x)
        for pattern, gate in patterns.items():
            if fnmatchcase(name, pattern):
                x = _through(gate, x)
        if seen is not None:
            seen[name] = x
        return x

    return tap


def replay(trace: Any, gates: Mapping[str, Gate]) -> Replay:
    """The backward of a trace, run again with these gates; BadInput for a name that no gradient has."""
    for name in gates:
        if not any(fnmatchcase(known, name) for known in trace.gradients):
            raise unknown("gate", name, trace.gradients)
    return _run(trace.dlogits, trace.cache, trace.cfg, gates)


def changes(trace: Any, replayed: Replay) -> list[dict[str, Any]]:
    """{"tensor", "norm", "replayed", "change", "cosine"} of each weight's gradient g and what became of it, g′.

    change: ‖g′ − g‖/‖g‖, of each tensor that has a gradient at all; cosine: None where nothing is left.
    """
    found = []
    for name, now in flatten(replayed.weights).items():
        plain = trace.weight_gradients[name]
        size, left = float(np.linalg.norm(plain)), float(np.linalg.norm(now))
        found.append({
            "tensor": name, "norm": size, "replayed": left,
            "change": float(np.linalg.norm(now - plain)) / size if size else 0.0,
            "cosine": float(np.vdot(plain, now)) / (size * left) if size and left else None,
        })  # fmt: skip
    return found


def _run(dlogits: Array, cache: Any, cfg: ModelConfig, gates: Mapping[str, Gate]) -> Replay:
    seen: dict[str, Array] = {}
    weights = backward(dlogits, cache, cfg, gated(gates, seen))
    return Replay(weights, seen)


def cut(gates: Mapping[str, Gate]) -> Callable[[Any, Batch, Any], tuple[Array, Any]]:
    """loss and gradients with gates in the backward, in place of `training.objective.loss_and_grads`.

    The third argument is training's objective: model, variant, smoothing, never, temperature.
    """
    checked: list[bool] = []

    def loss_and_grads(params: Any, batch: Batch, objective: Any) -> tuple[Array, Any]:
        logits, cache = forward(params, batch, objective.model)
        loss, c = cross_entropy.forward(
            logits,
            batch.targets,
            batch.weights,
            smoothing=objective.smoothing,
            never=objective.never,
            temperature=objective.temperature,
            variant=objective.variant,
        )
        dlogits = array_namespace(logits).astype(cross_entropy.backward(c), logits.dtype)
        weights, seen = _run(dlogits, cache, objective.model, gates)
        if not checked:  # a misspelt gate would train as though nothing were cut
            for name in gates:
                if not any(fnmatchcase(known, name) for known in seen):
                    raise unknown("gate", name, seen)
            checked.append(True)
        return loss, weights

    return loss_and_grads


def _through(gate: Gate, x: Array) -> Array:
    return gate(x) if callable(gate) else gate * x
