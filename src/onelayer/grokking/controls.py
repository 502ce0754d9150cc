"""Controls: what every measure reads where there is nothing to find. The table that scripts/controls.py measured once.

    reads_high_on("gradient_symmetricity")     ["untrained", …]: it proves nothing alone
    markdown()                                 the table of docs/controls.md

Null       networks that have no rule to learn, or have learnt none: permuted labels (the answers of all pairs change
           places), a random table, the untrained twin, and a network that always gives the commonest answer
Others     networks that have a rule: noisy labels (a tenth of the training labels are wrong), and a mirror-closed
           split (no test pair has its mirror in train). They are not expected to read as nothing.
Marked     a measure is marked on a null control where the real network's mean over the seeds is not beyond the
           control's, on the side that others read as structure, by more than a tenth of its own size
Keys       a control's key frequencies are as many as the real network of its seed has, its own strongest; the untrained
           twin keeps those of the trained one
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["FILE", "NULL", "OTHERS", "markdown", "reads_high_on", "stands_out", "table"]

FILE = Path(__file__).with_name("controls.json")
NULL = ("permuted labels", "random table", "untrained", "commonest answer")
OTHERS = ("noisy labels", "mirror-closed")
MARGIN = 0.1


def stands_out(value: float, control: float, high: bool) -> bool:
    return (value - control if high else control - value) > MARGIN * abs(value)


@cache
def table() -> dict[str, Any]:
    """{"setting", "seeds", "measures": {name: {"real", each control, "marked"}}}"""
    return json.loads(FILE.read_text("utf-8"))


def reads_high_on(name: str) -> list[str]:
    """The null controls on which this measure does not stand out, as measured once; not those of the run at hand."""
    return list(table()["measures"].get(name, {}).get("marked", []))


def markdown() -> str:
    rows = [f"| measure | real | {' | '.join((*NULL, *OTHERS))} |", "|---" * (2 + len(NULL) + len(OTHERS)) + "|"]
    for name, row in table()["measures"].items():
        cells = [_cell(row.get("real"))]
        cells += [_cell(row.get(c)) + (" ⚠" if c in row.get("marked", []) else "") for c in (*NULL, *OTHERS)]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
