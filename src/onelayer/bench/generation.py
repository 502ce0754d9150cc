"""Generation: 256 tokens, greedily, with the KV cache and with everything computed anew for each token."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import kernels
from ..arrays import map_tree
from ..decoding import kv_cache
from ..fused import using
from ..models import decoder_only
from ..models.config import ModelConfig
from ..sublayers import attention_blocked, attention_rows
from ..training.engines.memory import keep_freed_memory
from . import Case, Contender, NotInstalled, memory, ours

B, PROMPT, SAID = 8, 16, 256


def _model() -> tuple[ModelConfig, Any, np.ndarray]:
    shape: dict[str, Any] = {
        "vocab_size": 65,
        "n_ctx": PROMPT + SAID,
        "n_layers": 4,
        "norm": "pre",
        "activation": "gelu",
    }
    cfg = ModelConfig(**shape)
    p = map_tree(lambda a: np.asarray(a, np.float32), decoder_only.init(cfg, 0))
    return cfg, p, ours.tokens(65, B, PROMPT)


def anew(p: Any, tokens: np.ndarray, n: int, cfg: ModelConfig) -> np.ndarray:
    """What `kv_cache.generate` says, by reading everything again for every token."""
    for _ in range(n):
        logits, _ = decoder_only.forward(p, tokens, cfg, read=1)
        tokens = np.concatenate([tokens, logits.argmax(-1)], axis=1)
    return tokens[:, -n:]


def _contender(how: Callable[..., np.ndarray], fast: bool) -> Contender:
    def make() -> Callable[[], Any]:
        if fast and not kernels.available():
            raise NotInstalled("numba: pip install 'onelayer[fast]'")
        keep_freed_memory()
        cfg, p, prompt = _model()

        def do() -> np.ndarray:
            with using(kernels.available() if fast else {}, attention_rows.STAND_INS, attention_blocked.STAND_INS):
                return (kv_cache.generate if how is kv_cache.generate else anew)(p, prompt, SAID, cfg)

        return do

    name = f"numpy{' + numba' if fast else ''}, {'KV cache' if how is kv_cache.generate else 'anew'}"
    return Contender(name, make, None, lambda: memory.of_numpy(make()))


def case() -> Case:
    fast = bool(kernels.available())  # without kernels, reading everything again takes half a minute
    return Case(
        "generation",
        f"{SAID} tokens after a prompt of {PROMPT}, {B} sequences at once, 4 layers; the same tokens either way.",
        tuple(_contender(how, fast) for how in (kv_cache.generate, anew)),
        None,
        (B, 128, 512),
        (("numpy + numba, KV cache", "numpy + numba, anew", 8.0),)
        if fast
        else (("numpy, KV cache", "numpy, anew", 8.0),),
    )
