"""A speaker: either model behind the three questions that a decoder asks of it.

begin     what is read beforehand -> the first tokens to advance by, and the cache
advance   new tokens [R n], cache -> logits of the next one [R V], cache
take      the cache of some of the answers, and of some of the sources

Encoder-decoder   reads the source [B S] (present [B S]: False on padding); the first token is <bos>.
Decoder-only      goes on with a prompt [B S]. The prompts of a batch are equally long: the model knows no padding.
                  It reads n_ctx tokens at most, as in training. Where a text fills that window, the latter half of it
                  is read anew and the rest is forgotten, so that a window serves n_ctx/2 tokens before it moves.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer

from ..errors import BadInput
from ..models.config import ModelConfig
from ..tasks.units import BOS, EOS
from . import kv_cache, kv_cache_crossed

__all__ = ["Crossed", "Reading", "Speaker", "Windowed", "speaker"]


class Windowed(NamedTuple):
    """The cache of a decoder-only model, and the tokens that it holds."""

    kept: kv_cache.KVCache
    tokens: Int[np.ndarray, "R S"]


Reading = Any  # what a speaker keeps: a Windowed or a CrossedCache


@dataclass(frozen=True, eq=False)
class Crossed:
    """An encoder-decoder."""

    params: Any
    cfg: ModelConfig
    eos: int | None = EOS

    def begin(
        self, source: Integer[np.ndarray, "B S"], present: Bool[np.ndarray, "B S"] | None = None
    ) -> tuple[Int[np.ndarray, "B 1"], Reading]:
        kept = kv_cache_crossed.start(self.params, source, self.cfg, present)
        return np.full((len(source), 1), BOS, np.int64), kept

    def advance(self, tokens: Int[np.ndarray, "R n"], kept: Reading) -> tuple[np.ndarray, Reading]:
        logits, kept = kv_cache_crossed.advance(self.params, tokens, kept, self.cfg)
        return logits[:, 0], kept

    def take(self, kept: Reading, rows: np.ndarray, sources: np.ndarray | None = None) -> Reading:
        return kv_cache_crossed.take(kept, rows, sources)

    def check(self, longest: int, limit: int) -> None:
        """BadInput where the sources (of up to `longest` tokens) or the answers would outgrow the model."""
        if self.cfg.position_method.extrapolates != "no":
            return
        position, n_ctx = self.cfg.position, self.cfg.n_ctx
        if longest > (room := self.cfg.source_n_ctx or n_ctx):
            raise BadInput(
                f"a source has {longest - 1} units, and the model's positions ('{position}') end after {room - 1}: "
                "shorten it, or train with longer sources, or with a position that extrapolates"
            )
        if limit > n_ctx - 1:
            raise BadInput(
                f"answers of {limit} units are longer than the model's positions ('{position}') reach; "
                f"allowed: up to {n_ctx - 1}"
            )


@dataclass(frozen=True, eq=False)
class Continuing:
    """A decoder-only model that goes on with a text; where its texts have no <eos>, nothing but the limit ends it."""

    params: Any
    cfg: ModelConfig
    eos: int | None = None

    def begin(
        self, source: Integer[np.ndarray, "B S"], present: Bool[np.ndarray, "B S"] | None = None
    ) -> tuple[Int[np.ndarray, "B n"], Reading]:
        if source.shape[1] == 0:
            raise BadInput("a language model goes on with a text: give it at least one unit to begin with")
        if present is not None and not present.all():
            raise BadInput("prompts in one batch must be equally long: a decoder-only model knows no padding")
        prompt = np.asarray(source, np.int64)
        return prompt, Windowed(kv_cache.start(self.params, self.cfg, len(prompt)), prompt[:, :0])

    def advance(self, tokens: Int[np.ndarray, "R n"], kept: Windowed) -> tuple[np.ndarray, Reading]:
        text = np.concatenate([kept.tokens, tokens], axis=1)
        cache = kept.kept
        if text.shape[1] > self.cfg.n_ctx:
            text = text[:, -max(self.cfg.n_ctx // 2, 1) :]
            tokens, cache = text, kv_cache.start(self.params, self.cfg, len(text))
        logits, cache = kv_cache.advance(self.params, tokens, cache, self.cfg)
        return logits[:, 0], Windowed(cache, text)

    def take(self, kept: Windowed, rows: np.ndarray, sources: np.ndarray | None = None) -> Reading:
        return Windowed(kv_cache.take(kept.kept, rows), kept.tokens[rows])

    def check(self, longest: int, limit: int) -> None:
        """Nothing outgrows a window that moves."""


Speaker = Crossed | Continuing


def speaker(params: Any, cfg: ModelConfig, ends: bool | None = None) -> Speaker:
    """The speaker of a model; parameters are NumPy arrays. ends: whether <eos> ends an answer; None: as is usual."""
    kind = Crossed if cfg.architecture == "encoder_decoder" else Continuing
    return kind(params, cfg) if ends is None else kind(params, cfg, EOS if ends else None)
