"""PyTorch's nn.Transformer: the encoder-decoder model, with embeddings, positions and unembedding around it.

Names     of a module with these attributes (docs/interchange.md has it in 40 lines):
          src_embed.weight [V D]   tgt_embed.weight [V D]     the tables of embeddings
          src_pos.weight [N D]     tgt_pos.weight [N D]       where positions are learned
          transformer              torch.nn.Transformer: its encoder and decoder
          generator.weight [V D]   generator.bias [V]         unembed.W_U, turned, and b_U

          transformer.encoder.layers.i.self_attn.in_proj_weight [3D D]   W_Q W_K W_V, turned, on top of each other
                                                 in_proj_bias [3D]       b_Q b_K b_V
                                                 out_proj.weight [D D]   W_O, turned      out_proj.bias: b_O
                                       linear1 linear2                   W_in, W_out, turned; with biases
                                       norm1 norm2 .weight .bias         ln1, ln2
          transformer.decoder.layers.i the same, with multihead_attn     cross_attn
                                       norm1 norm2 norm3                 ln1, ln_cross, ln2
          transformer.encoder.norm     transformer.decoder.norm          ln_final, of either stack

Norms     norm_first = true is our norm "pre", false "post". nn.Transformer ends each stack with one more norm either
          way, so post-norm is normed twice at its end; that is our final_norm. Without it (norm "post" as in Vaswani
          2017) the stacks are those of `nn.TransformerEncoder(layer, n)`, given as custom_encoder and custom_decoder.

Ties      Shared tables are written once; what is absent is shared: generator.weight with tgt_embed, src_embed too.

Source    PyTorch 2.13: torch/nn/modules/transformer.py, torch/nn/modules/activation.py (MultiheadAttention).
"""

from typing import Any

import numpy as np

from ..errors import BadInput
from ..layers import embedding, unembedding
from ..models import encoder_decoder
from ..models.config import ModelConfig
from ..models.decoder_only import Block
from ..models.encoder_decoder import Decoder, DecoderBlock, Encoder
from ..positions import learned
from ..sublayers import attention, feed_forward
from .foreign import Config, Foreign, Tensors, refuse
from .shapes import absent, attention_params, columns, heads, model_config, norm, or_zeros, sequential

__all__ = ["export", "restore"]

WHAT = "nn.Transformer"
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")  # the last two as functions, which it takes as well as words
POSITIONS = ("learned", "sinusoidal", "none")
FORMAT = "torch.nn.Transformer"


def export(params: Any, cfg: ModelConfig) -> Foreign:
    base = dict(cfg.position_method.constants).get("base") if cfg.position == "sinusoidal" else 10_000
    refuse(
        WHAT,
        {
            "a model without an encoder (architecture = decoder_only)": cfg.architecture != "encoder_decoder",
            "norm = none": cfg.norm == "none",
            f"norm_kind = {cfg.norm_kind}; it has layer": cfg.norm_kind != "layer",
            f"position = {cfg.position}; beside it there can be {', '.join(POSITIONS)}": cfg.position not in POSITIONS,
            f"sinusoids of base {base}; 10000 is what is written down": base != 10_000,
            f"position_ids = {cfg.position_ids}": not sequential(cfg),
            f"activation = {cfg.activation}; it takes {', '.join(ACTIVATIONS)}": cfg.activation not in ACTIVATIONS,
            f"heads whose widths do not add up to the model's ({cfg.n_heads} × {cfg.head_width} ≠ {cfg.d_model})":
                cfg.n_heads * cfg.head_width != cfg.d_model,
        },
        "safetensors has place for everything; a model without an encoder goes to transformer-lens or gpt2",
    )  # fmt: skip
    t: dict[str, np.ndarray] = {}
    for side, stack in (("src", params.encoder), ("tgt", params.decoder)):
        if stack.embed is not None:
            t[f"{side}_embed.weight"] = stack.embed.W_E
        if cfg.position == "learned":
            t[f"{side}_pos.weight"] = stack.pos_embed.W_pos
        name = f"transformer.{'encoder' if side == 'src' else 'decoder'}"
        for i, block in enumerate(stack.blocks):
            t |= _block_out(f"{name}.layers.{i}", block)
        if stack.ln_final is not None:
            t |= _norm_out(f"{name}.norm", stack.ln_final)
    if params.unembed.W_U is not None:
        t["generator.weight"] = params.unembed.W_U.T
    if params.unembed.b_U is not None:
        t["generator.bias"] = params.unembed.b_U
    config = {
        "format": FORMAT, "d_model": cfg.d_model, "nhead": cfg.n_heads, "dim_feedforward": cfg.d_mlp,
        "num_encoder_layers": cfg.n_encoder_layers or cfg.n_layers, "num_decoder_layers": cfg.n_layers,
        "activation": cfg.activation, "layer_norm_eps": cfg.norm_eps, "norm_first": cfg.norm == "pre",
        "final_norm": cfg.ends_normed, "src_vocab_size": cfg.source_vocab_size or cfg.vocab_size,
        "tgt_vocab_size": cfg.vocab_size, "src_length": cfg.source_n_ctx or cfg.n_ctx, "tgt_length": cfg.n_ctx,
        "positions": cfg.position, "scale_embeddings": cfg.embed_scale, "tied": cfg.tied,
        "generator_bias": cfg.unembed_bias, "causal": cfg.causal,
    }  # fmt: skip
    return Foreign(t, config, tuple(absent(cfg)))


