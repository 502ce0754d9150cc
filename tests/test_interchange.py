"""Guards interchange/: the same logits on either side, every name and shape, nothing lost without being refused.

Each format is held to something that shares nothing with it: PyTorch's own nn.Transformer and Hugging Face's GPT-2
where they are installed, and forwards written out below, in NumPy, from what the other programs document.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backends import needs
from oracles import random_ids, random_like
from safetensors.numpy import load_file, save_file
from tiny import tiny

from onelayer import cli, positions
from onelayer.arrays import flatten, map_tree
from onelayer.errors import BadInput
from onelayer.interchange import FORMATS, Foreign, export, read, restore, runs, write
from onelayer.models import decoder_only, encoder_decoder
from onelayer.models.config import ModelConfig
from onelayer.training import resume, train
from onelayer.training.config import resolve
from onelayer.training.opened import open_run, open_text

B, T, S, V, V_S, D, H, F, N, N_S = 3, 5, 7, 11, 13, 12, 3, 10, 8, 9
K = D // H
PAGE = (Path(__file__).parent.parent / "docs" / "interchange.md").read_text("utf-8")
TOKENS, SOURCE = random_ids(V, B, T), random_ids(V, B, S, seed=1)
PRESENT = np.arange(S) < np.array([[7], [4], [5]])

SIZES: dict[str, Any] = {"vocab_size": V, "n_ctx": N, "d_model": D, "n_heads": H, "d_mlp": F, "n_layers": 2}
BIASED: dict[str, Any] = {"attention_bias": True, "mlp_bias": True}
SEQ2SEQ: dict[str, Any] = {
    "architecture": "encoder_decoder", "source_vocab_size": V_S, "source_n_ctx": N_S, "n_encoder_layers": 3,
}  # fmt: skip


def model(**fields: Any) -> tuple[ModelConfig, Any]:
    """A model away from its initial weights: gains and biases too."""
    cfg = ModelConfig(**(SIZES | fields))
    params = (decoder_only if cfg.architecture == "decoder_only" else encoder_decoder).init(cfg, 0)
    return cfg, map_tree(lambda p, r: p + 0.2 * r, params, random_like(params))


def exported(name: str, **fields: Any) -> Foreign:
    cfg, params = model(**fields)
    return export(params, cfg, name)


def logits(cfg: ModelConfig, params: Any) -> np.ndarray:
    if cfg.architecture == "decoder_only":
        return decoder_only.forward(params, TOKENS, cfg)[0]
    return encoder_decoder.forward(params, SOURCE, TOKENS, cfg, source_present=PRESENT)[0]


def equal(got: Any, want: Any) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape and np.abs(got - want).max() <= 1e-10


def through_the_disk(foreign: Foreign, path: Path) -> Foreign:
    return read(write(foreign, path))


def there_and_back(cfg: ModelConfig, params: Any, name: str, tmp_path: Path) -> tuple[ModelConfig, Any]:
    """Out, through files, and in: the same logits; and out again, the same bits."""
    foreign = through_the_disk(export(params, cfg, name), tmp_path / "out")
    cfg2, params2 = restore(foreign, name)
    equal(logits(cfg2, params2), logits(cfg, params))
    again = export(params2, cfg2, name)
    assert again.tensors.keys() == foreign.tensors.keys()
    assert all(np.array_equal(again.tensors[key], x) for key, x in foreign.tensors.items())
    assert again.config == foreign.config
    return cfg2, params2


# ---------------------------------------------------------------------------------------------------- our own names

OURS = [
    {"position": "t5", "norm": "post", "norm_kind": "rms"},
    {"position": "learned", "norm": "pre", "tied": "unembed", **BIASED, "unembed_bias": True, "d_head": 5},
    SEQ2SEQ | {"position": "learned", "norm": "post", "final_norm": True},
    SEQ2SEQ | {"position": "kerple", "norm": "none", "tied": "all", "source_vocab_size": None},
]


@pytest.mark.parametrize("fields", OURS)
def test_our_own_format_keeps_every_bit(fields: dict[str, Any], tmp_path: Path) -> None:
    cfg, params = model(**fields)
    params = map_tree(lambda a: np.asfortranarray(a), params)  # an order of memory that must not matter
    cfg2, params2 = there_and_back(cfg, params, "safetensors", tmp_path)
    assert cfg2 == cfg
    assert all(np.array_equal(flatten(params2)[name], x) for name, x in flatten(params).items())


def test_float32_stays_float32(tmp_path: Path) -> None:
    cfg, params = model(norm="pre", **BIASED)
    single = map_tree(lambda a: a.astype(np.float32), params)
    for name in ("safetensors", "gpt2", "transformer-lens"):
        _, back = restore(through_the_disk(export(single, cfg, name), tmp_path / name), name)
        assert {x.dtype.name for x in flatten(back).values()} == {"float32"}


def documented(heading: str) -> dict[str, tuple[str, ...]]:
    """Name -> letters, of a table of the page."""
    table = PAGE.split(f"| {heading} | shape |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines()[2:]]
    return {name.strip("`"): tuple(letters.split()) for name, letters in rows}


def unfolded(table: dict[str, tuple[str, ...]], n: int) -> dict[str, tuple[str, ...]]:
    return {name.replace(".i.", f".{i}."): letters for name, letters in table.items() for i in range(n)}


LETTERS = {"V": V, "V_s": V_S, "D": D, "H": H, "K": K, "F": F, "N": N, "N_s": N_S}


def test_the_page_has_every_name_with_its_shape() -> None:
    all_of_it: dict[str, Any] = {"norm": "pre", "unembed_bias": True, "position": "learned", **BIASED}
    single = {name: letters for name, letters in documented("decoder-only").items() if not name.endswith("…")}
    want = unfolded(single, 2) | {"pos_embed.W_pos": ("N", "D")}
    have = {name: x.shape for name, x in flatten(model(**all_of_it)[1]).items()}
    assert have == {name: tuple(LETTERS[x] for x in letters) for name, letters in want.items()}

    block = {name: letters for name, letters in single.items() if name.startswith("blocks.i.")}
    cross = {name.replace(".attn.", ".cross_attn."): x for name, x in block.items() if ".attn." in name}
    rest = {name: letters for name, letters in documented("encoder-decoder").items() if not name.endswith("…")}
    want = {
        **unfolded({f"encoder.{name}": x for name, x in block.items()}, 3),
        **unfolded({f"decoder.{name}": x for name, x in (block | cross).items()}, 2),
        **unfolded(rest, 2),
        "encoder.pos_embed.W_pos": ("N_s", "D"), "decoder.pos_embed.W_pos": ("N", "D"),
    }  # fmt: skip
    have = {name: x.shape for name, x in flatten(model(**SEQ2SEQ, **all_of_it)[1]).items()}
    assert have == {name: tuple(LETTERS[x] for x in letters) for name, letters in want.items()}


def test_the_page_has_what_each_position_learns() -> None:
    table = PAGE.split("| position | its tensors |")[1].split("\n\n")[0]
    said = {
        line.split("`")[1]: dict(re.findall(r"`(\w+)` \[([^]]+)\]", line.split("|")[2]))
        for line in table.splitlines()[2:]
    }
    letters = LETTERS | {"D/2": D // 2}
    for name in positions.METHODS:
        drawn = flatten(positions.get(name).init(np.random.default_rng(0), ModelConfig(**SIZES).size()))
        want = {key: tuple(letters.get(x) or int(x) for x in text.split()) for key, text in said.get(name, {}).items()}
        assert {key: x.shape for key, x in drawn.items() if key} == want, name


# ---------------------------------------------------------------------------------------------------- PyTorch

TORCH = [
    {"norm": "pre", "activation": "relu", "position": "learned", **BIASED, "unembed_bias": True},
    {"norm": "pre", "activation": "gelu", "position": "sinusoidal", "tied": "unembed", "embed_scale": True},
    {"norm": "post", "activation": "gelu", "position": "learned", **BIASED, "source_vocab_size": None, "tied": "all"},
    {"norm": "post", "activation": "gelu_tanh", "position": "none", **BIASED, "final_norm": True},
    {"norm": "pre", "activation": "silu", "position": "sinusoidal", **BIASED, "final_norm": False},
]


@pytest.mark.parametrize("fields", TORCH)
def test_torch_there_and_back(fields: dict[str, Any], tmp_path: Path) -> None:
    cfg, params = model(**SEQ2SEQ | fields)
    cfg2, _ = there_and_back(cfg, params, "torch", tmp_path)
    for name in ("norm", "ends_normed", "activation", "position", "tied", "embed_scale", "n_encoder_layers", "n_ctx"):
        assert getattr(cfg2, name) == getattr(cfg, name)


def test_torchs_names_and_shapes() -> None:
    """As the state dict of torch.nn.Transformer(d_model=12, nhead=3, dim_feedforward=10, …), of one layer each."""
    cfg, params = model(**SEQ2SEQ | {"n_layers": 1, "n_encoder_layers": 1}, norm="pre", unembed_bias=True)
    attention = {"in_proj_weight": (36, 12), "in_proj_bias": (36,), "out_proj.weight": (12, 12), "out_proj.bias": (12,)}
    linear = {
        "linear1.weight": (10, 12), "linear1.bias": (10,), "linear2.weight": (12, 10), "linear2.bias": (12,)
    }  # fmt: skip
    norm = {"weight": (12,), "bias": (12,)}
    enc, dec = "transformer.encoder.layers.0.", "transformer.decoder.layers.0."
    want = {
        "src_embed.weight": (13, 12), "tgt_embed.weight": (11, 12),
        "src_pos.weight": (9, 12), "tgt_pos.weight": (8, 12),
        "generator.weight": (11, 12), "generator.bias": (11,),
        **{f"{p}self_attn.{name}": shape for p in (enc, dec) for name, shape in attention.items()},
        **{f"{dec}multihead_attn.{name}": shape for name, shape in attention.items()},
        **{f"{p}{name}": shape for p in (enc, dec) for name, shape in linear.items()},
        **{f"{p}norm{i}.{x}": s for p, n in ((enc, 2), (dec, 3)) for i in range(1, n + 1) for x, s in norm.items()},
        **{f"transformer.{stack}.norm.{x}": s for stack in ("encoder", "decoder") for x, s in norm.items()},
    }  # fmt: skip
    assert {name: x.shape for name, x in export(params, cfg, "torch").tensors.items()} == want


def test_torchs_packing_by_one_number_each() -> None:
    """y = x Wᵀ there, head after head: in_proj[(which, h, k), d] is W[h, d, k], out_proj[d, (h, k)] is W_O[h, k, d]."""
    cfg, params = model(**SEQ2SEQ, norm="pre", **BIASED)
    t, a = export(params, cfg, "torch").tensors, params.decoder.blocks[1].cross_attn
    p = "transformer.decoder.layers.1.multihead_attn."
    for which, (W, b) in enumerate(((a.W_Q, a.b_Q), (a.W_K, a.b_K), (a.W_V, a.b_V))):
        row = which * D + 2 * K + 1  # head 2, feature 1
        assert t[f"{p}in_proj_weight"][row, 5] == W[2, 5, 1] and t[f"{p}in_proj_bias"][row] == b[2, 1]
    assert t[f"{p}out_proj.weight"][5, 2 * K + 1] == a.W_O[2, 1, 5]
    assert t["transformer.encoder.layers.0.linear1.weight"][3, 5] == params.encoder.blocks[0].mlp.W_in[5, 3]
    assert np.array_equal(t["transformer.decoder.layers.1.norm2.bias"], params.decoder.blocks[1].ln_cross.bias)


def translator() -> dict[str, Any]:
    """What the page's Python defines: the module, and `load`."""
    found: dict[str, Any] = {}
    code = PAGE.split("## PyTorch's nn.Transformer")[1].split("```python\n")[1].split("```")[0]
    exec(compile(code, "docs/interchange.md", "exec"), found)
    return found


