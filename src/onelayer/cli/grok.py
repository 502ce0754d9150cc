"""`onelayer grok`: train a small Transformer on an operation, and watch it memorise, then understand."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..training import configure, train
from ._common import Json
from ._ensemble import grok_many
from ._runs import Fields, NoReport, changes, conclude, given, probe, read_config


def grok(
    *fields: Fields,
    operation: Annotated[
        str | None, Parameter(help="`x + y`, `x * y`, `S5: x*y`, or an expression: `(x**2 + 3*y) % p`.")
    ] = None,
    p: Annotated[int | None, Parameter(help="The modulus.")] = None,
    train_fraction: Annotated[float | None, Parameter(help="The share of all examples that is trained on.")] = None,
    seed: Annotated[int | None, Parameter(help="Of the split, the first weights and the batches.")] = None,
    seeds: Annotated[
        int | None, Parameter(help="So many runs as one JAX program, from --seed on, and how they are distributed.")
    ] = None,
    steps: Annotated[int | None, Parameter(help="The last step, at the latest.")] = None,
    engine: Annotated[str | None, Parameter(help="numpy or jax.")] = None,
    recipe: Annotated[
        str | None,
        Parameter(help="default, fastest, nanda-2023, power-2022, omnigrok-2022, grokfast-2024 or muon."),
    ] = None,
    config: Annotated[Path | None, Parameter(help="A .toml or .json file, laid over the recipe.")] = None,
    out: Annotated[Path | None, Parameter(help="The run's directory: new, or empty. By default one in runs/.")] = None,
    no_report: NoReport = False,
    as_json: Json = False,
) -> None:
    """Train a one-layer Transformer on an operation until it generalises, and write a report.

    Measures of grokking are taken meanwhile (docs/grokking.md); --evaluation.measures none does without.

    $ onelayer grok --operation "x * y" --seed 1 --model.d-model 64
    """
    from ..report.terminal import Display

    file = read_config(config)
    options = given(
        task__operation=operation,
        task__p=p,
        task__train_fraction=train_fraction,
        seed=seed,
        steps=steps,
        engine=engine,
        recipe=recipe,
    )
    measured = {"evaluation": {"measures": "progress"}} if seeds is None else {}
    chosen = configure(
        recipe or file.get("recipe", "default"),
        measured,
        file,
        options,
        changes(fields, "operation", "p", "train-fraction", "config", "out", "json"),
    )
    if seeds is not None:
        return grok_many(chosen, seeds, out, no_report, as_json)
    with Display() as display:
        result = train(chosen, out, display, probe=probe)
    conclude(result, not no_report, as_json)
