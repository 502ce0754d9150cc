"""Guards batching: padding changes nothing, epochs miss nobody, steps hang on seed and number, parts make a whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import random_like

from onelayer.arrays import flatten, generator, map_tree
from onelayer.errors import BadInput
from onelayer.layers import cross_entropy
from onelayer.models.config import ModelConfig
from onelayer.positions import METHODS
from onelayer.tasks import Batch
from onelayer.training.batches import Batches, chunks, lengths, narrow
from onelayer.training.objective import Objective, accumulated, init, loss_and_grads, scores

PAD, V, SHAPE = 0, 9, {"d_model": 8, "n_heads": 2, "d_mlp": 12, "norm": "pre", "activation": "gelu"}
MODELS = {
    "decoder_only": ModelConfig(architecture="decoder_only", vocab_size=V, n_ctx=9, **SHAPE),
    "encoder_decoder": ModelConfig(
        architecture="encoder_decoder", vocab_size=V, n_ctx=9, source_vocab_size=7, source_n_ctx=8, **SHAPE
    ),
}


def drawn(
    n: int, source: bool, seed: int = 0, longest: tuple[int, int] = (6, 7), width: tuple[int, int] = (8, 9)
) -> Batch:
    """Examples of all lengths, padded to `width`."""
    rng = generator(seed, "examples")
    (S, T), s, t = width, rng.integers(1, longest[0] + 1, n), rng.integers(1, longest[1] + 1, n)
    said, read = np.arange(T) < t[:, None], np.arange(S) < s[:, None]
    tokens, targets = (np.where(said, rng.integers(1, V, (n, T)), PAD) for _ in range(2))
    if not source:
        return Batch(tokens, targets, said.astype(float))
    return Batch(tokens, targets, said.astype(float), np.where(read, rng.integers(1, 7, (n, S)), PAD), read)


def batches(train: Batch, seed: int = 0, **settings) -> Batches:
    return Batches(train, settings.pop("size", None), seed, MODELS["encoder_decoder"], **settings)


# ---------------------------------------------------------------------------------------------------- padding


def close(a, b) -> bool:
    pairs = ((x * 1.0, flatten(b)[name] * 1.0) for name, x in flatten(a).items())
    return all(np.max(np.abs(x - y)) <= 1e-12 * (1 + np.max(np.abs(x))) for x, y in pairs)


@pytest.mark.parametrize("position", [name for name in METHODS if name not in ("random_fixed", "binary")])
@pytest.mark.parametrize("kind", MODELS)
def test_padding_changes_nothing(kind, position):
    """Loss, gradients and scores, with smoothing on: of examples one by one, of the narrow batch and of the wide."""
    model = MODELS[kind].model_copy(update={"position": position})
    goal = Objective(model, read=9, smoothing=0.1, never=PAD)
    batch = drawn(5, source=kind == "encoder_decoder")
    params = map_tree(lambda x: x + 0.1 * random_like(x), init(model, 0))
    cut = narrow(batch, np.arange(5), lengths(batch))
    assert cut.tokens.shape[1] < batch.tokens.shape[1]
    wide, tight = (loss_and_grads(params, b, goal) for b in (batch, cut))
    alone = accumulated(params, [narrow(batch, np.array([i]), lengths(batch)) for i in range(5)], goal)
    for other in (tight, alone):
        assert abs(wide[0] - other[0]) <= 1e-12
        assert close(wide[1], other[1])
    assert close(scores(params, batch, goal), scores(params, cut, goal))


def test_smoothing_puts_no_mass_on_padding():
    logits, targets = random_like(np.zeros((3, V))), np.array([1, 5, 8])
    _, cache = cross_entropy.forward(logits, targets, smoothing=0.3, never=PAD)
    q = cache.wanted
    assert np.allclose(q.sum(axis=1), 1)
    assert not q[:, PAD].any()
    at_best = cross_entropy.forward(np.log(np.maximum(q, 1e-300)), targets, smoothing=0.3, never=PAD)
    entropy = -np.sum(q * np.log(np.maximum(q, 1e-300))) / 3
    assert at_best[0] == pytest.approx(entropy, rel=1e-12)
    assert np.max(np.abs(cross_entropy.backward(at_best[1]))) <= 1e-15


# ---------------------------------------------------------------------------------------------------- by tokens


@given(st.integers(1, 60), st.integers(13, 80), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_sees_each_example_once_within_the_limit(n, tokens, width, seed):
    train = drawn(n, source=True, seed=seed)
    some, of = batches(train, seed, tokens=max(tokens, 6 + 7 + 2 * width), bucket=width), lengths(train)
    for epoch in range(2):
        parts = [some.indices(epoch * some.an_epoch + i) for i in range(some.an_epoch)]
        assert sorted(np.concatenate(parts).tolist()) == list(range(n))
        for rows in parts:
            assert len(rows) * (of.source[rows].max() + of.target[rows].max()) <= max(tokens, 6 + 7 + 2 * width)
    assert sum(some.tokens(step) for step in range(some.an_epoch)) == train.weights.sum()


def test_a_step_hangs_on_seed_and_number_alone():
    train = drawn(200, source=True)
    one, other = (batches(train, 3, tokens=120, bucket=2) for _ in range(2))
    later = [one.at(step) for step in range(3 * one.an_epoch)]
    for step in (2 * one.an_epoch + 1, 5, 0, one.an_epoch):
        assert all(np.array_equal(a, b) for a, b in zip(other.at(step), later[step], strict=True) if a is not None)
    assert not np.array_equal(one.indices(0), one.indices(one.an_epoch)), "each epoch draws anew"
    assert not np.array_equal(one.indices(0), batches(train, 4, tokens=120, bucket=2).indices(0))


def test_batches_waste_little_and_none_is_left_with_a_few():
    train = drawn(4000, source=True, longest=(25, 25), width=(30, 30))
    some = batches(train, tokens=1000, bucket=1)
    filled = [some.indices(i) for i in range(some.an_epoch)]
    padded = sum(len(r) * int(some.lengths.source[r].max() + some.lengths.target[r].max()) for r in filled)
    real = int(some.lengths.source.sum() + some.lengths.target.sum())
    assert real / padded > 0.9
    assert min(len(r) * int(some.lengths.source[r].max() + some.lengths.target[r].max()) for r in filled) > 500


def test_a_limit_that_the_longest_example_passes_is_refused_with_the_number():
    with pytest.raises(BadInput, match=r"longest example, which has 1[0-9] tokens.*allowed"):
        batches(drawn(50, source=True), tokens=9, bucket=1)


def test_examples_of_one_length_stay_as_they_are():
    batch = Batch(np.arange(60).reshape(12, 5), np.arange(60).reshape(12, 5))
    some = batches(batch, tokens=20)
    assert some.an_epoch == 3
    assert some.at(0).tokens.shape == (4, 5)
    assert [rows for rows, _ in chunks(batch, 5)] == [slice(0, 5), slice(5, 10), slice(10, 15)]


def test_chunks_hold_every_example_once_with_its_own_kind():
    batch = drawn(40, source=True)
    found = list(chunks(batch, 7))
    assert sorted(int(row) for rows, _ in found for row in np.arange(40)[rows]) == list(range(40))
    widths = [part.tokens.shape[1] + part.source.shape[1] for _, part in found]
    assert widths == sorted(widths)
    for rows, part in found:
        assert np.array_equal(part.tokens, batch.tokens[rows, : part.tokens.shape[1]])


# ---------------------------------------------------------------------------------------------------- parts of a step


@pytest.mark.parametrize("how", [{"tokens": 60, "bucket": 2}, {"size": 6}])
@pytest.mark.parametrize("kind", MODELS)
def test_the_gradient_of_the_parts_is_that_of_the_whole(kind, how):
    model = MODELS[kind]
    goal = Objective(model, read=9, smoothing=0.1, never=PAD)
    some = batches(drawn(31, source=kind == "encoder_decoder"), accumulate=3, **how)
    params = map_tree(lambda x: x + 0.1 * random_like(x), init(model, 0))
    for step in (0, some.an_epoch // 3):  # the second reaches over the end of an epoch
        whole = some.at(step)
        parts = some.parts(whole, step)
        assert len(parts) == 3
        assert sum(len(part.tokens) for part in parts) == len(whole.tokens)
        (loss, grads), (a_loss, a_grads) = loss_and_grads(params, whole, goal), accumulated(params, parts, goal)
        assert abs(loss - a_loss) <= 1e-12
        assert close(grads, a_grads)


def test_all_examples_in_every_step_cannot_be_accumulated():
    with pytest.raises(BadInput, match="accumulate = 2"):
        batches(drawn(5, source=True), accumulate=2)
