"""How a stack begins: tokens become the first rows of the stream, and its first block looks around.

Shapes    tokens [B T]     x [B T D]

Forward   enter     x = embed(tokens), positions added      hook_embed
          look      as every block's (halves.py)
Backward  leave     from ∂x to the gradients of the embedding and of the positions

Both models take a First and a FirstBackward, for there is a shortcut (first_attention.py). These are the definition.

Source    Every step: docs/derivations/models.md
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Inexact, Integer

from ..arrays import Array, Tap, keep
from ..layers import embedding
from .config import ModelConfig
from .halves import Look, LookBackward, look, look_backward

Enter: TypeAlias = Callable[..., tuple[Array, Any, Any]]  # as `enter`
Leave: TypeAlias = Callable[..., tuple[embedding.Params, Any]]  # as `leave`


def enter(
    stack: Any, embed: embedding.Params, tokens: Integer[Array, "B T"], ids: Array, cfg: ModelConfig, tap: Tap = keep
) -> tuple[Inexact[Array, "B T D"], embedding.Cache, Any]:
    """x, and the caches of embedding and positions. stack: whose `pos_embed` it is."""
    x, c_embed = embedding.forward(embed, tokens, cfg.scale)
    x, position = tap("hook_embed", x), cfg.position_method
    x, c_pos = position.encode_x(stack.pos_embed, x, ids) if position.has("embedding") else (x, None)
    return x, c_embed, c_pos


def leave(dx: Inexact[Array, "B T D"], c: Any, cfg: ModelConfig, tap: Tap = keep) -> tuple[embedding.Params, Any]:
    """The gradients of the embedding and of the positions. c: whose `embed` and `pos_embed` are what `enter` kept."""
    position = cfg.position_method
    dx, d_pos = position.encode_x_backward(dx, c.pos_embed) if position.has("embedding") else (dx, None)
    return embedding.backward(tap("hook_embed", dx), c.embed, cfg.scale), d_pos


class First(NamedTuple):
    enter: Enter
    look: Look


class FirstBackward(NamedTuple):
    leave: Leave
    look: LookBackward


FIRST, FIRST_BACKWARD = First(enter, look), FirstBackward(leave, look_backward)
