"""Dates as people and programs write them, read as ISO 8601 has them: pure functions of text."""

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Literal

from contacts_api.text import fold

DateOrder = Literal["dmy", "mdy"]
NAMES = tomllib.loads((Path(__file__).parent / "names.toml").read_text(encoding="utf-8"))

_MONTHS = {fold(name): int(month) for month, names in NAMES["months"].items() for name in names}
_TIME = re.compile(r"[T ,]+[0-9]{1,2}:[0-9]{2}.*", re.DOTALL)
_YEAR_FIRST = re.compile(r"([0-9]{4})(?:([-/. ])([0-9]{1,2})\2([0-9]{1,2})|([0-9]{2})([0-9]{2}))\.?(?:T.*)?", re.DOTALL)
_YEARLESS = re.compile(r"--([0-9]{2})-?([0-9]{2})(?:T.*)?", re.DOTALL)
_YEAR_LAST = re.compile(r"([0-9]{1,2})\s*[-/. ]\s*([0-9]{1,2})(?:\s*[-/. ]\s*([0-9]{4}|[0-9]{2}))?\.?")
_WORD = re.compile(r"[0-9]+|[^\W\d_]+")
# No date is longer, and patterns with two runs of white space take quadratic time.
_MAX_CHARACTERS = 64
_ENDINGS = {"st", "nd", "rd", "th", "de", "of", "o", "г", "р"}
# What other applications write for a year that is not known, and for a date that is not.
_NO_YEARS, _NO_DATES = {0, 1604, 1900}, {(0, 0, 0), (1900, 1, 1), (4501, 1, 1)}


def read_date(text: str, order: DateOrder, this_year: int) -> str | None:
    """Return a date as `YYYY-MM-DD`, or `--MM-DD` without a year; empty for what stands for none, None for no date.

    A year of two digits is the last one up to `this_year`.
    """
    if (parts := _parts(text, order)) is None:
        return None
    year, month, day = parts
    if parts in _NO_DATES or (not year and (month, day) == (0, 0)):
        return ""
    if year is not None and 0 < year < 100:
        year += 1900 if year > this_year % 100 else 2000
    try:
        # A leap year, since someone may be born on 29 February.
        day_of_year = f"{date(2000, month, day):%m-%d}"
        return f"--{day_of_year}" if year is None or year in _NO_YEARS else str(date(year, month, day))
    except ValueError:
        return None


def order_shown(text: str) -> DateOrder | Literal["both"] | None:
    """Return which order of day and month a date shows; "both" if it can be read either way, None if it shows none."""
    found = _YEAR_LAST.fullmatch(_without_time(text)) if len(text) <= _MAX_CHARACTERS else None
    if found is None:
        return None
    first, second = int(found[1]), int(found[2])
    if first > 12 or second > 12:
        return "dmy" if first > 12 else "mdy"
    return "both" if first != second else None


def _without_time(text: str) -> str:
    return _TIME.sub("", text.strip()) if ":" in text else text.strip()


def _parts(text: str, order: DateOrder) -> tuple[int | None, int, int] | None:
    """Return the year, the month and the day that a text names, which may be none of a calendar."""
    if len(text) > _MAX_CHARACTERS:
        return None
    text = _without_time(text)
    if found := _YEAR_FIRST.fullmatch(text):
        return int(found[1]), int(found[3] or found[5]), int(found[4] or found[6])
    if found := _YEARLESS.fullmatch(text):
        return None, int(found[1]), int(found[2])
    if found := _YEAR_LAST.fullmatch(text):
        year = int(found[3]) if found[3] else None
        first, second = int(found[1]), int(found[2])
        # A number over 12 is no month, whatever the others are.
        day_first = second <= 12 and (order == "dmy" or first > 12)
        # 00 is the year 2000, and a part of what stands for no date.
        year = 2000 if found[3] == "00" and (first, second) != (0, 0) else year
        return (year, second, first) if day_first else (year, first, second)
    return _spelled(text)


def _spelled(text: str) -> tuple[int | None, int, int] | None:
    """Return the parts of a date whose month is a word: 12-Apr-1985, April 12th, 1985, 12 квітня."""
    words = [word for word in _WORD.findall(fold(text)) if word not in _ENDINGS]
    names = [word for word in words if not word.isdecimal()]
    numbers = [word for word in words if word.isdecimal()]
    if len(names) != 1 or not 1 <= len(numbers) <= 2:
        return None
    months = {_MONTHS[names[0]]} if names[0] in _MONTHS else set()
    if not months and len(names[0]) >= 3:
        months = {month for name, month in _MONTHS.items() if name.startswith(names[0])}
    if len(months) != 1:
        return None
    year_first = len(numbers[0]) == 4
    day, year = (numbers[-1], numbers[0]) if year_first else (numbers[0], numbers[1] if len(numbers) == 2 else None)
    if (len(numbers) == 1 and year_first) or len(day) > 2:
        return None
    return (int(year) if year else None), months.pop(), int(day)
