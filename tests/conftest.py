"""What holds for every test: shapes enforced, float64 in JAX, one thread a worker, and the `xp` fixture."""

import os

# Before NumPy and XLA start their pools, and inherited by xdist's workers and by every command a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling takes longer than all that is then computed

from jaxtyping import install_import_hook

# Here rather than as `--jaxtyping-packages` in pytest's addopts, which xdist's workers never see.
# It costs some 25 µs a call: where shapes are what a function is about, not in the trees and loops around them.
SHAPED = ("layers", "positions", "sublayers", "models", "tasks", "grokking")
install_import_hook([f"onelayer.{folder}" for folder in SHAPED], "beartype.beartype")

import jax
import pytest
from backends import BACKENDS, Backend
from hypothesis import settings

jax.config.update("jax_enable_x64", True)

settings.register_profile("onelayer", deadline=None, derandomize=True, database=None)
settings.load_profile("onelayer")


@pytest.fixture(params=BACKENDS)
def xp(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn: NumPy, read-only NumPy, array-api-strict, JAX under jit, PyTorch where installed."""
    return request.param()
