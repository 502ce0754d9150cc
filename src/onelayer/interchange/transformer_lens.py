"""TransformerLens: the decoder-only model under the names that ours are taken from.

Names     embed.W_E [V D]   pos_embed.W_pos [N D]   unembed.W_U [D V]   unembed.b_U [V]
          blocks.i.attn.W_Q W_K W_V [H D K]   W_O [H K D]   b_Q b_K b_V [H K]   b_O [D]
          blocks.i.mlp.W_in [D F]   b_in [F]   W_out [F D]   b_out [D]
          blocks.i.ln1.w ln1.b ln2.w ln2.b, ln_final.w ln_final.b [D]: our gain and bias
          All as ours but the norms' names. It always has every bias, and a W_U of its own: where ours has no bias it
          gets zeros, where ours ties W_U to W_E it gets W_Eᵀ.

Config    the arguments of HookedTransformerConfig. normalization_type LN is norm "pre" of kind layer, RMS of kind rms,
          None is norm "none"; LNPre and RMSPre, folded into the weights that follow, are read as gain 1 and bias 0.
          positional_embedding_type standard is our learned; rotary, over the whole head, our rope.

Source    TransformerLens 2.18: HookedTransformerConfig.py, components/. Its rotary pairs adjacent features, or halves.
"""

from typing import Any

import numpy as np

from ..errors import BadInput
from ..layers import embedding, unembedding
from ..models import decoder_only
from ..models.config import ModelConfig
from ..positions import learned
from ..sublayers import feed_forward
from .foreign import Config, Foreign, Tensors, refuse
from .shapes import absent, attention_params, model_config, norm, or_zeros, sequential

__all__ = ["export", "restore"]

WHAT = "TransformerLens"
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_new", "silu": "silu"}
NORMS = {"LN": ("pre", "layer"), "LNPre": ("pre", "layer"), "RMS": ("pre", "rms"), "RMSPre": ("pre", "rms"),
         None: ("none", "layer")}  # fmt: skip
LAYOUTS = {"interleaved": True, "halves": False}  # rotary_adjacent_pairs
BUFFERS = (".mask", ".IGNORE", ".rotary_sin", ".rotary_cos")


def export(params: Any, cfg: ModelConfig) -> Foreign:
    refuse(
        WHAT,
        {
            "an encoder (architecture = encoder_decoder)": cfg.architecture != "decoder_only",
            "norm = post": cfg.norm == "post",
            "norm = pre without the last norm (final_norm = false)": cfg.norm == "pre" and not cfg.ends_normed,
            f"position = {cfg.position}; it has learned and rope": cfg.position not in ("learned", "rope"),
            f"position_ids = {cfg.position_ids}": not sequential(cfg),
            f"activation = {cfg.activation}; it has {', '.join(ACTIVATIONS)}": cfg.activation not in ACTIVATIONS,
            "embeddings times √D (embed_scale)": cfg.embed_scale,
            "a base of rope that is no whole number": cfg.position == "rope" and _rope(cfg)["base"] % 1 != 0,
        },
        "safetensors has place for everything",
    )
    H, D, K, F, V = cfg.n_heads, cfg.d_model, cfg.head_width, cfg.d_mlp, cfg.vocab_size
    dtype = params.embed.W_E.dtype
    W_U = params.embed.W_E.T if params.unembed.W_U is None else params.unembed.W_U
    t = {"embed.W_E": params.embed.W_E, "unembed.W_U": W_U, "unembed.b_U": or_zeros(params.unembed.b_U, V, dtype=dtype)}
    if cfg.position == "learned":
        t["pos_embed.W_pos"] = params.pos_embed.W_pos
    for i, block in enumerate(params.blocks):
        attn, mlp = f"blocks.{i}.attn.", f"blocks.{i}.mlp."
        for name, bias, shape in (("Q", block.attn.b_Q, (H, K)), ("K", block.attn.b_K, (H, K)),
                                  ("V", block.attn.b_V, (H, K)), ("O", block.attn.b_O, (D,))):  # fmt: skip
            t[f"{attn}W_{name}"] = getattr(block.attn, f"W_{name}")
            t[f"{attn}b_{name}"] = or_zeros(bias, *shape, dtype=dtype)
        t |= {f"{mlp}W_in": block.mlp.W_in, f"{mlp}W_out": block.mlp.W_out}
        t[f"{mlp}b_in"] = or_zeros(block.mlp.b_in, F, dtype=dtype)
        t[f"{mlp}b_out"] = or_zeros(block.mlp.b_out, D, dtype=dtype)
        t |= _norm_out(f"blocks.{i}.ln1", block.ln1) | _norm_out(f"blocks.{i}.ln2", block.ln2)
    t |= _norm_out("ln_final", params.ln_final)
    config: dict[str, Any] = {
        "n_layers": cfg.n_layers, "d_model": D, "n_ctx": cfg.n_ctx, "d_head": K, "n_heads": H, "d_mlp": F,
        "d_vocab": V, "d_vocab_out": V, "act_fn": ACTIVATIONS[cfg.activation], "eps": cfg.norm_eps,
        "normalization_type": None if cfg.norm == "none" else {"layer": "LN", "rms": "RMS"}[cfg.norm_kind],
        "final_rms": cfg.norm == "pre" and cfg.norm_kind == "rms",
        "attention_dir": "causal" if cfg.causal else "bidirectional",
        "positional_embedding_type": "standard" if cfg.position == "learned" else "rotary",
    }  # fmt: skip
    if cfg.position == "rope":
        rope = _rope(cfg)
        config |= {"rotary_dim": K, "rotary_base": int(rope["base"]), "rotary_adjacent_pairs": LAYOUTS[rope["layout"]]}
    notes = absent(cfg, unembedding=True)
    if cfg.tied != "none":
        notes.append("unembed.W_U is tied to embed.W_E here, and a table of its own there")
    return Foreign(t, config, tuple(notes))


