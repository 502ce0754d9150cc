"""Guards words/: answers in strings and their scores, progress, where heads looked, a language model's surprise."""

import math
from typing import Any

import numpy as np
import pytest
from talking import V, model

from onelayer.decoding.decode import Beam, Sample, decode
from onelayer.errors import BadInput
from onelayer.layers import cross_entropy
from onelayer.models import decoder_only, encoder_decoder
from onelayer.tasks import Batch, Pair, Task, Text, arithmetic, language
from onelayer.tasks.text import build
from onelayer.tasks.units import BOS, EOS, SPECIALS, UNK, Units
from onelayer.words.alignment import align
from onelayer.words.answers import Talk, answers, encoded, unknown
from onelayer.words.language import surprise, surprise_at
from onelayer.words.progress import progress
from onelayer.words.scores import in_words, score

LETTERS = Units("characters", (*SPECIALS, *"abcdefg"))
PHONES = Units("words", (*SPECIALS, "AH", "B", "K", "D", "EY", "F", "G"))
TEXTS = ["abc", "gfedcba", "a", "bad", "cafe", "faced"]


def talk(**changes: Any) -> Talk:
    p, cfg = model(**changes)
    return Talk(p, cfg, LETTERS if cfg.architecture == "encoder_decoder" else None, PHONES)


def lm(**changes: Any) -> Talk:
    p, cfg = model(architecture="decoder_only", **changes)
    p.unembed.b_U[UNK] = -50  # every token is one character
    return Talk(p, cfg, None, LETTERS)


def test_an_answer_is_what_was_decoded_put_in_words():
    speaks = talk()
    found = answers(speaks, TEXTS, Beam(3, n_best=3))
    expected = decode(speaks.params, speaks.model, [[*LETTERS.encode(t), EOS] for t in TEXTS], Beam(3, n_best=3))
    for some, tokens in zip(found, expected, strict=True):
        assert [a.tokens for a in some] == [a.tokens for a in tokens]
        assert [a.text for a in some] == [PHONES.decode(a.tokens) for a in tokens]
        assert [a[2:] for a in some] == [a[1:] for a in tokens]
    assert len({a.text for some in found for a in some}) > 5


def test_a_language_models_answer_begins_with_the_prompt():
    [[said]] = answers(lm(), ["bad"], limit=12)
    assert said.text.startswith("bad")
    assert len(said.text) == 15
    assert LETTERS.decode(said.tokens) == said.text[3:]
    with pytest.raises(BadInput, match="text 2 is empty"):
        answers(lm(), ["a", ""])


def test_a_language_model_of_words_begins_and_ends_lines():
    p, cfg = model(architecture="decoder_only")
    speaks = Talk(p, cfg, None, PHONES)
    found = [best for best, *_ in answers(speaks, ["AH B", "", "D"], limit=12)]
    expected = decode(p, cfg, [[EOS, 4, 5], [EOS], [EOS, 7]], limit=12, ends=True)
    assert [a.tokens for a in found] == [a.tokens for [a] in expected]
    assert found[0].text == PHONES.decode([4, 5, *found[0].tokens])
    assert found[1].text == PHONES.decode(found[1].tokens)


def test_unknown_symbols_are_named_and_read_as_unk():
    assert unknown(talk(), ["abc", "axbyx", ""]) == {1: ["x", "y"]}
    assert unknown(lm(), ["z"]) == {0: ["z"]}
    assert encoded(talk(), "ax") == [4, UNK, EOS]


def test_scores_are_of_what_was_said():
    speaks = talk()
    said = [best.text for best, *_ in answers(speaks, TEXTS)]
    pairs = [Pair(t, ("no", s) if i % 2 else ("no such",)) for i, (t, s) in enumerate(zip(TEXTS, said, strict=True))]
    found = score(speaks, pairs, ["exact_match", "word_error_rate"])
    assert found.metrics == {"exact_match": 0.5, "word_error_rate": 0.5}
    assert found.said == said
    assert found.cut == sum(best.cut for best, *_ in answers(speaks, TEXTS)) > 0
    with pytest.raises(BadInput, match="language model"):
        score(lm(), pairs, ["exact_match"])


