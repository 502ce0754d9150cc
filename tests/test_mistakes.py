"""The checklist: 24 classic mistakes of a Transformer written by hand, each with a check that fails once it is made.

A check passes on our code. Each `put_in` below it makes the mistake, by swapping one function for a wrong one, and the
very same check must then fail: a checklist that cannot fail proves nothing. Read from the top: what goes wrong, where
it was seen, how it shows (mostly: not at all, the loss still falls), and the property that tells it apart.

docs/mistakes.md is written from this file:    python tests/test_mistakes.py > docs/mistakes.md

Source    the list: issues of public repositories, each cited beside its mistake; the arithmetic is arXiv:1706.03762's.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from array_api_compat import is_jax_array
from oracles import assert_close_trees, pairing, random_array, random_ids, random_like, relative_errors

from onelayer import optimizers, positions
from onelayer.arrays import flatten, map_tree, natural, unflatten
from onelayer.decoding import beam, kv_cache, metrics
from onelayer.decoding import decode as decoding
from onelayer.decoding.choices import log_probabilities
from onelayer.decoding.one_by_one import likeliest
from onelayer.errors import BadInput
from onelayer.layers import activations, cross_entropy, embedding, layer_norm, softmax
from onelayer.models import decoder_only, encoder_decoder
from onelayer.models.config import ModelConfig
from onelayer.optimizers import adam, schedules
from onelayer.positions import Places, sinusoidal
from onelayer.sublayers import attention
from onelayer.tasks import Batch, text, units
from onelayer.training import evaluation, objective, step
from onelayer.training.config import resolve
from onelayer.training.objective import Objective, loss_and_grads
from onelayer.words import answers, scores

Patch = pytest.MonkeyPatch


class Mistake(NamedTuple):
    number: int
    name: str
    what: str  # goes wrong
    found: str  # where, in Markdown
    shows: str  # how one would notice, or not
    check: Callable[[], None]
    wrong: dict[str, Callable[[Patch], None]]  # what is put in: how


MISTAKES: dict[int, Mistake] = {}


def mistake(
    number: int, name: str, what: str, *, found: str, shows: str
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """The check of a mistake; what is `put_in` after it belongs to it."""

    def note(check: Callable[[], None]) -> Callable[[], None]:
        MISTAKES[number] = Mistake(number, name, what, found, shows, check, {})
        return check

    return note


def put_in(how: str) -> Callable[[Callable[[Patch], None]], None]:
    def note(wrong: Callable[[Patch], None]) -> None:
        MISTAKES[max(MISTAKES)].wrong[how] = wrong

    return note


# ---------------------------------------------------------------------------------------------------- what checks use

B, T, S, V, D, H = 3, 5, 7, 11, 12, 3
TOKENS, SOURCE, TARGETS = random_ids(V, B, T), random_ids(V, B, S, seed=1), random_ids(V, B, T, seed=2)
PRESENT = np.arange(S) < np.array([[7], [4], [5]])
SHAPE: dict[str, Any] = {"vocab_size": V, "n_ctx": 9, "d_model": D, "n_heads": H, "d_mlp": 10, "activation": "gelu"}
READS: dict[str, Any] = {"architecture": "encoder_decoder", "position": "sinusoidal"}


def model(norm: str = "pre", **changes: Any) -> tuple[ModelConfig, Any]:
    """A small model whose every weight, gains and biases too, is away from its initial value."""
    cfg = ModelConfig(**(SHAPE | {"norm": norm} | changes))
    params = objective.init(cfg, 0)
    return cfg, map_tree(lambda p, r: p + 0.2 * r, params, random_like(params))


def logits_of(params: Any, cfg: ModelConfig, tokens: Any = TOKENS, source: Any = SOURCE, present: Any = PRESENT) -> Any:
    if cfg.architecture == "decoder_only":
        return decoder_only.forward(params, tokens, cfg)
    return encoder_decoder.forward(params, source, tokens, cfg, source_present=present)


def the_gradient_is_right(cfg: ModelConfig, params: Any, *names: str) -> None:
    """The backward's gradient along a random direction of each tensor is the complex step's slope."""
    logits, cache = logits_of(params, cfg)
    _, c = cross_entropy.forward(logits, TARGETS)
    backward = (decoder_only if cfg.architecture == "decoder_only" else encoder_decoder).backward
    grads = flatten(backward(cross_entropy.backward(c), cache, cfg))
    flat = flatten(params)
    for name in names or flat:
        along = random_array(*flat[name].shape, purpose=name)
        moved = unflatten(flat | {name: flat[name] + 1e-30j * along}, params)
        slope = np.imag(cross_entropy.forward(logits_of(moved, cfg)[0], TARGETS)[0]) / 1e-30
        assert abs((grads[name] * along).sum() - slope) <= 1e-9 * abs(slope) + 1e-12, name


def changed(before: Any, after: Any) -> Any:
    """At which places [T] any logit of any example is different."""
    return np.any(before != after, axis=(0, 2))


# ---------------------------------------------------------------------------------------------------- what is seen


@mistake(
    1, "Target not shifted",
    "The target is not shifted: the decoder reads at a place the very token that it must say there",
    found="[transformer_scan](https://github.com/jlrussin/transformer_scan), train.py: "
    "`model(batch.src, batch.trg)` is scored against `batch.trg`",
    shows="A loss near zero within an epoch, and an accuracy that no published run has; decoding says nonsense.",
)  # fmt: skip
def no_token_is_read_where_it_must_be_said() -> None:
    def arrays(target: str) -> Batch:
        rows = [("ab", target), ("b", "dcba")]
        return text.build("shift", rows, rows, rows).train

    for place, other in enumerate(("dbcd", "aacd", "abad", "abca")):  # "abcd" with one letter changed
        one, two = arrays("abcd"), arrays(other)
        cfg, params = model(**READS, causal=True)
        first, second = (
            objective.forward(params, batch, Objective(cfg, one.tokens.shape[1]))[0] for batch in (one, two)
        )
        differs = np.any(first != second, axis=(0, 2))
        assert not differs[: place + 1].any(), "what is said at a place depends on what must be said there"
        assert differs[place + 1 :].all(), "later places do not read it either"


@put_in("the decoder reads the target as it is")
def _(patch: Patch) -> None:
    right = text._batch
    patch.setattr(text, "_batch", lambda *a: (batch := right(*a))._replace(tokens=batch.targets))


@mistake(
    2, "Causal mask missing, or across",
    "The causal mask is missing in the decoder's self-attention, or it is put on cross-attention as well",
    found="missing: [xformers 103](https://github.com/facebookresearch/xformers/issues/103); on cross-attention: "
    "[TransformerEngine 629](https://github.com/NVIDIA/TransformerEngine/issues/629), "
    "[transformers 48172](https://github.com/huggingface/transformers/issues/48172)",
    shows="Missing: a loss too good to be true. On cross-attention: the first words see the first source words only.",
)  # fmt: skip
def the_decoder_looks_back_only_and_across_everywhere() -> None:
    cfg, params = model(**READS, n_layers=2)
    before = logits_of(params, cfg)[0]
    for place in range(T):
        other = TOKENS.copy()
        other[:, place] = (other[:, place] + 1) % V
        assert changed(before, logits_of(params, cfg, tokens=other)[0]).tolist() == [t >= place for t in range(T)]
    memory, _ = encoder_decoder.encode(params, SOURCE, cfg)  # here: the encoder carries each source token everywhere
    before, _ = encoder_decoder.decode(params, TOKENS, memory, cfg)
    for place in range(S):
        other = memory + random_array(B, 1, D) * (np.arange(S) == place)[:, None]
        assert changed(before, encoder_decoder.decode(params, TOKENS, other, cfg)[0]).all()


@put_in("no causal mask")
def _(patch: Patch) -> None:
    right = encoder_decoder.look_mask
    patch.setattr(encoder_decoder, "look_mask", lambda T, n, causal, *rest, **like: right(T, n, False, *rest, **like))


@put_in("a causal mask on cross-attention too")
def _(patch: Patch) -> None:
    right, back = encoder_decoder.look_mask, np.tril(np.ones((1, 1, T, S), dtype=bool))
    patch.setattr(
        encoder_decoder, "look_mask", lambda T, n, *rest, **like: back if n == 1 else right(T, n, *rest, **like)
    )


@mistake(
    3, "Padding seen",
    "Padding of the source is not masked, in the encoder or in cross-attention",
    found="[torchtext 2096](https://github.com/pytorch/text/pull/2096) (in generation), "
    "[transformers 47946](https://github.com/huggingface/transformers/pull/47946) (in cross-attention)",
    shows="Answers hang on how long the batch's longest sentence is; a test on single examples never sees it.",
)  # fmt: skip
def more_padding_changes_nothing() -> None:
    cfg, params = model(**READS, n_layers=2)
    longer = np.concatenate([SOURCE, random_ids(V, B, 2, seed=5)], axis=1)
    absent = np.concatenate([PRESENT, np.zeros((B, 2), dtype=bool)], axis=1)
    short, long = logits_of(params, cfg)[0], logits_of(params, cfg, source=longer, present=absent)[0]
    assert np.abs(short - long).max() <= 1e-12


def _blind_to_padding(patch: Patch, where: Callable[[int], bool]) -> None:
    right = encoder_decoder.look_mask

    def wrong(T: int, n: int, causal: bool, present: Any, **like: Any) -> Any:
        return right(T, n, causal, None if where(n) else present, **like)

    patch.setattr(encoder_decoder, "look_mask", wrong)


@put_in("the encoder sees padding")
def _(patch: Patch) -> None:
    _blind_to_padding(patch, lambda n: n > 1)


@put_in("cross-attention sees padding")
def _(patch: Patch) -> None:
    _blind_to_padding(patch, lambda n: n == 1)


@mistake(
    4, "A row all masked",
    "A row whose every key is masked becomes NaN: −∞ minus −∞ in the softmax",
    found="[PyTorch 41508](https://github.com/pytorch/pytorch/issues/41508), open since 2020",
    shows="NaN in every gradient as soon as one example of the batch is all padding; often in the last batch only.",
)  # fmt: skip
def a_source_of_padding_alone_is_finite() -> None:
    cfg, params = model(**READS)
    some = PRESENT & np.array([[True], [False], [True]])
    logits, cache = logits_of(params, cfg, present=some)
    grads = encoder_decoder.backward(np.ones_like(logits), cache, cfg)
    assert np.isfinite(logits).all() and all(np.isfinite(g).all() for g in flatten(grads).values())


@put_in("forbidden scores are set to −∞")
def _(patch: Patch) -> None:
    def wrong(scores: Any, mask: Any = None) -> Any:
        with np.errstate(invalid="ignore"):
            s = scores if mask is None else np.where(mask, scores, -np.inf)
            e = np.exp(s - s.max(-1, keepdims=True))
            return e / e.sum(-1, keepdims=True), softmax.Cache(e / e.sum(-1, keepdims=True))

    patch.setattr(softmax, "forward", wrong)


# ---------------------------------------------------------------------------------------------------- attention


@mistake(
    5, "Heads cut by reshape",
    "Heads are split off by a reshape without a transpose, so that a head mixes places with features",
    found="[transformer-from-scratch 6](https://github.com/jsbaan/transformer-from-scratch/pull/6), "
    "[FuxiCTR 30](https://github.com/reczoo/FuxiCTR/issues/30)",
    shows="Every shape is right and easy tasks are learnt; harder ones are learnt worse.",
)  # fmt: skip
def attention_is_what_a_loop_over_heads_says() -> None:
    x, p = random_array(B, T, D), _attention_params()
    y, _ = attention.forward(p, x, x, Places(natural(T), natural(T), None, causal=False), positions.get("none"))
    want = np.zeros((B, T, D))
    for b in range(B):
        for h in range(H):
            q, k, v = x[b] @ p.W_Q[h], x[b] @ p.W_K[h], x[b] @ p.W_V[h]
            for t in range(T):
                e = np.exp([q[t] @ k[s] / math.sqrt(D // H) for s in range(T)])
                want[b, t] += (e / e.sum()) @ v @ p.W_O[h]
    assert relative_errors(y, want)[""] <= 1e-12


def _attention_params() -> Any:
    shapes = {"W_Q": (H, D, D // H), "W_K": (H, D, D // H), "W_V": (H, D, D // H), "W_O": (H, D // H, D)}
    return attention.Params(**{name: 0.5 * random_array(*shape, purpose=name) for name, shape in shapes.items()})


@put_in("reshape alone")
def _(patch: Patch) -> None:
    def wrong(x: Any) -> Any:
        b, t, h, k = x.shape
        return x.reshape(b, h, t, k)

    patch.setattr(attention, "by_head", wrong)


@mistake(
    6, "Scale or axis of the softmax",
    "Scores are divided by √d_model rather than by the root of a head's width, or the softmax runs over queries",
    found="scale: [vit-pytorch 65](https://github.com/lucidrains/vit-pytorch/issues/65), "
    "[dfdx 171](https://github.com/chelsea0x3b/dfdx/issues/171); axis: "
    "[labml 146](https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/146)",
    shows="Attention that is flatter than it should be; on the wrong axis, a model that trains as if all were well.",
)  # fmt: skip
def a_pattern_worked_out_by_hand() -> None:
    """Two heads of width 1 at D = 2. q = k = 1 and 2, so the scores are 1 2 / 2 4: by √1, along the row."""
    x, one = np.eye(2)[None], np.array([[[1.0], [2.0]]] * 2)
    p = attention.Params(W_Q=one, W_K=one, W_V=one, W_O=np.ones((2, 1, 2)))
    _, c = attention.forward(p, x, x, Places(natural(2), natural(2), None, causal=False), positions.get("none"))
    by_hand = [[1 / (1 + math.e), math.e / (1 + math.e)], [1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)]]
    for head in range(2):
        np.testing.assert_allclose(c.softmax.pattern[0, head], by_hand, rtol=1e-14)


@put_in("by √d_model")
def _(patch: Patch) -> None:
    patch.setattr(attention, "math", SimpleNamespace(sqrt=lambda width: math.sqrt(2 * width)))


@put_in("softmax over the queries")
def _(patch: Patch) -> None:
    right = softmax.forward

    def wrong(scores: Any, mask: Any = None) -> Any:
        pattern = np.swapaxes(right(np.swapaxes(scores, -1, -2))[0], -1, -2)
        return pattern, softmax.Cache(pattern)

    patch.setattr(softmax, "forward", wrong)


# ---------------------------------------------------------------------------------------------------- ends of the model


@mistake(
    7, "The sinusoid's exponent",
    "The sinusoid's exponent is wrong: 2i/D with an i that already steps by two, or the cosine ahead of its sine",
    found="[attention-is-all-you-need-pytorch 32](https://github.com/jadore801120/attention-is-all-you-need-pytorch/"
    "issues/32), [Kyubyong/transformer 38](https://github.com/Kyubyong/transformer/issues/38), "
    "[SamLynnEvans/Transformer 25](https://github.com/SamLynnEvans/Transformer/issues/25)",
    shows="Not at all on short sequences: it is still some code of the position. Half the features hardly move, and a "
    "step is no rotation.",
)  # fmt: skip
def sinusoids_turn_at_the_papers_frequencies() -> None:
    def table(n: int, width: int) -> Any:
        return positions.get("sinusoidal").encode_x(None, np.zeros((1, n, width)), natural(n))[0][0]

    golden = [[0, 1, 0, 1], [0.8414709848, 0.5403023059, 0.0099998333, 0.9999500004]]  # sin 1, cos 1, sin 1/100, cos
    np.testing.assert_allclose(table(2, 4), golden, atol=1e-10)
    pe, k = table(40, 8).reshape(40, 4, 2), 7  # PE(p + k) is PE(p), each pair turned by an angle that p has no say in
    angle = k * 10_000 ** (-2 * np.arange(4) / 8)
    sin, cos = pe[:-k, :, 0], pe[:-k, :, 1]
    turned = np.stack([sin * np.cos(angle) + cos * np.sin(angle), cos * np.cos(angle) - sin * np.sin(angle)], axis=-1)
    np.testing.assert_allclose(pe[k:], turned, atol=1e-12)


def _frequencies(patch: Patch, exponent: Callable[[Any, int], Any]) -> None:
    def wrong(ids: Any, d_model: int, base: float, like: Any) -> Any:
        i = np.arange(d_model)
        angle = ids[:, None] / base ** exponent(i, d_model)
        return np.where(i % 2 == 0, np.sin(angle), np.cos(angle))

    patch.setattr(sinusoidal, "table", wrong)


@put_in("2i/D where i counts features by twos")
def _(patch: Patch) -> None:
    _frequencies(patch, lambda i, d: 2 * (i - i % 2) / d)


@put_in("the cosine at the next exponent")
def _(patch: Patch) -> None:
    _frequencies(patch, lambda i, d: i / d)


@mistake(
    8, "√D lost on the way back",
    "Embeddings are multiplied by √D in the forward, and the backward forgets it",
    found="a hand-written backward's own; numpy-transformer remembers it (modules/decoder.py, `* self.scale`)",
    shows="Embeddings learn √D times too slowly, which Adam hides altogether.",
)  # fmt: skip
def the_embeddings_scale_is_in_its_gradient() -> None:
    cfg, params = model(embed_scale=True)
    the_gradient_is_right(cfg, params, "embed.W_E")


@put_in("no √D in the backward")
def _(patch: Patch) -> None:
    right = embedding.backward
    patch.setattr(embedding, "backward", lambda dx, c, scale=1.0: right(dx, c))


# ---------------------------------------------------------------------------------------------------- norms


@mistake(
    9, "One norm for several sublayers",
    "One LayerNorm serves several sublayers of a block",
    found="[OLMo 222](https://github.com/allenai/OLMo/issues/222), "
    "[bentrevett/pytorch-seq2seq 100](https://github.com/bentrevett/pytorch-seq2seq/pull/100), "
    "[mlx 1636](https://github.com/ml-explore/mlx/issues/1636) (the wrong one of them)",
    shows="Hardly: the last of these scored a little better with it. Weights of other implementations do not fit.",
)  # fmt: skip
def every_norm_is_its_own() -> None:
    cfg, params = model("post", **READS)
    flat, before = flatten(params), logits_of(params, cfg)[0]
    gains = [name for name in flat if name.endswith(".gain")]
    assert len(gains) == 5  # 2 in a block of the encoder, 3 in one of the decoder
    moves = [logits_of(unflatten(flat | {gain: flat[gain] * 1.5}, params), cfg)[0] - before for gain in gains]
    for i, move in enumerate(moves):
        assert np.abs(move).max() > 0, f"{gains[i]} is not used"
        assert all(np.abs(move - other).max() > 0 for other in moves[:i])


@put_in("ln1 twice in the encoder")
def _(patch: Patch) -> None:
    right = decoder_only.block_forward
    patch.setattr(decoder_only, "block_forward", lambda p, *rest: right(p._replace(ln2=p.ln1), *rest))


@put_in("ln1 after cross-attention")
def _(patch: Patch) -> None:
    right = encoder_decoder.block_forward
    patch.setattr(encoder_decoder, "block_forward", lambda p, *rest: right(p._replace(ln_cross=p.ln1), *rest))


@mistake(
    10, "γ outside the means",
    "Layer norm's backward multiplies by γ outside the means rather than inside",
    found="[numpy-transformer](https://github.com/AkiRusProd/numpy-transformer), layers/base/layer_norm.py (\"first "
    "variant\")",
    shows="At γ = 1, where it is first looked at, it is right to 5e-11; at a random γ it is off by 90 %.",
)  # fmt: skip
def layer_norms_gradient_at_any_gain() -> None:
    _layer_norm_gradient(gain=random_array(D, purpose="gain"))


def _layer_norm_gradient(gain: Any) -> None:
    x, dy, along = (random_array(B, T, D, purpose=purpose) for purpose in ("x", "dy", "along"))
    p = layer_norm.Params(gain, random_array(D, purpose="bias"))
    dx, _ = layer_norm.backward(dy, layer_norm.forward(p, x)[1])
    slope = np.imag(pairing(layer_norm.forward(p, x + 1e-30j * along)[0], dy)) / 1e-30
    assert abs(pairing(dx, along) - slope) <= 1e-10 * abs(slope)


def _gain_outside(dy: Any, c: Any) -> Any:
    def mean(a: Any) -> Any:
        return a.mean(-1, keepdims=True)

    dx = c.gain * c.rstd * (dy - mean(dy) - c.x_hat * mean(c.x_hat * dy))
    return dx, layer_norm.Params((dy * c.x_hat).sum((0, 1)), dy.sum((0, 1)))


@put_in("γ outside")
def _(patch: Patch) -> None:
    patch.setattr(layer_norm, "backward", _gain_outside)


# ---------------------------------------------------------------------------------------------------- the loss


@mistake(
    11, "Divided by the batch twice",
    "A backward divides by the size of the batch a second time",
    found="numpy-transformer, activations.py: softmax's backward ends in `/ batch_size`",
    shows="Queries and keys learn too slowly, the more so the larger the batch; Adam hides it.",
)  # fmt: skip
def a_batch_given_twice_has_the_same_gradient() -> None:
    cfg, params = model()
    goal, batch = Objective(cfg, T), Batch(TOKENS, TARGETS)
    twice = map_tree(lambda a: np.concatenate([a, a]), batch)
    (loss, grads), (loss2, grads2) = loss_and_grads(params, batch, goal), loss_and_grads(params, twice, goal)
    assert abs(loss - loss2) <= 1e-14 * loss
    assert_close_trees(grads2, grads, 1e-12)


@put_in("softmax's backward ÷ batch")
def _(patch: Patch) -> None:
    right = softmax.backward
    patch.setattr(softmax, "backward", lambda da, c: right(da, c) / da.shape[0])


@mistake(
    12, "The target found by value",
    "Cross-entropy's gradient finds the target by its value: wherever a logit equals the target's",
    found="numpy-transformer, losses.py: `np.isin(y, y[np.arange(len(t)), t])`",
    shows="Only where two logits are equal: 504 marks for 480 rows of random float32 logits.",
)  # fmt: skip
def only_the_target_is_pulled_up() -> None:
    z = random_array(B, T, V)
    z[0, 0, :] = 1.0  # all tied
    z[1, 2, 3] = z[2, 1, TARGETS[2, 1]]  # the same number, elsewhere
    _, c = cross_entropy.forward(z, TARGETS)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    np.testing.assert_allclose(cross_entropy.backward(c), (p - np.eye(V)[TARGETS]) / (B * T), atol=1e-15)


@put_in("by value")
def _(patch: Patch) -> None:
    right = cross_entropy.forward

    def wrong(logits: Any, targets: Any, *rest: Any, **settings: Any) -> Any:
        loss, c = right(logits, targets, *rest, **settings)
        found = np.isin(logits, np.take_along_axis(logits, targets[..., None], -1))
        return loss, c._replace(wanted=found.astype(logits.dtype))

    patch.setattr(cross_entropy, "forward", wrong)


def _padded_batch(more: int) -> Batch:
    """Pairs as the tasks make them, and `more` columns of padding on both sides."""
    rows = [("abc", "cba"), ("b", "b"), ("ca", "ac")]
    batch = text.build("reverse", rows, rows, rows).train
    wider = {"tokens": units.PAD, "targets": units.PAD, "weights": 0, "source": units.PAD, "source_mask": False}
    return batch._replace(**{
        name: np.pad(getattr(batch, name), ((0, 0), (0, more)), constant_values=fill) for name, fill in wider.items()
    })  # fmt: skip


@mistake(
    13, "Padding in the loss",
    "Padding counts in the loss, or in what the loss is divided by",
    found="[burn 5568](https://github.com/tracel-ai/burn/issues/5568), [Paddle 23708]"
    "(https://github.com/PaddlePaddle/Paddle/issues/23708), numpy-transformer (transformer.py: `.mean()` over all)",
    shows="A loss that is lower than the truth, and hangs on the batch's longest sentence.",
)  # fmt: skip
def loss_and_gradient_do_not_know_how_much_padding_there_is() -> None:
    cfg, params = model(**READS)
    (loss, grads), (loss2, grads2) = (
        loss_and_grads(params, batch, Objective(cfg, batch.tokens.shape[1], smoothing=0.1, never=units.PAD))
        for batch in (_padded_batch(0), _padded_batch(2))
    )
    assert abs(loss - loss2) <= 1e-13 * loss
    assert_close_trees(grads2, grads, 1e-12)


@put_in("padding is a target like any other")
def _(patch: Patch) -> None:
    right = cross_entropy.forward
    patch.setattr(cross_entropy, "forward", lambda z, y, w=None, **settings: right(z, y, None, **settings))


@put_in("padding in the denominator")
def _(patch: Patch) -> None:
    right = cross_entropy.forward

    def wrong(z: Any, y: Any, w: Any, **settings: Any) -> Any:
        loss, c = right(z, y, w, **settings)
        return loss * w.mean(), c._replace(weight=c.weight * w.mean())

    patch.setattr(cross_entropy, "forward", wrong)


@mistake(
    14, "Smoothing on padding, or reported",
    "Label smoothing gives mass to padding, or the smoothed loss is reported as perplexity",
    found="[PyTorch 73205](https://github.com/pytorch/pytorch/issues/73205), [sockeye 200]"
    "(https://github.com/awslabs/sockeye/issues/200), [DeepCASE 8](https://github.com/Thijsvanede/DeepCASE/issues/8) "
    "(it does not sum to 1)",
    shows="The model learns to say padding now and then; perplexities that cannot be compared.",
)  # fmt: skip
def smoothing_goes_to_words_alone_and_stays_out_of_what_is_reported() -> None:
    rows = [("abc", "cba"), ("b", "b"), ("ca", "ac")]
    task = text.build("reverse", rows, rows, rows)
    wish = {"model": {"architecture": "encoder_decoder", "position": "sinusoidal", "d_model": 8, "n_heads": 2}}
    goal = step.make_objective(resolve(wish | {"loss": {"label_smoothing": 0.2}}), task)
    params, batch = objective.init(goal.model, 0), task.train
    loss, _ = loss_and_grads(params, batch, goal)
    logits = objective.forward(params, batch, goal)[0]
    n = len(task.vocabulary)
    q = 0.8 * np.eye(n)[batch.targets] + 0.2 / (n - 1) * (np.arange(n) != units.PAD)
    real = np.asarray(batch.weights) == 1
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert abs(loss + (q * log_p).sum(-1)[real].mean()) <= 1e-12  # q sums to 1, and has nothing on padding
    pulled = (np.exp(log_p) - q)[real].sum(0) / real.sum()  # what an output bias would feel
    assert pulled[units.PAD] > 0
    said = -np.take_along_axis(log_p, batch.targets[..., None], -1)[..., 0]
    summed, count, *_ = objective.scores(params, batch, goal)  # which the reports are made of: unsmoothed
    np.testing.assert_allclose([summed.sum(), count.sum()], [said[real].sum(), real.sum()], rtol=1e-6)


@put_in("the objective is not told what padding is")
def _(patch: Patch) -> None:
    right = step.make_objective
    patch.setattr(step, "make_objective", lambda config, task: right(config, task)._replace(never=None))


@put_in("mass on padding is dropped, so that q does not sum to 1")
def _(patch: Patch) -> None:
    right = cross_entropy._wanted
    patch.setattr(
        cross_entropy, "_wanted",
        lambda y, n, smoothing, never, xp, dtype: right(y, n, smoothing, None, xp, dtype) * (np.arange(n) != never),
    )  # fmt: skip


@put_in("the smoothed loss is reported")
def _(patch: Patch) -> None:
    def wrong(params: Any, batch: Batch, goal: Objective) -> Any:
        loss, _ = cross_entropy.forward(
            objective.forward(params, batch, goal)[0], batch.targets, batch.weights,
            smoothing=goal.smoothing, never=goal.never,
        )  # fmt: skip
        count = np.asarray(batch.weights).sum(-1)
        return loss * count, count, None

    patch.setattr(objective, "scores", wrong)


# ---------------------------------------------------------------------------------------------------- the optimizer

STEPS = 5
NOAM: dict[str, Any] = {"warmup": 3, "d_model": D}


@mistake(
    15, "A step counted for each tensor",
    "The schedule is stepped once a tensor, or Adam's t counts tensors, rather than once a step",
    found="numpy-transformer, optimizers.py (`Noam.update` is called for each tensor) and layers/base/dense.py (the "
    "layer's number is handed over as t); DeepSpeed's fused Adam: [8471]"
    "(https://github.com/deepspeedai/DeepSpeed/pull/8471)",
    shows="The warm-up is over before the second step; layers learn at rates that hang on where they stand.",
)  # fmt: skip
def all_tensors_move_at_one_rate_and_one_t() -> None:
    cfg, params = model()
    flat, goal, batch = flatten(params), Objective(cfg, T), Batch(TOKENS, TARGETS)
    rules = step.Rules((), optimizers.make("adam"), 1.0, optimizers.make("noam", "schedule", **NOAM), (), {})
    state = step.TrainState(params, step.OptState((), rules.optimizer.init(params), ()))
    m, v = ({name: 0 * a for name, a in flat.items()} for _ in range(2))
    theirs = dict(flat)
    for t in range(STEPS):  # Kingma & Ba, algorithm 1; Vaswani et al., equation 3
        grads = flatten(loss_and_grads(unflatten(theirs, params), batch, goal)[1])
        lr = D**-0.5 * min((t + 1) ** -0.5, (t + 1) * 3**-1.5)
        for name, g in grads.items():
            m[name], v[name] = 0.9 * m[name] + 0.1 * g, 0.999 * v[name] + 0.001 * g * g
            m_hat, v_hat = m[name] / (1 - 0.9 ** (t + 1)), v[name] / (1 - 0.999 ** (t + 1))
            theirs[name] = theirs[name] - lr * m_hat / (np.sqrt(v_hat) + 1e-8)
        before = flatten(state.params)
        state, _, _ = step.take(state, batch, t, goal, rules)
        if t == 0:  # the first step moves every entry that has a gradient by lr
            for name, a in flatten(state.params).items():
                moved = np.abs(a - before[name])[np.abs(grads[name]) > 1e-4]
                np.testing.assert_allclose(moved, lr, rtol=1e-3)
    assert_close_trees(state.params, unflatten(theirs, params), 1e-9)


def _one_by_one(patch: Patch, **how: Callable[[int, int, int], Any]) -> None:
    """Adam tensor by tensor; `count` and `lr` are functions of (steps so far, number of tensors, this tensor)."""
    right = adam.update

    def wrong(grads: Any, state: Any, params: Any, *, lr: Any, **settings: Any) -> Any:
        g, p, m, v, s = flatten(grads), flatten(params), flatten(state.m), flatten(state.v), int(state.count)
        for i, name in enumerate(p):
            own = adam.State(
                np.asarray(how.get("count", lambda s, n, i: s)(s, len(p), i)), {name: m[name]}, {name: v[name]}
            )
            rate = how["lr"](s, len(p), i) if "lr" in how else lr
            new, own = right({name: g[name]}, own, {name: p[name]}, lr=rate, **settings)
            p[name], m[name], v[name] = new[name], own.m[name], own.v[name]
        return unflatten(p, params), adam.State(np.asarray(s + 1), unflatten(m, params), unflatten(v, params))

    patch.setattr(adam, "update", wrong)


@put_in("Noam steps at every tensor")
def _(patch: Patch) -> None:
    _one_by_one(patch, lr=lambda s, n, i: float(schedules.noam(s * n + i, **NOAM)))


@put_in("Adam's t is the tensor's number")
def _(patch: Patch) -> None:
    _one_by_one(patch, count=lambda s, n, i: i)


# ---------------------------------------------------------------------------------------------------- shared things


@mistake(
    16, "One cache for two calls",
    "A module that is used twice keeps one cache: the second call overwrites what the first one's backward needs",
    found="numpy-transformer, layers/combined/encoder_layer.py: one Dropout (one mask) for two places; "
    "[autobw.torch 3](https://github.com/bshillingford/autobw.torch/issues/3)",
    shows="Gradients of the earlier use belong to the later one; with one use a test sees nothing.",
)  # fmt: skip
def two_calls_and_then_two_backwards() -> None:
    first, second, dy = (random_array(B, T, D, purpose=purpose) for purpose in ("first", "second", "dy"))
    p = layer_norm.Params(random_array(D), random_array(D, seed=1))
    want = [layer_norm.backward(dy, layer_norm.forward(p, x)[1]) for x in (first, second)]
    caches = [layer_norm.forward(p, x)[1] for x in (first, second)]
    got = [layer_norm.backward(dy, c) for c in reversed(caches)][::-1]
    assert_close_trees(got, want, 0.0)


@put_in("the module remembers its last call")
def _(patch: Patch) -> None:
    forward, backward, memory = layer_norm.forward, layer_norm.backward, []

    def remember(p: Any, x: Any, eps: float = 1e-5) -> Any:
        y, c = forward(p, x, eps)
        memory.append(c)
        return y, c

    patch.setattr(layer_norm, "forward", remember)
    patch.setattr(layer_norm, "backward", lambda dy, c: backward(dy, memory[-1]))


@mistake(
    17, "The encoder's gradient overwritten",
    "What cross-attention sends back to the encoder is overwritten by the next layer, not summed over them",
    found="a hand-written backward's own; numpy-transformer sums it (modules/decoder.py, `encoder_error +=`)",
    shows="Not with one decoder layer. With more, the encoder learns for one of them.",
)  # fmt: skip
def the_encoder_hears_of_every_decoder_layer() -> None:
    cfg, params = model(**READS, n_layers=2)
    the_gradient_is_right(cfg, params, "encoder.embed.W_E", "encoder.blocks.1.mlp.W_out", "encoder.ln_final.gain")


@put_in("only the lowest layer's share arrives")
def _(patch: Patch) -> None:
    right, calls = encoder_decoder.block_backward, []

    def wrong(*arguments: Any) -> Any:
        dy, dmemory, d = right(*arguments)
        calls.append(dmemory)
        return dy, dmemory * (len(calls) % 2 == 0), d

    patch.setattr(encoder_decoder, "block_backward", wrong)


@mistake(
    18, "Shared weights overwritten",
    "The gradient of a weight that is used more than once is overwritten, not added: repeated tokens, tied tables",
    found="repeats: [autograd 136](https://github.com/HIPS/autograd/pull/136), [pytensor 2242]"
    "(https://github.com/pymc-devs/pytensor/pull/2242); tied: [TransformerEngine 3437]"
    "(https://github.com/NVIDIA/TransformerEngine/issues/3437)",
    shows="Frequent words learn as slowly as rare ones; a tied table learns from one end of the model.",
)  # fmt: skip
def what_is_used_twice_gathers_both_gradients() -> None:
    assert len(np.unique(TOKENS)) < TOKENS.size
    for changes in ({"tied": "unembed"}, READS | {"tied": "all", "n_layers": 1}):
        cfg, params = model(**changes)
        the_gradient_is_right(cfg, params, *(name for name in flatten(params) if "embed" in name))


@put_in("a repeated token's last gradient stays")
def _(patch: Patch) -> None:
    def wrong(rows: Any, ids: Any, n: int) -> Any:
        out = np.zeros((n, rows.shape[-1]), dtype=rows.dtype)
        out[ids] = rows
        return out

    patch.setattr(embedding, "scatter_add_rows", wrong)


@put_in("the unembedding's share takes the place of the embedding's")
def _(patch: Patch) -> None:
    patch.setattr(embedding, "backward", lambda dx, c, scale=1.0: embedding.Params(0 * c.W_E))


# ---------------------------------------------------------------------------------------------------- decoding


@mistake(
    19, "Positions under a cache",
    "With a cache of keys and values, a new token's position is counted from the wrong place",
    found="[tiny-llm 46](https://github.com/skyzh/tiny-llm/pull/46), [mosaicml/examples 257]"
    "(https://github.com/mosaicml/examples/pull/257), [transformers 40877]"
    "(https://github.com/huggingface/transformers/pull/40877)",
    shows="Fluent text that slowly goes astray; the model itself is fine.",
)  # fmt: skip
def the_cache_says_what_recomputing_says_at_every_step() -> None:
    for position in ("sinusoidal", "rope", "t5"):
        cfg, params = model(position=position, d_head=4)
        kept, prompt = kv_cache.start(params, cfg, B), 2
        for first, last in ((0, prompt), *((t, t + 1) for t in range(prompt, T))):
            said, kept = kv_cache.advance(params, TOKENS[:, first:last], kept, cfg)
            want = logits_of(params, cfg, tokens=TOKENS[:, :last])[0][:, -1:]
            assert np.abs(said - want).max() <= 1e-12, (position, last)


@put_in("each call counts from 0 again")
def _(patch: Patch) -> None:
    patch.setattr(
        kv_cache, "usual_ids", lambda n, cfg: natural(n) if n <= 2 else np.concatenate([natural(2), natural(n - 2)])
    )


@put_in("the prompt's length is counted twice")
def _(patch: Patch) -> None:
    patch.setattr(kv_cache, "usual_ids", lambda n, cfg: natural(n) + 2 * (natural(n) >= 2))


SYMBOLS = 3  # beside <unk>; an answer of up to LIMIT of them can be tried out whole
LIMIT = 3
SOURCES = [[4, 5, units.EOS], [6, units.EOS], [5, 5, 4, 6, 4, units.EOS], [4, 4, units.EOS]]


def _speaking() -> tuple[ModelConfig, Any]:
    return model(**READS, vocab_size=len(units.SPECIALS) + SYMBOLS, n_ctx=LIMIT + 1, source_n_ctx=8)


@mistake(
    20, "Beam: ended answers, penalty",
    "In a beam, answers that have ended are carried on, or the length penalty is applied twice",
    found="[ParlAI 2058](https://github.com/facebookresearch/ParlAI/issues/2058), [sockeye 233]"
    "(https://github.com/awslabs/sockeye/pull/233); a penalty without effect: [OpenNMT-tf 456]"
    "(https://github.com/OpenNMT/OpenNMT-tf/pull/456)",
    shows="A wider beam is worse than a narrow one; answers too long or too short, which is put down to beam search.",
)  # fmt: skip
def a_beam_as_wide_as_all_answers_finds_the_best() -> None:
    cfg, params = _speaking()
    words = [t for t in range(cfg.vocab_size) if t not in (units.PAD, units.BOS, units.EOS)]
    whole = [a for n in range(LIMIT + 1) for a in itertools.product(words, repeat=n)]
    for source in SOURCES:
        said = _log_probabilities(cfg, params, source, whole)
        scores = [p / ((5 + len(a) + 1) / 6) ** 0.8 for a, p in zip(whole, said, strict=True)]
        best = sorted(zip(scores, whole, strict=True), reverse=True)
        wide = decoding.Beam(len(whole), length_penalty=0.8, n_best=len(whole))
        [found] = decoding.decode(params, cfg, [source], wide, LIMIT)
        assert [a.tokens for a in found] == [a for _, a in best]
        np.testing.assert_allclose([a.score for a in found], [score for score, _ in best], rtol=1e-10)
        [[narrow]], [[greedy]] = (
            decoding.decode(params, cfg, [source], how, LIMIT) for how in (decoding.Beam(1), decoding.Greedy())
        )
        assert narrow.tokens == greedy.tokens


def _log_probabilities(cfg: ModelConfig, params: Any, source: list[int], whole: list[tuple[int, ...]]) -> list[float]:
    """Of each answer and its <eos>, by the model's forward: what stands behind it is not seen."""
    filled = [(*a, units.EOS, *[units.PAD] * (LIMIT - len(a))) for a in whole]
    tokens = np.array([(units.BOS, *a[:-1]) for a in filled])
    z, _ = encoder_decoder.forward(params, np.tile(source, (len(whole), 1)), tokens, cfg)
    log_p = np.take_along_axis(z - np.log(np.exp(z).sum(-1, keepdims=True)), np.array(filled)[..., None], -1)[..., 0]
    return [float(row[: len(a) + 1].sum()) for row, a in zip(log_p, whole, strict=True)]


