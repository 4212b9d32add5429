"""What the codecs have in common: the file in lines, the record that comes of it, the error in its place.

Nothing here, nor in the codecs, holds more of a file than a few chunks and one record of `RECORD_BYTES`,
or goes on for longer than the lines of an address book take.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from contacts_api.contacts.models import DateOfBirth, Email, PhoneNumber
from contacts_api.handlers import detail_of
from contacts_api.text import Name, Note, OneLine

BOM = b"\xef\xbb\xbf"
RECORD_BYTES = 64 * 1024
# As many as 200,000 cards with a photo each, in 100 MB, do not have: empty lines cost time, and make no rows.
MAX_LINES = 5_000_000
_CHUNK = 64 * 1024

Format = Literal["csv", "vcard"]


class FileError(Exception):
    """A file of which nothing is imported; `code` is for a program, `detail` for a person."""

    code: str
    detail: str

    def __init__(self) -> None:
        super().__init__(self.detail)


class EmptyFileError(FileError):
    code, detail = "empty_file", "The file is empty."


class EncodingError(FileError):
    code, detail = "not_utf8", "The file is not text in UTF-8."


class FormatError(FileError):
    code = "unknown_format"
    detail = (
        "The file is neither a vCard nor a CSV file that begins with the names of its columns, "
        "such as first_name, last_name and email."
    )


class CutOffError(FileError):
    code, detail = "cut_off", "The file ends in the middle of a contact: a part of it is missing."


class TooManyLinesError(FileError):
    code, detail = "too_many_lines", f"The file has more than {MAX_LINES:,} lines."


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a row, or with all of it where `field` is null."""

    field: str | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be imported. The others can."""

    row: int
    errors: tuple[FieldError, ...]


@dataclass(frozen=True, slots=True)
class ImportedContact:
    """A contact as it was read: `fields` are those of `ContactBase`, valid and in its order."""

    row: int
    uid: str | None
    fields: dict[str, Any]


@dataclass(slots=True)
class Source:
    """What a row or a card says, as text; an empty text where it says nothing."""

    given: str = ""
    middle: str = ""
    family: str = ""
    nickname: str = ""
    full_name: str = ""
    organisation: str = ""
    email: str = ""
    phone: str = ""
    birthday: str | None = None
    in_words: str = ""
    notes: str | None = None
    uid: str = ""


class _Fields(TypedDict):
    uid: Annotated[str, StringConstraints(strip_whitespace=True, max_length=255), OneLine] | None
    first_name: Name | None
    last_name: Name | None
    email: Email | None
    phone_number: PhoneNumber | None
    date_of_birth: DateOfBirth | None
    additional_info: Note | None


_FIELDS = TypeAdapter(_Fields)
_NAMELESS = FieldError(
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


def sniff(chunks: Iterable[bytes]) -> tuple[Format, Iterator[bytes]]:
    """Return the format of a file, and all of its chunks. Raises EmptyFileError."""
    chunks = iter(chunks)
    head, begin = b"", b"BEGIN:VCARD"
    for chunk in chunks:
        head += chunk
        if len(head.removeprefix(BOM).lstrip()) >= len(begin) or len(head) >= RECORD_BYTES:
            break
    text = head.removeprefix(BOM).lstrip()
    if not text:
        raise EmptyFileError
    return "vcard" if text[: len(begin)].upper() == begin else "csv", chain([head], chunks)


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file with their ends (LF, CRLF or CR); pieces, of one longer than RECORD_BYTES.

    Raises TooManyLinesError.
    """
    tail, count = b"", 0
    for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK):
            pieces = (tail + chunk[start : start + _CHUNK]).splitlines(keepends=True)
            # A CR at the end may have its LF in the next chunk.
            tail = b"" if pieces[-1].endswith(b"\n") else pieces.pop()
            yield from pieces
            count += len(pieces)
            if count > MAX_LINES:
                raise TooManyLinesError
            if len(tail) > RECORD_BYTES:
                yield tail
                tail = b""
    if tail:
        yield tail


def is_ended(line: bytes) -> bool:
    return line[-1] in b"\r\n"


