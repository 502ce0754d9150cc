"""A language model's surprise at a text: nats per token, bits per character. It is teacher-forced, and says so.

Windows   The model reads windows of n_ctx tokens that move by `stride`; of each, the last `stride` predictions count
          (of the first, all). So every token but the first is predicted once, after at least n_ctx − stride others.
          stride = n_ctx: windows that do not overlap, as in training: the first token of each is guessed from nothing
          but the one before it. A smaller stride gives the model more to go by, and costs n_ctx/stride times as much.

Source    Dai et al. 2019, arXiv:1901.02860, section 4 (evaluation by sliding the window).
"""

from typing import Any

import numpy as np
from jaxtyping import Integer

from .. import kernels
from ..arrays import map_tree
from ..decoding.metrics import bits_per_character
from ..errors import BadInput
from ..fused import using
from ..models import decoder_only
from ..models.config import ModelConfig
from ..tasks import Task

__all__ = ["surprise", "surprise_at"]

AT_ONCE = 1 << 20  # numbers in the largest array of a batch: more do not fit into a processor's cache


def surprise_at(params: Any, model: ModelConfig, task: Task, split: str, stride: int | None = None) -> dict[str, Any]:
    """The surprise at the text of a split, "valid" or "test", of a language task; stride: as below."""
    batch = getattr(task, split)
    if task.text is None or task.text.source is not None:
        raise BadInput(f"the task '{task.name}' is no language model's; words/scores.py scores answers")
    ids = np.append(np.ravel(batch.tokens), batch.targets[-1, -1])  # the windows follow each other without a gap
    return surprise(params, model, ids, task.facts["characters"][split], stride)


def surprise(
    params: Any, cfg: ModelConfig, ids: Integer[np.ndarray, " N"], characters: int, stride: int | None = None
) -> dict[str, Any]:
    """The surprise at the tokens `ids` of a text after the first of them, which stand for so many characters.

    stride: None takes a quarter of the window, or 1.
    """
    T, N = cfg.n_ctx, len(ids)
    step = max(T // 4, 1) if stride is None else stride
    if not 1 <= step <= T:
        raise BadInput(f"a stride is from 1 to the window's {T} tokens; received {stride}")
    if N < 2 or characters < 1:
        raise BadInput(f"a text of {N} tokens, {characters} of its characters predicted, has nothing to predict")
    if cfg.architecture != "decoder_only":
        raise BadInput("only a decoder-only model is a language model; words/scores.py scores an encoder-decoder")
    params, ids = map_tree(np.asarray, params), np.asarray(ids)
    with using(kernels.available()):
        first, row = min(T, N - 1), max(step * cfg.vocab_size, T * cfg.d_model)
        nats = _nats(params, cfg, ids[None, : first + 1], first)
        ends = np.arange(first + step, N, step)  # of the full steps, where each window's last prediction stands
        for some in np.array_split(ends, max(1, -(-len(ends) * row // AT_ONCE))):
            if some.size:
                nats += _nats(params, cfg, ids[some[:, None] + np.arange(-T, 1)], step)
        left = N - 1 - (int(ends[-1]) if ends.size else first)
        if left:
            nats += _nats(params, cfg, ids[None, N - 1 - T :], left)
    return {
        "nats_per_token": nats / (N - 1),
        "bits_per_character": bits_per_character(nats, characters),
        "tokens": N - 1,
        "evaluation": f"teacher-forced, windows of {T} tokens that move by {step}",
    }


def _nats(params: Any, cfg: ModelConfig, rows: Integer[np.ndarray, "B n"], read: int) -> float:
    """Σ −log P of each row's last `read` tokens, in float64."""
    logits, _ = decoder_only.forward(params, rows[:, :-1], cfg, read=read)
    z = logits.astype(np.float64)
    z -= z.max(axis=-1, keepdims=True)
    right = np.take_along_axis(z, rows[:, -read:, None], axis=-1)[..., 0]
    return float((np.log(np.exp(z).sum(axis=-1)) - right).sum())
