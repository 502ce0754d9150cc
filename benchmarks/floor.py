"""The least a step can take: its matrix products, in their own shapes, with nothing between them.

    python benchmarks/floor.py                     beside the step itself, in turn; milliseconds, medians

In NumPy by BLAS, with attention's own kernel where the step has it; in PyTorch, and of the grokking step in JAX, where
these are installed. The operands are as many arrays as the step has, so that none is still in a
cache from its last use, and in NumPy a batch goes in shares to the threads as the engine's does. No bias, GELU, norm,
loss or optimizer is in it, and no softmax but that in attention's kernel.
"""

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from onelayer import kernels, threads
from onelayer.arrays import aligned, generator
from onelayer.bench import Case, encoder_decoder, grok, language_model
from onelayer.bench.measure import PAUSE
from onelayer.fused import using
from onelayer.models.decoder_only import look_mask
from onelayer.sublayers import attention_rows
from onelayer.training.engines.memory import keep_freed_memory

Product = tuple[np.ndarray, np.ndarray]


class Heads(NamedTuple):
    """One attention between its products with W_Q, W_K, W_V and W_O."""

    B: int
    T: int
    S: int
    H: int
    K: int
    causal: bool = False


class Work(NamedTuple):
    dense: list[Product]
    attention: list[Heads] = []  # noqa: RUF012

    def __add__(self, other: Any) -> "Work":
        return Work(self.dense + other.dense, self.attention + other.attention)


def linear(rows: int, D: int, F: int) -> Work:
    """x W, ∂y Wᵀ and xᵀ ∂y."""
    x, W, dy = array(rows, D), array(D, F), array(rows, F)
    return Work([(x, W), (dy, W.T), (x.T, dy)])


