"""Interchange: a model's weights in another program's names and shapes, and back. This file is the registry.

A foreign model is a directory with two files:

    model.safetensors     tensors, under the other program's names, in its shapes
    config.json           what tensors do not say (heads, activation, ε), in the other program's words

A format is a file here with

    export(params, cfg) -> Foreign          our model in theirs
    restore(foreign)    -> cfg, params      theirs in ours

Both are exact: the same function of the tokens, to rounding. What has no counterpart is refused (BadInput), never left
out or approximated. Nothing of the other program is imported: a model is a dict of NumPy arrays all the way.
Names, shapes, and how to load either side: docs/interchange.md
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import unknown
from ..models.config import ModelConfig
from .foreign import Foreign, read, write

__all__ = ["FORMATS", "Foreign", "export", "get", "read", "restore", "write"]

FORMATS = {  # name: the file that knows it; imported when asked for
    "safetensors": "ours",
    "torch": "torch_transformer",
    "transformer-lens": "transformer_lens",
    "gpt2": "gpt2",
}


def get(name: str) -> Any:
    """The module of a format."""
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return import_module(f".{FORMATS[name]}", __package__)


def export(params: Any, cfg: ModelConfig, to: str) -> Foreign:
    """Our model in another's names: `write(export(params, cfg, "gpt2"), Path("out"))`."""
    return get(to).export(params, cfg)


def restore(source: Foreign | Path | str, from_: str) -> tuple[ModelConfig, Any]:
    """Another's model in ours: `cfg, params = restore("path/of/gpt2", "gpt2")`."""
    module = get(from_)
    return module.restore(source if isinstance(source, Foreign) else read(Path(source)))
