"""Guards the tasks of numbers: tables against plain Python, group laws, splits without leaks, refusals in words."""

import inspect
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from onelayer import tasks
from onelayer.arrays import generator
from onelayer.errors import BadInput
from onelayer.tasks import addition, arithmetic, expression, operations, parity, splits

SEED_0 = [
    [0, 1],
    [0, 3],
    [0, 6],
    [1, 0],
    [1, 3],
    [1, 4],
    [2, 3],
    [2, 5],
    [3, 2],
    [4, 2],
    [5, 4],
    [5, 5],
    [6, 0],
    [6, 2],
]
DOCS = Path(__file__).parent.parent / "docs" / "tasks.md"


unchecked = inspect.unwrap  # a function as its users have it, without the tests' own enforcement of its annotations


# ---------------------------------------------------------------------------------------------------- operations


def least_log(x, y, p):
    return next((k for k in range(p - 1) if x and x**k % p == y), None)


SLOW = {  # whole numbers in Python; None: no answer
    "x + y": lambda p, x, y: (x + y) % p,
    "x - y": lambda p, x, y: (x - y) % p,
    "x * y": lambda p, x, y: (x * y) % p,
    "x / y": lambda p, x, y: x * pow(y, -1, p) % p if y else None,
    "x**2 + y**2": lambda p, x, y: (x**2 + y**2) % p,
    "(x + y)**2": lambda p, x, y: (x + y) ** 2 % p,
    "x**2 - y**2": lambda p, x, y: (x**2 - y**2) % p,
    "x**2 + x*y + y**2": lambda p, x, y: (x**2 + x * y + y**2) % p,
    "x**2 + x*y + y**2 + x": lambda p, x, y: (x**2 + x * y + y**2 + x) % p,
    "x**3 + x*y": lambda p, x, y: (x**3 + x * y) % p,
    "x**3 + x*y**2 + y": lambda p, x, y: (x**3 + x * y**2 + y) % p,
    "x / y if y odd else x - y": lambda p, x, y: (x * pow(y, -1, p) if y % 2 else x - y) % p,
    "x + y if x even else x * y": lambda p, x, y: (x * y if x % 2 else x + y) % p,
    "x + y if x even else x - y": lambda p, x, y: (x - y if x % 2 else x + y) % p,
    "x ** y": lambda p, x, y: x**y % p,
    "gcd(x, y)": lambda p, x, y: math.gcd(x, y),
    "x mod y": lambda p, x, y: x % y if y else None,
    "log_x(y)": lambda p, x, y: least_log(x, y, p),
    "digit_sum(x + y)": lambda p, x, y: sum(map(int, str(x + y))) % p,
    "max(x, y)": lambda p, x, y: max(x, y),
    "min(x, y)": lambda p, x, y: min(x, y),
    "x < y": lambda p, x, y: int(x < y),
    "x + y over the integers": lambda p, x, y: x + y,
    "x xor y": lambda p, x, y: x ^ y,
    "x!": lambda p, x: math.factorial(x) % p,
    "x + y + z": lambda p, x, y, z: (x + y + z) % p,
    "(x + y)**z": lambda p, x, y, z: (x + y) ** z % p,
}


@pytest.mark.parametrize("p", [2, 3, 13, 16])
@pytest.mark.parametrize("name", SLOW)
def test_table_equals_plain_python(name, p):
    operation = operations.OPERATIONS[name]
    if (operation.needs == "prime" and p == 16) or (operation.needs == "power of two" and p not in (2, 16)):
        with pytest.raises(BadInput, match="needs"):
            operations.answers(operation, p)
        return
    _, table = operations.answers(operation, p)
    assert table.shape == (p,) * operation.arity and table.dtype == np.int64
    for operands in itertools.product(range(p), repeat=operation.arity):
        answer = SLOW[name](p, *operands)
        assert table[operands] == (-1 if answer is None else answer), operands


def test_slow_table_covers_every_operation_on_numbers():
    numbers = {o.name for o in operations.OPERATIONS.values() if o.group is None}
    assert numbers == SLOW.keys() | {"random table"}


