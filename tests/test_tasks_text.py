"""Guards the tasks of words: strings to tokens and back, files that are refused in words, splits without leaks."""

import contextlib
import gzip
import hashlib
import inspect
import json
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelayer import tasks
from onelayer.errors import BadInput
from onelayer.tasks import Pair, files, language, text
from onelayer.tasks.units import BOS, EOS, KINDS, PAD, SPECIALS, UNK, Units
from onelayer.training.config import TaskConfig

unchecked = inspect.unwrap  # a function as its users have it, without the tests' own enforcement of its annotations


def make(name, **settings):
    return unchecked(tasks.get(name))(**settings)


LINES = ["the cat sat on the mat.", "don't sit, cat! the mat", "a <eos> in a text is <unk> text", "cat cat mat mat sat"]


# ---------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("kind", KINDS)
def test_units_come_back(kind):
    units = Units.learn(kind, LINES, size=40 if kind == "bpe" else None)
    again = Units.from_dict(json.loads(json.dumps(units.to_dict())))
    assert (
        again == units
        and units.vocabulary[:4] == SPECIALS
        and len(set(units.vocabulary[4:])) == len(units.vocabulary) - 4
    )
    for line in [*LINES, "mat the sat", ""]:
        ids = units.encode(line)
        assert not set(ids) & set(range(4))  # not even "<eos>" and "<unk>" in the text
        assert units.decode([BOS, *ids, EOS, 5, 6]) == line and units.decode([*ids, PAD, PAD]) == line
        assert again.encode(line) == ids and again.encode_all([line, line]) == [ids, ids]


def test_units_merge_what_is_frequent():
    units = Units.learn("bpe", LINES, size=60)
    assert "▁cat" in units.vocabulary and len(units.encode("cat mat")) == 2
    assert len(Units.learn("bpe", LINES, 25).encode("cat mat")) == 8  # an alphabet, and no merges
    assert not any("." in piece and len(piece) > 1 for piece in units.vocabulary)  # a full stop stands alone
    assert units.decode(units.encode("  mat \t the\u00a0sat ▁ a ")) == "mat the sat a"


@pytest.mark.parametrize(
    ("kind", "missing"), [("characters", ["ü", "z"]), ("words", ["müz", "zü"]), ("bpe", ["ü", "z"])]
)
def test_unknown_symbols_are_named(kind, missing):
    units = Units.learn(kind, LINES, size=40 if kind == "bpe" else None)
    assert units.unknown("the müz zü cat") == missing and units.unknown(LINES[0]) == []
    assert UNK in units.encode("müz") and "<unk>" in units.decode(units.encode("müz"))


@pytest.mark.parametrize("kind", KINDS)
def test_composed_and_decomposed_letters_are_the_same(kind):
    units = Units.learn(kind, ["caf\u00e9 cafe\u0301 CAF\u00c9"], size=30 if kind == "bpe" else None, lower=True)
    assert units.encode("cafe\u0301") == units.encode("caf\u00e9") == units.encode("CAF\u00c9")
    assert units.decode(units.encode("CAFE\u0301")) == "caf\u00e9" and not any("\u0301" in p for p in units.vocabulary)


@given(line=st.text(max_size=30))
def test_any_text_comes_back_as_it_was_cleaned(line):
    for kind in ("characters", "words"):
        units = Units.learn(kind, [line])
        assert units.decode(units.encode(line)) == units.clean(line)


def test_the_most_frequent_are_kept():
    units = Units.learn("words", LINES, size=6)
    assert units.vocabulary == (*SPECIALS, "cat", "mat") and units.encode("the cat") == [UNK, 4]


