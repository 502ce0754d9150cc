"""All measures of a run at a step, each beside the same of its untrained twin.

    analysis = analyse("runs/arithmetic-x-plus-y-0-…")
    analysis.key_frequencies, analysis.measures["cosine_variance_explained"]["value"]

Control   The twin is the network before its first step, looked at with the key frequencies of the trained one.
Marked    "untrained_reads_no_worse": a single number is not beyond its control, on the side that others read as
          structure, by more than a tenth of its own size. A high value of it then proves nothing.
          "reads_high_on": so for the twin, and for the networks of controls.py with nothing to find, measured once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..training.run_directory import Run
from . import controls, progress
from .measures import MEASURES, get, why_not
from .progress import Phases
from .subject import KEY_RULE, Subject, open_subject, why_no_characters

__all__ = ["Analysis", "analyse"]

MOST_ROWS = 8


@dataclass(frozen=True, eq=False)
class Analysis:
    run: Path
    step: int
    key_frequencies: tuple[int, ...] | None  # None where no Fourier basis fits
    phases: Phases | None
    measures: dict[str, dict[str, Any]]
    skipped: dict[str, str]  # measure -> why it does not apply
    names: tuple[str, ...] | None = None  # of the representations whose numbers key_frequencies holds; None: cyclic

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.run, "step": self.step, "key_frequencies": self.keys, "key_rule": KEY_RULE,
            "phases": self.phases._asdict() if self.phases else {}, "measures": self.measures, "skipped": self.skipped,
        }  # fmt: skip

    @property
    def keys(self) -> list[int | str]:
        """The key frequencies as they are called: numbers, or the names of representations."""
        return [k if self.names is None else self.names[k] for k in self.key_frequencies or ()]

    def text(self) -> str:
        """For reading in a terminal."""
        keys = "no Fourier basis" if self.key_frequencies is None else ", ".join(map(str, self.keys)) or "none"
        lines = [f"step {self.step:,}, key frequencies: {keys}"]
        for name, span in (self.phases._asdict() if self.phases else {}).items():
            told = "not seen" if span is None else " to ".join("the end" if at is None else f"{at:,}" for at in span)
            lines.append(f"{name.replace('_', ' ')}: {told}")
        lines.append(f"{'measure':<30} {'value':>12} {'untrained':>12}")
        for name, m in self.measures.items():
            lines += _rows(name, m)
        lines += [f"left out: {name} ({reason})" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def _rows(name: str, m: dict[str, Any]) -> list[str]:
    value, control = m["value"], m["control"]
    if not isinstance(value, dict):
        note = f"   reads no worse on: {', '.join(m['reads_high_on'])}" if m["reads_high_on"] else ""
        return [f"{name:<30} {value:>12.5g} {control:>12.5g}{note}"]
    largest = sorted(value, key=lambda at: -abs(value[at]))[:MOST_ROWS] if len(value) > MOST_ROWS else list(value)
    rest = f" (the {len(largest)} largest of {len(value)})" if len(largest) < len(value) else ""
    return [name + rest, *(f"  {at!s:<28} {value[at]:>12.5g} {control.get(at, 0):>12.5g}" for at in largest)]


def analyse(run: Path | str, step: int | None = None, names: Sequence[str] = ()) -> Analysis:
    """The named measures, or all that apply but the costly ones.

    A run of a task that is neither of numbers nor of parity, or of a composite p, is refused, unless the measures named
    apply to it; an operation for which no basis is known gets what applies.
    """
    if len(unheard := [name for name in names if name not in MEASURES]) > 1:
        raise BadInput(f"unknown measures {', '.join(map(repr, unheard))}. Allowed: {', '.join(sorted(MEASURES))}")
    for name in names:
        get(name)
    subject = open_subject(run, step)
    asked = names or [name for name, m in MEASURES.items() if not m.costly]
    reasons = {name: reason for name in asked if (reason := why_not(name, subject))}
    _refuse(run, subject, names, reasons)
    twin = subject.twin
    measured = {name: measure(name, subject, twin) for name in asked if name not in reasons}
    fits = why_no_characters(subject) is None
    at = Run(run).snapshots[-1] if step is None else step
    phases = progress.of_run(run, open_subject(run)) if fits and not names else None
    return Analysis(
        Path(run), at, subject.key_frequencies if fits else None, phases, measured, reasons,
        subject.characters.names if fits else None,
    )  # fmt: skip


def measure(name: str, subject: Subject, twin: Subject) -> dict[str, Any]:
    """value, definition, reference, control, and what it fails to stand out from."""
    m = MEASURES[name]
    value, control = m.of(subject), m.of(twin)
    marked = None if m.high is None else not controls.stands_out(value, control, m.high)
    known = [name for name in controls.reads_high_on(name, subject.task.facts) if name != "untrained"]
    value, control = _called(value, subject), _called(control, subject)
    return {
        "value": value, "definition": m.definition, "reference": m.reference, "control": control,
        "untrained_reads_no_worse": marked, "reads_high_on": [*(["untrained"] if marked else []), *known],
    }  # fmt: skip


def _called(value: Any, s: Subject) -> Any:
    """Values by frequency under the names of a group's representations, where it has those."""
    if not isinstance(value, dict) or not all(isinstance(k, int) for k in value) or why_no_characters(s):
        return value
    return {s.characters.name(k): x for k, x in value.items()}


def _refuse(run: Path | str, s: Subject, names: Sequence[str], reasons: dict[str, str]) -> None:
    fit = ", ".join(name for name in MEASURES if why_not(name, s) is None) or "none"
    if names and reasons:
        name, reason = next(iter(reasons.items()))
        raise BadInput(f"{name} does not apply to {run}, a run of {s.task.name}: {reason}. What applies: {fit}")
    facts = s.task.facts
    of_numbers = "table" in facts and s.task.n_ctx == 3
    composite = of_numbers and facts["basis"] in ("sum", "difference", "log") and why_no_characters(s) is not None
    if not names and (composite or not (of_numbers or "support" in facts)):
        reason = reasons["embedding_spectrum"]
        raise BadInput(
            f"{run} is a run of {s.task.name}: {reason}. Measures that apply to it, by --measure NAME: {fit}"
        )
