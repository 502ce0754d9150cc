"""The norm of the weights over training, of all and of each part, and how large they make the logits."""

import numpy as np

from onelayer.grokking import progress
from onelayer.report.figures import learning
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section
from onelayer.report.wording import phases

PARTS = {"embedding": "embed.", "attention": ".attn.", "feed-forward": ".mlp.", "unembedding": "unembed."}


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    norm = run.measured("weight_norm")["weight_norm"]
    figure = learning.weight_norm(run.steps, {"all weights": norm}, phases(run))
    return Section(
        "Weight norm",
        f"The Euclidean norm of all weights together went from {norm[0]:.4g} at step {run.steps[0]:,.0f} "
        f"to {norm[-1]:.4g} at step {run.steps[-1]:,.0f}; its largest value was {norm.max():.4g}.",
        (Panel(figure, "The norm of all weights, √Σ w², at each evaluation."), *_parts(run), *_logits(run)),
    )


def _parts(run: Run) -> list[Panel]:
    steps, values = run.probed("weight_norms")
    if len(steps) < 3:
        return []
    names, table = progress.by_key(values)
    series = {}
    for part, within in PARTS.items():
        mine = [
            i for i, name in enumerate(names) if within in f".{name}" and (part == "unembedding") == ("unembed" in name)
        ]
        if mine:
            series[part] = np.sqrt(np.sum(table[:, mine] ** 2, axis=1))
    return [Panel(learning.weight_norm(steps, series, phases(run)), "The same of each part of the network.")]


def _logits(run: Run) -> list[Panel]:
    found = {}
    for told, name in (("root mean square logit", "logit_scale"), ("margin of the right answer", "margin")):
        steps, values = run.probed(name)
        if len(steps) > 2:
            found[told] = (steps, np.array(values))
    if len(found) < 2:
        return []
    steps = next(iter(found.values()))[0]
    series = {name: values for name, (at, values) in found.items() if np.array_equal(at, steps)}
    caption = (
        "How loud the network speaks, over all pairs: the size of its logits, each pair's mean taken off, and by how "
        "much the right one beats the best other."
    )
    return [Panel(learning.size(steps, series, "logit", phases(run)), caption)]
