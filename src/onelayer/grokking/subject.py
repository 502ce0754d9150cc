"""The network under study: its weights, its task, and what it computes for every pair of operands.

Shapes    logits [n n C] over the pairs of places (x, y), C numbers (`=` is no answer and is dropped)
          right [n n], the answer of each pair, −1 where there is none     train, test [n n]: which pairs are in it

A network that the formulas do not fit is refused by the measure that asks, not here. Everything is read as float64.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import flatten, map_tree
from ..errors import BadInput
from ..models import decoder_only
from ..tasks import Batch, Task
from ..training import objective as objectives
from ..training import step as steps
from ..training.objective import Objective
from ..training.opened import open_run
from . import characters
from .characters import Characters

SEEN = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "mlp.hook_post", "attn.hook_pattern")
MOST = 2**28  # numbers in one table over all pairs: 2 GiB


@dataclass(frozen=True, eq=False)
class Subject:
    task: Task
    objective: Objective
    params: Any
    start: Any  # the weights at step 0
    seed: int = 0
    dtype: str = "float32"  # in which it was trained
    keys: tuple[int, ...] | None = None  # key frequencies that were found elsewhere; None: its own
    said: np.ndarray | None = None  # its logits over all pairs, where they are known already
    run: Path | None = None  # where it was saved, and at which step
    step: int | None = None
    rules: Any = None  # by which it was trained

    @property
    def twin(self) -> "Subject":
        """The untrained twin: the same network as it began, looked at with the key frequencies of the trained one."""
        keys = None if why_no_characters(self) else self.key_frequencies
        return self.moved(self.start, keys)

    def moved(self, params: Any, keys: tuple[int, ...] | None, said: np.ndarray | None = None) -> "Subject":
        """The same run with other weights; what hangs on the task alone is not found anew."""
        other = replace(self, params=params, keys=keys, said=said)
        for name in ("characters", "numbers", "right", "train", "test"):
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]
        return other

    @cached_property
    def characters(self) -> Characters:
        return characters.of(self.task.facts)

    @cached_property
    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers that stand at each place, on the left and on the right."""
        if why_no_characters(self):
            return (np.arange(self.task.facts["p"]),) * 2
        return self.characters.a, self.characters.b

    # ------------------------------------------------------------------------------------------- over all pairs

    @cached_property
    def seen(self) -> dict[str, np.ndarray]:
        """tap name -> [n n *rest], at the last position."""
        n, cfg = len(self.numbers[0]), self.objective.model
        found: dict[str, np.ndarray] = {}
        last = f"blocks.{cfg.n_layers - 1}"
        wanted = {f"{last}.{name}" for name in SEEN}

        def keep(name: str, value: np.ndarray) -> np.ndarray:
            if name in wanted:
                at_end = value[:, :, -1] if name.endswith("pattern") else value[:, -1]
                found[name.removeprefix(f"{last}.")] = at_end.reshape(n, n, *at_end.shape[1:])
            return value

        decoder_only.forward(self.params, self.tokens, cfg, read=1, tap=keep)
        return found

    @property
    def tokens(self) -> np.ndarray:
        """Every question, a row each."""
        a, b = self.numbers
        if len(a) ** 2 * max(len(self.task.vocabulary), self.objective.model.d_mlp) > MOST:
            raise BadInput(f"a table over all pairs of {len(a)} numbers would hold more than {MOST:,} values; "
                           "its network is too large to be looked at whole")  # fmt: skip
        return np.stack(np.broadcast_arrays(a[:, None], b, len(self.task.vocabulary) - 1), axis=-1).reshape(-1, 3)

    @cached_property
    def logits(self) -> np.ndarray:
        if self.said is not None:
            return self.said
        n = len(self.numbers[0])
        batch = Batch(self.tokens, np.zeros((n * n, 1), dtype=np.int64))
        logits = objectives.forward(self.params, batch, self.objective)[0]
        return logits.reshape(n, n, -1)[..., :-1].astype(np.float64)

    @property
    def neurons(self) -> np.ndarray:
        return self.seen["mlp.hook_post"]

    @cached_property
    def right(self) -> np.ndarray:
        a, b = self.numbers
        return self.task.facts["table"][a[:, None], b]

    def _within(self, pairs: np.ndarray) -> np.ndarray:
        a, b = self.numbers
        member = np.zeros(self.task.facts["table"].shape, dtype=bool)
        member[tuple(pairs.T)] = True
        return member[a[:, None], b]

    @cached_property
    def train(self) -> np.ndarray:
        return self._within(self.task.facts["train_pairs"])

    @cached_property
    def test(self) -> np.ndarray:
        return self._within(self.task.facts["test_pairs"])

    # ------------------------------------------------------------------------------------------- frequencies

    @cached_property
    def key_frequencies(self) -> tuple[int, ...]:
        return key_among(self.logit_shares) if self.keys is None else self.keys

    @cached_property
    def spoken(self) -> np.ndarray:
        """[n C]: the mean of the logits over the pairs with each result."""
        return characters.profile(self.logits, self.characters.product)

    @cached_property
    def energy(self) -> float:
        """Σ L², less each pair's mean over the answers."""
        mean = self.logits @ np.full(self.logits.shape[-1], 1 / self.logits.shape[-1])
        return max(float(np.vdot(self.logits, self.logits) - self.logits.shape[-1] * np.vdot(mean, mean)), 0.0)

    @cached_property
    def logit_shares(self) -> np.ndarray:
        """[frequency], 0 for the constant: ‖P_k L‖² over the energy of L, as KEY_RULE reads them."""
        heard = centred(self.spoken)
        constant = heard.mean(axis=0)
        n = len(heard)
        total = self.energy - n * n * float(constant @ constant)
        shares = n * characters.energy_by_frequency(heard - constant, self.characters)
        return shares / total if total > 0 else np.zeros_like(shares)

    @cached_property
    def neuron_shares(self) -> np.ndarray:
        """[frequency, F]: how much of each neuron's energy, less the constant, is at each frequency."""
        return neuron_shares(self.neurons, self.characters)

    # ------------------------------------------------------------------------------------------- gradients

    @cached_property
    def train_gradient(self) -> np.ndarray:
        return self.gradient(self.task.train)[1]

    def gradient(self, batch: Batch, params: Any = None) -> tuple[float, np.ndarray]:
        """The mean loss of a batch, and its gradient as one vector."""
        loss, grads = objectives.loss_and_grads(self.params if params is None else params, batch, self.objective)
        return float(loss), as_vector(grads)


