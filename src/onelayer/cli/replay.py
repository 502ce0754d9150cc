"""onelayer replay: the backward again, with some of its routes cut."""

from typing import Annotated

from cyclopts import Parameter

from ..errors import BadInput
from ._common import Json, answer
from ._looks import Examples, Only, RunPath, Split, Step, columns, traced


def replay(
    run: RunPath,
    /,
    *,
    gate: Annotated[
        tuple[str, ...],
        Parameter(
            help="NAME=NUMBER, as often as you like: 0 cuts a route, 1 leaves it, 2 doubles it. NAME may be a pattern: "
            "'*.attn.route_[qk]=0'.",
            consume_multiple=False,
        ),
    ],
    step: Step = None,
    split: Split = "train",
    examples: Examples = None,
    only: Only = None,
    train: Annotated[
        int | None, Parameter(help="Instead: train again from the run's start for so many steps under the gates.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the backward again with routes cut, scaled or left: what changes in the gradient of each weight.

    $ onelayer replay runs/arithmetic-x-plus-y-0-20261123-164500 --gate 'blocks.0.attn.route_q=0'

    With --train the run is trained again with the routes cut, and both are compared at the run's evaluations.
    """
    from ..microscope import gates
    from ..studies.cuts import against_run

    chosen = dict(map(_gate, gate))
    if train is not None:
        rows = against_run(run, chosen, train)
        heads = {
            "step": "step", "train_accuracy": "train accuracy", "cut_train_accuracy": "with the gates",
            "test_accuracy": "test accuracy", "cut_test_accuracy": "with the gates",
        }  # fmt: skip
        return answer({"run": run, "gates": chosen, "evaluations": rows}, columns(rows, heads), as_json=as_json)
    opened, t = traced(run, step, split, examples, only)
    rows = gates.changes(t, gates.replay(t, chosen))
    heads = {
        "tensor": "tensor", "norm": "norm", "replayed": "with the gates", "change": "change", "cosine": "cosine"
    }  # fmt: skip
    answer(
        {"run": run, "step": opened.step, "split": split, "loss": t.loss, "gates": chosen, "tensors": rows},
        f"step {opened.step}, {split} loss {t.loss:.6g}\n{columns(rows, heads)}",
        as_json=as_json,
    )


def _gate(text: str) -> tuple[str, float]:
    name, equals, number = text.rpartition("=")
    try:
        if equals:
            return name.strip(), float(number)
    except ValueError:
        pass
    raise BadInput(f"a gate is NAME=NUMBER, such as 'blocks.0.attn.route_q=0'; received {text!r}")