def test_the_same_text_gives_the_same_merges_in_another_process():
    lines = ["".join(map(chr, 97 + row % 5)) + " x" for row in np.random.default_rng(0).integers(0, 25, (200, 6))]
    code = f"from onelayer.tasks import Units; print(Units.learn('bpe', {lines!r}, 60).merges)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(Units.learn("bpe", lines, 60).merges)


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda: Units.learn("letters", LINES), "unknown units 'letters'; did you mean"),
        (
            lambda: Units.learn("bpe", LINES, 10),
            "a bpe vocabulary of 10 is too small: 4 special tokens and the 21 .* 25",
        ),
        (lambda: Units.from_dict({"kind": "bytes"}), "unknown units 'bytes'"),
        (lambda: Units.from_dict({"kind": "words", "vocabulary": [1]}), "`vocabulary` is a list of strings"),
        (lambda: Units.from_dict({"kind": "words", "vocabulary": ["a"]}), "the vocabulary begins with <pad>"),
        (
            lambda: Units.from_dict({"kind": "bpe", "vocabulary": [*SPECIALS, "a"], "merges": [["a", "b"]]}),
            "the merge .* is not of two pieces",
        ),
    ],
)
def test_units_refusals(do, message):
    with pytest.raises(BadInput, match=message):
        do()


def test_a_library_that_is_absent_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BadInput, match=r"bpe units need the library tokenizers, .* pip install 'onelayer\[words\]'"):
        Units.learn("bpe", LINES, 40)


# ---------------------------------------------------------------------------------------------------- arrays

ROWS = [("ab", "x y"), ("c", "z"), ("abc", "x"), ("ab", "y"), ("b", "x")]


def built(**settings):
    return unchecked(text.build)(
        "few",
        ROWS,
        [("cab", "z z z"), ("cab", "y")],
        [("ca", "z x"), ("d", "x"), ("ab", "q")],
        "characters",
        "words",
        **settings,
    )


def test_arrays_are_what_the_strings_say():
    task = built()
    s, t = task.text.source, task.text.target
    assert s.vocabulary == (*SPECIALS, "a", "b", "c") and t.vocabulary == (*SPECIALS, "x", "y", "z")
    assert (task.vocabulary, task.source_vocabulary, task.pad) == (t.vocabulary, s.vocabulary, PAD)
    assert task.n_ctx == task.read == 4 and task.source_n_ctx == 4
    assert task.train.source[0].tolist() == [4, 5, EOS, PAD] and task.train.source_mask[0].tolist() == [True] * 3 + [
        False
    ]
    assert task.train.tokens[0].tolist() == [BOS, 4, 5, PAD] and task.train.targets[0].tolist() == [4, 5, EOS, PAD]
    assert task.train.weights[0].tolist() == [1, 1, 1, 0] and task.train.weights.dtype == np.float32
    assert task.valid.targets.tolist() == [[6, 6, 6, EOS]]  # the first reference; "y" is the other
    for split, batch in (("train", task.train), ("valid", task.valid), ("test", task.test)):
        assert len(batch.tokens) == len(task.text.pairs[split])
        for i, pair in enumerate(task.text.pairs[split]):
            known = pair.references[0] if "q" not in pair.references else "<unk>"
            assert t.decode(batch.targets[i]) == known
            assert s.decode(batch.source[i]) == pair.source.replace("d", "<unk>")
        assert np.array_equal(batch.weights == 1, batch.targets != PAD) and np.array_equal(
            batch.source_mask, batch.source != PAD
        )
        said = np.where(batch.targets == EOS, PAD, batch.targets)  # each place is fed what the one before must say
        assert np.array_equal(batch.tokens[:, 1:], said[:, :-1]) and np.all(batch.tokens[:, 0] == BOS)


def test_references_merge_and_the_facts_count():
    task = built(groups={"short": ["d", "ca"], "none": []})
    assert task.text.pairs["train"] == [Pair(s, (t,)) for s, t in ROWS]
    assert task.text.pairs["valid"] == [Pair("cab", ("z z z", "y"))]
    assert task.groups["short"].tolist() == [0, 1] and task.groups["none"].tolist() == []
    facts = task.facts
    assert facts["sizes"] == {"train": 5, "valid": 1, "test": 3}
    assert facts["overlap"] == {"valid": 0, "test": 1} and facts["unknown"] == {"valid": 0, "test": 2}
    assert facts["longest"] == {"source": 3, "target": 3} and facts["majority_accuracy"] == 1 / 3
    assert [w[:40] for w in facts["warnings"]] == [
        "1 of 3 sources of test stand in train to",
        "2 of 3 examples of test hold a symbol th",
    ]
    assert task.text.metrics == ("exact_match", "word_error_rate", "phone_error_rate")