KEY_SHARE = 0.01
KEY_RULE = (
    "k is key where ‖P_k L‖² ≥ 1 % of the energy of L: the logits over all pairs less each pair's mean over answers "
    "and each answer's mean over the pairs; P_k keeps the waves of frequency k over the operation's result; "
    "k runs to (n − 1)/2 inclusive"
)


def key_among(shares: np.ndarray) -> tuple[int, ...]:
    """By KEY_RULE, from `logit_shares`."""
    return tuple(k for k, share in enumerate(shares) if k and share >= KEY_SHARE)


def key_frequencies(logits: np.ndarray, ch: Characters) -> tuple[int, ...]:
    """The frequencies in which a table of logits [n n C] speaks, by KEY_RULE."""
    varying = centred(logits)
    varying = varying - np.mean(varying, axis=(0, 1))
    total = float(np.sum(varying**2))
    return key_among(characters.sum_energy(varying, ch.product, ch) / total) if total > 0 else ()


def neuron_shares(neurons: np.ndarray, ch: Characters) -> np.ndarray:
    """[frequency, F]; a neuron that never changes has 0 everywhere."""
    energy = characters.transform(neurons, ch) ** 2
    energy[0, 0] = 0
    total = np.sum(energy, axis=(0, 1))
    kept = [np.isin(ch.frequency, (0, k)) for k in ch.frequencies]
    return np.stack([np.sum(energy[rows][:, rows], axis=(0, 1)) for rows in kept]) / np.where(total > 0, total, 1)


def why_no_characters(subject: "Subject") -> str | None:
    """Why no Fourier transform fits the task; None where one does."""
    if "table" not in subject.task.facts:
        return "it is not a task of an operation on two numbers"
    try:
        characters.of(subject.task.facts)
    except BadInput as error:
        return str(error)
    return None


def centred(logits: np.ndarray) -> np.ndarray:
    """Less the mean over the answers, which the softmax cannot feel."""
    return logits - np.mean(logits, axis=-1, keepdims=True)


def as_vector(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in flatten(tree).values()])


def like(vector: np.ndarray, tree: Any) -> Any:
    """The vector as a tree: the inverse of `as_vector`."""
    place = iter(np.cumsum([0] + [x.size for x in flatten(tree).values()]))
    return map_tree(lambda x: vector[(at := next(place)) : at + x.size].reshape(x.shape), tree)


def part(batch: Batch, rows: np.ndarray) -> Batch:
    return map_tree(lambda x: x[rows], batch)


def open_subject(path: Path | str, step: int | None = None) -> Subject:
    """The network of a run at a step (None: the last saved)."""
    opened = open_run(path, step)
    goal = steps.make_objective(opened.config, opened.task)
    rules = steps.make_rules(opened.config)
    first = steps.start(goal, rules, opened.config.seed, opened.config.dtype).params
    start = map_tree(lambda x: np.asarray(x, dtype=np.float64), first)
    return Subject(
        opened.task, goal, opened.params, start, opened.config.seed, opened.config.dtype,
        run=Path(path), step=opened.step, rules=rules,
    )  # fmt: skip
