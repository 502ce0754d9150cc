"""A run as the report reads it: its directory, read once, the task drawn again, and the model with its last weights.

A run may be young, cut short or damaged. Each reading below succeeds or raises `BadInput` with a sentence for the page,
so that one absent file costs one section.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from onelayer.arrays import Array, flatten, generator, unflatten
from onelayer.errors import BadInput
from onelayer.grokking import progress
from onelayer.grokking.subject import Subject, open_subject, why_no_characters
from onelayer.microscope import gates
from onelayer.models.config import ModelConfig
from onelayer.tasks import Batch, Task
from onelayer.training import figures, measuring, opened, run_directory
from onelayer.training.batches import numbered
from onelayer.training.config import RunConfig
from onelayer.training.objective import Objective, init
from onelayer.training.step import make_objective


@dataclass(frozen=True)
class Run:
    directory: run_directory.Run

    @classmethod
    def at(cls, path: Path | str) -> "Run":
        return cls(run_directory.Run(path))

    # ------------------------------------------------------------------------------------------------ what it is

    @cached_property
    def config(self) -> RunConfig:
        return self.directory.config

    @property
    def title(self) -> str:
        """What was learnt; the directory's name where that cannot be read."""
        try:
            return self.task.name
        except BadInput:
            return self.directory.path.resolve().name

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Where and with what the run was made."""
        return self.directory.manifest

    @cached_property
    def task(self) -> Task:
        """The task, drawn again from its settings and seed."""
        return self.config.task.make(self.config.seed)

    @cached_property
    def objective(self) -> Objective:
        return make_objective(self.config, self.task)

    @property
    def model(self) -> ModelConfig:
        return self.objective.model

    @property
    def loss(self) -> dict[str, Any]:
        """The settings that `microscope.trace` and `layers.cross_entropy.forward` take."""
        return {name: getattr(self.objective, name) for name in ("variant", "smoothing", "never", "temperature")}

    @property
    def reads(self) -> bool:
        """Whether something is read beforehand: an encoder-decoder."""
        return self.model.architecture == "encoder_decoder"

    @property
    def words(self) -> dict[str, tuple[str, ...] | None]:
        """What `microscope.trace` takes to name tokens."""
        return {"vocabulary": self.task.vocabulary, "source_vocabulary": self.task.source_vocabulary}

    @property
    def source_vocabulary(self) -> tuple[str, ...]:
        return self.task.source_vocabulary or self.task.vocabulary

    def split(self, name: str) -> Batch:
        """train, valid or test, with its places numbered as an evaluation numbers them."""
        batch = getattr(self.task, name)
        if batch is None:
            raise BadInput(f"the task {self.task.name} has no {name} split")
        return numbered(batch, self.model, generator(self.config.seed, "ids", name), training=False)

    @property
    def operands(self) -> int | None:
        """How many numbers stand before the `=` of a question, where the task asks such questions."""
        return self.task.n_ctx - 1 if self.config.task.name == "arithmetic" else None

    # ------------------------------------------------------------------------------------------------ what was measured

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """One for each evaluation."""
        records = self.directory.metrics
        if not records:
            raise BadInput("no evaluation is recorded in metrics.jsonl; let the run reach its first one")
        return records

    @cached_property
    def metrics(self) -> dict[str, np.ndarray]:
        """name -> one value for each evaluation, NaN where it was not measured; "step" is among the names."""
        names = dict.fromkeys(name for record in self.records for name in record if name != measuring.KEY)
        return {name: np.array([record.get(name, np.nan) for record in self.records], dtype=float) for name in names}

    @property
    def steps(self) -> np.ndarray:
        return self.metrics["step"]

    def measured(self, *names: str) -> dict[str, np.ndarray]:
        """Those of `names` that were measured, each over `steps`."""
        found = {name: self.metrics[name] for name in names if name in self.metrics}
        if not found:
            raise BadInput(f"none of {', '.join(names)} was recorded; recorded were {', '.join(self.metrics)}")
        return found

    @cached_property
    def figures(self) -> figures.Figures:
        """When it memorised, when it generalised, and whether that held."""
        return figures.fold(self.records, self.config.stop)

    @cached_property
    def decoded(self) -> dict[str, dict[str, float]]:
        """split -> metrics of the strings that were decoded when the run was over; nothing where none were."""
        return {split: figures for split, figures in self.scores.get("metrics", {}).items() if figures}

    @cached_property
    def scores(self) -> dict[str, Any]:
        """What the run came to at its last step (words/final.py); nothing where it was not judged there."""
        return opened.scores(self.directory.path)

    def probed(self, name: str) -> tuple[np.ndarray, list[Any]]:
        """(steps, values) of a measure of the network, wherever it was taken during training."""
        return progress.measured(self.directory.metrics, name)

    # ------------------------------------------------------------------------------------------------ what it learnt

    @property
    def has_pairs(self) -> bool:
        """Whether it is a decoder's run on an operation with two operands."""
        return self.operands == 2 and self.model.architecture == "decoder_only"

    @cached_property
    def subject(self) -> Subject:
        """The last network as the measures of grokking see it."""
        return open_subject(self.directory.path)

    @cached_property
    def curve(self) -> dict[str, np.ndarray] | None:
        """The columns of grokking.progress over the steps, as measured during training or else over the checkpoints;
        None where the operation has no characters."""
        if not self.has_pairs:
            return None
        found = progress.over_training(self.directory.metrics)
        if found is None and why_no_characters(self.subject) is None:
            found = progress.over_checkpoints(self.directory.path, self.subject)
        return found

    @cached_property
    def phases(self) -> progress.Phases | None:
        """None where they cannot be told: no characters, or no losses to tell them by."""
        try:
            curve = self.curve
            if curve is None or len(curve["step"]) < 3:
                return None
            tested = self.measured("test_loss")["test_loss"]
        except BadInput:
            return None
        known = np.isfinite(tested)
        return progress.phases(curve["step"], curve["excluded_loss"], self.steps[known], tested[known])

    @cached_property
    def checkpoints(self) -> list[int]:
        """The steps whose weights are kept, earliest first."""
        return self.directory.snapshots

    @property
    def step_best(self) -> int | None:
        """The step whose weights the run chose, where it chooses (`stop.best`) and they are kept."""
        if self.config.stop.best is None or not self.directory.metrics:
            return None
        best = self.figures.step_best
        return best if best in self.checkpoints else None

    def weights(self, step: int | None = None) -> dict[str, np.ndarray]:
        """flat name -> array, verified, of the checkpoint at `step`; None: those chosen, else the last readable."""
        damage, best = "no checkpoint is there", self.step_best
        usual = ([] if best is None else [best]) + self.checkpoints[::-1]
        for candidate in usual if step is None else [step]:
            try:
                return self.directory.parameters(candidate)
            except BadInput as error:
                damage = str(error)
        raise BadInput(f"the weights are not known: {damage}")

    @cached_property
    def params(self) -> Any:
        """The weights of the page, as the model takes them."""
        like, weights = init(self.model, self.config.seed), self.weights()
        if missing := sorted(set(flatten(like)) - set(weights)):
            raise BadInput(f"the checkpoint lacks {', '.join(missing)}")
        return unflatten(weights, like)

    def values(self, batch: Batch, pattern: str) -> dict[str, Array]:
        """name -> what the page's weights compute for a batch, of the names that fit, such as `*.hook_pattern`."""
        found: dict[str, Array] = {}

        def keep(at: str, value: Array) -> Array:
            if fnmatchcase(at, pattern):
                found[at] = value
            return value

        gates.forward(self.params, batch, self.model, keep)
        return found
