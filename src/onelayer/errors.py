"""What went wrong, in words: one exception for every input that is refused.

A message says what was wrong, what was received, what is allowed, and how to mend it. The command line prints it and
exits with 2; in Python it is an ordinary ValueError.
"""

from collections.abc import Iterable
from difflib import SequenceMatcher

__all__ = ["BadInput", "WorkFailed", "nearest", "unknown"]


class BadInput(ValueError):
    """An input that cannot be used: a setting, a name, a file."""


def nearest(received: object, allowed: Iterable[object]) -> list[str]:
    """The allowed words, most similar to what was received first; ties keep their order."""
    word = str(received).lower()
    return sorted(map(str, allowed), key=lambda name: -SequenceMatcher(None, word, name.lower()).ratio())


def unknown(kind: str, received: object, allowed: Iterable[object]) -> BadInput:
    """`raise unknown("optimizer", "adamv", OPTIMIZERS)`: the right names are listed, nearest first."""
    names = nearest(received, allowed)
    hint = f"; did you mean {names[0]!r}?" if names else ""
    return BadInput(f"unknown {kind} {received!r}{hint} Allowed: {', '.join(names) or 'none'}")


class WorkFailed(RuntimeError):
    """The input was good and the work did not succeed: a run diverged, a check fell short."""
