"""`onelayer resume`: go on with a run that was interrupted, killed, or shall go further."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..training import config as configs
from ..training import resume as go_on
from ._common import Json
from ._runs import Fields, NoReport, changes, conclude, given, probe, speak


def resume(
    run: Annotated[Path, Parameter(help="The run's directory; `onelayer runs` lists them.")],
    /,
    *fields: Fields,
    steps: Annotated[int | None, Parameter(help="A new last step.")] = None,
    seconds: Annotated[float | None, Parameter(help="A new limit on the run's time, in seconds.")] = None,
    no_report: NoReport = False,
    as_json: Json = False,
) -> None:
    """Go on with a run, bit for bit as if it had never stopped. A finished run stays as it is, unless its end is moved.

    Only the end can be moved: steps, seconds, and stop.*, as in `--steps 20000 --stop.on none`.

    $ onelayer resume runs/arithmetic-x-plus-y-0-20261123-164500
    """
    from ..report.terminal import Display

    asked = configs.merge(changes(fields), given(steps=steps, seconds=seconds))
    with Display() as display:
        result = go_on(run, dict(configs.dotted(asked)), display, probe=probe, speak=speak)
    conclude(result, not no_report, as_json, task=display.task)
