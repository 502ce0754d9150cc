"""docs/experiments/bench.md from what `onelayer bench --json` printed.

onelayer bench generation grok encoder-decoder language-model-1 language-model-4 long-4096 --seconds 16 --json \\
    | tail -n 1 > docs/experiments/bench.json
python scripts/report_bench.py
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent / "docs" / "experiments"
COMMAND = """\
```sh
onelayer bench generation grok encoder-decoder language-model-1 language-model-4 long-4096 --seconds 16 --json \\
    | tail -n 1 > docs/experiments/bench.json
python scripts/report_bench.py
```

Generation comes first: where JAX has run before in the process, small operations of the main thread take a fifth longer
(426 ms in place of 355 with the KV cache, until PyTorch runs its first product), whatever does them; why, is not known.
Garbage collection, threads awake and memory given back were ruled out."""


def mega(count: float | None) -> str:
    return "–" if count is None else f"{count / 1e6:,.0f}"


def block(name: str, case: dict[str, Any]) -> list[str]:
    """A case: what was measured, the contenders, and what is promised."""
    rate = case["matrix_rate"]
    lines = [f"## {name}", "", f"{case['text']} Matrix products ran at {rate / 1e9:.0f} GFLOP/s (median)"]
    if case["flops"]:
        lines[-1] += f"; the arithmetic of this step, {case['flops'] / 1e9:.2f} GFLOP, takes "
        lines[-1] += f"{1e3 * case['flops'] / rate:.1f} ms at that rate"
    lines[-1] += "."
    lines += ["", "| | ms, median | quartiles | share of the rate | peak MB | asked for, MB |", "| --- " * 6 + "|"]
    for who, m in sorted(case["contenders"].items(), key=lambda item: item[1]["milliseconds"]):
        low, high = m["quartiles"]
        share = "–" if m["share"] is None else f"{m['share']:.2f}"
        lines.append(
            f"| {who} | {m['milliseconds']:,.1f} | {low:,.1f} to {high:,.1f} | {share} | {mega(m['peak_bytes'])} | "
            f"{mega(m['allocated_bytes'])} |"
        )
    if case["bounds"]:
        lines += ["", "| | | measured | bound |", "| --- " * 4 + "|"]
        for b in case["bounds"]:
            met = "" if b["ratio"] >= b["bound"] else ", **not met**"
            lines.append(f"| {b['ours']} | against {b['theirs']} | {b['ratio']:.2f} | {b['bound']:.2f}{met} |")
    lines += [f"\nSkipped: {who} ({why})." for who, why in case["skipped"].items()]
    return [*lines, ""]


def main() -> None:
    found = json.loads((HERE / "bench.json").read_text("utf-8"))
    machine = found["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    lines = [
        "# Side by side",
        "",
        "Training steps and generation beside PyTorch and naive JAX, in one process, in turn: medians over the rounds.",
        "A ratio is how many times faster (or, for memory, smaller) the one is than the other; compare within a table.",
        "The share of the rate counts a step's products as the model is wired, whatever a contender makes of them.",
        "What was done, and why it helps: [performance](../performance.md).",
        "",
    ]
    for name, case in found["cases"].items():
        lines += block(name, case)
    lines += [
        COMMAND,
        "",
        "How narrowly, and why: [performance](../performance.md).",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, load {machine['load']:.1f} at the end; Python "
        f"{machine['python']}, {versions}. Raw figures: [bench.json](bench.json).",
    ]
    (HERE / "bench.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
