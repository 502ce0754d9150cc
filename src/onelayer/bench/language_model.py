"""A language model's step: context 64, batch 64, vocabulary 65, width 128, feed-forward 512, normed before, GELU."""

from ..tasks import Batch
from ..training import recipes
from ..training.objective import Objective
from . import Case, ours, peer_jax, peer_torch, products

B, T, V, D, F, H = 64, 64, 65, 128, 512, 4


def case(layers: int, length: int = T, batch: int = B) -> Case:
    config = recipes.configure(
        "default",
        {"model": {"n_layers": layers, "norm": "pre", "activation": "gelu", "d_model": D, "d_mlp": F, "n_heads": H}},
    )
    model = config.model.build(vocab_size=V, n_ctx=length)
    data = Batch(ours.tokens(V, batch, length), ours.tokens(V, batch, length, name="targets"))
    n = batch * length
    flops = 3 * products((n, D, 4 * D, layers), (n, D, F, 2 * layers), (n, D, V), (n, D // H, length, 2 * H * layers))
    return Case(
        f"language-model-{layers}",
        f"One step of a {layers}-layer decoder, every position read: {batch} × {length} tokens.",
        (
            *ours.contenders(Objective(model, length), data, config),
            *peer_torch.contenders(model, length, data, config),
            *peer_jax.contenders(model, length, data, config),
        ),
        flops,
        (n, D, F),
        (("ours", "torch", 1.2),),
    )
