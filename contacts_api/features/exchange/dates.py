"""Parse dates as people and programs write them, and return them in ISO 8601."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Literal

from contacts_api.text import fold

DateOrder = Literal["dmy", "mdy"]
NAMES = tomllib.loads((Path(__file__).parent / "names.toml").read_text(encoding="utf-8"))

_MONTHS = {fold(name): int(month) for month, names in NAMES["months"].items() for name in names}
_WEEKDAYS = {word for name in NAMES["weekdays"]["names"] for word in fold(name).split("-")}
# Typographic spaces and hyphens.
_PLAIN = str.maketrans({**dict.fromkeys("\u00a0\u2007\u2009\u202f", " "), **dict.fromkeys("‐‑‒–—−", "-")})
_TIME = re.compile(r"(?<![T ,])[T ,]++[0-9]{1,2}:[0-9]{2}.*", re.DOTALL)
# Fri Apr 12 00:00:00 CEST 1985
_TIME_BEFORE_YEAR = re.compile(r"(?<=[^\W\d_] [ 0-9][0-9]) [0-9]{2}:[0-9]{2}:[0-9]{2}(?: [A-Z]+)?(?= [0-9]{4}\Z)")
_THE_WORD_YEAR = re.compile(r"(?<=[0-9]) ?(?:года|році|року|roku|г|р|r)\.?\Z", re.IGNORECASE)
_YEAR_FIRST = re.compile(
    r"([0-9]{4})(?:([-/. ])\s*([0-9]{1,2})\2\s*([0-9]{1,2})|([0-9]{2})([0-9]{2}))\.?(?:T.*)?", re.DOTALL
)
_EAST_ASIAN = re.compile(r"(?:([0-9]{4})\s?[年년]\s?)?([0-9]{1,2})\s?[月월]\s?([0-9]{1,2})\s?[日일]")
_YEARLESS = re.compile(r"--([0-9]{2})-?([0-9]{2})(?:T.*)?", re.DOTALL)
_BETWEEN = r"(?:\s*+[-/.]\s*+|\s++)"
_YEAR_LAST = re.compile(rf"([0-9]{{1,2}}){_BETWEEN}([0-9]{{1,2}})(?:{_BETWEEN}([0-9]{{4}}|[0-9]{{2}}|0))?\.?")
_WORD = re.compile(r"[0-9]+|[^\W\d_]+")
# Longer texts are not dates.
_MAX_CHARACTERS = 64
_SMALL_WORDS = {"the", "st", "nd", "rd", "th", "den", "er", "de", "del", "of", "o", "e", "го", "г", "р"}
# Placeholders of other applications for an unknown year, and for no date.
_NO_YEARS, _NO_DATES = {0, 1604, 1900}, {(0, 0, 0), (1900, 1, 1), (4501, 1, 1)}
# Years outside this range belong to other calendars: 1364 is Solar Hijri, 1405 is Hijri, 2528 is Buddhist.
_FIRST_YEAR, _YEARS_AHEAD = 1800, 200


def read_date(text: str, order: DateOrder, last: date) -> str | None:
    """Return a date as `YYYY-MM-DD`, or as `--MM-DD` without a year.

    Return an empty string for a placeholder such as 0000-00-00, and None if the text is not a date. A year of two
    digits is the latest one for which the date is not after `last`.
    """
    if (parts := _parts(text, order)) is None:
        return None
    year, month, day = parts
    if parts in _NO_DATES or (not year and (month, day) == (0, 0)):
        return ""
    if year is not None and 0 < year < 100:
        year += 2000
        year -= 100 if (year, month, day) > (last.year, last.month, last.day) else 0
    if year is not None and year not in _NO_YEARS and not _FIRST_YEAR <= year <= last.year + _YEARS_AHEAD:
        return None
    try:
        # 2000 is a leap year, so 29 February is valid without a year.
        day_of_year = f"{date(2000, month, day):%m-%d}"
        return f"--{day_of_year}" if year is None or year in _NO_YEARS else str(date(year, month, day))
    except ValueError:
        return None


def order_shown(text: str) -> DateOrder | Literal["both"] | None:
    """Return the order of day and month in a date, "both" if the date is ambiguous, or None if it shows no order."""
    found = _YEAR_LAST.fullmatch(_tidied(text)) if len(text) <= _MAX_CHARACTERS else None
    if found is None:
        return None
    first, second = int(found[1]), int(found[2])
    if first > 12 or second > 12:
        return "dmy" if first > 12 else "mdy"
    return "both" if first != second else None


def order_of(
    dates: Iterable[tuple[int, int, str]], is_month_first: bool
) -> tuple[DateOrder | None, tuple[int, int] | None]:
    """Return the order of day and month in a file, and the row and line of a date if the order is a guess.

    The majority of unambiguous dates decides. Without a majority, the month comes first if `is_month_first` is true and
    the first ambiguous date has slashes; otherwise the day comes first. The order is None if no date depends on it. The
    row and line are those of the first ambiguous date, or None if the order is certain.
    """
    shown: Counter[str] = Counter()
    first, sample = None, ""
    for row, line, text in dates:
        order = order_shown(text)
        if order == "both" and not first:
            first, sample = (row, line), text
        if order:
            shown[order] += 1
    if not shown:
        return None, None
    if shown["dmy"] != shown["mdy"]:
        # If both orders occur, the majority decides, but the order is a guess.
        is_certain = not (shown["dmy"] and shown["mdy"])
        return ("dmy" if shown["dmy"] > shown["mdy"] else "mdy"), None if is_certain else first
    return ("mdy" if is_month_first and "/" in sample else "dmy"), first


def _tidied(text: str) -> str:
    """Return a date without a time and without the word for "year"."""
    text = text.strip() if text.isascii() else text.translate(_PLAIN).strip()
    if ":" in text:
        text = _TIME.sub("", _TIME_BEFORE_YEAR.sub("", text))
    return text if text[-1:].isdecimal() else _THE_WORD_YEAR.sub("", text)


def _parts(text: str, order: DateOrder) -> tuple[int | None, int, int] | None:
    """Return the year, the month and the day in a text, not validated, or None if the text is not a date."""
    if len(text) > _MAX_CHARACTERS:
        return None
    text = _tidied(text)
    if found := _YEAR_FIRST.fullmatch(text):
        return int(found[1]), int(found[3] or found[5]), int(found[4] or found[6])
    if found := _YEARLESS.fullmatch(text):
        return None, int(found[1]), int(found[2])
    if found := _EAST_ASIAN.fullmatch(text):
        return (int(found[1]) if found[1] else None), int(found[2]), int(found[3])
    if found := _YEAR_LAST.fullmatch(text):
        year = int(found[3]) if found[3] else None
        first, second = int(found[1]), int(found[2])
        # A number over 12 cannot be a month, even if `order` says so.
        day_first = second <= 12 and (order == "dmy" or first > 12)
        # 00 is the year 2000, except in 0/0/00, which stands for no date.
        year = 2000 if found[3] == "00" and (first, second) != (0, 0) else year
        return (year, second, first) if day_first else (year, first, second)
    return _spelled(text)


def _spelled(text: str) -> tuple[int | None, int, int] | None:
    """Return the parts of a date whose month is a word: `12-Apr-1985`, `Friday, April 12th, 1985`, `12 квітня`."""
    words = [word for word in _WORD.findall(fold(text)) if word not in _SMALL_WORDS]
    names = [word for word in words if not word.isdecimal()]
    numbers = [word for word in words if word.isdecimal()]
    # Remove weekdays only before a month: "mar" abbreviates both a Tuesday (martes) and March.
    while len(names) > 1 and _is_weekday(names[0]):
        del names[0]
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


def _is_weekday(word: str) -> bool:
    return word in _WEEKDAYS or (len(word) > 1 and any(name.startswith(word) for name in _WEEKDAYS))
