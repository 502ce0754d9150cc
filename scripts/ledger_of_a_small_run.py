"""The ledger of a small grokking run: which route and which operand moved the weights, and bought the test loss.

    python scripts/ledger_of_a_small_run.py [--steps 900]

Addition modulo 23, one layer of width 64, float64, AdamW. Its tables stand in docs/microscope/ledger.md.
"""

import argparse
import time

from onelayer.microscope.ledger import Ledger
from onelayer.training.config import resolve
from onelayer.training.engines.numpy_engine import Engine

CONFIG = {
    "task": {"p": 23, "train_fraction": 0.6},
    "model": {"d_model": 64, "n_heads": 2, "d_mlp": 128, "activation": "gelu"},
    "optimizer": {"name": "adamw", "lr": 5e-3, "beta2": 0.98, "weight_decay": 1.0}, "dtype": "float64",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900)
    steps = parser.parse_args().steps
    config = resolve(CONFIG)
    task = config.task.make(config.seed)
    engine = Engine(config, task)
    engine.watch = ledger = Ledger(config, engine.objective, "route", judge=task.test)
    state, start, before = engine.start(), 0, {}
    print(f"step 0: {_accuracies(engine, state)}")
    for stop in (steps // 10, steps // 3, steps):
        begun = time.perf_counter()
        state, _ = engine.run(state, start, stop - start)
        print(f"\nsteps {start} to {stop} ({time.perf_counter() - begun:.0f} s): {_accuracies(engine, state)}")
        bought = ledger.loss.bought
        amounts = {label: x - before.get(label, 0.0) for label, x in bought.items()}
        print(f"  the test loss changed by {sum(amounts.values()):+.3f}, bought by")
        for label, amount in sorted(amounts.items(), key=lambda item: item[1]):
            if abs(amount) >= 0.1:
                print(f"    {label:10} {amount:+.3f}")
        start, before = stop, bought
    print(f"\nIn all {ledger.loss.change:+.4f}; missed {ledger.loss.error:.1e} of it.")
    print(f"Completeness {ledger.completeness:.1e}, residual {ledger.residual:.1e}. embed.W_E was moved by")
    for row in ledger.rows("embed.W_E"):
        print(f"    {row['group']:10} norm {row['norm']:7.3f}   share {row['share']:+.3f}")


def _accuracies(engine: Engine, state: object) -> str:
    found = engine.evaluate(state)  # type: ignore[arg-type]
    return ", ".join(
        f"{name} {found[name]:.3f}" for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    )


if __name__ == "__main__":
    main()
