"""Where a run happened: what may change its bits, and what somebody needs to repeat it. Nothing that names a person."""

import ctypes
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["compare", "describe", "now"]

PACKAGES = ("onelayer", "numpy", "numba", "safetensors", "pydantic")  # numba: its kernels round otherwise than NumPy


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> dict[str, Any] | None:
    """The commit of the package's own source, where it is run from a checkout."""
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # the repository around an installed package is somebody else's
    return {"commit": _git("rev-parse", "HEAD"), "changed": bool(_git("status", "--porcelain", "--", "."))}


def _blas() -> dict[str, Any]:
    about = np.show_config(mode="dicts")["Build Dependencies"].get("blas", {})
    return {"name": about.get("name"), "version": about.get("version")}


def threads() -> int | None:
    """How many threads NumPy's products use: asked of the OpenBLAS that wheels of NumPy carry, else of the shell."""
    folders = (Path(np.__file__).parent.parent / "numpy.libs", Path(np.__file__).parent / ".dylibs")
    for library in (path for folder in folders if folder.is_dir() for path in folder.glob("*openblas*")):
        try:
            loaded = ctypes.CDLL(str(library))
            for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                if ask := getattr(loaded, f"{prefix}openblas_get_num_threads{suffix}", None):
                    return int(ask())
        except OSError:
            continue
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _device(engine: str) -> str:
    if engine != "jax":
        return "cpu"
    import jax

    return ", ".join(sorted({f"{device.platform}: {device.device_kind}" for device in jax.devices()}))


def describe(engine: str) -> dict[str, Any]:
    """One session's surroundings, as they stand in manifest.json."""
    packages = (*PACKAGES, "jax", "jaxlib") if engine == "jax" else PACKAGES
    return {
        "started": now(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "git": _commit(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "blas": _blas(),
        "threads": threads(),
        "engine": engine,
        "device": _device(engine),
    }


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two sessions that may change the last bits of a result."""
    notes = []
    for name in ("platform", "processor", "blas", "threads", "device"):
        if before.get(name) != after.get(name):
            notes.append(f"{name}: {before.get(name)} before, {after.get(name)} now")
    old, new = before.get("versions") or {}, after.get("versions") or {}
    notes += [f"{name}: {old.get(name)} before, {new.get(name)} now" for name in new if old.get(name) != new.get(name)]
    return notes
