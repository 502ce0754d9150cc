"""Trace: one forward and one backward, with every value and every gradient kept under its name.

    t = trace(params, batch, cfg)                  t.loss
    t.value("blocks.0.attn.hook_pattern")          an activation, or a weight: [B H T S]
    t.gradient("blocks.0.attn.hook_pattern")       ∂loss/∂ the same, of the same shape (a broadcast bias: [B H T S])
    t.gradient("blocks.0.attn.W_Q")                of a weight
    t.gradient("blocks.0.route_mlp")               what flows through a route; these have a gradient only

Names     `names(t)`; the models' docstrings say where each stands. Weights are named by their path, activations
          `hook_…` as in TransformerLens, routes `route_…`.
Cost      nothing is copied or computed again: a trace is a gradient whose intermediate arrays are kept.
          `estimate` says what they will take, and a trace that would not fit is refused before it begins.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..arrays import Array, flatten, map_tree, unflatten
from ..errors import BadInput, unknown
from ..layers import cross_entropy
from ..models import decoder_only, encoder_decoder
from ..models.config import ModelConfig
from ..tasks import Batch
from .gates import backward, forward

__all__ = ["Trace", "available_memory", "check_batch", "estimate", "load", "names", "trace", "write"]

FORMAT = "onelayer-trace"


@dataclass(frozen=True, eq=False)
class Trace:
    """What one forward and one backward left."""

    params: Any
    batch: Batch
    cfg: ModelConfig
    loss: float
    values: dict[str, Array]  # every activation
    gradients: dict[str, Array]  # of every activation, and of every route
    weights: dict[str, Array]  # every parameter, flat
    weight_gradients: dict[str, Array]
    cache: Any = field(repr=False)
    judged: cross_entropy.Cache = field(repr=False)  # what the loss left
    settings: dict[str, Any] = field(default_factory=dict)  # of the loss
    vocabulary: tuple[str, ...] | None = None
    source_vocabulary: tuple[str, ...] | None = None  # of the encoder's tokens; None: `vocabulary`

    @property
    def dlogits(self) -> Array:
        return self.gradients["logits"]

    def word(self, token: int, source: bool = False) -> str:
        """A token of the decoder's, or of the encoder's source; its number where the words are not known."""
        words = (self.source_vocabulary if source else None) or self.vocabulary
        return str(token) if words is None else words[token]

    def value(self, name: str) -> Array:
        """An activation or a weight."""
        known = self.values | self.weights
        if name not in known:
            raise unknown("value", name, known)
        return known[name]

    def gradient(self, name: str) -> Array:
        """∂loss/∂ an activation or a weight, or what flows through a route."""
        known = self.gradients | self.weight_gradients
        if name not in known:
            raise unknown("gradient", name, known)
        return known[name]

    @property
    def shape(self) -> dict[str, int]:
        """B examples, T decoder tokens, R positions read, and S source tokens where there is an encoder."""
        sizes = {"B": self.batch.tokens.shape[0], "T": self.batch.tokens.shape[1], "R": self.batch.targets.shape[1]}
        return sizes if self.batch.source is None else sizes | {"S": self.batch.source.shape[1]}

    @property
    def nbytes(self) -> int:
        return _bytes((self.values, self.gradients, self.weights, self.weight_gradients, self.cache, self.judged))

    def save(self, path: Path | str) -> Path:
        """All arrays into one safetensors file, and with them what `load` needs; whole, or not at all."""
        arrays: dict[str, Array] = {}
        for group in ("values", "gradients", "weights", "weight_gradients"):
            arrays |= {f"{group}/{name}": x for name, x in getattr(self, group).items()}
        arrays |= {f"batch/{name}": x for name, x in flatten(self.batch).items()}
        about = {
            "format": FORMAT, "loss": repr(self.loss), "model": self.cfg.model_dump_json(),
            "settings": json.dumps(self.settings), "vocabulary": json.dumps(self.vocabulary),
            "source_vocabulary": json.dumps(self.source_vocabulary),
        }  # fmt: skip
        return write(arrays, path, about)

    def rows(self) -> list[dict[str, Any]]:
        """{"name", "shape", "norm", "gradient_norm"} of every name, in the order of `names`; None where it has none."""

        def norm(x: Array | None) -> float | None:
            return None if x is None else float(np.sqrt(np.sum(np.square(x, dtype=np.float64))))

        def row(name: str) -> dict[str, Any]:
            value = self.values.get(name, self.weights.get(name))
            slope = self.gradients.get(name, self.weight_gradients.get(name))
            shape = next(x.shape for x in (value, slope) if x is not None)
            return {"name": name, "shape": list(shape), "norm": norm(value), "gradient_norm": norm(slope)}

        return [row(name) for name in names(self)]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{letter}={n}" for letter, n in self.shape.items())
        return f"Trace({self.cfg.architecture}, {sizes}, loss {self.loss:.6g}, {len(self.gradients)} gradients)"

    def _repr_html_(self) -> str:
        """One line a name: its shape, its norm, and its gradient's."""

        def line(row: dict[str, Any]) -> str:
            sizes = ("" if row[key] is None else f"{row[key]:.3g}" for key in ("norm", "gradient_norm"))
            cells = (row["name"], " × ".join(map(str, row["shape"])), *sizes)
            return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"

        head = "<tr><th>name</th><th>shape</th><th>norm</th><th>norm of the gradient</th></tr>"
        return (
            f"<details open><summary>{self!r}</summary><table>{head}{''.join(map(line, self.rows()))}</table></details>"
        )