def test_long_pairs_are_counted_and_left_out_when_asked():
    with pytest.raises(
        BadInput, match=r"train: 1 of 5 pairs are longer than max_length = 2 tokens; the longest, 'abc'…, has 3"
    ):
        built(max_length=2)
    with pytest.raises(BadInput, match="None would be left"):
        built(max_length=2, drop_long=True)  # the one of valid
    task = text.build("few", ROWS, ROWS, [*ROWS, ("abcab", "x")], max_length=3, drop_long=True)
    assert task.facts["dropped"] == {"train": 0, "valid": 0, "test": 1} and len(task.test.tokens) == 4 == len(
        task.text.pairs["test"]
    )
    assert "1 of 5 pairs are longer" in " ".join(task.facts["warnings"])


def test_a_shared_vocabulary():
    rows = [("ein hut", "a hat"), ("ein tag", "a day")]
    task = text.build("few", rows, rows, rows, "words", "words", shared=True)
    assert task.text.source is task.text.target and task.source_vocabulary is None
    assert task.vocabulary == (*SPECIALS, "a", "day", "ein", "hat", "hut", "tag")
    assert task.text.metrics == ("exact_match", "bleu", "chrf")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source_units": "letters"}, "unknown source_units 'letters'"),
        ({"metrics": ["blue"]}, "unknown metric 'blue'; did you mean 'bleu'"),
        (
            {"source_units": "words", "shared": True},
            "one vocabulary needs the same units on both sides; received words and ch",
        ),
        ({"test": []}, "test: there is no pair"),
        (
            {"train": [("ab", "x"), ("c", "xx")]},
            r"vocabulary of train's targets, in characters, has one symbol, 'x'",
        ),
        (
            {"train": [("a", "xy"), ("a", "x")]},
            r"vocabulary of train's sources, in characters, has one symbol, 'a'",
        ),
    ],
)
def test_build_refusals(settings, message):
    with pytest.raises(BadInput, match=message):
        unchecked(text.build)(**({"name": "few", "train": ROWS, "valid": ROWS, "test": ROWS} | settings))


# ---------------------------------------------------------------------------------------------------- files


@pytest.fixture
def write(tmp_path):
    def put(name: str, content: bytes | str) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return put


TSV = "ab\tx y\nc\tz\n\nbca\ty z\ncc\tz z\n"


def test_two_columns_zipped_or_not(write):
    plain, zipped = write("a.tsv", TSV), write("a.tsv.gz", gzip.compress(TSV.encode()))
    dos = write("dos.tsv", b"\xef\xbb\xbf" + TSV.replace("\n", "\r\n").encode().removesuffix(b"\r\n"))
    first = make("pairs", train=plain, valid=plain, test=plain, target_units="words")
    for path in (zipped, dos):
        task = make("pairs", train=path, valid=path, test=path, target_units="words")
        assert task.text == first.text or task.text.pairs == first.text.pairs
        assert np.array_equal(task.train.targets, first.train.targets)
    assert first.text.pairs["train"][2] == Pair("bca", ("y z",)) and first.facts["blank"]["train"] == 1
    digest = hashlib.sha256(TSV.encode()).hexdigest()
    assert first.facts["files"] == [{"path": plain, "sha256": digest, "lines": 5}] * 3


