"""What a run is: every choice in one frozen object, read from JSON, TOML or `section.field=value`, written to either.

A named choice (the task, the optimizer, the schedule, each filter and projection) carries its own settings beside its
name: `optimizer = {name = "adamw", lr = 0.01, beta2 = 0.98}`. Which settings there are is read off what is named, and
their defaults are filled in, so that a config that was written down says everything. An unknown key is refused.

A config is hashable, equal to what it was before a round trip through JSON or TOML, and made of plain values only.
"""

import inspect
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model, model_validator

from .. import optimizers, tasks
from ..errors import BadInput, nearest, unknown
from ..models.config import ModelConfig
from .files import parse_json, read_json

__all__ = ["RunConfig", "differences", "load", "merge", "nest", "parse_value", "resolve"]


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


class Named(Section):
    """A registered name, and beside it the settings that go with it."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """The keyword arguments for what is named."""
        return dict(self.__pydantic_extra__ or {})

    @classmethod
    def complete(cls, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """All settings of what is named: those given, checked, and the defaults of the others."""
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"name": data}
        if not isinstance(data, Mapping):
            return data  # pydantic says what is wrong
        own = {key: value for key, value in data.items() if key in cls.model_fields}
        name = own.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str):
            return own
        return own | cls.complete(name, {key: value for key, value in data.items() if key not in own})


# ---------------------------------------------------------------------------------------------------- sections


FILES = ("path", *(f"{split}{side}" for split in ("train", "valid", "test") for side in ("", "_target")))


class TaskConfig(Named):
    """What is learnt; the settings are those of the task's `make`. Its seed is the run's unless it is given here.

    Files get their whole path, so that a run can be gone on with from anywhere.
    """

    name: str = "arithmetic"
    seed: int | None = Field(default=None, ge=0)

    @classmethod
    def complete(cls, name: str, given: dict[str, Any]) -> dict[str, Any]:
        known = {key: p for key, p in inspect.signature(tasks.get(name)).parameters.items() if key != "seed"}
        for key in given:
            if key not in known:
                raise unknown(f"setting of the task {name}", key, [*cls.model_fields, *known])
        typed = {key: _typed(key, given.get(key, p.default), p.annotation) for key, p in known.items()}
        return {key: os.path.abspath(value) if key in FILES and value else value for key, value in typed.items()}

    def make(self, seed: int) -> tasks.Task:
        return tasks.make(self.name, **self.settings, seed=seed if self.seed is None else self.seed)


def _typed(key: str, value: Any, annotation: Any) -> Any:
    try:
        return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        raise BadInput(f"{key}: received {value!r}. {error.errors()[0]['msg']}") from None


class Method(Named):
    """An entry of the registry in optimizers/, which knows its settings and checks them."""

    kind: ClassVar[str]

    @classmethod
    def complete(cls, name: str, given: dict[str, Any]) -> dict[str, Any]:
        known = {k: v for k, v in optimizers.settings(name, cls.kind).items() if k not in cls.model_fields}
        given = {k: float(v) if isinstance(known.get(k), float) and type(v) is int else v for k, v in given.items()}
        for key in given:
            if key not in known:
                raise unknown(f"setting of the {cls.kind} {name}", key, [*cls.model_fields, *known])
        optimizers.make(name, cls.kind, **given)
        return known | given

    def make(self) -> Any:
        return optimizers.make(self.name, self.kind, **self.settings)


class OptimizerConfig(Method):
    """How a gradient becomes a step."""

    kind: ClassVar[str] = "optimizer"
    name: str = "adamw"
    lr: float = Field(default=1e-2, ge=0, description="the learning rate, which the schedule multiplies")
    decay: dict[str, float] = Field(
        default={}, description="weight decay's factor per tensor: {'*.b_*': 0.0, 'embed.*': 0.1}"
    )


class ScheduleConfig(Method):
    """How the learning rate changes over the steps."""

    kind: ClassVar[str] = "schedule"
    name: str = "constant"


class FilterConfig(Method):
    """What is done to a gradient before the optimizer sees it."""

    kind: ClassVar[str] = "filter"


class ProjectionConfig(Method):
    """What is done to the parameters after each step."""

    kind: ClassVar[str] = "projection"


class _Architecture(Section):
    """A model's shape, but for what the task fixes: how many tokens there are, and how long a sequence is."""

    def build(self, vocab_size: int, n_ctx: int, **source: int) -> ModelConfig:
        return ModelConfig(vocab_size=vocab_size, n_ctx=n_ctx, **source, **self.model_dump())

    @model_validator(mode="after")
    def _consistent(self) -> "_Architecture":
        self.build(vocab_size=2, n_ctx=2)  # what does not hang on the task is checked before there is one
        return self


