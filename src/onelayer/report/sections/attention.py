"""Where the last position, the `=` of a question, looks: per head, over all questions and for some of them."""

import numpy as np

from onelayer.report.figures import plots
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section

SAMPLES = 12  # questions shown one by one
MOST = 128  # numbers along either side of a map


def applies(run: Run) -> bool:
    return run.model.architecture == "decoder_only"


def build(run: Run) -> Section:
    last = run.model.n_layers - 1
    panels = [*_over_operands(run, last), _samples(run, last)]
    where = "" if last == 0 else f" in the last of {run.model.n_layers} layers"
    return Section(
        "Attention",
        f"Where the last position looks{where}, after training: of each head, shares of 1 over the tokens.",
        tuple(panels),
    )


def _patterns(run: Run, layer: int, tokens: np.ndarray) -> np.ndarray:
    """[questions, heads, tokens]: where the last position looks."""
    return run.values(tokens, f"blocks.{layer}.attn.hook_pattern")[:, :, -1]


def _over_operands(run: Run, layer: int) -> list[Panel]:
    """What each head gives to the first operand, over all pairs (a, b), and its mean over b."""
    if run.operands != 2:
        return []
    p = run.task.facts["p"]
    shown = np.arange(0, p, -(-p // MOST))  # every number, or every second, third, … where there are many
    a, b = (numbers.ravel() for numbers in np.meshgrid(shown, shown, indexing="ij"))
    equals = np.full_like(a, run.task.train.tokens[0, -1])
    pattern = _patterns(run, layer, np.stack([a, b, equals], axis=1))
    on_a = pattern[:, :, 0].reshape(shown.size, shown.size, -1).astype(np.float32)
    heads = range(on_a.shape[2])
    maps = [
        Panel(
            plots.heat_map(
                on_a[:, :, head], x=shown, y=shown, x_title="second operand b", y_title="first operand a", value="on a",
                limits=(0.0, 1.0),
            ),
            f"Head {head}: the share of attention from = on the first operand.",
            wide=False,
        )
        for head in heads
    ]  # fmt: skip
    profile = plots.lines(
        shown, {f"head {head}": on_a[:, :, head].mean(axis=1) for head in heads},
        x_title="first operand a", y_title="share on a, mean over b",
    )  # fmt: skip
    profile.update_yaxes(range=[-0.03, 1.03])
    return [*maps, Panel(profile, "The share on the first operand as a function of it alone, the mean over all b.")]


def _samples(run: Run, layer: int) -> Panel:
    every = run.task.test.tokens
    tokens = every[:: -(-len(every) // SAMPLES)]
    pattern = _patterns(run, layer, tokens)  # [questions, heads, tokens]
    n, heads, width = pattern.shape
    names = run.task.vocabulary
    columns = [*"abc"[: run.operands], "="] if run.operands else [str(i) for i in range(width)]
    figure = plots.heat_map(
        pattern.reshape(n, heads * width).astype(np.float32),
        x_title="head · token", y_title="unseen question", value="share", limits=(0.0, 1.0), downward=True,
        x_labels=[f"{head}·{column}" for head in range(heads) for column in columns],
        y_labels=[" ".join(names[i] for i in row) for row in tokens],
    )  # fmt: skip
    return Panel(figure, f"{n} questions of the test set, one a row: what each head gives to each of their tokens.")
