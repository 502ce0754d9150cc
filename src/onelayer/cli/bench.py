"""`onelayer bench`: the training step beside PyTorch's and naive JAX's, in one process, in turn."""

import sys
from typing import Annotated

from cyclopts import Parameter

from ._common import Json, answer


def bench(
    *cases: Annotated[
        str,
        Parameter(
            help="grok, encoder-decoder, language-model-1, language-model-4, long-1024, long-4096, generation or "
            "microscope. Without a name, all."
        ),
    ],
    rounds: Annotated[int, Parameter(help="How often each contender takes its turn, at most.")] = 15,
    seconds: Annotated[
        float, Parameter(help="No new round after so many seconds of a case (three rounds at least).")
    ] = 60,
    only: Annotated[tuple[str, ...], Parameter(help="These contenders alone: `--only jax --only numpy`.")] = (),
    clock: Annotated[str, Parameter(help="wall; or cpu, processor time: for one thread on a busy machine.")] = "wall",
    as_json: Json = False,
) -> None:
    """Measure this machine's training steps against PyTorch, eager and compiled, and naive JAX.

    Times are medians with their quartiles; every contender takes its turn in every round. Peers that are not installed
    are named as skipped. `microscope` is what the microscope costs, in gradients and in steps.

    $ onelayer bench grok --rounds 20
    """
    from .. import bench as benches
    from ..bench import measure, report
    from ..errors import BadInput

    if rounds < 3:
        raise BadInput(f"a median needs 3 rounds or more; received rounds={rounds}")
    if not seconds > 0:
        raise BadInput(f"a case needs a time above 0 s; received seconds={seconds:g}")
    chosen = [benches.get(name) for name in cases or benches.CASES]
    known = {contender.name for case in chosen for contender in case.contenders}
    for name in only:
        if name not in known:
            raise BadInput(f"no contender of these cases is called {name!r}; there are: {', '.join(sorted(known))}")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    reports = [measure.run(case, rounds, only, seconds, say, clock) for case in chosen]
    facts = {"machine": report.machine(), "clock": clock, "cases": {r.case.name: report.facts(r) for r in reports}}
    answer(facts, report.table(reports), as_json=as_json)
