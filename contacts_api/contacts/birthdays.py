"""When birthdays come round: pure arithmetic on dates of the proleptic Gregorian calendar."""

from calendar import isleap
from collections.abc import Iterator
from datetime import date, timedelta


def upcoming_birthdays(today: date, days: int) -> dict[int, date]:
    """Return whose birthday comes when, from `today` to `days` (0 to 365) days after it, both included.

    Keys are month * 100 + day of a date of birth, values the date on which its birthday comes next,
    in order. Someone born on 29 February has it on 28 February in common years.
    """
    upcoming: dict[int, date] = {}
    for offset in range(days + 1):
        day = today + timedelta(days=offset)
        for key in _born(day):
            upcoming.setdefault(key, day)
    return upcoming


def _born(day: date) -> Iterator[int]:
    yield day.month * 100 + day.day
    if (day.month, day.day) == (2, 28) and not isleap(day.year):
        yield 229