def said_by_torch(theirs: Any) -> np.ndarray:
    import torch  # pyright: ignore[reportMissingImports]

    padding = None if PRESENT.all() else torch.tensor(~PRESENT)
    return theirs(torch.tensor(SOURCE), torch.tensor(TOKENS), padding).detach().numpy()


@needs("torch")
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("fields", TORCH)
def test_pytorch_says_the_same(fields: dict[str, Any], tmp_path: Path) -> None:
    """Ours in nn.Transformer, by the page's own code; then a fresh nn.Transformer in ours."""
    import torch  # pyright: ignore[reportMissingImports]
    from safetensors.torch import save_file as save  # pyright: ignore[reportMissingImports]

    page = translator()
    cfg, params = model(**SEQ2SEQ | fields)
    theirs = page["load"](write(export(params, cfg, "torch"), tmp_path / "out"))
    equal(said_by_torch(theirs), logits(cfg, params))

    torch.manual_seed(0)
    fresh = page["Translator"](theirs.c).double()
    with torch.no_grad():
        for p in fresh.parameters():
            p.add_(0.2 * torch.randn_like(p))
    (tmp_path / "mine").mkdir()
    save({name: x.clone() for name, x in fresh.state_dict().items()}, tmp_path / "mine" / "model.safetensors")
    (tmp_path / "mine" / "config.json").write_text(json.dumps(fresh.c))
    cfg2, params2 = restore(tmp_path / "mine", "torch")
    equal(logits(cfg2, params2), said_by_torch(fresh))


