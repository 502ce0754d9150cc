"""onelayer analyse: what a run learnt, in the measures of the literature, each beside its untrained twin."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..errors import BadInput
from ._common import Json, answer
from ._looks import word_list


def analyse(
    run: Path,
    /,
    *,
    step: int | None = None,
    measure: Annotated[
        tuple[str, ...], Parameter(name=("--measure", "--measures"), negative="", consume_multiple=False)
    ] = (),
    as_json: Json = False,
) -> None:
    """Measure a run: key frequencies, restricted and excluded loss, cosines, phases; docs/grokking.md defines each.

    Each value stands beside its control, the same of the network before its first step.

    $ onelayer analyse runs/arithmetic-x-plus-y-0-20261123-164500 --measure cosine_variance_explained --json

    Parameters
    ----------
    run
        The run's directory; `onelayer runs` lists them.
    step
        A step with a checkpoint; the last one if it is not given.
    measure
        One measure, or several with commas; may be given several times. All that apply but the costly if not given.
    """
    from ..grokking.analysis import analyse as analysed
    from ..training.engines.memory import keep_freed_memory

    keep_freed_memory()
    names = [name for text in measure for name in word_list(text)]
    if measure and not names:
        raise BadInput("--measure names none; name some, such as accuracy,restricted_loss, or leave it out for all")
    found = analysed(run, step, names)
    answer(found.as_dict(), found.text(), as_json=as_json)
