"""Our own contenders: the engines' steps, as `onelayer train` runs them."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from .. import kernels
from ..arrays import map_tree
from ..fused import using
from ..sublayers import attention_blocked, attention_rows
from ..tasks import Batch
from ..training import step as steps
from ..training.config import RunConfig
from ..training.engines import shares
from ..training.engines.memory import keep_freed_memory
from ..training.objective import Objective, meet
from . import Contender, NotInstalled, memory

__all__ = ["contenders"]

SCANNED = 8  # steps of one JAX program


def contenders(
    objective: Objective, batch: Batch, config: RunConfig, flops: float | None = None, blocked: bool = True,
    handed: bool = False,
) -> tuple[Contender, ...]:  # fmt: skip
    """NumPy and JAX, each taking a training step; NumPy with and without kernels, and JAX so too where `handed` says
    that the engine hands them such a step's examples."""
    given = (objective, batch, config)
    ours = [Contender("numpy + numba", partial(_numpy, *given, True), flops, partial(_numpy_memory, *given, True)),
            Contender("numpy", partial(_numpy, *given, False), flops, partial(_numpy_memory, *given, False)),
            Contender("jax", partial(_jax, *given), flops, partial(_jax_memory, *given))]  # fmt: skip
    if handed:
        fast = partial(_jax, *given, handed=True), flops, partial(_jax_memory, *given, handed=True)
        ours.insert(2, Contender("jax + numba", *fast))
    if blocked:
        return tuple(ours)
    whole = [
        Contender("numpy + numba, whole attention", partial(_numpy, *given, True, False), None,
                  partial(_numpy_memory, *given, True, False)),
        Contender("jax, whole attention", partial(_jax, *given, False), None, partial(_jax_memory, *given, False)),
    ]  # fmt: skip
    return (*ours, *whole)


def _start(objective: Objective, config: RunConfig) -> tuple[Any, Any]:
    rules = steps.make_rules(config)
    return rules, steps.start(objective, rules, 0, "float32")


def _numpy(
    objective: Objective, batch: Batch, config: RunConfig, fast: bool, blocked: bool = True
) -> Callable[[], Any]:
    if fast and not kernels.available():
        raise NotInstalled("numba: pip install 'onelayer[fast]'")
    keep_freed_memory()
    found = kernels.available() if fast else {}
    if not blocked:  # the whole pattern, then, as the definition has it
        found = {name: kernel for name, kernel in found.items() if not name.startswith("sublayers.attention")}
    stand_ins = (found, attention_rows.STAND_INS, *([attention_blocked.STAND_INS] if blocked else []))
    (rules, state), t = _start(objective, config), 0

    def step() -> None:
        nonlocal state, t
        with using(*stand_ins):
            state, _, _ = steps.take(state, batch, t, objective, rules, gradient=shares.gradient)
        t += 1

    return step


def _numpy_memory(*given: Any) -> dict[str, float]:
    return memory.of_numpy(_numpy(*given))


def _scan(
    objective: Objective, batch: Batch, config: RunConfig, blocked: bool, n: int, handed: bool
) -> tuple[Any, Any, Any]:
    if find_spec("jax") is None:
        raise NotInstalled("jax: pip install 'onelayer[jax]'")
    if handed and not kernels.available():
        raise NotInstalled("numba: pip install 'onelayer[fast]'")
    import jax
    import jax.numpy as jnp

    rules, state = _start(objective, config)
    state = map_tree(jnp.asarray, state)
    there = map_tree(lambda a: jnp.asarray(a, dtype="float32" if a.dtype.kind == "f" else None), batch)

    from ..training.engines import examples

    if handed and not examples.taken(config, objective, batch):
        raise NotInstalled(
            "JAX on a CPU, of a version whose programs can call the kernels: pip install 'onelayer[jax]'"
        )

    def many(state: Any, ts: Any, there: Any) -> Any:
        seen, gradient = (batch, examples.gradient) if handed else (there, None)

        def one(state: Any, t: Any) -> tuple[Any, None]:
            return steps.take(state, seen, t, objective, rules, gradient)[0], None

        with using(attention_blocked.STAND_INS if blocked else {}):
            return jax.lax.scan(one, state, ts)[0]

    compiled = jax.jit(many, donate_argnums=0).lower(state, jnp.arange(n), there).compile()
    return compiled, state, there


def _jax(
    objective: Objective, batch: Batch, config: RunConfig, blocked: bool = True, handed: bool = False
) -> Callable[[], Any]:
    n = SCANNED
    compiled, state, there = _scan(objective, batch, config, blocked, n, handed)
    import jax
    import jax.numpy as jnp

    t = 0

    def many() -> None:
        nonlocal state, t
        state = jax.block_until_ready(compiled(state, jnp.arange(t, t + n), there))
        t += n

    many.steps = n  # type: ignore[attr-defined]
    return many


def _jax_memory(
    objective: Objective, batch: Batch, config: RunConfig, blocked: bool = True, handed: bool = False
) -> dict[str, float]:
    of_xla = memory.of_jax(_scan(objective, batch, config, blocked, 1, handed)[0])
    if not handed:
        return of_xla
    from ..training.engines import examples

    with using({}):
        met = meet(_start(objective, config)[1].params, batch, objective)
    of_kernels = memory.of_numpy(lambda: examples.of_examples(met, objective))
    return {name: of_xla.get(name, 0.0) + n for name, n in of_kernels.items()}


def tokens(vocab: int, *shape: int, name: str = "tokens") -> np.ndarray:
    from ..arrays import generator

    return generator(0, "bench", name).integers(0, vocab, shape)