@pytest.mark.parametrize("name", operations.OPERATIONS)
def test_what_the_registry_says_of_commutativity_holds(name):
    operation = operations.OPERATIONS[name]
    p = {"power of two": 16}.get(operation.needs, 13)
    p, table = operations.answers(operation, operation.group.order if operation.group else p)
    assert operations.is_commutative(table) is operation.commutative


def test_random_table_is_fixed_and_without_structure():
    table = operations.answers(operations.find("random table"), 97)[1]
    assert np.array_equal(table, operations.answers(operations.find("random table"), 97)[1])
    counts = np.bincount(table.ravel(), minlength=97)
    assert np.sum((counts - 97) ** 2 / 97) < 150  # chi-square with 96 degrees of freedom: mean 96, sd 14
    assert np.mean(table == table.T) < 0.04  # the diagonal and chance, 1/97 each


def test_gcd_answers_one_for_about_61_percent():
    table = operations.answers(operations.find("gcd(x, y)"), 113)[1]
    assert np.mean(table == 1) == pytest.approx(6 / math.pi**2, abs=0.01)


# ---------------------------------------------------------------------------------------------------- groups

GROUPS = [
    ("Z", 1 + 6),
    ("D", 3),
    ("D", 8),
    ("S", 3),
    ("S", 4),
    ("S", 5),
    ("S", 6),
    ("A", 3),
    ("A", 4),
    ("A", 5),
    ("A", 6),
]


def product(family, n):
    return operations.answers(operations.find(f"{family}{n}"))[1]


@pytest.mark.parametrize(("family", "n"), GROUPS)
def test_group_laws(family, n):
    table = product(family, n)
    order = len(table)
    assert order == {"Z": n, "D": 2 * n, "S": math.factorial(n), "A": math.factorial(n) // 2}[family]
    everyone = np.arange(order)
    assert np.array_equal(table[0], everyone) and np.array_equal(table[:, 0], everyone)  # the identity is 0
    assert all(np.array_equal(np.sort(line), everyone) for line in (*table, *table.T))  # a Latin square: inverses
    a, b, c = generator(0, "group", family, n).integers(0, order, (3, 5000))
    assert np.array_equal(table[table[a, b], c], table[a, table[b, c]])


@pytest.mark.parametrize("n", [4, 5])
def test_permutations_multiply_from_left_to_right(n):
    table, listed = product("S", n), list(itertools.permutations(range(n)))
    for x, y in generator(0, "permutations").integers(0, len(listed), (200, 2)):
        assert listed[table[x, y]] == tuple(listed[y][listed[x][i]] for i in range(n))
    names = operations.element_names(operations.Group("S", n))
    assert names == tuple("".join(map(str, q)) for q in listed)


def test_alternating_group_is_closed_in_the_symmetric_one():
    whole, even = product("S", 5), product("A", 5)
    names = {name: i for i, name in enumerate(operations.element_names(operations.Group("S", 5)))}
    place = np.array([names[name] for name in operations.element_names(operations.Group("A", 5))])
    assert np.array_equal(whole[place[:, None], place], place[even])


def test_dihedral_relations():
    table, n = product("D", 7), 7
    r, s = 1, n
    assert table[s, s] == 0 and table[table[s, r], s] == n - 1  # s² = 1, s r s = r^-1
    assert operations.element_names(operations.Group("D", n))[table[table[r, r], s]] == "r2s"


@pytest.mark.parametrize("family_n", [("S", 4), ("D", 5), ("A", 5), ("Z", 6)])
def test_words(family_n):
    family, n = family_n
    table = product(family, n)
    conjugate = operations.answers(operations.find(f"{family}{n}: x*y*x^-1"))[1]
    around = operations.answers(operations.find(f"{family}{n}: x*y*x"))[1]
    for x, y in itertools.product(range(len(table)), repeat=2):
        assert table[conjugate[x, y], x] == table[x, y]  # (x y x^-1) x = x y
        assert around[x, y] == table[x, table[y, x]]


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("written", "name"),
    [("x+y", "x + y"), ("X  +  Y", "x + y"), ("x^2+xy", None), ("x^2 + y^2", "x**2 + y**2"), ("x² − y²", "x**2 - y**2"),
     ("x³+x·y", "x**3 + x*y"), ("x÷y", "x / y"), ("s5", "S5: x*y"), ("S5: x·y·x⁻¹", "S5: x*y*x^-1"),
     ("addition", "x + y"), ("d30:x*y", "D30: x*y"), ("GCD(x,y)", "gcd(x, y)")],
)  # fmt: skip
def test_names_are_found_however_they_are_spaced(written, name):
    if name is None:
        with pytest.raises(BadInput, match=r"`\^` \(a power is written \*\*\)"):
            operations.find(written)
    else:
        assert operations.find(written) is operations.OPERATIONS[name]


