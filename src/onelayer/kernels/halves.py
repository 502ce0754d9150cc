"""Kernels of models/halves.py, and of `cross` in encoder_decoder.py: norm, sublayer and skip in one pass, a few rows
after the other. What passes is written in look.py and feed_forward.py."""

from typing import Any

from ..arrays import keep
from . import look as looking
from .compile import fits
from .feed_forward import Cache, run, run_backward, takes
from .norms import norm_gradient, norm_of


def look(definition: Any, p: Any, x: Any, n: int, places: Any, position: Any, cfg: Any, tap: Any = keep) -> Any:
    if n != x.shape[1] or not looking.takes(p.attn, p.ln1, x, None, places, position, tap):
        return definition(p, x, n, places, position, cfg, tap)
    norm = norm_of(p.ln1, cfg.norm_eps)
    mid, c = looking.run(p.attn, norm, norm.kind > 0 and cfg.norm == "pre", x, None, places.mask, position)
    return mid, (None, c)


def look_backward(definition: Any, dmid: Any, c: Any, position: Any, cfg: Any, tap: Any = keep) -> Any:
    if not isinstance(c[1], looking.Cache):
        return definition(dmid, c, position, cfg, tap)
    dx, _, dgain, dbias, d = looking.run_backward(dmid, c[1], position)
    return dx, (norm_gradient(c[1].norm, dgain, dbias), d)


def cross(definition: Any, p: Any, mid: Any, memory: Any, across: Any, position: Any, cfg: Any, tap: Any = keep) -> Any:
    if not looking.takes(p.cross_attn, p.ln_cross, mid, memory, across, position, tap):
        return definition(p, mid, memory, across, position, cfg, tap)
    norm = norm_of(p.ln_cross, cfg.norm_eps)
    before = norm.kind > 0 and cfg.norm == "pre"
    met, c = looking.run(p.cross_attn, norm, before, mid, memory, across.mask, position)
    return met, (None, c)


def cross_backward(definition: Any, dmet: Any, c: Any, position: Any, cfg: Any, tap: Any = keep) -> Any:
    if not isinstance(c[1], looking.Cache):
        return definition(dmet, c, position, cfg, tap)
    dmid, dmemory, dgain, dbias, d = looking.run_backward(dmet, c[1], position)
    return dmid, dmemory, (norm_gradient(c[1].norm, dgain, dbias), d)


def think(definition: Any, p: Any, mid: Any, cfg: Any, tap: Any = keep) -> Any:
    if not takes(p.mlp, mid, cfg.activation, tap) or not fits(mid, *(p.ln2 or ())):
        return definition(p, mid, cfg, tap)
    norm = norm_of(p.ln2, cfg.norm_eps)
    post, c = run(p.mlp, mid, cfg.activation, norm, before=norm.kind > 0 and cfg.norm == "pre", skip=True)
    return post, (None, c)


def think_backward(definition: Any, dpost: Any, c: Any, cfg: Any, tap: Any = keep) -> Any:
    if not (isinstance(c[1], Cache) and c[1].skip):
        return definition(dpost, c, cfg, tap)
    dmid, dgain, dbias, d_mlp = run_backward(dpost, c[1])
    return dmid, (norm_gradient(c[1].norm, dgain, dbias), d_mlp)


KERNELS = {
    "models.halves.look": look,
    "models.halves.look_backward": look_backward,
    "models.halves.think": think,
    "models.halves.think_backward": think_backward,
    "models.encoder_decoder.cross": cross,
    "models.encoder_decoder.cross_backward": cross_backward,
}