BY_TASK = ("vocab_size", "source_vocab_size", "n_ctx", "source_n_ctx")
if TYPE_CHECKING:

    class Architecture(_Architecture): ...

else:
    Architecture = create_model(
        "Architecture",
        __base__=_Architecture,
        **{name: (field.annotation, field) for name, field in ModelConfig.model_fields.items() if name not in BY_TASK},
    )


class LossConfig(Section):
    """Cross-entropy, and what is done to it."""

    variant: Literal["softmax", "float64", "stablemax"] = "softmax"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    temperature: float = Field(default=1.0, gt=0)


class EvaluationConfig(Section):
    """When the splits are measured: at the start, every so many steps, and at the end; densely early on.

    At some of these evaluations the network itself is measured too: training/measuring.py.
    """

    every: int = Field(default=10, ge=1)
    dense_until: int = Field(default=0, ge=0, description="up to this step, measure every `dense_every` steps")
    dense_every: int = Field(default=1, ge=1)
    measures: Literal["none", "progress"] | tuple[str, ...] = Field(
        default="none",
        description="what is measured of the network; progress: the cheap, telling ones of docs/grokking.md that apply",
    )
    measures_every: int = Field(default=10, ge=1, description="so many steps, at least, lie between two measurements")
    measures_growth: float = Field(
        default=1.1, ge=1, description="where nothing moves, the next is due at this factor of the last one's step"
    )
    train_examples: int | None = Field(
        default=None, ge=1, description="of train, measure so many, the same each time; None: all"
    )


class StopConfig(Section):
    """When a run has learnt its task: the metric at the threshold or better in so many evaluations in a row; or when
    it learns no more: `patience` evaluations in a row in which `best` did not become better. Of losses, less is better.
    """

    on: Literal["sustained", "none"] = "sustained"
    metric: str = "test_accuracy"
    threshold: float = 0.99
    sustained: int = Field(default=5, ge=1)
    best: str | None = Field(
        default=None, description="the metric whose best evaluation's weights are kept, such as valid_loss; None: none"
    )
    patience: int | None = Field(default=None, ge=1, description="evaluations without a better `best`; None: no limit")

    @model_validator(mode="after")
    def _measured(self) -> "StopConfig":
        if self.patience is not None and self.best is None:
            raise BadInput(
                f"patience = {self.patience} counts evaluations in which `best` does not become better; "
                "set stop.best as well, such as valid_loss"
            )
        return self


class CheckpointConfig(Section):
    """When a checkpoint is written, and which are kept: the last `keep` whole, and models at pinned steps."""

    every: int = Field(default=100, ge=1)
    keep: int = Field(default=2, ge=1)
    pinned: Literal["log", "none", "all"] | tuple[int, ...] = Field(
        default="log",
        description="steps whose model is kept for looking back; log: 0, and twice in each doubling from 8 on",
    )
    average: int = Field(
        default=0, ge=0, description="the models of the last so many checkpoints are kept, to be averaged; 0: none"
    )


class BranchConfig(Section):
    """Whence a run came that began with another's weights; `onelayer branch` writes it, branch.py explains it."""

    run: str
    step: int = Field(ge=0)
    sha256: str = Field(description="of the parent's weights at that step")
    optimizer: Literal["kept", "fresh"] = "fresh"
    edits: tuple[str, ...] = Field(default=(), description="what was done to the weights before the first step")


def _adamw() -> OptimizerConfig:
    return OptimizerConfig.model_validate({"name": "adamw", "lr": 1e-2, "beta2": 0.98, "weight_decay": 1.0})


