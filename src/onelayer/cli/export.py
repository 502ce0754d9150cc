"""onelayer export: a run's weights, for other programs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ._common import Json, answer


def export(
    run: Annotated[Path, Parameter(help="A run's directory, or one that `--to safetensors` wrote.")],
    /,
    *,
    to: Annotated[str, Parameter(help="safetensors (our own names), torch, transformer-lens or gpt2.")],
    out: Annotated[Path, Parameter(help="A new directory for model.safetensors and config.json.")],
    weights: Annotated[
        str | None,
        Parameter(
            help="last, or a saved step; of a run of strings also best (by validation; the default) or average (of the "
            "last checkpoints)."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's weights as another program reads them: the same logits there, or a refusal that says why not.

    $ onelayer export runs/arithmetic-x-plus-y-0-20261123-164500 --to transformer-lens --out lens

    torch is nn.Transformer, for an encoder and a decoder; transformer-lens and gpt2 (in Hugging Face's layout) are for
    a decoder alone; safetensors keeps everything. Every name with its shape: docs/interchange.md
    """
    from ..interchange import export as convert
    from ..interchange import runs, write

    opened = runs.open_model(run, int(weights) if weights and weights.isdecimal() else weights)
    foreign = convert(opened.params, opened.model, to)
    write(foreign, out)
    numbers = sum(x.size for x in foreign.tensors.values())
    facts = {
        "run": run, "weights": opened.weights, "step": opened.step, "to": to, "out": out,
        "tensors": len(foreign.tensors), "numbers": numbers, "notes": foreign.notes, "config": foreign.config,
    }  # fmt: skip
    text = f"{len(foreign.tensors)} tensors, {numbers:,} numbers, in {out}"
    answer(facts, "\n".join([text, *(f"note: {note}" for note in foreign.notes)]), as_json=as_json)
