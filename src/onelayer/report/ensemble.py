"""The page of an ensemble: when its members memorised and generalised, in one figure, and each member's numbers."""

from pathlib import Path
from typing import Any

import numpy as np

from ..training.ensemble import Ensemble
from ..training.files import replace_file
from .figures import plots
from .page import render
from .section import Panel, Section

__all__ = ["facts", "sentences", "write"]


def facts(ensemble: Ensemble) -> dict[str, Any]:
    """Everything that came out, as plain values."""
    return {
        "members": [
            {
                "seed": m.config.seed,
                "lr": m.config.optimizer.lr,
                "weight_decay": m.config.optimizer.settings.get("weight_decay"),
                **m.figures._asdict(),
                "steps": m.steps,
                "diverged": m.diverged,
            }
            for m in ensemble.members
        ],
        "step_memorised": ensemble.distribution("step_memorised"),
        "step_generalised": ensemble.distribution("step_generalised"),
        "step_sustained": ensemble.distribution("step_sustained"),
        "failures": ensemble.failures,
        "seconds": ensemble.seconds,
        "compile_seconds": ensemble.compiled,
        "bytes_per_member": ensemble.bytes_per_member,
        "side_by_side": ensemble.side_by_side,
        "device": ensemble.device,
        "precision": ensemble.members[0].config.precision,
    }


def sentences(ensemble: Ensemble) -> list[str]:
    """The distribution, in words: what was reached, when, and what it took."""
    first, n = ensemble.members[0].config.stop, len(ensemble.members)
    said = [f"{n - ensemble.failures} of {n} members sustained {first.metric.replace('_', ' ')} {first.threshold:g}"]
    for words, name in (("memorised", "step_memorised"), ("sustained", "step_sustained")):
        d = ensemble.distribution(name)
        parts = {key: "never" if value is None else f"{value:g}" for key, value in d.items()}
        said.append(
            f"{words}: median step {parts['median']} (95 % interval {parts['low']} to {parts['high']}, "
            f"first {parts['least']}, last {parts['most']})"
        )
    said.append(f"{ensemble.seconds:.1f} s on {ensemble.device}, and {ensemble.compiled:.1f} s of compilation")
    return said


def figure(ensemble: Ensemble) -> Any:
    """Over the steps, the share of the members that had memorised, crossed the threshold, and sustained it."""
    steps = np.unique([0, *(step for m in ensemble.members for step, *_ in m.curve)])

    def share(name: str) -> np.ndarray:
        reached = [getattr(m.figures, name) for m in ensemble.members]
        return np.mean([[r is not None and r <= step for step in steps] for r in reached], axis=0)

    series = {
        "memorised": share("step_memorised"),
        "crossed": share("step_generalised"),
        "sustained": share("step_sustained"),
    }
    return plots.lines(steps, series, x_title="step", y_title="share of the members")


def write(ensemble: Ensemble, path: Path) -> Path:
    """One HTML file, that opens without a network."""
    config = ensemble.members[0].config
    section = Section(
        "When the members generalised",
        "; ".join(sentences(ensemble)) + ".",
        (
            Panel(
                figure(ensemble),
                "Share of the members that had memorised, first crossed the threshold, and sustained it.",
            ),
        ),
    )
    title = f"{len(ensemble.members)} runs of {config.task.name}"
    replace_file(path, render(title, config.recipe, {"ensemble": section}).encode())
    return path
