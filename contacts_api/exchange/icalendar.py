"""Birthdays as a calendar to subscribe to (RFC 5545, its names and intervals of RFC 7986); it is only written.

One event a contact: all day, every year from the birth on, taking up no time. Someone born on 29 February
has their birthday on the last day of February. The same contacts give the same bytes, whenever they are asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

from contacts_api.exchange.records import content_line, escape_text

HEAD = (
    b"BEGIN:VCALENDAR\r\n"
    b"VERSION:2.0\r\n"
    b"PRODID:-//Contacts API//EN\r\n"
    b"CALSCALE:GREGORIAN\r\n"
    b"METHOD:PUBLISH\r\n"
    b"NAME:Birthdays\r\n"
    b"X-WR-CALNAME:Birthdays\r\n"
    b"REFRESH-INTERVAL;VALUE=DURATION:PT1H\r\n"
    b"X-PUBLISHED-TTL:PT1H\r\n"
)
TAIL = b"END:VCALENDAR\r\n"


def unparse(rows: Iterable[Sequence[Any]]) -> bytes:
    """Return the events of `rows`: id, first name, last name, date of birth, time of the last change.

    They go between HEAD and TAIL.
    """
    return b"".join(part for row in rows for part in _event(*row))


def _event(
    contact_id: object, first_name: str, last_name: str | None, date_of_birth: date, updated_at: datetime
) -> Iterator[bytes]:
    name = escape_text(f"{first_name} {last_name}" if last_name else first_name)
    is_leap_day = (date_of_birth.month, date_of_birth.day) == (2, 29)
    rule = ";BYMONTH=2;BYMONTHDAY=-1" if is_leap_day else ""
    yield (
        f"BEGIN:VEVENT\r\n"
        f"UID:{contact_id}\r\n"
        f"DTSTAMP:{updated_at.astimezone(UTC):%Y%m%dT%H%M%SZ}\r\n"
        f"DTSTART;VALUE=DATE:{date_of_birth:%Y%m%d}\r\n"
        f"RRULE:FREQ=YEARLY{rule}\r\n"
        f"TRANSP:TRANSPARENT\r\n"
    ).encode()
    yield content_line(f"SUMMARY:{name}'s birthday")
    yield b"END:VEVENT\r\n"
