"""Long context: a step of one layer, width 128, on one sequence; attention in blocks against the whole [T, T]."""

from dataclasses import replace

from ..tasks import Batch
from ..training import recipes
from ..training.objective import Objective
from . import Case, language_model, ours, peer_torch

PROMISED = 4096  # tokens from which an eighth of the memory is promised: below, what is not attention weighs in


def case(length: int) -> Case:
    plain = language_model.case(1, length, 1)
    V, D, F, H = language_model.V, language_model.D, language_model.F, language_model.H
    shape = {"norm": "pre", "activation": "gelu", "d_model": D, "d_mlp": F, "n_heads": H}
    config = recipes.configure("default", {"model": shape})
    model = config.model.build(vocab_size=V, n_ctx=length)
    data = Batch(ours.tokens(V, 1, length), ours.tokens(V, 1, length, name="targets"))
    return replace(
        plain,
        name=f"long-{length}",
        text=f"One step of a one-layer decoder on one sequence of {length:,} tokens.",
        contenders=(
            *ours.contenders(Objective(model, length), data, config, blocked=False),
            *peer_torch.contenders(model, length, data, config),
        ),
        bounds=(("numpy + numba", "numpy + numba, whole attention", 1 / 1.3), ("jax", "jax, whole attention", 1 / 1.3)),
        facts={"memory": 1 / 8} if length >= PROMISED else {},
    )
