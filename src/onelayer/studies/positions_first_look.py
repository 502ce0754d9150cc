"""A first look at every positional encoding: seven probes, all methods, a few seeds, a small budget.

Question  What can one layer learn about places under each method, and does it hold on longer sequences?

Design    A cell is a method under a numbering. For each cell, all probes × seeds are one program: a training step,
          `vmap` over probes and seeds, `scan` over steps (JAX). Paired: a probe and a seed have the same sequences in
          the same order, and all other first weights the same, under every method.
          Sequences of n letters in training; tested on 1, 1.5, 2 and 4 times that, asking only what is new at each
          length. A learned table has rows for the longest test; training touches the first n, the others stay as drawn.
          Methods whose defaults were made for thousands of tokens are fitted to n (`positions.fitted`).

Budget    One learning rate for all, AdamW, cosine; nothing is tuned to a method. That is why it is a first look:
          a method that falls short may be slow here, not unable.

Sums      a + b and a − b mod p under four methods, on a mirror-closed split: (a, b) and (b, a) on the same side.
          Without positions the net cannot tell them apart, and is right in at most (1 + share of a = b)/2 of a − b;
          on the whole table that share is 1/p.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import optimizers, positions
from ..arrays import generator, map_tree
from ..errors import BadInput
from ..layers import cross_entropy
from ..models import decoder_only
from ..models.config import ModelConfig
from ..positions import ids as numberings
from ..tasks import Batch, Task, arithmetic, probes
from ..training import configure, engines

__all__ = ["CELLS", "STRETCHES", "SUMS", "Budget", "Cell", "find", "run_cell", "run_sum"]

STRETCHES = (1.0, 1.5, 2.0, 4.0)
SUMS = ("none", "sinusoidal", "learned", "rope")


class Cell(NamedTuple):
    """A method under a numbering."""

    position: str
    numbering: str = "sequential"

    @property
    def name(self) -> str:
        return self.position if self.numbering == "sequential" else f"{self.position} + {self.numbering}"


CELLS = (
    *(Cell(name) for name in positions.METHODS),
    *(Cell(name, "random") for name in ("learned", "sinusoidal", "rope")),
    Cell("learned", "abacus"),
    Cell("learned", "coupled"),
)


class Budget(NamedTuple):
    """Everything that the figures hang on, but for the code."""

    n: int = 16  # letters of a training sequence
    steps: int = 400
    batch: int = 64
    lr: float = 5e-3
    warmup: int = 20
    weight_decay: float = 0.01
    d_model: int = 32
    n_heads: int = 4
    d_mlp: int = 64
    n_test: int = 128  # sequences of each length
    seeds: int = 3


def find(name: str) -> Cell:
    for cell in CELLS:
        if cell.name == name:
            return cell
    raise BadInput(f"unknown cell {name!r}; allowed: {', '.join(cell.name for cell in CELLS)}")


# ------------------------------------------------------------------------------------------ the probes


def run_cell(cell: Cell, budget: Budget) -> dict[str, Any]:
    """Train and test a cell on every probe with every seed: accuracy [probe][stretch] -> one number a seed."""
    import jax  # here: it takes a second, and reading the figures needs none of it
    import jax.numpy as jnp

    started = time.perf_counter()
    cfg, runs = model(cell, budget), list(_runs(budget))
    rule = optimizers.make("adamw", weight_decay=budget.weight_decay)
    pace = optimizers.make("cosine", "schedule", warmup=budget.warmup, total=budget.steps)

    def loss_and_grads(params: Any, tokens: Any, targets: Any, weights: Any, ids: Any) -> tuple[Any, Any]:
        logits, cache = decoder_only.forward(params, tokens, cfg, ids=ids)
        loss, c = cross_entropy.forward(logits, targets, weights)
        return loss, decoder_only.backward(cross_entropy.backward(c), cache, cfg)

    def step(state: Any, at: Any) -> tuple[Any, Any]:
        (params, opt), (t, batch) = state, at
        losses, grads = jax.vmap(loss_and_grads)(params, *batch)
        update = lambda g, s, p: rule.update(g, s, p, lr=budget.lr * pace(t))  # noqa: E731
        params, opt = jax.vmap(update)(grads, opt, params)
        return (params, opt), losses

    @jax.jit
    def correct(params: Any, tokens: Any, targets: Any, weights: Any, ids: Any) -> Any:
        def one(params: Any, tokens: Any, targets: Any, weights: Any, ids: Any) -> Any:
            logits, _ = decoder_only.forward(params, tokens, cfg, ids=ids)
            return jnp.sum(weights * (jnp.argmax(logits, axis=-1) == targets)) / jnp.sum(weights)

        return jax.vmap(one)(params, tokens, targets, weights, ids)

    first = [map_tree(lambda a: a.astype(np.float32), decoder_only.init(cfg, seed)) for _, seed in runs]
    params = map_tree(lambda *each: jnp.asarray(np.stack(each)), *first)
    state = params, jax.vmap(rule.init)(params)
    state, losses = jax.jit(lambda s, d: jax.lax.scan(step, s, d))(
        state, (jnp.arange(budget.steps), _stacked([_training(cell, budget, *run) for run in runs]))
    )
    accuracy: dict[str, dict[str, list[float]]] = {probe: {} for probe in probes.PROBES}
    for stretch in STRETCHES:
        shown = _stacked([_test(cell, budget, *run, stretch) for run in runs])
        for (probe, _), value in zip(runs, np.asarray(correct(state[0], *shown)), strict=True):
            accuracy[probe].setdefault(f"{stretch:g}", []).append(round(float(value), 4))
    final = np.asarray(losses)[-1].reshape(len(probes.PROBES), budget.seeds)
    return {
        "cell": cell.name,
        "settings": cfg.position_settings,
        "ids": cfg.position_ids_settings,
        "parameters": positions.get(cell.position, **cfg.position_settings).n_parameters(cfg.size()),
        "accuracy": accuracy,
        "loss": {probe: [round(float(x), 4) for x in row] for probe, row in zip(probes.PROBES, final, strict=True)},
        "seconds": round(time.perf_counter() - started, 1),
    }


def model(cell: Cell, budget: Budget) -> ModelConfig:
    longest = round(max(STRETCHES) * budget.n)
    return ModelConfig.model_validate(
        {
            "vocab_size": len(probes.VOCABULARY),
            "n_ctx": longest,
            "d_model": budget.d_model,
            "n_heads": budget.n_heads,
            "d_mlp": budget.d_mlp,
            "position": cell.position,
            "position_settings": positions.fitted(cell.position, budget.n),
            "position_ids": cell.numbering,
            "position_ids_settings": _numbering(cell, budget),
        }
    )


def _numbering(cell: Cell, budget: Budget, probe: str = "align") -> dict[str, Any]:
    """Offsets reach the longest test's ids, so that training meets all of them."""
    offset, letters = round((max(STRETCHES) - 1) * budget.n), tuple(range(16))
    if cell.numbering == "random":
        return numberings.fitted("random", budget.n)
    if cell.numbering == "abacus":
        return {"offset": offset, "digits": letters}
    if cell.numbering == "coupled":
        order = "high_first" if probe == "mirror" else "low_first"
        return {"offset": offset, "digits": letters, "equals": probes.EQUALS,
                "operand_order": "low_first", "sum_order": order}  # fmt: skip
    return {}


