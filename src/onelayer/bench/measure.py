"""Time in turn, memory one by one.

Time      warm up every contender; then, round by round, in an order that is drawn anew each round, time each contender
          and the reference product. A turn is a pause, in which the last one's threads fall asleep (OpenBLAS's wait
          awake for a tenth of a second, and take a core from whoever comes next), one step that is not timed, in which
          the library wakes its own, and then as many as fill a quarter of a second. A round's times are neighbours in
          time; ratios are of medians over the rounds.

Spread    the quartiles, as shares of the median.

Memory    NumPy: `tracemalloc`, which NumPy reports to, gives the peak; a counting allocator (NEP 49) every byte asked
          for. JAX: what the compiled program says of its buffers. PyTorch: its own profiler. Each of one step, beyond
          what stood before it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import generator
from ..errors import unknown
from . import Case, NotInstalled

__all__ = ["Measured", "matrix_rate", "run"]


@dataclass(frozen=True)
class Measured:
    """One contender's figures; seconds are of one step."""

    name: str
    seconds: list[float]
    flops: float | None
    memory: dict[str, float]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float(low), float(high)


@dataclass(frozen=True)
class Report:
    case: Case
    measured: dict[str, Measured]
    skipped: dict[str, str]
    rate: float  # the matrix-product rate, in operations per second: the median over the rounds
    rates: list[float]

    def share(self, name: str) -> float | None:
        """How much of the matrix-product rate a contender achieved."""
        flops, m = self.measured[name].flops, self.measured[name]
        return None if flops is None else flops / m.median / self.rate

    def ratio(self, ours: str, theirs: str) -> float | None:
        """How many times faster ours is."""
        if ours not in self.measured or theirs not in self.measured:
            return None
        return self.measured[theirs].median / self.measured[ours].median

    def cost(self, what: str, unit: str) -> float | None:
        """How many units it takes: the median over the rounds of its time over the unit's in the same round."""
        if what not in self.measured or unit not in self.measured:
            return None
        pairs = zip(self.measured[what].seconds, self.measured[unit].seconds, strict=True)
        return float(np.median([a / b for a, b in pairs]))

    def best(self, *beginnings: str) -> str | None:
        """The fastest of the contenders whose names begin so; "ours" are all that are no peer's."""
        named = [m for m in self.measured.values() if m.name.startswith(beginnings)]
        own = [m for m in self.measured.values() if not m.name.startswith(PEERS)]
        fit = own if beginnings == ("ours",) else named
        return min(fit, key=lambda m: m.median).name if fit else None


PEERS = ("torch", "jax, autodiff")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


TURN = 0.25  # seconds that a turn lasts, at least
PAUSE = 0.15  # seconds before it


def timed(do: Callable[[], Any], now: Callable[[], float], turns: int = 1) -> float:
    """Seconds of one step."""
    started = now()
    for _ in range(turns):
        do()
    return (now() - started) / (turns * getattr(do, "steps", 1))


def matrix_rate(m: int, k: int, n: int, now: Callable[[], float] = time.perf_counter) -> Callable[[], float]:
    """A function that measures NumPy's float32 product rate once, in operations per second."""
    rng = generator(0, "bench", "product")
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))
    out = np.empty((m, n), np.float32)
    repeats = max(1, round(5e9 / (2 * m * k * n)))

    def once() -> float:
        timed(lambda: [np.matmul(a, b, out=out) for _ in range(max(1, repeats // 2))], now)  # as a contender's turn
        seconds = timed(lambda: [np.matmul(a, b, out=out) for _ in range(repeats)], now)
        return 2 * m * k * n * repeats / seconds

    return once


def run(
    case: Case,
    rounds: int = 15,
    only: tuple[str, ...] = (),
    seconds: float = 60.0,
    say: Callable[[str], None] = print,
    clock: str = "wall",
) -> Report:
    """Measure a case. Rounds stop once `seconds` are over, but not before three.

    clock "cpu": processor time. On one thread it is what wall time would be, had the machine no other work.
    """
    if clock not in CLOCKS:
        raise unknown("clock", clock, CLOCKS)
    now = CLOCKS[clock]
    chosen = [c for c in case.contenders if not only or c.name in only]
    ready: dict[str, Callable[[], Any]] = {}
    skipped, memory, flops = {}, {}, {}
    for contender in chosen:
        try:
            ready[contender.name] = contender.make()
            ready[contender.name]()
        except NotInstalled as error:
            skipped[contender.name] = str(error)
            continue
        flops[contender.name] = contender.flops if contender.flops is not None else case.flops
        say(f"{case.name}: {contender.name} is ready")
    rate = matrix_rate(*case.rows, now)
    rate()
    often = {name: max(1, round(TURN / max(timed(do, time.perf_counter) * getattr(do, "steps", 1), 1e-6)))
             for name, do in ready.items()}  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in ready}
    rates, rng, begun = [], generator(0, "bench", "order"), time.perf_counter()
    for turn in range(rounds):
        for name in rng.permutation([*ready]):
            time.sleep(PAUSE)
            if often[name] > 1:  # not where a single one takes long: there is little to wake up for
                ready[name]()
            times[name].append(timed(ready[name], now, often[name]))
            time.sleep(PAUSE)
            rates.append(rate())
        if turn >= 2 and time.perf_counter() - begun > seconds:
            break
    for contender in chosen:
        if contender.memory is not None and contender.name in ready:
            memory[contender.name] = contender.memory()
    measured = {n: Measured(n, times[n], flops[n], memory.get(n, {})) for n in ready}
    return Report(case, measured, skipped, float(np.median(rates)), rates)
