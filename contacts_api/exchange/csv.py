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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import chain, islice
from typing import Any

from contacts_api.contacts.models import ABOUT, FIELDS
from contacts_api.exchange.files import BOM, RECORD_BYTES, CutOff, NotUTF8, UnknownFormat, is_ended, lines
from contacts_api.exchange.reader import (
    PLACEHOLDERS,
    BadRow,
    ImportedContact,
    Source,
    bad_row,
    read_birthday,
    read_contact,
    too_large,
)

HEAD = BOM + ",".join(FIELDS).encode() + b"\r\n"
TAIL = b""

# Spreadsheets skip white space, and in some locales run the full-width signs as well.
_SIGN = r"[=+\-@＝＋－＠]"
_STARTS = re.compile(rf"'*(?:\s*{_SIGN}|[\t\r\n]|\Z)")
# A separator, and the white space and quotes up to the next one: to look further would take quadratic time
# for a text of many line breaks.
_SPLIT = r"""[;\t\r\n](?:"|[^\S\t\r\n])*+"""
_UNGUARDED_SIGN = re.compile(rf"{_SPLIT}(?='*+{_SIGN})")
_GUARDED_SIGN = re.compile(rf"{_SPLIT}'(?='*+{_SIGN})")

# What contacts have no field for: the columns that mean it, the best one first. "#" is any number.
_PARTS = {
    "middle_name": ("middle name", "additional name"),
    "nickname": ("nickname",),
    "full_name": ("name", "display name", "full name", "file as"),
    "organisation": ("organization name", "organization # - name", "company", "organization"),
}
_COLUMNS = _PARTS | {name: (name.replace("_", " "), *about.columns) for name, about in ABOUT.items()}
# For each column: the parts of a source that it means, and its rank among the columns of each.
_KNOWN: dict[str, list[tuple[str, int]]] = {}
for _part, _names in _COLUMNS.items():
    for _name in dict.fromkeys(_names):
        _KNOWN.setdefault(_name, []).append((_part, _names.index(_name)))
_LABEL = re.compile("(e-mail|phone) # - (?:label|type)")
_IDENTIFYING = {"first_name", "last_name", "nickname", "full_name", "organisation", "email", "phone_number"}

# Outlook and Windows write a date as the computer's region has it; 0/0/00 is none.
_YEAR_LAST = re.compile(r"([0-9]{1,2})([/.-])([0-9]{1,2})\2([0-9]{4})(?: .*)?", re.DOTALL)
_NO_DATE = re.compile(r"0([/.-])0\1(?:00|0000)")
# Excel writes which sign it is, for itself, into a line before the names of the columns.
_SEPARATOR = re.compile('"?sep=.?"?', re.IGNORECASE)
_SAMPLE = 200


class _RecordTooLarge(Exception):  # noqa: N818 (it ends nothing but a record)
    pass


