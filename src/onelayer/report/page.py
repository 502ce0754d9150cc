"""The page of a run: one HTML file that shows what happened and opens without a network.

Everything is in the file: text and numbers as HTML, each figure as JSON, the style, our ES modules (an import map gives
them their names) and Plotly's own script, gzipped: 2 MB instead of 5. A content security policy forbids every request.

A section is a file in `sections/` and a line in its registry.
"""

import base64
import gzip
import json
import warnings
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from onelayer.errors import BadInput
from onelayer.report.figures import theme
from onelayer.report.inline import data_url, json_text
from onelayer.report.run import Run
from onelayer.report.section import Gallery, Matrix, Section, Step
from onelayer.report.sections import SECTIONS
from onelayer.training.files import replace_file

NAME = "report.html"
ASSETS = Path(__file__).parent / "assets"
Numbers = dict[str, int]  # packed numbers -> their place in the page's list
MODULES = ("plotly", "figures", "counter", "matrices")  # assets/NAME.js, imported as "onelayer/NAME"


def write_report(run_dir: Path | str) -> Path:
    """Write `report.html` into the run's directory, whole or not at all, and say where it is."""
    run = Run.at(run_dir)
    page = run.directory.path / NAME
    replace_file(page, render(run.title, run.directory.path.resolve().name, sections(run)).encode())
    return page


def sections(run: Run) -> dict[str, Section]:
    """name -> section, of those that apply to the run, in the registry's order."""
    built = {name: _section(module, run) for name, module in SECTIONS.items()}
    return {name: section for name, section in built.items() if section is not None}


def render(title: str, subtitle: str, parts: Mapping[str, Section]) -> str:
    """The text of a page with these sections, by name."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = environment.from_string((ASSETS / "page.html").read_text())
    numbers: Numbers = {}
    sections = [_for_template(name, section, numbers) for name, section in parts.items()]
    return template.render(
        title=title,
        subtitle=subtitle,
        version=metadata.version("onelayer"),
        sections=sections,
        numbers=json_text(list(numbers)),
        style=Markup((ASSETS / "page.css").read_text()),
        import_map=json_text({"imports": {f"onelayer/{name}": data_url(ASSETS / f"{name}.js") for name in MODULES}}),
        templates=json_text({"light": theme.light().to_plotly_json(), "dark": theme.dark().to_plotly_json()}),
        plotly=_packed_plotly(),
    )


def _section(module: ModuleType, run: Run) -> Section | None:
    """None where it does not apply. One that cannot be built says why in its place: the others are worth having."""
    title = module.__name__.rpartition(".")[2].replace("_", " ").capitalize()
    try:
        return module.build(run) if module.applies(run) else None
    except BadInput as reason:
        return Section(title, f"Not shown: {reason}")
    except Exception as error:  # a damaged run can fail anywhere; the training that made it should still get its page
        warnings.warn(f"report: the section {title!r} failed: {type(error).__name__}: {error}", stacklevel=2)
        return Section(title, f"Not shown, because drawing it failed: {type(error).__name__}: {error}")


def _for_template(name: str, section: Section, numbers: Numbers) -> dict[str, Any]:
    panels = [
        {
            "caption": panel.caption,
            "wide": panel.wide,
            "height": panel.figure.layout["height"],
            "json": _figure(panel.figure),
        }
        for panel in section.panels
    ]
    paragraphs = [paragraph for paragraph in section.text.split("\n\n") if paragraph.strip()]
    return {
        **section._asdict(), "name": name, "panels": panels, "paragraphs": paragraphs, "counter": _counter(section),
        "steps": [_step(step, numbers) for step in section.steps],
        "galleries": [_gallery(gallery, numbers) for gallery in section.galleries],
    }  # fmt: skip


def _gallery(gallery: Gallery, numbers: Numbers) -> dict[str, Any]:
    """Wide, where its maps are too large to stand side by side with others."""
    shown = {name: _cells(matrix, numbers) for name, matrix in gallery.matrices.items()}
    wide = len(shown) > 12 or any(max(matrix["shape"]) > 14 for matrix in shown.values())
    return {"caption": gallery.caption, "wide": wide, "json": json_text(shown)}


def _step(step: Step, numbers: Numbers) -> dict[str, Any]:
    def part(one: Matrix | str) -> dict[str, Any]:
        if isinstance(one, str):
            return {"sign": one}
        size = " × ".join(map(str, one.values.shape))
        return {"sign": "", "name": one.name, "size": size, "json": json_text(_cells(one, numbers))}

    return {**step._asdict(), "equations": [[part(one) for one in equation] for equation in step.equations]}


def _cells(matrix: Matrix, numbers: Numbers) -> dict[str, Any]:
    """The matrix for the script. Its values are the place of its numbers (float32, row by row, in base64) in a list of
    the page's, where they stand once: most matrices are part of several equations."""
    values = np.ascontiguousarray(matrix.values, dtype="<f4")
    place = numbers.setdefault(base64.b64encode(values.tobytes()).decode(), len(numbers))
    return {**matrix._asdict(), "shape": values.shape, "values": place}


def _counter(section: Section) -> dict[str, Any] | None:
    if section.counter is None:
        return None
    rows = {name: lamps.round(3).tolist() for name, lamps in section.counter.rows.items()}
    return {"json": json_text(rows), "caption": section.counter.caption}


def _figure(figure: Any) -> Markup:
    """The figure without its template, which the page holds once for all of them."""
    return json_text({**json.loads(figure.to_json()), "template": None})


@cache
def _packed_plotly() -> str:
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
