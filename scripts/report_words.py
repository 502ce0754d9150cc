"""docs/experiments/words.md from the raw file of scripts/words.py.

python scripts/report_words.py
"""

import json
import math
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent / "docs" / "experiments"
RAW, PAGE = HERE / "words.jsonl", HERE / "words.md"
Row = dict[str, Any]


def share(name: str, split: str = "test") -> Callable[[Row], float]:
    return lambda row: 100 * row["metrics"][split][name]


def plain(name: str, split: str = "test") -> Callable[[Row], float]:
    return lambda row: row["metrics"][split][name]


# study: (what is asked, figures as (name, value of a row, reach, aim, how to print), minutes allowed)
TABLE: dict[str, tuple[str, tuple[tuple[str, Callable[[Row], float], str, str], ...], int]] = {
    "copy": ("copy, lengths 1 to 25, width 64", (("exact", share("exact_match"), "≥ 99.9 %", "100 %"),), 5),
    "reverse": ("reverse, lengths 1 to 25, width 64", (("exact", share("exact_match"), "≥ 97 %", "99.5 %"),), 5),
    "sort": ("sort, 20 symbols, up to 12", (("exact", share("exact_match"), "≥ 98 %", "99.9 %"),), 3),
    "dates": ("dates to ISO, held-out dates", (("exact", share("exact_match"), "≥ 99 %", "99.9 %"),), 3),
    "sums": ("3-digit addition, reversed sum", (("exact", share("exact_match"), "≥ 98 %", "100 %"),), 5),
    "scan-simple": ("SCAN, simple", (("exact", share("exact_match"), "≥ 98 %", "99.8 %"),), 10),
    "scan-length": ("SCAN, length", (("exact", share("exact_match"), "as it comes", ""),), 10),
    "scan-jump": ("SCAN, jump", (("exact", share("exact_match"), "as it comes", ""),), 10),
    "g2p-geo": ("Georgian words to phones", (("word error", share("word_error_rate"), "≤ 2 %", "≤ 0.5 %"),), 8),
    "g2p-fre": ("French words to phones", (("word error", share("word_error_rate"), "≤ 16 %", "≤ 9 %"),), 8),
    "cmudict": ("CMUdict, no stress", (("word error", share("word_error_rate"), "≤ 38 %", "≤ 30 %"),
                                       ("phone error", share("phone_error_rate"), "≤ 10 %", "≤ 7 %")), 15),
    "shakespeare": ("tiny Shakespeare, characters", (("nats", plain("nats_per_token"), "≤ 1.92", "≤ 1.75"),), 10),
    "multi30k": ("Multi30k, German to English, 2016", (("BLEU", plain("bleu"), "≥ 26", "≥ 32"),
                                                       ("chrF", plain("chrf"), "", "")), 40),
}  # fmt: skip


def spread(values: list[float]) -> str:
    """The mean, and the extremes where there are more than one."""
    mean = math.fsum(values) / len(values)
    digits = 3 if abs(mean) < 10 and mean != round(mean, 1) else 2 if abs(mean) < 99.95 else 1
    said = f"{mean:.{digits}f}"
    return said if len(values) == 1 else f"{said} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def lines_of(study: str, rows: list[Row]) -> list[str]:
    asked, figures, minutes = TABLE[study]
    processor = spread([row["processor"] / 60 for row in rows])
    rate = math.fsum(row["tokens"] / row["busy"] for row in rows) / len(rows)
    per_processor = math.fsum(row["tokens"] / row["processor"] for row in rows) / len(rows)
    lines = []
    for i, (name, value, reach, aim) in enumerate(figures):
        first = [asked, str(len(rows)), str(rows[0]["steps"]), processor, str(minutes), f"{rate:,.0f}",
                 f"{per_processor:,.0f}"] if i == 0 else [""] * 7  # fmt: skip
        cells = [first[0], name, spread([value(row) for row in rows]), reach, aim, *first[1:]]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def apart(studies: dict[str, list[Row]]) -> list[str]:
    """What each study reports beside its main figure."""
    found = []
    for study, name, split, words in (
        ("copy", "exact_match", "test_longer", "copy at lengths 26 to 30, longer than any in training"),
        ("reverse", "exact_match", "test_longer", "reverse at lengths 26 to 30"),
        ("g2p-geo", "phone_error_rate", "test", "phone error, Georgian"),
        ("g2p-fre", "phone_error_rate", "test", "phone error, French"),
        ("multi30k", "exact_match", "test", "sentences of Multi30k translated word for word as the reference"),
    ):
        if study in studies:
            found.append(f"- {words}: {spread([share(name, split)(row) for row in studies[study]])} %")
    if "multi30k" in studies:
        found.append(f"- BLEU's signature: `{studies['multi30k'][0]['metrics']['test'].get('bleu_signature')}`")
    if "shakespeare" in studies:
        found.append(f"- tiny Shakespeare: {studies['shakespeare'][0]['metrics']['test'].get('evaluation')}; a 5-gram "
                     "count model (Witten-Bell) has 1.669 there, and a published 4-layer run on a CPU 1.88 (nanoGPT's "
                     "README)")  # fmt: skip
    return found


def main() -> None:
    studies: dict[str, list[Row]] = {}
    for line in RAW.read_text("utf-8").splitlines():
        row = json.loads(line)
        studies.setdefault(row["study"], []).append(row)
    lines = [
        "# Words in, words out",
        "",
        "What one layer of encoder and one of decoder learn in minutes on a laptop's processor, without dropout; a",
        "language model has one layer. Means over seeds, extremes in brackets. All figures but those in nats are of",
        "decoded strings. Weights are chosen by the validation split; the test split is decoded once, at the end.",
        "",
        "| task | figure | test | reach | aim | seeds | steps | CPU minutes | allowed | tokens/s | tokens/cpu s |",
        "| --- " * 11 + "|",
    ]
    for study in TABLE:
        if study in studies:
            lines += lines_of(study, studies[study])
    missing = [study for study in TABLE if study not in studies]
    if missing:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    lines += [
        "",
        "Processor minutes are of one thread, evaluations included: what a core to itself would need, and the clock of",
        "a machine that others use does not say. Tokens are target tokens: by the clock of that shared machine, and by",
        "the processor's.",
        "",
        *apart(studies),
        "",
        "The recipes are those that `onelayer train` takes by itself (`words`, `translation`, `language`), but for",
        "what `changes` says in each line of the raw file: the number of steps, and where it is named the width.",
        "",
        "## Repeat it",
        "",
        "```sh",
        f"OMP_NUM_THREADS=1 python scripts/words.py {' '.join(studies)} --data PATH --raw docs/experiments/words.jsonl",
        "python scripts/report_words.py",
        "```",
        "",
        f"Machine: {processor_name()}, 2 cores, shared with other work; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("onelayer", "numpy", "numba", "sacrebleu", "tokenizers"))
        + ". Raw figures: [words.jsonl](words.jsonl).",
    ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
