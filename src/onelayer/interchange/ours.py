"""Our own names: the parameters' flat names and shapes as they are, and the model's config. It loses nothing.

config.json    {"format": "onelayer-model", "version": 1, "model": every field of models/config.py}
Names          docs/interchange.md lists each with its shape.
"""

from typing import Any

import numpy as np
from pydantic import ValidationError

from ..arrays import flatten, unflatten
from ..errors import BadInput
from ..models.config import ModelConfig
from .foreign import Config, Foreign, Tensors
from .shapes import like

__all__ = ["export", "restore"]

FORMAT, VERSION = "onelayer-model", 1


def export(params: Any, cfg: ModelConfig) -> Foreign:
    about = {"format": FORMAT, "version": VERSION, "model": cfg.model_dump(mode="json")}
    return Foreign({name: np.asarray(x) for name, x in flatten(params).items()}, about)


def restore(foreign: Foreign) -> tuple[ModelConfig, Any]:
    Config(foreign, "a model of onelayer").one_of("format", {FORMAT: FORMAT})
    Config(foreign, "a model of onelayer").one_of("version", {VERSION: VERSION})
    try:
        cfg = ModelConfig.model_validate(foreign.config.get("model"))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BadInput(f"{foreign.where}: config.json describes no model: {faults}") from error
    tensors, shapes = Tensors(foreign, "this model"), like(cfg)
    found = {name: tensors.take(name, *x.shape) for name, x in flatten(shapes).items()}
    tensors.finish()
    return cfg, unflatten(found, shapes)