def _runs(budget: Budget) -> Iterator[tuple[str, int]]:
    return ((probe, seed) for probe in probes.PROBES for seed in range(budget.seeds))


def _training(cell: Cell, budget: Budget, probe: str, seed: int) -> list[np.ndarray]:
    """tokens, targets, weights [steps batch T] and ids [steps batch T] of a run."""
    rng = generator(seed, "first look", probe, "train")
    drawn = probes.draw(probe, budget.steps * budget.batch, budget.n, rng)
    shape = (budget.steps, budget.batch, budget.n)
    tokens, targets, weights = (np.asarray(part).reshape(shape) for part in drawn[:3])
    return [tokens, targets, weights, _ids(cell, budget, probe, seed, tokens)]


def _test(cell: Cell, budget: Budget, probe: str, seed: int, stretch: float) -> list[np.ndarray]:
    lengths = [round(s * budget.n) for s in STRETCHES]
    at = STRETCHES.index(stretch)
    beyond = lengths[at - 1] if at else 0
    rng = generator(seed, "first look", probe, "test", lengths[at])
    drawn = probes.draw(probe, budget.n_test, lengths[at], rng, beyond)
    ids = _ids(cell, budget, probe, seed, drawn.tokens[None], training=False)[0]
    return [*(np.asarray(part) for part in drawn[:3]), ids]


