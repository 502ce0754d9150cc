"""What a run looks like: figures, as functions from arrays to Plotly figures, and the page that holds them.

`write_report(run)` writes the page. `figures.plots` draws; a section of the page is a file in `sections/` and a line in
its registry; `figures/theme.py` is the look of all of it.
"""

from onelayer.report.page import write_report

__all__ = ["write_report"]