def bad_row(row: int, code: str, detail: str, field: str | None = None) -> BadRow:
    return BadRow(row, (FieldError(field, code, detail),))


def too_large(row: int) -> BadRow:
    return bad_row(row, "record_too_large", f"A contact may take at most {RECORD_BYTES:,} bytes.")


def read_birthday(source: Source, text: str, placeholders: frozenset[str]) -> None:
    """Set the birthday of `source` from an ISO 8601 date, basic or extended, perhaps with a time.

    A birthday without a year (`--0412`, or one of the years that stand for none) cannot be stored
    as a date: the day and month are kept in words. What is no date is left for the rules to refuse.
    """
    if _ISO_DATE.fullmatch(text) and text[:4] not in placeholders:
        source.birthday = text
    elif yearless := _YEARLESS.fullmatch(text):
        _set_birthday(source, text, None, yearless[1], yearless[2])
    elif dated := _YEAR_FIRST.fullmatch(text):
        _set_birthday(source, text, None if dated[1] in placeholders else dated[1], dated[3], dated[4])
    else:
        source.birthday = text or None


def _set_birthday(source: Source, text: str, year: str | None, month: str, day: str) -> None:
    if year:
        source.birthday = f"{year}-{month}-{day}"
        return
    try:
        # A leap year, since someone may be born on 29 February.
        born = date(2000, int(month), int(day))
    except ValueError:
        source.birthday = text
    else:
        source.in_words = f"{IN_WORDS}{born.day} {_MONTHS[born.month - 1]}"


def read_contact(row: int, source: Source, last_date_of_birth: date) -> ImportedContact | BadRow:
    """Return the contact that `source` describes, or what the rules of contacts say against it.

    Middle names join the first name where there is room. A contact without a first name goes by its
    nickname, else by its last name, its name in full, its organisation, e-mail address or number.
    """
    given, family = source.given, source.family
    if source.middle and len(given) + len(source.middle) < 100:
        given = f"{given} {source.middle}"
    if not given or given.isspace():
        given, family = _substitute(source)
    phone = source.phone if source.phone.isascii() else source.phone.translate(_PHONE_SIGNS)
    notes = source.notes
    if source.in_words and source.in_words not in (notes or "").split("\n"):
        notes = f"{notes}\n{source.in_words}" if notes else source.in_words
    found = {
        "uid": _given(source.uid),
        "first_name": _given(given),
        "last_name": _given(family),
        "email": _given(source.email),
        "phone_number": _given(phone),
        "date_of_birth": source.birthday,
        "additional_info": notes,
    }
    try:
        fields: dict[str, Any] = dict(
            _FIELDS.validate_python(found, context={"last_date_of_birth": last_date_of_birth})
        )
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return BadRow(row, tuple(FieldError(str(each["loc"][0]), each["type"], detail_of(each)) for each in details))
    if fields["first_name"] is None:
        return BadRow(row, (_NAMELESS,))
    return ImportedContact(row, fields.pop("uid"), fields)


def _given(text: str) -> str | None:
    return text if text and not text.isspace() else None


def _substitute(source: Source) -> tuple[str, str]:
    """Return a first and a last name for a contact that has no first name."""
    if nickname := source.nickname.strip():
        return nickname, source.family
    if family := source.family.strip():
        return family, ""
    for text in (source.full_name, source.organisation, source.email, source.phone):
        if text := text.strip():
            return text[:100], ""
    return "", ""


def content_line(text: str) -> bytes:
    """Return a line of a vCard or a calendar, folded at 75 octets between characters (RFC 6350, 3.2)."""
    line = text.encode()
    if len(line) <= 75:
        return line + b"\r\n"
    folded, start, size = bytearray(), 0, 75
    while len(line) - start > size:
        end = start + size
        while line[end] & 0xC0 == 0x80:
            end -= 1
        folded += line[start:end] + b"\r\n "
        start, size = end, 74
    return bytes(folded + line[start:] + b"\r\n")


def escape_text(text: str) -> str:
    """Return a TEXT value (RFC 2426, 5; RFC 5545, 3.3.11)."""
    return text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")
