"""What the commands that drive runs share: a config's fields as options, the end of a run in words and in JSON."""

import inspect
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from .. import tasks
from ..errors import BadInput, WorkFailed, unknown
from ..models.config import ModelConfig
from ..tasks import Task
from ..training import Result, Run, RunConfig, units_file
from ..training import config as configs
from ..training.measuring import Measure
from ._common import answer

if TYPE_CHECKING:
    from ..words.final import Final

__all__ = ["Fields", "NoReport", "changes", "conclude", "given", "probe", "read_config"]

Fields: TypeAlias = Annotated[
    str,
    Parameter(
        name="--SECTION.FIELD",
        allow_leading_hyphen=True,
        help="Any field of the config, by its dotted name: --model.d-model 64 --optimizer.lr=0.003 --schedule cosine.",
    ),
]
NoReport: TypeAlias = Annotated[bool, Parameter(name="--no-report", negative="", help="Do not write report.html.")]


def changes(tokens: Sequence[str], *options: str, task: str | None = None) -> dict[str, Any]:
    """`--model.d-model 64`, `--optimizer.lr=0.003` and `--set stop.on=none` as a nested config.

    task: whose settings may be named without `task.`, as in `--train words.tsv`; a switch may stand alone (`--shared`).
    options: those of the command beside, to be listed where a word is unknown.
    """
    own = {} if task is None else settings_of(task)
    dotted: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token == "--set" and rest:
            token = f"--{rest.pop(0)}"
            if "=" not in token:
                raise BadInput(f"--set takes FIELD=VALUE, received {token[2:]!r}; for example --set optimizer.lr=0.003")
        if not token.startswith("--"):
            raise BadInput(f"received {token!r}, where an option is expected, such as --seed 1 or --model.d-model 64")
        name, equals, value = token[2:].partition("=")
        field = name.partition(".")[0].replace("-", "_")
        if field not in RunConfig.model_fields and field in own and "." not in name:
            name = f"task.{name}"
            if own[field] is bool and not equals and (not rest or rest[0].startswith("--")):
                equals, value = "=", "true"
        elif field not in RunConfig.model_fields:
            allowed = dict.fromkeys((*options, *(field.replace("_", "-") for field in (*own, *RunConfig.model_fields))))
            raise unknown("option", f"--{name}", [f"--{word}" for word in allowed])
        if not equals:
            if not rest:
                raise BadInput(f"--{name} needs a value, such as --{name}=1")
            value = rest.pop(0)
        dotted[name] = configs.parse_value(value)
    return configs.nest(dotted)


def settings_of(task: str) -> dict[str, Any]:
    """The settings of a task, by name, with their types."""
    return {name: p.annotation for name, p in inspect.signature(tasks.get(task)).parameters.items() if name != "seed"}


def task_of(file: Mapping[str, Any]) -> str | None:
    """The task that a config file names."""
    task = file.get("task")
    return task.get("name") if isinstance(task, Mapping) else task


def given(**options: Any) -> dict[str, Any]:
    """The options that were given, by their dotted field with `__` for the dot: `given(task__p=97)`."""
    return configs.nest({name.replace("__", "."): value for name, value in options.items() if value is not None})


def read_config(path: Path | None) -> dict[str, Any]:
    return {} if path is None else configs.load(path)


def probe(config: RunConfig, task: Task) -> Measure | None:
    """What measures a run that asks for it; imported when asked for."""
    from ..grokking.probe import prepare

    return prepare(config, task)


def speak(task: Task, model: ModelConfig) -> Callable[[Any], object]:
    """What lets a run of strings say something at each evaluation; imported when asked for."""
    from ..words.progress import progress

    return progress(task, model)


def _any(result: Result, config: RunConfig) -> dict[str, Any]:
    """What the end of every run tells."""
    return {
        "task": config.task.name,
        "seed": config.seed,
        "engine": config.engine,
        "recipe": config.recipe,
        "status": result.status,
        "reason": result.reason,
        "steps": result.step,
        "seconds": round(result.seconds, 3),
    }


def facts(result: Result, config: RunConfig, report: Path | None) -> dict[str, Any]:
    """The end of a run as one JSON object."""
    settings, figures, record = config.task.settings, result.figures, result.record
    return {
        **_any(result, config),
        **{name: settings.get(name) for name in ("operation", "p", "train_fraction")},
        "step_memorised": figures.step_memorised,
        "step_generalised": figures.step_generalised,
        "step_sustained": figures.step_sustained,
        "minimum_after": figures.minimum_after,
        **{name: record.get(name) for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy")},
        "mirror_free_accuracy": record.get("mirror_free_accuracy"),
        "majority_accuracy": result.facts.get("majority_accuracy"),
        "run": result.run,
        "report": report,
    }


def facts_of_words(result: Result, config: RunConfig, report: Path | None, final: "Final | None") -> dict[str, Any]:
    """The end of a run of strings as one JSON object."""
    return {
        **_any(result, config),
        "tokens_per_second": round(result.tokens / result.busy, 1) if result.busy else None,
        "step_best": result.figures.step_best,
        **{name: value for name, value in result.record.items() if name.startswith(("train_", "valid_", "test_"))},
        **({"metrics": {}} if final is None else final.as_dict()),
        "run": result.run,
        "report": report,
    }


def judged(result: Result, task: Task | None) -> "Final | None":
    """Of a run of strings that has come to its end: what it says, judged. None: there is nothing to judge."""
    if result.status != "finished" or not (result.run / units_file.NAME).exists():
        return None
    from ..words import final

    found = final.conclude(result.run, task)
    final.keep(result.run, found, result.step)
    return found


def conclude(
    result: Result,
    with_report: bool,
    as_json: bool,
    also: tuple[dict[str, Any], str] | None = None,
    task: Task | None = None,
) -> None:
    """Write the report, print the figures, and end as the run did: 0, 1 diverged, 130 or 143 interrupted.

    also: more to say before the figures, as facts and in words.    task: the run's, where it is at hand.
    """
    from ..report.terminal import scored, summary

    config = Run(result.run).config
    final = judged(result, task)
    report, trouble = None, None
    if with_report and result.status == "finished":
        from ..report import write_report

        try:
            report = write_report(result.run)
        except (OSError, BadInput, WorkFailed) as error:
            trouble = WorkFailed(f"the run is complete, but its report could not be written: {error}")
    text = summary(result, config) + (f"\nreport  {report}" if report else "")
    more, words = also or ({}, "")
    of_words = (result.run / units_file.NAME).exists()
    told = facts_of_words(result, config, report, final) if of_words else facts(result, config, report)
    answer(told | more, "\n".join(filter(None, [words, text, scored(final)])), as_json=as_json)
    if trouble:
        raise trouble
    if result.status == "diverged":
        raise WorkFailed(
            f"{result.reason}. What was measured before, and the last good checkpoint, are in {result.run}"
        )
    if result.status == "interrupted":
        words = f"stopped at step {result.step}, and kept: `onelayer resume {result.run}` goes on from there"
        if result.signal == signal.SIGINT:
            raise KeyboardInterrupt(words)
        print(f"onelayer: {words}", file=sys.stderr)
        raise SystemExit(128 + (result.signal or 0))
