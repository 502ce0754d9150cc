"""onelayer report: the page of a run."""

from pathlib import Path

from ._common import Json, answer


def report(run: Path, /, *, as_json: Json = False) -> None:
    """Write the page of a run, RUN/report.html: one file that opens without a network.

    $ onelayer report runs/arithmetic-x-plus-y-0-20261123-164500

    Parameters
    ----------
    run
        The run's directory; `onelayer runs` lists them.
    """
    from ..report import write_report
    from ..training.engines.memory import keep_freed_memory

    keep_freed_memory()  # every checkpoint is looked at whole: a fifth of the time is pages given back and got anew
    page = write_report(run)
    answer({"run": run, "report": page, "bytes": page.stat().st_size}, str(page), as_json=as_json)
