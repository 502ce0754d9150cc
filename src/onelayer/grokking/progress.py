"""Progress: restricted and excluded loss over a run's checkpoints, and the phases that they tell apart.

Phases    memorising          until the excluded loss is at its lowest before its later peak: what is learnt
                              so far needs no key frequency
          circuit formation   until the test loss is above half of its maximum for the last time
          clean-up            until the test loss is first below 1 % of its maximum, if it gets there
          A phase that does not occur (an excluded loss that never rises by a tenth, a test loss that falls with the
          training loss, or never) is None. Boundaries are steps of checkpoints or of evaluations, no finer.
          The key frequencies are those of the last checkpoint throughout.

Source    Nanda et al. 2023, arXiv:2301.05217, section 5.2 (0 to 1,400, to 9,400, to 14,000 there; read off by eye).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..arrays import unflatten
from ..training.run_directory import Run
from . import losses
from .subject import Subject

COLUMNS = ("step", "train_loss", "test_loss", "restricted_loss", "excluded_loss")


class Phases(NamedTuple):
    memorising: tuple[int, int] | None
    circuit_formation: tuple[int, int] | None
    clean_up: tuple[int, int | None] | None


def over_checkpoints(path: Path | str, last: Subject) -> dict[str, np.ndarray]:
    """COLUMNS, a value for each checkpoint; `last` is the subject of the last one.

    The logits are computed in the precision of the checkpoint, which halves the time, the losses from them in float64.
    """
    run, keys, rows = Run(path), last.key_frequencies, []
    for step in run.snapshots:
        s = replace(last, params=unflatten(run.parameters(step), last.params), keys=keys)
        full = losses.full_loss(s)
        rows.append((step, full["train"], full["test"], losses.restricted_loss(s), losses.excluded_loss(s)))
    return {name: np.array(column) for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)}


def phases(
    steps: Sequence[int] | np.ndarray,
    excluded: np.ndarray,
    evaluated: Sequence[int] | np.ndarray,
    test_loss: np.ndarray,
) -> Phases:
    """From the excluded loss [len(steps)] of checkpoints and the test loss [len(evaluated)]."""
    peaks = [max(excluded[i:]) for i in range(len(excluded))]
    rises = [i for i in range(len(excluded)) if peaks[i] > 1.1 * excluded[i]]
    if not rises:
        return Phases((int(steps[0]), int(steps[-1])), None, None)
    lowest = int(steps[min(rises, key=lambda i: excluded[i] - peaks[i])])
    memorising = (int(steps[0]), lowest)
    top = float(np.max(test_loss))
    high = np.flatnonzero(test_loss > top / 2)
    if high[-1] + 1 == len(test_loss):  # it never fell
        return Phases(memorising, (lowest, int(steps[-1])), None)
    falling = int(evaluated[high[-1]])
    clean = [int(step) for step, loss in zip(evaluated, test_loss, strict=True) if loss < top / 100]
    circuit = (lowest, falling) if falling > lowest else None
    return Phases(memorising, circuit, (max(falling, lowest), clean[0] if clean else None))
