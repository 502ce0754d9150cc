"""How numbers, series and phases are called on the page."""

from onelayer.report.figures.plots import Span
from onelayer.report.run import Run


def percent(share: float) -> str:
    """0.99217 -> "99.2 %". A share that is not whole is never written as 100 %, nor one above zero as 0 %."""
    if 0.9995 <= share < 1:
        return ">\u00a099.9\u00a0%"  # no line ends within it
    if 0 < share < 0.0005:
        return "<\u00a00.1\u00a0%"
    return f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%"


def step(number: int | None) -> str:
    return "not reached" if number is None else f"{number:,}"


def delay(run: Run) -> float | None:
    """How many times as many steps it took to generalise as to memorise."""
    memorised, generalised = run.figures.step_memorised, run.figures.step_generalised
    return generalised / memorised if memorised and generalised else None


def phases(run: Run) -> list[Span]:
    """The stretches of training between the milestones that were reached."""
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
    return "Shaded, from light to dark: " + ", ".join(f"{s.name} (to step {s.stop:,.0f})" for s in spans) + "."
