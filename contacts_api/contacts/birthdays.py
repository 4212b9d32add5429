"""The dates of upcoming birthdays: pure arithmetic in the proleptic Gregorian calendar."""

from calendar import isleap
from collections.abc import Iterator, Mapping
from datetime import date, timedelta

# The number of days in each step. The first steps are short, because a day may have thousands of birthdays.
STEPS = (8, 32, 128, 366)


def upcoming_birthdays(today: date, days: int) -> dict[int, date]:
    """Return the birthdays from `today` to `days` (0 to 365) days later, both included, in order.

    A key is month * 100 + day of a date of birth. Its value is the date of the next birthday. A person born on
    29 February has it on 28 February in common years.
    """
    upcoming: dict[int, date] = {}
    for offset in range(days + 1):
        day = today + timedelta(days=offset)
        for key in _born(day):
            upcoming.setdefault(key, day)
    return upcoming


def in_steps(upcoming: Mapping[int, date]) -> Iterator[dict[int, date]]:
    """Split the result of `upcoming_birthdays` into steps, nearest days first. A day is never split between steps."""
    days = list(dict.fromkeys(upcoming.values()))
    for size in STEPS:
        step, days = set(days[:size]), days[size:]
        if step:
            yield {key: day for key, day in upcoming.items() if day in step}


def _born(day: date) -> Iterator[int]:
    yield day.month * 100 + day.day
    if (day.month, day.day) == (2, 28) and not isleap(day.year):
        yield 229