def test_parallel_files_keep_step_at_odd_separators(write):
    de = write("de", "ein\u2028hut\nein\x85tag\n\nja\n")
    en = write("en", "a hat\na day\n\nyes\n")
    task = make("pairs", train=de, train_target=en, valid=de, valid_target=en, test=de, test_target=en, lower=True)
    assert [pair.references[0] for pair in task.text.pairs["train"]] == ["a hat", "a day", "yes"]
    assert task.facts["blank"] == {"train": 1, "valid": 1, "test": 1} and len(task.facts["files"]) == 6


def test_what_is_not_given_is_cut_from_train(write):
    lines = [f"{'ab' * (i % 7 + 1)}{i}\t{i}" for i in range(50)] + ["ababab2\t99"]
    path = write("all.tsv", "\n".join(lines))
    task = make("pairs", train=path, held_out=0.2, seed=3)
    pairs = task.text.pairs
    sources = {split: {pair.source for pair in some} for split, some in pairs.items()}
    assert sum(map(len, sources.values())) == 50 == len(set().union(*sources.values()))
    assert (len(sources["test"]), len(sources["valid"])) == (10, 8) and task.facts["overlap"] == {"valid": 0, "test": 0}
    again, other = make("pairs", train=path, held_out=0.2, seed=3), make("pairs", train=path, held_out=0.2, seed=4)
    assert again.text.pairs == pairs != other.text.pairs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train: .* is empty \(0 bytes"),
        (b" \n\n", "is empty"),
        (b"ab x\nc\tz", r"line 1 of .* has 1 column: 'ab x'. Allowed: two.*--task.train-target"),
        (b"ab\tx\nc\tz\tw\n", r"line 2 of .* has 3 columns.*cut -f1,2"),
        (b"ab\tx\n\nc\t \n", "line 3 of .* has an empty target"),
        (b"\tx\n", "line 1 of .* has an empty source"),
        (b"ab\tx\nc\t\xe9\n", r"line 2 of .* is not UTF-8 \(byte 0xe9"),
        ("ab\tx\n".encode("utf-16"), r"line 1 of .* is not UTF-8 \(byte 0xff.* iconv -f utf-16"),
        (b"\x1f\x8b\x08broken", "begins like a gzip file and is damaged"),
        (gzip.compress(TSV.encode() * 99, mtime=0)[:-20], "damaged"),
    ],
)
def test_files_that_are_refused(write, content, message):
    path = write("a.tsv", content)
    with pytest.raises(BadInput, match=message):
        make("pairs", train=path)


def test_more_that_is_refused(write, tmp_path):
    a, b = write("a", "x\ny\n"), write("b", "x\ny\nz\n")
    for settings, message in (
        ({}, "train: no file was given"),
        ({"train": str(tmp_path / "none.tsv")}, "train: cannot read .*none.tsv: No such file"),
        ({"train": str(tmp_path)}, "Is a directory"),
        ({"train": a, "train_target": b}, "has 2 lines and .* 3. Line i"),
        ({"train": a, "train_target": write("c", "x\n\n")}, "line 2 of .* has an empty target"),
        ({"train": write("d", TSV), "test_target": a}, "test_target: the sources .* are missing"),
        ({"train": write("e", TSV), "held_out": 0.0}, "held_out = 0.0 is out of range"),
        ({"train": write("f", "a\tb\na\tc\n")}, "test: there are only 1 different sources"),
        ({"train": write("g", TSV), "max_length": 0}, "max_length = 0 is out of range"),
    ):
        with pytest.raises(BadInput, match=message):
            make("pairs", **settings)


def test_settings_are_read_off_by_the_config(write):
    path = write("a.tsv", TSV)
    config = TaskConfig.model_validate(
        {"name": "pairs", "train": path, "valid": path, "test": path, "metrics": ["chrf"]}
    )
    assert config.settings["source_units"] == "characters" and config.make(0).text.metrics == ("chrf",)
    with pytest.raises(ValueError, match="source_units: received 'letters'"):
        TaskConfig.model_validate({"name": "pairs", "source_units": "letters"})


# ---------------------------------------------------------------------------------------------------- copy, reverse