def test_every_name_finds_itself():
    for name, operation in operations.OPERATIONS.items():
        assert operations.find(name) is operation


def test_names_that_are_expressions_mean_the_same():
    for name, operation in operations.OPERATIONS.items():
        try:
            parsed = expression.parse(name)
        except BadInput:
            continue
        if operation.group is None and operation.table(13).ndim == 2:
            assert np.array_equal(expression.table(parsed, 13), operation.table(13)), name


@pytest.mark.parametrize(
    ("name", "p", "message"),
    [
        ("additon", 113, "unknown operation 'additon'; did you mean 'addition'"),
        ("randm table", 113, "did you mean 'random table'"),
        ("gdc(x, y)", 113, r"a call at column 1.*nearest.*'gcd\(x, y\)'"),
        ("S7", 113, "of the symmetric groups, S3 to S6"),
        ("S5: y*x", 113, r"unknown word in the group S5 'y\*x'"),
        ("S5", 97, "has 120 elements, so p is 120; received p = 97"),
        ("x / y", 100, r"needs a prime p.*received p = 100 = 2 · 2 · 5 · 5. Nearest primes: 101, 97"),
        ("log_x(y)", 12, "needs a prime p"),
        ("x xor y", 113, "power of two.*Nearest: 128, 64"),
        ("x + y", 1, r"p = 1 is out of range.*Allowed: 2 to 1024"),
        ("x + y", 1025, "at most 1,048,576 examples"),
        ("x + y + z", 113, "Allowed: 2 to 101"),
        ("x + y", 113.0, "p is a whole number; received 113.0"),
        ("x + y", True, "p is a whole number; received True"),
        ("x // (y - y)", 5, "has no answer at any pair for p = 5"),
    ],
)
def test_operation_refusals(name, p, message):
    with pytest.raises(BadInput, match=message):
        unchecked(operations.answers)(operations.find(name), p)


def test_an_operation_that_is_no_text_is_refused():
    with pytest.raises(BadInput, match="named by a text"):
        unchecked(operations.find)(5)


# ---------------------------------------------------------------------------------------------------- expressions

REFUSED = {
    "9**9**9": r"the exponent 387,420,489 at column 4.*from 0 to 1024",
    "x + 2**(x + 5000)": r"the exponent 5,\d\d\d at column \d+",
    "f(x)": "a call at column 1",
    "__import__('os')": "a call at column 1",
    "x.real": "an attribute at column 1",
    "x + z": "the name 'z' at column 5",
    "x[0]": "an index at column 1",
    "x / 2": r"`/` \(write // .*column 3",
    "x ^ y": r"`\^` \(a power is written \*\*\) at column 3",
    "x << y": "`<<` at column 3",
    "x @ y": "`@` at column 3",
    "~x": "the operator Invert",
    "not x": "the operator Not",
    "x and y": "`and` or `or`",
    "0 < x < y": "a chain of comparisons",
    "x is y": "the comparison Is",
    "x in y": "the comparison In",
    "x + 1.5": r"the constant 1\.5 at column 5",
    "x + True": "the constant True",
    "'x'": "the constant 'x'",
    "x + None": "the constant None",
    "...": "the constant Ellipsis",
    "(x, y)": "a tuple",
    "[x for x in y]": "a ListComp",
    "lambda: x": "a lambda",
    "(x := 3)": "an assignment",
    "x + 10000000000": "too large a number at column 5",
    "x**100 // 2": r"a value beyond 2\*\*62 \(p = 7\) at column 1",
    "2**63 // (y + 1)": "a value beyond",
    "(x + 1000000000)**2 * 9 // (y + 1)": "a value beyond",
    "(2**62 + x) // 3": "a value beyond",
    "x² + y": "the character '²' at column 2",
    "x +\ty": r"the character '\\t' at column 4",
    "x +": "cannot be read at column",
    "((x": "cannot be read at column",
    "x y": "cannot be read",
    "": "the expression is empty",
    "x" * 201: "201 characters; at most 200",
    "-" * 150 + "x": "more than 24 nested parts",
    "(" * 199: "cannot be read",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=lambda v: v[:20])
