"""The ledger: why did this weight move, and which part of the gradient bought the change in the test loss?

    ledger = Ledger(config, objective, by="route")          objective: training.step.make_objective(config, task)
    train(config, watch=ledger)                             the run is bitwise what it is without
    ledger.moved("embed.W_E")                               {"skip · Q0": [V D], …, "decay": [V D]}
    ledger.completeness                                     the largest |w₀ + Σ moved − w_T|/max|w_T| of any tensor

Weights   w_T = w₀ + Σ_k Δ_k + decay.  Each group k keeps a momentum of its own and moves by its share of every step
          (motion.py), so Δ_k is what group k did to the weight over the whole training. Beside the groups stand
            decay        what weight decay did (coupled decay: through a momentum of its own)
            earlier      what the momentum did that the run had gathered before the ledger was opened
            projection   what a projection did after the optimizer

Loss      L(w_T) − L(w₀) = Σ_steps ∫₀¹ ∇L(w + s Δw)·Δw ds over the straight line of each step, and Δw is a sum over
          groups: so is the integral. Simpson's rule; since L is known at both ends, so is what it misses, and its
          panels are doubled until that is below `tolerance` of the change, or there are `panels` of them. Where the
          loss is smooth one panel does; relu's kinks ask for more. A panel costs two gradients of the judged batch.
          What is missed in the end is `loss.error`.

Exact     `note` says in what sense: motion.py. In float64 the sums hold to rounding; a float32 run rounds its weights
          at each step, and the ledger shows that as a completeness of about 1e-6.
          `residual` is how far the parts of any one step's gradient were from the gradient itself.

Memory    2 (K + 3) copies of each tensor with K groups; refused before the first step where it is not there.

Source    The loss by steps: Lan et al. 2019, LCA: Loss Change Allocation, arXiv:1909.01440 (by parameter).
          docs/microscope/ledger.md
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, flatten, map_tree, unflatten
from ..errors import BadInput, unknown
from ..layers import cross_entropy
from ..tasks import Batch
from . import gates, groupings, motion
from .groupings import Grouping, Shares, loss_settings
from .sieves import Sieve
from .trace import available_memory, write

__all__ = ["Ledger", "LossLedger"]

DECAY, EARLIER, PROJECTION = "decay", "earlier", "projection"


@dataclass(eq=False)
class Account:
    """One tensor's: rows are its groups, then decay and earlier where they have a momentum, then what has none."""

    labels: list[str]
    momentum: Array  # [rows with momentum, *shape]
    moved: Array  # [rows, *shape]
    bought: Array  # [rows]: of the judged loss
    start: Array  # w₀

    def row(self, label: str) -> int:
        return self.labels.index(label)


class LossLedger(NamedTuple):
    """What each group bought of the change in the judged loss (negative: it lowered it)."""

    change: float
    bought: dict[str, float]
    by_tensor: dict[str, dict[str, float]]

    @property
    def error(self) -> float:
        """|Σ bought − change| / |change|."""
        gap = abs(sum(self.bought.values()) - self.change)
        return gap / abs(self.change) if self.change else gap


@dataclass(eq=False)
class _Judge:
    """The batch whose loss is accounted for."""

    batch: Batch
    panels: int
    tolerance: float
    steps: int = 0
    first: float = float("nan")
    last: float = float("nan")
    params: Any = None  # where `slope` was taken
    slope: dict[str, Array] = field(default_factory=dict)