def test_of_torchs_config_little_is_needed(tmp_path: Path) -> None:
    cfg, params = model(**SEQ2SEQ, norm="post", final_norm=True, **BIASED, activation="relu")
    foreign = export(params, cfg, "torch")
    cfg2, params2 = restore(foreign._replace(config={"nhead": H}), "torch")
    equal(logits(cfg2, params2), logits(cfg, params))


# ---------------------------------------------------------------------------------------------------- NumPy, by itself


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu_new(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x: np.ndarray, w: Any, b: Any, eps: float) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * w + b


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = True) -> np.ndarray:
    """One head: q k v [T K]."""
    scores = q @ k.T / math.sqrt(q.shape[-1])
    return softmax(np.where(np.tril(np.ones_like(scores)) if causal else 1, scores, -1e30)) @ v


def turned(x: np.ndarray, base: float, adjacent: bool) -> np.ndarray:
    """TransformerLens's rotary: x cos + rotate(x) sin, x [T K]."""
    n = x.shape[-1]
    frequency = base ** (np.arange(n // 2) / (n / 2))
    angle = np.arange(len(x))[:, None] / (np.repeat(frequency, 2) if adjacent else np.tile(frequency, 2))
    rotated = np.empty_like(x)
    if adjacent:
        rotated[:, ::2], rotated[:, 1::2] = -x[:, 1::2], x[:, ::2]
    else:
        rotated[:, : n // 2], rotated[:, n // 2 :] = -x[:, n // 2 :], x[:, : n // 2]
    return x * np.cos(angle) + rotated * np.sin(angle)


def lens(t: dict[str, np.ndarray], c: dict[str, Any]) -> np.ndarray:
    """HookedTransformer's forward, from its components' definitions."""
    kind, eps = c["normalization_type"], c["eps"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        if kind is None:
            return x
        x = x - x.mean(-1, keepdims=True) if kind.startswith("LN") else x
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
        return x if kind.endswith("Pre") else x * t[f"{name}.w"] + t.get(f"{name}.b", 0.0)

    act = {"relu": lambda x: np.maximum(x, 0), "gelu_new": gelu_new, "silu": lambda x: x / (1 + np.exp(-x))}[
        c["act_fn"]
    ]
    out = []
    for row in TOKENS:
        x = t["embed.W_E"][row]
        rotary = c["positional_embedding_type"] == "rotary"
        x = x if rotary else x + t["pos_embed.W_pos"][: len(row)]
        for i in range(c["n_layers"]):
            p, a = f"blocks.{i}.attn.", norm(f"blocks.{i}.ln1", x)
            for h in range(c["n_heads"]):
                q, k, v = (a @ t[f"{p}W_{n}"][h] + t[f"{p}b_{n}"][h] for n in "QKV")
                if rotary:
                    q, k = (turned(y, c["rotary_base"], c["rotary_adjacent_pairs"]) for y in (q, k))
                x = x + attend(q, k, v, c["attention_dir"] == "causal") @ t[f"{p}W_O"][h]
            x, p = x + t[f"{p}b_O"], f"blocks.{i}.mlp."
            m = act(norm(f"blocks.{i}.ln2", x) @ t[f"{p}W_in"] + t[f"{p}b_in"])
            x = x + m @ t[f"{p}W_out"] + t[f"{p}b_out"]
        out.append(norm("ln_final", x) @ t["unembed.W_U"] + t["unembed.b_U"])
    return np.stack(out)


def gpt2(t: dict[str, np.ndarray], c: dict[str, Any]) -> np.ndarray:
    """GPT-2's forward on a file's tensors, from modeling_gpt2.py's definitions."""
    t, n, eps = {k.removeprefix("transformer."): x for k, x in t.items()}, c["n_head"], c["layer_norm_epsilon"]
    out = []
    for row in TOKENS:
        x = t["wte.weight"][row] + t["wpe.weight"][: len(row)]
        for i in range(c["n_layer"]):
            p = f"h.{i}."
            a = layer_norm(x, t[f"{p}ln_1.weight"], t[f"{p}ln_1.bias"], eps)
            qkv = a @ t[f"{p}attn.c_attn.weight"] + t[f"{p}attn.c_attn.bias"]
            q, k, v = (np.split(part, n, axis=-1) for part in np.split(qkv, 3, axis=-1))
            z = np.concatenate([attend(q[h], k[h], v[h]) for h in range(n)], axis=-1)
            x = x + z @ t[f"{p}attn.c_proj.weight"] + t[f"{p}attn.c_proj.bias"]
            m = layer_norm(x, t[f"{p}ln_2.weight"], t[f"{p}ln_2.bias"], eps)
            m = gelu_new(m @ t[f"{p}mlp.c_fc.weight"] + t[f"{p}mlp.c_fc.bias"])
            x = x + m @ t[f"{p}mlp.c_proj.weight"] + t[f"{p}mlp.c_proj.bias"]
        x = layer_norm(x, t["ln_f.weight"], t["ln_f.bias"], eps)
        out.append(x @ t.get("lm_head.weight", t["wte.weight"]).T)
    return np.stack(out)


# ---------------------------------------------------------------------------------------------------- TransformerLens

LENS = [
    {"norm": "pre", "activation": "gelu_tanh", "position": "learned", **BIASED, "unembed_bias": True},
    {"norm": "none", "activation": "relu", "position": "learned", "mlp_bias": False, "d_head": 5},
    {"norm": "pre", "norm_kind": "rms", "activation": "silu", "position": "rope", "tied": "unembed"},
    {"norm": "pre", "position": "rope", "position_settings": {"layout": "halves", "base": 500}, "causal": False},
]


@pytest.mark.parametrize("fields", LENS)
def test_transformer_lens_says_the_same(fields: dict[str, Any], tmp_path: Path) -> None:
    cfg, params = model(**fields)
    there_and_back(cfg, params, "transformer-lens", tmp_path)
    equal(lens(load_file(tmp_path / "out" / "model.safetensors"), read(tmp_path / "out").config), logits(cfg, params))


@pytest.mark.parametrize(("kind", "norm_kind"), [("LNPre", "layer"), ("RMSPre", "rms")])
def test_folded_norms_are_norms_of_gain_one(kind: str, norm_kind: str) -> None:
    foreign = exported("transformer-lens", norm="pre", norm_kind=norm_kind, **BIASED)
    tensors = {name: x for name, x in foreign.tensors.items() if ".ln" not in name and "ln_final" not in name}
    tensors |= {"blocks.0.attn.mask": np.ones((N, N)), "blocks.0.attn.IGNORE": np.array(-np.inf)}  # its buffers
    config = foreign.config | {"normalization_type": kind}
    cfg, params = restore(foreign._replace(tensors=tensors, config=config), "transformer-lens")
    assert cfg.norm_kind == norm_kind
    equal(logits(cfg, params), lens(tensors, config))


# ---------------------------------------------------------------------------------------------------- GPT-2

GPT2: dict[str, Any] = {"norm": "pre", "activation": "gelu_tanh", "position": "learned"}


@pytest.mark.parametrize("fields", [BIASED | {"tied": "unembed"}, {"mlp_bias": False, "norm_eps": 1e-3}])
def test_gpt2_says_the_same(fields: dict[str, Any], tmp_path: Path) -> None:
    cfg, params = model(**GPT2 | fields)
    there_and_back(cfg, params, "gpt2", tmp_path)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    equal(gpt2(tensors, read(tmp_path / "out").config), logits(cfg, params))
    assert ("lm_head.weight" in tensors) == (cfg.tied == "none")


def test_a_file_of_gpt2s_first_release_is_read(tmp_path: Path) -> None:
    """Without `transformer.`, with the masks among the weights, and the shared table written twice."""
    foreign = exported("gpt2", **GPT2, **BIASED, tied="unembed")
    old = {name.removeprefix("transformer."): x for name, x in foreign.tensors.items()}
    old |= {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, N, N))) for i in range(2)} | {
        "lm_head.weight": old["wte.weight"]
    }
    config = {name: value for name, value in foreign.config.items() if name not in ("n_inner", "tie_word_embeddings")}
    cfg, params = restore(Foreign(old, config | {"n_inner": F}), "gpt2")
    equal(logits(cfg, params), gpt2(old, config))


@needs("transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [True, False])
def test_hugging_faces_gpt2_says_the_same(tied: bool, tmp_path: Path) -> None:
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import GPT2Config, GPT2LMHeadModel  # pyright: ignore[reportMissingImports]

    def said(theirs: Any) -> np.ndarray:
        return theirs.eval()(torch.tensor(TOKENS)).logits.detach().numpy()

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=V, n_positions=N, n_embd=D, n_layer=2, n_head=H, n_inner=F, tie_word_embeddings=tied,
        bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config).double()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.2 * torch.randn_like(p))
    theirs.save_pretrained(tmp_path / "theirs")
    cfg, params = restore(tmp_path / "theirs", "gpt2")
    assert flatten(params)["embed.W_E"].dtype == np.float64
    equal(logits(cfg, params), said(theirs))

    write(export(params, cfg, "gpt2"), tmp_path / "ours")
    back = GPT2LMHeadModel.from_pretrained(tmp_path / "ours", dtype=torch.float64)
    equal(said(back), logits(cfg, params))


