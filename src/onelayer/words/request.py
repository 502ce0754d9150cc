"""What is asked of a decoder, as a person asks it: loose settings become a method, a file becomes texts.

Method    a beam of 5 with a length penalty of 0.6, unless something else is asked for; a language model, of which the
          likeliest text is a dull one, is sampled.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..decoding.decode import Beam, Greedy, How, Sample
from ..errors import BadInput
from ..tasks import files

__all__ = ["method", "read", "spoken"]

WIDTH, PENALTY = 5, 0.6


def method(
    language: bool,
    beam: int | None = None,
    length_penalty: float | None = None,
    n_best: int = 1,
    sample: bool = False,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> How:
    """The method that these settings mean; None: not given. BadInput where they contradict each other."""
    drawing = {"temperature": temperature, "top-k": top_k, "top-p": top_p}
    given = [f"--{name}" for name, value in drawing.items() if value is not None]
    searching = {"beam": beam, "length-penalty": length_penalty}
    sought = [f"--{name}" for name, value in searching.items() if value is not None]
    if sample and sought:
        raise BadInput(f"{sought[0]} searches for the likeliest answer and --sample draws one: give one of them")
    if sample or (language and not sought):
        return Sample(1.0 if temperature is None else temperature, top_k, top_p, seed, n_best)
    if given:
        raise BadInput(f"{given[0]} shapes what is drawn: give --sample as well, or leave it out")
    width = max(WIDTH, n_best) if beam is None else beam
    if width == 1 and n_best == 1 and length_penalty is None:
        return Greedy()
    return Beam(width, PENALTY if length_penalty is None else length_penalty, n_best)


def read(path: str) -> list[str]:
    """The lines of a file of texts, each to be answered; `-` is standard input."""
    if path == "-":
        data = sys.stdin.buffer.read()
        try:
            text = data.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise BadInput(f"line {line} of standard input is not UTF-8; convert it, by iconv -t utf-8") from None
        lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    else:
        lines, _ = files.read_lines(path, "file")
    return spoken(lines, "standard input" if path == "-" else path)


def spoken(texts: Sequence[str], where: str | Path | None = None) -> list[str]:
    """The texts; BadInput where there is none, or one says nothing. where: the file that they are the lines of."""
    if not texts:
        raise BadInput(f"{where or 'the list of texts'} is empty: there is nothing to decode")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            name = f"text {number}" if where is None else f"line {number} of {where}"
            raise BadInput(f"{name} is empty, and nothing can be said to nothing: take it out, or fill it in")
    return list(texts)
