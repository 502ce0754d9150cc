"""onelayer import: weights of other programs, as a model or a run of ours."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ._common import Json, answer


def import_(
    path: Annotated[Path, Parameter(help="A directory with model.safetensors and config.json.")],
    /,
    *,
    from_: Annotated[str, Parameter(name="--from", help="safetensors, torch, transformer-lens or gpt2.")],
    out: Annotated[Path, Parameter(help="A new directory.")],
    like: Annotated[
        Path | None,
        Parameter(help="A run, or a config (.toml, .json): its task and all else but the model make --out a run."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take in another program's weights: the same logits here, or a refusal that says what has no counterpart.

    $ onelayer import gpt2 --from gpt2 --out runs/gpt2-weights

    With `--like RUN` the result is a run at step 0, which every command that looks into a run can open and `resume`
    trains on; the model must fit the task's vocabulary and lengths. Without, it is the weights in our own names, which
    `onelayer export` takes. docs/interchange.md says what is expected in the two files.
    """
    from ..arrays import flatten
    from ..interchange import export, restore, runs, write

    cfg, params = restore(path, from_)
    if like is None:
        write(export(params, cfg, "safetensors"), out)
    else:
        runs.create(cfg, params, like, out, {"from": from_, "path": str(path)})
    flat = flatten(params)
    numbers = sum(x.size for x in flat.values())
    model = cfg.model_dump(mode="json")
    facts = {"from": from_, "path": path, "run" if like else "out": out, "tensors": len(flat), "numbers": numbers,
             "model": model}  # fmt: skip
    what = f"a run at step 0 in {out}" if like else f"in {out}"
    answer(facts, f"{len(flat)} tensors, {numbers:,} numbers, {what}", as_json=as_json)


globals()["import"] = import_  # the command's name, which Python keeps for itself
