"""Where each head looked while an answer was said: the attention patterns of one pair, with the tokens on both sides.

Shapes    encoder [L H S S]     decoder [L H T T]     cross [L H T S]: layer, head, who asks, who is asked

A row of the decoder's is a position that has read a token (<bos> and the answer) and says the next one (the answer and
<eos>); its label is what it says where it looks across, and what it has read where it looks back.
"""

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..models import decoder_only, encoder_decoder
from ..tasks.units import BOS, EOS
from .answers import Said, Speaks, encoded

__all__ = ["Alignment", "align"]


class Alignment(NamedTuple):
    source: str
    answer: str
    read: tuple[str, ...]  # the source's tokens [S]; of a language model, none
    heard: tuple[str, ...]  # what each of the decoder's positions has read [T]
    said: tuple[str, ...]  # what it says [T]
    encoder: np.ndarray | None
    decoder: np.ndarray
    cross: np.ndarray | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the tokens, and each pattern under the name of what looks where."""
        patterns = {"encoder": self.encoder, "decoder": self.decoder, "cross": self.cross}
        return {
            "source": self.source,
            "answer": self.answer,
            "source_tokens": list(self.read),
            "decoder_reads": list(self.heard),
            "decoder_says": list(self.said),
            "axes": ["layer", "head", "asking", "asked"],
            **{name: np.round(a, 6).tolist() for name, a in patterns.items() if a is not None},
        }


def align(opened: Speaks, text: str, answer: Said) -> Alignment:
    """The patterns of every head of every layer, while the answer to the text is said."""
    tokens, cfg = encoded(opened, text), opened.model
    kept: dict[str, Array] = {}

    def tap(name: str, x: Array) -> Array:
        if name.endswith("hook_pattern"):
            kept[name] = np.asarray(x)[0]
        return x

    def stack(scope: str, layers: int) -> np.ndarray:
        return np.stack([kept[scope.format(i)] for i in range(layers)])

    if opened.source is None:
        whole = [*tokens, *answer.tokens][-cfg.n_ctx - 1 :]  # what a last window holds, and the token that it says
        decoder_only.forward(opened.params, np.array([whole[:-1]]), cfg, tap=tap)
        heard, said = _named(opened.target.vocabulary, whole[:-1]), _named(opened.target.vocabulary, whole[1:])
        decoder = stack("blocks.{}.attn.hook_pattern", cfg.n_layers)
        return Alignment(text, answer.text, (), heard, said, None, decoder, None)

    before, after = [BOS, *answer.tokens], [*answer.tokens, EOS]
    encoder_decoder.forward(opened.params, np.array([tokens]), np.array([before]), cfg, tap=tap)
    return Alignment(
        text,
        answer.text,
        _named(opened.source.vocabulary, tokens),
        _named(opened.target.vocabulary, before),
        _named(opened.target.vocabulary, after),
        stack("encoder.blocks.{}.attn.hook_pattern", cfg.n_encoder_layers or cfg.n_layers),
        stack("decoder.blocks.{}.attn.hook_pattern", cfg.n_layers),
        stack("decoder.blocks.{}.cross_attn.hook_pattern", cfg.n_layers),
    )


def _named(vocabulary: tuple[str, ...], tokens: list[int]) -> tuple[str, ...]:
    """Each token in words; white space is made visible."""
    visible = {" ": "␣", "\n": "↵", "\t": "⇥"}
    return tuple(visible.get(vocabulary[i], vocabulary[i]) for i in tokens)
