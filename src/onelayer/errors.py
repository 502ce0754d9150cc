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
    return sorted(map(str, allowed), key=lambda name: -alike(word, name.lower()))


def alike(a: str, b: str) -> float:
    """From 0, not a letter in common, to 1, the same."""
    return SequenceMatcher(None, a, b).ratio()


def unknown(kind: str, received: object, allowed: Iterable[object]) -> BadInput:
    """`raise unknown("optimizer", "adamv", OPTIMIZERS)`: the right names are listed, nearest first."""
    names = nearest(received, allowed)
    meant = bool(names) and alike(str(received).lower(), names[0].lower()) > 0.45  # else a guess would mislead
    hint = f"; did you mean {names[0]!r}?" if meant else "."
    return BadInput(f"unknown {kind} {received!r}{hint} Allowed: {', '.join(names) or 'none'}")


class WorkFailed(RuntimeError):
    """The input was good and the work did not succeed: a run diverged, a check fell short."""
