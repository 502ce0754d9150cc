"""Frozen: chosen tensors stay what they were when training began, or when it was branched off; the others move.

State     h = θ₀ of the tensors whose flat names fit the patterns

Project   θ ← h where the name fits, θ elsewhere

Symbols   θ params   tensors: patterns over the flat names, with commas: `embed.*,blocks.*.attn.W_[QK]`

          Every update of such a tensor is undone, decay and all, to the last bit. Its gradient is still taken: what
          looks at all gradients together (clipping by the global norm) sees it, and its moments go on.

Source    Freezing a part and training the rest is as old as fine-tuning. Of grokking it asks which part the
          delay hangs on: onelayer branch --freeze, docs/causal.md.
"""

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from onelayer.arrays import Array, flatten, unflatten
from onelayer.errors import BadInput, unknown

__all__ = ["State", "chosen", "init", "project"]


class State(NamedTuple):
    held: dict[str, Array]  # flat name, its dots as slashes: a state's own flat name has dots


def chosen(params: Any, tensors: str) -> list[str]:
    """The flat names that a list of patterns fits; BadInput for a pattern that fits none."""
    names, patterns = list(flatten(params)), [word.strip() for word in tensors.split(",") if word.strip()]
    if not patterns:
        raise BadInput("frozen needs the tensors that stay as they are, such as tensors='embed.*,unembed.*'; "
                       f"received {tensors!r}. The tensors: {', '.join(names)}")  # fmt: skip
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise unknown("tensor to freeze", pattern, names)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def init(params: Any, *, tensors: str = "embed.*") -> State:
    flat = flatten(params)
    return State({name.replace(".", "/"): flat[name] for name in chosen(params, tensors)})


def project(params: Any, state: State) -> Any:
    flat = flatten(params)
    return unflatten(flat | {name.replace("/", "."): held for name, held in state.held.items()}, params)
