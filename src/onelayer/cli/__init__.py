"""The command line: parse, call, print. No logic: whatever a command does is a function away in Python.

Adding a command is a file and a line: `cli/grok.py` with a function `grok`, and "grok" below. The file is imported when
its command is asked for, so that `onelayer --help` needs none of them.

A command function takes keyword-only options (a name that cannot be left out may be positional), has a docstring whose
example stands on a line of its own that starts with `$ onelayer`, offers `as_json: Json = False`, raises for whatever
goes wrong, and ends by `answer(...)`; `Json` and `answer` are in `cli/_common.py`.

Exit    0 done    1 the work failed (diverged, a check fell short, a disk is full)    2 bad input    130 interrupted
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from cyclopts import App, CycloptsError
from pydantic import ValidationError

from ..errors import BadInput, WorkFailed, unknown

__all__ = ["COMMANDS", "build", "main", "run"]

COMMANDS: dict[str, str] = {  # name: what `onelayer --help` says of it
    "grok": "Train a one-layer Transformer on modular arithmetic, and watch it memorise, then understand.",
    "train": "Train on any task; every field of the config is an option.",
    "decode": "Words in, words out: let a run of words answer, by beam, greedily, or drawn.",
    "resume": "Go on with a run, bit for bit as if it had never stopped.",
    "runs": "List the runs there are, show one, compare some.",
    "trace": "Every value and every gradient of one forward and backward, by name.",
    "explain": "Take one number of a run apart: a tree whose children sum to their parent.",
    "provenance": "Where a weight's gradient comes from: loss token, head, source, class, route.",
    "examples": "The gradient example by example: how large, how noisy, and who pulls hardest.",
    "ledger": "Why did this weight move? w_T = w_0 + decay + Σ groups, over the whole run.",
    "curvature": "What the loss looks like around the weights: eigenvalues, trace, sharpness.",
    "replay": "Run the backward again with routes cut: what changes in each gradient.",
    "microscope": "Write the page that takes a run's gradients apart, cell by cell, at every checkpoint.",
    "analyse": "What a run learnt: Fourier measures, restricted and excluded loss, phases, each with its control.",
    "ablate": "Cut frequencies out of a network, or keep them alone: what does it still answer?",
    "rescale": "Scale weights and logits apart: does the loss hang on the norm, or on the logits' scale?",
    "branch": "Go on from a checkpoint with something changed, frozen, or transplanted, in a new run.",
    "gradcheck": "Check every hand-derived gradient against the complex-step derivative.",
    "positions": "List every positional encoding, show one in pictures, or all on one page.",
    "bench": "Measure the training step against PyTorch and naive JAX, on this machine.",
    "report": "Write the page of a run: one HTML file that opens without a network.",
    "export": "Write a run's weights for PyTorch, TransformerLens, Hugging Face's GPT-2, or as safetensors.",
    "import": "Take in weights of those: the same logits here, or a refusal that says why not.",
}
LOOKING = ("trace", "explain", "provenance", "examples", "ledger", "curvature", "replay", "microscope")
CHANGING = ("ablate", "rescale", "branch")


def build(asked: str = "") -> App:
    """The parser. The command that is asked for is imported, the others are lines of help."""
    app = App(
        name="onelayer",
        help="One Transformer layer, every gradient by hand. `onelayer COMMAND --help` shows options and an example.",
        help_format="markdown",
        version=_version,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, line in COMMANDS.items():
        module = f"onelayer.cli.{name}"
        group = "Look inside a run" if name in LOOKING else "Intervene in a run" if name in CHANGING else None
        if name == asked:
            app.command(getattr(import_module(module), name), name=name, group=group)
        else:
            app.command(f"{module}:{name}", name=name, help=line, group=group)
    return app


def run(tokens: Sequence[str] | None = None) -> int:
    """Run one command and answer its exit code; what went wrong is said on standard error."""
    tokens = sys.argv[1:] if tokens is None else tokens
    try:
        if tokens and not tokens[0].startswith("-") and tokens[0] not in COMMANDS:
            raise unknown("command", tokens[0], COMMANDS)  # all of them: the parser's own list stops after eight
        build(*tokens[:1])(tokens, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except KeyboardInterrupt as stop:  # a command that has something to say of it (how to resume) raises its own
        return _say(stop if stop.args else "interrupted", 130)
    except (BadInput, CycloptsError, ValidationError) as error:
        return _say(_in_words(error), 2)
    except WorkFailed as error:
        return _say(error, 1)
    except OSError as error:
        _silence_stdout()
        return 0 if isinstance(error, BrokenPipeError) else _say(error, 1)  # `onelayer runs | head` has what it wanted
    return 0


def main() -> None:
    sys.exit(run())


def _say(what: object, code: int) -> int:
    print(f"onelayer: {what}", file=sys.stderr)
    return code


def _in_words(error: Exception) -> str:
    """A config that pydantic refused, field by field; any other error speaks for itself."""
    cause = error.__cause__ if isinstance(error.__cause__, ValidationError) else error
    if not isinstance(cause, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, received {e['input']!r}" for e in cause.errors())


def _silence_stdout() -> None:
    """A standard output that broke is not flushed again at exit, which would fail once more, without words."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _version() -> str:
    return version("onelayer")