@pytest.mark.parametrize(
    ("name", "right"), [("copy", list), ("reverse", lambda s: s[::-1]), ("sort", lambda s: sorted(s, key=int))]
)
def test_sequences(name, right):
    sizes = {"n_train": 300, "n_valid": 20, "n_test": 30}
    task, again = (make(name, vocabulary=9, longest=6, longer=8, seed=1, **sizes) for _ in range(2))
    pairs = task.text.pairs
    assert {split: len(some) for split, some in pairs.items()} == {
        "train": 300,
        "valid": 20,
        "test": 30,
        "test_longer": 30,
    }
    for some in pairs.values():
        for pair in some:
            assert pair.references[0].split() == right(pair.source.split())
    lengths = {split: {len(pair.source.split()) for pair in some} for split, some in pairs.items()}
    assert lengths["train"] == set(range(1, 7)) and lengths["test_longer"] == {7, 8} and task.n_ctx == 9
    held_out = [pair.source for split in ("valid", "test", "test_longer") for pair in pairs[split]]
    assert len(set(held_out)) == 80 and not set(held_out) & {pair.source for pair in pairs["train"]}
    assert again.text.pairs == pairs and np.array_equal(again.train.source, task.train.source)
    assert make(name, vocabulary=9, longest=6, longer=8, seed=2, **sizes).text.pairs != pairs
    with pytest.raises(BadInput, match="n_valid = 500: of sequences of 1 to 3 out of 2 symbols too few"):
        make(name, vocabulary=2, longest=3, longer=3, n_train=9)


def test_reading_is_apart_from_columns(write):
    assert (
        files.read_lines(write("a", "x\ny"), "train")[1]["lines"]
        == 2
        == files.read_lines(write("b", "x\ny\n"), "train")[1]["lines"]
    )


# ---------------------------------------------------------------------------------------------------- phonemes, SCAN

DICT = """;;; a remark
read R EH1 D
read(2) R IY1 D # the verb
tomato T AH0 M EY1 T OW2
tomato(2) T AH0 M AA1 T OW2 # british
object AA1 B JH EH0 K T
object(2) AH0 B JH EH1 K T
object(3) AA0 B JH EH1 K T
a.m. EY2 EH1 M
'tis T IH1 Z
"""


def test_phonemes_keep_a_words_pronunciations_together(write):
    settings = {"path": write("few.dict", DICT), "n_valid": 1, "n_test": 2}
    said = {"read": ("R EH D", "R IY D"), "tomato": ("T AH M EY T OW", "T AH M AA T OW"), "a.m.": ("EY EH M",),
            "object": ("AA B JH EH K T", "AH B JH EH K T"), "'tis": ("T IH Z",)}  # fmt: skip
    for seed in range(3):
        pairs = make("phonemes", **settings, seed=seed).text.pairs
        assert [len(pairs[split]) for split in ("valid", "test")] == [1, 2]
        assert dict(pairs["valid"] + pairs["test"]).items() <= said.items()
        shown = [(word, phones) for word in said for phones in said[word] if word in {p.source for p in pairs["train"]}]
        assert sorted((p.source, *p.references) for p in pairs["train"]) == sorted(shown)
        assert {p.source for some in pairs.values() for p in some} == said.keys()
    stressed = make("phonemes", **settings, stress=True, pronunciations="first", n_train=1)
    assert len(stressed.text.pairs["train"]) == 1 and "1" in "".join(stressed.vocabulary)
    assert stressed.facts["overlap"] == {"valid": 0, "test": 0}
    for wrong, message in (({"n_test": 9}, "= 11, but .* has 5 words"), ({"pronunciations": "last"}, "unknown pronun")):
        with pytest.raises(BadInput, match=message):
            make("phonemes", **(settings | wrong))
    with pytest.raises(BadInput, match=r"line 1 of .* is not one of CMUdict's: 'read'"):
        make("phonemes", path=write("one", "read\n"))


