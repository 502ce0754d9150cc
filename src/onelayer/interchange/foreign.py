"""A foreign model on the disk and in hand: two files read and written, tensors taken out one by one, refusals in words.

Reading   `model.safetensors` of a directory (or its shards, or the one .safetensors file there is), with `config.json`
          beside it. Half precision becomes float32, which holds every such number; float32 and float64 stay.
Writing   into a directory of its own, made whole or not at all; nothing is ever overwritten.

Source    the format: huggingface/safetensors, README. bfloat16 is the upper half of a float32.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as format_tensors

from ..errors import BadInput
from ..training.files import parse_json, storage, write_file
from ..training.run_directory import pretty

__all__ = ["Config", "Foreign", "Tensors", "read", "read_object", "refuse", "write"]

MODEL, CONFIG, SHARDS = "model.safetensors", "config.json", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
LARGEST_CONFIG = 1 << 26  # bytes


class Foreign(NamedTuple):
    tensors: dict[str, np.ndarray]
    config: dict[str, Any]
    notes: tuple[str, ...] = ()  # what a reader should know: a bias of zeros that was written, a tie that was untied
    where: str = "the model"


def refuse(what: str, faults: Mapping[str, bool], instead: str) -> None:
    """BadInput that names everything of `faults` that holds: what has no place in the format called `what`."""
    found = [words for words, wrong in faults.items() if wrong]
    if found:
        raise BadInput(f"{what} has no place for {', nor for '.join(found)}. Nothing was written. {instead}")


# ---------------------------------------------------------------------------------------------------- on the disk


def write(foreign: Foreign, out: Path) -> Path:
    """The two files in the new directory `out`. BadInput where something stands there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} exists and is not empty; nothing is overwritten. Choose another --out")
    # C order by all means: safetensors 0.8.0 stores other orders wrongly, and says nothing
    tensors = format_tensors({name: np.asarray(x, order="C") for name, x in foreign.tensors.items()}, {"format": "pt"})
    temporary = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
        write_file(temporary / MODEL, tensors)
        write_file(temporary / CONFIG, pretty(foreign.config))
        temporary.chmod(0o777 & ~_umask())
        os.replace(temporary, out)  # onto an empty directory, or none
    except OSError as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise storage("write the model", out, error) from error
    return out


def _umask() -> int:
    old = os.umask(0)
    os.umask(old)
    return old


