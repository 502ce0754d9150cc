"""`onelayer gradcheck`: every hand-derived backward against the complex-step derivative."""

import sys
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ..errors import BadInput, WorkFailed
from ..microscope import gradcheck as checks
from ._common import Json, answer


def gradcheck(
    *,
    only: Annotated[str, Parameter(help="Keep the cases whose name contains this.")] = "",
    seed: Annotated[int, Parameter(help="Of the random values.")] = 0,
    as_json: Json = False,
) -> None:
    """Check every layer, position, activation and model by complex step, over every entry of small tensors.

    Exits 1 where a tensor's relative error exceeds 1e-12.

    $ onelayer gradcheck --only norm
    """
    chosen = [case for case in checks.cases(seed) if only in case.name]
    if not chosen:
        raise BadInput(f"no case has {only!r} in its name; allowed: " + "; ".join(c.name for c in checks.cases(seed)))
    shown = Console(stderr=True)
    rows = [
        checks.check(case, seed)
        for case in track(chosen, "checking", console=shown, transient=True, disable=not sys.stderr.isatty())
    ]

    table = Table("case", "tensors", "entries", "worst tensor", "relative error", "")
    for row in rows:
        verdict = "[green]✓[/]" if row.passed else "[red]past the bound[/]"
        table.add_row(row.case, str(row.tensors), str(row.entries), row.tensor, f"{row.error:.1e}", verdict)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.capture() as text:
        console.print(table)
    worst = max(rows, key=lambda row: row.error)
    entries = sum(row.entries for row in rows)
    summary = f"{len(rows)} cases, {entries} entries; worst error {worst.error:.1e} ({worst.case}: {worst.tensor})"
    facts = {"cases": len(rows), "entries": entries, "worst": worst._asdict(), "bound": checks.BOUND}
    answer(facts | {"rows": [row._asdict() for row in rows]}, text.get() + summary, as_json=as_json)
    failed = [row for row in rows if not row.passed]
    if failed:
        raise WorkFailed(
            f"{len(failed)} of {len(rows)} cases are past the bound of {checks.BOUND:g}: "
            + "; ".join(f"{row.case}: {row.tensor} {row.error:.1e}" for row in failed)
        )
