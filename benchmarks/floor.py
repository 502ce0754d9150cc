"""The least a step can take in NumPy: its matrix products, in their own shapes, with nothing between them.

    python benchmarks/floor.py                     beside the step itself, in turn; milliseconds, medians

and the same products of the whole batch in PyTorch, where that is installed. The operands are as many arrays as the
step has, so that none is still in a cache from its last use, and a batch goes in shares to the threads as the engine's
does. No bias, softmax, GELU, norm, loss or optimizer is in it.
"""

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from onelayer import threads
from onelayer.arrays import generator
from onelayer.bench import Case, encoder_decoder, grok, language_model
from onelayer.bench.measure import PAUSE
from onelayer.training.engines.memory import keep_freed_memory

Product = tuple[np.ndarray, np.ndarray]


def linear(rows: int, D: int, F: int) -> list[Product]:
    """x W, ∂y Wᵀ and xᵀ ∂y."""
    x, W, dy = array(rows, D), array(D, F), array(rows, F)
    return [(x, W), (dy, W.T), (x.T, dy)]


def attention(B: int, T: int, S: int, H: int, K: int) -> list[Product]:
    """Scores and mixing, and their four products backwards; heads lie as one product for all of them leaves them."""
    q, dz = (heads(B, T, H, K) for _ in range(2))
    k, v = (heads(B, S, H, K) for _ in range(2))
    pattern, d = array(B, H, T, S), array(B, H, T, S)
    turned = [a.swapaxes(-1, -2) for a in (k, v, pattern, d)]
    return [(q, turned[0]), (pattern, v), (dz, turned[1]), (turned[2], dz), (d, k), (turned[3], q)]


def block(B: int, T: int, D: int, F: int, H: int) -> list[Product]:
    """Self-attention and a feed-forward network."""
    return [*linear(B * T, D, 3 * D), *attention(B, T, T, H, D // H), *linear(B * T, D, D), *forward(B * T, D, F)]


def forward(rows: int, D: int, F: int) -> list[Product]:
    return [*linear(rows, D, F), *linear(rows, F, D)]


def cross(B: int, T: int, S: int, D: int, H: int) -> list[Product]:
    given = [*linear(B * T, D, D), *linear(B * S, D, 2 * D)]
    return [*given, *attention(B, T, S, H, D // H), *linear(B * T, D, D)]


def array(*shape: int) -> np.ndarray:
    return generator(0, "floor", *shape).standard_normal(shape).astype(np.float32)


def heads(B: int, T: int, H: int, K: int) -> np.ndarray:
    return array(B, T, 3, H, K)[:, :, 0].transpose(0, 2, 1, 3)


def grokking(share: int) -> list[Product]:
    rows = 3830 // share
    tables = [*linear(342, 128, 128), *linear(342, 128, 128), *linear(114, 128, 128)]
    return [*tables, *linear(rows, 128, 128), *forward(rows, 128, 512), *linear(rows, 128, 114)]


def language(share: int, layers: int = 1) -> list[Product]:
    B = 64 // share
    blocks = [product for _ in range(layers) for product in block(B, 64, 128, 512, 4)]
    return [*blocks, *linear(64 * B, 128, language_model.V)]


def both(share: int) -> list[Product]:
    B, T = encoder_decoder.B // share, encoder_decoder.L
    encoder, decoder = block(B, T, 128, 512, 4), block(B, T, 128, 512, 4)
    return [*encoder, *decoder, *cross(B, T, T, 128, 4), *linear(B * T, 128, encoder_decoder.V)]


CASES: dict[str, tuple[Callable[[int], list[Product]], Callable[[], Case]]] = {
    "grok": (grokking, grok.case),
    "language-model-1": (language, lambda: language_model.case(1)),
    "language-model-4": (lambda share: language(share, 4), lambda: language_model.case(4)),
    "encoder-decoder": (both, encoder_decoder.case),
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


def measure(name: str, products: Callable[[int], list[Product]], case: Callable[[], Case], rounds: int) -> None:
    shares = [products(threads.count()) for _ in range(threads.count())]
    flops = sum(2 * a.size * b.shape[-1] for share in shares for a, b in share)
    turns = {
        "products": lambda: threads.together(multiply, shares),
        "the step": next(c for c in case().contenders if c.name == "numpy + numba").make(),
    }
    if find_spec("torch"):
        turns["products in PyTorch"] = in_torch(products(1))
    took: dict[str, list[float]] = {what: [] for what in turns}
    for _ in range(rounds):
        for what, do in turns.items():
            time.sleep(PAUSE)  # until the last one's threads sleep
            do()
            begun = time.perf_counter()
            do()
            took[what].append(1000 * (time.perf_counter() - begun))
    print(f"{name}: {flops / 1e9:.2f} GFLOP of products", flush=True)
    for what, times in took.items():
        print(f"    {np.median(times):6.1f} ms    {what}", flush=True)


def in_torch(products: list[Product]) -> Callable[[], object]:
    import torch

    pairs = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in products]
    return lambda: [torch.matmul(a, b) for a, b in pairs]


def multiply(products: list[Product]) -> None:
    for a, b in products:
        np.matmul(a, b)


if __name__ == "__main__":
    main()