def read(path: Path) -> Foreign:
    """The model in a directory, or in a .safetensors file with config.json beside it."""
    if not path.exists():
        raise BadInput(f"{path} does not exist; name a directory with {MODEL} and {CONFIG}")
    home = path if path.is_dir() else path.parent
    tensors: dict[str, np.ndarray] = {}
    for file in _files(path):
        tensors |= _parse(file)
    if not (home / CONFIG).is_file():
        raise BadInput(
            f"{home / CONFIG} is missing: tensors alone do not say how many heads there are, nor which activation; "
            "docs/interchange.md says what it holds"
        )
    return Foreign(tensors, read_object(home / CONFIG), where=str(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix != ".safetensors":
            raise _no_safetensors(path, [path])
        return [path]
    if (path / MODEL).is_file():
        return [path / MODEL]
    if (path / SHARDS).is_file():
        return [path / name for name in sorted(set(read_object(path / SHARDS).get("weight_map", {}).values()))]
    found = sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise BadInput(f"{path} holds {len(found)} .safetensors files and none is {MODEL}; name the one that is meant")
    raise _no_safetensors(path, sorted(path.iterdir()))


def _no_safetensors(path: Path, there: Iterable[Path]) -> BadInput:
    pickle = next((file for file in there if file.suffix in PICKLES), None)
    if pickle is None:
        return BadInput(f"{path} holds no {MODEL}; a model is a directory with {MODEL} and {CONFIG}")
    return BadInput(
        f"{pickle} is a pickle, which runs whatever code it holds, so it is not opened. Save the tensors alone: "
        f"safetensors.torch.save_file(model.state_dict(), '{MODEL}')"
    )


def _parse(file: Path) -> dict[str, np.ndarray]:
    try:
        found = deserialize(file.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read {file}: {error.strerror}") from error
    except SafetensorError as error:
        raise BadInput(f"{file} is not in the safetensors format: {error}") from error
    return {name: _array(about) for name, about in found if about["dtype"] in (*FLOATS, "BF16")}


def _array(about: Mapping[str, Any]) -> np.ndarray:
    kind, shape = about["dtype"], about["shape"]
    if kind == "BF16":
        upper = np.frombuffer(about["data"], dtype=np.uint16).astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(shape)
    x = np.frombuffer(about["data"], dtype=FLOATS[kind]).reshape(shape)
    return x.astype(np.float32) if kind == "F16" else x.copy()


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of any origin."""
    try:
        with open(path, "rb") as file:
            value = parse_json(file.read(LARGEST_CONFIG))
        if not isinstance(value, dict):
            raise ValueError(f"a JSON object is expected, received {type(value).__name__}")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}") from error
    return value


# ---------------------------------------------------------------------------------------------------- in hand


class Config:
    """A foreign config.json, asked field by field."""

    def __init__(self, foreign: Foreign, what: str) -> None:
        self.fields, self.where, self.what = foreign.config, foreign.where, what

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self.fields.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            received = f"received {value!r}" if name in self.fields else "which is missing"
            raise BadInput(f"{self.where}: {self.what} needs {name}, a whole number of at least 1; {received}")
        return value

    def real(self, name: str, default: float) -> float:
        value = self.fields.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise BadInput(f"{self.where}: {name} must be a number greater than 0; received {value!r}")
        return float(value)

    def one_of(self, name: str, allowed: Mapping[Any, Any], default: Any = None) -> Any:
        """What the value stands for in `allowed`."""
        value = self.fields.get(name, default)
        if isinstance(value, dict | list) or value not in allowed:
            received = f"received {value!r}" if name in self.fields else "it is missing"
            raise BadInput(
                f"{self.where}: {name} has no counterpart here; {received}, allowed: "
                f"{', '.join(str(word) for word in allowed)}"
            )
        return allowed[value]

    def must_be(self, **fields: Any) -> None:
        """BadInput where a field is there, and is none of what is allowed: a tuple, or the one value."""
        for name, allowed in fields.items():
            values = allowed if isinstance(allowed, tuple) else (allowed,)
            if name in self.fields and self.fields[name] not in values:
                raise BadInput(
                    f"{self.where}: {name} = {self.fields[name]!r} has no counterpart here; allowed: "
                    f"{', '.join(map(repr, values))}"
                )


class Tensors:
    """Foreign tensors, each taken once, by name and shape, and the count of them at the end."""

    def __init__(self, foreign: Foreign, what: str) -> None:
        self.left, self.where, self.what = dict(foreign.tensors), foreign.where, what
        self.dtype = np.float64 if {x.dtype for x in self.left.values()} == {np.dtype(np.float64)} else np.float32

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.left:
            some = ", ".join(sorted(self.left)[:6])
            raise BadInput(f"{self.where} lacks the tensor {name}, which {self.what} has; there are {some}, …")
        return self.left[name].shape

    def take(self, name: str, *shape: int) -> np.ndarray:
        """The tensor, which must have this shape."""
        if (found := self.shape(name)) != shape:
            raise BadInput(f"{self.where}: {name} is {list(found)}; {self.what} with this config has {list(shape)}")
        x = np.asarray(self.left.pop(name), dtype=self.dtype)
        if not np.isfinite(x).all():
            raise BadInput(f"{self.where}: the tensor {name} holds NaN or infinity")
        return x

    def take_equal(self, name: str, other: np.ndarray) -> None:
        """A second copy of a shared tensor: gone, where it is the same."""
        if name in self.left and not np.array_equal(self.take(name, *other.shape), other):
            raise BadInput(f"{self.where}: {name} is said to be shared, and holds other numbers than what it shares")

    def count(self, pattern: str) -> int:
        """How many of `layers.{}.norm.weight` there are, from 0 on."""
        n = 0
        while pattern.format(n) in self.left:
            n += 1
        return n

    def finish(self) -> None:
        """BadInput where something is left that was not asked for: it would be lost."""
        if self.left:
            names = sorted(self.left)
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise BadInput(
                f"{self.where} has tensors that {self.what} with this config does not: {', '.join(names[:5])}{more}. "
                "They would be lost; nothing was imported"
            )
