"""An encoder-decoder's step, as of 2017: width 128, 4 heads, 20 tokens to 20 tokens, batch 128, one layer each."""

from ..tasks import Batch
from ..training import recipes
from ..training.objective import Objective
from . import Case, ours, peer_jax, peer_torch, products

B, L, V, D, F, H = 128, 20, 64, 128, 512, 4


def case() -> Case:
    shape = {"d_model": D, "d_mlp": F, "n_heads": H, "norm": "post", "position": "sinusoidal"}
    config = recipes.configure("default", {"model": {"architecture": "encoder_decoder", **shape}})
    model = config.model.build(vocab_size=V, n_ctx=L, source_n_ctx=L)
    tokens, targets, source = (ours.tokens(V, B, L, name=name) for name in ("tokens", "targets", "source"))
    data = Batch(tokens, targets, source=source)
    n = B * L
    flops = 3 * products((n, D, 4 * D, 3), (n, D, F, 4), (n, D, V), (n, D // H, L, 2 * H * 3))
    return Case(
        "encoder-decoder",
        f"One step of one encoder and one decoder layer: {B} pairs of {L} and {L} tokens.",
        (
            *ours.contenders(Objective(model, L), data, config),
            *peer_torch.contenders(model, L, data, config),
            *peer_jax.contenders(model, L, data, config),
        ),
        flops,
        (n, D, F),
        (("ours", "torch", 1.2),),
    )
