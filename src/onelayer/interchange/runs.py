"""Runs out and in: the model of a run, and a run whose first weights come from elsewhere.

An imported run stands where training would begin: its checkpoint is that of step 0, its optimizer knows of no step yet.
So everything that looks into a run can look into it, and `onelayer resume` trains it on. RUN/imported.json says whence
the weights came, with their SHA-256.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import flatten, map_tree, unflatten
from ..errors import BadInput
from ..models.config import ModelConfig
from ..training import Run, checkpoint, run_directory, units_file
from ..training import step as steps
from ..training.config import RunConfig, load, resolve
from ..training.opened import open_text
from ..training.step import TrainState
from . import ours
from .foreign import CONFIG, read, read_object
from .shapes import like

__all__ = ["Opened", "create", "open_model"]

BY_TASK = ("vocab_size", "source_vocab_size", "n_ctx", "source_n_ctx")
ORIGIN = "imported.json"


class Opened(NamedTuple):
    model: ModelConfig
    params: Any  # in the precision that they were saved in
    weights: str  # best, average, last or step; given, of a directory that holds one model
    step: int | None


def open_model(path: Path, weights: str | int | None = None) -> Opened:
    """The model of a run, or of a directory that `export` wrote as safetensors.

    weights: chosen, best, average or last of a run of strings (None: chosen, as decoding takes them); of any run a
    step, or last (None: last).
    """
    if (path / CONFIG).is_file() and read_object(path / CONFIG).get("format") == ours.FORMAT:
        if weights is not None:
            raise BadInput(f"{path} holds one model, not a run's many; leave --weights out")
        return Opened(*ours.restore(read(path)), "given", None)
    run = Run(path)
    if (path / units_file.NAME).is_file():
        found = open_text(path, "chosen" if weights is None else weights)
        return Opened(found.model, found.params, found.weights, found.step)
    if isinstance(weights, str) and weights != "last":
        raise BadInput(
            f"{path} keeps no {weights} weights, which only runs of strings do; allowed: last, or a saved step"
        )
    step = None if isinstance(weights, str) else weights
    cfg = steps.make_objective(run.config, run.config.task.make(run.config.seed)).model
    shapes, named = like(cfg), run.parameters(step)
    if named.keys() != flatten(shapes).keys():
        raise BadInput(f"{path} has other tensors than its config asks for: {sorted(named.keys() ^ flatten(shapes))}")
    return Opened(cfg, unflatten(named, shapes), "last" if step is None else "step", step or run.snapshots[-1])


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
    if source and (source.path / units_file.NAME).is_file():
        beside[units_file.NAME] = units_file.read(source.path)
        model = config.model.build(**beside[units_file.NAME]["model"])
    else:
        task = config.task.make(config.seed)
        model, about = steps.make_objective(config, task).model, units_file.describe(task)
        beside |= {units_file.NAME: about} if about else {}
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