def test_phonemes_of_the_installed_dictionary():
    task = make("phonemes", n_train=200, n_valid=30, n_test=40)
    assert task.facts["sizes"] == {"train": len(task.train.tokens), "valid": 30, "test": 40}
    assert task.facts["files"][0]["lines"] > 130_000 and len(task.vocabulary) <= 4 + 39
    assert not any(piece[-1] in "012" for piece in task.vocabulary)


def test_scan_reads_its_lines(write):
    verbs = ("walk", "run", "look", "jump")
    lines = [f"IN: {v} twice OUT: I_{v.upper()} I_{v.upper()}" for v in verbs] + [
        f"IN: {v} OUT: I_{v.upper()}" for v in verbs
    ]
    train, test = (
        write("tr.gz", gzip.compress("\n".join(lines[:6]).encode())),
        write("te.txt", "\n".join(lines[6:]) + "\n"),
    )
    task = make("scan", train=train, test=test, valid_share=0.3)
    assert task.text.pairs["test"] == [Pair("look", ("I_LOOK",)), Pair("jump", ("I_JUMP",))]
    shown = task.text.pairs["train"] + task.text.pairs["valid"]
    assert len(task.text.pairs["valid"]) == 2 and sorted(shown)[0] == Pair("jump twice", ("I_JUMP I_JUMP",))
    assert len(shown) == 6 and task.name == "SCAN, te" and task.text.metrics == ("exact_match",)
    for settings, message in (
        ({"train": train, "test": write("bad", "IN: walk OUT:\n")}, "test: line 1 of .* is not one of SCAN's"),
        ({"train": train}, "test: no file was given"),
        ({"train": train, "test": test, "valid_share": 1.0}, "valid_share = 1.0 is out of range"),
    ):
        with pytest.raises(BadInput, match=message):
            make("scan", **settings)


# ---------------------------------------------------------------------------------------------------- language

SONG = "".join(f"{n} green bottles\n  hanging on the wall,\n\n" for n in range(60, 0, -1))


def test_language_is_the_text_shifted_by_one(write):
    path = write("song.txt", SONG)
    task = make("language", path=path, context=8)
    n, units = len(SONG), task.text.target
    parts = {"train": SONG[: int(0.85 * n)], "valid": SONG[int(0.85 * n) : int(0.9 * n)], "test": SONG[int(0.9 * n) :]}
    assert task.train.source is None and task.source_n_ctx is None and task.train.weights is None and task.read == 8
    for split, batch in (("train", task.train), ("valid", task.valid), ("test", task.test)):
        part, stride = parts[split], 1 if split == "train" else 8
        assert len(batch.tokens) == (len(part) - 9) // stride + 1
        for i in (0, 1, len(batch.tokens) - 1):
            at = i * stride
            assert units.decode(batch.tokens[i]) == part[at : at + 8]
            assert units.decode(batch.targets[i]) == part[at + 1 : at + 9]
    assert task.train.tokens.base is not None and task.train.tokens.strides == (8, 8)  # a view of the one text
    assert units.vocabulary == (*SPECIALS, *sorted(set(parts["train"]))) and task.text.pairs == {}
    assert task.facts["characters"] == {
        split: batch.targets.size for split, batch in (("valid", task.valid), ("test", task.test))
    }


@pytest.mark.parametrize("units", ["words", "bpe"])
def test_language_counts_the_characters_that_its_targets_spell(write, units):
    task = make("language", path=write("song.txt", SONG), units=units, context=1, bpe_size=60)
    cleaned = "".join(f"{task.text.target.clean(line)}\n" for line in SONG.splitlines())
    lines = [task.text.target.encode(line) for line in cleaned.splitlines()]
    tokens = task.facts["tokens"]
    assert sum(tokens.values()) == sum(map(len, lines)) + len(lines) and sum(task.facts["text"].values()) == len(SONG)
    # with a context of 1 every token but the first is a target; the first spells what the test text begins with
    text = SONG[-task.facts["text"]["test"] :]
    whole = "".join(f"{task.text.target.clean(line)}\n" for line in text.splitlines())
    first = task.text.target.vocabulary[task.test.tokens[0, 0]] if task.test.tokens[0, 0] != EOS else "\n"
    unseen = sum(len(w) - 1 for w in whole.split() if w not in task.vocabulary) if units == "words" else 0
    assert task.facts["characters"]["test"] == len(whole) - len(first.removeprefix("▁")) - unseen


