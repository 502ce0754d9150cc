"""Runs out and in: the model of a run at a step, and a run whose first weights come from elsewhere.

An imported run stands where training would begin: its checkpoint is that of step 0, its optimizer knows of no step yet.
So everything that looks into a run can look into it, and `onelayer resume` trains it on. RUN/imported.json says whence
the weights came, with their SHA-256.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import flatten, map_tree, unflatten
from ..errors import BadInput
from ..models.config import ModelConfig
from ..training import Run, checkpoint, run_directory
from ..training import step as steps
from ..training.config import RunConfig, load, resolve
from ..training.step import TrainState
from . import ours
from .foreign import CONFIG, read, read_object
from .shapes import like

__all__ = ["create", "open_model"]

BY_TASK = ("vocab_size", "source_vocab_size", "n_ctx", "source_n_ctx")
ORIGIN, UNITS = (
    "imported.json",
    "units.json",
)  # the latter: training/units_file.py: what a task of strings fixed of the model's shape


def open_model(path: Path, step: int | None = None) -> tuple[ModelConfig, Any]:
    """The model of a run at a step (None: the last one saved), or of a directory that `export` wrote as safetensors.

    The weights are in the precision that they were saved in.
    """
    if (path / CONFIG).is_file() and read_object(path / CONFIG).get("format") == ours.FORMAT:
        if step is not None:
            raise BadInput(f"{path} holds one model, of no step; leave --step out")
        return ours.restore(read(path))
    run = Run(path)
    cfg = _model_of(run)
    shapes = like(cfg)
    found = run.parameters(step)
    if found.keys() != flatten(shapes).keys():
        raise BadInput(f"{path} has other tensors than its config asks for: {sorted(found.keys() ^ flatten(shapes))}")
    return cfg, unflatten(found, shapes)


def _model_of(run: Run) -> ModelConfig:
    """The run's model, without its data where it need not be read."""
    config, units = run.config, run.path / UNITS
    if units.is_file():
        return config.model.build(**read_object(units)["model"])
    return steps.make_objective(config, config.task.make(config.seed)).model


def create(cfg: ModelConfig, params: Any, like_path: Path, out: Path, origin: Mapping[str, Any]) -> Path:
    """A run in the new directory `out`: these weights, and all else (task, optimizer, …) as in the run or config.

    BadInput where the model does not fit the task: another vocabulary, or another longest sequence.
    origin: what the run says of where its weights came from.
    """
    if not like_path.exists():
        raise BadInput(f"{like_path} does not exist; --like names a run, or a config (.toml, .json)")
    source = Run(like_path) if like_path.is_dir() else None
    asked = {k: v for k, v in (source.config.as_dict() if source else load(like_path)).items() if k != "branch"}
    shape = {k: v for k, v in cfg.model_dump(mode="json").items() if k not in BY_TASK}
    dtype = str(np.result_type(*flatten(params).values()))
    config = resolve(asked | {"model": shape, "dtype": dtype})
    beside: dict[str, Any] = {ORIGIN: {**origin, "sha256": _digest(params)}}
    if source and (source.path / UNITS).is_file():
        beside[UNITS] = read_object(source.path / UNITS)
        model = config.model.build(**beside[UNITS]["model"])
    else:
        model = steps.make_objective(config, config.task.make(config.seed)).model
    _fits(cfg, model, like_path)
    with run_directory.create(out, config, beside):
        _save(out, config, params)
    return out


def _digest(params: Any) -> str:
    """Of names and numbers, in the order of the parameters' tree."""
    digest = hashlib.sha256()
    for name, x in flatten(params).items():
        digest.update(f"{name} {x.dtype} {list(x.shape)}\n".encode())
        digest.update(np.asarray(x, order="C").tobytes())
    return digest.hexdigest()


def _fits(cfg: ModelConfig, model: ModelConfig, where: Path) -> None:
    """BadInput unless the model has the vocabularies and lengths of the task."""
    own, wanted = ({**m.model_dump(), **_sources(m)} for m in (cfg, model))
    wrong = [f"{name} is {own[name]}, the task's is {wanted[name]}" for name in BY_TASK if own[name] != wanted[name]]
    if wrong:
        raise BadInput(
            f"the model does not fit the task of {where}: {'; '.join(wrong)}. Name a run or config of the task that it "
            "was made for, or leave --like out: the weights alone are then kept"
        )


def _sources(m: ModelConfig) -> dict[str, int | None]:
    if m.architecture == "decoder_only":
        return {"source_vocab_size": None, "source_n_ctx": None}
    return {"source_vocab_size": m.source_vocab_size or m.vocab_size, "source_n_ctx": m.source_n_ctx or m.n_ctx}


def _save(out: Path, config: RunConfig, params: Any) -> None:
    rules = steps.make_rules(config)
    filters = tuple(f.init(params) for f in rules.filters)
    projections = tuple(p.init(params) for p in rules.projections)
    state = TrainState(params, steps.OptState(filters, rules.optimizer.init(params), projections))
    host = map_tree(np.asarray, state)
    about = {
        "seconds": 0.0,
        "metrics": {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()},  # nothing is measured yet
        "config": config.as_dict(),
    }
    checkpoint.save(out / "checkpoints", 0, flatten(host.params), flatten(host.opt_state), about)
