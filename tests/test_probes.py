"""Guards the seven probes: answers as defined, ceilings as enumerated, and hand-set weights of one layer solve each."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelayer import cli, tasks
from onelayer.arrays import map_tree, zeros_like_tree
from onelayer.errors import BadInput
from onelayer.models import decoder_only
from onelayer.models.config import ModelConfig
from onelayer.tasks import probes

N = 16
NAMES = tuple(probes.PROBES)


# ---------------------------------------------------------------------------------------------------- answers


def answer(probe: str, seen: list[int]) -> int | None:
    """What the docstring says, for the last place of what was seen; None where nothing is asked."""
    t, letters = len(seen) - 1, [x % 8 for x in seen]
    if probe == "lookup":
        return letters[letters[t]] if t >= 8 else None
    if probe == "back":
        return letters[t - 3] if t >= 3 else None
    if probe in ("recent", "nth"):
        marked = [x - 8 for x in seen if x >= 8]
        n = 1 if probe == "recent" else 2
        return marked[-n] if len(marked) >= n else None
    if probe == "majority":
        counts = Counter(letters).most_common()
        return counts[0][0] if len(counts) == 1 or counts[0][1] > counts[1][1] else None
    m = seen.index(16) if 16 in seen else t + 1
    i = t - m  # from 1
    if not 1 <= i <= m or 16 in seen[m + 1 :]:
        return None
    return letters[i - 1] if probe == "align" else letters[m - i]


@pytest.mark.parametrize("probe", NAMES)
@given(seed=st.integers(0, 10**6), length=st.integers(9, 30))
@settings(max_examples=10, deadline=None)
def test_every_answer_is_the_one_defined(probe, seed, length):
    batch = probes.draw(probe, 3, length, np.random.default_rng(seed))
    for tokens, targets, weights in zip(*batch[:3], strict=True):
        for t in range(length):
            expected = answer(probe, list(tokens[: t + 1]))
            assert (expected is not None) == bool(weights[t]), (probe, t)
            assert expected is None or expected == targets[t], (probe, t)


@pytest.mark.parametrize("probe", NAMES)
def test_beyond_asks_only_what_is_new(probe):
    tokens, _, weights, *_ = probes.draw(probe, 200, 32, np.random.default_rng(0), beyond=24)
    assert weights is not None
    assert weights.any(axis=1).mean() > 0.95  # of `majority`, a few are tied throughout
    if probe in probes.PAIRED:
        digits = np.argmax(tokens == probes.EQUALS, axis=1)
        assert (2 * digits + 1 > 24).all()
        assert set(digits) == {12, 13, 14, 15}
        assert (weights.sum(axis=1) == digits).all()
    else:
        assert not weights[:, :24].any()


def test_letters_are_uniform():
    tokens = probes.draw("back", 4000, 16, np.random.default_rng(0)).tokens
    assert np.abs(np.bincount(tokens.ravel(), minlength=8) / tokens.size - 1 / 8).max() < 0.005
    marked = probes.draw("recent", 4000, 16, np.random.default_rng(0)).tokens >= 8
    assert abs(marked.mean() - probes.MARKED) < 0.01


# ---------------------------------------------------------------------------------------------------- ceilings


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_most_common_share_by_enumeration(n):
    every = [max(Counter(word).values()) / n for word in itertools.product(range(8), repeat=n)]
    assert probes.most_common_share(n)[n] == pytest.approx(np.mean(every), rel=1e-12)


def test_the_most_common_share_of_many_letters_by_sampling():
    counts = np.random.default_rng(0).multinomial(200, np.full(8, 1 / 8), size=20_000)
    assert probes.most_common_share(256)[200] == pytest.approx(counts.max(axis=1).mean() / 200, rel=2e-3)


@pytest.mark.parametrize("probe", NAMES)
@pytest.mark.parametrize(("length", "beyond"), [(10, 0), (16, 9)])
def test_the_ceiling_is_what_the_best_guess_reaches(probe, length, beyond):
    """The guess: the most frequent candidate in the multiset of what stood before, the last token being known."""
    batch = probes.draw(probe, 6000, length, np.random.default_rng(1), beyond)
    right, asked = 0, 0
    for tokens, targets, weights in zip(*batch[:3], strict=True):
        for t in np.flatnonzero(weights):
            right += targets[t] == guess(probe, sorted(tokens[:t]), tokens[t])
            asked += 1
    assert probes.order_free_ceiling(probe, length, beyond) == pytest.approx(right / asked, abs=0.012)


def guess(probe: str, before: list[int], last: int) -> int:
    marked = [x - 8 for x in before if x >= 8 and x != 16]
    letters = [x % 8 for x in before if x != 16]
    if probe == "recent":
        return last - 8 if last >= 8 else Counter(marked).most_common()[0][0]
    if probe == "nth":
        return Counter(marked).most_common()[0][0]
    if probe == "majority":
        letters.append(last % 8)
    return Counter(letters).most_common()[0][0]


# ---------------------------------------------------------------------------------------------------- one layer can


P = 16 + 100  # places that a table may need
D = 17 + P + 8  # features: the token, its place, and what attention fetched


def solver(probe: str) -> tuple[ModelConfig, decoder_only.Params]:
    """One layer, one head, weights set by hand; tokens and places are one-hot. The feed-forward network is silent."""
    position, numbering = probes.SOLVED_BY[probe]
    ids = {"digits": tuple(range(8)), "offset": 48} if numbering != "sequential" else {}
    if numbering == "coupled":
        ids |= {"equals": probes.EQUALS, "operand_order": "low_first", "sum_order": "high_first"}
    constants = {"t5": {"buckets": 60, "furthest": 61}, "cope": {"positions": 4}}.get(position, {})
    cfg = ModelConfig.model_validate(
        {
            "vocab_size": 17, "n_ctx": 64, "d_model": D, "n_heads": 1, "d_head": D, "d_mlp": 1, "position": position,
            "position_settings": constants, "position_ids": numbering, "position_ids_settings": ids,
        }
    )  # fmt: skip
    p = zeros_like_tree(decoder_only.init(cfg, 0))
    p.embed.W_E[:, :17] = np.eye(17)
    attn, place, sharp = p.blocks[0].attn, 17 + np.arange(P), 400 * np.sqrt(D)  # scores are divided by √K
    for token in range(16):
        attn.W_V[0, token, token % 8] = 1  # the letter, marked or not
    attn.W_O[0, np.arange(8), D - 8 + np.arange(8)] = 1
    p.unembed.W_U[D - 8 + np.arange(8), np.arange(8)] = 1

    if position == "learned":
        rows = len(p.pos_embed.W_pos)
        p.pos_embed.W_pos[np.arange(rows), place[:rows]] = 1
        attn.W_K[0, place, place] = sharp
    if probe == "lookup":
        attn.W_Q[0, np.arange(8), place[:8]] = 1  # a letter looks for the place that it names
    elif probe == "align":
        attn.W_Q[0, place, place] = 1  # an id for its equal: the other digit, and itself
        p.unembed.W_U[np.arange(8), np.arange(8)] = -0.5  # which is taken off again
    elif probe == "mirror":
        attn.W_Q[0, place[1:], place[:-1]] = 1  # an id for the one before it
    elif probe == "back":
        attn.pos.W_bias[0] = -30.0 * np.abs(np.arange(60) - 3)
    elif probe in ("recent", "nth"):
        attn.W_Q[0, :17, 0] = 1  # all look for marked ones
        attn.W_K[0, 8:16, 0] = sharp
    if probe == "recent":
        attn.pos.W_bias[0] = -5.0 * np.arange(60)  # near ones first
    if probe == "nth":
        attn.W_K[0, :8, 0] = -sharp  # unmarked ones do not count
        attn.pos.e[2, 0] = 100  # the second that counts
    return cfg, p


@pytest.mark.parametrize("length", [16, 30, 64])
@pytest.mark.parametrize("probe", NAMES)
def test_one_layer_with_hand_set_weights_is_always_right(probe, length):
    cfg, params = solver(probe)
    batch = probes.draw(probe, 64, length, np.random.default_rng(3))
    ids = cfg.numbering.draw(batch.tokens, np.random.default_rng(0), training=False)
    logits, _ = decoder_only.forward(params, batch.tokens, cfg, ids=ids)
    right = np.argmax(logits, axis=-1) == batch.targets
    assert batch.weights is not None
    assert right[batch.weights > 0].all()


# ---------------------------------------------------------------------------------------------------- the task


@pytest.mark.parametrize("probe", NAMES)
def test_a_task_for_training(probe):
    task = tasks.make("probes", probe=probe, n=12, stretch=2.0, n_train=40, n_test=30)
    assert task.train.tokens.shape == task.train.targets.shape == (40, 12)
    assert task.test.tokens.shape == (30, 24)
    assert task.test.targets.shape == task.test.weights.shape == (30, task.read)
    assert task.n_ctx == 24
    assert 0 < task.facts["order_free_ceiling"] <= 1
    again = tasks.make("probes", probe=probe, n=12, stretch=2.0, n_train=40, n_test=30)
    assert map_tree(np.array_equal, task.test, again.test) == map_tree(lambda _: True, task.test)


@pytest.mark.parametrize("wrong", [
    {"probe": "bck"}, {"n": 8}, {"n": 65}, {"stretch": 0.5}, {"stretch": 5.0}, {"n_train": 0},
], ids=str)  # fmt: skip
def test_bad_settings_are_refused(wrong):
    with pytest.raises(BadInput):
        tasks.make("probes", **wrong)


def test_the_command_refuses_an_unknown_probe(capsys):
    assert cli.run(["train", "probes", "--task.probe", "bakc", "--steps", "1"]) == 2
    assert "did you mean 'back'" in capsys.readouterr().err
