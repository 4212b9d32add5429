"""Contacts as CSV (RFC 4180): UTF-8, the names of the columns in the first record.

Read are commas, semicolons and tabs, all ends of lines, and the columns of this application, of Google
Contacts and of Outlook, in any order; other columns are ignored. The first e-mail address and number are
taken, or the one that Google marks with an asterisk. Rows are counted as a spreadsheet does: the names of
the columns are row 1.

Written are commas and CRLF, and a byte order mark, without which Excel takes the file for Windows-1252.
A spreadsheet runs no cell, whether it splits at commas, semicolons or tabs. An apostrophe is written
- before a cell that begins with a tab, a line break, or white space and one of = + - @;
- inside a cell, before one of = + - @ that stands after a semicolon, tab or line break, with only white space
  and quotes between: `x;"=1` becomes `x;"'=1`.
Where there are apostrophes already, one more is written. Reading takes one off at each of these places, so every
text is read as it was. A text that is empty, and not null, is a lone apostrophe.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import chain, islice
from typing import Any

from contacts_api.contacts.models import ContactBase
from contacts_api.exchange.records import (
    BOM,
    PLACEHOLDERS,
    RECORD_BYTES,
    BadRow,
    CutOffError,
    EncodingError,
    FormatError,
    ImportedContact,
    Source,
    bad_row,
    is_ended,
    lines,
    read_birthday,
    read_contact,
    too_large,
)

COLUMNS = tuple(ContactBase.model_fields)
HEAD = BOM + ",".join(COLUMNS).encode() + b"\r\n"
TAIL = b""

# Spreadsheets skip white space, and in some locales run the full-width signs as well.
_SIGN = r"[=+\-@＝＋－＠]"
_STARTS = re.compile(rf"'*(?:\s*{_SIGN}|[\t\r\n]|\Z)")
# A separator, and the white space and quotes up to the next one: to look further would take quadratic time
# for a text of many line breaks.
_SPLIT = r"""[;\t\r\n](?:"|[^\S\t\r\n])*+"""
_UNGUARDED_SIGN = re.compile(rf"{_SPLIT}(?='*+{_SIGN})")
_GUARDED_SIGN = re.compile(rf"{_SPLIT}'(?='*+{_SIGN})")

# By the part of a contact: the names of its columns, the preferred ones first. A number is any number.
_NAMES = {
    "given": ("first name", "given name"),
    "middle": ("middle name", "additional name"),
    "family": ("last name", "family name", "surname"),
    "nickname": ("nickname",),
    "full_name": ("name", "display name", "full name", "file as"),
    "organisation": ("organization name", "organization # - name", "company", "organization"),
    "email": ("e-mail # - value", "e-mail address", "e-mail # address", "email address", "email", "e-mail"),
    "phone": (
        *("phone number", "phone # - value", "primary phone", "mobile phone", "home phone", "home phone #"),
        *("business phone", "business phone #", "company main phone", "car phone", "other phone", "phone", "mobile"),
    ),
    "birthday": ("date of birth", "birthday"),
    "notes": ("additional info", "notes", "note"),
}
_KNOWN = {name: (part, rank) for part, names in _NAMES.items() for rank, name in enumerate(names)}
_LABEL = re.compile("(e-mail|phone) # - (?:label|type)")
_IDENTIFYING = {"given", "family", "nickname", "full_name", "organisation", "email", "phone"}

# Outlook and Windows write a date as the computer's region has it; 0/0/00 is none.
_YEAR_LAST = re.compile(r"([0-9]{1,2})([/.-])([0-9]{1,2})\2([0-9]{4})(?: .*)?", re.DOTALL)
_NO_DATE = re.compile(r"0([/.-])0\1(?:00|0000)")
# Excel writes which sign it is, for itself, into a line before the names of the columns.
_SEPARATOR = re.compile('"?sep=.?"?', re.IGNORECASE)
_SAMPLE = 200


class _RecordTooLargeError(Exception):
    pass


class _Records:
    """The records of a file in their rows: lists of cells, or what is wrong where there is none."""

    def __init__(self, lines: Iterator[bytes], delimiter: str, row: int) -> None:
        self._lines = lines
        self._reader = csv.reader(self, delimiter=delimiter, strict=True)
        self._size = self._quotes = 0
        self._last = b"\n"
        self._is_over = False
        self.row = row

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next line, to the reader."""
        try:
            self._last = line = next(self._lines)
        except StopIteration:
            self._is_over = True
            raise
        self._size += len(line)
        self._quotes += line.count(b'"')
        if self._size > RECORD_BYTES:
            raise _RecordTooLargeError
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise EncodingError from None

    def read(self) -> Iterator[tuple[int, list[str] | BadRow]]:
        while True:
            record = self._next_record()
            if record is None:
                return
            yield self.row, record

    def _next_record(self) -> list[str] | BadRow | None:
        self._size = self._quotes = 0
        row = self.row + 1
        record: list[str] | BadRow
        try:
            record = next(self._reader)
        except StopIteration:
            return None
        except _RecordTooLargeError:
            self._skip()
            record = too_large(row)
        except csv.Error:
            if self._is_over:
                raise CutOffError from None
            record = bad_row(row, "csv_syntax", "A quoted cell must end where the cell ends.")
        self.row = row
        return record

    def _skip(self) -> None:
        """Go to the end of a record, as far as its quotes tell."""
        while self._quotes % 2 or not is_ended(self._last):
            following = next(self._lines, None)
            if following is None:
                if self._quotes % 2:
                    raise CutOffError
                return
            self._last = following
            self._quotes += following.count(b'"')

    def is_cut_off(self, row: int) -> bool:
        """Say whether this row is the last one, and its line has no end."""
        return row == self.row and not is_ended(self._last)


class _Header:
    """Where in a row the parts of a contact are."""

    def __init__(self, cells: Sequence[str]) -> None:
        self.width = len(cells)
        self.is_ours = "first_name" in cells
        names = [re.sub(r"[\s_]+", " ", cell).strip().lower() for cell in cells]
        labels = {name: index for index, name in enumerate(names) if _LABEL.fullmatch(_any_number(name))}
        found: dict[str, list[tuple[int, int, int]]] = {}
        for index, name in enumerate(names):
            part, rank = _KNOWN.get(name) or _KNOWN.get(_any_number(name)) or (None, 0)
            if part:
                stem = name.removesuffix("value")
                label = labels.get(f"{stem}label", labels.get(f"{stem}type", -1))
                found.setdefault(part, []).append((rank, index, label))
        self.recognised = len(found)
        self.is_known = bool(found.keys() & _IDENTIFYING)
        self.columns = {part: [(index, label) for _, index, label in sorted(ranked)] for part, ranked in found.items()}

    def value(self, cells: Sequence[str], part: str) -> str:
        """Return the cell of `part` that is marked, or the first one with something in it."""
        columns = self.columns[part]
        if len(columns) == 1:
            return cells[columns[0][0]]
        first = ""
        for index, label in columns:
            cell = cells[index]
            if not cell or cell.isspace():
                continue
            if label >= 0 and cells[label].startswith("*"):
                return cell
            first = first or cell
        return first


def _any_number(name: str) -> str:
    return re.sub("[0-9]+", "#", name)


def parse(chunks: Iterable[bytes], last_date_of_birth: date) -> Iterator[ImportedContact | BadRow]:
    """Yield the contacts of a CSV file, row by row, and the rows that are none.

    Raises FormatError, EncodingError or CutOffError, perhaps after some rows.
    """
    header, records = _open(lines(chunks))
    rows = records.read()
    sample = list(islice(rows, _SAMPLE))
    day_first = _is_day_first(header, (cells for _, cells in sample))
    are_full = True
    for row, cells in chain(sample, rows):
        if isinstance(cells, BadRow):
            yield cells
        elif not any(cells):
            continue
        elif len(cells) > header.width and any(cells[header.width :]):
            yield bad_row(row, "too_many_cells", "The row has more cells than there are columns.")
        else:
            if len(cells) < header.width:
                if are_full and records.is_cut_off(row):
                    raise CutOffError
                are_full = False
                cells += [""] * (header.width - len(cells))
            yield read_contact(row, _source(header, cells, day_first), last_date_of_birth)


def _open(file: Iterator[bytes]) -> tuple[_Header, _Records]:
    """Read the names of the columns, in which the delimiter shows."""
    for row, line in enumerate(file, 1):
        try:
            text = line.removeprefix(BOM).decode()
        except UnicodeDecodeError:
            raise EncodingError from None
        if not text.strip() or _SEPARATOR.fullmatch(text.strip()):
            continue
        headers = {}
        if len(line) <= RECORD_BYTES:
            headers = {delimiter: _Header(next(csv.reader([text], delimiter=delimiter))) for delimiter in ",;\t"}
        delimiter = max(headers, key=lambda each: headers[each].recognised, default="")
        if delimiter and headers[delimiter].is_known:
            return headers[delimiter], _Records(file, delimiter, row)
        break
    raise FormatError


def _is_day_first(header: _Header, sample: Iterable[list[str] | BadRow]) -> bool:
    """Say whether dates with slashes are day/month/year: month/day/year, unless one shows that they are not."""
    for cells in sample:
        if not isinstance(cells, BadRow):
            for index, _ in header.columns.get("birthday", ()):
                date_ = _YEAR_LAST.fullmatch(cells[index].strip()) if index < len(cells) else None
                if date_ and date_[2] == "/" and int(date_[1]) > 12:
                    return True
    return False


def _source(header: _Header, cells: Sequence[str], day_first: bool) -> Source:
    source = Source()
    for part in header.columns:
        if text := header.value(cells, part):
            if header.is_ours and "'" in text:
                text = unguarded(text)
            if part == "birthday":
                _read_birthday(source, text.strip(), day_first, frozenset() if header.is_ours else PLACEHOLDERS)
            else:
                setattr(source, part, text)
    # Google puts several values of one label into one cell.
    source.email = source.email.partition(" ::: ")[0]
    source.phone = source.phone.partition(" ::: ")[0]
    return source


def _read_birthday(source: Source, text: str, day_first: bool, placeholders: frozenset[str]) -> None:
    if _NO_DATE.fullmatch(text):
        return
    if dated := _YEAR_LAST.fullmatch(text):
        first, sign, second, year = dated.groups()
        month, day = (second, first) if sign != "/" or day_first else (first, second)
        text = f"{year}-{month:0>2}-{day:0>2}"
    read_birthday(source, text, placeholders)


def unparse(rows: Iterable[Sequence[Any]]) -> bytes:
    """Return the records of `rows`, which are values in the order of COLUMNS; they go after HEAD."""
    file = io.StringIO()
    csv.writer(file).writerows(["" if value is None else guarded(str(value)) for value in row] for row in rows)
    return file.getvalue().encode()


def guarded(text: str) -> str:
    """Return `text` as a cell that no spreadsheet runs."""
    if _STARTS.match(text):
        text = f"'{text}"
    # Most texts have none of these, and looking for them costs less than a regular expression.
    if ";" in text or "\n" in text or "\t" in text or "\r" in text:
        # By a function: with a template, re takes a microsecond longer, even where it finds nothing.
        text = _UNGUARDED_SIGN.sub(lambda found: f"{found[0]}'", text)
    return text


def unguarded(cell: str) -> str:
    """Return the text that `guarded` was given."""
    # The inside first: an apostrophe there may stand between the start and the sign that it was guarded for.
    text = _GUARDED_SIGN.sub(lambda found: found[0][:-1], cell)
    return text[1:] if text.startswith("'") and _STARTS.match(text) else text