# ---------------------------------------------------------------------------------------------------- refusals

REFUSED = [
    ("gpt2", {"norm": "none"}, "GPT-2 has no place for norm = none; it has pre"),
    ("gpt2", GPT2 | {"position": "rope", "d_head": 6}, "position = rope; it has learned, nor for heads whose widths"),
    ("gpt2", GPT2 | {"norm_kind": "rms", "embed_scale": True}, "norm_kind = rms; .*, nor for embeddings times √D"),
    ("gpt2", GPT2 | {"unembed_bias": True}, r"a bias of the unembedding \(b_U\)"),
    ("gpt2", GPT2 | {"final_norm": False}, "has no place for norm"),
    ("gpt2", GPT2 | {"activation": "quadratic"}, "activation = quadratic; it has gelu_tanh, gelu, relu, silu"),
    ("transformer-lens", {"norm": "post"}, "TransformerLens has no place for norm = post"),
    ("transformer-lens", {"position": "alibi"}, "position = alibi; it has learned and rope"),
    ("transformer-lens", SEQ2SEQ, "an encoder"),
    ("transformer-lens", {"position_ids": "random"}, "position_ids = random"),
    ("torch", {"norm": "pre"}, "a model without an encoder"),
    ("torch", SEQ2SEQ, "nn.Transformer has no place for norm = none"),
    ("torch", SEQ2SEQ | {"norm": "pre", "position": "rope"}, "position = rope; beside it there can be"),
    ("torch", SEQ2SEQ | {"norm": "pre", "d_head": 6}, r"3 × 6 ≠ 12"),
    ("torch", SEQ2SEQ | {"norm": "pre", "position": "sinusoidal", "position_settings": {"base": 99}}, "of base 99"),
]  # fmt: skip