def test_how_in_words():
    assert in_words(Beam(5, 0.6)) == "beam 5, length penalty 0.6"
    assert in_words(Sample(0.7, top_k=3, seed=4)) == "sampling, temperature 0.7, top-k 3, seed 4"


# ---------------------------------------------------------------------------------------------------- progress


def small_task() -> Task:
    rows = [(t, " ".join(t.upper())) for t in TEXTS]
    return build("spell", rows, rows[:4], rows[4:], "characters", "words")


def test_progress_shows_the_same_examples_each_time_and_judges_more():
    task = small_task()
    p, cfg = model(vocab_size=len(task.vocabulary), source_vocab_size=len(task.source_vocabulary))
    look = progress(task, cfg, samples=2, judged=4)
    found = look(p)
    assert [s.source for s in found.samples] == ["abc", "a"]  # of the four, spread over them
    whole = score(Talk(p, cfg, task.text.source, task.text.target), task.text.pairs["valid"], task.text.metrics)
    assert found.metrics == whole.metrics
    assert [s.said for s in found.samples] == [whole.said[0], whole.said[2]]
    assert str(found).splitlines()[1].startswith("a → ")
    assert look(p) == found
    other, _ = model(3, vocab_size=len(task.vocabulary), source_vocab_size=len(task.source_vocabulary))
    assert look(other) != found
    only = progress(task, cfg, samples=2)(p)
    assert only.metrics == {}
    assert [s.source for s in only.samples] == ["abc", "a"]


def test_progress_of_a_language_model_goes_on_with_its_text():
    rows = np.array([LETTERS.encode("abcdefgab"), LETTERS.encode("gfedcbagf")])
    batch = Batch(rows[:, :-1], rows[:, 1:])
    task = Task("text", LETTERS.vocabulary, 8, 8, batch, batch, text=Text(None, LETTERS, {}, ("bits_per_character",)))
    speaks = lm()
    found = progress(task, speaks.model, samples=5)(speaks.params)
    assert [s.source for s in found.samples] == ["abcdefga", "gfedcbag"]
    assert all(s.said.startswith(s.source) and len(s.said) == 68 for s in found.samples)


def test_a_task_without_strings_has_no_such_progress():
    with pytest.raises(BadInput, match="not one of strings"):
        progress(arithmetic.make(p=7), talk().model)


# ---------------------------------------------------------------------------------------------------- alignment


def test_an_alignment_is_what_the_heads_looked_at():
    speaks = talk(n_encoder_layers=1)
    [[said]] = answers(speaks, ["bad"])
    found = align(speaks, "bad", said)
    S, T, H = 4, len(said.tokens) + 1, speaks.model.n_heads
    assert found.cross is not None
    assert found.read == ("b", "a", "d", "<eos>")
    assert found.heard == ("<bos>", *said.text.split())
    assert found.said == (*said.text.split(), "<eos>")
    assert found.encoder.shape == (1, H, S, S)
    assert found.decoder.shape == (2, H, T, T)
    assert found.cross.shape == (2, H, T, S)
    for pattern in (found.encoder, found.decoder, found.cross):
        np.testing.assert_allclose(pattern.sum(-1), 1, rtol=1e-12)
    assert np.all(np.triu(found.decoder[0, 0], 1) == 0)
    source, target = np.array([[*LETTERS.encode("bad"), EOS]]), np.array([[BOS, *said.tokens]])
    _, cache = encoder_decoder.forward(speaks.params, source, target, speaks.model)
    np.testing.assert_array_equal(found.cross[1], cache.decoder.blocks[1].cross_attn.softmax.pattern[0])
    plain = found.as_dict()
    assert np.shape(plain["cross"]) == (2, H, T, S)
    assert plain["axes"] == ["layer", "head", "asking", "asked"]