class _Lines:
    """The lines of a file as text, and what is known of those of the record that is being read."""

    def __init__(self, file: Iterator[bytes]) -> None:
        self._file = file
        self._size = self._quotes = 0
        self._last = b"\n"
        self.is_over = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next line. Raises _RecordTooLarge and NotUTF8."""
        line = self._take()
        self._size += len(line)
        if self._size > RECORD_BYTES:
            raise _RecordTooLarge
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise NotUTF8 from None

    def begin_record(self) -> None:
        self._size = self._quotes = 0

    def skip_record(self) -> None:
        """Go to the end of the record, as far as its quotes tell. Raises CutOff."""
        while self._quotes % 2 or not is_ended(self._last):
            try:
                self._take()
            except StopIteration:
                if self._quotes % 2:
                    raise CutOff from None
                return

    def is_cut_off(self) -> bool:
        """Say whether the last line that was read is the last one, and has no end."""
        return not is_ended(self._last)

    def _take(self) -> bytes:
        try:
            self._last = next(self._file)
        except StopIteration:
            self.is_over = True
            raise
        self._quotes += self._last.count(b'"')
        return self._last


def _records(file: _Lines, delimiter: str, row: int) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Yield the records after the given row with their rows: lists of cells, or what is wrong where there is none."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        row += 1
        file.begin_record()
        try:
            yield row, next(reader)
        except StopIteration:
            return
        except _RecordTooLarge:
            file.skip_record()
            yield row, too_large(row)
        except csv.Error:
            if file.is_over:
                raise CutOff from None
            yield row, bad_row(row, "csv_syntax", "A quoted cell must end where the cell ends.")


class _Header:
    """Where in a row the parts of a source are."""

    def __init__(self, cells: Sequence[str]) -> None:
        self.width = len(cells)
        self.is_ours = "first_name" in cells
        names = [re.sub(r"[\s_]+", " ", cell).strip().lower() for cell in cells]
        labels = {name: index for index, name in enumerate(names) if _LABEL.fullmatch(_any_number(name))}
        found: dict[str, list[tuple[int, int, int]]] = {}
        for index, name in enumerate(names):
            for part, rank in _KNOWN.get(name, _KNOWN.get(_any_number(name), [])):
                stem = name.removesuffix("value")
                label = labels.get(f"{stem}label", labels.get(f"{stem}type", -1))
                found.setdefault(part, []).append((rank, index, label))
        # By the part: the indexes of its columns, the preferred ones first, each with that of its label or -1.
        self.columns = {part: [(index, label) for _, index, label in sorted(each)] for part, each in found.items()}
        self.is_known = bool(self.columns.keys() & _IDENTIFYING)

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

    Raises UnknownFormat, NotUTF8 or CutOff, perhaps after some rows.
    """
    file = lines(chunks)
    header, delimiter, row_of_header = _read_header(file)
    text = _Lines(file)
    rows = _records(text, delimiter, row_of_header)
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
                # Where every row before had all of its cells, a last one without them and without an end is cut off.
                if are_full and row >= sample[-1][0] and text.is_cut_off():
                    raise CutOff
                are_full = False
                cells += [""] * (header.width - len(cells))
            yield read_contact(row, _source(header, cells, day_first), last_date_of_birth)


def _read_header(file: Iterator[bytes]) -> tuple[_Header, str, int]:
    """Return what the names of the columns say, the delimiter that shows in them, and their row."""
    for row, line in enumerate(file, 1):
        try:
            text = line.removeprefix(BOM).decode()
        except UnicodeDecodeError:
            raise NotUTF8 from None
        if not text.strip() or _SEPARATOR.fullmatch(text.strip()):
            continue
        headers = {}
        if len(line) <= RECORD_BYTES:
            headers = {delimiter: _Header(next(csv.reader([text], delimiter=delimiter))) for delimiter in ",;\t"}
        delimiter = max(headers, key=lambda each: len(headers[each].columns), default="")
        if delimiter and headers[delimiter].is_known:
            return headers[delimiter], delimiter, row
        break
    raise UnknownFormat


def _is_day_first(header: _Header, sample: Iterable[list[str] | BadRow]) -> bool:
    """Say whether dates with slashes are day/month/year: month/day/year, unless one shows that they are not."""
    for cells in sample:
        if not isinstance(cells, BadRow):
            for index, _ in header.columns.get("date_of_birth", ()):
                date_ = _YEAR_LAST.fullmatch(cells[index].strip()) if index < len(cells) else None
                if date_ and date_[2] == "/" and int(date_[1]) > 12:
                    return True
    return False


def _source(header: _Header, cells: Sequence[str], day_first: bool) -> Source:
    source: Source = {}
    for part in header.columns:
        if text := header.value(cells, part):
            source[part] = unguarded(text) if header.is_ours and "'" in text else text
    if birthday := source.pop("date_of_birth", "").strip():
        _read_birthday(source, birthday, day_first, frozenset() if header.is_ours else PLACEHOLDERS)
    # Google puts several values of one label into one cell.
    for part in ("email", "phone_number"):
        if part in source:
            source[part] = source[part].partition(" ::: ")[0]
    return source


def _read_birthday(source: Source, text: str, day_first: bool, placeholders: frozenset[str]) -> None:
    if _NO_DATE.fullmatch(text):
        return
    if dated := _YEAR_LAST.fullmatch(text):
        first, sign, second, year = dated.groups()
        month, day = (second, first) if sign != "/" or day_first else (first, second)
        text = f"{year}-{month:0>2}-{day:0>2}"
    read_birthday(source, text, placeholders)


def unparse(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the records of `rows`, which have all fields of a contact; they go after HEAD."""
    file = io.StringIO()
    csv.writer(file).writerows(
        ["" if (value := row[name]) is None else guarded(str(value)) for name in FIELDS] for row in rows
    )
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
