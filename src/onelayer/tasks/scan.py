"""SCAN: commands into actions. `jump around left twice` is I_TURN_LEFT I_JUMP I_TURN_LEFT I_JUMP … (16 actions).

Files     as published: a line is `IN: words OUT: ACTIONS`; gzip accepted. The split is whatever two files are named:
          simple (random), length (train to 22 actions, test from 24), add_prim_jump (`jump` is trained on alone).
          None of them has a validation file: a share of train is cut off for it, drawn by the seed.

Source    Lake & Baroni 2018, arXiv:1711.00350, whose recurrent networks reach 99.8 % on simple, 20.8 % on length and
          1.2 % on jump, each the best of many; github.com/brendenlake/SCAN has the files.
"""

import re

from onelayer.errors import BadInput
from onelayer.tasks import Task, splits, text
from onelayer.tasks.files import Rows, read_lines

__all__ = ["make"]

LINE = re.compile(r"IN:\s*(\S.*?)\s*OUT:\s*(\S.*?)\s*$")
LONGEST = 2**16


def make(train: str = "", test: str = "", valid_share: float = 0.05, seed: int = 0) -> Task:
    """Words to actions, from a train and a test file of SCAN."""
    seed = splits.check_seed(seed)
    if not 0 < splits.check_share("valid_share", valid_share) < 1:
        raise BadInput(
            f"valid_share = {valid_share} is out of range. Allowed: more than 0 and less than 1, such as 0.05"
        )
    shown, asked = _read(train, "train"), _read(test, "test")
    kept, valid = text.cut(shown.rows, valid_share, seed, "valid")
    return text.build(
        "SCAN, " + test.replace("\\", "/").rpartition("/")[2].removesuffix(".gz").removesuffix(".txt"),
        kept,
        valid,
        asked.rows,
        "words",
        "words",
        max_length=LONGEST,
        metrics=("exact_match",),
        facts={"files": [*shown.files, *asked.files], "valid_share": valid_share, "seed": seed},
    )


def _read(path: str, what: str) -> Rows:
    lines, fact = read_lines(path, what)
    rows = []
    for number, line in enumerate(lines, 1):
        found = LINE.match(line)
        if found:
            rows.append((found[1], found[2]))
        elif line.strip():
            raise BadInput(
                f"{what}: line {number} of {path} is not one of SCAN's: {line[:60]!r}. Allowed: IN: jump twice OUT: "
                "I_JUMP I_JUMP. For two columns with a tab between, use the task pairs"
            )
    return Rows(rows, [fact])