def names(t: Trace) -> tuple[str, ...]:
    """Every name of a trace: activations in the forward's order, routes, weights."""
    return tuple(dict.fromkeys([*t.values, *t.gradients, *t.weights]))


def trace(
    params: Any,
    batch: Batch,
    cfg: ModelConfig,
    *,
    limit: int | None = None,
    vocabulary: tuple[str, ...] | None = None,
    source_vocabulary: tuple[str, ...] | None = None,
    **settings: Any,
) -> Trace:
    """Every value and every gradient of the mean loss over a batch.

    settings: those of `layers.cross_entropy.forward`: variant, smoothing, never, temperature.
    limit: bytes that may be taken; None: what the machine has free. BadInput where the trace would need more.
    """
    check_batch(batch, cfg)
    free = available_memory() if limit is None else limit
    if (need := estimate(params, batch, cfg)) > free:
        fits = int(len(batch.tokens) * free / need)
        raise BadInput(
            f"a trace of {len(batch.tokens)} examples needs {need / 1e9:.3g} GB; {free / 1e9:.3g} GB may be taken; "
            + (f"take at most about {fits} examples" if fits else "take a smaller model, or a machine with more memory")
        )
    return _trace(params, batch, cfg, settings, (vocabulary, source_vocabulary))


def _trace(
    params: Any,
    batch: Batch,
    cfg: ModelConfig,
    settings: Mapping[str, Any],
    vocabularies: Sequence[tuple[str, ...] | None] = (None, None),
) -> Trace:
    values: dict[str, Array] = {}
    gradients: dict[str, Array] = {}
    logits, cache = forward(params, batch, cfg, _note(values))
    loss, c = cross_entropy.forward(logits, batch.targets, batch.weights, **settings)
    dlogits = np.asarray(cross_entropy.backward(c), dtype=logits.dtype)
    slopes = backward(dlogits, cache, cfg, _note(gradients))
    return Trace(
        params, batch, cfg, float(loss), values, gradients, flatten(params), flatten(slopes), cache, c, dict(settings),
        *vocabularies,
    )  # fmt: skip


def _note(seen: dict[str, Array]) -> Any:
    def tap(name: str, x: Array) -> Array:
        seen[name] = x
        return x

    return tap


def check_batch(batch: Batch, cfg: ModelConfig) -> None:
    """BadInput where a batch is not one of this model's."""
    if len(batch.tokens) == 0:
        raise BadInput("the batch holds no example; give at least one")
    if cfg.architecture == "encoder_decoder" and batch.source is None:
        raise BadInput("an encoder-decoder reads a source, and the batch has none; set Batch.source")
    longest = batch.tokens.max()
    if longest >= cfg.vocab_size or batch.tokens.min() < 0:
        raise BadInput(f"the batch has token {longest}; the model's vocabulary is 0 to {cfg.vocab_size - 1}")


# ---------------------------------------------------------------------------------------------------- memory


def estimate(params: Any, batch: Batch, cfg: ModelConfig) -> int:
    """Bytes that a trace will hold: those of one and of two examples, carried on to the whole batch."""
    one, two = (_trace(params, map_tree(lambda a, n=n: a[[0] * n], batch), cfg, {}).nbytes for n in (1, 2))
    return one + (two - one) * (len(batch.tokens) - 1)


def _bytes(trees: Any) -> int:
    """Of all arrays in a tree, each memory block counted once."""
    blocks: dict[int, int] = {}
    for x in flatten(trees).values():
        base = x
        while isinstance(getattr(base, "base", None), np.ndarray):
            base = base.base
        blocks[id(base)] = base.nbytes
    return sum(blocks.values())


def available_memory() -> int:
    """Bytes that this process may still take: what the kernel calls available, or the container's limit if less."""
    free = []
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        free.append(int(lines["MemAvailable"].split()[0]) * 1024)
        with open("/sys/fs/cgroup/memory.max") as most, open("/sys/fs/cgroup/memory.current") as used:
            free.append(int(most.read()) - int(used.read()))
    except (OSError, KeyError, ValueError):  # not Linux, or no limit ("max")
        pass
    return max(0, min(free)) if free else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


# ---------------------------------------------------------------------------------------------------- in a file


def write(arrays: Mapping[str, Array], path: Path | str, about: dict[str, str]) -> Path:
    """One safetensors file, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: np.asarray(x, order="C") for name, x in arrays.items()}, temporary, metadata=about)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"cannot write {path}: {error}. Choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def load(path: Path | str) -> Trace:
    """A saved trace: its weights and batch are read, and the pass is made again, with the same bits on one machine."""
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise BadInput(f"{path} is not a trace; `Trace.save` writes one")
            arrays = {name: file.get_tensor(name) for name in file.keys() if name.startswith(("weights/", "batch/"))}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadInput(f"cannot read the trace {path}: {error}") from error
    cfg = ModelConfig.model_validate_json(about["model"])
    weights = {name.removeprefix("weights/"): x for name, x in arrays.items() if name.startswith("weights/")}
    batch = Batch(**{name.removeprefix("batch/"): x for name, x in arrays.items() if name.startswith("batch/")})
    model = decoder_only if cfg.architecture == "decoder_only" else encoder_decoder
    words = [json.loads(about.get(name, "null")) for name in ("vocabulary", "source_vocabulary")]
    params = unflatten(weights, model.init(cfg, 0))
    return _trace(params, batch, cfg, json.loads(about["settings"]), [None if w is None else tuple(w) for w in words])
