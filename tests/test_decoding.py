"""Guards decoding/: greedy, beam and sampling say what slow, independent implementations say, batched or one by one."""

import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from talking import V, model

from onelayer import positions
from onelayer.arrays import generator
from onelayer.decoding import decode as decoding
from onelayer.decoding import kv_cache, kv_cache_crossed, sampling
from onelayer.decoding.beam import penalty, search
from onelayer.decoding.choices import Answer, Rules, ended_by_limit
from onelayer.decoding.decode import Beam, Greedy, Sample, decode
from onelayer.decoding.one_by_one import speak
from onelayer.decoding.speaker import Crossed
from onelayer.errors import BadInput
from onelayer.models import decoder_only, encoder_decoder
from onelayer.models.config import ModelConfig
from onelayer.tasks.units import BOS, EOS, PAD

RNG = generator(5, "test_decoding")
SOURCES = [[*RNG.integers(4, V, n).tolist(), EOS] for n in (3, 7, 1, 5, 5, 2, 7, 4, 6)]
PROMPTS = [RNG.integers(4, V, n).tolist() for n in (3, 6, 3, 1, 4, 6)]


def log_p(p: Any, cfg: ModelConfig, source: list[int], said: list[int]) -> np.ndarray:
    """log P of the next token, everything computed anew."""
    if cfg.architecture == "decoder_only":
        logits, _ = decoder_only.forward(p, np.array([source + said]), cfg)
    else:
        logits, _ = encoder_decoder.forward(p, np.array([source]), np.array([[BOS, *said]]), cfg)
    z = logits[0, -1]
    return z - z.max() - math.log(np.exp(z - z.max()).sum())


def may_be_said(t: int, limit: int, ends: bool) -> list[int]:
    if ends and t == limit:
        return [EOS]
    return [v for v in range(V) if v not in (PAD, BOS) and (ends or v != EOS)]


def slow_beam(p: Any, cfg: ModelConfig, source: list[int], width: int, alpha: float, limit: int) -> list[Answer]:
    """By lists and sorting, without cache, without early ends."""
    ends = cfg.architecture == "encoder_decoder"
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    found: list[Answer] = []
    for t in range(limit + ends):
        rows = []
        for total, said in live:
            next_p = log_p(p, cfg, source, said)
            rows += [(total + next_p[v], [*said, v]) for v in may_be_said(t, limit, ends)]
        rows.sort(key=lambda row: -row[0])
        live = []
        for total, said in rows[: width - len(found)]:
            if ends and said[-1] == EOS:
                found.append(Answer(tuple(said[:-1]), total, total / ((5 + len(said)) / 6) ** alpha, t == limit))
            else:
                live.append((total, said))
        if not live:
            break
    found += [Answer(tuple(said), total, total / ((5 + len(said)) / 6) ** alpha, True) for total, said in live]
    return sorted(found, key=lambda answer: -answer.score)


