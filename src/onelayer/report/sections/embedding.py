"""The embedding of the numbers, seen through the Fourier transform over Z/p."""

import numpy as np

from onelayer.errors import BadInput
from onelayer.grokking import progress
from onelayer.grokking.fourier import power, powers_of_a_root
from onelayer.report.figures import spectrum
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import percent, phases

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
    steps, frequencies, history, told = _history(run)
    if np.sum(steps > 0) > 1:
        figure = spectrum.over_time(history, steps, frequencies, spectrum.SHARE, phases(run))
        panels.append(Panel(figure, f"The same over training, {told}."))
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


def _history(run: Run) -> tuple[np.ndarray, list[int], np.ndarray, str]:
    """steps, frequencies, shares [step, frequency], and where they come from."""
    steps, values = run.probed("embedding_spectrum")
    if len(steps) > 2:
        keys, table = progress.by_key(values)
        return steps, list(map(int, keys)), table, "as measured on its way"
    found = {}
    for step in run.checkpoints:
        try:
            found[step] = _shares(run, run.weights(step))
        except BadInput:
            continue
    table = np.stack(list(found.values()))
    return np.array(list(found)), list(range(table.shape[1])), table, "at each step whose weights are kept"


def _shares(run: Run, weights: dict[str, np.ndarray]) -> np.ndarray:
    p = run.task.facts["p"]
    rows = powers_of_a_root(p) if run.task.facts["basis"] == "log" else np.arange(p)
    energy = power(weights["embed.W_E"][rows].astype(np.float64))
    return energy / energy.sum()
