"""The embedding of the numbers, seen through the Fourier transform over Z/p."""

import numpy as np

from onelayer.errors import BadInput
from onelayer.grokking.fourier import power, powers_of_a_root
from onelayer.report.figures import spectrum
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import percent

NAMED = 5  # frequencies in the text


BASES = ("sum", "difference", "log", None)  # those of Z/p, and where none is known that fits


def applies(run: Run) -> bool:
    return run.operands is not None and run.task.facts["basis"] in BASES


def build(run: Run) -> Section:
    final = _shares(run, run.weights())
    strongest = np.argsort(-final[1:], kind="stable")[:NAMED] + 1
    panels = [
        Panel(
            spectrum.shares(final),
            "The embedding's energy at each frequency, cos 2πka/n and sin 2πka/n together. Frequency 0 is the mean.",
        )
    ]
    history = _history(run)
    if len(history) > 2:
        figure = spectrum.over_time(np.stack(list(history.values())), list(history))
        panels.append(Panel(figure, "The same at each step whose weights are kept; time goes upwards."))
    return Section(
        "The embedding's spectrum",
        f"{_axis(run)} The {strongest.size} strongest of its {final.size - 1} frequencies are "
        f"{', '.join(map(str, sorted(strongest)))}; they hold {percent(final[strongest].sum())} of the energy. "
        f"Spread evenly, it would be {percent(strongest.size / (final.size - 1))}.",
        tuple(panels),
    )


def _axis(run: Run) -> str:
    p, basis = run.task.facts["p"], run.task.facts["basis"]
    rows = f"1 to {p - 1}, in the order of their discrete logarithms," if basis == "log" else f"0 to {p - 1},"
    fits = "" if basis else " (for this operation no basis is known to fit; this is the one of addition)"
    return f"Over the numbers {rows} each column of W_E is a sum of waves; frequency k turns k times on that way{fits}."


def _history(run: Run) -> dict[int, np.ndarray]:
    """step -> shares, of the checkpoints that can be read."""
    found = {}
    for step in run.checkpoints:
        try:
            found[step] = _shares(run, run.weights(step))
        except BadInput:
            continue
    return found


def _shares(run: Run, weights: dict[str, np.ndarray]) -> np.ndarray:
    p = run.task.facts["p"]
    rows = powers_of_a_root(p) if run.task.facts["basis"] == "log" else np.arange(p)
    energy = power(weights["embed.W_E"][rows].astype(np.float64))
    return energy / energy.sum()
