"""What the tests of attention's stand-ins share: weights to try them on, and how closely they must agree with it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from onelayer import fused
from onelayer.arrays import flatten, generator, map_tree
from onelayer.models import decoder_only
from onelayer.models.config import ModelConfig
from onelayer.positions import Method, Size
from onelayer.sublayers import attention

UNFELT = ("b_K",)  # what moves all scores of a row alike is not felt: its gradient is all rounding


def drawn(method: Method, size: Size, random: Callable[..., np.ndarray]) -> attention.Params:
    """Weights with biases, and positions moved away from where they begin."""
    H, D, K = size.n_heads, size.d_model, size.d_head
    pos = method.init(generator(0, "pos"), size) if method.in_attention else None
    pos = map_tree(lambda a: a + 0.3 * random(*a.shape), pos)
    weights = (0.5 * random(H, D, K), 0.4 * random(H, D, K), random(H, D, K), random(H, K, D))
    return attention.Params(*weights, random(H, K), random(H, K) + 1, random(H, K) - 1, random(D), pos)


def equal(
    got: Any, expected: Any, unfelt: tuple[str, ...] = UNFELT, rounding: float = 1e-11, zero: float = 1.0
) -> None:
    """Tensor by tensor to 1e-12 of its length (of one that is zero: of `zero`), what is not felt to `rounding`."""
    a, b = flatten(got), flatten(expected)
    assert a.keys() == b.keys()
    for name in a:
        if name.endswith(unfelt):
            assert np.abs(a[name] - b[name]).max() < rounding, name
        else:
            assert np.linalg.norm(a[name] - b[name]) <= 1e-12 * (np.linalg.norm(b[name]) or zero), name


def equal_in_a_model(stand_ins: Mapping[str, Any], batch: int, length: int, **of: Any) -> None:
    """The gradients of a decoder of two layers, with the stand-ins and without."""
    shape: dict[str, Any] = {"vocab_size": 11, "n_ctx": length, "d_model": 12, "n_heads": 3, "d_mlp": 9, "n_layers": 2}
    cfg = ModelConfig(**shape, **of)
    p, tokens = decoder_only.init(cfg, 0), generator(0, "tokens").integers(0, 11, (batch, length))
    dlogits = generator(0, "dlogits").standard_normal((batch, length, 11))

    def gradients() -> Any:
        _, c = decoder_only.forward(p, tokens, cfg)
        return decoder_only.backward(dlogits, c, cfg)

    expected = gradients()
    with fused.using(stand_ins):
        equal(gradients(), expected, rounding=1e-12, zero=0.0)