def test_expression_refusals(text, message):
    with pytest.raises(BadInput, match=message):
        expression.table(expression.parse(text), 7)


def test_an_expression_that_is_no_text_is_refused():
    with pytest.raises(BadInput, match="is a text such as"):
        unchecked(expression.parse)(7)


def python_says(text, x, y, p):
    """Python's own value mod p; -1 where it has none among the whole numbers."""
    try:
        value = eval(text, {"__builtins__": {}}, {"x": x, "y": y, "p": p})
    except ZeroDivisionError:
        return -1
    return int(value) % p if isinstance(value, int) else -1


def agrees_with_python(text, p):
    table = expression.table(expression.parse(text), p)
    return all(table[x, y] == python_says(text, x, y, p) for x in range(p) for y in range(p))


@pytest.mark.parametrize(
    "text",
    ["(x**2 + 3*y) % p", "-x - 7*y", "x // y", "x % y", "-x // (y + 2) * 3", "x**y", "x**y % 5 - 9", "x**(y - 3)",
     "x if x < y else y // x", "3 // y if y else x", "(x == y) + (x != y)*2", "x*(x >= y) - (y <= 3)", "0**y",
     "9**9**9 if x > 99 else y", "y if x < 99 else 9**9**9",
     "x % -y", "(x - y) % -3", "p - x", "p**3 + x % (p - 1)", "x**1000", "(x**200 % p) // 2", "2**61 // (x + 1)",
     "(x + 999999999)**2 % 1000000000 // 7", "+x", "((x - 5)**3) // 2", "7"],
)  # fmt: skip
def test_expression_equals_python(text):
    assert agrees_with_python(text, 7) and agrees_with_python(text, 12)


def test_the_parsers_remarks_are_not_the_users():
    """Python warns of `1if`; warnings are errors here, and neither may reach the user."""
    close, apart = (expression.table(expression.parse(t), 5) for t in ("1if x>2 else y", "1 if x > 2 else y"))
    assert np.array_equal(close, apart)


leaves = st.sampled_from(["x", "y", "p"]) | st.integers(0, 9).map(str)
trees = st.recursive(
    leaves,
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from(["+", "-", "*", "//", "%"]), part).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(part, st.integers(0, 4)).map(lambda t: f"{t[0]}**{t[1]}" if t[0][0] != "-" else f"({t[0]})**{t[1]}"),
        part.map(lambda a: f"(-{a})"),
        st.tuples(part, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), part).map(lambda t: f"({' '.join(t)})"),
        st.tuples(part, part, part).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
    ),
    max_leaves=8,
)


@given(text=trees, p=st.sampled_from([2, 5, 6]))
def test_accepted_expressions_equal_python(text, p):
    assume(len(text) <= expression.MAX_LENGTH)
    try:
        expression.table(expression.parse(text), p)
    except BadInput as error:
        assert "beyond 2**62" in str(error) or "the exponent" in str(error) or "nested parts" in str(error)
        return
    assert agrees_with_python(text, p)


@given(text=st.text(alphabet="xyp0129+-*/%()<>=!. ifels[],'^~\\:_\n", max_size=40) | st.text(max_size=20))
def test_no_text_raises_anything_but_bad_input(text):
    try:
        table = expression.table(expression.parse(text), 5)
    except BadInput:
        return
    assert table.shape == (5, 5) and table.min() >= -1 and table.max() < 5


@given(base=st.integers(0, 10**6), exponent=st.integers(0, 10**6), m=st.integers(1, 2**31 - 1))
def test_power_mod_equals_pow(base, exponent, m):
    assert expression.power_mod(np.array([base % m]), np.array([exponent]), m)[0] == pow(base % m, exponent, m)


# ---------------------------------------------------------------------------------------------------- arithmetic

