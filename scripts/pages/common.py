"""What the pages share: figures in words, tables, paragraphs in lines, colours, the footer with command and cost."""

import math
import os
import platform
import textwrap
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import experiments
import matplotlib
import numpy as np

from onelayer.studies import grid
from onelayer.studies.statistics import Middle, middle

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parents[2] / "docs" / "experiments"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito
plt.rcParams |= {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS), "figure.dpi": 110,
}  # fmt: skip
Rows = list[dict[str, Any]]


# ---------------------------------------------------------------------------------------- words


def number(x: float | None) -> str:
    """As it is said in a table: 7,930 · 0.95 · 5.2e-08 · never."""
    if x is None or not math.isfinite(x):
        return "never"
    if x == round(x) and abs(x) >= 1:
        return f"{x:,.0f}"
    return f"{x:.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def told(m: Middle) -> str:
    """A median, its interval, and how many are censored."""
    if m.n == 0:
        return "–"
    if m.censored == m.n:
        return f"never ({m.n})"
    spread = f" ({number(m.low)} – {number(m.high)})" if m.n > 1 and m.low != m.high else ""
    return f"{number(m.median)}{spread}" + (f", {m.censored} of {m.n} never" if m.censored else "")


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Mean, and from the least to the most."""
    values = list(values)
    said = [f"{x:.{digits}g}" for x in (np.mean(values), min(values), max(values))]
    return said[0] if said[1] == said[2] else f"{said[0]} ({said[1]} – {said[2]})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        name = next((text.split(":", 1)[1].strip() for text in file if text.startswith("model name")), "")
    versions = ", ".join(f"{package} {version(package)}" for package in ("onelayer", "numpy", "numba"))
    return f"{name or platform.machine()}, {os.cpu_count()} cores shared with other work, one thread; " \
        f"Python {platform.python_version()}, {versions}"  # fmt: skip


def footer(name: str, rows: Rows, more: str = "") -> str:
    """The command, what it cost and where the figures are."""
    cpu, wall = sum(r["cpu_seconds"] for r in rows), sum(r["seconds"] for r in rows)
    seeds = sorted({r["seed"] for r in rows})
    return f"""## Repeat it

```sh
python scripts/experiments.py {name}
python scripts/experiment_pages.py {name}
```

{len(rows)} runs, seed{"s" if len(seeds) > 1 else ""} {", ".join(map(str, seeds))}; {cpu / 60:.1f} minutes of processor
time in training ({wall / 60:.0f} by the clock).{more} Machine: {machine()}. Raw figures: [{name}.jsonl]({name}.jsonl).
"""


def so_far(name: str) -> str:
    """What a study still lacks, for the head of its page; nothing where it is whole."""
    if name not in experiments.STUDIES:
        return ""
    whole, raw, rows = experiments.STUDIES[name], HERE / f"{name}.jsonl", study(name)
    done, asked = {r["id"] for r in rows}, [run.id for run in whole.runs(range(whole.seeds), raw)]
    lacking = sum(one not in done for one in asked)
    if not lacking:
        return ""
    seeds = len({r["seed"] for r in rows})
    return f"""
**Not whole yet:** {len(asked) - lacking} of {len(asked)} planned runs are in, {seeds} of {whole.seeds} seeds. One seed
shows what can happen, not how often; medians and intervals are those of what is in.
"""


def study(name: str) -> Rows:
    return grid.read(HERE / f"{name}.jsonl")


def cells(rows: Rows, *names: str) -> dict[Any, Rows]:
    """Rows by the named parts of their cell, in the order in which they come."""
    found: dict[Any, Rows] = {}
    for row in rows:
        key = tuple(row["cell"][name] for name in names)
        found.setdefault(key if len(names) > 1 else key[0], []).append(row)
    return found


def seconds(rows: Rows) -> str:
    return told(middle([r["seconds_sustained"] for r in rows]))


HELD = "\N{NO-BREAK SPACE}"  # a line of MyST that begins with % is a comment, and lost


def wrapped(text: str) -> str:
    """Paragraphs and list items in lines of at most 120; tables, code and headings as they are."""
    blocks, code = [], False
    for block in text.split("\n\n"):
        fences = block.count("```")
        if not (code or fences or block.lstrip().startswith(("|", "#", "!["))):
            items = block.replace("\n- ", "\0- ").split("\0")
            texts = [" ".join(item.split()).replace(" %", f"{HELD}%") for item in items]
            block = "\n".join(textwrap.fill(text, 120, subsequent_indent="  " * text.startswith("- "),
                              break_long_words=False, break_on_hyphens=False) for text in texts)  # fmt: skip
        code ^= fences % 2 == 1
        blocks.append(block)
    return "\n\n".join(blocks).rstrip("\n") + "\n"


def save(figure: Any, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", dpi=110)
    plt.close(figure)