@put_in("what has ended stays in the beam")
def _(patch: Patch) -> None:
    right = beam._carry_on

    def wrong(speaker: Any, kept: Any, now: Any, best: Any, going: Any, *rest: Any) -> Any:
        return right(speaker, kept, now, best, going | (np.isfinite(best.total) & (best.token == units.EOS)), *rest)

    patch.setattr(beam, "_carry_on", wrong)


@put_in("the penalty twice")
def _(patch: Patch) -> None:
    right = beam.penalty
    patch.setattr(beam, "penalty", lambda n, alpha: right(n, alpha) ** 2)


@mistake(
    21, "<eos> cut off",
    "What is cut to a length loses its <eos>, so that the model never learns to stop",
    found="annotated-transformer, `collate_batch`: a negative number of places to pad cuts, as a comment warns; "
    "[esm 157](https://github.com/facebookresearch/esm/issues/157)",
    shows="Answers to long sources go on until the limit; short ones are fine.",
)  # fmt: skip
def every_text_ends_with_its_eos_or_is_not_there() -> None:
    rows = [("ab", "ba"), ("abcab", "bacba"), ("c", "c")]
    task = text.build("reverse", rows, rows, rows)
    with pytest.raises(BadInput, match="longer than max_length = 4"):
        text.build("reverse", rows, rows, rows, max_length=4)
    short = text.build("reverse", rows, rows, rows, max_length=4, drop_long=True)
    assert [len(some.train.tokens) for some in (task, short)] == [3, 2]
    for batch in (task.train, task.test, short.train):
        for ids in (batch.source, batch.targets):
            assert ids is not None
            ends = [row[row != units.PAD][-1] for row in ids]
            assert set(ends) == {units.EOS} and ((ids == units.EOS).sum(-1) == 1).all()


