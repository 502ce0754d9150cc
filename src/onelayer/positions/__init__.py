"""Positions: how a model learns where a token stands. One file a method; this file is the registry and the contract.

A method acts at one or more of four stages. It implements those it needs, each with its backward; what it does not
define leaves everything as it is. `p` is the method's Params (or None), `places` says where queries and keys stand,
and the keyword arguments after `*` are the method's constants.

  stage        forward                                           backward
  embedding    encode_x(p, x, ids)            -> x′, cache       encode_x_backward(dx′, cache)     -> dx, dp
               x [B T D], ids [T] or [B T]
  query_key    encode_qk(p, q, k, places)     -> q′, k′, cache   encode_qk_backward(dq′, dk′, cache) -> dq, dk, dp
               q [B T H K], k [B S H K]; the last axis may grow (then scores still divide by √K)
  score        bias(p, q, k, x_q, x_k, places) -> b, cache       bias_backward(db, cache)          -> Felt, dp
               b broadcasts to [B H T S] and is added to q kᵀ/√K; db is [B H T S];
               it may look at the queries and keys (before encode_qk) and at the attention's inputs x_q, x_k
  value        mix(p, pattern, v, places)     -> z, cache        mix_backward(dz, cache)           -> dpattern, dv, dp
               takes the place of z = pattern v: pattern [B H T S], v [B S H K] -> z [B T H K]; linear in pattern

Every stage function also takes the constants by keyword. Caches hold arrays. A gradient dp has every field of Params
(zeros where the stage has no share), or is None.
A method whose only stage is the embedding keeps its parameters in `pos_embed`, any other in each `attn.pos`.

  init(rng, size)     -> Params or None       learnable parts, NumPy float64
  check(size)         raises BadInput where the method cannot be (optional)
  fitted(n)           -> constants            those made for thousands of tokens, for a training length of n (optional)

and says of itself, where it is not the default:

  CROSSES = False     it is not defined from one sequence to another (cross-attention then has no positions)
  RELATIVE = True     shifting all ids alike changes nothing
  PAIRWISE = True     each score's bias hangs on its own query and key alone, not on the keys around them: it may be
                      asked for any block of queries and keys (models/tables.py, sublayers/attention_blocked.py)
  EXTRAPOLATES        beyond the training length: "yes", it was made to; "defined", but with values that training never
                      saw; "no" (the default), rows that training never touched, or none
  CONTROL = True      no proposal, but something to compare with
  COST                what a step pays, in the letters of the axes

Adding a method is a file here and a line in METHODS; that buys it every test, the gallery and the studies.
Which number a token's place gets is another question, with its own home: `ids.py`.
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, get_args

import numpy as np

from ..arrays import Array, array_namespace, constant, flatten, real_part
from ..errors import BadInput, unknown

METHODS = (
    "none",
    "sinusoidal", "sinusoidal_concatenated", "sinusoidal_scaled", "sinusoidal_learned", "binary", "learned",
    "sinusoidal_doubled", "sinusoidal_permuted", "random_fixed", "amplitude_matched",
    "shaw", "transformer_xl", "t5", "alibi", "kerple", "sandwich", "fire",
    "rope", "rope_truncated", "xpos", "pope", "roper",
    "cope", "forget",
)  # fmt: skip

STAGES = {"embedding": "encode_x", "query_key": "encode_qk", "score": "bias", "value": "mix"}


class Size(NamedTuple):
    """What a method may need to know of the model that it serves."""

    d_model: int
    n_heads: int
    d_head: int
    n_ctx: int  # the longest sequence in training
    causal: bool = True
    cross: bool = False  # attention from one sequence to another


class Places(NamedTuple):
    """Where queries and keys stand, and which keys a query may look at."""

    q_ids: Array  # [T] or [B, T]
    k_ids: Array  # [S] or [B, S]
    mask: Array | None  # bool, broadcasts to [B, 1, T, S]; None: everything may be seen
    causal: bool = True  # queries look back only: then the mask, where it has rows, is their triangle, less padding
    first: int | None = None  # which key the first query is, in self-attention; None: the queries are the last T keys


class Felt(NamedTuple):
    """What a bias sends back to what it looked at; None where it did not look."""

    q: Array | None = None
    k: Array | None = None
    x_q: Array | None = None
    x_k: Array | None = None


@dataclass(frozen=True)
class Method:
    """A method with its constants bound: `method.bias(p, ...)`; `method.has("score")` says whether it acts there."""

    name: str
    module: ModuleType
    constants: tuple[tuple[str, Any], ...] = ()

    def has(self, stage: str) -> bool:
        return hasattr(self.module, STAGES[stage])

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(stage for stage in STAGES if self.has(stage))

    @property
    def in_attention(self) -> bool:
        """Whether its parameters live in the attention (`attn.pos`) rather than in `pos_embed`."""
        return any(self.has(stage) for stage in ("query_key", "score", "value"))

    @property
    def crosses(self) -> bool:
        """Whether it is defined from one sequence to another (a module says `CROSSES = False` where it is not)."""
        return getattr(self.module, "CROSSES", True)

    @property
    def pairwise(self) -> bool:
        """Whether each score's bias hangs on its own query and key alone (a module says `PAIRWISE = True`)."""
        return getattr(self.module, "PAIRWISE", False)

    @property
    def relative(self) -> bool:
        return getattr(self.module, "RELATIVE", False)

    @property
    def extrapolates(self) -> str:
        return getattr(self.module, "EXTRAPOLATES", "no")

    @property
    def control(self) -> bool:
        return getattr(self.module, "CONTROL", False)

    @property
    def cost(self) -> str:
        return getattr(self.module, "COST", "none")

    @property
    def summary(self) -> str:
        """The first sentence of its file."""
        return (self.module.__doc__ or "").partition("\n")[0]

    @property
    def source(self) -> str:
        found = re.search(r"^Source +(.*?)(?=\.?\s+Every step|\Z)", self.module.__doc__ or "", re.MULTILINE | re.DOTALL)
        return " ".join(found[1].split()) if found else ""

    def n_parameters(self, size: Size) -> int:
        """How many numbers it learns, in `pos_embed` or in each attention."""
        return sum(int(np.size(a)) for a in flatten(self.init(np.random.default_rng(0), size)).values())

    def across(self) -> "Method":
        """The method for cross-attention: this one where it is defined there, else none."""
        return self if self.crosses else get("none")

    def init(self, rng: Any, size: Size) -> Any:
        self.check(size)
        return self.module.init(rng, size, **dict(self.constants))

    def check(self, size: Size) -> None:
        """BadInput where the method cannot serve such a model."""
        if size.cross and not self.crosses:
            raise BadInput(
                f"position '{self.name}' counts places within one sequence, so it is not defined for cross-attention; "
                "allowed there: " + ", ".join(name for name in METHODS if get(name).crosses)
            )
        if hasattr(self.module, "check"):
            self.module.check(size, **dict(self.constants))

    def __getattr__(self, function: str) -> Callable[..., Any]:
        """A stage function of the module (`encode_x`, `bias_backward`, …) with the constants filled in."""
        if function.startswith("_"):
            raise AttributeError(function)
        call, constants = getattr(self.module, function), dict(self.constants)
        return (lambda *args: call(*args, **constants)) if constants else call


