"""The single-number measures of docs/grokking.md that apply to the run, each beside its untrained twin."""

from typing import Any

from onelayer.errors import BadInput
from onelayer.grokking.analysis import measure
from onelayer.grokking.measures import MEASURES, why_not
from onelayer.report.run import Run
from onelayer.report.section import Section, Table
from onelayer.report.wording import number

HEADER = ("measure", "here", "untrained", "what it is")
SLOW = (
    "gradient_alignment",
    "gradient_signal_to_noise",
    "commutator_defect",
)  # many gradients: `onelayer analyse` takes them


def applies(run: Run) -> bool:
    return run.model.architecture == "decoder_only"


def build(run: Run) -> Section:
    s = run.subject
    twin, found, absent = s.twin, {}, []
    for name, m in MEASURES.items():
        if why_not(name, s) is not None:
            absent.append(name.replace("_", " "))
        elif m.of.__annotations__["return"] is float and not m.costly and name not in SLOW:
            found[name] = measure(name, s, twin)
    if not found:
        raise BadInput("none of the measures applies")
    rows = tuple(_row(name, told) for name, told in found.items())
    marked = frozenset(i for i, told in enumerate(found.values()) if told["reads_high_on"])
    text = (
        f"Taken at step {run.checkpoints[-1]:,}, and beside it the same of the network before its first step, in the "
        "key frequencies of the trained one. Where that, or a network with nothing to find (docs/controls.md), reads "
        "no worse (shaded), a value proves nothing by itself. Those that are no single number, and what others found: "
        f"onelayer analyse {run.directory.path.name}."
    )
    without = f"\n\nTo this run do not apply: {', '.join(absent)}." if absent else ""
    return Section("Measures and their control", text + without, table=Table(HEADER, rows, marked))


def _row(name: str, told: dict[str, Any]) -> tuple[str, ...]:
    side = "high" if MEASURES[name].high else "low"
    mark = f". Its untrained twin reads about as {side}, or {side}er" if told["untrained_reads_no_worse"] else ""
    others = [control for control in told["reads_high_on"] if control != "untrained"]
    mark += f". Networks with nothing to find read no worse: {', '.join(others)}" if others else ""
    what = told["definition"] + mark
    return name.replace("_", " "), number(told["value"]), number(told["control"]), what
