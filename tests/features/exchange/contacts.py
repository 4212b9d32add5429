"""Helpers for the tests of CSV and vCards: strategies for valid contacts, and functions that read files."""

import io
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, get_type_hints

from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from contacts_api.contacts.fields import Detail, Email, PhoneNumber, label_key
from contacts_api.contacts.models import FIELDS, ContactFields
from contacts_api.features.exchange import csv_file as csv
from contacts_api.features.exchange import vcard
from contacts_api.features.exchange.imports import read_file
from contacts_api.features.exchange.models import ImportQuery, ImportReport
from contacts_api.features.exchange.reader import BadRow, ImportedContact, NotAPerson, Reading
from contacts_api.text import Label, Name, Note

TODAY = date(2026, 11, 23)
SAMPLES = Path(__file__).parent / "samples"

# Characters that are special in a CSV file, a vCard, a calendar, a spreadsheet or a terminal.
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
_TEXTS = st.text(CHARACTERS | st.sampled_from("\n\t"), min_size=1, max_size=200).map(str.strip)
LABELS = allowed(st.text(CHARACTERS, min_size=1, max_size=64).map(str.strip), Label)
# Labels with a special meaning when details are written.
_WORDS = ["home", "work", "mobile", "work fax", "anniversary", "spouse", "role", "department", "X-TWITTER", "TEL", "N"]
DETAIL_LABELS = LABELS | st.sampled_from([*_WORDS, "a): b"])


def _detail(kind: str, label: str | None, values: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return values.map(lambda value: {"kind": kind, "label": label, "value": value}).filter(_is_detail)


def _is_detail(detail: dict[str, Any]) -> bool:
    try:
        return bool(Detail.model_validate(detail).model_dump() == detail)
    except ValidationError:
        return False


_DATES_OF_DETAILS = DATES.map(str) | DATES.map("--{:%m-%d}".format)
_KINDS: dict[str, st.SearchStrategy[str]] = {
    "email": ADDRESSES,
    "phone": NUMBERS,
    "date": _DATES_OF_DETAILS,
    **dict.fromkeys(("address", "url", "organization", "title", "nickname", "relation", "account", "other"), _TEXTS),
}
DETAILS = st.tuples(st.sampled_from(list(_KINDS)), st.none() | DETAIL_LABELS).flatmap(
    lambda each: _detail(each[0], each[1], _KINDS[each[0]])
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "first_name": NAMES,
    "last_name": NAMES,
    "email": ADDRESSES,
    "phone_number": NUMBERS | st.just("+380 44 123-45-67"),
    "date_of_birth": DATES,
    "birthday": st.dates(date(2000, 1, 1), date(2000, 12, 31)).map("{:%m-%d}".format),
    "additional_info": NOTES | LONG_NOTES,
    "labels": st.lists(LABELS, max_size=4, unique_by=label_key),
    "details": st.lists(DETAILS, max_size=4),
}
_TYPES = get_type_hints(ContactFields, include_extras=True)


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a field: one of the above, or else any valid text."""
    values = _VALUES.get(name, allowed(st.text(CHARACTERS, min_size=1, max_size=100).map(str.strip), _TYPES[name]))
    return values if name in ("first_name", "labels", "details") else st.none() | values


def _with_its_birthday(contact: dict[str, Any]) -> dict[str, Any]:
    born = contact["date_of_birth"]
    return {**contact, "birthday": f"{born:%m-%d}"} if born else contact


CONTACTS = st.fixed_dictionaries({name: values_of(name) for name in FIELDS}).map(_with_its_birthday)


def read(
    content: str | bytes, columns: dict[str, str | None] | None = None, **query: Any
) -> tuple[ImportReport, list[Any]]:
    """Read a file as an import does. Return the initial report and the rows."""
    file = io.BytesIO(content.encode() if isinstance(content, str) else content)
    report, rows = read_file(file, ImportQuery(**query), columns or {}, TODAY)
    return report, list(rows)


def read_csv(chunks: Iterable[bytes], last: date = TODAY) -> list[ImportedContact | BadRow]:
    return [row for row in csv.parse(chunks, Reading(last), {}) if not isinstance(row, NotAPerson)]


def read_vcards(chunks: Iterable[bytes]) -> list[ImportedContact | BadRow | NotAPerson]:
    return list(vcard.parse(chunks, Reading(TODAY)))


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
    *details: tuple[str, str | None, str],
    birthday: str | None = None,
    labels: Iterable[str] = (),
) -> dict[str, Any]:
    """Return a contact with these fields, and None for all others."""
    listed = [{"kind": kind, "label": label, "value": value} for kind, label, value in details]
    return dict.fromkeys(FIELDS) | {
        "first_name": first_name,
        "last_name": last_name,
        "email": email,
        "phone_number": phone_number,
        "date_of_birth": date_of_birth,
        "birthday": f"{date_of_birth:%m-%d}" if date_of_birth else birthday,
        "additional_info": additional_info,
        "labels": list(labels),
        "details": listed,
    }


def without_later_fields(contacts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return only the fields known to these tests, so that fields added to the model later do not break them."""
    # A field that is added later may take the organization, which is a detail otherwise.
    kinds = {"organization"} if set(FIELDS) - set(_VALUES) else set()
    return [
        {
            **{name: contact[name] for name in _VALUES},
            "details": [detail for detail in contact["details"] if detail["kind"] not in kinds],
        }
        for contact in contacts
    ]


def imported(rows: Iterable[ImportedContact | BadRow | NotAPerson]) -> list[dict[str, Any]]:
    """Return the fields of the contacts. Fails if a row is not a contact."""
    contacts = []
    for row in rows:
        assert isinstance(row, ImportedContact), row
        contacts.append(row.fields)
    return contacts
