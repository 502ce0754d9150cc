"""The JAX engine's gradient on a CPU with numba: XLA does what is done once a step, kernels what every example does.

XLA takes long for products of many rows with a layer's weights, and short for many small operations in a row, which
NumPy calls one by one. So the compiled program multiplies the circuits out (models/circuits.py), hands them to the
kernels, a share of the batch on each thread (shares.py), and takes the circuits' gradient on to the parameters.

`taken` says for which runs: one layer without norms, in float32 or float64, all examples in every step.
"""

import hashlib
from typing import Any

import jax
import numpy as np

from ... import kernels, threads
from ...arrays import Array
from ...fused import using
from ...models import circuits
from ...tasks import Batch
from ..config import RunConfig
from ..objective import Met, Objective, to_parameters
from . import host, shares
from .memory import keep_freed_memory

__all__ = ["gradient", "of_examples", "taken"]


WORTHWHILE = 1 << 24  # multiply-adds of the examples' products below which XLA is done before the kernels are called


def taken(config: RunConfig, objective: Objective, batch: Batch) -> bool:
    """Whether a step over all of the batch goes this way."""
    model, shape = objective.model, batch.tokens.shape
    exact = config.dtype == "float64" or config.precision == "float32"
    if not (exact and kernels.available() and model.architecture == "decoder_only" and jax.default_backend() == "cpu"):
        return False
    from ...kernels.circuits import takes

    with using(kernels.available()):
        saves = circuits.fits(model, shape, objective.read) and circuits.one_by_one(model, shape[0]) >= WORTHWHILE
    return saves and circuits.adds_rows_up(model, shape) and takes(model.activation) and host.works()


def gradient(params: Any, batch: Batch, objective: Objective) -> tuple[Array, Any]:
    """`loss_and_grads` in a compiled program, where it is `taken`; the batch is NumPy's."""
    made, origin = circuits.multiply_out(params, batch.tokens, objective.model)
    met = Met(made, batch._replace(tokens=origin.rows.seats.rows), origin)
    given, structure = jax.tree.flatten((met.params, met.batch))
    keep_freed_memory()

    def on_the_host(*arrays: np.ndarray) -> list[Any]:
        loss, d = of_examples(Met(*jax.tree.unflatten(structure, arrays)), objective)
        return [loss, *jax.tree.leaves(d)]

    what = hashlib.sha256(f"{objective} {structure}".encode()).hexdigest()
    call = host.function(f"onelayer examples {what}", on_the_host)
    circuit, back = jax.tree.flatten(met.params)
    kind = "float64" if objective.variant == "float64" else met.params.v.dtype
    shapes = [jax.ShapeDtypeStruct((), kind), *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in circuit)]
    loss, *d = call(shapes, *given)
    return loss, to_parameters(jax.tree.unflatten(back, d), met, objective)


def of_examples(met: Met, objective: Objective) -> tuple[Array, Any]:
    """NumPy: the loss, and the gradient of the circuits that the examples met."""
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the engine finds it, and names it
    with using(kernels.available()), threads.alone(), quiet:
        made = met.params._replace(paid=circuits.paid(met.params))
        return shares.gradient(made, met.batch, objective)