def test_ngrams_are_witten_and_bell_s():
    train, test = np.array([0, 1, 0, 1, 1]), np.array([1, 0, 2])
    uniform = np.full(3, 1 / 3)
    one = (np.array([2, 3, 0]) + 2 * uniform) / (5 + 2)  # c + d p, over c() + d()
    after_1 = (np.array([1, 1, 0]) + 2 * one) / (2 + 2)
    after_0 = (np.array([0, 2, 0]) + 1 * one) / (2 + 1)
    right = -(np.log(one[1]) + np.log(after_1[0]) + np.log(after_0[2])) / 3
    assert np.isclose(unchecked(language.ngram_nats)(train, test, 2, 3), right, rtol=1e-14)
    assert np.isclose(unchecked(language.ngram_nats)(train, test, 0, 3), np.log(3), rtol=1e-14)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (SONG, {"context": 500}, "valid has .* tokens, too few for a context of 500"),
        (SONG, {"units": "letters"}, "unknown units 'letters'"),
        (SONG, {"test_share": 0.97}, "leaves nothing to train on"),
        (SONG, {"valid_share": 0.0}, "valid_share = 0.0 is out of range"),
        ("a" * 999, {}, "has one symbol, 'a'"),
        (b"abc\n\xff", {}, "line 2 of .* is not UTF-8"),
        ("", {}, "is empty"),
    ],
)
def test_language_refusals(write, content, settings, message):
    with pytest.raises(BadInput, match=message):
        make("language", path=write("t", content), **settings)


# ---------------------------------------------------------------------------------------------------- more generators


def test_sums_add_up():
    task = make("sums", n_digits=2, n_train=800, n_valid=40, n_test=60)
    pairs = task.text.pairs
    seen = {split: [tuple(sorted(map(int, p.source.split("+")))) for p in some] for split, some in pairs.items()}
    for some in pairs.values():
        for pair in some:
            a, b = pair.source.split("+")
            assert len(a) == len(b) == 2 and pair.references == (f"{int(a) + int(b):03d}"[::-1],)
    assert len({*seen["valid"], *seen["test"]}) == 100 and not {*seen["valid"], *seen["test"]} & {*seen["train"]}
    assert sorted(i for group in task.groups.values() for i in group.tolist()) == list(range(60))
    assert all(int(a[-1]) + int(b[-1]) < 10 and int(a[0]) + int(b[0]) < 10 for i in task.groups["carry_chain_0"]
               for a, b in [pairs["test"][i].source.split("+")])  # fmt: skip
    high = make("sums", n_digits=2, sum_order="high_first", n_train=800, n_valid=40, n_test=60).text.pairs["test"]
    assert [p.references[0][::-1] for p in high] == [p.references[0] for p in pairs["test"]]
    with pytest.raises(BadInput, match="unknown sum_order 'reversed'"):
        make("sums", sum_order="reversed")


