"""What Hessian products cost in gradients, and a ledger in steps: interleaved, medians compared.

    python benchmarks/microscope_curvature.py [--rounds 11] [--json]

One layer, p = 113, the full batch of 3,830 examples, float64, NumPy: the default model of `onelayer grok`. In every
round each measurement runs once, in turn, so that a busy machine slows all alike. A gradient is the plain forward and
backward, as in benchmarks/microscope.py; training's own takes a shortcut through tables, and stands beside it. A ledger
is counted with the step that it watches; a product stands on a trace that was made before, except where it says so.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from onelayer.arrays import generator, map_tree
from onelayer.layers import cross_entropy
from onelayer.microscope.curvature import by_complex_step, linearise
from onelayer.microscope.gates import backward, forward
from onelayer.microscope.ledger import Ledger
from onelayer.training.config import resolve
from onelayer.training.engines.numpy_engine import Engine
from onelayer.training.objective import loss_and_grads

BOUNDS = {"hessian product": 3.0, "ledger of 26 routes": 10.0, "ledger of 26 operand classes": 10.0}


def measure(rounds: int = 11) -> dict[str, float]:
    """The gradient and the step in seconds; Hessian products in gradients, ledgers in steps."""
    config = resolve({"dtype": "float64"})
    task = config.task.make(config.seed)
    engine = Engine(config, task)
    objective, batch = engine.objective, task.train
    state, _ = engine.run(engine.start(), 0, 1)
    at = linearise(state.params, batch, objective.model)
    v = map_tree(lambda x: generator(0, "direction").standard_normal(x.shape), state.params)

    def gradient() -> Any:
        logits, cache = forward(state.params, batch, objective.model)
        return backward(cross_entropy.backward(cross_entropy.forward(logits, batch.targets)[1]), cache, objective.model)

    def step(watch: Any) -> Callable[[], Any]:
        at_step = [1]  # a ledger sees steps in their order; the state is the same one each time

        def run() -> None:
            engine.watch = watch
            engine.run(state, at_step[0], 1)
            engine.watch = None
            at_step[0] += 1

        return run

    runs: dict[str, Callable[[], Any]] = {
        "gradient": gradient,
        "training's gradient": lambda: loss_and_grads(state.params, batch, objective),
        "hessian product": lambda: at.hessian(v),
        "hessian product with its trace": lambda: linearise(state.params, batch, objective.model).hessian(v),
        "gauss-newton product": lambda: at.gauss_newton(v),
        "hessian product by complex step": lambda: by_complex_step(state.params, v, batch, objective.model),
        "step": step(None),
        "ledger of 26 routes": step(Ledger(config, objective, "route")),
        "ledger of 26 operand classes": step(Ledger(config, objective, "operand", classes=26)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):  # the first round warms up
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - begun)
    found = {name: median(s) for name, s in seconds.items()}
    unit = {name: found["step" if "ledger" in name else "gradient"] for name in found}
    return {name: s if name in ("gradient", "step") else s / unit[name] for name, s in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        words = "seconds" if name in ("gradient", "step") else "steps" if "ledger" in name else "gradients"
        bound = f"   (bound {BOUNDS[name]:g})" if name in BOUNDS else ""
        print(f"{name:32} {value:8.3f} {words}{bound}")


if __name__ == "__main__":
    main()
