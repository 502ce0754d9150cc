"""onelayer decode: words in, words out."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import BadInput
from ._common import Json, answer
from ._looks import place_for

if TYPE_CHECKING:
    from ..words.reply import Reply

LONGEST = 200  # units that a language model goes on for


def decode(
    run: Path,
    /,
    *words: Annotated[str, Parameter(name="WORDS", help="Texts, each in quotes; on a terminal they may be typed in.")],
    file: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="A file of texts, one a line; - is standard input.")
    ] = None,
    beam: Annotated[int | None, Parameter(help="Beginnings carried side by side; 5 by default, 1 is greedy.")] = None,
    length_penalty: Annotated[
        float | None, Parameter(help="α: answers of n units are ranked by log P / ((5 + n)/6)^α; 0.6 by default.")
    ] = None,
    n_best: Annotated[int, Parameter(help="How many answers to each text.")] = 1,
    sample: Annotated[bool, Parameter(negative="", help="Draw answers, as a language model's are anyway.")] = False,
    temperature: Annotated[float | None, Parameter(help="Of what is drawn: below 1 sharper, above 1 flatter.")] = None,
    top_k: Annotated[int | None, Parameter(help="Draw among the k likeliest units.")] = None,
    top_p: Annotated[float | None, Parameter(help="Draw among the fewest likeliest that hold this share.")] = None,
    seed: Annotated[int, Parameter(help="Of what is drawn.")] = 0,
    max_length: Annotated[
        int | None,
        Parameter(help="Units of an answer, at most: by default as in training; 200 of a language model."),
    ] = None,
    weights: Annotated[
        str,
        Parameter(
            help="chosen (those that the run's own figures are of), best (by validation), average (of the last "
            "checkpoints), last, or a saved step."
        ),
    ] = "chosen",
    attention: Annotated[
        Path | None, Parameter(help="Write where each head looked: a page (.html), or the numbers (.json).")
    ] = None,
    references: Annotated[
        str | None, Parameter(help="A file with the right answers to --file, line by line; several have tabs between.")
    ] = None,
    lowercase: Annotated[bool, Parameter(negative="", help="With --references: BLEU, chrF of small letters.")] = False,
    strict: Annotated[bool, Parameter(negative="", help="Refuse symbols that training did not show.")] = False,
    as_json: Json = False,
) -> None:
    """Let a run of words answer: translate, spell out, calculate; or, of a language model, go on with a text.

    $ onelayer decode runs/reverse-0-20261127-164500 "3 41 7" --beam 5 --n-best 3

    One answer a line; with --n-best above 1 the score stands before it, and a blank line after each text's. A symbol
    that training never showed is read as the unknown one, and named on standard error.

    Parameters
    ----------
    run
        The run's directory; `onelayer runs` lists them.
    """
    from ..tasks.files import read_lines
    from ..training.opened import open_text
    from ..words import alignment, reply, request
    from ..words.scores import in_words

    if words and file is not None:
        raise BadInput("texts were given, and --file as well; give one of them")
    asks = not words and file is None
    if asks and (as_json or attention or not sys.stdin.isatty()):
        raise BadInput('there is nothing to decode: give a text, such as "3 41 7", or --file in.txt (- to read a pipe)')
    if references is not None and file is None:
        raise BadInput("--references has a line for each line of --file; give both")
    if attention is not None and attention.suffix not in (".html", ".json"):
        raise BadInput(f"--attention writes a page (.html) or numbers (.json); received {attention}")
    place_for(attention)
    opened = open_text(run, int(weights) if weights.isdecimal() else weights)
    how = request.method(opened.source is None, beam, length_penalty, n_best, sample, temperature, top_k, top_p, seed)
    limit = LONGEST if opened.source is None and max_length is None else max_length
    if asks:
        print(f"{in_words(how)}; an empty line ends.", file=sys.stderr)
        while line := _typed():
            _print(replies := reply.reply(opened, [line], how, limit, strict), reply.warnings(opened, replies))
        return
    texts = request.spoken(words) if file is None else request.read(file)
    right = None if references is None else read_lines(references, "references")[0]
    begun = time.monotonic()
    replies = reply.reply(opened, texts, how, limit, strict, _counter(len(texts)))
    seconds = time.monotonic() - begun
    facts: dict[str, Any] = {
        "run": run,
        "weights": opened.weights if weights == "chosen" else weights,
        "step": opened.step,
        "method": in_words(how),
        "answers": [r.as_dict() for r in replies],
        "warnings": reply.warnings(opened, replies),
        "seconds": round(seconds, 3),
        "tokens": sum(len(a.tokens) for r in replies for a in r.answers),
    }
    if right is not None:
        facts["metrics"] = reply.judged(opened, replies, right, opened.metrics, lowercase)
    if attention is not None:
        from ..report.alignment import write_alignments

        found = [alignment.align(opened, r.source, r.answers[0]) for r in replies]
        facts["attention"] = write_alignments(attention, found, str(run))
    _print([] if as_json else replies, facts["warnings"])
    for name, value in facts.get("metrics", {}).items():
        print(f"{name}  {value if isinstance(value, str) else format(value, '.4g')}", file=sys.stderr)
    if as_json:
        answer(facts, as_json=True)


def _print(replies: "list[Reply]", warnings: list[str]) -> None:
    """The answers on standard output; what is to be known of them on standard error."""
    for line in warnings:
        print(f"onelayer: {line}", file=sys.stderr)
    for r in replies:
        if len(r.answers) == 1:
            print(r.answers[0].text)
        else:
            print("\n".join(f"{a.score:.4f}\t{a.text}" for a in r.answers), end="\n\n")
    sys.stdout.flush()


def _typed() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _counter(n: int) -> Any:
    """Progress on a terminal, where there is enough to wait for."""
    if n < 100 or not sys.stderr.isatty():
        return None
    return lambda done: print(f"\r{done} of {n}", end="" if done < n else "\n", file=sys.stderr, flush=True)
