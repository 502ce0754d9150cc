"""The naive JAX peer: the same nets, written down and given to `jax.value_and_grad`; AdamW by hand, jitted, scanned."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..arrays import generator
from ..models.config import ModelConfig
from ..tasks import Batch
from ..training.config import RunConfig
from . import Contender, NotInstalled, memory
from .ours import SCANNED

__all__ = ["contenders"]


def contenders(model: ModelConfig, read: int, batch: Batch, config: RunConfig) -> tuple[Contender, ...]:
    given = (model, read, batch, config)
    return (Contender("jax, autodiff", partial(_many, *given), None, partial(_memory, *given)),)


def _memory(model: ModelConfig, read: int, batch: Batch, config: RunConfig) -> dict[str, float]:
    return memory.of_jax(_compiled(model, read, batch, config, 1)[0])


def _many(model: ModelConfig, read: int, batch: Batch, config: RunConfig) -> Callable[[], Any]:
    compiled, state = _compiled(model, read, batch, config, SCANNED)
    import jax
    import jax.numpy as jnp

    t = 0

    def many() -> None:
        nonlocal state, t
        state = jax.block_until_ready(compiled(state, jnp.arange(t, t + SCANNED)))
        t += SCANNED

    many.steps = SCANNED  # type: ignore[attr-defined]
    return many


def _weights(cfg: ModelConfig) -> dict[str, np.ndarray]:
    rng, D, V = generator(0, "bench", "jax peer"), cfg.d_model, cfg.vocab_size

    def drawn(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * D**-0.5).astype(np.float32)

    p = {"embed": drawn(V, D), "place": drawn(cfg.n_ctx, D), "unembed": drawn(D, V)}
    pairs = cfg.architecture == "encoder_decoder"
    names = ["there", "here", "across"] if pairs else [f"block{i}" for i in range(cfg.n_layers)]
    for name in names:
        p |= {f"{name}.{w}": drawn(D, D) for w in ("q", "k", "v", "o")}
        p |= {f"{name}.in": drawn(D, cfg.d_mlp), f"{name}.in_bias": np.zeros(cfg.d_mlp, np.float32)}
        p |= {f"{name}.out": drawn(cfg.d_mlp, D), f"{name}.out_bias": np.zeros(D, np.float32)}
        for norm in ("norm1", "norm2"):
            p |= {f"{name}.{norm}.gain": np.ones(D, np.float32), f"{name}.{norm}.bias": np.zeros(D, np.float32)}
    p |= {"final.gain": np.ones(D, np.float32), "final.bias": np.zeros(D, np.float32)}
    return p | ({"source": drawn(V, D)} if pairs else {})


def _compiled(model: ModelConfig, read: int, batch: Batch, config: RunConfig, n: int) -> tuple[Any, Any]:
    if find_spec("jax") is None:
        raise NotInstalled("jax: pip install 'onelayer[jax]'")
    import jax
    import jax.numpy as jnp

    cfg, H = model, model.n_heads
    act = {"relu": jax.nn.relu, "gelu": partial(jax.nn.gelu, approximate=False), "gelu_tanh": jax.nn.gelu}[
        cfg.activation
    ]

    def norm(p: Any, name: str, x: Any) -> Any:
        if cfg.norm == "none":
            return x
        mean, var = jnp.mean(x, -1, keepdims=True), jnp.var(x, -1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(var + 1e-5) * p[f"{name}.gain"] + p[f"{name}.bias"]

    def attend(p: Any, name: str, asks: Any, asked: Any, causal: bool) -> Any:
        def heads(x: Any) -> Any:
            return jnp.swapaxes(jnp.reshape(x, (*x.shape[:2], H, -1)), 1, 2)

        q, k, v = heads(asks @ p[f"{name}.q"]), heads(asked @ p[f"{name}.k"]), heads(asked @ p[f"{name}.v"])
        scores = q @ jnp.swapaxes(k, 2, 3) / np.sqrt(q.shape[-1])
        if causal:
            scores = jnp.where(np.tril(np.ones(scores.shape[2:], bool)), scores, -jnp.inf)
        z = jax.nn.softmax(scores) @ v
        return jnp.reshape(jnp.swapaxes(z, 1, 2), asks.shape) @ p[f"{name}.o"]

    def feed(p: Any, name: str, x: Any) -> Any:
        return act(x @ p[f"{name}.in"] + p[f"{name}.in_bias"]) @ p[f"{name}.out"] + p[f"{name}.out_bias"]

    def decoder(p: Any) -> Any:
        x = p["embed"][batch.tokens] + p["place"]
        for i in range(cfg.n_layers):
            name = f"block{i}"
            a = norm(p, f"{name}.norm1", x)
            x = x + attend(p, name, a, a, cfg.causal)
            x = x + feed(p, name, norm(p, f"{name}.norm2", x))
        return (norm(p, "final", x) @ p["unembed"])[:, -read:]

    def encoder_decoder(p: Any) -> Any:
        x = p["source"][batch.source] + p["place"]
        x = norm(p, "there.norm1", x + attend(p, "there", x, x, False))
        memory = norm(p, "there.norm2", x + feed(p, "there", x))
        y = p["embed"][batch.tokens] + p["place"]
        y = norm(p, "here.norm1", y + attend(p, "here", y, y, True))
        y = norm(p, "across.norm1", y + attend(p, "across", y, memory, False))
        return norm(p, "here.norm2", y + feed(p, "here", y)) @ p["unembed"]

    def loss(p: Any) -> Any:
        logits = encoder_decoder(p) if cfg.architecture == "encoder_decoder" else decoder(p)
        said = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(said, jnp.asarray(batch.targets)[..., None], axis=-1))

    s, lr = config.optimizer.settings, config.optimizer.lr
    b1, b2, eps, decay = s["beta1"], s["beta2"], s["eps"], s["weight_decay"]

    def step(state: Any, t: Any) -> Any:
        p, m, v = state
        g = jax.grad(loss)(p)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
        c1, c2 = 1 - b1 ** (t + 1.0), 1 - b2 ** (t + 1.0)
        p = jax.tree.map(lambda p, m, v: p - lr * (decay * p + m / c1 / (jnp.sqrt(v / c2) + eps)), p, m, v)
        return (p, m, v), None

    p = jax.tree.map(jnp.asarray, _weights(cfg))
    zeros = jax.tree.map(jnp.zeros_like, p)
    state = (p, zeros, jax.tree.map(jnp.copy, zeros))
    program = jax.jit(lambda state, ts: jax.lax.scan(step, state, ts)[0], donate_argnums=0)
    return program.lower(state, jnp.arange(n)).compile(), state
