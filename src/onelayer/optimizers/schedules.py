"""Schedules: what the learning rate is multiplied by at a step. Steps count from 0; a step may be a traced array.

constant        1
linear_warmup   min(s/w, 1)                                      w = 10: Nanda et al. 2023, Power et al. 2022
cosine          min(s/w, 1) until w, then f + (1 − f) (1 + cos π u)/2,     u = (s − w)/(S − w), at most 1
inverse_sqrt    min(s/w, 1) √(w / max(s, w))                     rises for w steps, then falls as 1/√s
noam            D^−½ min((s+1)^−½, (s+1) w^−3/2)                 Vaswani et al. 2017: use with lr = 1

Symbols   s step   w warmup   S total (warm-up included)   f floor   D d_model

          A warm-up that starts from s = 0 gives the first update a learning rate of 0, as the published runs do
          (their scheduler is called with step 0 first). noam counts from 1, as the paper does.

Source    cosine: Loshchilov & Hutter 2017, arXiv:1608.03983. noam: arXiv:1706.03762, equation 3.
          inverse_sqrt: the same curve scaled to a peak of 1, as in fairseq.
"""

import math
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from onelayer.arrays import Array, array_namespace

__all__ = ["constant", "cosine", "inverse_sqrt", "linear_warmup", "noam"]


def _real(step: Any) -> tuple[Any, Array]:
    """The step's namespace, and the step as a floating-point 0-d array in it."""
    xp = array_namespace(step) if is_array_api_obj(step) else np
    return xp, xp.asarray(step, dtype=xp.asarray(1.0).dtype)


def _ramp(s: Array, warmup: int) -> Array:
    return array_namespace(s).clip(s / warmup, 0.0, 1.0) if warmup else s * 0 + 1


def constant(step: Any) -> Array:
    _, s = _real(step)
    return s * 0 + 1


def linear_warmup(step: Any, *, warmup: int = 10) -> Array:
    _, s = _real(step)
    return _ramp(s, warmup)


def cosine(step: Any, *, warmup: int = 0, total: int = 10_000, floor: float = 0.0) -> Array:
    xp, s = _real(step)
    u = xp.clip((s - warmup) / max(total - warmup, 1), 0.0, 1.0)
    return _ramp(s, warmup) * (floor + (1 - floor) * (1 + xp.cos(math.pi * u)) / 2)


def inverse_sqrt(step: Any, *, warmup: int = 1000) -> Array:
    xp, s = _real(step)
    peak = max(warmup, 1)
    return _ramp(s, warmup) * xp.sqrt(peak / xp.clip(s, peak, None))


def noam(step: Any, *, warmup: int = 4000, d_model: int = 128) -> Array:
    xp, s = _real(step)
    n, w = s + 1, max(warmup, 1)
    return xp.clip(n / w, 0.0, 1.0) / xp.sqrt(d_model * xp.clip(n, w, None))
