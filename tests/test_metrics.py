"""Guards decoding/metrics.py and edit_distance.py: against the textbook's table, by hand, and against sacrebleu."""

import math
import sys
from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelayer.decoding import metrics
from onelayer.decoding.edit_distance import distance, nearest
from onelayer.errors import BadInput

WORD = st.text(alphabet="abc", max_size=9)


def by_recursion(a: str, b: str) -> int:
    """The definition, as it stands in the textbook."""

    @cache
    def d(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


@given(WORD, WORD)
def test_distance_is_that_of_the_table(a, b):
    assert distance(a, b) == by_recursion(a, b)


@given(WORD, WORD, WORD)
def test_distance_is_a_metric(a, b, c):
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


def test_distance_of_long_sequences_of_anything():
    a, b = list(range(200)), [*range(3, 150), "new", *range(150, 200)]
    assert distance(a, b) == 4
    assert distance("kitten", "sitting") == 3
    assert distance("", "abc") == distance("abc", "") == 3


def test_nearest_takes_the_first_of_equally_near_ones():
    assert nearest("ab", ["abcd", "xb", "abc"]) == (1, 2)
    assert nearest("ab", ["zzzzz", "ab"]) == (0, 2)


SAID = ["K AE T", "D AO G", "T AH M EY T OW", ""]
RIGHT = [("K AE T",), ("D AA G", "D AO G"), ("T AH M AA T OW Z", "T AH M EY T OW"), ("AH",)]


def test_exact_match_and_word_error_rate():
    assert metrics.exact_match(SAID, RIGHT) == 0.75
    assert metrics.word_error_rate(SAID, RIGHT) == 0.25


def test_phone_error_rate_goes_by_the_nearest_reference():
    assert metrics.phone_error_rate(SAID, RIGHT) == (0 + 0 + 0 + 1) / (3 + 3 + 6 + 1)
    assert metrics.phone_error_rate(["A B C D"], [("A",)]) == 3  # it may exceed 1


def test_phones_are_no_characters():
    assert metrics.phone_error_rate(["EY"], [("EH",)]) == 1
    assert metrics.character_edit_rate(["EY"], [("EH",)]) == 0.5
    assert metrics.word_edit_rate(["a dog ran"], [("the dog ran",)]) == 1 / 3


def test_bits_per_character():
    assert metrics.bits_per_character(10 * math.log(8), 10) == pytest.approx(3, abs=1e-15)
    assert metrics.bits_per_character(10 * math.log(8), 30) == pytest.approx(1, abs=1e-15)  # tokens of 3 characters


# ---------------------------------------------------------------------------------------------------- corpus metrics

HYPOTHESES = ["the cat sat on the mat today", "A man is Riding a horse", "two dogs play in snow"]
REFERENCES = [("the cat sat on the mat",), ("a man is riding a horse", "a man rides his horse"), ("two dogs in snow",)]


def slow_bleu(hypotheses: list[str], references: list[tuple[str, ...]]) -> float:
    """Papineni et al. 2002, section 2, on words between white space."""
    right, said, length, wanted = [0] * 4, [0] * 4, 0, 0
    for hypothesis, options in zip(hypotheses, references, strict=True):
        h, options = hypothesis.split(), [o.split() for o in options]
        length += len(h)
        wanted += min((abs(len(o) - len(h)), len(o)) for o in options)[1]
        for n in range(1, 5):
            grams = [Counter(tuple(s[i : i + n]) for i in range(len(s) - n + 1)) for s in [h, *options]]
            most = Counter()
            for other in grams[1:]:
                most |= other
            right[n - 1] += sum((grams[0] & most).values())
            said[n - 1] += sum(grams[0].values())
    brevity = min(1.0, math.exp(1 - wanted / length))
    return 100 * brevity * math.exp(sum(math.log(r / s) for r, s in zip(right, said, strict=True)) / 4)


def test_bleu_is_the_papers_and_carries_its_signature():
    found = metrics.score(["bleu"], HYPOTHESES, REFERENCES)
    assert found["bleu"] == pytest.approx(slow_bleu(HYPOTHESES, REFERENCES), rel=1e-12)
    assert "case:mixed" in found["bleu_signature"]
    assert "tok:13a" in found["bleu_signature"]
    lower = metrics.score(["bleu"], HYPOTHESES, REFERENCES, lowercase=True)
    assert lower["bleu"] == pytest.approx(slow_bleu([h.lower() for h in HYPOTHESES], REFERENCES), rel=1e-12)
    assert lower["bleu"] > found["bleu"]
    assert "case:lc" in lower["bleu_signature"]


def test_chrf_is_100_of_the_same_and_falls():
    same = [r[0] for r in REFERENCES]
    found = metrics.score(["chrf"], same, REFERENCES)
    assert found["chrf"] == pytest.approx(100, abs=1e-9)
    assert "nc:6" in found["chrf_signature"]
    assert 0 < metrics.score(["chrf"], HYPOTHESES, REFERENCES)["chrf"] < 100


def test_without_sacrebleu_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(BadInput, match=r"pip install 'onelayer\[words\]'"):
        metrics.score(["bleu"], HYPOTHESES, REFERENCES)


def test_all_by_name():
    names = ("exact_match", "word_error_rate", "phone_error_rate")
    assert metrics.score(names, SAID, RIGHT) == {
        "exact_match": 0.75, "word_error_rate": 0.25, "phone_error_rate": 1 / 13
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "said", "references", "words"),
    [
        (["exact"], ["a"], [("a",)], "exact_match"),
        (["exact_match"], [], [], "at least one"),
        (["exact_match"], ["a"], [("a",), ("b",)], "1 to 2"),
        (["exact_match"], ["a", "b"], [("a",), ()], "item 1 has no reference"),
        (["phone_error_rate"], ["a"], [("",)], "empty"),
    ],
)
def test_what_cannot_be_measured_is_refused(names, said, references, words):
    with pytest.raises(BadInput, match=words):
        metrics.score(names, said, references)
