"""What the network computes, in the waves of its operation: the grokking measures of docs/grokking.md as pictures."""

import numpy as np

from onelayer.errors import BadInput
from onelayer.grokking import characters, losses, progress, spectra
from onelayer.grokking.subject import Subject, centred, open_subject
from onelayer.report.figures import circuit, learning
from onelayer.report.figures.plots import Span
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import percent, shading

CIRCLES = 4
NAMES = {"memorising": "memorising", "circuit_formation": "circuit formation", "clean_up": "clean-up"}


def applies(run: Run) -> bool:
    if run.operands != 2 or run.model.architecture != "decoder_only":
        return False
    try:
        characters.of(run.task.facts)
    except BadInput:
        return False
    return True


def build(run: Run) -> Section:
    s = open_subject(run.directory.path)
    panels = [*_progress(run, s), *_neurons(s), *_circles(s), *_logit(s)]
    return Section("What it computes", _told(s), tuple(panels))


def _told(s: Subject) -> str:
    keys = s.key_frequencies
    if not keys:
        return (
            "No frequency over the operation's result holds one per cent of the logits' energy: whatever these weights "
            "do, they do not compute the answer by a few waves."
        )
    kept, cut, full = losses.restricted_loss(s), losses.excluded_loss(s), losses.full_loss(s)
    found = [
        f"The logits speak in {len(keys)} {'frequency' if len(keys) == 1 else 'frequencies'}, {_listed(keys)}, by the "
        f"rule of docs/grokking.md. With these alone, the loss over all pairs is {kept:.2g} (with everything: "
        f"{full['all']:.2g}); without them, that over the training pairs goes from {full['train']:.2g} to {cut:.2g}; "
        f"a uniform guess has {np.log(s.logits.shape[-1]):.2g}.",
        f"Of {s.neurons.shape[-1]} neurons, {percent(spectra.neuron_specialisation(s))} have more than 85\u00a0% of "
        "their variance at a single frequency.",
    ]
    if s.characters.c is not None:
        share = percent(losses.cosine_variance_explained(s))
        found.append(f"Cosines of these frequencies, of the result less c, make {share} of the logits' variance.")
    return " ".join(found)


def _listed(keys: tuple[int, ...]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, keys[:-1])), str(keys[-1])]))


def _progress(run: Run, s: Subject) -> list[Panel]:
    curve = progress.over_checkpoints(run.directory.path, s)
    if len(curve["step"]) < 3:
        return []
    spans = _spans(run, curve)
    series = {name: curve[f"{word}_loss"] for name, word in (
        ("restricted, all pairs", "restricted"), ("excluded, training pairs", "excluded"), ("train", "train"),
        ("test", "test"))}  # fmt: skip
    caption = (
        "At each checkpoint: the loss with the last checkpoint's key frequencies alone (restricted), without them "
        f"(excluded), and of the whole network. {shading(spans)}"
    )
    return [Panel(learning.loss(curve["step"], series, spans), caption)]


def _spans(run: Run, curve: dict[str, np.ndarray]) -> list[Span]:
    """The phases that took place, from the first step that a logarithmic axis can show; none without evaluations."""
    try:
        test = run.measured("test_loss")["test_loss"]
    except BadInput:
        return []
    known, last = np.isfinite(test), int(curve["step"][-1])
    found = progress.phases(curve["step"], curve["excluded_loss"], run.steps[known], test[known])
    spans, first = [], int(min(curve["step"][curve["step"] > 0], default=1))
    for name, span in found._asdict().items():
        if span is not None:
            start, stop = max(span[0], first), last if span[1] is None else span[1]
            spans += [Span(NAMES[name], start, stop)] if stop > start else []
    return spans


def _neurons(s: Subject) -> list[Panel]:
    counts = spectra.neurons_by_frequency(s)
    figure = circuit.neurons(counts, s.characters.frequencies[-1])
    caption = "How many neurons have more than 85\u00a0% of their variance over all pairs at a frequency, for each."
    return [Panel(figure, caption)] if counts else []


def _circles(s: Subject) -> list[Panel]:
    """The embedding in the plane of each of the strongest key frequencies that have one."""
    ch, panels = s.characters, []
    W, n = s.params.embed.W_E[s.characters.a], len(s.characters.a)
    spectrum = spectra.embedding_spectrum(s)
    for k in sorted(s.key_frequencies, key=lambda k: -spectrum[k])[:CIRCLES]:
        rows = ch.rows([k])
        if len(rows) < 2 or np.gcd(k, n) > 1:  # a Walsh function, or a wave that does not tell all numbers apart
            continue
        directions = rows @ W
        points = W @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T
        caption = (
            f"Frequency {k}: the embedding of each number along its cosine and its sine. A line joins numbers whose "
            f"phases are neighbours; {percent(spectrum[k])} of Σ W² is here."
        )
        panels.append(Panel(circuit.circle(points, ch.a, pow(k, -1, n)), caption, wide=False))
    return panels


def _logit(s: Subject) -> list[Panel]:
    ch = s.characters
    n = len(ch.a)
    if ch.c is None or not s.key_frequencies or len(ch.rows(s.key_frequencies[:1])) < 2:
        return []
    offsets = np.arange(n) - n // 2
    answers = (np.arange(n)[:, None] + offsets) % n
    whole, made = centred(s.logits), losses.cosines(s)
    spoken, fitted, left = (
        np.take_along_axis(characters.profile(x[..., ch.c], ch.product), answers, axis=1).mean(axis=0)
        for x in (whole, made, (whole - made) ** 2)
    )
    caption = (
        "The logit of the answer that lies so far from the right one (in places: numbers, or their logarithms), mean "
        "over all pairs; what the cosines of the key frequencies make of it; and how far single pairs are from that."
    )
    return [Panel(circuit.logit(offsets, spoken, fitted, np.sqrt(left)), caption)]
