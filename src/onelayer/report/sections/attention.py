"""Where heads look, asked a question or reading words.

Of a question, the last position, its `=`: per head, over all questions and for some of them. Of words, every token in
every head of every layer: encoder, decoder and the look across, on two sentences, or a language model on a line.
"""

from collections.abc import Sequence

import numpy as np

from onelayer.arrays import Array
from onelayer.report.figures import attention
from onelayer.report.run import Run
from onelayer.report.section import Gallery, Matrix, Panel, Section
from onelayer.report.walk import scene
from onelayer.tasks import Batch

SAMPLES = 12  # questions shown one by one
MOST = 128  # numbers along either side of a map


LONG = 40  # tokens of a long sentence, or of a line


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    if run.reads:
        return _crossing(run)
    if run.task.text is not None:
        return _line(run)
    layers = run.model.n_layers
    where = "" if layers == 1 else f" in the last of {layers} layers"
    asking = "the last position looks" if run.task.read == 1 else "each position that is read looks"
    return Section(
        "Attention",
        f"Where {asking}{where}, after training: of each head, shares of 1 over the tokens.",
        (*_over_operands(run), *(_questions(run) if run.operands else _one_question(run))),
    )


# ---------------------------------------------------------------------------------------------------- words


def _crossing(run: Run) -> Section:
    """An encoder-decoder, on the example of the walk and on a long one."""
    seen = scene.choose(run)
    galleries = _galleries(run, run.split(seen.split), seen.number, "the example of the walk")
    longer = _long(run.split(seen.split))
    if longer is not None:
        galleries += _galleries(run, run.split(seen.split), longer, "a long one")
    return Section("Attention", _TOLD, galleries=tuple(galleries))


_TOLD = (
    "Every head of every layer: a row for each token that asks, a column for each that is asked; a row's shares sum to "
    "1. Choose a head; point at a cell for its number."
)
_KINDS = {
    "Encoder": "encoder.blocks.*.attn.hook_pattern",
    "Decoder, looking back": "decoder.blocks.*.attn.hook_pattern",
    "Decoder, looking across": "decoder.blocks.*.cross_attn.hook_pattern",
}


def _galleries(run: Run, batch: Batch, number: int, name: str) -> list[Gallery]:
    one = scene.cropped(batch, number)
    assert one.source is not None
    source = [scene.shown(run.source_vocabulary[i]) for i in one.source[0]]
    read = [scene.shown(run.task.vocabulary[i]) for i in one.tokens[0]]
    sides = dict(zip(_KINDS, ((source, source), (read, read), (read, source)), strict=True))
    told = f"{name}, {len(source)} tokens read and {len(read)} said"
    return [_gallery(f"{kind} ({told})", run.values(one, pattern), *sides[kind]) for kind, pattern in _KINDS.items()]


def _gallery(caption: str, patterns: dict[str, Array], rows: Sequence[str], columns: Sequence[str]) -> Gallery:
    """All heads [1 H T S] of all layers."""
    several = len(patterns) > 1
    found = {}
    for name, pattern in patterns.items():
        layer = name.partition("blocks.")[2].partition(".")[0]
        for head, shares in enumerate(pattern[0]):
            words = f"layer {layer}, head {head}" if several else f"head {head}"
            found[words] = Matrix("share", shares, "ts", rows, columns, amounts=True)
    return Gallery(caption, found)


def _long(batch: Batch) -> int | None:
    """The longest example that is still legible, where it is longer than what one reads at a glance."""
    most = np.maximum(*scene.lengths(batch))
    legible = np.where(most <= LONG, most, 0)
    number = int(np.argmax(legible))
    return number if legible[number] > scene.READABLE[1] else None


def _line(run: Run) -> Section:
    """A language model, on a line of the text that it was not trained on."""
    text = run.task.text
    assert text is not None
    stream = run.task.test.tokens.ravel()
    ends = np.flatnonzero(np.isin(stream, [i for i, word in enumerate(run.task.vocabulary) if word == "\n"]))
    starts = [0, *(ends + 1)]
    within = min(LONG, run.model.n_ctx)
    line = next(
        (stream[a:b] for a, b in zip(starts, [*ends, len(stream)], strict=True) if within // 2 <= b - a <= within),
        stream[:within],
    )
    tokens = line[None]
    words = [scene.shown(run.task.vocabulary[i]) for i in line]
    patterns = run.values(Batch(tokens, tokens), "*.hook_pattern")
    return Section("Attention", _TOLD, galleries=(_gallery("A line of the test text.", patterns, words, words),))


# ---------------------------------------------------------------------------------------------------- questions


def _patterns(run: Run, tokens: np.ndarray) -> np.ndarray:
    """[question, head, token that is read, token]: where those that are read look in the last layer."""
    name = f"blocks.{run.model.n_layers - 1}.attn.hook_pattern"
    pattern = run.values(Batch(tokens, tokens[:, -run.task.read :]), name)[name]
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
