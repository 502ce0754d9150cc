"""What holds kernels to their definitions: tests/test_kernels.py and test_kernel_look.py."""

from copy import deepcopy
from typing import Any

import numpy as np

from onelayer import fused, kernels
from onelayer.arrays import flatten, generator, map_tree

ROUNDING = {"float64": 1e-12, "float32": 3e-6}


def random(*shape: int, scale: float = 1.0, purpose: str = "") -> np.ndarray:
    return scale * generator(7, "test_kernels", purpose, *shape).standard_normal(shape)


class Counting(dict):
    """The kernels, and how often each ran instead of handing on."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: dict[str, int] = {}
        for name, kernel in kernels.available().items():
            self[name] = self.counted(name, kernel)

    def counted(self, name: str, kernel: Any) -> Any:
        def call(definition: Any, *args: Any, **kwargs: Any) -> Any:
            handed: list[int] = []

            def watched(*a: Any, **k: Any) -> Any:
                handed.append(1)
                return definition(*a, **k)

            result = kernel(watched, *args, **kwargs)
            self.ran[name] = self.ran.get(name, 0) + (not handed)
            return result

        return call


def agree(f: Any, *args: Any, dtype: str, names: list[str]) -> None:
    """f with and without kernels gives the same; the kernels of these names did run.

    A key's bias moves all scores of a row alike, its gradient is nothing but rounding: of the size of a value's.
    """
    args = tuple(map_tree(lambda a: a.astype(dtype) if a.dtype.kind == "f" else a, arg) for arg in args)
    expected = f(*args)
    counting, given = Counting(), deepcopy(args)
    with fused.using(counting):
        got = f(*args)
    for before, after in zip(given, args, strict=True):
        map_tree(np.testing.assert_array_equal, before, after)  # what was given still stands
    assert {name for name, n in counting.ran.items() if n} >= set(names)
    a, b = flatten(got), flatten(expected)
    assert a.keys() == b.keys()
    for name in a:
        assert np.asarray(a[name]).dtype == np.asarray(b[name]).dtype, name
        assert np.shape(a[name]) == np.shape(b[name]), name
        like = name.replace("b_K", "b_V")
        error = np.linalg.norm(a[name] - b[name]) / (np.linalg.norm(b[like]) or 1)
        assert error < ROUNDING[dtype], f"{name}: {error}"
