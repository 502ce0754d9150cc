"""The array backends that every layer is tested on, and the inventory of what may be absent.

A backend is called with a function and NumPy trees, runs the function on its own arrays (under jit on JAX), and answers
in NumPy:

    def test_forward(xp):
        y, cache = xp(layer_norm.forward, params, x)
        y, cache = xp(partial(layer_norm.forward, eps=1e-3), params, x)     # static settings are bound beforehand
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from shutil import which
from typing import Any

import numpy as np
import pytest

from onelayer.arrays import map_tree

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")

# Every skip of the suite, in one place: what may be absent, and what is then not tested.
SKIPS = {
    "torch": (find_spec("torch") is not None, "no PyTorch (pip install torch==2.13.0): the third oracle stays silent"),
    "transformers": (
        find_spec("transformers") is not None and find_spec("torch") is not None,
        "no transformers and PyTorch (pip install transformers torch==2.13.0): GPT-2 is compared with NumPy alone",
    ),
    "chromium": (CHROMIUM is not None, "no Chromium (apt-get install chromium): the report is not opened in a browser"),
    "numba": (find_spec("numba") is not None, "no numba (pip install onelayer[fast]): the fused kernels are not tried"),
    "/dev/full": (os.path.exists("/dev/full"), "no /dev/full here: a full disk is not tried"),
}


def needs(what: str) -> pytest.MarkDecorator:
    """`@needs("torch")` marks a test that only runs where something of SKIPS is present."""
    present, reason = SKIPS[what]
    return pytest.mark.skipif(not present, reason=reason)


@dataclass(frozen=True)
class Backend:
    """One kind of array. `asarray` takes a NumPy array; `compile` wraps the function (jit)."""

    name: str
    asarray: Callable[[np.ndarray], Any]
    compile: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda f: f

    def tree(self, tree: Any) -> Any:
        """A tree of NumPy arrays as a tree of this backend's arrays."""
        return map_tree(lambda x: self.asarray(np.asarray(x)), tree)

    def __call__(self, f: Callable[..., Any], *trees: Any) -> Any:
        return to_numpy(self.compile(f)(*map(self.tree, trees)))


def to_backend(tree: Any, xp: Backend) -> Any:
    return xp.tree(tree)


def to_numpy(tree: Any) -> Any:
    """A tree of any backend's arrays as a tree of NumPy arrays."""
    return map_tree(np.asarray, tree)


def _read_only(x: np.ndarray) -> np.ndarray:
    frozen = x.copy()
    frozen.flags.writeable = False
    return frozen


def _numpy() -> Backend:
    return Backend("numpy", np.array)


def _numpy_read_only() -> Backend:
    return Backend("numpy_read_only", _read_only)


def _strict() -> Backend:
    import array_api_strict

    array_api_strict.set_array_api_strict_flags(api_version="2024.12")  # what NumPy 2.4 and JAX 0.10 implement
    return Backend("array_api_strict", array_api_strict.asarray)


def _jax() -> Backend:
    import jax

    return Backend("jax_jit", jax.numpy.asarray, jax.jit)


def _torch() -> Backend:
    import torch  # pyright: ignore[reportMissingImports]

    return Backend("torch", lambda x: torch.asarray(np.array(x)))


BACKENDS = [
    pytest.param(_numpy, id="numpy"),
    pytest.param(_numpy_read_only, id="numpy_read_only"),
    pytest.param(_strict, id="array_api_strict"),
    pytest.param(_jax, id="jax_jit"),
    pytest.param(_torch, id="torch", marks=needs("torch")),
]
