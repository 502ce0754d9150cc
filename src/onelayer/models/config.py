"""The shape of a model: every choice that is fixed before the first weight is drawn.

One frozen record serves both models. Widths are counted in features, lengths in tokens.
"""

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .. import positions
from ..errors import BadInput, unknown
from ..layers import activations
from ..positions import ids

INITS = ("width", "xavier", "normal")


class ModelConfig(BaseModel):
    """A Transformer's shape. `vocab_size` and `n_ctx` come from the task; the rest has the one-layer net as default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["decoder_only", "encoder_decoder"] = "decoder_only"
    vocab_size: int = Field(gt=0, description="V: tokens of the (target) vocabulary")
    source_vocab_size: int | None = Field(None, description="tokens of the encoder's vocabulary; None: the same one")
    n_ctx: int = Field(gt=0, description="the longest (target) sequence in training")
    source_n_ctx: int | None = Field(None, description="the longest source sequence; None: n_ctx")

    n_layers: int = Field(1, ge=1, description="blocks of the decoder")
    n_encoder_layers: int | None = Field(None, ge=1, description="blocks of the encoder; None: n_layers")
    d_model: int = Field(128, ge=1, description="D: width of the residual stream")
    n_heads: int = Field(4, ge=1, description="H")
    d_head: int | None = Field(None, ge=1, description="K; None: d_model / n_heads")
    d_mlp: int = Field(512, ge=1, description="F: width of the feed-forward network")
    activation: str = "relu"
    norm: Literal["none", "pre", "post"] = "none"
    norm_kind: Literal["layer", "rms"] = "layer"
    final_norm: bool | None = Field(None, description="a norm after the last block; None: where norm is 'pre'")
    norm_eps: float = Field(1e-5, gt=0)
    position: str = "learned"
    position_settings: dict[str, Any] = {}
    position_ids: str = Field("sequential", description="which number a place gets: positions/ids.py has the list")
    position_ids_settings: dict[str, Any] = {}
    embed_scale: bool = Field(False, description="multiply embeddings by √D, as Vaswani 2017 does")
    tied: Literal["none", "unembed", "all"] = Field("none", description="'all' also shares source and target tables")
    attention_bias: bool = False
    mlp_bias: bool = True
    unembed_bias: bool = False
    causal: bool = Field(True, description="whether a decoder's query may look only back")
    init: Literal["width", "xavier", "normal"] = Field(
        "width", description="N(0, 1/D) (unembedding N(0, 1/V)); Glorot's; or N(0, 0.02²)"
    )
    init_scale: float = Field(1.0, ge=0, description="all initial weights times this")

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.activation not in activations.FUNCTIONS:
            raise unknown("activation", self.activation, activations.FUNCTIONS)
        if self.d_head is None and self.d_model % self.n_heads:
            divisors = [h for h in range(1, self.d_model + 1) if self.d_model % h == 0]
            raise BadInput(
                f"{self.n_heads} heads do not divide the width {self.d_model}; "
                f"allowed: {', '.join(map(str, divisors))}, or set d_head to give the heads a width of their own"
            )
        if self.tied == "all" and self.source_vocab_size not in (None, self.vocab_size):
            raise BadInput(
                f"tied='all' shares one table between source ({self.source_vocab_size} tokens) and target "
                f"({self.vocab_size}): use one joint vocabulary, or tied='unembed'"
            )
        if self.final_norm and self.norm == "none":
            raise BadInput("final_norm = true needs a norm; norm is 'none'. Allowed: 'pre' or 'post'")
        self.position_method.check(self.size())
        return self

    @property
    def head_width(self) -> int:
        """K."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def ends_normed(self) -> bool:
        """Whether a norm of its own stands after the last block (`ln_final`)."""
        return self.norm == "pre" if self.final_norm is None else self.final_norm

    @property
    def scale(self) -> float:
        """What embeddings are multiplied by."""
        return float(np.sqrt(self.d_model)) if self.embed_scale else 1.0

    @property
    def position_method(self) -> positions.Method:
        return positions.get(self.position, **self.position_settings)

    @property
    def numbering(self) -> ids.Numbering:
        """Which number a token's place gets; `numbering.draw(tokens, rng)` gives the ids that a forward takes."""
        return ids.get(self.position_ids, **self.position_ids_settings)

    def size(self, causal: bool | None = None, cross: bool = False, source: bool = False) -> positions.Size:
        """What a position method may know of the attention that it serves."""
        length = (self.source_n_ctx or self.n_ctx) if source else self.n_ctx
        is_causal = self.causal if causal is None else causal
        return positions.Size(
            self.d_model, self.n_heads, self.head_width, self.numbering.reach(length), is_causal, cross
        )
