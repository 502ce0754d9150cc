"""Copy: say the sequence that was read. `3 41 7` is `3 41 7`.

Source    The generator's shape (50 symbols, lengths to 25, longer ones apart): JoeyNMT's toy task, Kreutzer, Bastings &
          Riezler 2019, arXiv:1907.12484. Unlike there, what is asked was not trained on.
"""

from onelayer.tasks import Task, sequences

__all__ = ["make"]


def make(
    vocabulary: int = 50,
    longest: int = 25,
    longer: int = 30,
    n_train: int = 40_000,
    n_valid: int = 500,
    n_test: int = 1000,
    seed: int = 0,
) -> Task:
    """Sequences of up to `longest` symbols; those of longest + 1 to `longer` are the split test_longer, apart."""
    return sequences.make("copy", list, vocabulary, longest, longer, n_train, n_valid, n_test, seed)
