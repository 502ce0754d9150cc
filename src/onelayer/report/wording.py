"""How numbers, series and phases are called on the page."""

from collections.abc import Sequence

from onelayer.errors import BadInput
from onelayer.report.figures.plots import Span
from onelayer.report.run import Run


def percent(share: float) -> str:
    """0.99217 -> "99.2 %". A share that is not whole is never written as 100 %, nor one above zero as 0 %."""
    if 0.9995 <= share < 1:
        return ">\u00a099.9\u00a0%"  # no line ends within it
    if 0 < share < 0.0005:
        return "<\u00a00.1\u00a0%"
    return f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%"


def number(value: float) -> str:
    """Three digits: 0.00123, 4.7e-06, 12.3, 1,234."""
    if value == 0 or 1e-4 <= abs(value) < 1e3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.2e}"


def listed(items: Sequence[object]) -> str:
    """1, 2 and 3"""
    return " and ".join(filter(None, [", ".join(map(str, items[:-1])), str(items[-1])]))


def step(number: int | None) -> str:
    return "not reached" if number is None else f"{number:,}"


def delay(run: Run) -> float | None:
    """How many times as many steps it took to generalise as to memorise."""
    memorised, generalised = run.figures.step_memorised, run.figures.step_generalised
    return generalised / memorised if memorised and generalised else None


NAMES = {"memorising": "memorising", "circuit_formation": "circuit formation", "clean_up": "clean-up"}


def phases(run: Run) -> list[Span]:
    """The stretches of training: the phases of grokking where they can be told, or else between the milestones."""
    try:
        found, last = run.phases, float(run.steps[-1])
    except BadInput:  # no evaluation
        return []
    if found is None or (found.circuit_formation is None and found.clean_up is None):
        return milestones(run)
    spans, first = [], float(min(run.steps[run.steps > 0], default=last))
    for name, span in found._asdict().items():
        if span is not None:
            start, stop = max(span[0], first), last if span[1] is None else span[1]
            spans += [Span(NAMES[name], start, stop)] if stop > start else []
    if found.clean_up is not None and found.clean_up[1] is not None and found.clean_up[1] < last:
        spans.append(Span("generalised", found.clean_up[1], last))
    return spans


def milestones(run: Run) -> list[Span]:
    """The stretches of training between the milestones that were reached; runs on words have no such milestones."""
    if "train_accuracy" not in run.metrics:
        return []
    last = float(run.steps[-1])
    spans, start = [], float(min(run.steps[run.steps > 0], default=last))
    for name, milestone in (
        ("memorising", run.figures.step_memorised),
        ("memorised, not yet generalising", run.figures.step_generalised),
        ("generalised", None),
    ):
        stop = last if milestone is None else milestone
        if stop > start:
            spans.append(Span(name, start, stop))
            start = stop
    return spans


def shading(spans: list[Span]) -> str:
    """The key to the shaded stretches, in words, for a caption."""
    if not spans:
        return ""
    return "Shaded: " + ", ".join(f"{s.name} (to step {s.stop:,.0f})" for s in spans) + "."
