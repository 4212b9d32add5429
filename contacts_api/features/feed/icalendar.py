"""Writes a calendar of birthdays in iCalendar format (RFC 5545; the name and the refresh interval are from RFC 7986).

Each contact has one all-day event. It repeats every year from the birth on, or from 2000 if the year is not known, and
does not block any time. A person born on 29 February has their birthday on the last day of February. The same contacts
always give the same bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date
from typing import Any

from contacts_api.text import content_line, escape_text

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


def unparse(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the events of contacts, to be placed between HEAD and TAIL.

    `rows` have `id`, `first_name`, `last_name`, `date_of_birth`, `birthday` (month * 100 + day) and `updated_at`.
    """
    return b"".join(part for row in rows for part in _event(row))


def _event(contact: Mapping[str, Any]) -> Iterator[bytes]:
    born = contact["date_of_birth"] or date(2000, contact["birthday"] // 100, contact["birthday"] % 100)
    name = escape_text(" ".join(filter(None, (contact["first_name"], contact["last_name"]))))
    rule = ";BYMONTH=2;BYMONTHDAY=-1" if (born.month, born.day) == (2, 29) else ""
    yield (
        f"BEGIN:VEVENT\r\n"
        f"UID:{contact['id']}\r\n"
        f"DTSTAMP:{contact['updated_at'].astimezone(UTC):%Y%m%dT%H%M%SZ}\r\n"
        f"DTSTART;VALUE=DATE:{born:%Y%m%d}\r\n"
        f"RRULE:FREQ=YEARLY{rule}\r\n"
        f"TRANSP:TRANSPARENT\r\n"
    ).encode()
    yield content_line(f"SUMMARY:{name}'s birthday")
    yield b"END:VEVENT\r\n"
