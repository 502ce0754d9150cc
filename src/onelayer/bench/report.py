"""What was measured, as a table for people and as plain facts for programs."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from .measure import Report

__all__ = ["facts", "machine", "table"]


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    found = {}
    for name in ("numpy", "jax", "torch", "numba"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": cores,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": found,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def facts(report: Report) -> dict[str, Any]:
    """Everything measured, as plain values."""
    contenders = {
        name: {
            "milliseconds": 1e3 * m.median,
            "quartiles": [1e3 * q for q in m.quartiles],
            "rounds": len(m.seconds),
            "share": report.share(name),
            "peak_bytes": m.memory.get("peak"),
            "allocated_bytes": m.memory.get("allocated"),
        }
        for name, m in report.measured.items()
    }
    return {
        "text": report.case.text,
        "flops": report.case.flops,
        "matrix_rate": report.rate,
        "matrix_rate_quartiles": np.quantile(report.rates, [0.25, 0.75]).tolist(),
        "contenders": contenders,
        "bounds": bounds(report),
        "costs": costs(report),
        "skipped": report.skipped,
    }


def bounds(report: Report) -> list[dict[str, Any]]:
    """What is promised, and what was found; a name stands for the fastest contender whose name begins so."""
    rows = []
    for ours, theirs, bound in report.case.bounds:
        a, b = (name if name in report.measured else report.best(name) for name in (ours, theirs))
        if a is not None and b is not None:
            rows.append({"ours": a, "theirs": b, "ratio": report.ratio(a, b), "bound": bound})
    share = report.case.facts.get("share")
    if share and share[0] in report.measured:
        rows.append({"ours": share[0], "theirs": "matrix products", "ratio": report.share(share[0]), "bound": share[1]})
    least: float = report.case.facts.get("memory", 0.0)
    for ours, theirs, _ in report.case.bounds if least else ():
        if ours in report.measured and theirs in report.measured:
            a, b = (report.measured[name].memory.get("peak") for name in (ours, theirs))
            if a and b:
                rows.append({"ours": f"{ours}, memory", "theirs": theirs, "ratio": b / a, "bound": 1 / least})
    return rows


def costs(report: Report) -> list[dict[str, Any]]:
    """What may take at most so many units, and how many it took."""
    rows = ((what, unit, report.cost(what, unit), most) for what, unit, most in report.case.costs)
    return [
        {"what": what, "unit": unit, "cost": cost, "bound": most} for what, unit, cost, most in rows if cost is not None
    ]


def table(reports: Sequence[Report]) -> str:
    """Lines of text: a block for each case, the fastest first."""
    lines = []
    for report in reports:
        lines += ["", report.case.text, f"matrix products: {report.rate / 1e9:.0f} GFLOP/s"]
        if report.case.flops:
            floor = 1e3 * report.case.flops / report.rate
            lines[-1] += f"; this work's arithmetic: {report.case.flops / 1e9:.2f} GFLOP, {floor:.1f} ms at that rate"
        wide = max([34, *(len(name) + 1 for name in report.measured)])
        lines.append(f"  {'':{wide}}{'ms':>9}{'quartiles':>16}{'share':>7}{'peak MB':>9}{'asked MB':>10}")
        for m in sorted(report.measured.values(), key=lambda m: m.median):
            share, (low, high) = report.share(m.name), m.quartiles
            numbers = [m.memory.get(kind) for kind in ("peak", "allocated")]
            peak, asked = ("" if n is None else f"{n / 1e6:.1f}" for n in numbers)
            spread = f"{1e3 * low:.1f} – {1e3 * high:.1f}"
            part = "" if share is None else f"{share:.2f}"
            lines.append(f"  {m.name:{wide}}{1e3 * m.median:9.1f}{spread:>16}{part:>7}{peak:>9}{asked:>10}")
        lines += [f"  skipped: {name} ({why})" for name, why in report.skipped.items()]
        for row in bounds(report):
            met = "met" if row["ratio"] >= row["bound"] else "NOT met"
            lines.append(
                f"  {row['ours']} against {row['theirs']}: {row['ratio']:.2f} (bound {row['bound']:.2f}: {met})"
            )
        for row in costs(report):
            met = "met" if row["cost"] <= row["bound"] else "NOT met"
            lines.append(f"  {row['what']}: {row['cost']:.2f} × {row['unit']} (at most {row['bound']:g}: {met})")
    return "\n".join(lines[1:])