def block(B: int, T: int, D: int, F: int, H: int, causal: bool, tables: int | None = None) -> Work:
    """Self-attention and a feed-forward network. tables: from so many rows, the first queries, keys and values."""
    given = linear(tables or B * T, D, 3 * D) + linear(B * T, D, D) + forward(B * T, D, F)
    return given + Work([], [Heads(B, T, T, H, D // H, causal)])


def forward(rows: int, D: int, F: int) -> Work:
    return linear(rows, D, F) + linear(rows, F, D)


def cross(B: int, T: int, S: int, D: int, H: int) -> Work:
    given = linear(B * T, D, D) + linear(B * S, D, 2 * D) + linear(B * T, D, D)
    return given + Work([], [Heads(B, T, S, H, D // H)])


def array(*shape: int) -> np.ndarray:
    made = aligned(shape, np.float32)
    made[...] = generator(0, "floor", *shape).standard_normal(shape)
    return made


def grokking(share: int) -> Work:
    """As JAX does it: NumPy multiplies circuits out, which are other products (models/circuits.py)."""
    rows = 3830 // share
    tables = linear(342, 128, 128) + linear(342, 128, 128) + linear(114, 128, 128)
    return tables + linear(rows, 128, 128) + forward(rows, 128, 512) + linear(rows, 128, 114)


def language(share: int, layers: int = 1) -> Work:
    B, work = 64 // share, linear(64 * 64 // share, 128, language_model.V)
    for layer in range(layers):
        work += block(B, 64, 128, 512, 4, causal=True, tables=None if layer else (language_model.V + 64) // share)
    return work


def both(share: int) -> Work:
    B, T = encoder_decoder.B // share, encoder_decoder.L
    tables = (encoder_decoder.V + T) // share
    encoder, decoder = (block(B, T, 128, 512, 4, causal, tables) for causal in (False, True))
    return encoder + decoder + cross(B, T, T, 128, 4) + linear(B * T, 128, encoder_decoder.V)


CASES: dict[str, tuple[Callable[[int], Work], Callable[[], Case], str]] = {
    "grok": (grokking, grok.case, "jax"),
    "language-model-1": (language, lambda: language_model.case(1), "numpy + numba"),
    "language-model-4": (lambda share: language(share, 4), lambda: language_model.case(4), "numpy + numba"),
    "encoder-decoder": (both, encoder_decoder.case, "numpy + numba"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    unknown = [name for name in given.cases if name not in CASES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; allowed: {', '.join(CASES)}")
    keep_freed_memory()
    for name in given.cases or CASES:
        measure(name, *CASES[name], given.rounds)


def measure(name: str, work: Callable[[int], Work], case: Callable[[], Case], ours: str, rounds: int) -> None:
    shares, whole = [work(threads.count()) for _ in range(threads.count())], work(1)
    flops = sum(2 * a.size * b.shape[-1] for a, b in whole.dense)
    turns = {
        f"the step, {ours}": next(c for c in case().contenders if c.name == ours).make(),
        "dense products, BLAS": lambda: threads.together(lambda share: multiply(share.dense), shares),
    }
    if whole.attention and kernels.available():
        turns["attention's kernel"] = attend([share.attention for share in shares])
    if find_spec("torch"):
        turns["dense products in PyTorch"] = in_torch(whole.dense)
        if whole.attention:
            turns["attention's products in PyTorch"] = in_torch([p for h in whole.attention for p in products(h)])
    if find_spec("jax") and ours == "jax":
        turns["dense products in JAX"] = in_jax(whole.dense)
    took: dict[str, list[float]] = {what: [] for what in turns}
    for _ in range(rounds):
        for what, do in turns.items():
            time.sleep(PAUSE)  # until the last one's threads sleep
            do()
            begun = time.perf_counter()
            do()
            took[what].append(1000 * (time.perf_counter() - begun) / getattr(do, "steps", 1))
    print(f"{name}: {flops / 1e9:.2f} GFLOP of dense products", flush=True)
    for what, times in took.items():
        print(f"    {np.median(times):6.1f} ms    {what}", flush=True)


def products(h: Heads) -> list[Product]:
    """Scores and mixing, and their four products backwards; heads lie as one product for all of them leaves them."""
    q, dz = (heads(h.B, h.T, h.H, h.K) for _ in range(2))
    k, v = (heads(h.B, h.S, h.H, h.K) for _ in range(2))
    pattern, d = array(h.B, h.H, h.T, h.S), array(h.B, h.H, h.T, h.S)
    turned = [a.swapaxes(-1, -2) for a in (k, v, pattern, d)]
    return [(q, turned[0]), (pattern, v), (dz, turned[1]), (turned[2], dz), (d, k), (turned[3], q)]


def heads(B: int, T: int, H: int, K: int) -> np.ndarray:
    return array(B, T, 3, H, K)[:, :, 0].transpose(0, 2, 1, 3)


def attend(shares: list[list[Heads]]) -> Callable[[], object]:
    """From queries, keys and values to z, and back."""

    def prepared(h: Heads) -> tuple[Any, ...]:
        given = heads(h.B, h.T, h.H, h.K), heads(h.B, h.S, h.H, h.K), heads(h.B, h.S, h.H, h.K)
        return given, heads(h.B, h.T, h.H, h.K), look_mask(h.T, h.T, h.causal, None, given[0])

    def one(share: list[tuple[Any, ...]]) -> None:
        for (q, k, v), dz, mask in share:
            _, c = attention_rows.mix(q, k, v, mask)
            attention_rows.mix_backward(dz, c, np.empty_like(q), np.empty_like(k), np.empty_like(v))

    ready = [[prepared(h) for h in share] for share in shares]

    def do() -> None:
        with using(kernels.available()):
            threads.together(one, ready)

    return do


def in_torch(products: list[Product]) -> Callable[[], object]:
    import torch

    pairs = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in products]
    return lambda: [torch.matmul(a, b) for a, b in pairs]


def in_jax(products: list[Product]) -> Callable[[], object]:
    """As one program. What is turned is handed over as it lies, and turned there."""
    import jax

    lies = [[x if x.flags.c_contiguous else x.T for x in pair] for pair in products]
    turned = [[not x.flags.c_contiguous for x in pair] for pair in products]
    given = jax.tree.map(jax.numpy.asarray, lies)
    run = jax.jit(lambda g: [
        (a.T if left else a) @ (b.T if right else b) for (a, b), (left, right) in zip(g, turned, strict=True)
    ])  # fmt: skip
    return lambda: jax.block_until_ready(run(given))


def multiply(products: list[Product]) -> None:
    for a, b in products:
        np.matmul(a, b)


if __name__ == "__main__":
    main()
