"""What the model says: answers to some examples it was not trained on, or how it goes on with a text."""

import textwrap

import numpy as np

from onelayer.decoding.decode import Greedy, Sample, decode
from onelayer.report.run import Run
from onelayer.report.section import Section

SHOWN = 16  # examples
PROMPT, LENGTH = 32, 300  # tokens that a language model gets, and how many it writes
TEMPERATURE, SAMPLES = 0.8, 2
WIDTH = 100  # characters of a line


def applies(run: Run) -> bool:
    return run.task.text is not None


def build(run: Run) -> Section:
    return _answers(run) if run.reads else _samples(run)


def _answers(run: Run) -> Section:
    text, batch = run.task.text, run.split("test")
    assert text is not None and batch.source is not None and batch.source_mask is not None
    pairs = text.pairs["test"]
    chosen = np.unique(np.linspace(0, len(pairs) - 1, SHOWN).astype(int))
    sources = [batch.source[i][batch.source_mask[i]].tolist() for i in chosen]
    said = [text.target.decode(one.tokens) for [one] in decode(run.params, run.model, sources, Greedy())]
    right, lines = 0, []
    for i, answer in zip(chosen, said, strict=True):
        pair = pairs[i]
        hit = answer in pair.references
        right += hit
        lines += [f"{pair.source}\n  {'=' if hit else '≠'} {answer}"]
        lines += [] if hit else [f"  wanted: {' | '.join(pair.references)}"]
    return Section(
        "What it says",
        f"{len(chosen)} examples of the {len(pairs):,} of the test split, evenly spread over it, decoded greedily: "
        f"{right} of these are exactly right. “=” stands before a right answer, “≠” before a wrong one. "
        f"Others: onelayer decode {run.directory.path}.",
        listings={"Read, and said": "\n".join(lines)},
    )


def _samples(run: Run) -> Section:
    text = run.task.text
    assert text is not None
    prompt = run.task.test.tokens[0][:PROMPT].tolist()
    names = ["Always the likeliest token"]
    names += [f"Drawn at temperature {TEMPERATURE}, seed 0, number {i + 1}" for i in range(SAMPLES)]
    said = [
        one
        for how in (Greedy(), Sample(TEMPERATURE, n=SAMPLES))
        for one in decode(run.params, run.model, [prompt], how, LENGTH)[0]
    ]
    begun = text.target.decode(prompt)
    return Section(
        "What it says",
        f"How it goes on with the beginning of the test text, {len(prompt)} tokens of it, for {LENGTH} more. The "
        "beginning is in front, up to the bar.",
        listings={
            name: _wrapped(f"{begun}|{text.target.decode(one.tokens)}") for name, one in zip(names, said, strict=True)
        },
    )


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.fill(line, WIDTH, drop_whitespace=False) for line in text.split("\n"))
