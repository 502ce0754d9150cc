"""onelayer ablate: frequencies cut out of a network, and what it still answers."""

from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import BadInput
from ._common import Json, answer
from ._looks import RunPath, Step, columns, word_list


def ablate(
    run: RunPath,
    /,
    *,
    frequencies: Annotated[
        str | None,
        Parameter(
            help="Which to cut out and to keep, with commas: 3,7 (of a group: E1,E4). The network's key frequencies "
            "if not given."
        ),
    ] = None,
    where: Annotated[
        tuple[Literal["embedding", "neurons", "logits"], ...],
        Parameter(
            help="Where they are cut; may be given several times. All three if not given.",
            negative="",
            consume_multiple=False,
        ),
    ] = (),
    each: Annotated[bool, Parameter(negative="", help="Also each of the frequencies by itself.")] = False,
    step: Step = None,
    as_json: Json = False,
) -> None:
    """Cut frequencies out of a network, or keep them alone: loss and accuracy of what is left, beside random others.

    $ onelayer ablate runs/arithmetic-x-plus-y-0-20261123-164500 --frequencies 3,7 --where embedding

    Nothing is trained and nothing is written.
    """
    from ..grokking.interventions import ABLATED, ablations, named
    from ..grokking.subject import open_subject

    if frequencies is not None and not word_list(frequencies):
        raise BadInput("--frequencies names none; name some, such as 3,7, or leave it out for the key ones")
    s = open_subject(run, step)
    asked = None if frequencies is None else named(s, word_list(frequencies))
    rows = ablations(s, asked, where or ABLATED, each)
    heads = {
        "where": "cut in", "what": "frequencies", "train_loss": "train loss", "test_loss": "test loss",
        "train_accuracy": "train accuracy", "test_accuracy": "test accuracy",
    }  # fmt: skip
    chosen = [s.characters.name(k) for k in (s.key_frequencies if asked is None else asked)]
    whose = "the key frequencies" if asked is None else "asked for"
    text = f"frequencies {', '.join(map(str, chosen))} ({whose})\n{columns(rows, heads)}"
    answer({"run": run, "step": step, "frequencies": chosen, "rows": rows}, text, as_json=as_json)
