"""GPT-2 in Hugging Face's layout: the decoder-only model with a norm before each sublayer, learned positions, biases.

Names     transformer.wte.weight [V D]              embed.W_E
          transformer.wpe.weight [N D]              pos_embed.W_pos
          transformer.h.i.ln_1.weight .bias [D]     blocks.i.ln1.gain .bias          ln_2: ln2
          transformer.h.i.attn.c_attn.weight [D 3D] blocks.i.attn.W_Q W_K W_V, packed side by side, head after head
                               c_attn.bias [3D]     b_Q b_K b_V
                               c_proj.weight [D D]  W_O, heads on top of each other        c_proj.bias: b_O
          transformer.h.i.mlp.c_fc.weight [D F]     W_in      .bias: b_in
                              c_proj.weight [F D]   W_out     .bias: b_out
          transformer.ln_f.weight .bias [D]         ln_final
          lm_head.weight [V D]                      unembed.W_U, turned; absent where it is tied to wte
          Its "Conv1D" multiplies from the right, as we do: [inputs, outputs], where nn.Linear has [outputs, inputs].
          Files of the first release have no `transformer.` in front, and carry the causal mask as `attn.bias`.

Source    Radford et al. 2019; huggingface/transformers, models/gpt2/modeling_gpt2.py. gelu_new is the tanh form.
"""

from typing import Any

import numpy as np

from ..layers import embedding, unembedding
from ..models import decoder_only
from ..models.config import ModelConfig
from ..positions import learned
from ..sublayers import feed_forward
from .foreign import Config, Foreign, Tensors, refuse
from .shapes import absent, attention_params, columns, heads, model_config, norm, or_zeros, sequential

__all__ = ["export", "restore"]

WHAT = "GPT-2"
ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}
THEIRS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}


def export(params: Any, cfg: ModelConfig) -> Foreign:
    b_U = params.unembed.b_U if cfg.architecture == "decoder_only" else None
    refuse(
        WHAT,
        {
            "an encoder (architecture = encoder_decoder)": cfg.architecture != "decoder_only",
            f"norm = {cfg.norm}; it has pre": cfg.norm != "pre" or not cfg.ends_normed,
            f"norm_kind = {cfg.norm_kind}; it has layer": cfg.norm_kind != "layer",
            f"position = {cfg.position}; it has learned": cfg.position != "learned",
            f"position_ids = {cfg.position_ids}": not sequential(cfg),
            f"activation = {cfg.activation}; it has {', '.join(ACTIVATIONS)}": cfg.activation not in ACTIVATIONS,
            f"heads whose widths do not add up to the model's ({cfg.n_heads} × {cfg.head_width} ≠ {cfg.d_model})":
                cfg.n_heads * cfg.head_width != cfg.d_model,
            "embeddings times √D (embed_scale)": cfg.embed_scale,
            "attention that looks ahead (causal = false)": not cfg.causal,
            "a bias of the unembedding (b_U)": b_U is not None and bool(np.any(b_U)),
        },
        "transformer-lens has place for more, and safetensors for everything",
    )  # fmt: skip
    D, F = cfg.d_model, cfg.d_mlp
    W_E = params.embed.W_E
    t: dict[str, np.ndarray] = {"wte.weight": W_E, "wpe.weight": params.pos_embed.W_pos}
    for i, block in enumerate(params.blocks):
        p, a = f"h.{i}.", block.attn
        for name, ln in (("ln_1", block.ln1), ("ln_2", block.ln2)):
            t |= {f"{p}{name}.weight": ln.gain, f"{p}{name}.bias": ln.bias}
        biases = [or_zeros(b, D, dtype=W_E.dtype) for b in (a.b_Q, a.b_K, a.b_V)]
        t[f"{p}attn.c_attn.weight"] = np.concatenate([columns(W) for W in (a.W_Q, a.W_K, a.W_V)], axis=1)
        t[f"{p}attn.c_attn.bias"] = np.concatenate(biases)
        t[f"{p}attn.c_proj.weight"] = a.W_O.reshape(D, D)
        t[f"{p}attn.c_proj.bias"] = or_zeros(a.b_O, D, dtype=W_E.dtype)
        t[f"{p}mlp.c_fc.weight"], t[f"{p}mlp.c_fc.bias"] = block.mlp.W_in, or_zeros(block.mlp.b_in, F, dtype=W_E.dtype)
        t[f"{p}mlp.c_proj.weight"] = block.mlp.W_out
        t[f"{p}mlp.c_proj.bias"] = or_zeros(block.mlp.b_out, D, dtype=W_E.dtype)
    t |= {"ln_f.weight": params.ln_final.gain, "ln_f.bias": params.ln_final.bias}
    tensors = {f"transformer.{name}": x for name, x in t.items()}
    if params.unembed.W_U is not None:
        tensors["lm_head.weight"] = params.unembed.W_U.T
    return Foreign(tensors, _config(cfg, W_E.dtype), tuple(absent(cfg)))


