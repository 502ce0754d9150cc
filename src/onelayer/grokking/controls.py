"""Controls: what every measure reads where there is nothing to find. The tables that scripts/controls.py measured once.

    reads_high_on("gradient_symmetricity", facts)     ["untrained", …]: it proves nothing alone
    markdown("sum")                                   a table of docs/controls.md

Settings   "sum", x + y, and "parity"; a run of parity is held against the second, any other against the first
Null       networks that have no rule to learn, or have learnt none: permuted labels (the answers of all pairs change
           places), a random table, random labels (of parity: half of the training labels are wrong), the untrained
           twin, and a network that always gives the commonest answer
Others     networks that have a rule: noisy labels (a tenth of the training labels are wrong), and a mirror-closed
           split (no test pair has its mirror in train). They are not expected to read as nothing.
Marked     a measure is marked on a null control where the real network's mean over the seeds is not beyond the
           control's, on the side that others read as structure, by more than a tenth of its own size
Keys       a control's key frequencies are as many as the real network of its seed has, its own strongest; the untrained
           twin keeps those of the trained one
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["FILE", "markdown", "marked", "reads_high_on", "settings", "stands_out"]

FILE = Path(__file__).with_name("controls.json")
MARGIN = 0.1


def stands_out(value: float, control: float, high: bool) -> bool:
    return (value - control if high else control - value) > MARGIN * abs(value)


def marked(mean: Mapping[str, float], null: Sequence[str], high: bool) -> list[str]:
    """The null controls among these means from which the real network's does not stand out."""
    return [c for c in null if "real" in mean and c in mean and not stands_out(mean["real"], mean[c], high)]


@cache
def settings() -> dict[str, dict[str, Any]]:
    """{setting: {"config", "seeds", "null", "others", "measures": {row: {"real", each control, "marked"}}}}"""
    return json.loads(FILE.read_text("utf-8"))


def reads_high_on(name: str, facts: Mapping[str, Any]) -> list[str]:
    """The null controls on which this measure does not stand out, as measured once for a task like that of these facts;
    not those of the run at hand."""
    measures = settings()["parity" if "support" in facts else "sum"]["measures"]
    return list(measures.get(name, {}).get("marked", []))


def markdown(setting: str) -> str:
    told = settings()[setting]
    controls = (*told["null"], *told["others"])
    rows = [f"| measure | real | {' | '.join(controls)} |", "|---" * (2 + len(controls)) + "|"]
    for name, row in told["measures"].items():
        cells = [_cell(row.get("real"))]
        cells += [_cell(row.get(c)) + (" ⚠" if c in row.get("marked", []) else "") for c in controls]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
