"""The grokking step: a b = mod 113, all 3,830 training pairs, one layer without norm, width 128, feed-forward 512.

Its arithmetic is counted as one position's is, product by product. Who multiplies circuits out needs half of it: NumPy,
and the JAX engine where it hands the examples to the kernels (training/engines/examples.py), "jax + numba".
"""

from ..training import recipes
from ..training.step import make_objective
from . import Case, ours, peer_jax, peer_torch, products


def case() -> Case:
    config = recipes.configure("default")
    task = config.task.make(0)
    objective, n = make_objective(config, task), len(task.train.tokens)
    model = objective.model
    D, F, V, HK = model.d_model, model.d_mlp, model.vocab_size, model.n_heads * model.head_width
    rows = V * task.n_ctx  # of the tables
    flops = 3 * products(
        (n, D, F),
        (n, F, D),
        (n, D, V),
        (n, HK, D),
        (rows, D, HK, 2),
        (V, D, HK),
        (V, model.head_width, rows, model.n_heads),
    )
    peers = peer_torch.contenders(model, 1, task.train, config, every_position=True)
    naive = peer_jax.contenders(model, 1, task.train, config)
    return Case(
        "grok",
        f"One full-batch step on {n:,} pairs: gradients and AdamW.",
        (*ours.contenders(objective, task.train, config, handed=True), *peers, *naive),
        flops,
        (n, D, F),
        (
            ("jax + numba", "torch, every position", 6.0),
            ("jax + numba", "torch, compiled", 2.3),
            ("numpy + numba", "torch, eager", 2.0),
        ),
        facts={"share": ("jax + numba", 0.80)},
    )