BY_MIRROR = ["x + y", "x * y", "x**2 + x*y + y**2", "gcd(x, y)"]


def rows(pairs):
    return set(map(tuple, pairs.tolist()))


def test_nanda_split_has_3830_of_12769():
    task = tasks.make("arithmetic")
    assert (len(task.train.tokens), len(task.test.tokens)) == (3830, 8939)
    assert task.n_ctx == 3 and task.read == 1 and len(task.vocabulary) == 114 and task.vocabulary[113] == "="
    assert task.facts["majority_accuracy"] < 0.02 and task.facts["missing_classes"].size == 0


@pytest.mark.parametrize("split", ["random", "mirror_closed"])
@pytest.mark.parametrize(
    "operation", [*BY_MIRROR, "x / y", "S4", "x + y + z", "x!", "log_x(y)", "x + y over the integers"]
)
def test_examples_are_the_table_once(operation, split):
    p = 24 if operation == "S4" else 13
    _, table = operations.answers(operations.find(operation), p)
    if split == "mirror_closed" and not operations.is_commutative(table):
        with pytest.raises(BadInput, match="'mirror_closed' needs a commutative operation"):
            arithmetic.make(operation, p, 0.5, split)
        return
    task = arithmetic.make(operation, p, 0.5, split, seed=3)
    train, test = rows(task.facts["train_pairs"]), rows(task.facts["test_pairs"])
    assert not train & test
    assert train | test == rows(np.argwhere(table >= 0))
    assert len(train) == len(task.train.tokens) and len(test) == len(task.test.tokens)
    assert len(train) == len(train | test) // 2
    for batch, pairs in ((task.train, task.facts["train_pairs"]), (task.test, task.facts["test_pairs"])):
        assert np.array_equal(batch.tokens[:, :-1], pairs)
        assert np.all(batch.tokens[:, -1] == len(task.vocabulary) - 1) and task.vocabulary[-1] == "="
        assert np.array_equal(batch.targets[:, 0], table[tuple(pairs.T)])
        assert batch.tokens.shape == (len(pairs), task.n_ctx) and batch.targets.shape == (len(pairs), task.read)
        assert batch.targets.max() < len(task.vocabulary) - 1


@given(
    p=st.sampled_from([2, 3, 7, 12]),
    fraction=st.floats(0.26, 0.74),
    seed=st.integers(0, 10**6),
    operation=st.sampled_from([*BY_MIRROR, "x + y + z"]),
)
def test_mirror_closed_split_leaks_no_mirror(p, fraction, seed, operation):
    task = arithmetic.make(operation, p, fraction, "mirror_closed", seed)
    train = {tuple(sorted(pair)) for pair in task.facts["train_pairs"].tolist()}
    test = {tuple(sorted(pair)) for pair in task.facts["test_pairs"].tolist()}
    assert not train & test
    assert np.array_equal(task.groups["mirror_free"], np.arange(len(task.test.tokens)))
    wanted = math.floor(fraction * p ** (task.n_ctx - 1))
    assert wanted - 5 <= len(task.train.tokens) <= wanted


@given(p=st.sampled_from([3, 7, 12]), fraction=st.floats(0.2, 0.8), seed=st.integers(0, 10**6))
def test_mirror_free_is_the_test_pairs_without_a_mirror_in_train(p, fraction, seed):
    task = arithmetic.make("x * y", p, fraction, seed=seed)
    train = rows(task.facts["train_pairs"])
    free = [i for i, (a, b) in enumerate(task.facts["test_pairs"].tolist()) if (b, a) not in train]
    assert task.groups.get("mirror_free", np.array([])).tolist() == free
    assert bool(free) or any("mirror-free accuracy cannot be told" in w for w in task.facts["warnings"])


def test_mirror_free_is_only_for_commutative_operations():
    assert "mirror_free" not in arithmetic.make("x - y", 13).groups
    assert arithmetic.make("(x + y)**2 + 1", 13).facts["commutative"]  # told from the table, also of one's own


def test_splits_are_the_seeds_and_nothing_elses():
    same = [arithmetic.make("x + y", 31, seed=5).train.tokens for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], arithmetic.make("x + y", 31, seed=6).train.tokens)
    spoilt = arithmetic.make("x + y", 31, seed=5, label_noise=0.2, permute_labels=True)
    assert np.array_equal(same[0], spoilt.train.tokens)


