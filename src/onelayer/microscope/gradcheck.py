"""Gradcheck: every hand-derived backward against the complex-step derivative, over every entry of small tensors.

A case is a forward and a backward with random values for everything that is differentiated. Nothing is at its initial
value (gains are not 1, biases not 0), ∂y is random and uneven, and all dimensions differ, so that a transposed axis, a
gain on the wrong side of a mean or a forgotten term cannot pass.

Error     max|hand − complex step| / max|complex step|, of each tensor on its own.
          A gradient that is zero by symmetry (a key bias moves all scores of a row alike) has no size of its own:
          where it lies below 1e-10 of the case's largest gradient, the error is measured against that one.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import positions
from ..arrays import flatten, generator, map_tree, natural, unflatten
from ..layers import activations, cross_entropy, embedding, layer_norm, linear, rms_norm, softmax, unembedding
from ..models import decoder_only, encoder_decoder
from ..models.config import ModelConfig
from ..positions import Places, Size
from ..sublayers import attention, feed_forward
from . import complex_step

__all__ = ["BOUND", "Case", "Row", "cases", "check", "check_all", "random_like"]

BOUND = 1e-12
B, T, S, D, H, K, F, V = 6, 5, 7, 4, 3, 2, 8, 9


class Case(NamedTuple):
    """forward(x) -> (y, cache), y an array or a tree; backward(dy, cache) -> a tree like x; x holds all that moves."""

    name: str
    x: Any
    forward: Callable[[Any], tuple[Any, Any]]
    backward: Callable[[Any, Any], Any]


class Row(NamedTuple):
    case: str
    tensor: str  # the worst one
    error: float
    tensors: int
    entries: int

    @property
    def passed(self) -> bool:
        return self.error <= BOUND


def check_all(seed: int = 0, only: str = "") -> Iterator[Row]:
    """Each case in turn; `only` keeps the cases whose name contains it."""
    for case in cases(seed):
        if only in case.name:
            yield check(case, seed)


def check(case: Case, seed: int = 0) -> Row:
    """The worst tensor of one case."""
    y, cache = case.forward(case.x)
    dy = random_like(y, seed, case.name)

    def loss(x: Any) -> Any:
        ahead, wanted = flatten(case.forward(x)[0]), flatten(dy)
        return sum(np.sum(a * wanted[name]) for name, a in ahead.items())

    hand, exact = flatten(case.backward(dy, cache)), flatten(complex_step.gradient(loss, case.x))
    if hand.keys() != exact.keys():
        raise AssertionError(f"{case.name}: the backward and its input differ in {sorted(hand.keys() ^ exact.keys())}")
    largest = max(np.max(np.abs(g)) for g in exact.values())
    errors = {name: _error(hand[name], exact[name], largest) for name in exact}
    worst = max(errors, key=lambda name: errors[name])
    return Row(case.name, worst or "x", errors[worst], len(exact), sum(g.size for g in exact.values()))


def _error(hand: np.ndarray, exact: np.ndarray, largest: float) -> float:
    if hand.shape != exact.shape:
        return np.inf
    size = np.max(np.abs(exact))
    gap = np.max(np.abs(hand - exact))
    if not np.isfinite(gap):
        return np.inf
    scale = size if size > 1e-10 * largest else largest
    return float(gap / scale) if gap else 0.0


def random_like(tree: Any, seed: int, purpose: str, low: float = 0.1, high: float = 0.9) -> Any:
    """Float64 of either sign, none near zero: away from initial values, from kinks, and from saturation."""

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        rng = generator(seed, "gradcheck", purpose, name)
        return np.asarray(rng.choice((-1.0, 1.0), shape) * rng.uniform(low, high, shape))

    return unflatten({name: draw(name, x.shape) for name, x in flatten(tree).items()}, tree)


# ---------------------------------------------------------------------------------------------------- the cases


class Pair(NamedTuple):
    """Parameters and input, differentiated together."""

    p: Any
    x: Any


class Triple(NamedTuple):
    p: Any
    x_q: Any
    x_k: Any


def cases(seed: int = 0) -> Iterator[Case]:
    rng = generator(seed, "gradcheck", "integers")
    yield from _layer_cases(seed, rng)
    yield from _sublayer_cases(seed)
    yield from _model_cases(seed, rng)


def _empty(*shape: int) -> np.ndarray:
    return np.empty(shape)


def _layer_cases(seed: int, rng: np.random.Generator) -> Iterator[Case]:
    def layer(name: str, module: Any, params: Any, x: np.ndarray, **static: Any) -> Case:
        return Case(
            name,
            random_like(Pair(params, x), seed, name),
            lambda both: module.forward(both.p, both.x, **static),
            lambda dy, c: Pair(*reversed(module.backward(dy, c))),
        )

    x = _empty(B, T, D)
    yield layer("linear", linear, linear.Params(_empty(D, F), _empty(F)), x)
    yield layer("linear, no bias", linear, linear.Params(_empty(D, F), None), x)
    yield layer("unembedding", unembedding, unembedding.Params(_empty(D, V), _empty(V)), x)
    yield layer("layer norm", layer_norm, layer_norm.Params(_empty(D), _empty(D)), x)
    yield layer("layer norm, large ε", layer_norm, layer_norm.Params(_empty(D), _empty(D)), x, eps=0.1)
    yield layer("rms norm", rms_norm, rms_norm.Params(_empty(D)), x)

    tokens = rng.integers(0, V - 2, (B, T))  # repeats, and tokens that never occur
    for scale in (1.0, 2.5):
        yield Case(
            f"embedding, scale {scale}",
            random_like(embedding.Params(_empty(V, D)), seed, "embedding"),
            partial(embedding.forward, tokens=tokens, scale=scale),
            partial(embedding.backward, scale=scale),
        )
    for kind in activations.FUNCTIONS:
        yield Case(
            f"activation {kind}",
            random_like(_empty(B, T, F), seed, kind) * 3,
            partial(activations.forward, kind=kind),
            activations.backward,
        )
    mask = np.tril(np.ones((S, S), dtype=bool), 1)
    mask[2] = False  # a row that may look nowhere
    for name, allowed in (("softmax", None), ("softmax, masked", mask)):
        x = random_like(_empty(B, H, S, S), seed, name) * 3
        yield Case(name, x, partial(softmax.forward, mask=allowed), softmax.backward)

    targets, weights = rng.integers(0, V, (B, T)), rng.uniform(0.2, 1.0, (B, T))
    weights[0, 1] = 0.0
    for variant in cross_entropy.VARIANTS:
        for static in ({}, {"smoothing": 0.2, "never": 3, "temperature": 1.7}):
            yield Case(
                f"cross-entropy {variant}{', smoothed' if static else ''}",
                random_like(_empty(B, T, V), seed, variant) * 3,
                partial(cross_entropy.forward, targets=targets, weights=weights, variant=variant, **static),
                lambda dloss, c: dloss * cross_entropy.backward(c),
            )


def _sublayer_cases(seed: int) -> Iterator[Case]:
    for kind in ("relu", "gelu"):
        p = feed_forward.Params(_empty(D, F), _empty(F), _empty(F, D), _empty(D))
        yield Case(
            f"feed-forward {kind}",
            random_like(Pair(p, _empty(B, T, D)), seed, "feed-forward"),
            lambda both, kind=kind: feed_forward.forward(both.p, both.x, kind),
            lambda dy, c: Pair(*reversed(feed_forward.backward(dy, c))),
        )
    for name in positions.available():
        for cross in (False, True):
            if not cross or positions.get(name).crosses:
                yield attention_case(name, cross, seed)


def attention_case(name: str, cross: bool, seed: int = 0, **constants: Any) -> Case:
    """Attention with the position method of that name: in one causal sequence, or from one to another, with padding."""
    position = positions.get(name, **constants)
    keys = S if cross else T
    mask = np.ones((B, 1, T, keys), dtype=bool) if cross else np.tril(np.ones((T, T), dtype=bool))[None, None]
    if cross:
        mask[0, :, :, keys - 2 :] = False
    places = Places(natural(T), natural(keys), mask, causal=not cross)
    pos = position.init(generator(seed, name), Size(D, H, K, S, not cross, cross)) if position.in_attention else None
    p = attention.Params(
        _empty(H, D, K), _empty(H, D, K), _empty(H, D, K), _empty(H, K, D),
        _empty(H, K), _empty(H, K), _empty(H, K), _empty(D), pos,
    )  # fmt: skip
    label = f"attention {name}, {'cross' if cross else 'self'}"

    def forward(x: Triple) -> tuple[Any, Any]:
        return attention.forward(x.p, x.x_q, x.x_k, places, position)

    def backward(dy: Any, c: Any) -> Triple:
        dx_q, dx_k, dp = attention.backward(dy, c, position)
        return Triple(dp, dx_q, dx_k)

    return Case(label, random_like(Triple(p, _empty(B, T, D), _empty(B, keys, D)), seed, label), forward, backward)


def _model_cases(seed: int, rng: np.random.Generator) -> Iterator[Case]:
    small: dict[str, Any] = {"d_model": D, "n_heads": H, "d_head": K, "d_mlp": F, "attention_bias": True}
    small |= {"vocab_size": V, "unembed_bias": True, "n_ctx": S, "activation": "gelu"}
    tokens, source = rng.integers(0, V, (B, T)), rng.integers(0, V - 2, (B, S))
    present = np.ones((B, S), dtype=bool)
    present[0, S - 2 :] = False
    for norm, kind in (("none", "layer"), ("pre", "layer"), ("post", "layer"), ("pre", "rms"), ("post", "rms")):
        for tied, layers, read in (("none", 1, 1), ("unembed", 2, None)):
            cfg = ModelConfig(**small, norm=norm, norm_kind=kind, tied=tied, n_layers=layers)  # type: ignore[arg-type]
            label = f"decoder-only, norm {norm} {kind}, {layers} layer{'s, tied' if layers > 1 else ', last position'}"
            yield Case(
                label,
                _moved(decoder_only.init(cfg, seed), seed, label),
                lambda p, cfg=cfg, read=read: decoder_only.forward(p, tokens, cfg, read=read),
                lambda dy, c, cfg=cfg: decoder_only.backward(dy, c, cfg),
            )
        for tied, layers in (("none", 1), ("all", 2)):
            cfg = ModelConfig(
                **small, norm=norm, norm_kind=kind, tied=tied, n_layers=layers,  # type: ignore[arg-type]
                architecture="encoder_decoder", embed_scale=True, position="sinusoidal",
            )  # fmt: skip
            label = f"encoder-decoder, norm {norm} {kind}, {layers}+{layers} layer{'s, tied' if layers > 1 else ''}"
            yield Case(
                label,
                _moved(encoder_decoder.init(cfg, seed), seed, label),
                lambda p, cfg=cfg: encoder_decoder.forward(p, source, tokens, cfg, source_present=present),
                lambda dy, c, cfg=cfg: encoder_decoder.backward(dy, c, cfg),
            )


def _moved(params: Any, seed: int, label: str) -> Any:
    """Initial weights, each moved by a random amount: small enough that no softmax saturates."""
    return map_tree(lambda p, r: p + r, params, random_like(params, seed, label, 0.05, 0.2))
