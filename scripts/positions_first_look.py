#!/usr/bin/env python
"""Every positional encoding on seven probes, and a + b against a − b: scripts/positions_first_look.py [run|page]

run [PART/PARTS]   Train what is not in runs/positions-first-look.jsonl yet, a line each; stop it and go on at will.
                   With 1/2 and 2/2 two processes share the work.
page               From that file: docs/experiments/positions-first-look.json, .md and .png
                   (needs a Chromium). Where the .jsonl is not there, the .json is taken.

Needs: pip install '.[jax]', for the picture '.[test]'.
"""

import json
import os
import platform
import runpy
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from textwrap import fill

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np  # noqa: E402

from onelayer.report.figures import positions  # noqa: E402
from onelayer.studies import positions_first_look as study  # noqa: E402
from onelayer.tasks import probes  # noqa: E402

ROOT = Path(__file__).parent.parent
NAME = "positions-first-look"
FOLDER = ROOT / "docs" / "experiments"
PROBES, STRETCHES = tuple(probes.PROBES), tuple(f"{s:g}" for s in study.STRETCHES)
LINES = ROOT / "runs" / "positions-first-look.jsonl"


def run(part: str = "1/1") -> None:
    index, parts = map(int, part.split("/"))
    budget = study.Budget()
    todo = [("cell", cell.name) for cell in study.CELLS]
    todo += [
        ("sum", [operation, position, seed])
        for operation in ("x - y", "x + y")
        for position in study.SUMS
        for seed in range(budget.seeds)
    ]
    LINES.parent.mkdir(exist_ok=True)
    for kind, what in todo[index - 1 :: parts]:
        if (kind, what) in [(line["kind"], line["what"]) for line in read()]:
            continue
        print(kind, what, flush=True)
        figures = study.run_cell(study.find(what), budget) if kind == "cell" else study.run_sum(*what)
        line = {"kind": kind, "what": what, "figures": figures, "budget": budget._asdict(), "versions": versions()}
        with LINES.open("a") as file:
            file.write(json.dumps(line) + "\n")


def read() -> list[dict]:
    return [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("numpy", "jax")}
    return {"python": platform.python_version(), **packages, "machine": f"{platform.machine()}, {os.cpu_count()} CPUs"}


# ------------------------------------------------------------------------------------------ the page


def page() -> None:
    if LINES.exists():
        cells = {line["what"]: line for line in read() if line["kind"] == "cell"}
        sums = {tuple(line["what"]): line for line in read() if line["kind"] == "sum"}
        first = next(iter(cells.values()))
        collected = {
            "budget": first["budget"],
            "versions": first["versions"],
            "cells": [cells[cell.name]["figures"] for cell in study.CELLS if cell.name in cells],
            "sums": [line["figures"] for line in sums.values()],
        }
        FOLDER.joinpath(f"{NAME}.json").write_text(compact(collected))
    data = json.loads(FOLDER.joinpath(f"{NAME}.json").read_text())
    table = means(data)
    picture(table, [cell["cell"] for cell in data["cells"]])
    FOLDER.joinpath(f"{NAME}.md").write_text(words(data, table))


