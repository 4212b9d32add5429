from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given
from icalendar import Calendar, Component

from contacts_api.features.feed import icalendar
from tests.features.exchange.contacts import CONTACTS

GRACE_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
UPDATED_AT = datetime(2026, 11, 23, 12, 30, 15, 987654, UTC)


def row(first_name: str, last_name: str | None, born: date, updated_at: datetime = UPDATED_AT) -> dict[str, Any]:
    names = {"id": GRACE_ID, "first_name": first_name, "last_name": last_name}
    return {**names, "date_of_birth": born, "updated_at": updated_at}


def calendar(*rows: dict[str, Any]) -> Component:
    return Calendar.from_ical(icalendar.HEAD + icalendar.unparse(rows) + icalendar.TAIL)


def event(first_name: str, last_name: str | None, born: date, updated_at: datetime = UPDATED_AT) -> Component:
    (event,) = calendar(row(first_name, last_name, born, updated_at)).walk("VEVENT")
    return event


def birthdays(born: date, first: int, last: int) -> list[date]:
    found = event("Grace", None, born)
    rule = found["RRULE"].to_ical()
    assert isinstance(rule, bytes)
    begin = datetime.combine(found.decoded("DTSTART"), time())
    moments = rrulestr(rule.decode(), dtstart=begin).between(datetime(first, 1, 1), datetime(last, 12, 31), inc=True)  # noqa: DTZ001
    return [moment.date() for moment in moments]


def test_an_event_as_it_is_written() -> None:
    written = icalendar.unparse([row("Grace", "Hopper", date(1906, 12, 9))])

    assert written.decode().split("\r\n") == [
        "BEGIN:VEVENT",
        "UID:01890a5d-ac96-774b-bcce-b302099a8057",
        "DTSTAMP:20261123T123015Z",
        "DTSTART;VALUE=DATE:19061209",
        "RRULE:FREQ=YEARLY",
        "TRANSP:TRANSPARENT",
        "SUMMARY:Grace Hopper's birthday",
        "END:VEVENT",
        "",
    ]


def test_a_birthday_without_a_year_is_one_of_every_year() -> None:
    contact = {**row("Leap", None, date(2000, 2, 29)), "date_of_birth": None, "birthday": 229}

    assert icalendar.unparse([contact]) == icalendar.unparse([row("Leap", None, date(2000, 2, 29))])


def test_the_calendar_says_its_name_and_how_often_to_ask() -> None:
    found = calendar()

    assert (found["VERSION"], found["NAME"], found["X-WR-CALNAME"]) == ("2.0", "Birthdays", "Birthdays")
    assert found.decoded("REFRESH-INTERVAL") == timedelta(hours=1)
    assert found["X-PUBLISHED-TTL"] == "PT1H"


@given(CONTACTS)
def test_every_name_comes_through(contact: dict[str, Any]) -> None:
    first_name, last_name = contact["first_name"], contact["last_name"]

    summary = event(first_name, last_name, date(1990, 4, 12))["SUMMARY"]

    assert summary == f"{first_name} {last_name}'s birthday" if last_name else f"{first_name}'s birthday"


@given(CONTACTS)
def test_lines_are_folded_between_characters(contact: dict[str, Any]) -> None:
    for line in icalendar.unparse([row(contact["first_name"], contact["last_name"], date(1990, 4, 12))]).split(b"\r\n"):
        assert len(line) <= 75
        line.decode()


def test_it_takes_all_day_every_year_and_no_time() -> None:
    found = event("Grace", "Hopper", date(1906, 12, 9))

    assert found.decoded("DTSTART") == date(1906, 12, 9)
    assert "DTEND" not in found
    assert found["TRANSP"] == "TRANSPARENT"
    assert birthdays(date(1906, 12, 9), 1906, 1908) == [date(year, 12, 9) for year in (1906, 1907, 1908)]


@pytest.mark.parametrize("first", [2023, 2099])
def test_29_february_is_the_last_day_of_february(first: int) -> None:
    leap_year = {2023: 2024, 2099: None}[first]

    assert birthdays(date(1996, 2, 29), first, first + 2) == [
        date(year, 2, 29 if year == leap_year else 28) for year in range(first, first + 3)
    ]


def test_28_february_stays_where_it_is() -> None:
    assert birthdays(date(1996, 2, 28), 2023, 2025) == [date(year, 2, 28) for year in (2023, 2024, 2025)]


def test_the_time_of_the_last_change_is_in_utc() -> None:
    in_kyiv = UPDATED_AT.astimezone(timezone(timedelta(hours=2)))

    assert event("Grace", None, date(1906, 12, 9), in_kyiv).decoded("DTSTAMP") == UPDATED_AT.replace(microsecond=0)
