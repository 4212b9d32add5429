"""What a row or a card says becomes a contact here: the rules are those of `ContactFields`, whatever the format."""

import re
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from contacts_api.contacts.models import FIELDS, ContactFields
from contacts_api.exchange.files import RECORD_BYTES
from contacts_api.handlers import detail_of
from contacts_api.text import OneLine

Source: TypeAlias = dict[str, str]
"""What a row or a card says, as text, by the names of fields and by these: `middle_name`, `nickname`, `full_name`,
`organisation`, `birthday_in_words` and `uid`. What it does not say is not there."""


@dataclass(frozen=True, slots=True)
class RowFieldError:
    """What is wrong with one field of a row, or with all of it where `field` is null."""

    field: str | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be imported. The others can."""

    row: int
    errors: tuple[RowFieldError, ...]


@dataclass(frozen=True, slots=True)
class ImportedContact:
    """A contact as it was read: `fields` has all fields of a contact, valid or null."""

    row: int
    uid: str | None
    fields: dict[str, Any]


_TYPES = get_type_hints(ContactFields, include_extras=True)
_UID = Annotated[str, StringConstraints(strip_whitespace=True, max_length=255), OneLine] | None
_VALID: TypeAdapter[dict[str, Any]] = TypeAdapter(
    TypedDict("ImportedFields", {"uid": _UID, **{name: _TYPES[name] | None for name in FIELDS}})  # type: ignore
)
_NAMELESS = RowFieldError(
    "first_name", "missing", "A name, a nickname, an organisation, an e-mail address or a phone number is needed."
)

# Invisible marks of direction, and the spaces and hyphens that typesetters use, as phones put them around numbers.
_PHONE_SIGNS = dict.fromkeys([0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF])
_PHONE_SIGNS |= {0xA0: " ", 0x2007: " ", 0x2009: " ", 0x202F: " ", **dict.fromkeys(range(0x2010, 0x2015), "-")}

# Apple's year for none, and the one of others. In our own files it is the year.
PLACEHOLDERS = frozenset({"1604", "1900"})
# Before a day and a month.
IN_WORDS = "Birthday: "
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_ISO_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_YEAR_FIRST = re.compile("([0-9]{4})([-/.]?)([0-9]{2})\\2([0-9]{2})(?:[T ].*)?", re.DOTALL)
_YEARLESS = re.compile("--([0-9]{2})-?([0-9]{2})(?:[T ].*)?", re.DOTALL)


def bad_row(row: int, code: str, detail: str) -> BadRow:
    return BadRow(row, (RowFieldError(None, code, detail),))


def too_large(row: int) -> BadRow:
    return bad_row(row, "record_too_large", f"A contact may take at most {RECORD_BYTES:,} bytes.")


def read_birthday(source: Source, text: str, placeholders: frozenset[str]) -> None:
    """Set the birthday of `source` from an ISO 8601 date, basic or extended, perhaps with a time.

    A birthday without a year (`--0412`, or one of the years that stand for none) cannot be stored
    as a date: the day and month are kept in words. What is no date is left for the rules to refuse.
    """
    if _ISO_DATE.fullmatch(text) and text[:4] not in placeholders:
        source["date_of_birth"] = text
    elif yearless := _YEARLESS.fullmatch(text):
        _set_birthday(source, text, None, yearless[1], yearless[2])
    elif dated := _YEAR_FIRST.fullmatch(text):
        _set_birthday(source, text, None if dated[1] in placeholders else dated[1], dated[3], dated[4])
    elif text:
        source["date_of_birth"] = text


def _set_birthday(source: Source, text: str, year: str | None, month: str, day: str) -> None:
    if year:
        source["date_of_birth"] = f"{year}-{month}-{day}"
        return
    try:
        # A leap year, since someone may be born on 29 February.
        born = date(2000, int(month), int(day))
    except ValueError:
        source["date_of_birth"] = text
    else:
        source["birthday_in_words"] = f"{IN_WORDS}{born.day} {_MONTHS[born.month - 1]}"


def read_contact(row: int, source: Source, last_date_of_birth: date) -> ImportedContact | BadRow:
    """Return the contact that `source` describes, or what the rules of contacts say against it.

    Middle names join the first name where there is room. A contact without a first name goes by its
    nickname, else by its last name, its name in full, its organisation, e-mail address or number.
    """
    given, middle = source.get("first_name", ""), source.get("middle_name", "")
    family = source.get("last_name", "")
    if middle and len(given) + len(middle) < 100:
        given = f"{given} {middle}"
    if not given or given.isspace():
        given, family = _substitute(source)
    phone, notes = source.get("phone_number", ""), source.get("additional_info")
    in_words = source.get("birthday_in_words")
    if in_words and in_words not in (notes or "").split("\n"):
        notes = f"{notes}\n{in_words}" if notes else in_words
    found = {name: _given(source.get(name, "")) for name in ("uid", *FIELDS)} | {
        "first_name": _given(given),
        "last_name": _given(family),
        "phone_number": _given(phone if phone.isascii() else phone.translate(_PHONE_SIGNS)),
        "additional_info": notes,
    }
    try:
        fields: dict[str, Any] = dict(_VALID.validate_python(found, context={"last_date_of_birth": last_date_of_birth}))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return BadRow(row, tuple(RowFieldError(str(each["loc"][0]), each["type"], detail_of(each)) for each in details))
    if fields["first_name"] is None:
        return BadRow(row, (_NAMELESS,))
    return ImportedContact(row, fields.pop("uid"), fields)


def _given(text: str) -> str | None:
    return text if text and not text.isspace() else None


def _substitute(source: Source) -> tuple[str, str]:
    """Return a first and a last name for a contact that has no first name."""
    if nickname := source.get("nickname", "").strip():
        return nickname, source.get("last_name", "")
    if family := source.get("last_name", "").strip():
        return family, ""
    for part in ("full_name", "organisation", "email", "phone_number"):
        if text := source.get(part, "").strip():
            return text[:100], ""
    return "", ""
