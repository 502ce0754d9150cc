"""`onelayer runs`: list the runs there are, show one, compare some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import BadInput
from ..report.terminal import measured, number, percent
from ..training import Run, index
from ..training.config import differences
from ._common import Json, answer


def runs(
    action: Annotated[Literal["list", "show", "compare"], Parameter(help="What to do.")] = "list",
    /,
    *paths: Annotated[Path, Parameter(help="The runs to show (one) or to compare (two or more).")],
    root: Annotated[Path, Parameter(help="The directory whose runs are listed.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs in a directory, show one, or compare some: their figures, and where their configs differ.

    $ onelayer runs

    $ onelayer runs compare runs/arithmetic-x-plus-y-0-20261123-164500 runs/arithmetic-x-plus-y-1-20261123-164530
    """
    if action == "list":
        if paths:
            raise BadInput(
                f"list takes no run, received {paths[0]}; use `onelayer runs show {paths[0]}`, or --root DIR"
            )
        rows = index.listing(root)
        answer({"root": root, "runs": rows}, _table(rows) if rows else f"no runs in {root}", as_json=as_json)
    elif action == "show":
        if len(paths) != 1:
            raise BadInput(f"show takes one run, received {len(paths)}: onelayer runs show RUN")
        facts = show(paths[0])
        answer(facts, _lines(facts), as_json=as_json)
    else:
        if len(paths) < 2:
            raise BadInput(f"compare takes two runs or more, received {len(paths)}: onelayer runs compare RUN RUN")
        rows = [index.row(Run(path).path) for path in paths]
        changed = compare(paths)
        answer({"runs": rows, "differences": changed}, _table(rows) + _differing(changed), as_json=as_json)


def show(path: Path) -> dict[str, Any]:
    """A run in full, but for its tensors and its metrics."""
    run = Run(path)
    facts = index.row(path)
    if "problem" in facts:
        raise BadInput(facts["problem"])
    result, origin = run.result or {}, run.config.branch
    return facts | {
        "branch": None if origin is None else f"of {origin.run} off step {origin.step}",
        "status": run.status,
        "reason": result.get("reason"),
        "evaluations": len(run.metrics),
        "snapshots": run.snapshots,
        "config": run.config.as_dict(),
        "manifest": {name: value for name, value in run.manifest.items() if name != "config"},
    }


def compare(paths: Sequence[Path]) -> dict[str, list[Any]]:
    """The dotted fields that differ between the configs, each with its value in every run."""
    configs = [Run(path).config.as_dict() for path in paths]
    fields = dict.fromkeys(field for other in configs[1:] for field, _, _ in differences(configs[0], other))
    return {field: [_at(config, field) for config in configs] for field in fields}


def _at(config: Any, field: str) -> Any:
    for part in field.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _table(rows: Sequence[dict[str, Any]]) -> str:
    columns = ("run", "status", "step", "memorised", "generalised", "sustained", "best", "train", "held out", "seconds")
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        if "problem" in row:
            table.add_row(Path(row["run"]).name, row["status"])
            continue
        steps = [row["step"], *(row[f"step_{name}"] for name in ("memorised", "generalised", "sustained", "best"))]
        held, accuracy = measured(row)
        table.add_row(
            Path(row["run"]).name, row["status"], *("–" if step is None else str(step) for step in steps),
            percent(row.get(f"train_{accuracy}")), percent(row.get(f"{held}_{accuracy}")), number(row["seconds"]),
        )  # fmt: skip
    return _plain(table)


def _differing(changed: dict[str, list[Any]]) -> str:
    if not changed:
        return "\nthe configs are equal"
    table = Table("differs", *(["value"] * len(next(iter(changed.values())))), box=None, pad_edge=False)
    for field, values in changed.items():
        table.add_row(field, *(Text(str(value)) for value in values))  # as it is: [ ] is no markup here
    return "\n" + _plain(table)


def _lines(facts: dict[str, Any]) -> str:
    shown = {name: value for name, value in facts.items() if name not in ("config", "manifest")}
    widest = max(map(len, shown))
    return "\n".join(f"{name:<{widest}}  {value}" for name, value in shown.items() if value is not None)


def _plain(table: Table) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")
