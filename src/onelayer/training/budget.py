"""A run fitted to its time: how many steps it will take is measured before it begins, and then stands in its config.

A schedule must know where it ends, and a run that can be repeated must not hang on the clock. So a few steps and an
evaluation are made and timed, thrown away, and `steps`, the schedule's end, evaluations and checkpoints follow from it.
`seconds` still holds: where the machine is slower later, the run stops there, before its schedule has come to the end.
"""

import time
from typing import Any

from .config import RunConfig, merge, resolve
from .engines import Engine

__all__ = ["fit"]

LOOKS = 20  # evaluations and checkpoints in all
FEWEST = 8  # steps that are timed, at least
SHARE = 0.04  # of the time, at most, for measuring; and LONGEST
LONGEST = 10.0  # seconds
FILLED = 0.96  # of the time that is planned for: machines are not always equally fast


def fit(config: RunConfig, engine: Engine) -> RunConfig:
    """The config with as many steps as its `seconds` allow on this machine."""
    assert config.seconds is not None
    begun = time.monotonic()
    state, _ = engine.run(engine.start(), 0, 2)  # kernels are compiled when they are first asked for
    started, done = time.monotonic(), 0
    while done < FEWEST or time.monotonic() - started < min(LONGEST, SHARE * config.seconds):
        state, _ = engine.run(state, 2 + done, 4)
        done += 4
    step = (time.monotonic() - started) / done
    started = time.monotonic()
    engine.evaluate(state)
    look = time.monotonic() - started
    left = FILLED * config.seconds - (time.monotonic() - begun) - (LOOKS + 1) * look
    return planned(config, max(int(left / step), 2 * LOOKS))


def planned(config: RunConfig, steps: int) -> RunConfig:
    """The config with so many steps, rounded to whole stretches between evaluations; all that hangs on it follows."""
    every = max(steps // LOOKS, 1)
    schedule: dict[str, Any] = {}
    if "total" in config.schedule.settings:
        schedule["total"] = every * LOOKS
    if "warmup" in config.schedule.settings:
        schedule["warmup"] = min(config.schedule.settings["warmup"], every * LOOKS // 10)
    change = {
        "steps": every * LOOKS,
        "schedule": schedule,
        "evaluation": {"every": every},
        "checkpoint": {"every": every},
    }
    return resolve(merge(config.as_dict(), change))