def available() -> tuple[str, ...]:
    """The names of all methods."""
    return METHODS


def describe(size: Size | None = None) -> list[dict[str, Any]]:
    """A row for each method: what `onelayer positions` prints. Parameters are counted for a model of that size."""
    size = size or Size(d_model=128, n_heads=4, d_head=32, n_ctx=256)
    methods = [get(name) for name in METHODS]
    return [
        {
            "name": m.name,
            "summary": m.summary,
            "stages": m.stages,
            "parameters": m.n_parameters(size),
            "extrapolates": m.extrapolates,
            "relative": m.relative,
            "crosses": m.crosses,
            "control": m.control,
            "cost": m.cost,
            "constants": dict(m.constants),
            "source": m.source,
        }
        for m in methods
    ]


def constants_of(name: str) -> dict[str, Any]:
    """The constants of a method with their defaults: the keywords of its `init`."""
    return dict(_keywords(_module(name).init))


@cache
def _keywords(init: Callable[..., Any]) -> tuple[tuple[str, Any], ...]:
    parameters = inspect.signature(init).parameters.values()
    return tuple((p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY)


def fitted(name: str, n: int) -> dict[str, Any]:
    """Settings for sequences of n tokens in training, where a default was made for thousands; {} where none was."""
    module = _module(name)
    return module.fitted(n) if hasattr(module, "fitted") else {}


def get(name: str, **constants: Any) -> Method:
    """The method of that name with its constants; BadInput lists what is allowed."""
    known = constants_of(name)
    for given in constants:
        if given not in known:
            if not known:
                raise BadInput(f"position '{name}' has no constants, received '{given}'; leave position_settings empty")
            raise unknown(f"constant of position '{name}'", given, known)
    typed = {given: _typed(name, given, value) for given, value in constants.items()}
    return Method(name, _module(name), tuple(sorted((known | typed).items())))


KINDS = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a word", type(None): "none"}


def _typed(name: str, given: str, value: Any) -> Any:
    """A constant of the kind that the method's `init` declares; a whole number may stand for a float."""
    annotation = inspect.signature(_module(name).init).parameters[given].annotation
    kinds = get_args(annotation) or (annotation,)
    value = value.item() if isinstance(value, np.generic) else value
    if float in kinds and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) in kinds and type(value) is not float:
        return value
    allowed = " or ".join(KINDS[kind] for kind in kinds)
    raise BadInput(f"constant '{given}' of position '{name}' is {allowed}; received {value!r}")


def _module(name: str) -> ModuleType:
    if name in ("abacus", "coupled", "coupling", "random"):
        ids = "coupled" if name == "coupling" else name
        raise BadInput(
            f"'{name}' says which number a place gets, and not what is done with it: "
            f"set position_ids='{ids}' beside a position (the papers: 'learned' under abacus and coupled)"
        )
    if name not in METHODS:
        raise unknown("position", name, METHODS)
    return import_module(f".{name}", __package__)


# ------------------------------------------------------------------------------------------ what score methods share


def offset(places: Places) -> Array:
    """t − s: how far each key lies behind each query, as integers [T S] or [B T S]."""
    return places.q_ids[..., :, None] - places.k_ids[..., None, :]


def as_float(ids: Array, like: Array) -> Array:
    """Integers in `like`'s library and real precision."""
    if isinstance(ids, np.ndarray):
        return constant(ids, like)
    return array_namespace(like).astype(ids, real_part(like).dtype)
