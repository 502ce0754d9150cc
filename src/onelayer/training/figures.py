"""What a run's measurements come to: when it memorised, when it generalised, whether that held.

Four figures that are often taken for one are kept apart, since a run that crosses 99 % may fall back below it:

    step_memorised     first evaluation with train accuracy ≥ threshold
    step_generalised   first evaluation with the metric (test accuracy) ≥ threshold: the first crossing
    step_sustained     first of the first n evaluations in a row with the metric ≥ threshold
    minimum_after      the metric's lowest value at or after the first crossing

Figures are folded over the records one by one, so that a resumed run finds them again from its metrics.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .config import StopConfig

__all__ = ["Figures", "fold", "observe", "phase"]


class Figures(NamedTuple):
    step_memorised: int | None = None
    step_generalised: int | None = None
    step_sustained: int | None = None
    minimum_after: float | None = None
    streak: int = 0  # evaluations in a row at or above the threshold, up to now
    streak_start: int | None = None


def observe(figures: Figures, record: Mapping[str, Any], stop: StopConfig) -> Figures:
    """The figures after one more evaluation."""
    step, value, train = record["step"], record.get(stop.metric), record.get("train_accuracy")
    memorised, generalised, sustained, lowest, streak, start = figures
    if memorised is None and train is not None and train >= stop.threshold:
        memorised = step
    if value is None:
        return figures._replace(step_memorised=memorised)
    if value >= stop.threshold:
        streak, start = streak + 1, step if streak == 0 else start
        generalised = step if generalised is None else generalised
    else:
        streak, start = 0, None
    if sustained is None and streak >= stop.sustained:
        sustained = start
    if generalised is not None:
        lowest = value if lowest is None else min(lowest, value)
    return Figures(memorised, generalised, sustained, lowest, streak, start)


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
