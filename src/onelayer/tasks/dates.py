"""Dates: from the ways in which people write them to ISO 8601. `jueves, 12 de septiembre de 2002` is `2002-09-12`.

Formats   of each locale those that CLDR calls medium, long and full, and of no locale these numeric ones: 12.9.2002,
          12.09.2002 and 12-09-2002 (the day first), 9/12/2002 and 09/12/2002 (the month first, as in America),
          2002/9/12, 20020912. A locale's format that could be read as another date in one of these is left out, with a
          warning.

Split     by date, drawn by the seed: no date of valid or test is in train, in whatever format. An example of train is
          any date that is left, in any format; the groups are the locales, and `numeric`.

Source    CLDR, by the library babel, whose releases differ in details of wording: facts["babel"] says which one wrote.
          As a task for attention: Bahdanau, Cho & Bengio 2014, arXiv:1409.0473, in the toy form of many a course.
"""

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from typing import Any

from onelayer.arrays import generator
from onelayer.errors import BadInput, nearest
from onelayer.tasks import Task, splits, text
from onelayer.tasks.extras import need
from onelayer.tasks.files import Row

__all__ = ["make"]

NUMERIC = ("d.M.yyyy", "dd.MM.yyyy", "dd-MM-yyyy", "M/d/yyyy", "MM/dd/yyyy", "yyyy/M/d", "yyyyMMdd")
WORDED = ("medium", "long", "full")
DIRECTION: dict[int, None] = dict.fromkeys((0x200E, 0x200F))  # left-to-right and right-to-left marks
MAX_EXAMPLES = 2**20

Form = tuple[str, Callable[[date], str]]  # whose it is, and how it is written


def make(
    locales: tuple[str, ...] = ("en", "de", "fr", "es", "ru", "ja"),
    first_year: int = 1950,
    last_year: int = 2049,
    n_train: int = 40_000,
    n_valid: int = 500,
    n_test: int = 1000,
    seed: int = 0,
) -> Task:
    """Dates of the years first_year to last_year, in the formats of the locales."""
    first_year = splits.check_whole("first_year", first_year, 1000, 9999)
    last_year = splits.check_whole("last_year", last_year, first_year, 9999)
    n_train, n_valid, n_test = (
        splits.check_whole(k, n, 1, MAX_EXAMPLES)
        for k, n in (("n_train", n_train), ("n_valid", n_valid), ("n_test", n_test))
    )
    seed = splits.check_seed(seed)
    forms, warnings = _forms(locales)
    start = date(first_year, 1, 1)
    days = (date(last_year, 12, 31) - start).days + 1
    if n_valid + n_test >= days:
        raise BadInput(
            f"n_valid + n_test = {n_valid + n_test:,} different dates, but {first_year} to {last_year} has {days:,}, "
            "and train needs some. Ask for fewer, or give more years"
        )
    order = generator(seed, "dates").permutation(days)
    test, valid, rest = order[:n_test], order[n_test : n_test + n_valid], order[n_test + n_valid :]
    shown = rest[generator(seed, "train").integers(0, len(rest), n_train)]

    groups: dict[str, set[str]] = {}
    rows: dict[str, list[Row]] = {}
    for split, chosen in (("train", shown), ("valid", valid), ("test", test)):
        which = generator(seed, "form", split).integers(0, len(forms), len(chosen))
        rows[split] = []
        for day, form in zip(chosen.tolist(), which.tolist(), strict=True):
            owner, write = forms[form]
            when = start + timedelta(days=day)
            rows[split].append((write(when), when.isoformat()))
            if split == "test":
                groups.setdefault(owner, set()).add(rows[split][-1][0])
    return text.build(
        f"dates of {first_year} to {last_year} in {', '.join(locales)}",
        rows["train"],
        rows["valid"],
        rows["test"],
        groups={owner: groups[owner] for owner in sorted(groups)},
        facts={
            "formats": len(forms),
            "babel": need("babel", "dates").__version__,
            "seed": seed,
            "warnings": warnings,
        },
    )


def _forms(locales: tuple[str, ...]) -> tuple[list[Form], list[str]]:
    """Every way to write a date that can be read in one way only; and what was left out."""
    dates = need("babel.dates", "dates in many locales")
    known = sorted(need("babel.localedata", "dates in many locales").locale_identifiers())
    if not locales:
        raise BadInput("locales: none was given. Name at least one, such as en")
    for locale in locales:
        if locale not in known:
            raise BadInput(
                f"unknown locale {locale!r}; did you mean {', '.join(nearest(locale, known)[:5])}? Allowed: the "
                f"{len(known):,} of CLDR, such as en, de_AT, pt_BR"
            )

    def form(owner: str, pattern: str, locale: str) -> Form:
        return owner, partial(_written, dates.format_date, pattern, locale)

    wanted = [form("numeric", pattern, "en") for pattern in NUMERIC]
    wanted += [form(locale, pattern, locale) for locale in dict.fromkeys(locales) for pattern in WORDED]
    kept, warnings = [], []
    read: dict[str, date] = {}
    probes = [date(2001, 2, 3), date(2001, 3, 2)]  # which differ as day and month change places
    for owner, write in wanted:
        said = {write(when): when for when in probes}
        if len(said) == len(probes) and all(read.get(text, when) == when for text, when in said.items()):
            read |= said
            kept.append((owner, write))
        else:
            warnings.append(f"{owner}: {next(iter(said))} could be read as another date; this format was left out")
    return kept, warnings


def _written(format_date: Callable[..., Any], pattern: str, locale: str, when: date) -> str:
    """With plain spaces, and without the invisible marks of direction: as it would be typed."""
    return " ".join(str(format_date(when, pattern, locale)).translate(DIRECTION).split())
