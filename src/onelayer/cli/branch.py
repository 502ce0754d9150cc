"""onelayer branch: go on from a run's checkpoint under other conditions, in a run of its own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import BadInput
from ..training import config as configs
from ..training import train
from ._common import Json
from ._looks import RunPath, Step, columns
from ._runs import Fields, NoReport, changes, conclude, given, probe

if TYPE_CHECKING:
    from ..training.branch import Begin

OPTIONS = (
    "step",
    "steps",
    "freeze",
    "transplant",
    "scale",
    "hold-logit-scale",
    "fresh-optimizer",
    "set",
    "out",
    "json",
)


def branch(
    run: RunPath,
    /,
    *fields: Fields,
    step: Step = None,
    steps: Annotated[
        int | None, Parameter(help="The last step, counted on from the run's; by default its config's.")
    ] = None,
    freeze: Annotated[
        tuple[str, ...],
        Parameter(
            help="What keeps its weights: embed, positions, attention, mlp, unembed, or a pattern such as "
            "'blocks.*.attn.W_[QK]'. May be given several times.",
            negative="",
            consume_multiple=False,
        ),
    ] = (),
    transplant: Annotated[
        tuple[str, ...],
        Parameter(
            help="DONOR:WHAT or DONOR@STEP:WHAT: weights of another run of the same size in the place of one's own. "
            "WHAT is a part or a pattern, as for --freeze, or circles: the embedding's key frequencies, nothing else.",
            negative="",
            consume_multiple=False,
        ),
    ] = (),
    scale: Annotated[float | None, Parameter(help="Multiply all weights by this before the first step.")] = None,
    hold_logit_scale: Annotated[
        bool, Parameter(negative="", help="Set loss.temperature so that the loss sees the logits as large as before.")
    ] = False,
    fresh_optimizer: Annotated[
        bool, Parameter(negative="", help="Begin with an optimizer that remembers nothing.")
    ] = False,
    out: Annotated[
        Path | None, Parameter(help="The branch's directory: new, or empty. By default one in runs/.")
    ] = None,
    no_report: NoReport = False,
    as_json: Json = False,
) -> None:
    """Go on from a checkpoint with something changed, in a new run that says whence it came; the old one stays.

    $ onelayer branch runs/arithmetic-x-plus-y-0-20261123-164500 --step 200 --freeze embed --optimizer.weight-decay 0

    Any field of the config may change, but for the model's shape: less data is --task.train-fraction 0.1. It runs to
    its last step, unless --stop.on sustained. Without a change it is the run's own continuation, bit for bit, if the
    step kept its optimizer's state: the last checkpoint.keep (2) of a run do.
    """
    from ..grokking.interventions import circles
    from ..report.terminal import Display
    from ..training.branch import outcome, prepare
    from ..training.branch import scale as scaled
    from ..training.branch import transplant as whole

    asked = dict(configs.dotted(configs.merge(changes(fields, *OPTIONS), given(steps=steps))))
    edits = []
    for text in transplant:
        donor, at, what = _donor(text)
        edits.append(circles(donor, at) if what == "circles" else whole(donor, what, at))
    if scale is not None:
        edits.append(scaled(scale))
    how: dict[str, Any] = {
        "freeze": freeze, "edits": edits, "hold_logit_scale": hold_logit_scale, "fresh_optimizer": fresh_optimizer
    }  # fmt: skip
    begin = prepare(run, step, asked, **how)
    with Display() as display:
        result = train(begin.config, out, display, probe=probe, begin=begin.state)
    conclude(result, not no_report, as_json, _told(begin, outcome(result.run)))


def _told(begin: "Begin", found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What was changed, and the figures before and after it."""
    origin = begin.config.branch
    assert origin is not None
    edits = [f"{field}: {before} → {after}" for field, (before, after) in begin.changed.items()] + list(origin.edits)
    heads = {"at": ""} | {name: name.replace("_", " ") for name in found["before"]}
    rows = [{"at": f"{at}, step {found[key]}", **found[at]} for at, key in (("before", "from"), ("after", "to"))]
    extremes = [f"{name.replace('_', ' ')} on the way: {found[name]['value']:.4g} at step {found[name]['step']}"
                for name in ("lowest_test_accuracy", "highest_test_accuracy")]  # fmt: skip
    lines = [
        f"branch of {origin.run} off step {origin.step}; its optimizer's state {origin.optimizer}",
        *([f"changed  {edit}" for edit in edits] or [_unchanged(origin.optimizer == "kept", origin.step)]),
        columns(rows, heads),
        *extremes,
        "",
    ]
    facts = {"branch": origin.model_dump(), "changed": {k: list(v) for k, v in begin.changed.items()}, **found}
    return facts, "\n".join(lines)


def _unchanged(kept: bool, step: int) -> str:
    if kept:
        return "changed  nothing: it is the run's own continuation"
    return (
        f"changed  nothing, but the optimizer begins anew, so it is not the run's own continuation. The last "
        f"checkpoint.keep checkpoints hold an optimizer's state: if step {step} held none, branch off one of them, or "
        "train with a larger checkpoint.keep"
    )


def _donor(text: str) -> tuple[Path, int | None, str]:
    """DONOR@STEP:WHAT in its parts."""
    path, colon, what = text.rpartition(":")
    place, sign, at = path.rpartition("@")
    if not colon or not what or not path or (sign and not at.isdigit()):
        raise BadInput(f"a transplant is DONOR:WHAT or DONOR@STEP:WHAT, such as runs/b@400:embed; received {text!r}")
    return (Path(place), int(at), what) if sign else (Path(path), None, what)