def test_dates_say_what_the_calendar_says():
    task, again = (
        make("dates", n_train=2000, n_valid=50, n_test=300, first_year=1990, last_year=2009) for _ in range(2)
    )
    pairs = task.text.pairs
    assert again.text.pairs == pairs and make("dates", n_train=9, n_valid=9, n_test=9, seed=1).text.pairs != pairs
    days = {split: {p.references[0] for p in some} for split, some in pairs.items()}
    assert (
        len(days["test"]) == 300
        and not days["train"] & (days["valid"] | days["test"])
        and not days["valid"] & days["test"]
    )
    assert {len(p.references) for some in pairs.values() for p in some} == {1}
    assert set(task.groups) == {"numeric", "en", "de", "fr", "es", "ru", "ja"}
    readers = (
        "%d.%m.%Y",
        "%d-%m-%Y",
        "%m/%d/%Y",
        "%Y/%m/%d",
        "%Y%m%d",
        "%b %d, %Y",
        "%B %d, %Y",
        "%A, %B %d, %Y",
        "%Y年%m月%d日",
    )
    read = 0
    for source, (iso,) in (pair for some in pairs.values() for pair in some):
        dates = set()
        for reader in readers:
            with contextlib.suppress(ValueError):
                dates.add(datetime.strptime(source, reader).date().isoformat())
        assert dates <= {iso}, source
        read += bool(dates)
    assert read > 1000  # numeric, English, and Japanese without the weekday: half the forms
    assert any("四" in p.source or "木" in p.source for p in pairs["train"]) and any(
        "мая" in p.source for p in pairs["train"]
    )


def test_a_form_that_could_be_another_date_is_left_out():
    task = make("dates", locales=("ar", "en"), n_train=500, n_valid=5, n_test=5)
    assert task.facts["formats"] == 12 and "ar: 03/02/2001 could be read as another date" in task.facts["warnings"][0]
    assert not any("\u200f" in p.source for p in task.text.pairs["train"])
    for settings, message in (
        ({"locales": ("xx",)}, "unknown locale 'xx'"),
        ({"locales": ()}, "locales: none was given"),
        ({"first_year": 2000, "last_year": 1999}, "last_year = 1999 is out of range. Allowed: 2,000 to"),
        ({"first_year": 2000, "last_year": 2000, "n_test": 366}, "2000 to 2000 has 366, and train"),
    ):
        with pytest.raises(BadInput, match=message):
            make("dates", **settings)


NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
)
BELOW = dict(zip(NAMES.split(), [*range(20), *range(20, 100, 10)], strict=True))


def english(words):
    total = part = 0
    for word in words.replace("-", " ").replace(",", "").replace(" and ", " ").split():
        if word == "thousand":
            total, part = 1000 * part, 0
        else:
            part = 100 * part if word == "hundred" else part + BELOW[word]
    return total + part


@pytest.mark.parametrize("direction", ["to_digits", "to_words"])
def test_numbers_say_what_they_count(direction):
    task = make("numbers", languages=("en", "fr"), direction=direction, n_train=400, n_valid=30, n_test=40)
    numbers = {}
    for split, some in task.text.pairs.items():
        numbers[split] = set()
        for source, (target, *_) in some:
            words, digits = (source, target) if direction == "to_digits" else (target, source.split()[-1])
            numbers[split].add(int(digits))
            if source.startswith("en ") or all(w in words for w in ("hundred", "and")):
                assert english(words) == int(digits)
    held_out = numbers["valid"] | numbers["test"]
    assert len(held_out) == 70 and min(held_out) >= 100 and not held_out & numbers["train"]
    assert min(numbers["train"]) < 10 and max(numbers["train"]) > 100_000
    assert sum(map(len, task.groups.values())) == 40 and set(task.groups) == {"en", "fr"}
    for settings, message in (
        ({"languages": ("xx",)}, "unknown language 'xx'"),
        ({"languages": ()}, "languages: none was given"),
        ({"direction": "back"}, "unknown direction 'back'"),
        ({"largest": 999}, "is more than half of the numbers from 100 to 999"),
    ):
        with pytest.raises(BadInput, match=message):
            make("numbers", **settings)


@pytest.mark.parametrize("name", [name for name in tasks.WORDS if name not in tasks.FROM_FILES])
def test_tasks_without_files_have_defaults(name):
    small = {"n_train": 50, "n_valid": 5, "n_test": 5}
    config = TaskConfig.model_validate({"name": name, **small})
    task = config.make(seed=3)
    assert task.facts["seed"] == 3 and len(task.test.source) == 5 == len(task.text.pairs["test"])
