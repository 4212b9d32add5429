"""When birthdays come round: pure arithmetic on dates of the proleptic Gregorian calendar."""

from calendar import isleap
from collections.abc import Iterator, Mapping
from datetime import date, timedelta

# How many days are looked at in one step: few first, because an owner may have thousands of birthdays on each of them.
STEPS = (8, 32, 128, 366)


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


def in_steps(upcoming: Mapping[int, date]) -> Iterator[dict[int, date]]:
    """Yield what `upcoming_birthdays` returns in parts, the next days first. All of one day are in one part."""
    days = list(dict.fromkeys(upcoming.values()))
    for size in STEPS:
        step, days = set(days[:size]), days[size:]
        if step:
            yield {key: day for key, day in upcoming.items() if day in step}


def _born(day: date) -> Iterator[int]:
    yield day.month * 100 + day.day
    if (day.month, day.day) == (2, 28) and not isleap(day.year):
        yield 229
