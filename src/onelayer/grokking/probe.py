"""The measures taken while a network trains: `train(config, probe=prepare)`, what `evaluation.measures` names.

progress   those of PROGRESS that apply to the run: cheap, and telling. All of them read the weights and the logits over
           all pairs, and an evaluation knows these already: both splits together are all pairs
NAME, …    any measures of the registry; one that does not apply is bad input

The answers are rounded to DIGITS significant digits, since a line of metrics.jsonl holds some two hundred of them; a
number that is not finite is null. The key frequencies are those of the moment, by the rule of subject.py: while there
are none, the excluded loss is the loss over the numbers, and the restricted loss that of the mean logits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..arrays import map_tree
from ..errors import BadInput
from ..tasks import Task
from ..training import step as steps
from ..training.config import RunConfig
from .measures import MEASURES, get, why_not
from .subject import Subject

__all__ = ["PROGRESS", "prepare"]

PROGRESS = (
    "embedding_spectrum", "embedding_key_share", "embedding_gini", "logit_map_gini", "logit_map_key_share",
    "logit_spectrum", "restricted_loss", "restricted_by_frequency", "excluded_loss", "excluded_by_frequency",
    "cosine_variance_explained", "logit_scale", "margin", "weight_norms", "trajectory_cosine",
)  # fmt: skip
DIGITS = 6
LARGEST = 2**25  # numbers in a table over all pairs: 256 MiB, p = 321


def prepare(config: RunConfig, task: Task) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]] | None:
    """measure(params, answers), as training/measuring.py wants it; None where nothing applies."""
    goal, rules = steps.make_objective(config, task), steps.make_rules(config)
    first = _exact(steps.start(goal, rules, config.seed, config.dtype).params)
    base = Subject(task, goal, first, first, config.seed, config.dtype)
    asked = config.evaluation.measures
    names = PROGRESS if isinstance(asked, str) else asked
    for name in names:
        get(name)
    reasons = {name: reason for name in names if (reason := why_not(name, base) or _too_large(name, base))}
    if reasons and not isinstance(asked, str):
        name, reason = next(iter(reasons.items()))
        fit = ", ".join(m for m in MEASURES if why_not(m, base) is None) or "none"
        raise BadInput(
            f"evaluation.measures: {name} does not apply to {task.name}: {reason}. What applies: {fit}; "
            "or progress, or none"
        )
    chosen = [name for name in names if name not in reasons]
    return _Probe(base, chosen) if chosen else None


def _too_large(name: str, s: Subject) -> str | None:
    """Why a table over all pairs is not to be made again and again."""
    if "pairs" not in MEASURES[name].needs or len(s.numbers[0]) ** 2 * len(s.task.vocabulary) <= LARGEST:
        return None
    return f"a table over all pairs of {len(s.numbers[0])} numbers holds more than {LARGEST:,} values"


class _Probe:
    def __init__(self, base: Subject, names: list[str]) -> None:
        self.base, self.names = base, names
        self.pairs = "table" in base.task.facts and base.task.n_ctx == 3
        if self.pairs:
            _ = base.right, base.train, base.test  # found once, for all moments
            self.rows = _rows(base)

    def __call__(self, params: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
        s = self.base.moved(_exact(params), None, self._table(answers))
        return {name: _brief(MEASURES[name].of(s)) for name in self.names}

    def _table(self, answers: Mapping[str, Any]) -> np.ndarray | None:
        """[n n C] from the logits of both splits; None where some pair is in neither."""
        if not self.pairs or self.rows is None:
            return None
        said = np.concatenate([answers["train"][:, -1, :-1], answers["test"][:, -1, :-1]])
        return said[self.rows].astype(np.float64)


def _rows(s: Subject) -> np.ndarray | None:
    """[n n]: where each pair stands in train and test, one after the other."""
    facts, (a, b) = s.task.facts, s.numbers
    places = np.full(facts["table"].shape, -1)
    pairs = np.concatenate([facts["train_pairs"], facts["test_pairs"]])
    places[tuple(pairs.T)] = np.arange(len(pairs))
    rows = places[a[:, None], b]
    return rows if np.all(rows >= 0) else None


def _exact(params: Any) -> Any:
    return map_tree(lambda w: np.asarray(w, dtype=np.float64), params)


def _brief(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _brief(item) for key, item in value.items()}
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
