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
    asking = "the last position looks" if run.task.read == 1 else "each position that is read looks"
    return Section(
        "Attention",
        f"Where {asking}{where}, after training: of each head, shares of 1 over the tokens.",
        (*_over_operands(run), *(_questions(run) if run.operands else _one_question(run))),
    )


def _patterns(run: Run, tokens: np.ndarray) -> np.ndarray:
    """[question, head, token that is read, token]: where those that are read look in the last layer."""
    pattern = run.values(tokens, f"blocks.{run.model.n_layers - 1}.attn.hook_pattern")
    return pattern[:, :, -run.task.read :].astype(np.float32)


def _over_operands(run: Run) -> list[Panel]:
    """What each head gives to the first operand, over all pairs (a, b), and its mean over b."""
    if run.operands != 2:
        return []
    p = run.task.facts["p"]
    shown = np.arange(0, p, -(-p // MOST))  # every number, or every second, third, … where there are many
    a, b = (numbers.ravel() for numbers in np.meshgrid(shown, shown, indexing="ij"))
    equals = np.full_like(a, run.task.train.tokens[0, -1])
    pattern = _patterns(run, np.stack([a, b, equals], axis=1))
    on_a = pattern[:, :, 0, 0].T.reshape(-1, shown.size, shown.size)  # [head, a, b]
    told = "Head {}: the share of attention from = on the first operand."
    maps = [
        Panel(attention.over_pairs(shares, shown), told.format(head), wide=False) for head, shares in enumerate(on_a)
    ]
    profile = attention.profile(on_a.mean(axis=2), shown)
    return [*maps, Panel(profile, "The share on the first operand as a function of it alone, the mean over all b.")]


def _questions(run: Run) -> list[Panel]:
    """Some short questions, one a row."""
    every, names = run.task.test.tokens, run.task.vocabulary
    tokens = every[:: -(-len(every) // SAMPLES)]
    columns = [*"abc"[: run.operands], "="]
    labels = [" ".join(names[i] for i in row) for row in tokens]
    figure = attention.of_questions(_patterns(run, tokens)[:, :, 0], labels, columns)
    return [Panel(figure, f"{len(tokens)} questions of the test set: what each head gives to each of their tokens.")]


def _one_question(run: Run) -> list[Panel]:
    """A longer one, head by head."""
    tokens = run.task.test.tokens[:1]
    labels = [run.task.vocabulary[i] for i in tokens[0]]
    return [
        Panel(
            attention.pattern(shares, labels[-run.task.read :], labels),
            f"Head {head}, on the first question of the test set.",
            wide=False,
        )
        for head, shares in enumerate(_patterns(run, tokens)[0])
    ]
