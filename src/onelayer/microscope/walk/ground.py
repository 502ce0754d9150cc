"""Ground: where things stand in a traced model: stacks, norms, position methods, the words at a place."""

from typing import Any

from ...layers import cross_entropy
from ..trace import Trace

__all__ = ["Ground"]


class Ground:
    def __init__(self, t: Trace) -> None:
        self.t, self.cfg = t, t.cfg

    def stack(self, name: str) -> tuple[str, Any, int]:
        """The prefix, cache and number of blocks of the stack that a name belongs to."""
        if self.cfg.architecture == "decoder_only":
            return "", self.t.cache, self.cfg.n_layers
        if name.startswith("encoder."):
            return "encoder.", self.t.cache.encoder, self.cfg.n_encoder_layers or self.cfg.n_layers
        return "decoder.", self.t.cache.decoder, self.cfg.n_layers

    def crosses(self, scope: str) -> bool:
        return self.cfg.architecture == "encoder_decoder" and not scope.startswith("encoder.")

    def norm(self, name: str) -> Any:
        """The cache of the norm called `blocks.0.ln1` or `ln_final`; None where there is none."""
        prefix, stack, _ = self.stack(name)
        parts = name.removeprefix(prefix).split(".")
        return stack.ln_final if parts[0] == "ln_final" else getattr(stack.blocks[int(parts[1])], parts[2])

    def position(self, attention: str) -> Any:
        method = self.cfg.position_method
        return method.across() if attention.endswith("cross_attn") else method

    def offset(self, scope: str) -> int:
        """How many rows of the block's input come before the first that it asks at."""
        values = self.t.values
        return values[f"{scope}.hook_resid_pre"].shape[1] - values[f"{scope}.hook_resid_mid"].shape[1]

    @property
    def loss(self) -> cross_entropy.Cache:
        return self.t.judged

    def token(self, prefix: str, at: tuple[int, ...]) -> str:
        tokens = self.t.batch.source if prefix == "encoder." else self.t.batch.tokens
        return self.t.word(int(tokens[at]), source=prefix == "encoder.")  # type: ignore[index]

    def place(self, stack: str, b: int, row: int) -> str:
        """A position, with the token that stands there where its word is known."""
        return f"{row} ({self.token(stack, (b, row))})" if self.t.vocabulary else str(row)

    def asked(self, attention: str, b: int, row: int) -> str:
        """The position whose key or value it is."""
        return self.place("encoder." if attention.endswith("cross_attn") else self.stack(attention)[0], b, row)

    def asking(self, attention: str, b: int, row: int) -> str:
        """The position whose query it is."""
        first = 0 if attention.endswith("cross_attn") else self.offset(attention.rpartition(".")[0])
        return self.place(self.stack(attention)[0], b, row + first)