@put_in("longer texts are cut")
def _(patch: Patch) -> None:
    right = text._ended

    def wrong(ids: Any, width: int) -> Any:
        out, there = right(ids, width)
        return out[:, :-1], there[:, :-1]

    patch.setattr(text, "_ended", wrong)


@mistake(
    22, "Decoded past <eos>",
    "A batch is decoded until its last answer ends, the others past their own <eos>; or padding is seen",
    found="[h-transformer-1d 9](https://github.com/lucidrains/h-transformer-1d/issues/9), "
    "[transformers 31261](https://github.com/huggingface/transformers/issues/31261); padding: [torchtext 2096]"
    "(https://github.com/pytorch/text/pull/2096)",
    shows="The score hangs on the batch's size.",
)  # fmt: skip
def a_batch_is_answered_as_one_by_one() -> None:
    cfg, params = _speaking()
    sources = [*SOURCES, [6, 6, 6, units.EOS], [5, units.EOS], [4, 6, 5, 6, units.EOS]]
    lengths = set()
    for how in (decoding.Greedy(), decoding.Beam(3, n_best=2), decoding.Sample(seed=3)):
        batched = decoding.decode(params, cfg, sources, how)
        for source, together in zip(sources, batched, strict=True):
            [alone] = decoding.decode(params, cfg, [source], how)
            assert [a.tokens for a in together] == [a.tokens for a in alone], how
            lengths |= {len(a.tokens) for a in alone}
    assert len(lengths) > 2


