"""PyTorch peers, written as a good user of PyTorch would: fused attention, fused AdamW, one product for q, k and v.

`Decoder` asks its last block at the last `read` positions alone, where `careful`; otherwise it computes every position,
as the published grokking code does. Compiled: `torch.compile` of the loss, forward and backward.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..models.config import ModelConfig
from ..tasks import Batch
from ..training.config import RunConfig
from . import Contender, NotInstalled, memory

__all__ = ["contenders"]


def contenders(
    model: ModelConfig, read: int, batch: Batch, config: RunConfig, every_position: bool = False
) -> tuple[Contender, ...]:
    given = (model, read, batch, config)
    kinds = [("torch, eager", True, False), ("torch, compiled", True, True)]
    if every_position:
        kinds.append(("torch, every position", False, False))
    return tuple(
        Contender(name, partial(_step, *given, careful, compiled), None, partial(_memory, *given, careful, compiled))
        for name, careful, compiled in kinds
    )


def _memory(*given: Any) -> dict[str, float]:
    return memory.of_torch(_step(*given))


def _step(
    model: ModelConfig, read: int, batch: Batch, config: RunConfig, careful: bool, compiled: bool
) -> Callable[[], Any]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise NotInstalled("torch: pip install torch==2.13.0") from error
    torch.manual_seed(0)
    net = (_encoder_decoder if model.architecture == "encoder_decoder" else _decoder)(torch, model, read, careful)
    o = config.optimizer
    settings = o.settings
    adamw = torch.optim.AdamW(
        net.parameters(), lr=o.lr, betas=(settings["beta1"], settings["beta2"]),
        weight_decay=settings["weight_decay"], fused=True,
    )  # fmt: skip
    inputs = [torch.from_numpy(a) for a in (batch.source, batch.tokens) if a is not None]
    targets = torch.from_numpy(batch.targets).reshape(-1)

    def loss(*tokens: Any) -> Any:
        return torch.nn.functional.cross_entropy(net(*tokens).flatten(0, 1), targets)

    loss = torch.compile(loss) if compiled else loss

    def step() -> None:
        adamw.zero_grad(set_to_none=True)
        loss(*inputs).backward()
        adamw.step()

    return step


def _parts(torch: Any, cfg: ModelConfig) -> tuple[Any, Any, Any]:
    """Attention, feed-forward, norm: the modules that both nets are built from."""
    nn, F = torch.nn, torch.nn.functional
    D, H = cfg.d_model, cfg.n_heads
    act = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh")}[cfg.activation]

    def heads(x: Any) -> Any:
        return x.unflatten(-1, (H, -1)).transpose(1, 2)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(D, 3 * D, bias=cfg.attention_bias)
            self.out = nn.Linear(D, D, bias=cfg.attention_bias)

        def forward(self, asks: Any, asked: Any, causal: bool) -> Any:
            if asks is asked:
                q, k, v = self.qkv(asks).chunk(3, dim=-1)
            else:  # the last positions ask, or one sequence asks another
                W, b = self.qkv.weight, self.qkv.bias
                q = F.linear(asks, W[:D], None if b is None else b[:D])
                k, v = F.linear(asked, W[D:], None if b is None else b[D:]).chunk(2, dim=-1)
            z = F.scaled_dot_product_attention(heads(q), heads(k), heads(v), is_causal=causal)
            return self.out(z.transpose(1, 2).flatten(2))

    class FeedForward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(D, cfg.d_mlp, bias=cfg.mlp_bias)
            self.down = nn.Linear(cfg.d_mlp, D, bias=cfg.mlp_bias)

        def forward(self, x: Any) -> Any:
            return self.down(act(self.up(x)))

    def norm() -> Any:
        return nn.Identity() if cfg.norm == "none" else nn.LayerNorm(D)

    return Attention, FeedForward, norm


def _decoder(torch: Any, cfg: ModelConfig, read: int, careful: bool) -> Any:
    nn = torch.nn
    Attention, FeedForward, norm = _parts(torch, cfg)
    if cfg.norm == "post":
        raise ValueError("the decoder peer is pre-norm or without norm")

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(cfg.vocab_size, cfg.d_model)
            self.place = nn.Embedding(cfg.n_ctx, cfg.d_model)
            self.attentions = nn.ModuleList([Attention() for _ in range(cfg.n_layers)])
            self.feeds = nn.ModuleList([FeedForward() for _ in range(cfg.n_layers)])
            self.norms = nn.ModuleList([norm() for _ in range(2 * cfg.n_layers + 1)])
            self.unembed = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
            for weights in (self.embed.weight, self.place.weight):
                nn.init.normal_(weights, std=cfg.d_model**-0.5)

        def forward(self, tokens: Any) -> Any:
            x = self.embed(tokens) + self.place.weight[: tokens.shape[1]]
            for i, (attention, feed) in enumerate(zip(self.attentions, self.feeds, strict=True)):
                a = self.norms[2 * i](x)
                last = careful and i == cfg.n_layers - 1 and read < tokens.shape[1]
                if last:
                    x, asks = x[:, -read:], a[:, -read:]
                    x = x + attention(asks, a, causal=False)  # one position asks: all may be seen
                else:
                    x = x + attention(a, a, causal=cfg.causal)
                x = x + feed(self.norms[2 * i + 1](x))
            return self.unembed(self.norms[-1](x)[:, -read:])

    return Decoder()


def _encoder_decoder(torch: Any, cfg: ModelConfig, read: int, careful: bool) -> Any:
    nn = torch.nn
    Attention, FeedForward, norm = _parts(torch, cfg)
    if cfg.norm != "post" or cfg.position != "sinusoidal":
        raise ValueError("the encoder-decoder peer is that of 2017: normed after each sublayer, sinusoidal positions")

    def waves(n: int) -> Any:
        D = cfg.d_model
        angles = np.arange(n)[:, None] * 10_000.0 ** (-2 * np.arange(D // 2) / D)
        table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(n, D)
        return torch.from_numpy(table.astype(np.float32))

    class EncoderDecoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source, self.target = (nn.Embedding(cfg.vocab_size, cfg.d_model) for _ in range(2))
            for table in (self.source, self.target):
                nn.init.normal_(table.weight, std=cfg.d_model**-0.5)
            self.register_buffer("waves", waves(max(cfg.n_ctx, cfg.source_n_ctx or 0)))
            self.attentions = nn.ModuleList([Attention() for _ in range(3)])  # encoder, decoder, across
            self.feeds = nn.ModuleList([FeedForward() for _ in range(2)])
            self.norms = nn.ModuleList([norm() for _ in range(5)])
            self.unembed = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)

        def forward(self, source: Any, target: Any) -> Any:
            there, here, across = self.attentions
            x = self.source(source) + self.waves[: source.shape[1]]
            x = self.norms[0](x + there(x, x, causal=False))
            memory = self.norms[1](x + self.feeds[0](x))
            y = self.target(target) + self.waves[: target.shape[1]]
            y = self.norms[2](y + here(y, y, causal=True))
            y = self.norms[3](y + across(y, memory, causal=False))
            return self.unembed(self.norms[4](y + self.feeds[1](y)))

    return EncoderDecoder()