def compact(data: dict) -> str:
    """A line for each cell and each sum."""
    lines = [f'"{key}": {json.dumps(data[key])}' for key in ("budget", "versions")]
    for key in ("cells", "sums"):
        lines.append(f'"{key}": [\n' + ",\n".join(json.dumps(item) for item in data[key]) + "\n]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def means(data: dict) -> np.ndarray:
    """[cell, probe, stretch]: the mean over the seeds."""
    return np.array([[[np.mean(cell["accuracy"][p][s]) for s in STRETCHES] for p in PROBES] for cell in data["cells"]])


def ceilings(n: int) -> np.ndarray:
    """[probe, stretch] without order."""
    lengths = [0, *(round(float(s) * n) for s in STRETCHES)]
    return np.array([[probes.order_free_ceiling(p, b, a) for a, b in pairwise(lengths)] for p in PROBES])


def picture(table: np.ndarray, names: list[str]) -> None:
    render = runpy.run_path(str(ROOT / "scripts" / "pictures"))["render"]
    rows = np.concatenate([ceilings(study.Budget().n)[None], table])
    figure = positions.first_look(rows, ["(best without order)", *names], PROBES, STRETCHES)
    render(figure, FOLDER / f"{NAME}.png", width=1100, height=figure.layout.height, scale=1)


def words(data: dict, table: np.ndarray) -> str:
    """The page."""
    budget, versions = study.Budget(**data["budget"]), data["versions"]
    about = positions_about(data, table)
    minutes = sum(item["seconds"] for item in [*data["cells"], *data["sums"]]) / 60
    text = TEMPLATE.format(
        **about, **budget._asdict(), minutes=round(minutes), machine=versions["machine"], python=versions["python"],
        numpy=versions["numpy"], jax=versions["jax"], table=accuracy_table(data, table), sums=sums_table(data),
        cells=len(data["cells"]),
    )  # fmt: skip
    return "\n".join(
        fill(line, 120, subsequent_indent="  ") if line.startswith("- ") else line for line in text.split("\n")
    )


def accuracy_table(data: dict, table: np.ndarray) -> str:
    """Per cent at 1×, 2× and 4×, the mean over the seeds."""
    shown = [STRETCHES.index(s) for s in ("1", "2", "4")]
    rows = [("*best without order*", ceilings(data["budget"]["n"]))]
    rows += [(f"`{cell['cell']}`", values) for cell, values in zip(data["cells"], table, strict=True)]
    lines = ["| method | " + " | ".join(PROBES) + " |", "| --- |" + " ---: |" * len(PROBES)]
    for name, values in rows:
        cells = (" / ".join(f"{100 * v:.0f}" for v in probe[shown]) for probe in values)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sums_table(data: dict) -> str:
    lines = ["| task | position | train, by seed | ceiling without order | test, by seed |",
             "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for operation in ("x + y", "x - y"):
        for position in study.SUMS:
            found = [s for s in data["sums"] if (s["operation"], s["position"]) == (operation, position)]
            train, top, test = (
                ", ".join(f"{100 * s[key]:.1f} %" for s in found)
                for key in ("train_accuracy", "train_ceiling", "test_accuracy")
            )
            lines.append(f"| {operation.replace('-', '−')} | `{position}` | {train} | {top} | {test} |")
    return "\n".join(lines)


def positions_about(data: dict, table: np.ndarray) -> dict[str, object]:
    """The numbers that the page's sentences quote."""
    names = [cell["cell"] for cell in data["cells"]]
    none = np.abs(table[names.index("none")][:-1] - ceilings(data["budget"]["n"])[:-1]).max()
    capped = [s for s in data["sums"] if (s["operation"], s["position"]) == ("x - y", "none")]
    gap = max((abs(s["train_accuracy"] - s["train_ceiling"]) for s in capped), default=float("nan"))

    def solving(probe: str, stretch: str, at_least: float = 0.95) -> str:
        column = table[:, PROBES.index(probe), STRETCHES.index(stretch)]
        found = [f"`{name}`" for name, value in zip(names, column, strict=True) if value >= at_least]
        best = int(np.argmax(column))
        return ", ".join(found) or f"none (the best, `{names[best]}`, has {100 * column[best]:.0f}\u00a0%)"

    lists = {f"{probe}_{s}": solving(probe, s) for probe in PROBES for s in STRETCHES}
    return {**lists, "none_gap": f"{100 * none:.1f}", "capped_gap": f"{100 * gap:.1f}"}


TEMPLATE = """\
# Positional encodings: a first look

What can one layer learn about places under each method, and does it hold on longer sequences? Seven probes, {cells}
methods and numberings, {seeds} seeds, a small budget.

**A first look, no ranking.** One learning rate for all, nothing tuned to a method, {steps} steps: a method that falls
short may be slow here, not unable. Three seeds say little about small differences. The full study follows.

## The probes

| probe | the question at place t | one layer solves it with |
| --- | --- | --- |
| `lookup` | the letter at the place that this letter names | `learned` |
| `back` | the letter 3 places back | `t5` |
| `recent` | the most recent marked letter | `t5` |
| `nth` | the marked letter before the most recent one | `cope` |
| `align` | two numbers: the digit of equal place in the first | `learned` + abacus ids |
| `mirror` | two numbers: the digit of mirrored place in the first | `learned` + coupled ids |
| `majority` | the most frequent letter so far: no order is needed, a negative control | `none` |

The last column is tested: `tests/test_probes.py` sets the weights of one layer by hand, and it is right every time. The
*best without order* is the highest accuracy that can be had from the last letter and the multiset of those before it,
computed in `src/onelayer/tasks/probes.py`.

Training shows {n} letters. Tests at 1×, 1.5×, 2× and 4× ask only what is new at that length: places, or numbers, that
the shorter test did not have.

## What was found

![Accuracy of every method on every probe at four lengths](positions-first-look.png)

*Accuracy, the mean over {seeds} seeds. Columns: probes, each at 1×, 1.5×, 2× and 4× the training length.*

- Without positions (`none`) the net comes within {none_gap} points of the ceiling without order on the six probes that
  ask for order, at every length, and solves `majority`: it learns all that it can see, and no more.
- At least 95 % on `lookup`, at 1×: {lookup_1}. At 4×: {lookup_4}.
- `back`, at 1×: {back_1}. At 2×: {back_2}. At 4×: {back_4}.
- `recent`, at 1×: {recent_1}. At 4×: {recent_4}.
- `nth`, at 1×: {nth_1}. At 4×: {nth_4}.
- `align`, at 1×: {align_1}. At 4×: {align_4}.
- `mirror`, at 1×: {mirror_1}. At 4×: {mirror_4}.
- `majority`, at 1×: {majority_1}. At 4×: {majority_4}.

Per cent right at 1× / 2× / 4×; every seed and 1.5× stand in [the figures](positions-first-look.json).

{table}

## a + b against a − b

Mod 31, a one-layer net of width 64, both orders of a pair on the same side of the split, four fifths of the pairs in
training. Without positions a net cannot tell (a, b) from (b, a), so it is right in at most half of a − b, and in those
with a = b: (1 + 1/p)/2 of the whole table, and the ceiling given below of the pairs that were shown.

{sums}

Without positions, training ends within {capped_gap} points of that ceiling in every seed; a + b, which asks for no
order, it learns. Learned positions pass the ceiling. The recipe is that of `onelayer grok`, which was made with learned
positions, for 1,000 steps: what sinusoidal and rotary positions lack here may be a matter of the recipe.

## How it was made

```sh
python scripts/positions_first_look.py run      # picks up where it was stopped
python scripts/positions_first_look.py page     # this page, the figures and the picture
```

- Model: one block, width {d_model}, {n_heads} heads, feed-forward width {d_mlp}, no norm, causal. AdamW at {lr}, cosine
  after {warmup} steps of warm-up, weight decay {weight_decay}, batches of {batch}, float32.
- Seeds 0, 1, 2; a probe and a seed have the same sequences in the same order, and the same other first weights, under
  every method. {n_test} test sequences for each length and seed.
- Methods whose defaults were made for thousands of tokens are fitted to {n} (`positions.fitted`). Learned tables have
  rows for four times the training length; those that training never reaches stay as they were drawn, and a longer test
  uses them so. Under random, abacus and coupled ids training meets all the numbers that the tests use.
- Coupled ids are told how the task is built; they are an oracle, and no rival of the others.
- {machine}, shared with other work, one thread a process; Python {python}, NumPy {numpy}, JAX {jax}; {minutes} minutes
  of wall time in all processes together.
"""


if __name__ == "__main__":
    match sys.argv[1:] or ["run"]:
        case ["run", *part]:
            run(*part)
        case ["page"]:
            page()
        case _:
            raise SystemExit(__doc__)
