"""Recipes: configs to start from, ours and published ones, each with its source and with what differs from it here.

A recipe is what it changes of the default config. Options and a config file are laid over it in turn.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import tasks
from ..errors import unknown
from .config import RunConfig, merge, resolve

__all__ = ["RECIPES", "Recipe", "configure", "get", "usual"]


class Recipe(NamedTuple):
    text: str  # what it is and does
    citation: str
    differences: str  # from its source; empty where it is our own
    config: dict[str, Any]


_TWO_BLOCKS = {"n_layers": 2, "d_model": 128, "n_heads": 4, "d_mlp": 512, "mlp_bias": False}
_WARMUP = {"name": "linear_warmup", "warmup": 10}

_WORDS: dict[str, Any] = {
    "model": {
        "architecture": "encoder_decoder",
        "d_model": 128,
        "n_heads": 4,
        "d_mlp": 512,
        "norm": "pre",
        "position": "sinusoidal",
        "init": "xavier",
    },
    "optimizer": {"name": "muon", "lr": 0.02, "momentum": 0.95, "weight_decay": 0.01, "adam_ratio": 0.1,
                  "adam_beta2": 0.98},
    "schedule": {"name": "cosine", "warmup": 100, "total": 2000, "floor": 0.01},
    "filters": [{"name": "clip", "max_norm": 1.0}],
    "batch_tokens": 4096,
    "bucket": 2,
    "steps": 2000,
    "evaluation": {"every": 100, "train_examples": 500},
    "stop": {"on": "none", "best": "valid_loss"},
    "checkpoint": {"every": 100, "keep": 2, "average": 4},
}  # fmt: skip

RECIPES = {
    "default": Recipe(
        "AdamW at ten times the usual learning rate, full batch: it memorises early and generalises several times "
        "later, all within half a minute.",
        "ours; the network and the task are those of Nanda et al. 2023, arXiv:2301.05217",
        "",
        {},
    ),
    "fastest": Recipe(
        "Every weight matrix, the embedding's and the unembedding's too, moved by Muon with little momentum, at a rate "
        "that falls to almost nothing within 60 steps: 99 % of the unseen pairs after some 40 steps, as soon as it has "
        "memorised. Fast generalisation rather than grokking: there is no delay to study.",
        "ours, found by scripts/search_fastest.py, docs/experiments/fastest-grokking.md; Muon: Jordan et al. 2024. All "
        "matrices: Pasand & Dohmatob, Egalitarian gradient descent, ICLR 2026",
        "",
        {
            "model": {"init_scale": 1.5},
            "optimizer": {"name": "muon", "matrices": "all", "lr": 0.5, "momentum": 0.3, "weight_decay": 0.2,
                          "adam_ratio": 0.0375, "adam_beta1": 0.8, "adam_beta2": 0.9},
            "schedule": {"name": "cosine", "warmup": 5, "total": 60, "floor": 0.05},
            "steps": 200,
            "evaluation": {"every": 5},
        },
    ),
    "nanda-2023": Recipe(
        "Addition mod 113 from 30 % of the pairs, in a one-layer network without layer norm: memorised after some 300 "
        "steps, test loss below 0.1 at about 8,000 to 9,300.",
        "Nanda, Chan, Lieberum, Smith & Steinhardt 2023, Progress measures for grokking via mechanistic "
        "interpretability, ICLR, arXiv:2301.05217",
        "The initial values are drawn by another generator. Stops once 99 % is sustained, where the paper trains on.",
        {
            "optimizer": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98, "weight_decay": 1.0},
            "schedule": _WARMUP,
            "loss": {"variant": "float64"},
            "steps": 20_000,
            "evaluation": {"every": 50, "dense_until": 500, "dense_every": 10},
            "checkpoint": {"every": 500},
        },
    ),
    "power-2022": Recipe(
        "Division mod 97 from half of the pairs, the first published case of grokking: two blocks, normed after each "
        "sublayer, sinusoidal positions, minibatches.",
        "Power, Burda, Edwards, Babuschkin & Misra 2022, Grokking: generalization beyond overfitting on small "
        "algorithmic datasets, arXiv:2201.02177",
        "Only the answer is judged, not the end-of-sequence token too; the equation is `a b =`, without the operator's "
        "sign. Initial values are Glorot's. Weight decay 1, as in the paper's best runs (its code has 0 as default).",
        {
            "task": {"operation": "x / y", "p": 97, "train_fraction": 0.5},
            "model": {**_TWO_BLOCKS, "norm": "post", "position": "sinusoidal", "init": "xavier"},
            "optimizer": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98, "weight_decay": 1.0},
            "schedule": _WARMUP,
            "batch_size": 512,
            "steps": 20_000,
            "evaluation": {"every": 50, "dense_until": 500, "dense_every": 10},
            "checkpoint": {"every": 500},
        },
    ),
    "omnigrok-2022": Recipe(
        "Nanda's network and task without weight decay: all weights start 0.8 times as large, and after every step "
        "are rescaled together to the length that they had then. It generalises about as soon as it memorises.",
        "Liu, Michaud & Tegmark 2022, Omnigrok: grokking beyond algorithmic data, ICLR 2023, arXiv:2210.01117",
        "The initial values are drawn by another generator, so the norm that is held is not quite theirs (33.8).",
        {
            "model": {"init_scale": 0.8},
            "optimizer": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.98, "weight_decay": 0.0},
            "schedule": _WARMUP,
            "projections": [{"name": "constant_norm"}],
            "loss": {"variant": "float64"},
            "dtype": "float64",
            "steps": 5_000,
        },
    ),
    "grokfast-2024": Recipe(
        "Multiplication mod 97 from half of the pairs: the slow part of the gradient, its moving average, is amplified "
        "before Adam sees it.",
        "Lee, Kang, Kim & Lee 2024, Grokfast: accelerated grokking by amplifying slow gradients, arXiv:2405.20233",
        "The equation is `a b =`, without the operator's sign; initial values are Glorot's. The published comparison "
        "is with a baseline that has no weight decay, while this recipe has 0.005: compare at equal decay.",
        {
            "task": {"operation": "x * y", "p": 97, "train_fraction": 0.5},
            "model": {**_TWO_BLOCKS, "norm": "pre", "activation": "gelu", "init": "xavier"},
            "optimizer": {"name": "adam", "lr": 1e-3, "beta1": 0.9, "beta2": 0.98, "weight_decay": 0.005},
            "filters": [{"name": "grokfast_ema", "alpha": 0.98, "lamb": 2.0}],
            "schedule": _WARMUP,
            "batch_size": 512,
            "steps": 10_000,
        },
    ),
    "muon": Recipe(
        "Addition mod 97 from 40 % of the pairs, hidden matrices moved by Muon, the rest by AdamW: published runs "
        "reach 99 % after 75 steps (three seeds, measured every 25).",
        "Muon: Jordan et al. 2024, kellerjordan.github.io/posts/muon. The setting: Fu 2026, "
        "github.com/PeterPonyu/muon-norm-cap-grokking, Zenodo 21020292",
        "The initial values are drawn by another generator.",
        {
            "task": {"operation": "x + y", "p": 97, "train_fraction": 0.4},
            "model": {**_TWO_BLOCKS, "norm": "pre", "activation": "gelu", "init": "normal"},
            "optimizer": {"name": "muon", "lr": 0.02, "momentum": 0.95, "nesterov": True, "weight_decay": 1.0,
                          "adam_ratio": 0.05, "adam_beta1": 0.9, "adam_beta2": 0.98},
            "steps": 1_000,
            "evaluation": {"every": 5},
        },
    ),
    "words": Recipe(
        "Strings to strings: one layer of encoder and one of decoder, without dropout, batches of like lengths; "
        "matrices moved by Muon, at a rate that rises, then falls to almost nothing at the last step. The best weights "
        "by validation loss are kept.",
        "ours; the network is that of Vaswani et al. 2017, arXiv:1706.03762, normed before each sublayer; Muon: "
        "Jordan et al. 2024, kellerjordan.github.io/posts/muon",
        "",
        _WORDS,
    ),
    "pairs": Recipe(
        "Strings to strings of which there are few and not all are regular, such as spelling to sound: as `words`, "
        "with smoothed labels.",
        "ours; label smoothing: Szegedy et al. 2015, arXiv:1512.00567",
        "",
        merge(_WORDS, {"loss": {"label_smoothing": 0.1}}),
    ),
    "translation": Recipe(
        "Sentences to sentences: as `words`, wider, with one table of embeddings for source, target and output, and "
        "smoothed labels.",
        "ours; after Vaswani et al. 2017, arXiv:1706.03762",
        "",
        merge(_WORDS, {
            "model": {"d_model": 256, "d_mlp": 1024, "tied": "all", "embed_scale": True},
            "loss": {"label_smoothing": 0.1},
            "batch_tokens": 8192,
        }),
    ),
    "language": Recipe(
        "What comes next in a text: one decoder-only layer, every place of each window asked.",
        "ours; the setting is that of nanoGPT's small run on a CPU, github.com/karpathy/nanoGPT",
        "",
        merge(_WORDS, {"model": {"architecture": "decoder_only"}, "batch_tokens": 4096}),
    ),
}  # fmt: skip


def get(name: str) -> Recipe:
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def configure(recipe: str | None = None, *changes: Mapping[str, Any]) -> RunConfig:
    """The recipe's config with each of `changes` (nested, as in a config file) laid over it in turn.

    recipe: None: the one that a change names, else the one that fits the task.
    """
    name = usual(*changes) if recipe is None else recipe
    data: Mapping[str, Any] = merge(RunConfig().as_dict(), get(name).config) | {"recipe": name}
    for change in changes:
        data = merge(data, change)
    return resolve(data)


def usual(*changes: Mapping[str, Any]) -> str:
    """The recipe that the changes name; else the one for their task and its settings."""
    data: Mapping[str, Any] = {"task": {"name": "arithmetic"}}
    for change in changes:
        data = merge(data, change)
    task = data["task"]
    if data.get("recipe") is not None:
        return data["recipe"]
    if not isinstance(task, Mapping) or task.get("name") not in tasks.WORDS:
        return "default"
    if task["name"] not in ("pairs", "phonemes"):
        return "language" if task["name"] == "language" else "words"
    return "translation" if task.get("shared") or task.get("target_units") == "bpe" else "pairs"