def test_an_alignment_of_a_language_model_looks_back_alone():
    speaks = lm()
    [[said]] = answers(speaks, ["bad"], limit=3)
    found = align(speaks, "bad", said)
    assert found.heard == tuple(said.text[:-1])
    assert found.said == tuple(said.text[1:])
    assert found.cross is found.encoder is None
    assert "cross" not in found.as_dict()


# ---------------------------------------------------------------------------------------------------- surprise


@pytest.mark.parametrize("n", [2, 8, 9, 10, 31, 34])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_surprise_predicts_every_token_once_from_what_its_window_holds(n, stride):
    p, cfg = model(architecture="decoder_only", position="learned", n_ctx=8)
    ids = np.random.default_rng(0).integers(4, V, n)

    def nats(context: np.ndarray, token: int) -> float:
        z = decoder_only.forward(p, context[None], cfg)[0][0, -1]
        return math.log(np.exp(z).sum()) - z[token]

    total = 0.0
    for i in range(1, n):
        moved = max(0, -(-(i - 8) // stride)) * stride  # how far the window that predicts token i has moved
        begins = min(moved, n - 1 - 8) if n > 9 else 0  # the last one ends with the text
        total += nats(ids[begins:i], ids[i])
    found = surprise(p, cfg, ids, characters=n - 1, stride=stride)
    assert found["nats_per_token"] == pytest.approx(total / (n - 1), rel=1e-9)
    assert found["bits_per_character"] == pytest.approx(total / (n - 1) / math.log(2), rel=1e-9)
    assert found["tokens"] == n - 1
    assert "teacher-forced" in found["evaluation"]


@pytest.mark.parametrize("units", ["characters", "words"])
def test_surprise_at_a_split_in_windows_is_the_loss_in_training(tmp_path, units):
    (tmp_path / "text.txt").write_text("the cat sat on a mat and the dog ran\n" * 12)
    task = language.make(str(tmp_path / "text.txt"), units=units, context=6, valid_share=0.2, test_share=0.2)
    p, cfg = model(architecture="decoder_only", n_ctx=6, vocab_size=len(task.vocabulary))
    logits, _ = decoder_only.forward(p, np.asarray(task.test.tokens), cfg)
    loss, _ = cross_entropy.forward(logits, np.asarray(task.test.targets))
    found = surprise_at(p, cfg, task, "test", stride=6)
    assert found["nats_per_token"] == pytest.approx(float(loss), rel=1e-10)
    bits = float(loss) * task.test.targets.size / math.log(2)
    assert found["bits_per_character"] == pytest.approx(bits / task.facts["characters"]["test"], rel=1e-10)
    assert surprise_at(p, cfg, task, "test")["tokens"] == task.test.targets.size


def test_more_to_go_by_is_the_default_and_characters_are_those_of_the_text():
    p, cfg = model(architecture="decoder_only", n_ctx=8)
    ids = np.random.default_rng(0).integers(4, V, 40)
    found = surprise(p, cfg, ids, characters=78)
    assert "move by 2" in found["evaluation"]
    assert found["bits_per_character"] == pytest.approx(found["nats_per_token"] / math.log(2) / 2, rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "ids", "stride", "words"),
    [
        ({"architecture": "decoder_only"}, [4], None, "nothing to predict"),
        ({"architecture": "decoder_only"}, [4, 5], 0, "from 1 to"),
        ({"architecture": "decoder_only"}, [4, 5], 10, "from 1 to"),
        ({}, [4, 5], None, "only a decoder-only"),
    ],
)
def test_what_has_no_surprise_is_refused(changes, ids, stride, words):
    p, cfg = model(**changes)
    with pytest.raises(BadInput, match=words):
        surprise(p, cfg, np.array(ids), 1, stride)
