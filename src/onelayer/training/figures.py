"""What a run's measurements come to: when it memorised, when it generalised, whether that held, when it was best.

Four figures that are often taken for one are kept apart, since a run that crosses 99 % may fall back below it:

    step_memorised     first evaluation with the metric, measured on train, at the threshold or better
    step_generalised   first evaluation with the metric (test accuracy) there: the first crossing
    step_sustained     first of the first n evaluations in a row with the metric there
    minimum_after      the metric's worst value at or after the first crossing

and where `stop.best` names a metric, the evaluation at which it was best (the earliest of equals), and how many have
gone by since. Better is more, but of losses less.

Figures are folded over the records one by one, so that a resumed run finds them again from its metrics.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .config import StopConfig

__all__ = ["Figures", "better", "fold", "observe", "phase"]


class Figures(NamedTuple):
    step_memorised: int | None = None
    step_generalised: int | None = None
    step_sustained: int | None = None
    minimum_after: float | None = None
    streak: int = 0  # evaluations in a row at or above the threshold, up to now
    streak_start: int | None = None
    step_best: int | None = None
    best: float | None = None
    since_best: int = 0  # evaluations after it


def better(metric: str, a: float, b: float) -> bool:
    """Whether a is better than b: more of it, or less of a loss."""
    return a < b if metric.endswith("loss") else a > b


def on_train(metric: str) -> str:
    """The name of the same metric on the training examples; of a group's accuracy, plain accuracy."""
    split, _, kind = metric.partition("_")
    return f"train_{kind}" if split in ("train", "valid", "test") else "train_accuracy"


def observe(figures: Figures, record: Mapping[str, Any], stop: StopConfig) -> Figures:
    """The figures after one more evaluation."""
    step, metric = record["step"], stop.metric
    value, train, chosen = record.get(metric), record.get(on_train(metric)), record.get(stop.best or "")
    if chosen is not None:
        if figures.best is None or better(stop.best or "", chosen, figures.best):
            figures = figures._replace(step_best=step, best=chosen, since_best=0)
        else:
            figures = figures._replace(since_best=figures.since_best + 1)

    def there(value: float) -> bool:
        return not better(metric, stop.threshold, value)

    if figures.step_memorised is None and train is not None and there(train):
        figures = figures._replace(step_memorised=step)
    if value is None:
        return figures
    _, generalised, sustained, lowest, streak, start, *_ = figures
    if there(value):
        streak, start = streak + 1, step if streak == 0 else start
        generalised = step if generalised is None else generalised
    else:
        streak, start = 0, None
    if sustained is None and streak >= stop.sustained:
        sustained = start
    if generalised is not None:
        lowest = value if lowest is None or better(metric, lowest, value) else lowest
    return figures._replace(
        step_generalised=generalised, step_sustained=sustained, minimum_after=lowest, streak=streak, streak_start=start
    )


def fold(records: Iterable[Mapping[str, Any]], stop: StopConfig) -> Figures:
    figures = Figures()
    for record in records:
        figures = observe(figures, record, stop)
    return figures


def phase(figures: Figures) -> str:
    """The phase that a run is in, in a word or two."""
    if figures.step_sustained is not None:
        return "generalised" if figures.streak else "fell back"
    if figures.step_generalised is not None:
        return "generalising" if figures.streak else "fell back"
    return "memorising" if figures.step_memorised is None else "memorised, not yet generalising"
