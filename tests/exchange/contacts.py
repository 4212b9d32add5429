"""What the tests of the codecs share: contacts of every kind that the rules allow, and files in pieces."""

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, get_type_hints

from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from contacts_api.contacts.fields import Email, PhoneNumber
from contacts_api.contacts.models import FIELDS, ContactFields
from contacts_api.exchange.reader import BadRow, ImportedContact
from contacts_api.text import Name, Note

TODAY = date(2026, 11, 23)
SAMPLES = Path(__file__).parent / "samples"

# What means something to a CSV file, a vCard, a calendar, a spreadsheet or a terminal.
SIGNS = "'\"=+-@,;:\\|%#()<>\u00a0\u2028\u202e＝＠\ufeffnNé李🎂 \u0301"
CHARACTERS = st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from(SIGNS)


def allowed(values: st.SearchStrategy[str], type_: Any) -> st.SearchStrategy[str]:
    adapter: TypeAdapter[str] = TypeAdapter(type_)

    def is_allowed(value: str) -> bool:
        try:
            return adapter.validate_python(value) == value
        except ValidationError:
            return False

    return values.filter(is_allowed)


NAMES = allowed(st.text(CHARACTERS, min_size=1, max_size=100).map(str.strip), Name)
NOTES = allowed(st.text(CHARACTERS | st.sampled_from("\n\t"), max_size=300), Note)
LONG_NOTES = NOTES.map(lambda note: (note * 50)[:2000])
ADDRESSES = allowed(
    st.emails() | st.sampled_from(["+1@a.io", "'=a@b.com", "'+a@b.com", "zoë@bücher.example", "a=b@c.de"]), Email
)
NUMBERS = allowed(st.text("0123456789+-().,;/#* x", min_size=3, max_size=32).map(str.strip), PhoneNumber)
DATES = st.dates(date(1900, 1, 1), TODAY)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "first_name": NAMES,
    "last_name": NAMES,
    "email": ADDRESSES,
    "phone_number": NUMBERS | st.just("+380 44 123-45-67"),
    "date_of_birth": DATES,
    "additional_info": NOTES | LONG_NOTES,
}
_TYPES = get_type_hints(ContactFields, include_extras=True)


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Return values of a field: those above, or else texts that its rules allow."""
    values = _VALUES.get(name, allowed(st.text(CHARACTERS, min_size=1, max_size=100).map(str.strip), _TYPES[name]))
    return values if name == "first_name" else st.none() | values


CONTACTS = st.fixed_dictionaries({name: values_of(name) for name in FIELDS})


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def repeated(content: bytes, size: int) -> Iterator[bytes]:
    block = content * (2**16 // len(content))
    return (block for _ in range(size // len(block)))


def peak_memory(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def fields(
    first_name: str,
    last_name: str | None = None,
    email: str | None = None,
    phone_number: str | None = None,
    date_of_birth: date | None = None,
    additional_info: str | None = None,
) -> dict[str, Any]:
    """Return a contact that has these fields, and null for all others."""
    return dict.fromkeys(FIELDS) | locals()


def without_later_fields(contacts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the six fields that `fields` has parameters for: what else a file has is the matter of later fields."""
    return [{name: contact[name] for name in _VALUES} for contact in contacts]


def imported(rows: Iterator[ImportedContact | BadRow]) -> list[dict[str, Any]]:
    """Return the fields of contacts, none of which may be bad."""
    contacts = []
    for row in rows:
        assert isinstance(row, ImportedContact), row
        contacts.append(row.fields)
    return contacts
