"""onelayer ledger: why a weight moved, over a whole run."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ._common import Json, answer
from ._looks import columns, place_for


def ledger(
    run: Annotated[Path, Parameter(help="A run's directory: it is trained again; or a config, .toml or .json.")],
    /,
    weight: Annotated[
        str | None,
        Parameter(help="The weight to account for, such as embed.W_E[3,5]. By default the first of the embedding."),
    ] = None,
    *,
    by: Annotated[
        str,
        Parameter(
            help="The groups: loss_token, route, head, source, position, class, frequency, or operand (operand:1 for "
            "the second)."
        ),
    ] = "route",
    classes: Annotated[int | None, Parameter(help="Group operands by their value modulo this.")] = None,
    step: Annotated[int | None, Parameter(help="The last step: a saved one of a run, any of a config.")] = None,
    loss: Annotated[
        bool,
        Parameter(negative="", help="Also: which group bought the change in test loss. Takes several times longer."),
    ] = False,
    out: Annotated[Path | None, Parameter(help="Save what each group did to every tensor, as .safetensors.")] = None,
    as_json: Json = False,
) -> None:
    """Why did this weight move? The run is trained again under a ledger: w_T = w_0 + decay + Σ groups.

    $ onelayer ledger runs/arithmetic-x-plus-y-0-20261123-164500 'embed.W_E[3,5]' --by route

    The groups' motions add up to the weight's: exactly for SGD, and for Adam and AdamW given the second moment that all
    share; other optimizers are attributed at the momentum, and it is said. So is how far the new weights are from the
    run's own: not at all, where the NumPy engine made it on this machine.
    """
    from rich.console import Console
    from rich.progress import Progress

    from ..studies import ledgers
    from ..training.config import load, resolve

    place_for(out)
    shown = Console(stderr=True)
    with Progress(console=shown, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("training again")
        how: dict[str, Any] = {
            "classes": classes, "loss": loss, "weight": weight or ledgers.FIRST,
            "say": lambda done, steps: progress.update(task, completed=done, total=steps),
        }  # fmt: skip
        anew = run.suffix in (".toml", ".json") and not run.is_dir()
        kept = ledgers.anew(resolve(load(run)), by, step, **how) if anew else ledgers.of_run(run, by, step, **how)
    book = kept.ledger
    if out is not None:
        book.save(out)
    assert kept.entry is not None
    tensor, index = kept.entry
    weight = f"{tensor}[{','.join(map(str, index))}]"
    one, rows = book.entry(tensor, index), book.rows(tensor)
    facts = {
        "run": run, "by": by, "step": kept.step, "note": book.note, "completeness": book.completeness,
        "difference": kept.difference, **kept.evaluation, "weight": weight, "entry": one, "tensor": tensor,
        "groups": rows, "saved": out,
    }  # fmt: skip
    held = next(split for split in ("test", "valid") if f"{split}_loss" in kept.evaluation)
    lines = [
        f"steps 0 to {kept.step}: {held} loss {kept.evaluation[f'{held}_loss']:.6g}; {_compared(kept.difference)}",
        f"{book.note}; w_0 + decay + Σ groups is w_T up to {book.completeness:.1e}{_rounding(book)}",
        "",
        weight,
        columns([{"of": words, "is": f"{x:+.6g}"} for words, x in _named(one)], {"of": "", "is": ""}).lstrip("\n"),
        "",
        f"all of {tensor}",
        columns(rows, {"group": "group", "norm": "norm", "share": "share of the way"}),
    ]
    if loss:
        bought = book.loss
        facts["loss"] = {"change": bought.change, "error": bought.error, "bought": bought.bought}
        spent = sorted(bought.bought.items(), key=lambda item: item[1])
        lines += [
            "",
            f"the test loss changed by {bought.change:+.6g} (accounted for up to {bought.error:.1e}), bought by",
            columns([{"group": group, "bought": x} for group, x in spent], {"group": "group", "bought": "change"}),
        ]
    answer(facts, "\n".join(lines + ([f"saved  {out}"] if out else [])), as_json=as_json)


def _named(entry: dict[str, float]) -> list[tuple[str, float]]:
    return [({"start": "w_0", "end": "w_T"}.get(name, name), x) for name, x in entry.items()]


def _compared(difference: float | None) -> str:
    if difference is None:
        return "a run of its own, of this config"
    if difference == 0:
        return "its weights are the run's, to the last bit"
    return f"its weights are up to {difference:.1e} (of each tensor's largest) from the run's: akin, not the same run"


def _rounding(book: Any) -> str:
    return (
        " of a tensor's largest weight (the run is float32; float64 would leave nothing)"
        if book.config.dtype == "float32"
        else ""
    )
