"""What the steps of the walk are made of: matrices of a scene under their symbols, and numbers in words."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onelayer.arrays import Array
from onelayer.report.section import Matrix
from onelayer.report.walk.scene import Scene

__all__ = [
    "Attention",
    "Equation",
    "adds_up",
    "arrow",
    "classes",
    "quoted",
    "reader",
    "stream",
    "told",
    "weight",
    "words",
]

Equation = Sequence[Matrix | str]
DRAWN = 16_000  # numbers of a weight matrix, at most; a larger one is named, and not drawn
CANDIDATES = 14  # words of the vocabulary that are drawn, at most


def told(x: Any) -> str:
    """A number in a sentence: three digits and a true minus."""
    return f"{float(x):.3g}".replace("-", "−")


def quoted(token: str) -> str:
    return f"“{token}”"


def words(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def arrow(words: str) -> str:
    return f"→ {words} →"


def stream(scene: Scene, symbol: str, x: Array, stack: str, row: int | None = None) -> Matrix:
    """[T D]: a row of features for each token of a stack; row: that token's alone."""
    tokens, mark = scene.tokens(stack), scene.followed(stack)
    if row is not None:
        return Matrix(symbol, x[row : row + 1], "td", [tokens[row]])
    return Matrix(symbol, x, "td", tokens, mark=(mark, None))


def adds_up(parts: Sequence[Array], whole: Array, rest: str) -> str:
    """The sign before a sum: where the parts drawn are not all of it, what else there is, in words."""
    missing = float(np.max(np.abs(np.sum(parts, axis=0) - whole), initial=0.0))
    return "=" if missing <= 1e-9 * float(np.max(np.abs(whole), initial=0.0)) else f"+ {rest} ="


def weight(symbol: str, W: Array, axes: str) -> Matrix | str:
    """A weight, drawn where it is small enough."""
    return Matrix(symbol, W, axes) if W.size <= DRAWN else f"{symbol} [{' × '.join(map(str, W.shape))}]"


def reader(scene: Scene, scope: str, ln: str, plain: str) -> str:
    """The name of what a sublayer reads: the normed stream where the norm stands before it, else the stream."""
    return f"{scope}.{ln}.hook_normalized" if scene.trace.cfg.norm == "pre" else f"{scope}.{plain}"


def classes(scene: Scene) -> Array:
    """The words of the vocabulary that are drawn: all, or the wanted ones and the likeliest of each place."""
    share, targets = scene.trace.judged.share[0], scene.trace.batch.targets[0]
    if share.shape[1] <= CANDIDATES:
        return np.arange(share.shape[1])
    best = np.argsort(-share, axis=1, kind="stable")
    kept = list(dict.fromkeys(targets.tolist()))
    for rank in range(share.shape[1]):  # the first choice of each place, then the second, …
        for token in best[:, rank].tolist():
            if len(kept) >= CANDIDATES:
                return np.array(sorted(kept))
            if token not in kept:
                kept.append(token)
    return np.array(sorted(kept))


class Attention:
    """An attention of the scene: whose tokens ask and answer, the head that is shown, and its matrices."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.scene, self.name = scene, name
        self.stack = name.partition("blocks.")[0]
        self.scope, _, kind = name.rpartition(".")
        self.crosses = kind == "cross_attn"
        self.sources = "encoder." if self.crosses else self.stack
        self.asking, self.asked = scene.tokens(self.stack), scene.tokens(self.sources)
        self.head = scene.head(name)
        self.row = scene.followed(self.stack)
        method = scene.trace.cfg.position_method
        self.position = method.across() if self.crosses else method
        pattern = scene.value(f"{name}.hook_pattern")[self.head, self.row]
        self.column = int(np.argmax(pattern))
        self.width = scene.trace.cfg.head_width

    @property
    def scale(self) -> float:
        return math.sqrt(self.width)

    @property
    def read(self) -> Array:
        """What the queries are made of [T D]."""
        ln, plain = ("ln_cross", "hook_resid_mid") if self.crosses else ("ln1", "hook_resid_pre")
        return self.scene.value(reader(self.scene, self.scope, ln, plain))

    @property
    def asked_of(self) -> Array:
        """What keys and values are made of [S D]."""
        return self.scene.value("encoder.hook_memory") if self.crosses else self.read

    @property
    def turned(self) -> str:
        """rot_ where the position method turns queries and keys before they meet."""
        return "rot_" if self.position.has("query_key") else ""

    @property
    def mixes(self) -> str:
        """The sign before what comes of values, or of shares: a method that acts on values has a part in it."""
        return f"+ … (“{self.position.name}”) =" if self.position.has("value") else "="

    def W(self, letter: str) -> Array:
        """The head's W_Q, W_K, W_V [D K] or W_O [K D]."""
        return self.scene.value(f"{self.name}.W_{letter}")[self.head]

    def value(self, what: str) -> Array:
        return self._of_head(self.scene.value(f"{self.name}.hook_{what}"), what)

    def slope(self, what: str) -> Array:
        return self._of_head(self.scene.slope(f"{self.name}.hook_{what}"), what)

    def _of_head(self, x: Array, what: str) -> Array:
        return x[self.head] if what in ("attn_scores", "pattern") else x[:, self.head]

    @property
    def allowed(self) -> Array:
        """[T S]: where a query may look."""
        T, S = len(self.asking), len(self.asked)
        causal = self.stack == "decoder." and not self.crosses and self.scene.trace.cfg.causal
        return np.tril(np.ones((T, S), bool)) if causal else np.ones((T, S), bool)

    # ------------------------------------------------------------------------------------------------ matrices

    def queries(self, symbol: str, x: Array) -> Matrix:
        """[T K]"""
        return Matrix(symbol, x, "tk", self.asking, mark=(self.row, None))

    def keys(self, symbol: str, x: Array, across: bool = False) -> Matrix:
        """[S K], or transposed."""
        if across:
            return Matrix(symbol, x.T, "ks", None, self.asked, mark=(None, self.column))
        return Matrix(symbol, x, "sk", self.asked, mark=(self.column, None))

    def looks(self, symbol: str, x: Array, amounts: bool = False) -> Matrix:
        """[T S]"""
        return Matrix(symbol, x, "ts", self.asking, self.asked, amounts, (self.row, self.column))

    def masked(self, x: Array) -> Array:
        """NaN where a query may not look."""
        return np.where(self.allowed, x, np.nan)