@pytest.mark.parametrize(("to", "fields", "words"), REFUSED)
def test_what_would_be_lost_is_refused(to: str, fields: dict[str, Any], words: str) -> None:
    cfg, params = model(**fields)
    with pytest.raises(BadInput, match=f"{words}.*Nothing was written"):
        export(params, cfg, to)


def foreign(name: str) -> Foreign:
    return exported(name, **(SEQ2SEQ if name == "torch" else GPT2) | BIASED | {"norm": "pre"})


NOT_OURS = [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True has no counterpart"),
    ("gpt2", {"activation_function": "mish"}, "activation_function .* 'mish', allowed: gelu_new, gelu, relu, silu"),
    ("gpt2", {"model_type": "gpt_neox"}, "model_type = 'gpt_neox' has no counterpart here; allowed: 'gpt2'"),
    ("gpt2", {"n_head": 5}, "describes a model that cannot be: .*5 heads do not divide the width 12"),
    ("gpt2", {"n_head": "3"}, "needs n_head, a whole number of at least 1; received '3'"),
    ("gpt2", {"n_positions": 7}, r"wpe.weight is \[8, 12\]; GPT-2 with this config has \[7, 12\]"),
    ("gpt2", {"n_layer": 1}, "tensors that GPT-2 with this config does not: h.1.attn.c_attn.bias.*They would be lost"),
    ("gpt2", {"n_layer": 3}, "lacks the tensor h.2.ln_1.weight|lacks the tensor h.2.attn.c_attn.weight"),
    ("gpt2", {"layer_norm_epsilon": 0}, "layer_norm_epsilon must be a number greater than 0; received 0"),
    ("transformer-lens", {"attn_only": True}, "attn_only = True has no counterpart"),
    ("transformer-lens", {"d_vocab_out": 10}, "d_vocab_out = 10"),
    ("transformer-lens", {"positional_embedding_type": "alibi"}, "allowed: standard, rotary"),
    ("transformer-lens", {"act_fn": "solu_ln"}, "act_fn has no counterpart here; received 'solu_ln'"),
    ("torch", {"nhead": None}, "nn.Transformer needs nhead"),
    ("torch", {"activation": "mish"}, "activation has no counterpart here"),
    ("torch", {"d_model": 16}, "d_model = 16"),
    ("safetensors", {"format": "other"}, "format has no counterpart here; received 'other', allowed: onelayer-model"),
    ("safetensors", {"model": {"vocab_size": 3}}, "config.json describes no model: n_ctx: Field required"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "words"), NOT_OURS)
