"""What every command shares: the --json option, and how an answer is printed."""

import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, TypeAlias

import numpy as np
from cyclopts import Parameter

__all__ = ["Json", "answer", "plain"]

Json: TypeAlias = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON object as the last line of standard output.")
]


def answer(facts: Mapping[str, Any], text: str = "", *, as_json: bool = False) -> None:
    """Print a command's result: the text for people, or with --json the facts as one line. Progress goes to stderr."""
    print(json.dumps(plain(facts), ensure_ascii=False, allow_nan=False) if as_json else text, flush=True)


def plain(value: Any) -> Any:
    """What JSON can say: NumPy scalars and arrays as numbers and lists, paths as text, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