def test_the_split_of_seed_0_stays_what_it_was():
    """Published runs name a seed; a change of the draw must be noticed."""
    assert arithmetic.make("x + y", 7, seed=0).facts["train_pairs"].tolist() == SEED_0


def test_label_noise_spoils_the_stated_share_and_no_test_label():
    task, clean = (arithmetic.make("x * y", 31, label_noise=noise) for noise in (0.1, 0.0))
    noisy = task.facts["noisy"]
    assert noisy.sum() == round(0.1 * len(noisy))
    assert np.array_equal(task.facts["clean_targets"], clean.train.targets)
    assert np.array_equal(task.train.targets[:, 0] != clean.train.targets[:, 0], noisy)
    assert np.array_equal(task.test.targets, clean.test.targets)
    assert "noisy" not in clean.facts
    counts = np.bincount(arithmetic.make("x + y", 97, 0.9, label_noise=1.0).train.targets[:, 0], minlength=97)
    assert counts.min() > 40  # every answer is drawn: about 87 of each


def test_permuted_labels_keep_every_answer_and_lose_the_operation():
    task, clean = (arithmetic.make("x + y", 31, permute_labels=permute) for permute in (True, False))
    assert np.array_equal(np.sort(task.facts["table"], axis=None), np.sort(clean.facts["table"], axis=None))
    assert np.mean(task.facts["table"] == clean.facts["table"]) < 0.1
    met = np.unique(np.stack([task.facts["table"].ravel(), clean.facts["table"].ravel()]), axis=1)
    assert met.shape[1] > 31 * 15  # no mere renaming of the answers, which would leave a group to learn
    for batch, pairs in ((task.train, task.facts["train_pairs"]), (task.test, task.facts["test_pairs"])):
        assert np.array_equal(batch.targets[:, 0], task.facts["table"][tuple(pairs.T)])
    assert np.array_equal(task.groups["mirror_free"], clean.groups["mirror_free"])


def test_majority_line():
    train, test = np.array([[1], [2], [2], [1], [0]]), np.array([[1], [2], [1], [5]])
    assert splits.majority(train, test) == 0.5  # 1 and 2 tie; the least, 1, is said
    two = np.array([[1, 0], [1, 1], [0, 1]])
    assert splits.majority(two, two) == pytest.approx(1 / 3)  # (1, 1) is right once
    assert splits.majority(two, two, np.mean) == pytest.approx(4 / 6)
    gcd = arithmetic.make("gcd(x, y)", 97)
    assert gcd.facts["majority_class"] == 1
    assert gcd.facts["majority_accuracy"] == np.mean(gcd.test.targets == 1) > 0.55


def test_warnings_say_what_a_reader_should_know():
    few = arithmetic.make("x + y", 97, 0.02)
    assert any("answers have no training example" in w for w in few.facts["warnings"])
    assert np.array_equal(few.facts["missing_classes"], np.setdiff1d(np.arange(97), few.train.targets))
    assert len(few.facts["missing_classes"]) > 0
    holes = arithmetic.make("x // y", 13)
    assert any("no answer at 13 of 169 pairs" in w for w in holes.facts["warnings"])
    assert len(holes.train.tokens) + len(holes.test.tokens) == 13 * 12
    assert any("always answers 3" in w for w in arithmetic.make("3", 13).facts["warnings"])
    assert arithmetic.make("x + y", 113).facts["warnings"] == arithmetic.make("x / y", 113).facts["warnings"] == []