def _block_out(p: str, block: Any) -> dict[str, np.ndarray]:
    t = _attention_out(f"{p}.self_attn", block.attn)
    norms = [block.ln1, block.ln2]
    if isinstance(block, DecoderBlock):
        t |= _attention_out(f"{p}.multihead_attn", block.cross_attn)
        norms.insert(1, block.ln_cross)
    for i, ln in enumerate(norms, 1):
        t |= _norm_out(f"{p}.norm{i}", ln)
    for name, W, b in (("linear1", block.mlp.W_in, block.mlp.b_in), ("linear2", block.mlp.W_out, block.mlp.b_out)):
        t |= {f"{p}.{name}.weight": W.T, f"{p}.{name}.bias": or_zeros(b, W.shape[1], dtype=W.dtype)}
    return t


def _attention_out(p: str, a: attention.Params) -> dict[str, np.ndarray]:
    D, dtype = a.W_O.shape[2], a.W_O.dtype
    return {
        f"{p}.in_proj_weight": np.concatenate([columns(W).T for W in (a.W_Q, a.W_K, a.W_V)]),
        f"{p}.in_proj_bias": np.concatenate([or_zeros(b, D, dtype=dtype) for b in (a.b_Q, a.b_K, a.b_V)]),
        f"{p}.out_proj.weight": a.W_O.reshape(D, D).T,
        f"{p}.out_proj.bias": or_zeros(a.b_O, D, dtype=dtype),
    }


def _norm_out(p: str, ln: Any) -> dict[str, np.ndarray]:
    return {f"{p}.weight": ln.gain, f"{p}.bias": ln.bias}