def _config(cfg: ModelConfig, dtype: Any) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "dtype": str(dtype),
        "vocab_size": cfg.vocab_size, "n_positions": cfg.n_ctx, "n_embd": cfg.d_model, "n_layer": cfg.n_layers,
        "n_head": cfg.n_heads, "n_inner": cfg.d_mlp, "activation_function": ACTIVATIONS[cfg.activation],
        "layer_norm_epsilon": cfg.norm_eps, "tie_word_embeddings": cfg.tied != "none",
        "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def restore(foreign: Foreign) -> tuple[ModelConfig, Any]:
    about = Config(foreign, WHAT)
    about.must_be(
        model_type="gpt2", scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False
    )
    D, H, V, N = (about.whole(name) for name in ("n_embd", "n_head", "vocab_size", "n_positions"))
    F = 4 * D if about.fields.get("n_inner") is None else about.whole("n_inner")
    tied = about.one_of("tie_word_embeddings", {True: True, False: False}, True)
    cfg = model_config(
        foreign.where, vocab_size=V, n_ctx=N, n_layers=about.whole("n_layer"), d_model=D, n_heads=H, d_mlp=F,
        activation=about.one_of("activation_function", THEIRS, "gelu_new"), norm="pre",
        norm_eps=about.real("layer_norm_epsilon", 1e-5), position="learned", tied="unembed" if tied else "none",
        attention_bias=True, init="normal",
    )  # fmt: skip
    t = Tensors(foreign._replace(tensors=_as_saved_now(foreign.tensors)), WHAT)
    W_E = t.take("wte.weight", V, D)

    def layer_norm_of(name: str) -> Any:
        return norm(t.take(f"{name}.weight", D), t.take(f"{name}.bias", D))

    def block(p: str) -> decoder_only.Block:
        W = np.split(t.take(f"{p}.attn.c_attn.weight", D, 3 * D), 3, axis=1)
        b = np.split(t.take(f"{p}.attn.c_attn.bias", 3 * D), 3)
        W_O, b_O = t.take(f"{p}.attn.c_proj.weight", D, D).reshape(H, D // H, D), t.take(f"{p}.attn.c_proj.bias", D)
        attn = attention_params([heads(w, H) for w in W], W_O, [x.reshape(H, D // H) for x in b], b_O)
        mlp = feed_forward.Params(
            t.take(f"{p}.mlp.c_fc.weight", D, F), t.take(f"{p}.mlp.c_fc.bias", F),
            t.take(f"{p}.mlp.c_proj.weight", F, D), t.take(f"{p}.mlp.c_proj.bias", D),
        )  # fmt: skip
        return decoder_only.Block(layer_norm_of(f"{p}.ln_1"), attn, layer_norm_of(f"{p}.ln_2"), mlp)

    params = decoder_only.Params(
        embed=embedding.Params(W_E),
        pos_embed=learned.Params(t.take("wpe.weight", N, D)),
        blocks=tuple(block(f"h.{i}") for i in range(cfg.n_layers)),
        ln_final=layer_norm_of("ln_f"),
        unembed=unembedding.Params(None if tied else np.ascontiguousarray(t.take("lm_head.weight", V, D).T), None),
    )
    if tied:
        t.take_equal("lm_head.weight", W_E)
    t.finish()
    return cfg, params


def _as_saved_now(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the prefix, and without the masks that the first files carry along."""
    named = {name.removeprefix("transformer."): x for name, x in tensors.items()}
    return {name: x for name, x in named.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}
