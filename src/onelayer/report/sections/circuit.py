"""What the network computes, in the waves of its operation: the grokking measures of docs/grokking.md as pictures."""

import numpy as np

from onelayer.grokking import characters, losses, progress, representations, spectra
from onelayer.grokking.analysis import measure
from onelayer.grokking.measures import MEASURES, why_not
from onelayer.grokking.subject import KEY_SHARE, Subject, centred, why_no_characters
from onelayer.report.figures import circuit, learning, spectrum
from onelayer.report.figures.plots import Span
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import listed, number, percent, phases, shading

CIRCLES = 4
ZHONG = {"clock (Zhong 2023)": (0.3336, 0.85), "pizza (Zhong 2023)": (0.9937, 0.17)}  # symmetricity, irrelevance
APART = 0.1  # from the control, at least, for a value to say anything
BETWEEN = (0.664, 0.4)  # half way in symmetricity; where Zhong's ranges of irrelevance meet


def applies(run: Run) -> bool:
    return run.has_pairs


def build(run: Run) -> Section:
    s = run.subject
    if (reason := why_no_characters(s)) is not None:
        return Section("What it computes", _without_waves(s, reason))
    spans = phases(run)
    told = f"{_told(s, run.checkpoints[-1])} {_history(run)}".strip()
    panels = [
        *_progress(run, spans), *_by_frequency(run, s, spans), *_spectrum(run, s, spans), *_neurons(s), *_circles(s),
        *_logit(s),
    ]  # fmt: skip
    waves = s.characters.names is None and s.key_frequencies and len(s.characters.rows(s.key_frequencies[:1])) == 2
    if waves:  # that have a phase
        verdict, panel = _pizza_or_clock(s)
        told, panels = f"{told}\n\n{verdict}", [*panels, panel]
    return Section("What it computes", told, tuple(panels))


def _without_waves(s: Subject, reason: str) -> str:
    fit = [name.replace("_", " ") for name in MEASURES if why_not(name, s) is None]
    return (
        "The pictures of this section take a network apart in the waves of its operation, and here there are none to "
        f"take: {reason}. What can be measured of this run all the same: {', '.join(fit)}."
    )


# ---------------------------------------------------------------------------------------------------- in words


def _told(s: Subject, step: int) -> str:
    keys = s.key_frequencies
    if not keys:
        return (
            f"At step {step:,}, no frequency over the operation's result holds one per cent of the logits' energy: "
            "whatever these weights do, they do not compute the answer by a few waves."
        )
    twin, ch = s.twin, s.characters
    word, sums = ("frequencies", "Cosines") if ch.names is None else ("representations of the group", "Characters")
    kept, cut, full = losses.restricted_loss(s), losses.excluded_loss(s), losses.full_loss(s)
    energy = percent(float(sum(s.logit_shares[k] for k in keys)))
    embedded, before = (percent(spectra.embedding_key_share(network)) for network in (s, twin))
    special, random = (percent(spectra.neuron_specialisation(network)) for network in (s, twin))
    found = [
        f"At step {step:,}, the logits speak in {len(keys)} of {len(ch.frequencies)} {word} "
        f"({listed([ch.name(k) for k in keys])}): these hold {energy} of the logits' energy, and "
        f"{embedded} of the embedding's (untrained: {before}).",
        f"Of {s.neurons.shape[-1]} neurons, {special} have more than 85\u00a0% of their variance at a single one of "
        f"these (untrained: {random}).",
    ]
    if s.characters.c is not None:
        share = percent(losses.cosine_variance_explained(s))
        found.append(f"{sums} of these {word}, of the result less c, make {share} of the logits' variance.")
    uniform, other = float(np.log(s.logits.shape[-1])), ""
    if ch.names is None and not np.array_equal(ch.product, ch.quotient):  # else they are the answer's own, in part
        other = (
            f"; without as many directions that the answer does not use, to {number(losses.excluded_quotient_loss(s))}"
        )
    found.append(
        f"With these alone, the loss over all pairs is {number(kept)} (with everything: "
        f"{number(full['all'])}). Without them, that over the training pairs goes from {number(full['train'])} to "
        f"{number(cut)}{other}. A uniform guess has {number(uniform)}."
    )
    return " ".join(found)


