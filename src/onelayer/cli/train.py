"""`onelayer train`: any task, any config."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..errors import BadInput
from ..training import configure
from ..training import train as run_to_its_end
from ._common import Json
from ._runs import NoReport, changes, conclude, given, probe, read_config, speak, task_of


def train(
    *task_and_fields: Annotated[
        str,
        Parameter(
            name="TASK --SECTION.FIELD",
            allow_leading_hyphen=True,
            help="The task (arithmetic, addition, parity, …), by default the config's; then any field of the config, "
            "by its dotted name: --task.p 97 --model.d-model 64 --optimizer.lr=0.003 --schedule cosine.",
        ),
    ],
    seed: Annotated[int | None, Parameter(help="Of the task, the first weights and the batches.")] = None,
    steps: Annotated[int | None, Parameter(help="The last step, at the latest.")] = None,
    minutes: Annotated[float | None, Parameter(help="Stop after so much time; the schedule is fitted to it.")] = None,
    engine: Annotated[str | None, Parameter(help="numpy or jax.")] = None,
    recipe: Annotated[str | None, Parameter(help="What the config starts from; by default what fits the task.")] = None,
    config: Annotated[Path | None, Parameter(help="A .toml or .json file, laid over the recipe.")] = None,
    out: Annotated[Path | None, Parameter(help="The run's directory: new, or empty. By default one in runs/.")] = None,
    print_config: Annotated[bool, Parameter(negative="", help="Print the config as TOML, and train nothing.")] = False,
    no_report: NoReport = False,
    as_json: Json = False,
) -> None:
    """Train on any task; every field of the config is an option.

    $ onelayer train parity --task.n-bits 20 --optimizer.lr 0.003 --steps 2000
    """
    file = read_config(config)
    named = bool(task_and_fields) and not task_and_fields[0].startswith("--")
    task = task_and_fields[0] if named else task_of(file)
    if minutes is not None and not minutes > 0:
        raise BadInput(f"--minutes is more than 0, such as 8; received {minutes:g}")
    options = given(seed=seed, steps=steps, engine=engine, recipe=recipe, seconds=minutes and round(60 * minutes, 6))
    fields = changes(task_and_fields[named:], "minutes", "config", "out", "print-config", "json", task=task)
    chosen = configure(recipe, file, {"task": task} if named else {}, options, fields)
    if print_config:
        print(chosen.to_toml(), end="")
        return
    from ..report.terminal import Display

    named_steps = "steps" in file or steps is not None or "steps" in fields
    with Display() as display:
        result = run_to_its_end(chosen, out, display, probe=probe, speak=speak, fit=not named_steps)
    conclude(result, not no_report, as_json, task=display.task)
