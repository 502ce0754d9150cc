"""Sort: say the numbers that were read in ascending order, each as often as it was there. `7 3 11 3` is `3 3 7 11`."""

from onelayer.tasks import Task, sequences

__all__ = ["make"]


def make(
    vocabulary: int = 20,
    longest: int = 12,
    longer: int = 12,
    n_train: int = 40_000,
    n_valid: int = 500,
    n_test: int = 1000,
    seed: int = 0,
) -> Task:
    """Up to `longest` numbers below `vocabulary`; longer ones, up to `longer`, are the split test_longer, apart."""
    return sequences.make("sort", sorted, vocabulary, longest, longer, n_train, n_valid, n_test, seed)
