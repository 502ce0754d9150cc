"""Pairs of strings from files: the general door. Spelling to sound, questions to answers, one language to another.

Files     A split is a file of two columns (`source <tab> target`), or two files of which line i belongs to line i
          (`train` and `train_target`). UTF-8; gzip is seen by its first bytes. Where valid or test is not given, a
          share `held_out` of train's sources is cut off for it, drawn by the seed.

Units     characters, words, or byte-pair pieces, for either side. shared=True makes one vocabulary of both, as
          translation with one embedding table wants it.

Metrics   of decoded strings. By default: exact_match; with words for targets and characters for sources, letters to
          phones, word and phone error rate too; with sentences for targets BLEU and chrF.
"""

from pathlib import Path

from onelayer.errors import BadInput
from onelayer.tasks import Task, splits, text
from onelayer.tasks.files import Rows, read_pairs
from onelayer.tasks.text import MAX_LENGTH, Kind
from onelayer.tasks.units import BPE_SIZE

__all__ = ["make"]


def make(
    train: str = "",
    valid: str = "",
    test: str = "",
    train_target: str = "",
    valid_target: str = "",
    test_target: str = "",
    source_units: Kind = "characters",
    target_units: Kind = "characters",
    bpe_size: int = BPE_SIZE,
    shared: bool = False,
    lower: bool = False,
    max_length: int = MAX_LENGTH,
    drop_long: bool = False,
    held_out: float = 0.1,
    metrics: tuple[str, ...] = (),
    seed: int = 0,
) -> Task:
    """Source to target, as the files say."""
    seed, max_length = splits.check_seed(seed), splits.check_whole("max_length", max_length, 1, 2**16)
    if not 0 < splits.check_share("held_out", held_out) < 1:
        raise BadInput(f"held_out = {held_out} is out of range. Allowed: more than 0 and less than 1, such as 0.1")
    read: dict[str, Rows] = {}
    for split, path, target in (
        ("train", train, train_target),
        ("valid", valid, valid_target),
        ("test", test, test_target),
    ):
        if target and not path:
            raise BadInput(f"{split}_target: the sources that belong to {target} are missing. Name their file: {split}")
        if path or split == "train":
            read[split] = read_pairs(path, target, split)
    rows = {split: some.rows for split, some in read.items()}
    for split in ("test", "valid"):
        if split not in rows:
            rows["train"], rows[split] = text.cut(rows["train"], held_out, seed, split)
    return text.build(
        f"pairs of {Path(train).name}",
        rows["train"],
        rows["valid"],
        rows["test"],
        source_units,
        target_units,
        bpe_size=bpe_size,
        shared=shared,
        lower=lower,
        max_length=max_length,
        drop_long=drop_long,
        metrics=metrics,
        facts={
            "files": [file for some in read.values() for file in some.files],
            "blank": {split: some.blank for split, some in read.items()},
            "held_out": {split: held_out for split in ("valid", "test") if split not in read},
            "lower": lower,
            "seed": seed,
        },
    )
