"""What an accelerator makes of the JAX engine: rates, the grokking step, ensembles, and whether two equal runs agree.

    python benchmarks/gpu.py --out gpu.json                   # all of it; some five minutes on an H200
    python benchmarks/gpu.py rates step --members 1 16        # some parts, smaller ensembles

rates      products of 8,192² matrices in each precision: what the chip can do, measured
step       one member's grokking step in each precision
throughput the same step of many members at once: milliseconds, and the share of the float32 rate
grokked    ensembles of a recipe trained until each member has sustained the threshold, to the clock: runs per minute
equal      two equal runs and two equal ensembles, compared bit by bit; again with XLA's deterministic operations

Times are the clock's. A program's own compilation stands apart from its running.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from onelayer.arrays import flatten
from onelayer.bench import grok
from onelayer.training import RunConfig, configure, engines, ensemble
from onelayer.training.engines.jax_engine import PRODUCTS

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
SIZE = 8192
RECIPES = ("fastest",)
Found = Iterator[tuple[str, Any]]


def rates(members: list[int]) -> Found:
    """Operations per second of a large product."""
    size = SIZE if jax.devices()[0].platform != "cpu" else 1024
    keys = jax.random.split(jax.random.key(0))
    for name, precision in PRODUCTS.items():
        with jax.default_matmul_precision(precision):
            a, b = (jax.random.normal(key, (size, size), jnp.float32) for key in keys)
            product = jax.jit(jnp.matmul)
            seconds = [clocked(lambda f=product, a=a, b=b: f(a, b)) for _ in range(12)][2:]
        rate = 2 * size**3 / float(np.median(seconds))
        say(f"product {size}², {name}: {rate / 1e12:.1f} TFLOP/s")
        yield name, rate


def step(members: list[int]) -> Found:
    """Seconds of a step of one member, 200 of them one program."""
    for name in PRODUCTS:
        config = config_of("default", precision=name)
        engine: Any = engines.get("jax")(config, config.task.make(0))
        state = engine.start()
        first, *rest = [clocked(lambda e=engine, s=state: e.run(s, 0, 200)) for _ in range(4)]
        each = float(np.median(rest)) / 200
        say(f"a step of one member, {name}: {1000 * each:.3f} ms")
        yield name, {"seconds": each, "compiled": first}


def throughput(members: list[int]) -> Found:
    """Seconds of a step of all members: of two stretches, 55 and 5 steps and an evaluation each, the difference."""
    flops = grok.case().flops or 0.0
    for name in PRODUCTS:
        for n in members if name == "float32" else members[-1:]:
            at: dict[int, float] = {}
            when = {"every": 55, "dense_until": 10, "dense_every": 5}  # 0, 5, 10, 55, 110
            many = ensemble.members(config_of("default", precision=name, steps=110, evaluation=when), n)
            told = ensemble.train(many, lambda progress, at=at: at.update({progress.step: progress.seconds}))
            each = ((at[110] - at[55]) - (at[10] - at[5])) / 50
            say(f"{n} members, {name}: {1000 * each:.2f} ms a step, {n * flops / each / 1e12:.2f} TFLOP/s "
                f"({told.side_by_side} side by side, compiled in {told.compiled:.0f} s)")  # fmt: skip
            yield f"{name}, {n}", {
                "members": n, "precision": name, "seconds": each, "flops": n * flops / each,
                "side_by_side": told.side_by_side, "compiled": told.compiled,
            }  # fmt: skip


def grokked(members: list[int]) -> Found:
    """Ensembles to their ends, and how many runs a minute that is."""
    for recipe in RECIPES:
        for n in members:
            begun = time.perf_counter()
            many = ensemble.train(ensemble.members(configure(recipe, {"engine": "jax"}), n))
            whole, done = time.perf_counter() - begun, n - many.failures
            say(f"{recipe}, {n} members: {done} grokked; {whole:.1f} s, of which {many.seconds:.1f} s training and "
                f"{many.compiled:.1f} s compiling; {60 * done / many.seconds:,.0f} a minute ({many.side_by_side} side "
                f"by side); sustained at {many.distribution()}")  # fmt: skip
            yield f"{recipe}, {n}", {
                "members": n, "recipe": recipe, "whole": whole, "seconds": many.seconds, "compiled": many.compiled,
                "side_by_side": many.side_by_side, "failures": many.failures, "sustained": many.distribution(),
                "per_minute": 60 * done / many.seconds,
            }  # fmt: skip


def equal(members: list[int]) -> Found:
    """This program twice over, as it is and with XLA's deterministic operations."""
    for name, flags in (("as it is", ""), ("deterministic", DETERMINISTIC)):
        environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
        command = [sys.executable, __file__, "digests"]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        lines = ran.stdout.splitlines()
        found = json.loads(lines[-1]) if ran.returncode == 0 else {"error": ran.stderr[-500:]}
        say(f"two equal runs, {name}: {found}")
        yield name, found


def digests() -> dict[str, Any]:
    """SHA-256 of the weights after 300 steps, twice; of an ensemble's curves, twice; and what a step takes."""
    config = config_of("default")
    runs, seconds = [], []
    for _ in range(2):
        engine: Any = engines.get("jax")(config, config.task.make(0))
        state, _ = engine.run(engine.start(), 0, 300)
        runs.append(digest(flatten(engine.to_host(state).params)))
        seconds += [clocked(lambda e=engine, s=state: e.run(s, 0, 300)) / 300]
    curves = []
    for _ in range(2):
        many = ensemble.train(ensemble.members(config_of("fastest", steps=60), 16))
        curves.append(digest({str(i): np.asarray(m.curve) for i, m in enumerate(many.members)}))
    return {"run": runs, "ensemble": curves, "seconds": min(seconds)}


def digest(arrays: dict[str, Any]) -> str:
    whole = hashlib.sha256()
    for name in sorted(arrays):
        whole.update(np.ascontiguousarray(arrays[name]).tobytes())
    return whole.hexdigest()[:16]


def config_of(recipe: str, **change: Any) -> RunConfig:
    """A recipe that is evaluated at its ends only, and does not stop."""
    quiet = {"engine": "jax", "stop": {"on": "none"}, "evaluation": {"every": 10_000}}
    return configure(recipe, quiet, change)


def clocked(do: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(do())
    return time.perf_counter() - begun


def say(words: str) -> None:
    print(words, flush=True)


PARTS: dict[str, Callable[[list[int]], Found]] = {
    "rates": rates, "step": step, "throughput": throughput, "grokked": grokked, "equal": equal
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all, unless named")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 16, 256, 1024])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.parts == ["digests"]:
        return say(json.dumps(digests()))
    unknown = [name for name in given.parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; allowed: {', '.join(PARTS)}")
    device = jax.devices()[0]
    found: dict[str, Any] = {
        "device": f"{device.platform}: {device.device_kind}", "jax": jax.__version__, "numpy": np.__version__,
    }  # fmt: skip
    say(f"{found['device']}, JAX {jax.__version__}")
    for name in given.parts or PARTS:
        for key, figures in PARTS[name](given.members):
            found.setdefault(name, {})[key] = figures
            if given.out:  # after each figure: what is measured is kept
                given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
