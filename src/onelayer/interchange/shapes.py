"""How a head's weights lie in one matrix for all heads, and the parts that every foreign model has to be given.

Shapes    W_Q W_K W_V [H D K] <-> [D, H K], head after head along the last axis; W_O [H K D] <-> [H K, D]
          b_Q b_K b_V [H K] <-> [H K]

Source    Vaswani et al. 2017, arXiv:1706.03762: concatenated heads times W_O is the sum over heads of z_h W_O[h].
"""

from typing import Any

import numpy as np
from pydantic import ValidationError

from ..errors import BadInput
from ..layers import layer_norm, rms_norm
from ..models import decoder_only, encoder_decoder
from ..models.config import ModelConfig
from ..sublayers import attention

__all__ = ["absent", "attention_params", "columns", "heads", "like", "model_config", "norm", "or_zeros", "sequential"]


def columns(W: np.ndarray) -> np.ndarray:
    """[H D K] -> [D, H K]."""
    H, D, K = W.shape
    return W.transpose(1, 0, 2).reshape(D, H * K)


def heads(W: np.ndarray, n_heads: int) -> np.ndarray:
    """[D, H K] -> [H D K]."""
    D, width = W.shape
    return np.ascontiguousarray(W.reshape(D, n_heads, width // n_heads).transpose(1, 0, 2))


def or_zeros(bias: np.ndarray | None, *shape: int, dtype: Any) -> np.ndarray:
    """A bias that the format always has: zeros say what none says."""
    return np.zeros(shape, dtype=dtype) if bias is None else bias.reshape(shape)


def absent(cfg: ModelConfig, unembedding: bool = False) -> list[str]:
    """Notes on biases that the format has and the model has not."""
    parts = {"attention": cfg.attention_bias, "the feed-forward network": cfg.mlp_bias}
    parts |= {"the unembedding": cfg.unembed_bias} if unembedding else {}
    return [f"{part} has no biases here: zeros are written" for part, there in parts.items() if not there]


def norm(gain: np.ndarray, bias: np.ndarray | None) -> layer_norm.Params | rms_norm.Params:
    return rms_norm.Params(gain) if bias is None else layer_norm.Params(gain, bias)


def attention_params(W: list[np.ndarray], W_O: np.ndarray, b: list[np.ndarray], b_O: np.ndarray) -> attention.Params:
    """W: of queries, keys and values, [H D K] each; b, their biases."""
    (W_Q, W_K, W_V), (b_Q, b_K, b_V) = W, b
    return attention.Params(W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O)


def like(cfg: ModelConfig) -> Any:
    """The parameters' tree with arrays that have their shapes and take no memory."""
    return (decoder_only if cfg.architecture == "decoder_only" else encoder_decoder).init(cfg, None)


def sequential(cfg: ModelConfig) -> bool:
    """Whether places are numbered 0, 1, 2 …, as everywhere else."""
    return cfg.position_ids == "sequential"


def model_config(where: str, **fields: Any) -> ModelConfig:
    """The config, or BadInput that says of which model it cannot be made."""
    try:
        return ModelConfig(**fields)
    except ValidationError as error:
        faults = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
        raise BadInput(f"{where} describes a model that cannot be: {faults}") from error
