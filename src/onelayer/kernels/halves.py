"""Kernels of models/halves.py: norm, feed-forward network and skip in one pass, a block of rows after the other."""

from typing import Any

from ..arrays import keep
from ..layers import layer_norm, rms_norm
from .compile import fits
from .feed_forward import LAYER, NONE, RMS, Cache, Norm, run, run_backward, takes


def _norm(p: Any, eps: float) -> Norm:
    if p is None:
        return NONE
    return Norm(LAYER, p.gain, p.bias, eps) if isinstance(p, layer_norm.Params) else Norm(RMS, p.gain, None, eps)


def think(definition: Any, p: Any, mid: Any, cfg: Any, tap: Any = keep) -> Any:
    if not takes(p.mlp, mid, cfg.activation, tap) or not fits(mid, *(p.ln2 or ())):
        return definition(p, mid, cfg, tap)
    norm = _norm(p.ln2, cfg.norm_eps)
    post, c = run(p.mlp, mid, cfg.activation, norm, before=norm.kind > 0 and cfg.norm == "pre", skip=True)
    return post, (None, c)


def think_backward(definition: Any, dpost: Any, c: Any, cfg: Any, tap: Any = keep) -> Any:
    if not (isinstance(c[1], Cache) and c[1].skip):
        return definition(dpost, c, cfg, tap)
    dmid, dgain, dbias, d_mlp = run_backward(dpost, c[1])
    kind = c[1].norm.kind
    norms = {0: None, LAYER: layer_norm.Params(dgain, dbias), RMS: rms_norm.Params(dgain)}
    return dmid, (norms[kind], d_mlp)


KERNELS = {"models.halves.think": think, "models.halves.think_backward": think_backward}