def _norm_out(name: str, p: Any) -> dict[str, np.ndarray]:
    if p is None:
        return {}
    return {f"{name}.w": p.gain} | ({f"{name}.b": p.bias} if hasattr(p, "bias") else {})


def _rope(cfg: ModelConfig) -> dict[str, Any]:
    return dict(cfg.position_method.constants)


def restore(foreign: Foreign) -> tuple[ModelConfig, Any]:
    about = Config(foreign, WHAT)
    D, K, H, F, V, N = (about.whole(name) for name in ("d_model", "d_head", "n_heads", "d_mlp", "d_vocab", "n_ctx"))
    about.must_be(
        d_vocab_out=(V, -1), attn_only=False, gated_mlp=False, parallel_attn_mlp=False, use_attn_scale=True,
        scale_attn_by_inverse_layer_idx=False, use_local_attn=False, n_key_value_heads=(None, H), num_experts=None,
        post_embedding_ln=False, use_qk_norm=False, use_normalization_before_and_after=False,
        attn_scores_soft_cap=(-1.0, None), output_logits_soft_cap=(-1.0, None), use_NTK_by_parts_rope=False,
        attn_scale=(-1.0, float(np.sqrt(K))), rotary_dim=(None, K),
    )  # fmt: skip
    kind = about.fields.get("normalization_type", "LN")
    placed, norm_kind = about.one_of("normalization_type", NORMS, "LN")
    about.must_be(final_rms=(False,) if norm_kind == "layer" else (True,))
    position, settings = about.one_of(
        "positional_embedding_type", {"standard": ("learned", {}), "rotary": ("rope", _rope_of(about))}, "standard"
    )
    cfg = model_config(
        foreign.where, vocab_size=V, n_ctx=N, n_layers=about.whole("n_layers"), d_model=D, n_heads=H, d_head=K,
        d_mlp=F, activation=about.one_of("act_fn", {a: ours for ours, a in ACTIVATIONS.items()}), norm=placed,
        norm_kind=norm_kind, norm_eps=about.real("eps", 1e-5), position=position, position_settings=settings,
        attention_bias=True, unembed_bias=True,
        causal=about.one_of("attention_dir", {"causal": True, "bidirectional": False}, "causal"),
    )  # fmt: skip
    kept = {name: x for name, x in foreign.tensors.items() if not name.endswith(BUFFERS)}
    t = Tensors(foreign._replace(tensors=kept), WHAT)

    def norm_in(name: str) -> Any:
        if placed == "none":
            return None
        folded = str(kind).endswith("Pre")
        gain = np.ones(D, t.dtype) if folded else t.take(f"{name}.w", D)
        bias = None if norm_kind == "rms" else np.zeros(D, t.dtype) if folded else t.take(f"{name}.b", D)
        return norm(gain, bias)

    def block(p: str) -> decoder_only.Block:
        W, b = (
            [t.take(f"{p}.attn.{kind}_{x}", *shape) for x in "QKV"] for kind, shape in (("W", (H, D, K)), ("b", (H, K)))
        )
        attn = attention_params(W, t.take(f"{p}.attn.W_O", H, K, D), b, t.take(f"{p}.attn.b_O", D))
        mlp = feed_forward.Params(
            t.take(f"{p}.mlp.W_in", D, F), t.take(f"{p}.mlp.b_in", F),
            t.take(f"{p}.mlp.W_out", F, D), t.take(f"{p}.mlp.b_out", D),
        )  # fmt: skip
        return decoder_only.Block(norm_in(f"{p}.ln1"), attn, norm_in(f"{p}.ln2"), mlp)

    params = decoder_only.Params(
        embed=embedding.Params(t.take("embed.W_E", V, D)),
        pos_embed=learned.Params(t.take("pos_embed.W_pos", N, D)) if position == "learned" else None,
        blocks=tuple(block(f"blocks.{i}") for i in range(cfg.n_layers)),
        ln_final=norm_in("ln_final"),
        unembed=unembedding.Params(t.take("unembed.W_U", D, V), t.take("unembed.b_U", V)),
    )
    t.finish()
    return cfg, params


def _rope_of(about: Config) -> dict[str, Any]:
    adjacent = about.fields.get("rotary_adjacent_pairs", False)
    layout = next((ours for ours, theirs in LAYOUTS.items() if theirs is adjacent), None)
    if layout is None:
        raise BadInput(f"{about.where}: rotary_adjacent_pairs must be true or false; received {adjacent!r}")
    return {"base": about.real("rotary_base", 10_000), "layout": layout}
