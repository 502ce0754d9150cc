"""Sparse parity: is the number of ones among k chosen bits odd? The other bits are noise.

Tokens    `b₁ b₂ … bₙ =` [B, n + 1]: bits are 0 and 1, `=` is 2. The answer, 0 or 1, is said at `=`: targets [B, 1].

Draws     The k positions (facts["support"]) come from generator(seed, "support"); the inputs, all different and each
          set equally likely, from generator(seed, "split"). With n_train + n_test = 2ⁿ the task is the whole table.

Why       Any k bits but all of them say nothing about the answer, so there is no way to learn a part of it. The basis
          is Walsh's: the answer is the one character (-1)^(Σ bits in the support).

Source    Barak et al. 2022, arXiv:2207.08799; as grokking: Merrill et al. 2023, arXiv:2303.11873 (n = 40, k = 3).
"""

import numpy as np

from onelayer.arrays import generator
from onelayer.errors import BadInput
from onelayer.tasks import Batch, Task, splits

__all__ = ["make"]

MAX_BITS = 60  # an input is drawn as one whole number
MAX_EXAMPLES = 2**20


def make(
    n_bits: int = 40, k: int = 3, n_train: int = 1000, n_test: int = 1000, seed: int = 0, label_noise: float = 0.0
) -> Task:
    """k-sparse parity of n_bits bits. k = n_bits is plain parity."""
    n_bits = splits.check_whole("n_bits", n_bits, 1, MAX_BITS)
    k = splits.check_whole("k", k, 1, n_bits)
    n_train = splits.check_whole("n_train", n_train, 1, MAX_EXAMPLES)
    n_test = splits.check_whole("n_test", n_test, 1, MAX_EXAMPLES)
    seed, label_noise = splits.check_seed(seed), splits.check_share("label_noise", label_noise)
    if n_train + n_test > 2**n_bits:
        raise BadInput(f"n_train + n_test = {n_train + n_test:,}, but {n_bits} bits have {2**n_bits:,} different "
                       "inputs. Raise n_bits, or ask for fewer examples")  # fmt: skip

    support = np.sort(generator(seed, "support").permutation(n_bits)[:k])
    inputs = splits.distinct(2**n_bits, n_train + n_test, generator(seed, "split"))
    bits = inputs[:, None] >> np.arange(n_bits) & 1
    targets = bits[:, support].sum(axis=1) % 2
    tokens = np.concatenate([bits, np.full((len(bits), 1), 2)], axis=1).astype(np.int64)
    shown, noisy = splits.replace_labels(
        targets[:n_train], np.array([0, 1]), label_noise, generator(seed, "label_noise")
    )

    missing = splits.missing(np.unique(targets), targets[:n_train])
    facts = {
        "n_bits": n_bits,
        "k": k,
        "support": support,
        "basis": "walsh",
        "majority_class": int(np.bincount(shown).argmax()),
        "majority_accuracy": splits.majority(shown[:, None], targets[n_train:, None]),
        "missing_classes": missing,
        "seed": seed,
        "label_noise": label_noise,
        "warnings": [f"no training example has the answer {c}. Raise n_train" for c in missing],
    }
    if label_noise:
        facts |= {"noisy": noisy, "clean_targets": targets[:n_train, None]}
    return Task(
        name=f"{k}-sparse parity of {n_bits} bits",
        vocabulary=("0", "1", "="),
        n_ctx=n_bits + 1,
        read=1,
        train=Batch(tokens[:n_train], shown[:, None].astype(np.int64), None),
        test=Batch(tokens[n_train:], targets[n_train:, None].astype(np.int64), None),
        facts=facts,
    )