@put_in("until the last answer has ended")
def _(patch: Patch) -> None:
    right = decoding.speak

    def wrong(talker: Any, source: Any, rules: Any, choose: Any = likeliest, present: Any = None) -> Any:
        tokens, kept = talker.begin(source, present)
        said: list[Any] = []
        while len(said) < rules.limit and not (said and (np.stack(said) == units.EOS).any(0).all()):
            logits, kept = talker.advance(tokens, kept)
            said.append(choose(log_probabilities(logits, 0, rules), np.arange(len(source)), len(said)))
            tokens = said[-1][:, None]
        rest = right(talker, source, rules, choose, present)
        return [
            a._replace(tokens=tuple(t for t in row.tolist() if t != units.EOS))
            for a, row in zip(rest, np.stack(said, axis=1), strict=True)
        ]

    patch.setattr(decoding, "speak", wrong)


@put_in("padding of the sources is seen")
def _(patch: Patch) -> None:
    right = decoding._padded
    patch.setattr(decoding, "_padded", lambda sources: (right(sources)[0], None))


# ---------------------------------------------------------------------------------------------------- precision


@mistake(
    23, "Precision, and what a name means",
    "A float64 scalar turns float32 into float64, or the same name means another function in another library",
    found="[netket 1218](https://github.com/netket/netket/pull/1218) (`np.sqrt` promotes); jax.nn.gelu is tanh's form "
    "by default, torch.nn.functional.gelu is not",
    shows="Twice the memory and half the speed, silently; weights that give other answers where they are loaded.",
)  # fmt: skip
def float32_stays_float32_and_jax_says_the_same() -> None:
    import jax

    cfg, params = model(embed_scale=True)
    single = map_tree(lambda a: a.astype(np.float32), params)
    goal, batch = Objective(cfg, T), Batch(TOKENS, TARGETS)
    loss, grads = loss_and_grads(single, batch, goal)
    logits = objective.forward(single, batch, goal)[0]
    assert {a.dtype.name for a in (loss, logits, *flatten(grads).values())} == {"float32"}
    for kind in activations.FUNCTIONS:
        there = jax.jit(lambda x, kind=kind: activations.forward(x, kind)[0])(logits)
        np.testing.assert_allclose(np.asarray(there), activations.forward(logits, kind)[0], atol=1e-5)


