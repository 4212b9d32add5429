"""Contacts as CSV (RFC 4180): UTF-8, the names of the columns in the first record.

Read are commas, semicolons and tabs, all ends of lines, and the columns that names.toml knows, in any order; others
become details with their names, and a warning says so. Of several e-mail addresses and numbers the one that Google
marks with an asterisk is the contact's own, else the first of the best column. Rows are counted as a spreadsheet does:
the names of the columns are row 1, whatever stands before them.

Written are commas and CRLF, and a byte order mark, without which Excel takes the file for Windows-1252.
A spreadsheet runs no cell, whether it splits at commas, semicolons or tabs. An apostrophe is written
- before a cell that begins with a tab, a line break, or white space and one of = + - @;
- inside a cell, before one of = + - @ that stands after a semicolon, tab or line break, with only white space
  and quotes between: `x;"=1` becomes `x;"'=1`.
A phone number cannot run, and has none. Where there are
apostrophes already, one more is written. Reading takes one off at each of these places, so every
text is read as it was. A text that is empty, and not null, is a lone apostrophe.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any

from contacts_api.contacts.fields import KINDS, is_number
from contacts_api.contacts.models import FIELDS
from contacts_api.exchange.columns import NOT_KEPT, UNKNOWN, Column, Header
from contacts_api.exchange.dates import DateOrder, order_shown
from contacts_api.exchange.files import (
    BOM,
    RECORD_BYTES,
    CutOff,
    NotText,
    UnknownColumns,
    UnknownFormat,
    UnusableFile,
    is_ended,
    lines,
)
from contacts_api.exchange.reader import (
    NEVER_OWN,
    BadRow,
    Draft,
    ImportedContact,
    Reading,
    Remark,
    Said,
    read_contact,
    read_plainly,
    too_large,
)
from contacts_api.problems import Invalid

HEAD = BOM + ",".join(FIELDS).encode() + b"\r\n"

# Spreadsheets skip white space, and in some locales run the full-width signs as well.
_SIGN = r"[=+\-@＝＋－＠]"
_STARTS = re.compile(rf"'*(?:\s*{_SIGN}|[\t\r\n]|\Z)")
# A separator, and the white space and quotes up to the next one: to look further would take quadratic time
# for a text of many line breaks.
_SPLIT = r"""[;\t\r\n](?:"|[^\S\t\r\n])*+"""
_UNGUARDED_SIGN = re.compile(rf"{_SPLIT}(?='*+{_SIGN})")
_GUARDED_SIGN = re.compile(rf"{_SPLIT}'(?='*+{_SIGN})")

# In a file of others, an apostrophe keeps a spreadsheet from running the cell.
_GUARD = re.compile(rf"\A'(?={_SIGN})")
_ENTRIES = re.compile(r"\n(?!  )")
_ENTRY = re.compile(r"([a-z]+)(?: \((.*?)\))?: (.*)", re.DOTALL)
# In a label, what would end it gets a backslash.
_CLOSING, _CLOSED = re.compile(r"\)(?=[:\\])"), r")\\"
_PARTS_OF_BIRTH = ("birth_year", "birth_month", "birth_day")
_NO_LABELS = {"smtp", "ex", "internet", ""}
_LOWERED = {"home", "work", "mobile", "main", "other", "fax", "pager", "work fax", "home fax", "anniversary"}
# So many lines may stand before the names of the columns (Excel's sep=; is one); so many names are listed in an error.
_PREAMBLE, _LISTED = 20, 20
# Outlook has 90. It takes a while to find out what a name means.
_MAX_COLUMNS = 1000


class _RecordTooLarge(Exception):  # noqa: N818 (it ends nothing but a record)
    pass


class _Lines:
    """The lines of a file as text, and what is known of those of the record that is being read."""

    def __init__(self, file: Iterator[bytes]) -> None:
        self._file = file
        self._size = self._quotes = 0
        self.last = b"\n"
        self.is_over = False
        self.number = 0
        """How many lines have been begun."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next line. Raises _RecordTooLarge and NotText."""
        line = self._take()
        self._size += len(line)
        if self._size > RECORD_BYTES:
            raise _RecordTooLarge
        try:
            return (line.removeprefix(BOM) if self.number == 1 else line).decode()
        except UnicodeDecodeError:
            raise NotText(f"Line {self.number:,} is not text in this encoding. {NotText.advice}") from None

    def begin_record(self) -> None:
        self._size = self._quotes = 0

    def give_back(self, taken: Sequence[str]) -> None:
        """Let these lines, the last ones, be the next ones."""
        self._file = chain([line.encode() for line in taken], self._file)
        self.number -= len(taken)
        self.last = b"\n"
        self.is_over = False

    def skip_record(self) -> None:
        """Go to the end of the record, as far as its quotes tell. Raises CutOff."""
        while self._quotes % 2 or not is_ended(self.last):
            try:
                self._take()
            except StopIteration:
                if self._quotes % 2:
                    raise CutOff from None
                return

    def _take(self) -> bytes:
        # A line that is too long comes in pieces.
        begins = is_ended(self.last)
        try:
            self.last = next(self._file)
        except StopIteration:
            self.is_over = True
            raise
        self.number += begins
        self._quotes += self.last.count(b'"')
        return self.last


def _records(file: _Lines, delimiter: str) -> Iterator[tuple[int, int, list[str] | BadRow]]:
    """Yield the records after the header with their rows and lines: lists of cells, or what is wrong."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    for row in count(2):
        line = file.number + 1
        file.begin_record()
        try:
            yield row, line, next(reader)
        except StopIteration:
            return
        except _RecordTooLarge:
            file.skip_record()
            yield row, line, too_large(row, line)
        except csv.Error:
            if file.is_over:
                raise CutOff from None
            yield row, line, BadRow(row, line, "csv_syntax", "A quoted cell must end where the cell ends.")


def parse(
    chunks: Iterable[bytes], reading: Reading, mapping: Mapping[str, str | None]
) -> Iterator[ImportedContact | BadRow]:
    """Yield the contacts of a CSV file, row by row, and the rows that are none.

    Raises UnknownFormat, UnknownColumns, NotText or CutOff, perhaps after some rows.
    """
    text = _Lines(lines(chunks))
    header, delimiter = _read_header(text, mapping)
    reading, read = replace(reading, is_ours=header.is_ours), _Rows(header)
    are_full = True
    for row, line, cells in _records(text, delimiter):
        if isinstance(cells, BadRow):
            yield cells
        elif not any(cells):
            continue
        elif len(cells) > header.width and any(cells[header.width :]):
            yield BadRow(row, line, "too_many_cells", "The row has more cells than there are columns.")
        else:
            if len(cells) < header.width:
                # Where every row before had all of its cells, a last one without them and without an end is cut off.
                if are_full and not is_ended(text.last):
                    raise CutOff
                are_full = False
                cells += [""] * (header.width - len(cells))
            found = read.plain(cells)
            fields = read_plainly(found, reading) if found else None
            if fields is None:
                yield read_contact(read.draft(row, line, cells), reading)
            else:
                yield ImportedContact(row, line, None, fields, (), ())


def date_order_of(
    chunks: Iterable[bytes], mapping: Mapping[str, str | None]
) -> tuple[DateOrder | None, tuple[int, int] | None]:
    """Return how the dates of a file are to be read, and row and line of the first one that can be read both ways.

    All dates of the file say which it is; where they do not, the language of their column and their separators do.
    None: there is no such date. Raises what `parse` raises for the beginning of a file.
    """
    text = _Lines(lines(chunks))
    header, delimiter = _read_header(text, mapping)
    columns = [column.index for column in header.columns if column.meaning in ("date_of_birth", "date")]
    shown: Counter[str] = Counter()
    first, sample = None, ""
    if columns and not header.is_ours:
        for row, line, cells in _records(text, delimiter):
            for index in columns:
                if isinstance(cells, BadRow) or index >= len(cells) or not (order := order_shown(cells[index])):
                    continue
                shown[order] += 1
                if order == "both" and not first:
                    first, sample = (row, line), cells[index]
    if not shown:
        return None, None
    if shown["dmy"] != shown["mdy"]:
        # Where some show the one order and some the other, the others are read as most are.
        is_certain = not (shown["dmy"] and shown["mdy"])
        return ("dmy" if shown["dmy"] > shown["mdy"] else "mdy"), None if is_certain else first
    is_month_first = header.is_month_first and "/" in sample
    return ("mdy" if is_month_first else "dmy"), first


def _read_header(text: _Lines, mapping: Mapping[str, str | None]) -> tuple[Header, str]:
    """Return what the names of the columns say, and the delimiter that shows in them.

    Other programs write something before the names, so that the best one of the first lines is the header.
    """
    best: tuple[Header, str, int] | None = None
    begin: list[str] = []
    missing = ""
    for row in range(1, _PREAMBLE + 1):
        text.begin_record()
        try:
            line = next(text)
        except (StopIteration, _RecordTooLarge):
            break
        begin.append(line)
        for delimiter in ",;\t":
            cells = next(csv.reader([line], delimiter=delimiter))
            if len(cells) > _MAX_COLUMNS:
                continue
            if not_there := mapping.keys() - set(cells):
                missing = min(not_there)
                continue
            header = Header(cells, mapping)
            if (header.identifying or mapping) and (best is None or header.score > best[0].score):
                best = header, delimiter, row
        if best and (best[0].identifying > 1 or mapping):
            break
    if best is None:
        if missing:
            detail = f"{missing[:64]!r} is no column of the file."
            raise Invalid.field("body", "columns", code=UnknownColumns.code, detail=detail)
        raise _unknown(begin)
    header, delimiter, row = best
    # Those that were read to find it are read once more.
    text.give_back(begin[row:])
    if header.unknown and not header.has_names:
        raise _unknown_columns(header.unknown)
    return header, delimiter


def _unknown(begin: Sequence[str]) -> UnusableFile:
    """Return what is wrong with a file that begins so."""
    line = next((line for line in begin if line.strip()), "").strip()
    cells = max((line.split(delimiter) for delimiter in ",;\t"), key=len)
    if len(cells) > 1 and line.isprintable():
        return _unknown_columns([cell.strip(' "') for cell in cells])
    return UnknownFormat()


def _unknown_columns(names: Sequence[str]) -> UnusableFile:
    listed = ", ".join(repr(name[:64]) for name in names[:_LISTED])
    detail = (
        f"Not known are {listed}{' and others' if len(names) > _LISTED else ''}. Say what they mean with `columns`, "
        'such as {"Wer": "first_name", "Rang": null}.'
    )
    return UnknownColumns(detail)


class _Rows:
    """Makes drafts of the rows of a file."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._reported: set[str] = set()
        # The first column of each field that has one text, and all other columns.
        self._plain: dict[str, int] = {}
        for column in header.columns:
            if column.field and not column.is_label:
                self._plain.setdefault(column.field, column.index)
        self._others = [column.index for column in header.columns if self._plain.get(column.field) != column.index]

    def plain(self, cells: Sequence[str]) -> dict[str, str] | None:
        """Return the cells by field, if there is nothing in other columns and nothing that needs a closer look."""
        if any(cells[index] for index in self._others):
            return None
        found = {name: cell for name, index in self._plain.items() if (cell := cells[index])}
        return None if any("'" in cell for cell in found.values()) else found

    def draft(self, row: int, line: int, cells: Sequence[str]) -> Draft:
        draft, header = Draft(row, line), self._header
        addresses: dict[str, list[str]] = {}
        born: dict[str, str] = {}
        for column, cell in zip(header.columns, cells, strict=False):
            # A note of ours may be nothing but white space.
            if not cell or (cell.isspace() and not header.is_ours):
                continue
            if "'" in cell:
                cell = unguarded(cell) if header.is_ours else _GUARD.sub("", cell)
            if column.is_label:
                # An address, say, whose label alone is there, says nothing.
                continue
            if column.meaning == "address":
                addresses.setdefault(column.group, []).append(cell)
            elif column.meaning in _PARTS_OF_BIRTH:
                born[column.meaning] = cell.strip()
            else:
                self._read(draft, column, cell, cells)
        for column in header.columns if addresses else ():
            if parts := addresses.pop(column.group, None):
                whole = max(parts, key=len)
                rest = [part for part in parts if part is not whole and part not in whole]
                text = "\n".join([whole, *rest] if len(rest) < len(parts) - 1 else parts)
                label, _ = self._label(column, cells)
                draft.said.append(Said("address", label, text, column.name))
        if born:
            year, month, day = (born.get(part, "") for part in _PARTS_OF_BIRTH)
            text = f"{f'{year}-' if year else '--'}{month:0>2}-{day:0>2}" if month and day else " ".join(born.values())
            draft.said.append(Said("date_of_birth", None, text, "birth year"))
        return draft

    def _read(self, draft: Draft, column: Column, cell: str, cells: Sequence[str]) -> None:
        meaning, name = column.meaning, column.name
        if meaning in ("first_name", "middle_name", "last_name", "prefix", "suffix"):
            if draft.names.get(meaning):
                draft.said.append(Said("other", name, cell, name))
            else:
                draft.names[meaning] = cell
        elif meaning == "full_name":
            draft.full_names.append(cell)
        elif meaning == "additional_info":
            draft.notes.append(cell)
        elif meaning == "labels":
            draft.labels += cell.split("\n") if self._header.is_ours else _labels_in(cell)
        elif meaning == "details":
            draft.said += _details_in(cell, name)
        elif meaning == NOT_KEPT:
            draft.not_kept.append(name)
        elif meaning == UNKNOWN:
            if name not in self._reported:
                self._reported.add(name)
                detail = "The column is not known: its values are kept in details."
                draft.warnings.append(Remark(name, "unknown_column", detail))
            draft.said.append(Said("other", name, cell, name))
        elif self._header.is_ours:
            draft.said.append(Said(meaning, None, cell, name))
        else:
            self._say(draft, column, cell, cells)

    def _say(self, draft: Draft, column: Column, cell: str, cells: Sequence[str]) -> None:
        kind = column.meaning
        label, is_preferred = self._label(column, cells)
        rank = -1 if is_preferred else self._header.rank(label)
        if kind == "department":
            kind, label = "organization", "department"
        elif kind == "other":
            label = label or column.name
        # Google puts several values of one label into one cell.
        for text in cell.split(" ::: ") if kind in KINDS else [cell]:
            draft.said.append(Said(kind, label, text, column.name, rank))

    def _label(self, column: Column, cells: Sequence[str]) -> tuple[str, bool]:
        """Return the label of a value, and whether Google's asterisk says that it is the preferred one."""
        written = " ".join(filter(None, (cells[index].strip() for index in self._header.labels.get(column.group, ()))))
        label = written.lstrip("* ")
        if label.lower() in _NO_LABELS:
            label = column.label
        elif label.lower() in _LOWERED:
            label = label.lower()
        return label, written.startswith("*")


def _labels_in(cell: str) -> list[str]:
    """Return the labels in a cell, as Google and Outlook write them."""
    separator = next((each for each in (":::", "\n", ";", ",") if each in cell), ",")
    return [label for each in cell.split(separator) if (label := each.strip().lstrip("* "))]


def _details_in(cell: str, name: str) -> Iterator[Said]:
    """Yield the details in a cell as `_written` writes them."""
    for entry in _ENTRIES.split(cell):
        found = _ENTRY.fullmatch(entry)
        if found and found[1] in KINDS:
            label = found[2].replace(")\\", ")") if found[2] else None
            yield Said(found[1], label, found[3].replace("\n  ", "\n"), name, NEVER_OWN)
        elif entry.strip():
            yield Said("other", name, entry, name)


def _written(details: Sequence[Mapping[str, Any]]) -> str:
    """Return details as a cell: `kind (label): value`, one a line, the further lines of a value indented."""
    entries = []
    for each in details:
        label = f" ({_CLOSING.sub(_CLOSED, each['label'])})" if each["label"] else ""
        value = each["value"].replace("\n", "\n  ")
        entries.append(f"{each['kind']}{label}: {value}")
    return "\n".join(entries)


def unparse(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the records of `rows`, which have all fields of a contact; they go after HEAD."""
    file = io.StringIO()
    csv.writer(file).writerows([_cell(name, row[name]) for name in FIELDS] for row in rows)
    return file.getvalue().encode()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        value = "\n".join(value) if name == "labels" else _written(value)
        return guarded(value) if value else ""
    text = str(value)
    # A number cannot run, and nobody wants an apostrophe before it.
    return text if is_number(text) else guarded(text)


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
