"""Where the last position, the `=` of a question, looks: per head, over all questions and for some of them."""

import numpy as np

from onelayer.report.figures import attention
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section

SAMPLES = 12  # questions shown one by one
MOST = 128  # numbers along either side of a map


def applies(run: Run) -> bool:
    return run.model.architecture == "decoder_only"


def build(run: Run) -> Section:
    layers = run.model.n_layers
    where = "" if layers == 1 else f" in the last of {layers} layers"
    return Section(
        "Attention",
        f"Where the last position looks{where}, after training: of each head, shares of 1 over the tokens.",
        (*_over_operands(run), _samples(run)),
    )


def _patterns(run: Run, tokens: np.ndarray) -> np.ndarray:
    """[question, head, token]: where the last position looks in the last layer."""
    pattern = run.values(tokens, f"blocks.{run.model.n_layers - 1}.attn.hook_pattern")
    return pattern[:, :, -1].astype(np.float32)


def _over_operands(run: Run) -> list[Panel]:
    """What each head gives to the first operand, over all pairs (a, b), and its mean over b."""
    if run.operands != 2:
        return []
    p = run.task.facts["p"]
    shown = np.arange(0, p, -(-p // MOST))  # every number, or every second, third, … where there are many
    a, b = (numbers.ravel() for numbers in np.meshgrid(shown, shown, indexing="ij"))
    equals = np.full_like(a, run.task.train.tokens[0, -1])
    pattern = _patterns(run, np.stack([a, b, equals], axis=1))
    on_a = pattern[:, :, 0].T.reshape(-1, shown.size, shown.size)  # [head, a, b]
    maps = [
        Panel(
            attention.over_pairs(shares, shown),
            f"Head {head}: the share of attention from = on the first operand.",
            wide=False,
        )
        for head, shares in enumerate(on_a)
    ]
    profile = attention.profile(on_a.mean(axis=2), shown)
    return [*maps, Panel(profile, "The share on the first operand as a function of it alone, the mean over all b.")]


def _samples(run: Run) -> Panel:
    every, names = run.task.test.tokens, run.task.vocabulary
    tokens = every[:: -(-len(every) // SAMPLES)]
    columns = [*"abc"[: run.operands], "="] if run.operands else [str(i) for i in range(tokens.shape[1])]
    figure = attention.of_questions(
        _patterns(run, tokens), [" ".join(names[i] for i in row) for row in tokens], columns
    )
    return Panel(figure, f"{len(tokens)} questions of the test set: what each head gives to each of their tokens.")