def _history(run: Run) -> str:
    found = run.phases
    if found is None or not (found.circuit_formation or found.clean_up):
        return ""
    told = []
    if found.memorising:
        told.append(f"it memorised until step {found.memorising[1]:,}")
    if found.circuit_formation:
        done = found.circuit_formation[1]
        told.append(f"it built this circuit, of which the test loss hardly tells, until step {done:,}")
    if found.clean_up:
        begun, done = found.clean_up
        told.append(f"it cleaned up until step {done:,}" if done else f"it has been cleaning up since step {begun:,}")
    return f"By the rule of docs/grokking.md, {'; '.join(told)}."


def _pizza_or_clock(s: Subject) -> tuple[str, Panel]:
    """By the two numbers of Zhong et al., each beside the untrained network, which may score as high."""
    twin = s.twin
    names = ("gradient_symmetricity", "distance_irrelevance")
    found = [measure(name, s, twin) for name in names]
    symmetry, irrelevance = (m["value"] for m in found)
    series = {"this run": [m["value"] for m in found], "its untrained twin": [m["control"] for m in found], **ZHONG}
    pizza = symmetry > BETWEEN[0], irrelevance < BETWEEN[1]
    if pizza == (True, True):
        verdict = "Both numbers lie on the side of the pizza"
    elif pizza == (False, False):
        verdict = "Both numbers lie on the side of the clock"
    else:
        verdict = "The two numbers disagree: neither name fits"
    near = [name for name, m in zip(names, found, strict=True) if abs(m["value"] - m["control"]) < APART]
    same = " and ".join(name.replace("_", " ") for name in near)
    note = f" Untrained, {same} reads the same: it proves nothing here." if near else ""
    text = (
        f"Pizza or clock? {verdict}. Gradient symmetricity is {symmetry:.2f} (untrained {found[0]['control']:.2f}; "
        f"clock .33, pizza .99), distance irrelevance {irrelevance:.2f} (untrained {found[1]['control']:.2f}; clock "
        f".85, pizza .17).{note} Whether the two are kinds, or ends of one scale, is disputed."
    )
    caption = (
        "Does the network multiply waves (clock), or add them and take the size (pizza)? Symmetricity of the gradient "
        "in the two operands, and how little the right logit hangs on their distance, beside the untrained network and "
        "the published pair."
    )
    return text, Panel(circuit.beside([name.replace("_", " ") for name in names], series), caption)


# ---------------------------------------------------------------------------------------------------- over training


def _progress(run: Run, spans: list[Span]) -> list[Panel]:
    curve = run.curve
    if curve is None or len(curve["step"]) < 3:
        return []
    series = {name: curve[f"{word}_loss"] for name, word in (
        ("restricted, all pairs", "restricted"), ("excluded, training pairs", "excluded"), ("train", "train"),
        ("test", "test"))}  # fmt: skip
    during = len(run.probed("excluded_loss")[0]) >= 3
    when, whose = ("As measured during training", "the moment's") if during else (
        "At each checkpoint", "the last checkpoint's")  # fmt: skip
    caption = (
        f"{when}: the loss with {whose} key frequencies alone (restricted), without them (excluded), and of the whole "
        f"network. {shading(spans)}"
    )
    return [Panel(learning.loss(curve["step"], series, spans), caption)]