class RunConfig(Section):
    """Everything that a run's numbers hang on."""

    recipe: str = Field(
        default="default", description="the recipe that it started from; the other fields say what is run"
    )
    task: TaskConfig = Field(default_factory=TaskConfig)
    model: Architecture = Field(default_factory=Architecture)
    optimizer: OptimizerConfig = Field(default_factory=_adamw)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    filters: tuple[FilterConfig, ...] = ()
    projections: tuple[ProjectionConfig, ...] = ()
    loss: LossConfig = Field(default_factory=LossConfig)
    batch_size: int | None = Field(default=None, ge=1, description="examples a batch; None: all of them, in every step")
    batch_tokens: int | None = Field(
        default=None, ge=1, description="tokens a batch, padding included, source and target together; None: batch_size"
    )
    bucket: int = Field(
        default=4, ge=1, description="with batch_tokens: examples lie together whose lengths agree, rounded up to this"
    )
    accumulate: int = Field(default=1, ge=1, description="batches that are taken as one, for one step")
    steps: int = Field(default=5000, ge=0, description="the last step, at the latest")
    seconds: float | None = Field(default=None, gt=0, description="stop after so much time; None: no limit")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    stop: StopConfig = Field(default_factory=StopConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    dtype: Literal["float32", "float64"] = "float32"
    engine: Literal["numpy", "jax"] = "numpy"
    precision: Literal["float32", "tf32", "bf16"] = Field(
        default="float32",
        description="of the factors in JAX's matrix products on a GPU or TPU; a CPU takes no notice",
    )
    seed: int = Field(default=0, ge=0)
    branch: BranchConfig | None = Field(default=None, description="the run that it branched off, where it is a branch")

    @property
    def first_step(self) -> int:
        """The step at which the run began: 0, but for a branch."""
        return 0 if self.branch is None else self.branch.step

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if self.batch_size is not None and self.batch_tokens is not None:
            raise BadInput(
                f"batch_size = {self.batch_size} and batch_tokens = {self.batch_tokens} both say how large a batch is; "
                "set one of them to null"
            )
        for field, usual in (("batch_tokens", None), ("accumulate", 1)):
            if self.engine == "jax" and (value := getattr(self, field)) != usual:
                raise BadInput(
                    f"{field} = {value} is for the engine numpy: jax compiles one shape of batch. Set engine to numpy, "
                    f"or {field} to {json.dumps(usual)}, with batch_size for batches of a fixed number of examples"
                )
        return self

    def as_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n"

    def to_toml(self) -> str:
        return "\n".join(_toml(self.as_dict())) + "\n"


# ---------------------------------------------------------------------------------------------------- in and out


def resolve(data: Mapping[str, Any]) -> RunConfig:
    """The default config, but for what `data` says. BadInput lists every field that is wrong."""
    try:
        return RunConfig.model_validate(merge(RunConfig().as_dict(), data))
    except ValidationError as error:
        raise BadInput("\n".join(_complaints(error))) from None


def merge(base: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` laid over `base`, section by section; a section that gets another name takes nothing from the old one."""
    result = dict(base)
    for key, new in data.items():
        old = base.get(key)
        if isinstance(old, Mapping):
            if "name" in old and isinstance(new, str):
                new = {"name": new}  # schedule = "cosine"
            if isinstance(new, Mapping) and new.get("name", old.get("name")) == old.get("name"):
                new = merge(old, new)
        result[key] = new
    return result


def dotted(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The inverse of `nest`."""
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nest(fields: Mapping[str, Any]) -> dict[str, Any]:
    """{"model.d-model": 64} as {"model": {"d_model": 64}}, for `merge`."""
    result: dict[str, Any] = {}
    for path, value in fields.items():
        *sections, field = path.replace("-", "_").split(".")
        inner = result
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise BadInput(f"{path}: {section} is given a value of its own as well; give either")
        inner[field] = value
    return result


def load(path: Path) -> dict[str, Any]:
    """What a .toml or .json file says, not yet resolved, so that overrides can be laid over it."""
    if path.suffix not in (".toml", ".json"):
        raise BadInput(f"{path}: a config is a .toml or a .json file, received {path.suffix or 'no suffix'}")
    if path.suffix == ".json":
        return read_json(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not TOML: {error}") from error


def parse_value(text: str) -> Any:
    """The value in `optimizer.lr=0.01`: JSON where it is JSON (null is None), and text otherwise."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def differences(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted field, old value, new value), wherever two configs as dicts differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield prefix, old, new


def _complaints(error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function"))
        reason = item.get("ctx", {}).get("error")
        if isinstance(reason, BadInput):
            yield f"{where}: {reason}" if where else str(reason)
        elif item["type"] == "extra_forbidden":
            *path, key = item["loc"]
            allowed = nearest(key, _fields(path))
            yield f"{where}: unknown field; did you mean {allowed[0]}? Allowed: {', '.join(allowed)}"
        else:
            yield f"{where}: received {item['input']!r}. {item['msg']}"


def _fields(path: list[Any]) -> list[str]:
    section: Any = RunConfig
    for name in path:
        section = section.model_fields[name].annotation if name in getattr(section, "model_fields", {}) else section
    return list(section.model_fields)


def _toml(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """TOML has no null: a field that is None is left out, and is None by default."""
    tables = {key: value for key, value in data.items() if isinstance(value, Mapping) and value}
    for key, value in data.items():
        if value is not None and key not in tables:
            yield f"{_toml_value(key) if not key.isidentifier() else key} = {_toml_value(value)}"
    for key, value in tables.items():
        path = f"{prefix}.{key}" if prefix else key
        yield from ("", f"[{path}]", *_toml(value, path))


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items() if item is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)  # a JSON string, number or boolean is TOML's too
