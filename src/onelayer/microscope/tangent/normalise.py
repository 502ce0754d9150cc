"""R{the optional norm}: that of the norm in use; where there is none, R passes through.

Forward   Ry = R{layer norm}, R{RMS norm}, or Rx
Backward  likewise; R∂x = R∂y where there is no norm

Source    sublayers/normalise.py
"""

from typing import Any

from ...arrays import Array
from ...layers import layer_norm as layer_norm_
from . import layer_norm, rms_norm
from .seen import Seen

__all__ = ["backward", "forward"]


def forward(rp: Any, rx: Array, c: Any) -> tuple[Array, Any]:
    if c is None:
        return rx, None
    return _of(c).forward(rp, rx, c)


def backward(rdy: Array, rp: Any, moved: Any, c: Any, seen: Seen) -> tuple[Array, Any]:
    if c is None:
        return rdy, None
    return _of(c).backward(rdy, seen.gradient("hook_normalized"), rp, moved, c)


def _of(c: Any) -> Any:
    return layer_norm if isinstance(c, layer_norm_.Cache) else rms_norm