@put_in("√D as a float64 scalar")
def _(patch: Patch) -> None:
    right = embedding.forward

    def wrong(p: Any, tokens: Any, scale: float = 1.0) -> Any:
        x, c = right(p, tokens)
        return x * np.sqrt(np.float64(D)), c

    patch.setattr(embedding, "forward", wrong)


@put_in("gelu is another gelu under JAX")
def _(patch: Patch) -> None:
    exact, approximate = activations.gelu, activations.gelu_tanh
    patch.setitem(activations.FUNCTIONS, "gelu", lambda x: (approximate if is_jax_array(x) else exact)(x))


# ---------------------------------------------------------------------------------------------------- what is reported


@mistake(
    24, "Teacher forcing reported",
    "Accuracy under teacher forcing is reported as the task's accuracy",
    found="[yoyodyne 70](https://github.com/CUNY-CL/yoyodyne/issues/70), [keon/seq2seq 8]"
    "(https://github.com/keon/seq2seq/issues/8), transformer_scan (test.py: argmax of `model(batch.src, batch.trg)`)",
    shows="A figure that is too good: each token is judged after a beginning that the model did not have to find.",
)  # fmt: skip
def only_decoded_strings_have_an_exact_match() -> None:
    """A parrot, which says `a` whatever it is asked: half of the tokens are right, and no answer is."""
    rows = [("ab", "aab"), ("b", "ab"), ("bb", "aaba")]
    task = text.build("parrot", rows, rows, rows)
    wish = {"model": {**READS, "d_model": 8, "n_heads": 2, "unembed_bias": True}}
    goal = step.make_objective(resolve(wish), task)
    params = map_tree(np.zeros_like, objective.init(goal.model, 0))
    params.unembed.b_U[task.vocabulary.index("a")] = 9.0
    found = evaluation.summarise(task, "test", objective.scores(params, task.test, goal))
    assert found.get("test_teacher_forced_accuracy") == 6 / 12
    assert not [
        name for name in (*found, *evaluation.names(task)) if name.endswith("accuracy") and "forced" not in name
    ]
    talk = answers.Talk(params, goal.model, task.text.source, task.text.target)
    scored = scores.score(talk, task.text.pairs["test"], ["exact_match"])
    assert scored.said == ["aaaa"] * 3 and scored.metrics == {"exact_match": 0.0}


