"""From logits to what may be said: log-probabilities, what is never said, where an answer must end.

Shapes    logits [R V]: of R answers' next token

          log P(v) = logits_v − log Σ exp logits        over all V: the model's own probability
          Then <pad> and <bos> are struck out, and, where nothing but the limit ends an answer, <eos>.
          After `limit` tokens there is room for <eos> alone, and it costs what it costs there. Where that is more than
          log 2, the answer was cut: the model would sooner have gone on.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..tasks.units import BOS, EOS, PAD

__all__ = ["Answer", "Rules", "ended_by_limit", "log_probabilities", "of", "top"]

FEW = 16  # up to so many, finding the largest again and again is faster than sorting


class Answer(NamedTuple):
    """One answer to a source."""

    tokens: tuple[int, ...]  # without <eos>
    log_probability: float  # log P of the tokens, and of <eos> where it ends them
    score: float  # what answers are ranked by: the log-probability over the length penalty
    cut: bool  # the limit ended it, where the model would sooner have gone on


class Rules(NamedTuple):
    limit: int  # the most tokens an answer may have, <eos> not counted
    eos: int | None = EOS  # None: the limit alone ends an answer

    @property
    def steps(self) -> int:
        """How many tokens are asked for at most."""
        return self.limit + (self.eos is not None)


def log_probabilities(logits: Float[np.ndarray, "R V"], said: int, rules: Rules) -> Float[np.ndarray, "R V"]:
    """log P of every token that may follow the `said` so far; −∞ where it may not. The logits are overwritten."""
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    if rules.eos is None:
        logits[:, [PAD, BOS, EOS]] = -np.inf
    elif said < rules.limit:
        logits[:, [PAD, BOS]] = -np.inf
    else:
        logits[:, : rules.eos] = logits[:, rules.eos + 1 :] = -np.inf
    return logits


def ended_by_limit(said: int, cost: float, rules: Rules) -> bool:
    """Whether an <eos> of this log P, after so many tokens, is the limit's and not the model's own."""
    return said == rules.limit and cost < -math.log(2)


def of(log_p: Float[np.ndarray, "R V"], tokens: Int[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
    """log P of these tokens, float64: sums over an answer must not depend on how long it is."""
    return np.take_along_axis(log_p, tokens[:, None], axis=1)[:, 0].astype(np.float64)


def top(log_p: Float[np.ndarray, "R V"], k: int) -> tuple[Int[np.ndarray, "R k"], Float[np.ndarray, "R k"]]:
    """The k likeliest tokens of each row and their log P, the likeliest first; of equals, the lowest.

    log_p may be overwritten.
    """
    rows = np.arange(len(log_p))
    if k > FEW:
        best = np.argsort(-log_p, axis=1, kind="stable")[:, :k]
        return best, log_p[rows[:, None], best].astype(np.float64)
    best, values = np.empty((len(rows), k), np.int64), np.empty((len(rows), k))
    for i in range(k):
        best[:, i] = log_p.argmax(axis=1)
        values[:, i] = log_p[rows, best[:, i]]
        if i < k - 1:
            log_p[rows, best[:, i]] = -np.inf
    return best, values
