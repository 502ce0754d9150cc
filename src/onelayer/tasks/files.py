"""Reading the text files that tasks are made of: UTF-8, gzip accepted, one line an example.

Lines     end with a line feed (or carriage return and line feed) and with nothing else: Unicode's other separators may
          stand in a sentence, and would put files that are parallel out of step. A byte order mark is passed over.

Pairs     two columns with a tab between (`word <tab> p h o n e s`), or two files, of which line i belongs to line i.
          A line that is blank (on both sides) is passed over and counted; one side alone is an error.
"""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from onelayer.errors import BadInput

__all__ = ["Row", "Rows", "read_columns", "read_lines", "read_pairs", "read_parallel"]

Row = tuple[str, str]  # source, target
GZIP = b"\x1f\x8b"


class Rows(NamedTuple):
    """Pairs, where they came from, and how many blank lines there were."""

    rows: list[Row]
    files: list[dict[str, Any]]  # {"path", "sha256", "lines"}: sha256 of the bytes as they lie on the disk
    blank: int = 0


def read_text(path: str, what: str) -> tuple[str, dict[str, Any]]:
    """The whole of a file, and {"path", "sha256", "lines"}. what: the setting that named it, for messages."""
    if not path:
        example = "text.txt" if what == "path" else "words.tsv"
        raise BadInput(f"{what}: no file was given. Name one, such as --task.{what.replace('_', '-')} {example}")
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(
            f"{what}: cannot read {path}: {error.strerror}. Name a file of text, or of gzipped text"
        ) from None
    digest, data = hashlib.sha256(raw).hexdigest(), raw
    if raw.startswith(GZIP):
        try:
            data = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput(f"{what}: {path} begins like a gzip file and is damaged: {error}. Fetch it again") from None
    if not data.strip():
        raise BadInput(f"{what}: {path} is empty ({len(raw)} bytes, none of them text). It must hold at least one line")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        likely = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "latin1"
        raise BadInput(
            f"{what}: line {line} of {path} is not UTF-8 (byte 0x{data[error.start]:02x}: {error.reason}). Save it as "
            f"UTF-8, for instance by: iconv -f {likely} -t utf-8 {path}"
        ) from None
    text = text.removeprefix("\ufeff")
    return text, {"path": path, "sha256": digest, "lines": text.count("\n") + (not text.endswith("\n"))}


def read_lines(path: str, what: str) -> tuple[list[str], dict[str, Any]]:
    """The lines of a file, without their ends."""
    text, fact = read_text(path, what)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")], fact


def read_columns(path: str, what: str) -> Rows:
    """Two columns, source TAB target."""
    lines, fact = read_lines(path, what)
    rows: list[Row] = []
    blank = 0
    for number, line in enumerate(lines, 1):
        columns = line.split("\t")
        if not line.strip():
            blank += 1
        elif len(columns) != 2:
            raise BadInput(
                f"{what}: line {number} of {path} has {len(columns)} column{'s' * (len(columns) > 1)}: {_shown(line)}. "
                f"Allowed: two, source and target, with one tab between. {_mend(what, len(columns))}"
            )
        else:
            rows.append(
                (_side(columns[0], "source", number, path, what), _side(columns[1], "target", number, path, what))
            )
    return Rows(rows, [fact], blank)


def read_parallel(source: str, target: str, what: str) -> Rows:
    """Two files; line i of one belongs to line i of the other."""
    (a, a_fact), (b, b_fact) = read_lines(source, what), read_lines(target, f"{what}_target")
    if len(a) != len(b):
        raise BadInput(
            f"{what}: {source} has {len(a):,} lines and {target} {len(b):,}. Line i of one belongs to line i of the "
            "other, so both must have equally many: see where they part, and mend or cut the longer"
        )
    rows: list[Row] = []
    for number, (x, y) in enumerate(zip(a, b, strict=True), 1):
        if x.strip() or y.strip():
            rows.append((_side(x, "source", number, source, what), _side(y, "target", number, target, what)))
    return Rows(rows, [a_fact, b_fact], len(a) - len(rows))


def read_pairs(path: str, target: str, what: str) -> Rows:
    """Two columns of one file, or, where there is a second, two parallel files."""
    return read_parallel(path, target, what) if target else read_columns(path, what)


def _side(text: str, side: str, number: int, path: str, what: str) -> str:
    if not text.strip():
        raise BadInput(f"{what}: line {number} of {path} has an empty {side}. Fill it in, or take the pair out")
    return text


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "…")


def _mend(what: str, columns: int) -> str:
    if columns > 2:
        return "Keep two of them: cut -f1,2"
    return f"Where the targets are in a file of their own, name it: --task.{what.replace('_', '-')}-target"
