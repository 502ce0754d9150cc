"""A run while it runs, on standard error: a bar, how fast and how much longer, losses and accuracies as sparklines, and
the phase it is in, or where it was best; of a run of strings, a few that it says.

Where standard error is no terminal, plain lines instead: at steps that double, and when the phase changes; of a run of
strings at every evaluation.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..tasks import Task
from ..training.config import RunConfig
from ..training.events import Advanced, Checkpointed, Evaluated, Event, Finished, Result, Started
from ..training.figures import Figures, fold, phase
from ..training.run_directory import Run
from ..words.final import Final

__all__ = ["Display", "scored", "sparkline", "summary"]

BLOCKS = "▁▂▃▄▅▆▇█"
REFRESH = 0.2  # seconds between two pictures, at least


def sparkline(values: Sequence[float], width: int, low: float = 0.0, high: float = 1.0) -> str:
    """The series as blocks, low to high, the newest at the right; a longer one is thinned evenly."""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    span = high - low or 1.0
    return "".join(BLOCKS[min(7, max(0, int((value - low) / span * 8)))] for value in values)


def number(value: float | None) -> str:
    """Short, and as wide for small numbers as for large ones."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.1e}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


class Display:
    """A callback for `train`; `with Display() as display: train(config, out, display)`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.config: RunConfig | None = None
        self.run = Path()
        self.history: list[dict[str, Any]] = []
        self.figures = Figures()
        self.step, self.first, self.seconds, self.begun = 0, 0, 0.0, time.monotonic()
        self.task: Task | None = None
        self.rate, self.said = 0.0, ""  # targets a second; what a run of strings said last
        self._drawn, self._said, self._phase = 0.0, -1, ""
        self._live: Live | None = None

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self.config, self.run, self.task = event.config, event.run, event.task
                self.step = self.first = event.step
                self.begun = time.monotonic()
                self.history = Run(event.run).metrics
                self.figures = fold(self.history, event.config.stop)
                self._begin(event)
            case Advanced():
                self.step, _, self.seconds, self.rate = event
            case Evaluated():
                self.step, record, self.figures, self.seconds, self.said = event
                self.history.append(record)
            case Checkpointed():
                return
        if self._live:
            if time.monotonic() - self._drawn >= REFRESH or isinstance(event, Finished):
                self._live.update(self.picture(), refresh=True)
                self._drawn = time.monotonic()
        elif isinstance(event, Evaluated):
            self._line(event)

    def _begin(self, event: Started) -> None:
        for note in event.notes:
            self.console.print(f"note: {note}", style="yellow", markup=False, highlight=False)
        where = f"from step {event.step} " if event.step else ""
        self.console.print(
            f"training {where}in {event.run}", style="dim", markup=False, highlight=False, soft_wrap=True
        )

    def _line(self, event: Evaluated) -> None:
        assert self.config is not None
        now, r = state(self.config, event.figures), event.record
        if now == self._phase and event.step < 2 * self._said and not event.says:
            return
        held, accuracy = measured(r)
        told = [
            f"step {event.step:>6}  loss {number(r.get('train_loss'))} / {number(r.get(f'{held}_loss'))}",
            f"accuracy {percent(r.get(f'train_{accuracy}'))} / {percent(r.get(f'{held}_{accuracy}'))}",
        ]
        if event.says:
            told += [f"{self.rate:,.0f} tokens/s", self.left()] if self.rate else []
        self.console.print("  ".join([*told, now]), markup=False, highlight=False, soft_wrap=True)
        for line in event.says.splitlines():
            self.console.print(f"       {line}", markup=False, highlight=False, soft_wrap=True)
        self._phase, self._said = now, max(event.step, 1)

    def left(self) -> str:
        """How much longer it takes at most, at the pace so far."""
        assert self.config is not None
        pace = (self.step - self.first) / max(time.monotonic() - self.begun, 1e-9)
        times = [(self.config.steps - self.step) / pace] if pace else []
        times += [self.config.seconds - self.seconds] if self.config.seconds is not None else []
        return f"{duration(max(min(times), 0))} left" if times else ""

    def picture(self) -> RenderableType:
        """What stands on the terminal now."""
        assert self.config is not None
        total = self.config.steps
        wide = max(10, min(48, self.console.width - 42))
        last = self.history[-1] if self.history else {}
        rate = (self.step - self.first) / max(time.monotonic() - self.begun, 1e-9)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(total, 1), completed=self.step, width=wide),
            f"step {self.step} of at most {total}", f"{rate:.0f}/s", f"{self.seconds:.0f} s",
        )  # fmt: skip
        rows = Table.grid(padding=(0, 2))
        held, accuracy = measured(last)
        rows.add_row("", Text("train", style="cyan"), "", Text(held, style="magenta"), "")
        half = max(6, (self.console.width - 44) // 2)
        for label, name, show in ((accuracy.replace("_", " "), accuracy, percent), ("loss", "loss", number)):
            cells: list[RenderableType] = [label]
            for split, style in (("train", "cyan"), (held, "magenta")):
                values = [r[f"{split}_{name}"] for r in self.history if f"{split}_{name}" in r]
                cells += [Text(_spark(values, half, name), style=style), show(last.get(f"{split}_{name}"))]
            rows.add_row(*cells)
        return Panel(
            Group(
                bar, Text(), rows, Text(), Text(state(self.config, self.figures), style="bold"),
                *([Text(f"{self.rate:,.0f} tokens/s, {self.left()}"), Text(), Text(self.said)] if self.said else []),
            ),
            title=_title(self.config),
        )  # fmt: skip


def measured(record: dict[str, Any]) -> tuple[str, str]:
    """Which split stands beside train in a record, and how its accuracy is called there."""
    held = "valid" if "valid_loss" in record else "test"
    strings = "train_teacher_forced_accuracy" in record
    return held, "teacher_forced_accuracy" if strings else "accuracy"


def state(config: RunConfig, figures: Figures) -> str:
    """Where a run stands: its phase, or, where it chooses its best weights and does not stop by a threshold, those."""
    if config.stop.best is None or config.stop.on != "none" or figures.best is None:
        return phase(figures)
    return f"best {config.stop.best.replace('_', ' ')} {number(figures.best)} at step {figures.step_best}"


def duration(seconds: float) -> str:
    """75 as `1 min 15 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _spark(values: Sequence[float], width: int, name: str) -> str:
    """Accuracies between 0 and 1; losses on a log scale between their extremes."""
    if name.endswith("accuracy") or not values:
        return sparkline(values, width)
    logs = [math.log10(max(value, 1e-12)) for value in values]
    return sparkline(logs, width, min(logs), max(logs))


def _title(config: RunConfig) -> str:
    settings = config.task.settings
    about = f"{settings['operation']} mod {settings['p']}" if {"operation", "p"} <= settings.keys() else ""
    return " · ".join(part for part in (config.task.name, about, f"seed {config.seed}", config.engine) if part)


def summary(result: Result, config: RunConfig) -> str:
    """The figures of a run that has ended, in words."""
    f, r = result.figures, result.record
    metric, threshold = config.stop.metric.replace("_", " "), percent(config.stop.threshold)
    at: Callable[[int | None], str] = lambda step: "never" if step is None else f"step {step}"  # noqa: E731
    looking = f", {result.measuring:.1f} of them to measure" if result.measuring >= 0.05 else ""
    delay = ""
    if f.step_memorised and f.step_sustained:
        delay = f", {f.step_sustained / f.step_memorised:.1f} times as late"
    held, accuracy = measured(r)
    rows = [("ended", f"{result.status} at step {result.step}: {result.reason} ({result.seconds:.1f} s{looking})")]
    if config.stop.metric in r:
        rows += [
            (f"train accuracy ≥ {threshold}", at(f.step_memorised)),
            (f"{metric} ≥ {threshold}", f"{at(f.step_generalised)} first; {at(f.step_sustained)} held{delay}"),
            ("lowest after that", percent(f.minimum_after)),
        ]
    if f.best is not None and config.stop.best:
        rows.append((f"best {config.stop.best.replace('_', ' ')}", f"{number(f.best)}, {at(f.step_best)}"))
    rows.append(
        (
            f"final {accuracy.replace('_', ' ')}",
            f"train {percent(r.get(f'train_{accuracy}'))}, {held} {percent(r.get(f'{held}_{accuracy}'))}",
        )
    )
    if "mirror_free_accuracy" in r:
        rows.append(("", f"of pairs whose mirror was not trained on {percent(r['mirror_free_accuracy'])}"))
    if "majority_accuracy" in result.facts:
        rows.append(("", f"always answering the commonest class {percent(result.facts['majority_accuracy'])}"))
    rows.append(("run", str(result.run)))
    widest = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{widest}}  {text}" for name, text in rows)


def scored(final: Final | None) -> str:
    """What a run of strings says, judged: a line a split."""
    if final is None:
        return ""
    rows = [("weights", f"{final.weights}, of step {final.step}, chosen on valid; {final.how}")]
    rows += [(split, ", ".join(_told(name, x) for name, x in found.items())) for split, found in final.metrics.items()]
    return "\n".join(f"{name:<12}{text}" for name, text in rows)


def _told(name: str, value: Any) -> str:
    share = isinstance(value, float) and (name == "exact_match" or name.endswith("_rate"))
    shown = f"{100 * value:.2f} %" if share else f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{name.replace('_', ' ')} {shown}"
