"""One answer a source, one token after the other: the likeliest (greedy), or one that is drawn (sampling).

          y_t = choose(log P(· | y_<t, source))        until <eos>, or the limit

Answers that have ended leave the batch, so that no work is done past <eos>.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from .choices import Answer, Rules, ended_by_limit, log_probabilities, of
from .speaker import Speaker

__all__ = ["Choose", "likeliest", "speak"]

Choose = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # log P [R V], which sources [R], t -> tokens [R]


def likeliest(log_p: Float[np.ndarray, "R V"], which: Int[np.ndarray, " R"], t: int) -> Int[np.ndarray, " R"]:
    """The greedy choice; of equals, the lowest."""
    return log_p.argmax(axis=1)


def speak(
    speaker: Speaker,
    source: Integer[np.ndarray, "B S"],
    rules: Rules,
    choose: Choose = likeliest,
    present: Bool[np.ndarray, "B S"] | None = None,
) -> list[Answer]:
    """An answer to each source of a batch."""
    B = len(source)
    said, length = np.zeros((B, rules.steps), np.int64), np.zeros(B, np.int64)
    total, ended = np.zeros(B), np.zeros(B, bool)
    which = np.arange(B)  # of the answers that go on, the sources
    tokens, kept = speaker.begin(source, present)
    for t in range(rules.steps):
        logits, kept = speaker.advance(tokens, kept)
        log_p = log_probabilities(logits, t, rules)
        chosen = choose(log_p, which, t)
        cost = of(log_p, chosen)
        total[which] += cost
        ends = np.zeros(len(which), bool) if rules.eos is None else chosen == rules.eos
        ended[which[ends]] = [not ended_by_limit(t, c, rules) for c in cost[ends]]
        going = np.flatnonzero(~ends)
        if going.size < which.size:
            which, chosen, kept = which[going], chosen[going], speaker.take(kept, going, going)
        if which.size == 0:
            break
        said[which, t] = chosen
        length[which] += 1
        tokens = chosen[:, None]
    return [
        Answer(tuple(said[b, : length[b]].tolist()), float(total[b]), float(total[b]), not ended[b]) for b in range(B)
    ]
