"""Many runs as one JAX program: over seeds, and over the numbers that need no other program.

Members differ in the seed (split, first weights), the learning rate, the weight decay, the initial scale or the train
fraction, and in nothing else; each is a config of its own, so that any of them can be run again alone. Smaller splits
are padded with examples of weight 0.

On a GPU, groups of members are trained side by side (`vmap`), as many as fit: their memory is known before the start
from the compiled step. On a CPU one after the other is as fast and needs less. A member that has finished, or diverged,
costs nothing more on a CPU; on a GPU the others close ranks once half of them are done, if that is worth compiling for.

Source    Frostig, Johnson & Leary 2018, Compiling machine learning programs via high-level tracing (JAX).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ..arrays import map_tree
from ..errors import BadInput
from ..fused import using
from ..sublayers import attention_blocked
from ..tasks import Batch, Task
from . import loop
from . import step as steps
from .config import RunConfig, differences
from .figures import Figures, observe
from .objective import scores

__all__ = ["Ensemble", "Member", "Progress", "members", "train"]

VARIES = ("seed", "optimizer.lr", "optimizer.weight_decay", "model.init_scale", "task.train_fraction", "task.seed")
SPARE = 0.6  # the share of free memory that an ensemble may take
UNTUNED = {"xla_gpu_autotune_level": 0}  # a program that is only asked what memory it takes is not tried out first


@dataclass(frozen=True)
class Member:
    """What became of one member. Its curve: (step, train accuracy, test accuracy) of every evaluation."""

    config: RunConfig
    figures: Figures
    steps: int
    diverged: bool
    curve: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Ensemble:
    members: tuple[Member, ...]
    seconds: float  # of training and evaluation, without compilation
    compiled: float  # seconds of compilation
    bytes_per_member: float
    side_by_side: int  # members trained at once
    device: str

    @property
    def failures(self) -> int:
        """Members that did not sustain the threshold."""
        return sum(member.figures.step_sustained is None for member in self.members)

    def distribution(self, figure: str = "step_sustained") -> dict[str, float | None]:
        """Median of a figure with its 95 % interval, and the extremes; None where failures leave it open."""
        values = sorted(math.inf if (v := getattr(m.figures, figure)) is None else float(v) for m in self.members)
        low, high = _ranks(len(values))
        middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
        found = {"median": middle, "low": values[low], "high": values[high], "least": values[0], "most": values[-1]}
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


class Progress(NamedTuple):
    step: int
    running: int
    finished: int
    seconds: float


def _ranks(n: int) -> tuple[int, int]:
    """Which of n ordered values bound the median with 95 % confidence (binomial); of fewer than 6, the extremes."""
    low, below = -1, 0.0
    while below + math.comb(n, low + 1) / 2**n <= 0.025:
        low += 1
        below += math.comb(n, low) / 2**n
    return max(low, 0), n - 1 - max(low, 0)


def members(config: RunConfig, seeds: int) -> list[RunConfig]:
    """The config with seeds from its own on."""
    if seeds < 1:
        raise BadInput(f"an ensemble has 1 seed or more; received {seeds}")
    return [config.model_copy(update={"seed": config.seed + i}) for i in range(seeds)]


def train(configs: Sequence[RunConfig], callback: Callable[[Progress], object] = lambda _: None) -> Ensemble:
    """All of them to their ends: sustained, diverged, or out of steps."""
    if find_spec("jax") is None:
        raise BadInput("an ensemble needs JAX: pip install 'onelayer[jax]'")
    check(configs)
    return _Program(configs).drive(callback)


def check(configs: Sequence[RunConfig]) -> None:
    """BadInput where the members need different programs."""
    if not configs:
        raise BadInput("an ensemble has one member or more; received none")
    first = configs[0]
    loop.refuse_branch(first, "an ensemble begins with the weights that the seeds draw")
    if first.batch_size is not None:
        raise BadInput(f"an ensemble trains on full batches; received batch_size={first.batch_size}, leave it out")
    if first.evaluation.measures != "none":
        raise BadInput(
            f"an ensemble takes no measures of its members; received evaluation.measures = "
            f"{first.evaluation.measures!r}, set it to none, or train one run at a time"
        )
    numbering = first.as_dict()["model"]["position_ids"]
    if numbering != "sequential":
        raise BadInput(
            f"an ensemble numbers places 0, 1, 2 …; received position_ids={numbering!r}, train one run at a time"
        )
    for config in configs[1:]:
        for name, a, b in differences(first.as_dict(), config.as_dict()):
            if name not in VARIES:
                raise BadInput(
                    f"members of an ensemble cannot differ in {name} ({a!r}, {b!r}); in: {', '.join(VARIES)}"
                )


class _Numbers(NamedTuple):
    """What a member has of its own; arrays over the members."""

    state: Any
    train: Batch
    test: Batch
    lr: Any
    decay: Any


class _Size:
    """The time at one number of places. To close ranks is to compile anew: it waits until this size has been of use for
    as long as its own programs took to compile, so that compiling costs no more than twice what the best choice had.
    """

    def __init__(self, compiled: float) -> None:
        self.begun, self.compiled = time.perf_counter(), compiled  # seconds of compilation before this size

    def paid(self, compiled: float) -> bool:
        compiling = compiled - self.compiled
        return time.perf_counter() - self.begun - compiling >= compiling


class _Program:
    def __init__(self, configs: Sequence[RunConfig]) -> None:
        import jax
        import jax.numpy as jnp

        self.jax, self.jnp, self.configs = jax, jnp, list(configs)
        config = configs[0]
        if "float64" in (config.dtype, config.loss.variant):
            jax.config.update("jax_enable_x64", True)
        tasks = [c.task.make(c.seed) for c in configs]
        self.objective, self.rules = steps.make_objective(config, tasks[0]), steps.make_rules(config)
        self.numbers = self._stack(tasks)
        self.device = jax.devices()[0]
        self.on_cpu = self._on_cpu(self.device)
        self.compile_seconds = 0.0
        self.bytes, self.group = self._fit()

    @staticmethod
    def _on_cpu(device: Any) -> bool:
        return device.platform == "cpu"

    def _stack(self, tasks: list[Task]) -> _Numbers:
        jnp, first = self.jnp, self.configs[0]

        def start(config: RunConfig) -> Any:
            model = self.objective.model.model_copy(update={"init_scale": config.as_dict()["model"]["init_scale"]})
            return steps.start(self.objective._replace(model=model), self.rules, config.seed, first.dtype)

        def stack(*arrays: Any) -> Any:
            return jnp.asarray(np.stack(arrays))

        train, test = (_padded([getattr(task, split) for task in tasks], first.dtype) for split in ("train", "test"))
        return _Numbers(
            state=map_tree(stack, *map(start, self.configs)),
            train=map_tree(jnp.asarray, train),
            test=map_tree(jnp.asarray, test),
            lr=jnp.asarray([c.optimizer.lr for c in self.configs]),
            decay=jnp.asarray([float(c.optimizer.settings.get("weight_decay", 0.0)) for c in self.configs]),
        )

    # ---------------------------------------------------------------------------------------- one member

    def _steps(self, own: _Numbers, step: Any, n: Any) -> tuple[Any, Any]:
        """n steps of one member: its new state, and whether it is still finite. One program for all n: it is traced."""
        has_decay = "weight_decay" in self.configs[0].optimizer.settings
        update = partial(self.rules.optimizer.update, **({"weight_decay": own.decay} if has_decay else {}))
        rules = self.rules._replace(lr=own.lr, optimizer=SimpleNamespace(update=update))

        def one(i: Any, carried: tuple[Any, Any]) -> tuple[Any, Any]:
            state, finite = carried
            with using(attention_blocked.STAND_INS):
                new, figures, _ = steps.take(state, own.train, step + i, self.objective, rules)
            return new, finite & self.jnp.isfinite(figures["loss"]) & self.jnp.isfinite(figures["grad_norm"])

        return self.jax.lax.fori_loop(0, n, one, (own.state, self.jnp.asarray(True)))

    def _scores(self, own: _Numbers) -> Any:
        """Train and test accuracy of one member."""

        def accuracy(batch: Batch) -> Any:
            with using(attention_blocked.STAND_INS):
                _, counts, correct, _ = scores(own.state.params, batch, self.objective)
            counted = counts > 0
            return (correct & counted).sum() / counted.sum()

        return self.jnp.stack([accuracy(own.train), accuracy(own.test)])

    # ---------------------------------------------------------------------------------------- all members

    def _all(self, f: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
        """f for each active member, otherwise its stand-in; in groups on a GPU, in turn on a CPU."""
        lax, group = self.jax.lax, None if self.on_cpu else self.group

        def all_members(numbers: _Numbers, active: Any, *shared: Any) -> Any:
            def one(each: tuple[_Numbers, Any]) -> Any:
                return lax.cond(each[1], f, otherwise, each[0], *shared)

            return lax.map(one, (numbers, active), batch_size=group)

        return self.jax.jit(all_members)

    def _fit(self) -> tuple[float, int]:
        """Bytes of a member, and how many fit side by side."""
        one = map_tree(lambda a: a[0], self.numbers)
        started = time.perf_counter()
        sizes = self.jax.jit(self._steps).lower(one, 0, 1).compile(UNTUNED).memory_analysis()
        self.compile_seconds += time.perf_counter() - started
        each = float(sizes.temp_size_in_bytes + sizes.output_size_in_bytes + sizes.argument_size_in_bytes)
        stored = float(sizes.argument_size_in_bytes) * len(self.configs)  # all members' states and data are kept
        free = SPARE * _free_memory(self.device)
        if stored + each > free:
            raise BadInput(
                f"{len(self.configs)} members keep {stored / 1e9:.1f} GB, and a step needs {each / 1e9:.2f} GB more; "
                f"{free / 1e9:.1f} GB may be used: take fewer seeds at a time"
            )
        return each, 1 if self.on_cpu else _group(len(self.configs), max(1, int((free - stored) / each)))

    def drive(self, callback: Callable[[Progress], object]) -> Ensemble:
        jnp, config = self.jnp, self.configs[0]
        from .engines.jax_engine import in_precision

        train = self._all(self._steps, lambda own, step, n: (own.state, jnp.asarray(True)))
        judge = self._all(self._scores, lambda own: jnp.zeros(2, own.lr.dtype))
        M = len(self.configs)
        places = np.arange(M)  # the member at each place of the stack
        alive, diverged, ends = np.ones(M, bool), np.zeros(M, bool), np.zeros(M, int)
        figures, curves = [Figures()] * M, [[] for _ in range(M)]
        numbers, step, begun, waited = self.numbers, 0, time.perf_counter(), self.compile_seconds
        ready: dict[Any, Any] = {}
        size = _Size(self.compile_seconds)

        def call(program: Any, key: Any, *arguments: Any) -> Any:
            if key not in ready:
                started = time.perf_counter()
                ready[key] = program.lower(*arguments).compile()
                self.compile_seconds += time.perf_counter() - started
            return ready[key](*arguments)

        with in_precision(config):
            while True:
                active = jnp.asarray(alive[places])
                if loop.evaluates(config, step):
                    accuracy = np.asarray(call(judge, ("judge", len(places)), numbers, active))
                    for place, member in enumerate(places):
                        if alive[member]:
                            record = {"step": step, "train_accuracy": accuracy[place, 0]}
                            record["test_accuracy"] = accuracy[place, 1]
                            figures[member] = observe(figures[member], record, config.stop)
                            curves[member].append((step, float(accuracy[place, 0]), float(accuracy[place, 1])))
                            ends[member] = step
                            done = config.stop.on == "sustained" and figures[member].step_sustained is not None
                            alive[member] = not done and step < config.steps
                    callback(Progress(step, int(alive.sum()), int(M - alive.sum()), time.perf_counter() - begun))
                if not alive.any() or step >= config.steps:
                    break
                if not self.on_cpu and alive[places].sum() <= len(places) // 2 and size.paid(self.compile_seconds):
                    kept = np.flatnonzero(alive[places])
                    places, numbers = places[kept], map_tree(lambda a, kept=kept: a[kept], numbers)
                    size = _Size(self.compile_seconds)
                n = loop.next_boundary(config, step) - step
                active = jnp.asarray(alive[places])
                state, finite = call(train, ("train", len(places)), numbers, active, step, n)
                numbers, step = numbers._replace(state=state), step + n
                lost = places[~np.asarray(finite)]
                diverged[lost], alive[lost], ends[lost] = True, False, step
        seconds = time.perf_counter() - begun - (self.compile_seconds - waited)
        found = tuple(
            Member(self.configs[i], figures[i], int(ends[i]), bool(diverged[i]), tuple(curves[i])) for i in range(M)
        )
        platform, kind = self.device.platform, self.device.device_kind
        name = platform.upper() if kind == platform else f"{platform.upper()} ({kind})"
        return Ensemble(found, seconds, self.compile_seconds, self.bytes, self.group, name)


def _group(members: int, fit: int) -> int:
    """How many at once, of as many as fit: a divisor if one is near, for a remainder is a second program to compile."""
    most = min(members, fit)
    return next((n for n in range(most, most // 2, -1) if members % n == 0), most)


def _padded(splits: list[Batch], dtype: str) -> Batch:
    """The members' splits as one array each; what a smaller one lacks has weight 0."""
    size = max(len(split.tokens) for split in splits)

    def pad(a: np.ndarray) -> np.ndarray:
        return np.concatenate([a, np.zeros((size - len(a), *a.shape[1:]), a.dtype)])

    def weights(split: Batch) -> np.ndarray:
        given = np.ones(split.targets.shape) if split.weights is None else split.weights
        return pad(np.asarray(given, dtype))

    whole = all(len(split.tokens) == size and split.weights is None for split in splits)
    parts = (np.stack([pad(np.asarray(a)) for a in arrays]) for arrays in zip(*[s[:2] for s in splits], strict=True))
    tokens, targets = parts
    more = [None if s is None else np.stack([pad(np.asarray(b[i])) for b in splits])  # type: ignore[arg-type]
            for i, s in enumerate(splits[0]) if i > 2]  # fmt: skip
    return Batch(tokens, targets, None if whole else np.stack([weights(split) for split in splits]), *more)


def _free_memory(device: Any) -> float:
    """Bytes that may still be had: of the device, or of this machine."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return 1024.0 * int(next(line for line in file if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):
        return 4e9
