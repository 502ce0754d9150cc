"""Beam search: the W likeliest beginnings are carried on side by side, until each has ended.

Shapes    source [B S]     B sources, w ≤ W beginnings of each: R = B w rows

Step      Every beginning is carried on by every token; of these, the likeliest by Σ log P are kept.
          One that ends in <eos> is an answer: it is frozen as it is, and gives up its place. So the next step keeps
          W − (answers so far), nothing is ever said past <eos>, and W = 1 is greedy decoding.
          All that is compared in a step is equally long, so a length penalty has no say in the search.
Answers   ranked by  Σ log P / lp(n)      lp(n) = ((5 + n)/6)^α      n tokens, <eos> counted; applied here, once.
          α = 0 ranks by probability, and prefers the short; α = 1 almost by the mean log-probability of a token.

Early     Σ log P only falls and lp only grows: a beginning comes to (Σ log P so far)/lp(longest) at most. Where n_best
          answers already beat that, the source is done. That changes no answer.

Source    Sutskever, Vinyals & Le 2014, arXiv:1409.3215, section 3.2 (a hypothesis that ends leaves the beam);
          lp: Wu et al. 2016, arXiv:1609.08144, equation 14.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from .choices import Answer, Rules, ended_by_limit, log_probabilities, top
from .speaker import Reading, Speaker

__all__ = ["penalty", "search"]


def penalty(n: int | np.ndarray, alpha: float) -> float | np.ndarray:
    """lp(n)."""
    return ((5 + n) / 6) ** alpha


class Beginnings(NamedTuple):
    """What is carried on: w beginnings of each source that is not done; the likeliest first."""

    which: Int[np.ndarray, " B"]  # the sources
    said: Int[np.ndarray, "B w t"]
    total: Float[np.ndarray, "B w"]  # Σ log P; −∞ where no beginning is


class Next(NamedTuple):
    """The best continuations of each source's beginnings, in the order of their Σ log P."""

    parent: Int[np.ndarray, "B c"]
    token: Int[np.ndarray, "B c"]
    total: Float[np.ndarray, "B c"]


def search(
    speaker: Speaker,
    source: Integer[np.ndarray, "B S"],
    rules: Rules,
    width: int,
    alpha: float = 0.0,
    n_best: int = 1,
    present: Bool[np.ndarray, "B S"] | None = None,
) -> list[list[Answer]]:
    """The n_best answers to each source of a batch, the best first."""
    B = len(source)
    answers: list[list[Answer]] = [[] for _ in range(B)]
    tokens, kept = speaker.begin(source, present)
    now = Beginnings(np.arange(B), np.zeros((B, 1, 0), np.int64), np.zeros((B, 1)))
    for t in range(rules.steps):
        logits, kept = speaker.advance(tokens, kept)
        best = _continuations(log_probabilities(logits, t, rules), now.total, width)
        free = np.array([width - len(answers[b]) for b in now.which])
        chosen = (np.arange(best.total.shape[1]) < free[:, None]) & np.isfinite(best.total)
        ends = np.zeros_like(chosen) if rules.eos is None else chosen & (best.token == rules.eos)
        for i, c in np.argwhere(ends).tolist():
            parent = best.parent[i, c]
            cut = ended_by_limit(t, best.total[i, c] - now.total[i, parent], rules)
            answers[now.which[i]].append(_answer(now.said[i, parent], best.total[i, c], t + 1, alpha, cut))
        now, kept = _carry_on(speaker, kept, now, best, chosen & ~ends, answers, (n_best, rules.steps, alpha))
        if now.which.size == 0:
            break
        tokens = now.said[:, :, -1].reshape(-1, 1)
    for i, b in enumerate(now.which):  # only where no <eos> ends an answer
        going = np.flatnonzero(np.isfinite(now.total[i]))
        answers[b] += [_answer(now.said[i, j], now.total[i, j], rules.limit, alpha, cut=True) for j in going]
    return [sorted(found, key=lambda answer: -answer.score)[:n_best] for found in answers]


def _continuations(log_p: Float[np.ndarray, "R V"], total: Float[np.ndarray, "B w"], width: int) -> Next:
    """The `width` likeliest continuations of each source. Of equals, that of the likelier beginning, then the lower."""
    (B, w), k = total.shape, min(width, log_p.shape[1])
    tokens, values = top(log_p, k)
    totals = (total.reshape(-1, 1) + values).reshape(B, w * k)
    order = np.argsort(-totals, axis=1, kind="stable")[:, :width]
    return Next(
        order // k,
        np.take_along_axis(tokens.reshape(B, w * k), order, axis=1),
        np.take_along_axis(totals, order, axis=1),
    )


def _carry_on(
    speaker: Speaker,
    kept: Reading,
    now: Beginnings,
    best: Next,
    going: Bool[np.ndarray, "B c"],
    answers: list[list[Answer]],
    bound: tuple[int, int, float],
) -> tuple[Beginnings, Reading]:
    """The beginnings that are left, gathered: sources that are done leave, and w is the most that any other needs."""
    on = np.array([i for i, b in enumerate(now.which) if _may_gain(best.total[i], going[i], answers[b], *bound)], int)
    going, parent, token, total = going[on], best.parent[on], best.token[on], best.total[on]
    w = int(going.sum(axis=1).max(initial=0))
    first = np.argsort(~going, axis=1, kind="stable")[:, :w]  # those that go on, in their order
    parent, token, total, going = (np.take_along_axis(a, first, axis=1) for a in (parent, token, total, going))
    said = np.concatenate([now.said[on[:, None], parent], token[:, :, None]], axis=2)
    new = Beginnings(now.which[on], said, np.where(going, total, -np.inf))
    if on.size == 0:
        return new, kept
    B, before = now.total.shape
    rows = (on[:, None] * before + parent).reshape(-1)
    if on.size == B and np.array_equal(rows, np.arange(B * before)):
        return new, kept
    return new, speaker.take(kept, rows, None if on.size == B else on)


def _may_gain(
    total: Float[np.ndarray, " c"],
    going: Bool[np.ndarray, " c"],
    found: list[Answer],
    n: int,
    longest: int,
    alpha: float,
) -> bool:
    """Whether a beginning may still come among the n best answers."""
    if not going.any():
        return False
    if len(found) < n:
        return True
    bar = sorted((answer.score for answer in found), reverse=True)[n - 1]
    return float(total[going].max() / penalty(longest, alpha)) > bar


def _answer(said: np.ndarray, total: float, n: int, alpha: float, cut: bool) -> Answer:
    return Answer(tuple(said.tolist()), float(total), float(total / penalty(n, alpha)), cut)
