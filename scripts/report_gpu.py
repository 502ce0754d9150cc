"""docs/experiments/gpu.md from what benchmarks/gpu.py measured.

python benchmarks/gpu.py --out docs/experiments/gpu.json
python scripts/report_gpu.py
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent / "docs" / "experiments"


def page(found: dict[str, Any]) -> str:
    rates, step = found["rates"], found["step"]
    precisions = [f"| {name} | {rates[name] / 1e12:.0f} | {1000 * step[name]['seconds']:.2f} |" for name in rates]
    ensembles = [many(m, rates) for m in found["throughput"].values()]
    ends = [ended(g) for g in found["grokked"].values()]
    same = [
        f"| {name} | {alike(e['run'])} | {alike(e['ensemble'])} | {1000 * e['seconds']:.2f} |"
        for name, e in found["equal"].items()
    ]
    plain, sure = (found["equal"][name] for name in ("as it is", "deterministic"))
    return f"""# On a GPU

The JAX engine as it is, on one {found["device"].split(": ")[-1]}. The step is that of `onelayer grok`: 3,830 pairs, one
layer, width 128, AdamW; what it computes is counted in [performance](../performance.md).

## One run

| precision of products | measured rate, TFLOP/s | a step, ms |
| --- | --- | --- |
{chr(10).join(precisions)}

The rate is that of a product of 8,192² matrices. One run is too small for the chip: between its many small kernels the
chip waits, and no precision changes that.

## Many at once

| members | precision | a step of all, ms | a member's, µs | TFLOP/s | share of the rate | {STEPS}-step runs a minute |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(ensembles)}

The last column is reckoned from the step, not measured: so many runs of the default recipe grok in a minute if each
needs {STEPS} steps, as seed 0 does. With tf32 the products take less time than the passes between them through
memory, so the share of the rate falls.

Ensembles that were trained until each member had sustained 99 %:

| recipe | members | failures | sustained at step | training, s | compiling, s | grokked runs a minute of training |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(ends)}

**Compiling outweighs training.** XLA tries several kernels for each product of each size; Muon's recipe has many. A
cache on disk spares the second ensemble of a size that (`JAX_COMPILATION_CACHE_DIR=DIRECTORY`). Of larger ensembles of
`fastest`, and of one member, there is no figure: one of 1,024 had not ended 100 s after its start, compilation
included, and the time on the machine was over.

## Are two equal runs equal?

| | 300 steps, twice: the weights | 16 members of `fastest`, twice: the curves | a step, ms |
| --- | --- | --- | --- |
{chr(10).join(same)}

XLA may add up in any order where several rows go to one place, as the backward of a look-up has it. With
`XLA_FLAGS=--xla_gpu_deterministic_ops=true` two runs agree to the last bit, and a step of one run takes
{sure["seconds"] / plain["seconds"]:.1f} times as long. On a CPU two runs always agree.

## Repeat it

```sh
python benchmarks/gpu.py --out docs/experiments/gpu.json
python scripts/report_gpu.py
```

JAX {found["jax"]}, NumPy {found["numpy"]}. Raw figures: [gpu.json](gpu.json). The parts were run in two calls; what had
not reached the file when the time was over is copied from the printed lines, and so has fewer digits.
"""


STEPS = 370  # to sustain 99 %, of the default recipe, seed 0


def many(m: dict[str, Any], rates: dict[str, float]) -> str:
    """A row: an ensemble's step."""
    n, seconds = m["members"], m["seconds"]
    return (
        f"| {n:,} | {m['precision']} | {1e3 * seconds:.2f} | {1e6 * seconds / n:,.0f} | {m['flops'] / 1e12:.1f} | "
        f"{m['flops'] / rates[m['precision']]:.2f} | {60 / seconds * n / STEPS:,.0f} |"
    )


def ended(g: dict[str, Any]) -> str:
    """A row: an ensemble trained to its end."""
    s = g["sustained"]
    steps = f"{s['median']:.0f} ({s['least']:.0f} – {s['most']:.0f})"
    return (
        f"| {g['recipe']} | {g['members']:,} | {g['failures']} | {steps} | "
        f"{g['seconds']:.1f} | {g['compiled']:.0f} | {g['per_minute']:,.0f} |"
    )


def alike(digests: list[str]) -> str:
    return "equal to the last bit" if len(set(digests)) == 1 else "differ"


if __name__ == "__main__":
    path = HERE / "gpu.md"
    path.write_text(page(json.loads((HERE / "gpu.json").read_text())))
    print(path)