def test_what_has_no_counterpart_here_is_refused(name: str, changes: dict[str, Any], words: str) -> None:
    given = foreign(name)
    with pytest.raises(BadInput, match=words):
        restore(given._replace(config=given.config | changes), name)


def test_a_weight_that_is_no_number_is_refused() -> None:
    given = foreign("gpt2")
    given.tensors["transformer.wte.weight"][3, 2] = np.nan
    with pytest.raises(BadInput, match=r"the tensor wte\.weight holds NaN or infinity"):
        restore(given, "gpt2")


def test_half_a_norm_and_an_unequal_tie_are_refused() -> None:
    given = foreign("torch")
    fewer = {name: x for name, x in given.tensors.items() if "decoder.norm" not in name}
    with pytest.raises(BadInput, match="one of the stacks ends with a norm"):
        restore(given._replace(tensors=fewer), "torch")
    with pytest.raises(BadInput, match=r"generator\.weight is said to be shared, and holds other numbers"):
        restore(given._replace(config=given.config | {"tied": "unembed"}), "torch")


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="unknown format 'gtp2'; did you mean 'gpt2'"):
        restore(Path("."), "gtp2")
    assert set(FORMATS) == {"safetensors", "torch", "transformer-lens", "gpt2"}


# ---------------------------------------------------------------------------------------------------- files


