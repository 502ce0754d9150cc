"""`onelayer positions`: every positional encoding in a table, one of them in pictures, all of them on a page."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from .. import positions as registry
from ..errors import BadInput
from ..report import gallery
from ..report.run import Run
from ..report.sections.position import learnt
from ..studies import position_pictures as pictures
from ..training.config import parse_value
from ._common import Json, answer

COLUMNS = ("method", "acts on", "parameters", "extrapolates", "relative", "crosses", "cost", "source")


def positions(
    action: Annotated[Literal["list", "show"], Parameter(help="What to do.")] = "list",
    name: Annotated[str | None, Parameter(help="The method to show.")] = None,
    /,
    *,
    html: Annotated[Path | None, Parameter(help="Write the pictures to this file; it opens without a network.")] = None,
    run: Annotated[Path | None, Parameter(help="Show the method of this run, as it was learnt there.")] = None,
    setting: Annotated[
        tuple[str, ...], Parameter(negative="", help="A constant of the method, such as base=100; may be repeated.")
    ] = (),
    n: Annotated[int, Parameter(help="How many positions are shown, and taken as the training length.")] = 50,
    d_model: Annotated[int, Parameter(help="The model's width.")] = 128,
    heads: Annotated[int, Parameter(help="Its attention heads.")] = 4,
    as_json: Json = False,
) -> None:
    """List every positional encoding, or show one: its table, its similarity against the offset, its bias.

    $ onelayer positions

    $ onelayer positions show sinusoidal --html sinusoidal.html
    """
    if action == "list":
        if name is not None or run is not None or setting:
            raise BadInput("list takes no method, run or setting; use `onelayer positions show NAME`")
        _list(_size(n, d_model, heads), n, html, as_json)
    else:
        _show(name, html, run, setting, n, d_model, heads, as_json)


def _list(size: registry.Size, n: int, html: Path | None, as_json: bool) -> None:
    rows = registry.describe(size)
    page = None
    if html is not None:
        about = f"{len(rows)} methods, {n} positions, width {size.d_model}, {size.n_heads} heads"
        page = gallery.write_page(html, "Positional encodings", about, gallery.gallery(size, n))
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for cells in gallery.table_text(rows):
        table.add_row(*cells)
    console = Console(width=None if sys.stdout.isatty() else 160, color_system=None)
    with console.capture() as text:
        console.print(table)
    note = "* a control: something to compare with. `onelayer positions show NAME` shows one, `--html FILE` all."
    written = f"\nthe gallery: {page}" if page else ""
    answer({"methods": rows, "html": page}, text.get() + note + written, as_json=as_json)


def _show(
    name: str | None, html: Path | None, path: Path | None, setting: tuple[str, ...], n: int, d_model: int, heads: int,
    as_json: bool,
) -> None:  # fmt: skip
    run = None if path is None else Run.at(path)
    if run is not None:
        if setting or name not in (None, run.model.position):
            raise BadInput(
                f"{path} has the position '{run.model.position}' with its own settings; leave out NAME and --setting"
            )
        method, size = run.model.position_method, run.model.size()
        n = max(2, min(n, size.n_ctx)) if method.extrapolates == "no" else n
        params = learnt(run, method)
    elif name is None:
        raise BadInput("show takes the name of a method; allowed: " + ", ".join(registry.available()))
    else:
        given = dict(_pair(item) for item in setting)
        size = _size(n, d_model, heads)
        method = registry.get(name, **(registry.fitted(name, n) | given))
        method.check(size)
        params = pictures.draw(method, size)
    found = pictures.pictures(method, params, size, n)
    page = None
    if html is not None:
        page = gallery.write_page(html, method.name, "a positional encoding", gallery.method_page(method, size, n, run))
    facts = gallery.facts(method, size) | {"source": method.source}
    widest = max(map(len, facts))
    lines = [method.summary, "", *(f"{key:<{widest}}  {value}" for key, value in facts.items()), ""]
    lines += [gallery.picture_text(found)]
    lines += ["", f"the page: {page}" if page else "`--html FILE` writes all its pictures to a page."]
    row = {"name": method.name, "summary": method.summary, **facts, "html": page}
    answer(row | {"pictures": pictures.as_facts(found)}, "\n".join(lines), as_json=as_json)


def _size(n: int, d_model: int, heads: int) -> registry.Size:
    if not 2 <= n <= pictures.MOST:
        raise BadInput(f"--n is the number of positions, 2 to {pictures.MOST}; received {n}")
    if heads < 1 or d_model < 1 or d_model % heads:
        raise BadInput(f"--heads must divide --d-model; received {heads} and {d_model}")
    if d_model > 4096:
        raise BadInput(f"--d-model is at most 4096 here; received {d_model}")
    return registry.Size(d_model, heads, d_model // heads, n)


def _pair(item: str) -> tuple[str, object]:
    key, equals, value = item.partition("=")
    if not equals:
        raise BadInput(f"a setting is key=value, such as base=100; received {item!r}")
    return key, parse_value(value)