class Ledger:
    """A watcher of a run. config: the run's; objective: training's (model and loss)."""

    def __init__(
        self,
        config: Any,
        objective: Any,
        by: str | Grouping = "loss_token",
        *,
        classes: int | None = None,
        judge: Batch | None = None,
        panels: int = 16,
        tolerance: float = 1e-6,
        limit: int | None = None,
    ) -> None:
        """judge: the batch of the loss ledger, as a rule the test split. limit: bytes; None: what is free."""
        if panels < 1 or not tolerance > 0:
            raise BadInput(
                f"Simpson's rule takes one panel or more and a tolerance above 0; received {panels}, {tolerance}"
            )
        self.config, self.objective, self.limit = config, objective, limit
        self.divide = groupings.by(by, classes) if isinstance(by, str) else by
        self.note = motion.note(config.optimizer.name)
        self.sieves = [Sieve(f.name, f.settings) for f in config.filters]
        self.filters = [f.make() for f in config.filters]
        self.projections = [p.make() for p in config.projections]
        self.schedule = config.schedule.make()
        self.judge = None if judge is None else _Judge(judge, panels, tolerance)
        self.accounts: dict[str, Account] = {}
        self.first = self.last = -1  # steps
        self.residual = 0.0
        self.end: dict[str, Array] = {}

    # ------------------------------------------------------------------------------------------------ one step

    def __call__(self, step: Any) -> None:
        """One step of the run, as `training.events.Stepped` shows it."""
        if self.last >= 0 and step.step != self.last + 1:
            raise BadInput(f"a ledger sees every step: after step {self.last} comes {self.last + 1}, not {step.step}")
        params, raw = _float64(step.before.params), _float64(step.gradient)
        shares = self.divide(step.before.params, step.batch, self.objective)
        self.residual = max(self.residual, groupings.residual(shares, raw))
        opt, after = step.before.opt_state, step.after.opt_state
        if self.last < 0:
            self._open(params, shares, opt)
            self.first = step.step

        factors = motion.factors(step.before.params, self.config.optimizer.decay)
        parts, whole = self._sieved(shares, raw, params, opt, step.before.params)
        lr = self.config.optimizer.lr * float(self.schedule(step.step))
        seen = motion.Step(self.config.optimizer.settings, lr, opt.optimizer, after.optimizer, whole, params, factors)
        motions = motion.motions(self.config.optimizer.name, seen)
        steps = {name: self._advance(account, parts[name], motions[name]) for name, account in self.accounts.items()}
        self._project(params, steps, after.projections)
        if self.judge is not None:
            self._weigh(self.judge, step.before.params, step.after.params, steps)
        for name, account in self.accounts.items():
            account.moved += steps[name]
        self.last, self.end = step.step, flatten(step.after.params)

    def _open(self, params: dict[str, Array], shares: dict[str, Shares], opt: Any) -> None:
        """The accounts, once it is known how many groups each tensor has."""
        held = _momentum(opt.optimizer)
        brought = any(np.any(x) for x in flatten((held, _averages(opt.filters))).values())
        settings = self.config.optimizer.settings
        coupled = self.config.optimizer.name in ("sgd", "adam")
        decays = bool(settings.get("weight_decay", 0.0))
        need = 0
        for name, x in params.items():
            rows = len(shares[name].labels) + decays + brought + bool(self.projections)
            need += 8 * x.size * (2 * rows + len(shares[name].labels) * (2 + _windows(self.config)))
        if need > (free := available_memory() if self.limit is None else self.limit):
            groups = max(len(s.labels) for s in shares.values())
            raise BadInput(
                f"a ledger of {groups} groups takes {need / 1e9:.3g} GB for this model and {free / 1e9:.3g} GB may be "
                "used; group by an axis with fewer members, or operands by fewer classes"
            )
        for name, x in params.items():
            with_m = [*shares[name].labels, *([DECAY] if decays and coupled else []), *([EARLIER] if brought else [])]
            without = [*([DECAY] if decays and not coupled else []), *([PROJECTION] if self.projections else [])]
            momentum = np.zeros((len(with_m), *x.shape))
            if brought:
                momentum[-1] = held[name]
            rows = len(with_m) + len(without)
            self.accounts[name] = Account(
                [*with_m, *without], momentum, np.zeros((rows, *x.shape)), np.zeros(rows), x.copy()
            )

    def _sieved(
        self, shares: dict[str, Shares], raw: dict[str, Array], params: dict[str, Array], opt: Any, like: Any
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Each tensor's parts, a row for each momentum, and the whole gradient, as they leave the filters."""
        parts = {}
        for name, account in self.accounts.items():
            given = shares[name].parts
            parts[name] = np.zeros(account.momentum.shape)
            parts[name][: len(given)] = given
        whole = raw
        for sieve, filter_, state in zip(self.sieves, self.filters, opt.filters, strict=True):
            parts = sieve.apply(parts, whole, params, state)
            whole = flatten(filter_.apply(unflatten(whole, like), state, unflatten(params, like))[0])
        return parts, whole

    def _advance(self, a: Account, g: Array, m: motion.Motion) -> Array:
        """What each row moves the tensor by in this step; the momenta go on."""
        out = np.zeros(a.moved.shape)
        if m.shrink is not None:
            g[a.row(DECAY)] = m.shrink
        same = (m.ahead_m, m.ahead_g) == (m.keep, m.take)
        for k in range(len(g)):
            ahead = None if same else m.ahead_m * a.momentum[k] + m.ahead_g * g[k]
            a.momentum[k] *= m.keep
            g[k] *= m.take
            a.momentum[k] += g[k]
            out[k] = m.apply(a.momentum[k] if ahead is None else ahead)
        if m.decay is not None:
            out[a.row(DECAY)] = m.decay
        return out

    def _project(self, params: dict[str, Array], steps: dict[str, Array], states: Any) -> None:
        if not self.projections:
            return
        reached = {name: params[name] + steps[name].sum(axis=0) for name in steps}
        held = dict(reached)
        for projection, state in zip(self.projections, states, strict=True):
            held = projection.project(held, state)
        for name, account in self.accounts.items():
            steps[name][account.row(PROJECTION)] = held[name] - reached[name]

    # ------------------------------------------------------------------------------------------------ the loss

    def _weigh(self, judge: _Judge, before: Any, after: Any, steps: dict[str, Array]) -> None:
        """∫∇L·Δ over the step's straight line. Simpson is (4 T₂ₙ − Tₙ)/3 of the trapezoid rule: points are reused."""
        start, stop = map_tree(lambda x: np.asarray(x, dtype=np.float64), (before, after))
        if judge.params is not before:
            judge.last, judge.slope = self._slope(start, judge.batch)
            judge.first = judge.last if np.isnan(judge.first) else judge.first
        began, (judge.last, slope) = judge.last, self._slope(stop, judge.batch)
        change, judge.steps = judge.last - began, judge.steps + 1
        allowed = judge.tolerance * max(abs(change), abs(judge.last - judge.first) / judge.steps)
        way = {name: x.sum(axis=0) for name, x in steps.items()}
        coarse = {name: (g + slope[name]) / 2 for name, g in judge.slope.items()}
        n, mean = 1, coarse
        while n <= judge.panels:
            fine = {name: g / 2 for name, g in coarse.items()}
            for i in range(n):
                s = (i + 0.5) / n
                _, g = self._slope(map_tree(lambda a, b, s=s: a + s * (b - a), start, stop), judge.batch)
                fine = {name: x + g[name] / (2 * n) for name, x in fine.items()}
            mean = {name: (4 * x - coarse[name]) / 3 for name, x in fine.items()}
            if abs(sum(np.vdot(g, way[name]) for name, g in mean.items()) - change) <= allowed:
                break
            coarse, n = fine, 2 * n
        judge.params, judge.slope = after, slope
        for name, account in self.accounts.items():
            account.bought += steps[name].reshape(len(account.labels), -1) @ mean[name].ravel()

    def _slope(self, params: Any, batch: Batch) -> tuple[float, dict[str, Array]]:
        logits, cache = gates.forward(params, batch, self.objective.model)
        loss, c = cross_entropy.forward(logits, batch.targets, batch.weights, **loss_settings(self.objective))
        return float(loss), flatten(gates.backward(cross_entropy.backward(c), cache, self.objective.model))

    # ------------------------------------------------------------------------------------------------ what it says

    def moved(self, tensor: str) -> dict[str, Array]:
        """What each group did to a tensor, from the first step to the last."""
        account = self._account(tensor)
        return dict(zip(account.labels, account.moved, strict=True))

    def entry(self, tensor: str, index: tuple[int, ...]) -> dict[str, float]:
        """One weight: where it began, what each group did to it, and where it stands."""
        began, ended = self._account(tensor).start[index], self.end[tensor][index]
        moved = {label: float(x[index]) for label, x in self.moved(tensor).items()}
        return {"start": float(began), **moved, "end": float(ended)}

    def rows(self, tensor: str) -> list[dict[str, Any]]:
        """{"group", "norm", "share"} of a tensor, the largest share first.

        share: ⟨Δ_k, w_T − w₀⟩/‖w_T − w₀‖², which adds up to 1; a group that pulled the other way has a negative one.
        """
        account = self._account(tensor)
        way = (np.asarray(self.end[tensor], dtype=np.float64) - account.start).ravel()
        flat = account.moved.reshape(len(account.labels), -1)
        square = float(way @ way) or 1.0
        found = [
            {"group": label, "norm": float(np.linalg.norm(x)), "share": float(x @ way) / square}
            for label, x in zip(account.labels, flat, strict=True)
        ]
        return sorted(found, key=lambda row: -abs(row["share"]))

    def errors(self) -> dict[str, float]:
        """|w₀ + Σ moved − w_T| against max|w_T|, of each tensor's worst entry."""
        found = {}
        for name, account in self.accounts.items():
            end = np.asarray(self.end[name], dtype=np.float64)
            gap, size = np.max(np.abs(account.start + account.moved.sum(axis=0) - end)), np.max(np.abs(end))
            found[name] = float(gap / size) if gap else 0.0
        return found

    @property
    def completeness(self) -> float:
        """The worst of `errors`."""
        return max(self.errors().values(), default=0.0)

    @property
    def loss(self) -> LossLedger:
        """The loss ledger; BadInput where no batch was given to be judged."""
        if self.judge is None:
            raise BadInput(
                "this ledger was kept without a loss; give it the batch to be judged: Ledger(…, judge=task.test)"
            )
        by_tensor = {
            name: dict(zip(account.labels, map(float, account.bought), strict=True))
            for name, account in self.accounts.items()
        }
        bought: dict[str, float] = {}
        for shares in by_tensor.values():
            for label, x in shares.items():
                bought[label] = bought.get(label, 0.0) + x
        return LossLedger(self.judge.last - self.judge.first, bought, by_tensor)

    def save(self, path: Path | str) -> Path:
        """Everything moved, as `<tensor>/<group>`, with w₀ as `<tensor>/start`, in one safetensors file."""
        arrays = {f"{name}/start": account.start for name, account in self.accounts.items()}
        for name in self.accounts:
            arrays |= {f"{name}/{label}": x for label, x in self.moved(name).items()}
        about = {"format": "onelayer-ledger", "first": str(self.first), "last": str(self.last), "note": self.note}
        return write(arrays, path, about)

    def _account(self, tensor: str) -> Account:
        if not self.accounts:
            raise BadInput("the ledger has seen no step yet; give it to a run: train(config, watch=ledger)")
        if tensor not in self.accounts:
            raise unknown("tensor", tensor, self.accounts)
        return self.accounts[tensor]

    def __repr__(self) -> str:
        steps = f"steps {self.first} to {self.last}" if self.accounts else "no step yet"
        return f"Ledger({steps}, {self.note}, completeness {self.completeness:.1e})"


def _float64(tree: Any) -> dict[str, Array]:
    return {name: np.asarray(x, dtype=np.float64) for name, x in flatten(tree).items()}


def _momentum(state: Any) -> dict[str, Array]:
    """The optimizer's momentum, under whichever name it keeps it."""
    return flatten(state.velocity if hasattr(state, "velocity") else state.m)


def _averages(states: tuple[Any, ...]) -> list[Any]:
    return [getattr(state, name) for state in states for name in ("h", "window") if hasattr(state, name)]


def _windows(config: Any) -> int:
    """How many gradients a filter keeps of each group."""
    return sum(f.settings["window"] if f.name == "grokfast_ma" else f.name == "grokfast_ema" for f in config.filters)