@put_in("it is called accuracy")
def _(patch: Patch) -> None:
    patch.setattr(evaluation, "_accuracy", lambda task: "accuracy")


@put_in("right tokens count, not right answers")
def _(patch: Patch) -> None:
    def wrong(said: Any, references: Any) -> float:
        hits = [a == b for s, right in zip(said, references, strict=True) for a, b in zip(s, right[0], strict=False)]
        return sum(hits) / len(hits)

    patch.setitem(metrics.METRICS, "exact_match", wrong)


# ---------------------------------------------------------------------------------------------------- the tests


def _cases() -> Iterator[Any]:
    for m in MISTAKES.values():
        for how, wrong in m.wrong.items():
            yield pytest.param(m, wrong, id=f"{m.number:02} {how}")


@pytest.mark.parametrize("made", [*MISTAKES.values()], ids=lambda m: f"{m.number:02} {m.check.__name__}")
def test_the_code_passes(made: Mistake) -> None:
    made.check()


@pytest.mark.parametrize(("made", "wrong"), [*_cases()])
def test_the_check_fails_once_the_mistake_is_made(made: Mistake, wrong: Any, monkeypatch: Patch) -> None:
    wrong(monkeypatch)
    with pytest.raises(AssertionError):
        made.check()


def test_no_mistake_stands_without_its_proof() -> None:
    assert sorted(MISTAKES) == list(range(1, 25))
    assert all(m.wrong for m in MISTAKES.values())