def _by_frequency(run: Run, s: Subject, spans: list[Span]) -> list[Panel]:
    """What taking one frequency away costs, over training."""
    steps, values = run.probed("excluded_by_frequency")
    keys, table = progress.by_key(values)
    strongest = sorted((k for k in s.key_frequencies if str(k) in keys), key=lambda k: -s.logit_shares[k])[:7]
    if len(steps) < 3 or not strongest:
        return []
    series = {f"without {s.characters.name(k)}": table[:, keys.index(str(k))] for k in strongest}
    caption = (
        "The training loss without one frequency, from when it was key: the more it rises, the more the network leans "
        "on that wave."
    )
    return [Panel(learning.loss(steps, series, spans), caption)]


def _called(s: Subject) -> str:
    """Which representation each number on an axis is, for a group; nothing where frequencies are numbers."""
    names = s.characters.names
    return "" if names is None else f" Representations: {listed([f'{k} is {n}' for k, n in enumerate(names) if k])}."


def _spectrum(run: Run, s: Subject, spans: list[Span]) -> list[Panel]:
    steps, values = run.probed("logit_spectrum")
    if np.sum(steps > 0) < 2:
        return []
    keys, table = progress.by_key(values)
    figure = spectrum.over_time(table, steps, list(map(int, keys)), "share of the logits", spans)
    caption = (
        "How the logits come to speak in a few waves: the share of their energy at each frequency over the result. "
        f"From {percent(KEY_SHARE)} on, a frequency is key.{_called(s)}"
    )
    return [Panel(figure, caption)]


# ---------------------------------------------------------------------------------------------------- at the end


def _neurons(s: Subject) -> list[Panel]:
    counts = spectra.neurons_by_frequency(s)
    figure = circuit.neurons(counts, s.characters.frequencies[-1])
    caption = "How many neurons have more than 85\u00a0% of their variance over all pairs at a frequency, for each."
    caption += _called(s)
    return [Panel(figure, caption)] if counts else []


def _circles(s: Subject) -> list[Panel]:
    """The embedding in the plane of each of the strongest key frequencies that have one."""
    ch, panels = s.characters, []
    if ch.names is not None:  # a representation is no circle
        return []
    W, n = s.params.embed.W_E[s.characters.a], len(s.characters.a)
    share = spectra.embedding_spectrum(s)
    for k in sorted(s.key_frequencies, key=lambda k: -share[k])[:CIRCLES]:
        rows = ch.rows([k])
        if len(rows) < 2:  # a Walsh function
            continue
        directions = rows @ W
        points = W @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T
        caption = (
            f"Frequency {k}: the embedding of each number along its cosine and its sine. A line joins numbers whose "
            f"phases are neighbours; {percent(share[k])} of Σ W² is here."
        )
        panels.append(Panel(circuit.circle(points, ch.a, k * np.arange(n) % n), caption, wide=False))
    return panels


def _logit(s: Subject) -> list[Panel]:
    ch = s.characters
    n = len(ch.a)
    if ch.names is not None:
        return _logit_by_class(s)
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


def _logit_by_class(s: Subject) -> list[Panel]:
    """Of a group: characters are the same on conjugates, so the logit may hang on the class of (ab)⁻¹c alone."""
    ch = s.characters
    if not s.key_frequencies:
        return []
    inverse, of_class = representations.inverses(ch.product), representations.classes(ch.product)
    away = of_class[ch.product[inverse[ch.product]]]  # [n n C]: of (a∘b)⁻¹c
    kinds = np.unique(of_class)
    whole, made = centred(s.logits), losses.cosines(s)
    spoken, fitted, left = (
        np.array([x[away == kind].mean() for kind in kinds]) for x in (whole, made, (whole - made) ** 2)
    )
    names = [s.task.vocabulary[kind] for kind in kinds]
    caption = (
        "The logit of the answer c by how it lies to the right one: the class of conjugate elements in which (ab)⁻¹c "
        "is, named by one of them, the right answer's first; what the characters of the key representations make of "
        "it; and how far single logits are from that."
    )
    return [Panel(circuit.by_class(names, spoken, fitted, np.sqrt(left)), caption)]
