"""What a run looks like: figures, as functions from arrays to Plotly figures, and the page that holds them.

`write_report(run)` writes the page. `figures.plots` draws; a section of the page is a file in `sections/` and a line in
its registry; `figures/theme.py` is the look of all of it.
"""

from pathlib import Path

__all__ = ["write_report"]


def write_report(run: Path | str) -> Path:
    """Write `report.html` into the run's directory, whole or not at all, and say where it is."""
    from onelayer.report import page  # here, so that the terminal's display need not wait for Plotly

    return page.write_report(run)