def test_group_task_speaks_the_groups_language():
    task = arithmetic.make("S5")
    assert task.facts["p"] == 120 and len(task.vocabulary) == 121 and task.vocabulary[0] == "01234"
    assert len(task.train.tokens) == 4320 and task.facts["basis"] == "group"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_fraction": 0}, "train_fraction = 0 leaves nothing to train on"),
        ({"train_fraction": 1}, "train_fraction = 1 leaves nothing"),
        ({"train_fraction": 1.5}, "Allowed: more than 0 and less than 1"),
        ({"train_fraction": float("nan")}, "train_fraction = nan"),
        ({"train_fraction": "0.3"}, "train_fraction = '0.3'"),
        ({"train_fraction": 1e-9}, "of 12769 examples is 0"),
        ({"p": 2, "train_fraction": 0.2}, "of 4 examples is 0"),
        ({"split": "mirrored"}, "unknown split 'mirrored'; did you mean 'mirror_closed'"),
        ({"operation": "x - y", "split": "mirror_closed"}, r"'x - y' is not for p = 113: \(0, 1\) gives 112, \(1, 0\)"),
        ({"operation": "x / y", "split": "mirror_closed"}, r"\(0, 1\) gives 0, \(1, 0\) has no answer"),
        ({"label_noise": 1.1}, "label_noise is a share from 0 to 1; received 1.1"),
        ({"label_noise": "much"}, "label_noise is a share"),
        ({"operation": "3", "label_noise": 0.5}, "needs another answer"),
        ({"seed": 0.5}, "seed is a whole number; received 0.5"),
        ({"operation": "additon"}, "unknown operation"),
        ({"p": 10**9}, "out of range"),
    ],
)  # fmt: skip
def test_arithmetic_refusals(settings, message):
    with pytest.raises(BadInput, match=message):
        unchecked(arithmetic.make)(**settings)


@pytest.mark.parametrize(
    ("fraction", "n", "size"), [(0.3, 12769, 3830), (0.29, 100, 29), (0.57, 100, 57), (0.1, 30, 3)]
)
def test_train_size_is_the_floor_of_the_decimal(fraction, n, size):
    assert splits.train_size(n, fraction) == size


@given(population=st.integers(1, 200), n=st.integers(1, 200), seed=st.integers(0, 1000))
def test_distinct_numbers(population, n, seed):
    assume(n <= population)
    drawn = splits.distinct(population, n, generator(seed, "test"))
    assert len(set(drawn.tolist())) == n and drawn.min() >= 0 and drawn.max() < population


def test_registry_finds_its_tasks():
    for name in tasks.NUMBERS:
        task = tasks.make(name)
        assert len(task.train.tokens) and len(task.test.tokens) and max(map(len, task.groups.values()), default=1)
    with pytest.raises(BadInput, match="unknown task 'arithmetics'; did you mean 'arithmetic'"):
        tasks.make("arithmetics")


# ---------------------------------------------------------------------------------------------------- parity


def test_parity_is_of_the_support():
    task = parity.make(n_bits=12, k=4, n_train=300, n_test=200, seed=1)
    support = task.facts["support"]
    assert len(set(support.tolist())) == 4
    for batch in (task.train, task.test):
        for row, target in zip(batch.tokens.tolist(), batch.targets[:, 0].tolist(), strict=True):
            assert target == sum(row[i] for i in support) % 2 and row[-1] == 2
    inputs = rows(np.concatenate([task.train.tokens, task.test.tokens]))
    assert len(inputs) == 500
    assert 0.4 < task.facts["majority_accuracy"] < 0.6


def test_whole_parity_table():
    task = parity.make(n_bits=10, k=10, n_train=512, n_test=512)
    assert len(rows(np.concatenate([task.train.tokens, task.test.tokens]))) == 1024
    assert np.mean(np.concatenate([task.train.targets, task.test.targets])) == 0.5


def test_parity_label_noise():
    task = parity.make(label_noise=0.25)
    assert np.array_equal(task.train.targets != task.facts["clean_targets"], task.facts["noisy"][:, None])
    assert task.facts["noisy"].sum() == 250


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 41}, "k = 41 is out of range. Allowed: 1 to 40"),
        ({"n_bits": 61}, "n_bits = 61 is out of range. Allowed: 1 to 60"),
        ({"n_bits": 4}, "4 bits have 16 different inputs"),
        ({"n_train": 0}, "n_train = 0 is out of range"),
        ({"k": 2.0}, "k is a whole number; received 2.0"),
    ],
)
def test_parity_refusals(settings, message):
    with pytest.raises(BadInput, match=message):
        unchecked(parity.make)(**settings)


# ---------------------------------------------------------------------------------------------------- addition


