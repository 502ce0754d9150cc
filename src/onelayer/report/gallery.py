"""The positional encodings on a page: one method in full, or all of them side by side. Files that need no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onelayer import positions
from onelayer.arrays import generator
from onelayer.errors import BadInput
from onelayer.positions import Method, Size, ids
from onelayer.report.page import render
from onelayer.report.run import Run
from onelayer.report.section import Counter, Section
from onelayer.report.sections import position
from onelayer.report.terminal import sparkline
from onelayer.studies import position_pictures as pictures
from onelayer.training.files import replace_file

__all__ = ["gallery", "method_page", "picture_text", "table_text", "write_page"]

SHADES = " ░▒▓█"
BITS = 7


# ------------------------------------------------------------------------------------------ pages


def write_page(path: Path | str, title: str, subtitle: str, parts: Mapping[str, Section]) -> Path:
    """Whole or not at all."""
    path = Path(path)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise BadInput(f"cannot write {path}: give the name of a file in a directory that exists")
    replace_file(path, render(title, subtitle, parts).encode())
    return path


def gallery(size: Size, n: int = pictures.POSITIONS) -> dict[str, Section]:
    """Counting, then every method, then the numberings; each method as it is before training."""
    parts = {"counting": counting()}
    for name in positions.available():
        method = positions.get(name, **positions.fitted(name, size.n_ctx))
        params = pictures.draw(method, size)
        panels = position.panels_of(method, params, size, n, short=True)
        title = name + (" (a control)" if method.control else "")
        parts[name] = Section(title, words(method, params, None), panels, facts(method, size))
    parts["numberings"] = Section(
        "Which number a place gets",
        "Any method may be used under any of these numberings (position_ids). Here 12 + 34 = 46, lowest digit first, "
        "and the ids that each token gets in one draw.",
        listings={"ids": numberings_text()},
    )
    return parts


def method_page(method: Method, size: Size, n: int = pictures.POSITIONS, run: Run | None = None) -> dict[str, Section]:
    """One method in full; with a run, as it was learnt there, and how."""
    params = pictures.draw(method, size) if run is None else position.learnt(run, method)
    panels = position.panels_of(method, params, size, n)
    parts = {method.name: Section(method.name, words(method, params, run), panels, facts(method, size))}
    if run is not None and (grown := position.over_training(run, method)):
        parts["training"] = Section("Over training", "", grown)
    if method.name in ("binary", "sinusoidal"):
        parts["counting"] = counting()
    return parts


def words(method: Method, params: Any, run: Run | None) -> str:
    state = f"As learnt in {run.directory.path.name}." if run else "Here as drawn, before training."
    if run is None and method.name == "cope":
        state = "Before training it adds nothing: its table starts at 0."
    source = f"\n\nSource: {method.source}." if method.source else ""
    return method.summary + ("" if params is None else f" {state}") + source


def facts(method: Method, size: Size) -> dict[str, str]:
    """What a tile holds in a few words."""
    shown = {key: f"{value:g}" if isinstance(value, float) else str(value).lower() for key, value in method.constants}
    constants = ", ".join(f"{key} = {value}" for key, value in shown.items())
    return {
        "acts on": position.stages(method) if method.stages else "nothing",
        "parameters": f"{method.n_parameters(size):,}",
        "beyond the training length": method.extrapolates,
        "only offsets count": "yes" if method.relative else "no",
        "across two sequences": "yes" if method.crosses else "no",
        "cost of a step": method.cost,
        **({"constants": constants} if constants else {}),
    }


def counting() -> Section:
    """The bits of a binary counter beside sines of the same periods, and beside the encoding's own sines."""
    n, t = 2**BITS, np.arange(2**BITS)
    waves = 0.5 - 0.5 * np.sin(np.pi * (t[:, None] + 0.5) / 2 ** np.arange(BITS))
    table, _ = positions.get("sinusoidal").encode_x(None, np.zeros((1, n, 2 * BITS)), t)
    return Section(
        "Counting",
        "Written in binary, the lowest bit of a position alternates with every step, the next one half as fast, and so "
        "on: together they tell all positions apart. A sine of the same period does the same without a jump; the "
        "sinusoidal encoding takes such waves, only with periods that grow by another factor than 2.",
        counter=Counter(
            {
                "bits, the fastest first": pictures.bits(n, BITS).astype(float),
                "sines of the same periods": waves,
                f"the sines of the sinusoidal encoding, {2 * BITS} dimensions, base 10,000": (1 + table[0, :, ::2]) / 2,
            },
            "Move the slider: a lamp is dark at 0 (sines: −1) and bright at 1. The middle row is near bright where the "
            "bit above it is 1.",
        ),
    )


# ------------------------------------------------------------------------------------------ the terminal


def table_text(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """`positions.describe()` as cells: name, acts on, parameters, extrapolates, relative, crosses, cost, source."""
    return [
        (
            row["name"] + (" *" if row["control"] else ""),
            ", ".join(row["stages"]).replace("_", "/") or "–",
            f"{row['parameters']:,}" if row["parameters"] else "–",
            row["extrapolates"],
            *("yes" if row[key] else "no" for key in ("relative", "crosses")),
            row["cost"],
            row["source"].split(";")[0].split(" (")[0],
        )
        for row in rows
    ]


def picture_text(found: Mapping[str, Any], rows: int = 16, columns: int = 64) -> str:
    """What a terminal can show of `pictures`: the table in shades, and lines over the offset."""
    lines: list[str] = []
    for name, told in (("added", "added to the embedding"), ("turned", "a query of ones, turned")):
        if name in found:
            table = found[name][:rows, :columns]
            low, high = float(table.min()), float(table.max())
            shades = f"{low:.3g} “{SHADES[0]}” to {high:.3g} “{SHADES[-1]}”"
            lines += [f"{told}: position ↓, dimension →, the first of each   ({shades})"]
            scaled = (table - low) / ((high - low) or 1.0) * len(SHADES)
            lines += [f"{t:>3} " + "".join(SHADES[min(4, int(x))] for x in row) for t, row in enumerate(scaled)]
    if "gram_by_offset" in found:
        lines.append(_line("similarity against offset", found["gram_by_offset"].offsets, found["gram_by_offset"].mean))
    if "bias_by_offset" in found:
        along = found["bias_by_offset"]
        lines += [_line(f"bias of head {h} against offset", along.offsets, mean) for h, mean in enumerate(along.mean)]
    return "\n".join(lines) or "it does nothing: there is nothing to show"


def _line(told: str, offsets: np.ndarray, values: np.ndarray, width: int = 48) -> str:
    behind = offsets >= 0
    low, high = float(values[behind].min()), float(values[behind].max())
    drawn = sparkline(values[behind].tolist(), width, low, high)
    return f"{told} 0 … {offsets[-1]}: {drawn}  ({low:.3g} to {high:.3g})"


def numberings_text() -> str:
    tokens = np.array([[2, 1, 10, 4, 3, 11, 6, 4]])
    rows = {"": [*"21+43=64"]}
    for name in ids.available():
        constants = ids.fitted(name, tokens.shape[1])
        if name == "coupled":
            constants |= {"operand_order": "low_first", "sum_order": "low_first"}
        drawn = ids.get(name, **constants).draw(tokens, generator(0, "gallery", name))
        rows[name] = [str(i) for i in np.broadcast_to(drawn, tokens.shape)[0]]
    return "\n".join(f"{name:<12}" + "".join(f"{cell:>4}" for cell in cells) for name, cells in rows.items())
