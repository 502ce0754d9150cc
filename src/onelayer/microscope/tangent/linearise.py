"""Linearise: stand at one point of parameter space, and ask for Hessian products there, as many as you like.

    at = linearise(params, batch, cfg)         one forward and one backward, kept
    at.hessian(v)                              H v, a tree like params
    at.gauss_newton(v)                         G v = Jᵀ H_z J v: R{forward}, the loss's own Hessian, the plain backward

Precision float64, whatever the weights are in: second derivatives lose digits twice.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...arrays import Array, map_tree
from ...models.config import ModelConfig
from ...tasks import Batch
from ..gates import backward
from ..trace import Trace, trace
from . import activations, cross_entropy, decoder_only, encoder_decoder, positions
from .seen import Seen

__all__ = ["Linearised", "linearise"]


@dataclass(frozen=True, eq=False)
class Linearised:
    trace: Trace
    seen: Seen = field(repr=False)

    @property
    def params(self) -> Any:
        return self.trace.params

    @property
    def gradient(self) -> dict[str, Array]:
        return self.trace.weight_gradients

    @property
    def by_hand(self) -> bool:
        """Whether every R is written out; otherwise the position method's stage takes the complex step."""
        return positions.by_hand(self.trace.cfg.position_method)

    def hessian(self, v: Any) -> Any:
        """H v: R{backward} after R{forward}."""
        rlogits, moved = self._forward(v)
        return self._model.backward(
            self._judge(rlogits), _float64(v), moved, self.trace.cache, self.seen, self.trace.cfg
        )

    def gauss_newton(self, v: Any) -> Any:
        """G v: the Hessian without the curvature of the net itself; never negative for the softmax's cross-entropy."""
        rlogits, _ = self._forward(v)
        return backward(self._judge(rlogits), self.trace.cache, self.trace.cfg)

    @property
    def _model(self) -> Any:
        return decoder_only if self.trace.cfg.architecture == "decoder_only" else encoder_decoder

    def _forward(self, v: Any) -> tuple[Array, Any]:
        t, direction = self.trace, _float64(v)
        if t.cfg.architecture == "decoder_only":
            return decoder_only.forward(direction, t.cache, self.seen, t.cfg, t.batch.ids)
        where = t.batch.source_mask, t.batch.source_ids, t.batch.ids
        return encoder_decoder.forward(direction, t.cache, self.seen, t.cfg, *where)

    def _judge(self, rlogits: Array) -> Array:
        temperature = self.trace.settings.get("temperature", 1.0)
        return cross_entropy.backward(rlogits, self.trace.values["logits"], self.trace.judged, temperature)


def linearise(params: Any, batch: Batch, cfg: ModelConfig, **settings: Any) -> Linearised:
    """settings: those of the loss, as for `trace`: variant, smoothing, never, temperature."""
    t = trace(_float64(params), batch, cfg, **settings)
    kind = cfg.activation
    bends = {name: activations.bend(x, kind) for name, x in t.values.items() if name.endswith("mlp.hook_pre")}
    values = t.values | {
        f"{stack}pos_embed": getattr(owner, "pos_embed", None)
        for stack, owner in (("", params), *((f"{s}.", getattr(params, s, None)) for s in ("encoder", "decoder")))
    }
    return Linearised(t, Seen(values, t.gradients, bends))


def _float64(tree: Any) -> Any:
    return map_tree(lambda x: np.asarray(x, dtype=np.float64), tree)
