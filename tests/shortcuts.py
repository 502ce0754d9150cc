"""What holds the exact shortcuts of a one-layer decoder (models/tables.py, models/circuits.py) to the plain path."""

from importlib.util import find_spec
from typing import Any

import numpy as np

from onelayer import positions
from onelayer.arrays import flatten, generator, map_tree
from onelayer.models import decoder_only
from onelayer.models.config import ModelConfig

B, T, V = 23, 3, 7
EXACT = [
    name
    for name in positions.available()
    if find_spec(f"onelayer.positions.{name}")
    and ((method := positions.get(name)).pairwise or not method.has("score"))
    and not method.has("value")
]


def drawn(cfg: ModelConfig) -> Any:
    """Parameters that are nobody's initial values: gains, biases and all."""
    rng = generator(1, "test_tables")
    return map_tree(lambda a: a + 0.3 * rng.standard_normal(a.shape), decoder_only.init(cfg, 0))


def tokens() -> np.ndarray:
    ids = generator(2, "test_tables").integers(0, V - 1, (B, T))  # the last token never occurs: its rows feel nothing
    ids[:4] = ids[0]
    return ids


def furthest(a: Any, b: Any) -> float:
    """The largest relative error of any tensor."""
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    return max(float(np.linalg.norm(a[n] - b[n]) / (np.linalg.norm(b[n]) or 1)) for n in a)


def assert_equal(short: tuple[Any, Any], plain: tuple[Any, Any]) -> None:
    """Logits and gradients, to 1e-12."""
    (logits, grads), (expected_logits, expected) = short, plain
    assert furthest([logits], [expected_logits]) < 1e-12
    assert furthest(without_b_K(grads), without_b_K(expected)) < 1e-12
    for name in flatten(grads).keys() - without_b_K(grads).keys():
        got, want = flatten(grads)[name], flatten(expected)[name]
        assert np.abs(got - want).max() < 1e-12, name  # what moves all scores of a row alike is not felt: all rounding


def without_b_K(tree: Any) -> Any:
    return {name: array for name, array in flatten(tree).items() if not name.endswith(("b_K", "pos.b_in"))}


def counted(forward: Any, calls: list, *args: Any) -> Any:
    calls.append(1)
    return forward(*args)
