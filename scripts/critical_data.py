"""How much data the rule needs to pay: a network that has learnt x + y goes on with less of the table, and forgets.

    python scripts/critical_data.py                    # docs/experiments/critical-data.jsonl, a line a run
    python scripts/experiment_pages.py critical-data   # the page and its figure

Continued   the network that generalised from half of the table, trained on with a part of that half (its examples are
            nested), the optimizer's state kept: what it still answers of the half that it never saw
Memorised   a network of its own, trained from first weights on as many pairs with the answers of all pairs permuted:
            there is no rule, so all of it is memory
Efficiency  root mean square of the training pairs' logits (less each pair's mean over the answers) over Σ θ²: how much
            is said for the weight that decay charges. Memory has to pay for each pair, the rule once.

Source      Varma, Shah, Kenton, Kramár & Kumar 2023, Explaining grokking through circuit efficiency, arXiv:2309.02390:
            below a critical size of the data memory is the cheaper, and a network that has the rule loses it.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from onelayer.grokking.subject import as_vector, centred
from onelayer.studies import grid
from onelayer.tasks import Batch
from onelayer.training import configure, engines, objective

RAW = Path(__file__).parent.parent / "docs" / "experiments" / "critical-data.jsonl"
P, HALF, LEARNING, STEPS = 53, 0.5, 500, 1500
FRACTIONS = (0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
SEEDS = 5


def engine_of(seed: int, fraction: float, **task: Any) -> Any:
    config = configure("default", {"task": {"p": P, "train_fraction": fraction} | task, "seed": seed,
                                   "steps": LEARNING + STEPS, "stop": {"on": "none"}})  # fmt: skip
    return engines.get(config.engine)(config, config.task.make(config.seed))


def said(engine: Any, state: Any, batch: Batch) -> np.ndarray:
    """The logits [n p] of these examples, the equals sign's left out."""
    return objective.forward(state.params, batch, engine.objective)[0][:, -1, :-1].astype(np.float64)


def figures(engine: Any, state: Any, unseen: Batch) -> dict[str, float]:
    logits, weight = said(engine, state, engine.task.train), float(np.sum(as_vector(state.params).astype(float) ** 2))
    size = float(np.sqrt(np.mean(centred(logits) ** 2)))
    right = [
        float(np.mean(said(engine, state, b).argmax(axis=-1) == b.targets[:, 0])) for b in (engine.task.train, unseen)
    ]
    return {"train": right[0], "unseen": right[1], "logits": size, "weight": weight, "efficiency": size / weight}


def seed_rows(seed: int, known: set[tuple[str, float]]) -> Any:
    """(cell, figures, seconds) of each run of a seed that is not known."""
    parent = engine_of(seed, HALF)
    unseen, learnt = parent.task.test, None
    for fraction in FRACTIONS:
        for kind in ("continued", "memorised"):
            if (kind, fraction) in known:
                continue
            if kind == "continued" and learnt is None:
                learnt, _ = parent.run(parent.start(), 0, LEARNING)
            clock, cpu = time.perf_counter(), time.process_time()
            engine = engine_of(seed, fraction, **({"permute_labels": True} if kind == "memorised" else {}))
            state, first = (learnt, LEARNING) if kind == "continued" else (engine.start(), 0)
            state, _ = engine.run(state, first, STEPS)
            found = figures(engine, state, unseen) | (
                {"before": figures(parent, learnt, unseen)["unseen"]} if first else {}
            )
            yield {"kind": kind, "fraction": fraction}, found, {
                "seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--raw", type=Path, default=RAW)
    given = parser.parse_args()
    for seed in range(given.seeds):
        rows = [row for row in grid.read(given.raw) if row["seed"] == seed]
        known = {(row["cell"]["kind"], row["cell"]["fraction"]) for row in rows}
        for cell, found, cost in seed_rows(seed, known):
            row = grid.rounded({"cell": cell, "seed": seed, **found, **cost})
            with given.raw.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
