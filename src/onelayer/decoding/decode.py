"""Decoding any number of sources: sorted by length, in batches of so many tokens, answered in the order given.

    decode(params, cfg, [[5, 9, 2], [7, 2]], Beam(5, length_penalty=0.6))      a list of answers to each, the best first

A source is token ids: with its <eos> for an encoder-decoder, a prompt for a decoder-only model. How sources are put
together changes nothing: each gets the answer that it would get alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import kernels
from ..arrays import map_tree
from ..errors import BadInput
from ..fused import using
from ..models.config import ModelConfig
from ..tasks.units import PAD
from .beam import search
from .choices import Answer, Rules
from .one_by_one import speak
from .sampling import drawn, draws
from .speaker import Continuing, speaker

__all__ = ["Beam", "Greedy", "How", "Sample", "batches", "decode"]

BUDGET = 1 << 12  # tokens of a batch: its rows (sources times beams) times the longest source
WORTHWHILE = 64  # sources below which loading the kernels takes longer than they save


class Greedy(NamedTuple):
    """The likeliest token at each place."""


class Beam(NamedTuple):
    width: int = 5
    length_penalty: float = 0.6  # α
    n_best: int = 1


class Sample(NamedTuple):
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    n: int = 1  # answers to each source


How = Greedy | Beam | Sample


def decode(
    params: Any,
    cfg: ModelConfig,
    sources: Sequence[Sequence[int]],
    how: How = Greedy(),  # noqa: B008  frozen
    limit: int | None = None,
    budget: int = BUDGET,
    tell: Callable[[int], object] | None = None,
    ends: bool | None = None,
) -> list[list[Answer]]:
    """The answers to each source, the best first.

    limit: the most tokens of an answer, <eos> not counted; None: n_ctx − 1, which is what training had room for.
    tell: called after each batch with the number of sources that are done.
    ends: whether <eos> ends an answer; None: of an encoder-decoder it does, a decoder-only model goes on to the limit.
    """
    _check(how)
    talker = speaker(map_tree(np.asarray, params), cfg, ends)
    longest = max(map(len, sources), default=0)
    rules = Rules(max(cfg.n_ctx - 1, 1) if limit is None else limit, talker.eos)
    if rules.limit < 1:
        raise BadInput(f"an answer's limit is at least 1 unit; received {rules.limit}")
    talker.check(longest, rules.limit)
    if isinstance(how, Sample) and how.n > 1:
        asked = [source for source in sources for _ in range(how.n)]
        each = tell and (lambda done: tell(done // how.n))
        one = decode(params, cfg, asked, how._replace(n=1), limit, budget, each, ends)
        return [[a for [a] in one[i : i + how.n]] for i in range(0, len(one), how.n)]

    found: list[list[Answer]] = [[] for _ in sources]
    u, done = draws(sources, rules.steps, how.seed) if isinstance(how, Sample) else np.empty(0), 0
    with using(kernels.available() if len(sources) >= WORTHWHILE else {}):
        wide = how.width if isinstance(how, Beam) else 1
        for chosen in batches([len(s) for s in sources], budget // wide, alike=isinstance(talker, Continuing)):
            source, present = _padded([sources[i] for i in chosen])
            match how:
                case Greedy():
                    answers = [[a] for a in speak(talker, source, rules, present=present)]
                case Beam(width, alpha, n_best):
                    answers = search(talker, source, rules, width, alpha, n_best, present)
                case Sample(temperature, top_k, top_p):
                    choose = drawn(u[chosen], temperature, top_k, top_p)
                    answers = [[a] for a in speak(talker, source, rules, choose, present)]
            for i, answer in zip(chosen, answers, strict=True):
                found[i] = answer
            done += len(chosen)
            if tell is not None:
                tell(done)
    return found


def batches(lengths: Sequence[int], budget: int, alike: bool = False) -> Iterator[list[int]]:
    """Indices by falling length, cut where rows times the longest would exceed the budget; `alike`: or lengths differ.

    The longest come first: what does not fit into memory shows at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for i in order:
        longest = lengths[batch[0]] if batch else lengths[i]
        if batch and ((len(batch) + 1) * longest > budget or (alike and lengths[i] != longest)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _padded(sources: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray | None]:
    """The sources as one array, and where they are present; None where nothing had to be filled up."""
    lengths = np.array([len(tokens) for tokens in sources])
    source = np.full((len(sources), lengths.max()), PAD, np.int64)
    present = np.arange(lengths.max()) < lengths[:, None]
    source[present] = np.concatenate([np.asarray(tokens, np.int64) for tokens in sources])
    return source, None if present.all() else present


def _check(how: How) -> None:
    match how:
        case Beam(width, alpha, n_best):
            if width < 1:
                raise BadInput(f"a beam is at least 1 wide; received {width}")
            if not (0 <= alpha < math.inf):
                raise BadInput(f"a length penalty is a number ≥ 0 (0: none; 0.6 is usual); received {alpha}")
            if not 1 <= n_best <= width:
                raise BadInput(f"a beam of {width} has 1 to {width} best answers; received n-best {n_best}; widen it")
        case Sample(temperature, top_k, top_p, _, n):
            if not 0 < temperature < math.inf:
                raise BadInput(f"a temperature is above 0 (greedy decoding is its limit at 0); received {temperature}")
            if top_k is not None and top_k < 1:
                raise BadInput(f"top-k keeps at least 1 token; received {top_k}")
            if top_p is not None and not 0 < top_p <= 1:
                raise BadInput(f"top-p is a share of 1, above 0; received {top_p}")
            if n < 1:
                raise BadInput(f"at least 1 answer is drawn to each source; received {n}")