def test_at_its_initial_gain_a_wrong_layer_norm_looks_right(monkeypatch: Patch) -> None:
    """Why no gradient here is checked at initial values."""
    monkeypatch.setattr(layer_norm, "backward", _gain_outside)
    _layer_norm_gradient(gain=np.ones(D))


# ---------------------------------------------------------------------------------------------------- the page

PAGE = Path(__file__).parent.parent / "docs" / "mistakes.md"
INTRODUCTION = """\
# Classic mistakes

<!-- Written by: python tests/test_mistakes.py > docs/mistakes.md -->

A Transformer with a mistake in it trains. The loss falls, samples look like language, and what is missing is a few
points that nobody knows were there. These are the mistakes that people do make, with where they were found. For each
there is a property that holds without it and breaks with it: a test in
[test_mistakes.py](../tests/test_mistakes.py), which passes on our code, and is shown to fail once the mistake is
put in.

```sh
pytest tests/test_mistakes.py -k "10" -v     # one of them
```
"""


def page() -> str:
    sections = [INTRODUCTION]
    for m in sorted(MISTAKES.values()):
        sections.append(
            f"## {m.number}. {m.name.replace('<', '&lt;')}\n\n"
            f"{m.what.replace('<', '&lt;')}.\n\n"
            f"*Found in* {m.found}.\n\n"
            f"*How it shows.* {m.shows}\n\n"
            f"*Told apart by* `{m.check.__name__}`, which fails with: {'; '.join(m.wrong)}.\n"
        )
    return "\n".join(sections)


def test_the_page_is_that_of_this_file() -> None:
    assert PAGE.read_text("utf-8") == page(), "write it anew: python tests/test_mistakes.py > docs/mistakes.md"


if __name__ == "__main__":
    print(page(), end="")