def restore(foreign: Foreign) -> tuple[ModelConfig, Any]:
    about, t = Config(foreign, WHAT), Tensors(foreign, WHAT)
    about.must_be(format=FORMAT, batch_first=(True, False), bias=True)
    V, D = _two(t, "tgt_embed.weight")
    H = about.whole("nhead")
    about.must_be(d_model=D)
    shared = "src_embed.weight" not in t
    tied = about.one_of(
        "tied", {"none": "none", "unembed": "unembed", "all": "all"},
        "all" if shared else "none" if "generator.weight" in t else "unembed",
    )  # fmt: skip
    source_vocab = V if shared else t.shape("src_embed.weight")[0]
    with_tables = "tgt_pos.weight" in t
    position = about.one_of("positions", {word: word for word in POSITIONS}, "learned" if with_tables else None)
    lengths = [
        _two(t, f"{side}_pos.weight")[0] if position == "learned" else about.whole(f"{side}_length")
        for side in ("src", "tgt")
    ]
    ends = [f"transformer.{stack}.norm.weight" in t for stack in ("encoder", "decoder")]
    if ends[0] != ends[1]:
        raise BadInput(f"{foreign.where}: one of the stacks ends with a norm and the other does not; ours are alike")
    norm_first = about.one_of("norm_first", {True: True, False: False}, False)
    cfg = model_config(
        foreign.where, architecture="encoder_decoder", vocab_size=V, source_vocab_size=source_vocab, n_ctx=lengths[1],
        source_n_ctx=lengths[0], d_model=D, n_heads=H,
        n_layers=t.count("transformer.decoder.layers.{}.norm1.weight"),
        n_encoder_layers=t.count("transformer.encoder.layers.{}.norm1.weight"),
        d_mlp=_two(t, "transformer.decoder.layers.0.linear1.weight")[0],
        activation=about.one_of("activation", {name: name for name in ACTIVATIONS}, "relu"),
        norm="pre" if norm_first else "post", final_norm=None if norm_first == ends[0] else ends[0],
        norm_eps=about.real("layer_norm_eps", 1e-5), position=position, tied=tied, attention_bias=True,
        embed_scale=about.one_of("scale_embeddings", {True: True, False: False}, False),
        unembed_bias="generator.bias" in t, causal=about.one_of("causal", {True: True, False: False}, True),
    )  # fmt: skip
    table = t.take("tgt_embed.weight", V, D)
    if tied == "all":
        t.take_equal("src_embed.weight", table)
    source_table = None if tied == "all" else embedding.Params(t.take("src_embed.weight", source_vocab, D))

    def stack(side: str, word: str, n: int, length: int) -> dict[str, Any]:
        return {
            "pos_embed": learned.Params(t.take(f"{side}_pos.weight", length, D)) if position == "learned" else None,
            "blocks": tuple(_block_in(t, f"transformer.{word}.layers.{i}", cfg) for i in range(n)),
            "ln_final": _norm_in(t, f"transformer.{word}.norm", D) if cfg.ends_normed else None,
        }

    encoder = Encoder(source_table, **stack("src", "encoder", cfg.n_encoder_layers or cfg.n_layers, lengths[0]))
    decoder = Decoder(embedding.Params(table), **stack("tgt", "decoder", cfg.n_layers, lengths[1]))
    if tied != "none":
        t.take_equal("generator.weight", table)
    W_U = None if tied != "none" else np.ascontiguousarray(t.take("generator.weight", V, D).T)
    b_U = t.take("generator.bias", V) if cfg.unembed_bias else None
    t.finish()
    return cfg, encoder_decoder.Params(encoder, decoder, unembedding.Params(W_U, b_U))


def _two(t: Tensors, name: str) -> tuple[int, int]:
    shape = t.shape(name)
    if len(shape) != 2:
        raise BadInput(f"{t.where}: {name} is {list(shape)}; a matrix is expected")
    return shape[0], shape[1]


def _block_in(t: Tensors, p: str, cfg: ModelConfig) -> Any:
    D, F, crosses = cfg.d_model, cfg.d_mlp, f"{p}.norm3.weight" in t
    attn = _attention_in(t, f"{p}.self_attn", cfg)
    mlp = feed_forward.Params(
        np.ascontiguousarray(t.take(f"{p}.linear1.weight", F, D).T), t.take(f"{p}.linear1.bias", F),
        np.ascontiguousarray(t.take(f"{p}.linear2.weight", D, F).T), t.take(f"{p}.linear2.bias", D),
    )  # fmt: skip
    norms = [_norm_in(t, f"{p}.norm{i}", D) for i in ((1, 2, 3) if crosses else (1, 2))]
    if not crosses:
        return Block(norms[0], attn, norms[1], mlp)
    return DecoderBlock(norms[0], attn, norms[1], _attention_in(t, f"{p}.multihead_attn", cfg), norms[2], mlp)


def _attention_in(t: Tensors, p: str, cfg: ModelConfig) -> attention.Params:
    D, H, K = cfg.d_model, cfg.n_heads, cfg.head_width
    W = np.split(t.take(f"{p}.in_proj_weight", 3 * D, D), 3)
    b = np.split(t.take(f"{p}.in_proj_bias", 3 * D), 3)
    W_O = np.ascontiguousarray(t.take(f"{p}.out_proj.weight", D, D).T).reshape(H, K, D)
    b_O = t.take(f"{p}.out_proj.bias", D)
    return attention_params([heads(w.T, H) for w in W], W_O, [x.reshape(H, K) for x in b], b_O)


def _norm_in(t: Tensors, p: str, D: int) -> Any:
    return norm(t.take(f"{p}.weight", D), t.take(f"{p}.bias", D))
