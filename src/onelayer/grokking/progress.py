"""Progress: restricted and excluded loss over a run's steps, and the phases that they tell apart.

Series    from what was measured during training, with the key frequencies of each moment; of a run that was not
          measured, from its checkpoints, with the key frequencies of the last one throughout

Phases    h(t) is the height that the test loss held: the lesser of this evaluation's and the one's before, so that a
          single spike is none; top(t) the greatest h up to t.

          clean-up            ends when the test loss is first below 1 % of top
          memorising          ends where the excluded loss is lowest before its later peak, both before that end: what
                              is learnt so far needs no key frequency
          circuit formation   ends when h is above half of top for the last time, before that end
          A phase that does not occur is None: no excluded loss that rises by a tenth, no circuit; a test loss that fell
          while memorising, or never, no clean-up. A clean-up that does not get there ends in None. Boundaries are steps
          of measurements or of evaluations, no finer.

Source    Nanda et al. 2023, arXiv:2301.05217, section 5.2 (0 to 1,400, to 9,400, to 14,000 there; read off by eye).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import unflatten
from ..errors import BadInput
from ..training.measuring import KEY
from ..training.run_directory import Run
from . import losses
from .subject import Subject

COLUMNS = ("step", "train_loss", "test_loss", "restricted_loss", "excluded_loss")


class Phases(NamedTuple):
    memorising: tuple[int, int] | None
    circuit_formation: tuple[int, int] | None
    clean_up: tuple[int, int | None] | None


# ---------------------------------------------------------------------------------------------------- series


def measured(records: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, list[Any]]:
    """(steps, values): a measure as it was taken during training, wherever it was, and was finite."""
    found = [(r["step"], r[KEY][name]) for r in records if r.get(KEY, {}).get(name) is not None]
    return np.array([step for step, _ in found], dtype=int), [value for _, value in found]


def by_key(values: Sequence[dict[str, float | None]]) -> tuple[list[str], np.ndarray]:
    """(keys, [step, key]) of a measure that has a number for each key; NaN where there was none."""
    keys = list(dict.fromkeys(key for value in values for key in value))
    rows = [[np.nan if (x := value.get(key)) is None else x for key in keys] for value in values]
    return keys, np.array(rows, dtype=float).reshape(len(values), len(keys))


def over_training(records: Sequence[dict[str, Any]]) -> dict[str, np.ndarray] | None:
    """COLUMNS, as measured during training; None where they were not, or at fewer than three steps."""
    rows = [
        (r["step"], r.get("train_loss", np.nan), r.get("test_loss", np.nan), *losses_)
        for r in records
        if None not in (losses_ := [r.get(KEY, {}).get(name) for name in COLUMNS[3:]])
    ]
    return _columns(rows) if len(rows) >= 3 else None


def over_checkpoints(path: Path | str, last: Subject) -> dict[str, np.ndarray]:
    """COLUMNS, a value for each checkpoint; `last` is the subject of the last one.

    The logits are computed in the precision of the checkpoint, which halves the time, the losses from them in float64.
    """
    run, keys, rows = Run(path), last.key_frequencies, []
    for step in run.snapshots:
        s = last.moved(unflatten(run.parameters(step), last.params), keys)
        excluded, train = losses.excluding(s, [keys, ()], s.train)
        test = losses.cross_entropy(s.logits, s.right, s.test)
        rows.append((step, train, test, losses.restricted_loss(s), excluded))
    return _columns(rows)


def _columns(rows: Sequence[tuple[Any, ...]]) -> dict[str, np.ndarray]:
    return {name: np.array(column) for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)}


# ---------------------------------------------------------------------------------------------------- phases


def of_run(path: Path | str, last: Subject, curve: dict[str, np.ndarray] | None = None) -> Phases:
    """The phases of a run whose operation has characters; `last` is the subject of the last checkpoint."""
    records = [r for r in Run(path).metrics if "test_loss" in r]
    if not records:
        raise BadInput(f"{path} has no test loss in metrics.jsonl, by which its phases are told")
    if curve is None:
        curve = over_training(records)
    if curve is None:
        curve = over_checkpoints(path, last)
    tested = np.array([r["test_loss"] for r in records])
    return phases(curve["step"], curve["excluded_loss"], [r["step"] for r in records], tested)


def phases(
    steps: Sequence[int] | np.ndarray,
    excluded: np.ndarray,
    evaluated: Sequence[int] | np.ndarray,
    test_loss: np.ndarray,
) -> Phases:
    """From the excluded loss [len(steps)] where it was measured, and the test loss [len(evaluated)]."""
    steps, evaluated = np.asarray(steps), np.asarray(evaluated)
    held = np.minimum(test_loss, np.concatenate([test_loss[:1], test_loss[:-1]]))
    top = np.maximum.accumulate(held)
    low = np.flatnonzero(test_loss < top / 100)
    clean = int(evaluated[low[0]]) if low.size else None

    before = steps <= (steps[-1] if clean is None else clean)
    excluded, first, last = excluded[before], int(steps[0]), int(steps[-1])
    peaks = np.maximum.accumulate(excluded[::-1])[::-1]
    rises = np.flatnonzero(peaks > 1.1 * excluded)
    if not rises.size:
        return Phases((first, last), None, None)
    lowest = int(steps[rises[np.argmin(excluded[rises] - peaks[rises])]])
    memorising = (first, lowest) if lowest > first else None

    high = np.flatnonzero((held > top / 2) & (evaluated <= (evaluated[-1] if clean is None else clean)))
    if high[-1] + 1 == len(test_loss):  # it never fell
        return Phases(memorising, (lowest, last), None)
    falling = int(evaluated[high[-1]])
    circuit = (lowest, falling) if falling > lowest else None
    begins = max(falling, lowest)
    return Phases(memorising, circuit, None if clean is not None and clean <= begins else (begins, clean))