def test_half_precision_is_read_as_it_is(tmp_path: Path) -> None:
    x = np.array([1.0, -2.5, 3e-3, 65504.0], dtype=np.float32)
    upper = (x.view(np.uint32) >> 16).astype(np.uint16)
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    brain = len(header).to_bytes(8, "little") + header + upper.tobytes()
    (tmp_path / "model.safetensors").write_bytes(brain)
    (tmp_path / "config.json").write_text("{}")
    want = (upper.astype(np.uint32) << 16).view(np.float32).reshape(2, 2)
    got = read(tmp_path).tensors["x"]
    assert got.dtype == np.float32 and np.array_equal(got, want)
    save_file({"x": x.astype(np.float16)}, tmp_path / "model.safetensors")
    got = read(tmp_path).tensors["x"]
    assert got.dtype == np.float32 and np.array_equal(got, x.astype(np.float16).astype(np.float32))


def test_shards_are_read_together(tmp_path: Path) -> None:
    whole = foreign("gpt2")
    names = list(whole.tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in shards.items():
        save_file({name: np.ascontiguousarray(whole.tensors[name]) for name in some}, tmp_path / file)
    weight_map = {name: file for file, some in shards.items() for name in some}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "config.json").write_text(json.dumps(whole.config))
    assert read(tmp_path).tensors.keys() == whole.tensors.keys()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    def trouble(path: Path, words: str) -> None:
        with pytest.raises(BadInput, match=words):
            read(path)

    trouble(tmp_path / "nowhere", "does not exist; name a directory with model.safetensors and config.json")
    trouble(tmp_path, "holds no model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    trouble(tmp_path, "pytorch_model.bin is a pickle, which runs whatever code it holds, so it is not opened")
    (tmp_path / "model.safetensors").write_bytes(b"not at all")
    trouble(tmp_path, "not in the safetensors format")
    save_file({"x": np.array([1.0])}, tmp_path / "model.safetensors")
    trouble(tmp_path, "config.json is missing: tensors alone do not say how many heads there are")
    (tmp_path / "config.json").write_text("[1]")
    trouble(tmp_path, "a JSON object is expected, received list")
    for name in ("a", "b"):
        (tmp_path / "two").mkdir(exist_ok=True)
        save_file({"x": np.ones(1)}, tmp_path / "two" / f"{name}.safetensors")
    trouble(tmp_path / "two", "holds 2 .safetensors files and none is model.safetensors")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    with pytest.raises(BadInput, match="exists and is not empty; nothing is overwritten"):
        write(foreign("gpt2"), tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine"]
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]  # nor is anything left behind


# ---------------------------------------------------------------------------------------------------- runs, commands


def run(*tokens: object) -> int:
    return cli.run([str(token) for token in tokens])


def test_a_run_goes_out_and_comes_back_as_a_run(tmp_path: Path, capsys: Any) -> None:
    first, lens_dir, back = (tmp_path / name for name in ("first", "lens", "back"))
    train(tiny({"steps": 20}), first)
    assert run("export", first, "--to", "transformer-lens", "--out", lens_dir, "--json") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["to"] == "transformer-lens" and facts["notes"][0] == "attention has no biases here: zeros are written"
    assert facts["tensors"] == len(load_file(lens_dir / "model.safetensors"))
    assert run("import", lens_dir, "--from", "transformer-lens", "--out", back, "--like", first, "--json") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["run"] == str(back) and facts["model"]["attention_bias"] is True
    ours, theirs = open_run(first), open_run(back)
    assert theirs.step == 0 and json.loads((back / "imported.json").read_text())["from"] == "transformer-lens"
    want, got = (decoder_only.forward(o.params, o.batch.tokens, o.model)[0] for o in (ours, theirs))
    equal(got, want)
    assert {x.dtype.name for x in runs.open_model(back).params.blocks[0].mlp} == {"float32"}
    assert resume(back, {"steps": 25}).step == 25


def test_a_run_of_words_goes_out_by_its_best_weights_and_comes_back(tmp_path: Path) -> None:
    """Its vocabularies come along, so that what came back can be decoded where the data is not."""
    model: dict[str, Any] = {
        "architecture": "encoder_decoder", "position": "sinusoidal", "norm": "post", "d_model": 8, "n_heads": 2,
    }  # fmt: skip
    config = resolve({
        "task": {"name": "reverse", "n_train": 40, "n_valid": 10, "n_test": 10}, "model": model, "steps": 4,
        "evaluation": {"every": 2}, "checkpoint": {"every": 2}, "stop": {"on": "none", "best": "valid_loss"},
    })  # fmt: skip
    first, out, back = (tmp_path / name for name in ("first", "out", "back"))
    train(config, first)
    opened = runs.open_model(first)
    assert opened.weights == "best"
    write(export(opened.params, opened.model, "torch"), out)
    assert run("import", out, "--from", "torch", "--out", back, "--like", first) == 0
    ours, theirs = open_text(first), open_text(back)
    assert theirs.target.vocabulary == ours.target.vocabulary
    ids = np.array([[5, 6, 7, 2]])
    want, got = (encoder_decoder.forward(o.params, ids, ids, o.model)[0] for o in (ours, theirs))
    np.testing.assert_allclose(got, want, atol=1e-5)  # float32


def test_weights_without_a_run(tmp_path: Path, capsys: Any) -> None:
    write(foreign("gpt2"), tmp_path / "gpt2")
    assert run("import", tmp_path / "gpt2", "--from", "gpt2", "--out", tmp_path / "ours") == 0
    assert "numbers, in" in capsys.readouterr().out
    assert run("export", tmp_path / "ours", "--to", "gpt2", "--out", tmp_path / "again") == 0
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("gpt2", "again"))
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_bad_input_is_2_with_words(tmp_path: Path, capsys: Any) -> None:
    def trouble(words: str, *tokens: object) -> None:
        assert run(*tokens) == 2
        err = capsys.readouterr().err
        assert re.search(words, err) and "Traceback" not in err, err

    write(foreign("gpt2"), tmp_path / "gpt2")
    first, out = tmp_path / "first", tmp_path / "out"
    train(tiny({"steps": 5}), first)
    capsys.readouterr()
    trouble("GPT-2 has no place for norm = none", "export", first, "--to", "gpt2", "--out", out)
    trouble("unknown format 'onnx'", "export", first, "--to", "onnx", "--out", out)
    trouble("no parameters of step 3", "export", first, "--to", "safetensors", "--out", out, "--weights", 3)
    trouble("keeps no best weights", "export", first, "--to", "safetensors", "--out", out, "--weights", "best")
    trouble("is not a run", "export", tmp_path, "--to", "safetensors", "--out", out)
    trouble("does not exist", "import", tmp_path / "none", "--from", "gpt2", "--out", out)
    trouble("needs d_model", "import", tmp_path / "gpt2", "--from", "transformer-lens", "--out", out)
    trouble(
        "does not fit the task of .*: vocab_size is 11, the task's is 8; n_ctx is 8, the task's is 3",
        "import", tmp_path / "gpt2", "--from", "gpt2", "--out", out, "--like", first,
    )  # fmt: skip
    trouble(
        "--like names a run, or a config", "import", tmp_path / "gpt2", "--from", "gpt2", "--out", out, "--like", out
    )
    trouble("exists and is not empty", "import", tmp_path / "gpt2", "--from", "gpt2", "--out", first)
    assert not out.exists()