def _ids(cell: Cell, budget: Budget, probe: str, seed: int, tokens: np.ndarray, training: bool = True) -> np.ndarray:
    """[steps batch T]; one draw a batch."""
    rng = generator(seed, "first look", "ids", probe, int(training), tokens.shape[-1])
    numbering = numberings.get(cell.numbering, **_numbering(cell, budget, probe))
    drawn = [np.broadcast_to(numbering.draw(batch, rng, training), batch.shape) for batch in tokens]
    return np.stack(drawn).astype(np.int32)


def _stacked(runs: list[list[np.ndarray]]) -> tuple[Any, ...]:
    """Each part of all runs as one array; in training, steps come first, for `scan`."""
    import jax.numpy as jnp

    parts = (np.stack(part) for part in zip(*runs, strict=True))
    return tuple(jnp.asarray(np.moveaxis(part, 1, 0) if part.ndim == 4 else part) for part in parts)


# ------------------------------------------------------------------------------------------ a + b against a − b


def run_sum(operation: str, position: str, seed: int, p: int = 31, steps: int = 1000) -> dict[str, Any]:
    """Train `operation` mod p, four fifths of the unordered pairs in both orders, and test on the rest."""
    started = time.perf_counter()
    config = configure(
        "default",
        {
            "task": {"operation": operation, "p": p},
            "model": {"position": position, "d_model": 64, "d_mlp": 256},
            "steps": steps,
            "seed": seed,
        },
    )
    task = mirror_closed(operation, p, seed)
    trainer = engines.get("numpy")(config, task)
    state, _ = trainer.run(trainer.start(), 0, steps)
    figures = trainer.evaluate(state)
    return {
        "operation": operation,
        "position": position,
        "seed": seed,
        "p": p,
        "train_accuracy": round(figures["train_accuracy"], 4),
        "test_accuracy": round(figures["test_accuracy"], 4),
        "train_ceiling": round(order_free_ceiling(task.train), 4),
        "test_ceiling": round(order_free_ceiling(task.test), 4),
        "seconds": round(time.perf_counter() - started, 1),
    }


def mirror_closed(operation: str, p: int, seed: int, fraction: float = 0.8) -> Task:
    """The whole table, divided so that (a, b) and (b, a) are on the same side."""
    task = arithmetic.make(operation, p=p, seed=seed)
    tokens, targets = (
        np.concatenate([getattr(b, name) for b in (task.train, task.test)]) for name in Batch._fields[:2]
    )
    low, high = np.minimum(tokens[:, 0], tokens[:, 1]), np.maximum(tokens[:, 0], tokens[:, 1])
    pairs, orbit = np.unique(low * p + high, return_inverse=True)
    shown = generator(seed, "first look", "pairs").permutation(len(pairs)) < round(fraction * len(pairs))
    sides = (shown[orbit], ~shown[orbit])
    train, test = (Batch(tokens[side], targets[side]) for side in sides)
    return Task(task.name, task.vocabulary, task.n_ctx, task.read, train, test)


def order_free_ceiling(batch: Batch) -> float:
    """The best accuracy that can be had from the multiset of the operands alone."""
    a, b = np.sort(batch.tokens[:, :2], axis=1).T
    question = a.astype(np.int64) * (batch.tokens.max() + 1) + b
    _, index = np.unique(question, return_inverse=True)
    counts = np.zeros((index.max() + 1, int(batch.targets.max()) + 1), dtype=np.int64)
    np.add.at(counts, (index, batch.targets[:, 0]), 1)
    return float(counts.max(axis=1).sum() / len(index))