def same(found: list[Answer], expected: list[Answer]) -> None:
    assert [a.tokens for a in found] == [a.tokens for a in expected]
    assert [a.cut for a in found] == [a.cut for a in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.log_probability == pytest.approx(b.log_probability, rel=1e-12, abs=1e-12)
        assert a.score == pytest.approx(b.score, rel=1e-12, abs=1e-12)


# ---------------------------------------------------------------------------------------------------- beam and greedy


@pytest.mark.parametrize(("width", "alpha"), [(1, 0.0), (2, 0.6), (5, 0.6), (4, 1.5)])
def test_beam_is_the_slow_beam(width, alpha):
    p, cfg = model()
    found = decode(p, cfg, SOURCES[:6], Beam(width, alpha, n_best=width))
    for source, answers in zip(SOURCES[:6], found, strict=True):
        same(answers, slow_beam(p, cfg, source, width, alpha, cfg.n_ctx - 1))
    lengths = {len(answer.tokens) for answers in found for answer in answers}
    assert len(lengths) > 2  # else nothing left the batch before the others


def test_beam_of_a_decoder_only_model_is_the_slow_beam():
    p, cfg = model(architecture="decoder_only", position="learned", unembed_bias=False)
    found = decode(p, cfg, PROMPTS, Beam(3, 0.6, n_best=3), limit=3)
    for prompt, answers in zip(PROMPTS, found, strict=True):
        assert all(len(a.tokens) == 3 and EOS not in a.tokens for a in answers)
        same(answers, slow_beam(p, cfg, prompt, 3, 0.6, 3))


def test_a_beam_that_drops_nothing_finds_the_best_of_all_sequences():
    p, cfg = model(vocab_size=7, n_ctx=4, source_vocab_size=V)
    limit, sayable = 3, [EOS + 1, 4, 5, 6]
    after = cache(lambda said: log_p(p, cfg, SOURCES[1], list(said)))
    totals = {
        said: sum(after(said[:i])[v] for i, v in enumerate([*said, EOS]))
        for n in range(limit + 1)
        for said in itertools.product(sayable, repeat=n)
    }
    firsts = set()
    for alpha in (0.0, 0.6, 6.0):
        scores = {said: total / ((5 + len(said) + 1) / 6) ** alpha for said, total in totals.items()}
        expected = sorted(scores, key=scores.__getitem__, reverse=True)
        [answers] = decode(p, cfg, SOURCES[1:2], Beam(7**limit, alpha, n_best=85))
        assert len(expected) == len(answers) == 85  # 1 + 4 + 16 + 64
        assert [a.tokens for a in answers] == expected
        np.testing.assert_allclose([a.score for a in answers], [scores[said] for said in expected], rtol=1e-12)
        firsts.add(expected[0])
    assert len(firsts) > 1  # the penalty had a say


@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder_only"])
def test_a_beam_of_one_is_greedy(architecture, alpha):
    p, cfg = model(architecture=architecture)
    sources = SOURCES if architecture == "encoder_decoder" else PROMPTS
    greedy = decode(p, cfg, sources)
    for [one], [other] in zip(decode(p, cfg, sources, Beam(1, alpha)), greedy, strict=True):
        assert one.tokens == other.tokens
        assert one.cut == other.cut
        assert one.log_probability == pytest.approx(other.log_probability, rel=1e-12)


def test_ending_early_changes_no_answer():
    """Fewer answers asked for: the source is done sooner, with the same first answers."""
    p, cfg = model()
    for alpha in (0.0, 0.6, 1.5):
        full = decode(p, cfg, SOURCES, Beam(6, alpha, n_best=6))
        for n in (1, 2, 4):
            for answers, more in zip(decode(p, cfg, SOURCES, Beam(6, alpha, n_best=n)), full, strict=True):
                same(answers, more[:n])


def test_ending_early_saves_steps():
    p, cfg = model()
    calls = {1: 0, 6: 0}
    for n in calls:

        class Counted(Crossed):
            def advance(self, tokens, kept, n=n):
                calls[n] += len(tokens)
                return super().advance(tokens, kept)

        for source in SOURCES:
            search(Counted(p, cfg), np.array([source]), Rules(cfg.n_ctx - 1), 6, 0.0, n)
    assert calls[1] < calls[6]


def test_a_length_penalty_prefers_the_longer_and_is_applied_once():
    assert penalty(1, 0.6) == 1
    assert penalty(7, 1.0) == 2
    p, cfg = model()
    for [answer] in decode(p, cfg, SOURCES, Beam(4, 1.3)):
        assert answer.score == pytest.approx(answer.log_probability / penalty(len(answer.tokens) + 1, 1.3), rel=1e-15)
    short, long = ([len(a.tokens) for [a] in decode(p, cfg, SOURCES, Beam(11, alpha))] for alpha in (0.0, 4.0))
    assert sum(long) > sum(short)


def test_greedy_says_the_likeliest_and_adds_up_its_log_p():
    p, cfg = model()
    found = decode(p, cfg, SOURCES)
    for source, [answer] in zip(SOURCES, found, strict=True):
        said, total, rows = [], 0.0, np.empty(0)
        for t in range(cfg.n_ctx):
            rows = log_p(p, cfg, source, said)
            v = max(may_be_said(t, cfg.n_ctx - 1, True), key=lambda v, rows=rows: rows[v])
            total += rows[v]
            if v == EOS:
                break
            said.append(v)
        assert answer.tokens == tuple(said)
        assert answer.log_probability == answer.score == pytest.approx(total, rel=1e-12)
        assert answer.cut == (len(said) == cfg.n_ctx - 1 and rows[EOS] < -math.log(2))
    assert {a.cut for [a] in found} == {True, False}  # both ways of ending were met


# ---------------------------------------------------------------------------------------------- batched = one by one

HOWS = {
    "greedy": Greedy(),
    "beam": Beam(4, 0.6, n_best=4),
    "sample": Sample(1.3, top_k=6, top_p=0.9, seed=3),
    "samples": Sample(seed=1, n=3),
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder_only"])
def test_batched_is_one_by_one(architecture, how):
    p, cfg = model(architecture=architecture)
    sources = SOURCES if architecture == "encoder_decoder" else PROMPTS
    alone = [decode(p, cfg, [source], how)[0] for source in sources]
    for budget in (20, 10_000):
        for answers, expected in zip(decode(p, cfg, sources, how, budget=budget), alone, strict=True):
            same(answers, expected)
    assert len({a.tokens for answers in alone for a in answers}) > len(sources) // 2  # the answers differ


@pytest.mark.parametrize("position", [name for name in positions.available() if name != "learned"])
def test_beams_that_share_their_source_say_what_each_would_alone(position):
    """For every position method: rows gathered, sources not repeated, padding unseen; no cache in the oracle."""
    p, cfg = model(position=position, norm="post", n_layers=1, spread=0.3)
    for source, answers in zip(SOURCES[:3], decode(p, cfg, SOURCES[:3], Beam(3, 0.6, n_best=3), limit=4), strict=True):
        for found, expected in zip(answers, slow_beam(p, cfg, source, 3, 0.6, 4), strict=True):
            assert found.tokens == expected.tokens
            assert found.score == pytest.approx(expected.score, rel=1e-10)


def test_kernels_change_no_answer(monkeypatch):
    p, cfg = model()
    expected = decode(p, cfg, SOURCES, Beam(4))
    monkeypatch.setattr(decoding, "WORTHWHILE", 1)
    for answers, others in zip(decode(p, cfg, SOURCES, Beam(4)), expected, strict=True):
        same(answers, others)


# ---------------------------------------------------------------------------------------------------- the cache


def test_taken_rows_go_on_as_if_they_had_been_alone():
    p, cfg = model(architecture="decoder_only")
    tokens, rows = RNG.integers(4, V, (5, 6)), np.array([3, 0, 3, 4])
    _, kept = kv_cache.advance(p, tokens[:, :4], kv_cache.start(p, cfg, 5), cfg)
    said, taken = kv_cache.advance(p, tokens[rows, 4:], kv_cache.take(kept, rows), cfg)
    expected, _ = decoder_only.forward(p, tokens[rows], cfg, read=1)
    np.testing.assert_allclose(said, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert taken.length == 6


@pytest.mark.parametrize("position", positions.available())
def test_answers_that_share_a_source_read_as_if_each_had_its_own(position):
    """Three answers to each of the sources 2 and 0, two tokens at once; not equally many before and after."""
    p, cfg = model(position=position)
    source, present = RNG.integers(4, V, (3, 6)), np.arange(6) < np.array([6, 3, 5])[:, None]
    tokens, sources = RNG.integers(4, V, (3, 4)), np.array([2, 0])
    rows = np.array([2, 2, 2, 0, 0, 0])
    ahead = np.concatenate([tokens[rows], RNG.integers(4, V, (6, 2))], axis=1)
    kept = kv_cache_crossed.start(p, source, cfg, present)
    _, kept = kv_cache_crossed.advance(p, tokens, kept, cfg)
    said, kept = kv_cache_crossed.advance(p, ahead[:, 4:], kv_cache_crossed.take(kept, rows, sources), cfg)
    expected, _ = encoder_decoder.forward(p, source[rows], ahead, cfg, source_present=present[rows])
    np.testing.assert_allclose(said, expected[:, -1:], rtol=0, atol=1e-12 * np.abs(expected).max())
    assert kept.sources[0].k.shape[0] == 2
    assert kept.layers[0].k.shape[0] == 6


def test_a_decoder_only_model_of_lines_ends_them():
    p, cfg = model(7, towards_end=2.0, architecture="decoder_only")
    found = [a for [a] in decode(p, cfg, PROMPTS, limit=3, ends=True)]
    assert {a.cut for a in found} == {True, False}
    for [one], other in zip(decode(p, cfg, PROMPTS, Beam(1, 0.0), limit=3, ends=True), found, strict=True):
        same([one], [other])
    for prompt, answer in zip(PROMPTS, found, strict=True):
        if not answer.cut and len(prompt) + len(answer.tokens) <= cfg.n_ctx:
            assert log_p(p, cfg, prompt, list(answer.tokens)).argmax() == EOS


def test_a_text_longer_than_the_window_goes_on_from_its_latter_half():
    p, cfg = model(architecture="decoder_only", position="learned", n_ctx=8)
    [[answer]] = decode(p, cfg, PROMPTS[:1], limit=20)
    window = list(PROMPTS[0])
    for v in answer.tokens:
        if len(window) > 8:
            window = window[-4:]
        assert v == max(may_be_said(0, 20, False), key=log_p(p, cfg, window, []).__getitem__)
        window.append(v)
    assert len(answer.tokens) == 20


def test_who_has_ended_leaves_the_batch():
    p, cfg = model()
    rows: list[int] = []

    class Watched(Crossed):
        def advance(self, tokens, kept):
            rows.append(len(tokens))
            return super().advance(tokens, kept)

    source = np.array([s for s in SOURCES if len(s) == 8] * 3)
    source[:, :3] = RNG.integers(4, V, (len(source), 3))
    answers = speak(Watched(p, cfg), source, Rules(8))
    lengths = [len(a.tokens) for a in answers]
    assert rows == [sum(n >= t for n in lengths) for t in range(max(lengths) + 1)]


# ---------------------------------------------------------------------------------------------------- sampling


def test_cutting_off_the_tail_keeps_what_the_definitions_keep():
    p = np.array([[0.1, 0.4, 0.05, 0.25, 0.2], [0.2, 0.2, 0.2, 0.2, 0.2]])
    order, q = sampling.shaped(np.log(p))
    np.testing.assert_allclose(np.take_along_axis(p, order, 1), q, rtol=1e-14)
    assert order[1].tolist() == [0, 1, 2, 3, 4]

    _, q = sampling.shaped(np.log(p), top_k=2)
    np.testing.assert_allclose(q, [[0.4 / 0.65, 0.25 / 0.65, 0, 0, 0], [0.5, 0.5, 0, 0, 0]], rtol=1e-14)
    _, q = sampling.shaped(np.log(p), top_p=0.6)  # 0.4 is not enough, 0.65 is
    np.testing.assert_allclose(q[0], [0.4 / 0.65, 0.25 / 0.65, 0, 0, 0], rtol=1e-14)
    _, q = sampling.shaped(np.log(p), top_p=1e-9)
    assert q.tolist() == [[1, 0, 0, 0, 0]] * 2  # one is always left
    _, q = sampling.shaped(np.log(p), temperature=0.5)
    np.testing.assert_allclose(q[0], np.sort(p[0] ** 2)[::-1] / (p[0] ** 2).sum(), rtol=1e-14)
    _, q = sampling.shaped(np.log(p), temperature=0.5, top_k=3, top_p=0.8)  # of 16, 6.25, 4: 0.61 and 0.85
    np.testing.assert_allclose(q[0], [16 / 22.25, 6.25 / 22.25, 0, 0, 0], rtol=1e-14)


def test_what_is_drawn_comes_as_often_as_its_probability_says():
    p = np.array([0.0, 0.5, 0.125, 0.25, 0.125])
    u = np.linspace(0, 1, 800, endpoint=False)[:, None]
    with np.errstate(divide="ignore"):
        rows = np.tile(np.log(p), (800, 1))
    choose = sampling.drawn(u)
    assert (np.bincount(choose(rows, np.arange(800), 0), minlength=5) / 800).tolist() == p.tolist()


def test_samples_are_keyed_by_seed_source_and_turn():
    p, cfg = model()
    first = decode(p, cfg, SOURCES, Sample(seed=1))
    assert first == decode(p, cfg, SOURCES, Sample(seed=1))
    assert first != decode(p, cfg, SOURCES, Sample(seed=2))
    [several] = decode(p, cfg, SOURCES[:1], Sample(seed=1, n=6))
    assert several[0].tokens == first[0][0].tokens
    assert len({a.tokens for a in several}) > 1
    assert [a for [a] in decode(p, cfg, SOURCES[:1] * 6, Sample(seed=1))] == several


def test_a_cold_sample_is_greedy_and_its_score_is_the_models_own():
    p, cfg = model()
    cold = decode(p, cfg, SOURCES, Sample(temperature=1e-6, seed=9))
    greedy = decode(p, cfg, SOURCES)
    for [one], [other] in zip(cold, greedy, strict=True):
        same([one], [other])


# ---------------------------------------------------------------------------------------------------- limits, refusals


def test_neither_padding_nor_beginning_is_ever_said():
    p, cfg = model()
    b_U = p.unembed.b_U.copy()
    b_U[[PAD, BOS]] = 50  # the model would say nothing else
    p = p._replace(unembed=p.unembed._replace(b_U=b_U))
    for how in HOWS.values():
        for answers in decode(p, cfg, SOURCES, how):
            assert all(v not in (PAD, BOS, EOS) for a in answers for v in a.tokens)
            assert all(math.isfinite(a.score) for a in answers)


def test_a_limit_cuts_and_says_so():
    p, cfg = model()
    for [answer] in decode(p, cfg, SOURCES, limit=1):
        assert len(answer.tokens) <= 1
        assert answer.cut == (len(answer.tokens) == 1)
    longer = decode(p, cfg, SOURCES, limit=30)  # sinusoidal positions go on
    assert max(len(a.tokens) for [a] in longer) > cfg.n_ctx


@pytest.mark.parametrize("how", [Greedy(), Beam(3)])
def test_an_answer_as_long_as_the_limit_is_not_cut_where_the_model_ends_it(how):
    p, cfg = model()
    assert not ended_by_limit(3, -0.1, Rules(3)) and not ended_by_limit(2, -9.0, Rules(3))
    assert ended_by_limit(3, -1.0, Rules(3))
    b_U = np.zeros(cfg.vocab_size)
    b_U[5] = 40.0  # it never would
    endless = p._replace(unembed=p.unembed._replace(b_U=b_U))
    assert all(answer.cut and len(answer.tokens) == 3 for [answer] in decode(endless, cfg, SOURCES, how, limit=3))
    for source in SOURCES:
        [free] = decode(p, cfg, [source], how, limit=30)[0]
        if free.cut or not free.tokens:
            continue
        [tight] = decode(p, cfg, [source], Greedy(), limit=len(free.tokens))[0]
        if tight.tokens == free.tokens:
            cost = log_p(p, cfg, source, list(tight.tokens))[EOS]
            assert tight.cut == (cost < -math.log(2))


def test_nothing_to_answer():
    p, cfg = model()
    assert decode(p, cfg, []) == []


@pytest.mark.parametrize(
    ("how", "limit", "words"),
    [
        (Beam(0), None, "1 wide; received 0"),
        (Beam(2, n_best=3), None, "widen"),
        (Beam(2, -1.0), None, "≥ 0"),
        (Beam(2, math.nan), None, "≥ 0"),
        (Sample(0.0), None, "greedy"),
        (Sample(top_k=0), None, "at least 1 token"),
        (Sample(top_p=1.5), None, "share of 1"),
        (Sample(n=0), None, "at least 1 answer"),
        (Greedy(), 0, "at least 1 unit"),
    ],
)
def test_bad_settings_are_refused(how, limit, words):
    p, cfg = model()
    with pytest.raises(BadInput, match=words):
        decode(p, cfg, SOURCES, how, limit)


def test_what_the_positions_do_not_reach_is_refused():
    p, cfg = model(position="learned", source_n_ctx=6)
    decode(p, cfg, [s for s in SOURCES if len(s) <= 6])
    with pytest.raises(BadInput, match=r"a source has 7 units.*after 5"):
        decode(p, cfg, SOURCES)
    with pytest.raises(BadInput, match="allowed: up to 8"):
        decode(p, cfg, SOURCES[:1], limit=9)


def test_a_prompt_must_say_something():
    p, cfg = model(architecture="decoder_only")
    with pytest.raises(BadInput, match="at least one unit"):
        decode(p, cfg, [[]])