@pytest.mark.parametrize("base", [2, 10, 16])
@pytest.mark.parametrize("sum_order", addition.ORDERS)
@pytest.mark.parametrize("operand_order", addition.ORDERS)
def test_addition_adds(operand_order, sum_order, base):
    n = 4
    task = addition.make(n, 60, 40, operand_order, sum_order, base)
    assert task.n_ctx == 3 * n + 2 and task.read == n + 1 and len(task.vocabulary) == base + 2

    def number(digits, order):
        return sum(d * base**i for i, d in enumerate(digits if order == "low_first" else digits[::-1]))

    for batch, pairs in ((task.train, task.facts["train_pairs"]), (task.test, task.facts["test_pairs"])):
        for row, target, (a, b) in zip(batch.tokens.tolist(), batch.targets.tolist(), pairs.tolist(), strict=True):
            assert [task.vocabulary[row[n]], task.vocabulary[row[2 * n + 1]]] == ["+", "="]
            assert number(row[:n], operand_order) == a and number(row[n + 1 : 2 * n + 1], operand_order) == b
            assert number(target, sum_order) == a + b
            assert row[2 * n + 2 :] == target[:-1]  # each position is fed what the one before it must say


def test_addition_holds_out_pairs_and_mirrors():
    task = addition.make(n_digits=1, n_train=30, n_test=25)  # all 55 unordered pairs of digits
    train = {tuple(sorted(pair)) for pair in task.facts["train_pairs"].tolist()}
    test = {tuple(sorted(pair)) for pair in task.facts["test_pairs"].tolist()}
    assert len(train) == 30 and len(test) == 25 and not train & test
    large = addition.make(n_digits=9, n_train=500, n_test=500)
    assert large.facts["train_pairs"].max() > 9 * 10**8 and large.facts["train_pairs"].min() >= 0
    assert 0.4 < np.mean(large.facts["train_pairs"][:, 0] > large.facts["train_pairs"][:, 1]) < 0.6


def slow_chain(a, b, n, base):
    longest = 0
    for start in range(n):
        digits = [(a // base**i % base) + (b // base**i % base) for i in range(n)]
        if digits[start] >= base:
            length = 1
            while start + length < n and digits[start + length] == base - 1:
                length += 1
            longest = max(longest, length)
    return longest


@given(a=st.integers(0, 9999), b=st.integers(0, 9999), base=st.sampled_from([2, 3, 10]))
def test_carry_chain_equals_a_slow_count(a, b, base):
    a, b = a % base**4, b % base**4
    assert addition.carry_chain(np.array([[a, b]]), 4, base)[0] == slow_chain(a, b, 4, base)


def test_carry_chain_examples():
    pairs = np.array([[12, 34], [35, 89], [37, 65], [55, 55], [99, 1], [99, 99]])
    assert addition.carry_chain(pairs, 2).tolist() == [0, 1, 2, 1, 2, 1]


def test_addition_groups_are_the_carry_chains():
    task = addition.make()
    assert np.array_equal(np.sort(np.concatenate(list(task.groups.values()))), np.arange(2000))
    for name, members in task.groups.items():
        assert len(members) and np.all(task.facts["carry_chain"][members] == int(name.removeprefix("carry_chain_")))
    assert task.facts["majority_accuracy"] < 0.01 < task.facts["majority_token_accuracy"] < 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_digits": 0}, "n_digits = 0 is out of range. Allowed: 1 to 9"),
        ({"n_digits": 10}, "n_digits = 10 is out of range"),
        ({"n_digits": 1}, "numbers of 1 digits have 55 unordered pairs"),
        ({"base": 1}, "base = 1 is out of range. Allowed: 2 to 64"),
        ({"sum_order": "reversed"}, "unknown sum_order 'reversed'"),
        ({"operand_order": "low"}, "unknown operand_order 'low'; did you mean 'low_first'"),
        ({"n_test": 0}, "n_test = 0 is out of range"),
    ],
)
def test_addition_refusals(settings, message):
    with pytest.raises(BadInput, match=message):
        unchecked(addition.make)(**settings)


# ---------------------------------------------------------------------------------------------------- the page


def test_the_page_is_in_step_with_the_registry():
    assert operations.markdown() in DOCS.read_text(encoding="utf-8"), "paste what operations.markdown() gives"
