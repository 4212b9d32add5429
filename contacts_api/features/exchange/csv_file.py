"""Read and write contacts as CSV (RFC 4180), in UTF-8 and with a header.

The reader accepts commas, semicolons, tabs, `|` and the delimiter of a `sep=` line, all line ends, and the columns in
names.toml in any order. Values of other columns become details labelled with the name of the column, with a warning.
If a contact has several e-mail addresses or phone numbers, the one that Google marks with an asterisk goes into the
field, or else the first one of the best column (see `Header.rank`). Rows are numbered from the header, which is row 1
even if other lines come before it.

The writer uses commas, CRLF and a byte order mark, because Excel reads files without the mark as Windows-1252.

To prevent formula injection, the writer adds an apostrophe wherever a spreadsheet could see a formula, even if it
splits the file at semicolons or tabs instead of commas:

- before a cell that begins with a tab, a line break, or optional white space and one of = + - @;
- inside a cell, before one of = + - @ that follows a semicolon, tab or line break, with only white space and quotes
  between them: `x;"=1` becomes `x;"'=1`.

Phone numbers are not formulas and get no apostrophe. If a text already has apostrophes at such a place, one more is
added. The reader removes one apostrophe at each of these places, so every text survives a round trip. An empty text is
written as a lone apostrophe, to tell it from null.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

from contacts_api.contacts.fields import KINDS, MAX_DETAILS, digits_of, is_number
from contacts_api.contacts.models import FIELDS
from contacts_api.features.exchange.columns import CHOICE, GROUP, NO_CHOICES, NOT_KEPT, UNKNOWN, Column, Header
from contacts_api.features.exchange.files import (
    BOM,
    RECORD_BYTES,
    CutOff,
    MissingHeader,
    NotText,
    UnknownColumns,
    UnknownFormat,
    UnusableFile,
    is_ended,
    lines,
)
from contacts_api.features.exchange.reader import (
    NEVER_OWN,
    BadRow,
    Draft,
    ImportedContact,
    NotAPerson,
    Reading,
    Remark,
    Said,
    read_contact,
    too_large,
)
from contacts_api.problems import Invalid
from contacts_api.text import fold, is_plain_address

HEAD = BOM + ",".join(FIELDS).encode() + b"\r\n"

# Spreadsheets skip leading white space. In some locales, full-width signs also start a formula.
_SIGN = r"[=+\-@＝＋－＠]"
_STARTS = re.compile(rf"'*(?:\s*{_SIGN}|[\t\r\n]|\Z)")
# A separator, and the white space and quotes after it, up to the next separator. Without that limit, a text of many
# line breaks would take quadratic time.
_SPLIT = r"""[;\t\r\n](?:"|[^\S\t\r\n])*+"""
_UNGUARDED_SIGN = re.compile(rf"{_SPLIT}(?='*+{_SIGN})")
_GUARDED_SIGN = re.compile(rf"{_SPLIT}'(?='*+{_SIGN})")

# Other programs also write an apostrophe before a sign, to prevent formulas.
_GUARD = re.compile(rf"\A'(?={_SIGN})")
_TEXT_OF_FORMULA = re.compile(r'\A="([^"]*)"\Z')
_QUOTED = re.compile('"([^"]*)"')
_OPEN_CELL = re.compile(r'(?:\A|[,;\t|]) *+"(?:[^"]|"")*+\Z')
_DELIMITERS = ",;\t|"
# A line that tells Excel the delimiter.
_NAMED_DELIMITER = re.compile('"?sep=(.)"?\\s*+', re.IGNORECASE)
# A quote that may end a cell, and the character after it.
_CLOSING_QUOTE = re.compile('" *+(?=(.))', re.DOTALL)
# Zimbra's fileAs: a number for the names that a contact is filed under, or 8 and a custom text.
_FILED_AS = re.compile("([1-8])(?::(.*))?", re.DOTALL)
_OPENING = re.compile(' *"')
_ENTRIES = re.compile(r"\n(?!  )")
_ENTRY = re.compile(r"([a-z]+)(?: \((.*?)\))?: (.*)", re.DOTALL)
# A ) in a label gets a backslash if it would end the label.
_CLOSING, _CLOSED = re.compile(r"\)(?=[:\\])"), r")\\"
_PARTS_OF_BIRTH = ("birth_year", "birth_month", "birth_day")
_NO_LABELS = {"smtp", "ex", "internet", ""}
_LOWERED = {"home", "work", "mobile", "main", "other", "fax", "pager", "work fax", "home fax", "anniversary"}
_SAY_NOTHING = _NO_LABELS | _LOWERED
# The header must be within the first _PREAMBLE lines. An error lists at most _LISTED names of columns.
_PREAMBLE, _LISTED = 20, 20
# Limits on the columns of a header, and on the names looked up in all candidates for it. Outlook writes 90 columns.
# Looking up a name takes up to a millisecond.
_MAX_COLUMNS, _MAX_NAMES = 1000, 3000
# A number with fewer digits may be a column name, such as a year.
_DIGITS_OF_DATA = 6
_DATA_CHARACTERS = 300
# How much of a name, and of a whole address, is compared with its parts.
_COMPARED_CHARACTERS, _WHOLE_CHARACTERS = 300, 2000


_MAP_THEM = 'Say what they mean with `columns`, such as {"Wer": "first_name", "Rang": null}.'
_AROUND_ADDRESS = str.maketrans('<>()[],;"', " " * 9)


class _RecordTooLarge(Exception):  # noqa: N818 (internal: caught for each record)
    pass


class _Lines:
    """Iterates over the lines of a file as text, and tracks the size and the lines of the current record."""

    def __init__(self, file: Iterator[bytes]) -> None:
        self._file = file
        # Lines given back by `give_back`, in reverse order.
        self._again: list[bytes] = []
        self._size = self._quotes = 0
        self.record: list[str] = []
        """The lines of the current record."""
        self.is_mended = False
        """True if the current row was repaired because it had a misplaced quote."""
        self.last = b"\n"
        self.is_over = False
        self.number = 0
        """The number of the current line, from 1."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next line. Raises _RecordTooLarge or NotText."""
        line = self._take()
        self._size += len(line)
        if self.is_too_large and not is_ended(line):
            raise _RecordTooLarge
        try:
            text = (line.removeprefix(BOM) if self.number == 1 else line).decode()
        except UnicodeDecodeError:
            raise NotText(f"Line {self.number:,} is not text in this encoding. {NotText.advice}") from None
        self.record.append(text)
        if self.is_too_large:
            raise _RecordTooLarge
        return text

    @property
    def is_too_large(self) -> bool:
        """True if the current record has more than RECORD_BYTES."""
        return self._size > RECORD_BYTES

    def begin_record(self) -> None:
        self._size = self._quotes = 0
        self.record = []

    def give_back(self, taken: Sequence[str]) -> None:
        """Return the last lines taken, so that the next calls yield them again."""
        self._again += [line.encode() for line in reversed(taken)]
        self.number -= len(taken)
        self.last = b"\n"
        self.is_over = False

    def skip_record(self) -> None:
        """Skip to the end of the record, where the quotes are balanced. Raises CutOff."""
        while self._quotes % 2 or not is_ended(self.last):
            try:
                self._take()
            except StopIteration:
                if self._quotes % 2:
                    raise CutOff from None
                return

    def _take(self) -> bytes:
        # A line that is too long comes in pieces. Count it once.
        begins = is_ended(self.last)
        try:
            self.last = self._again.pop() if self._again else next(self._file)
        except StopIteration:
            self.is_over = True
            raise
        self.number += begins
        self._quotes += self.last.count(b'"')
        return self.last


def _records(file: _Lines, header: Header, delimiter: str) -> Iterator[tuple[int, int, list[str] | BadRow]]:
    """Yield the row number, the line number and the cells of each record after the header, or a BadRow for the cells.

    Raises CutOff or NotText.
    """
    # Other programs write a space after the comma. In our own exports, a space belongs to the cell.
    reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=not header.is_ours)
    rows = count(2)
    for row in rows:
        line = file.number + 1
        file.begin_record()
        try:
            yield row, line, _unwrapped(next(reader), delimiter, header.width)
        except StopIteration:
            return
        except (_RecordTooLarge, csv.Error) as error:
            mended = _mended(file, delimiter, header.width)
            if file.is_over and (len(mended) < 2 or not is_ended(file.last)):
                raise CutOff from None
            if mended:
                file.is_mended = True
                yield row, line, mended[0]
                file.is_mended = False
                yield from ((next(rows), line + n, cells) for n, cells in enumerate(mended[1:], 1))
            elif isinstance(error, _RecordTooLarge):
                file.skip_record()
                yield row, line, too_large(row, line)
            else:
                yield row, line, _broken(row, line, file.number)


def _unwrapped(cells: list[str], delimiter: str, width: int) -> list[str]:
    """Return the cells of a record. If the whole row is quoted as one cell, parse that cell as a row."""
    if len(cells) == 1 < width and delimiter in cells[0]:
        within = next(csv.reader(cells, delimiter=delimiter, skipinitialspace=True), [])
        return within if len(within) == width else cells
    return cells


def _mended(file: _Lines, delimiter: str, width: int) -> list[list[str]]:
    """Repair a record with a misplaced quote. Return the cells of one or more rows, or an empty list if it fails.

    If the first line is a complete row, the quote has merged several rows, and all lines must be complete rows.
    Otherwise the record is one row.
    """
    taken = file.record
    if len(taken) < 2 or len(_cells_in(taken[0], delimiter)) != width:
        taken = ["".join(taken)]
    if file.is_too_large and (len(taken) < 2 or not is_ended(file.last)):
        return []
    if any(len(_cells_in(text, delimiter)) != width for text in taken if text.strip()):
        return []
    return [_cells_in(text, delimiter) for text in taken]


def _cells_in(text: str, delimiter: str) -> list[str]:
    """Return the cells of a record with unescaped quotes. A quote ends a cell only before a delimiter.

    Return an empty list if a cell without quotes contains a line break.
    """
    text = text.rstrip("\r\n") + delimiter
    ends = [(found.start(), found.end() + 1) for found in _CLOSING_QUOTE.finditer(text) if found[1] == delimiter][::-1]
    cells: list[str] = []
    position = 0
    while position < len(text):
        opening = _OPENING.match(text, position)
        start = opening.end() if opening else position
        while ends and ends[-1][0] < start:
            ends.pop()
        if opening and ends:
            end, position = ends.pop()
            cells.append(text[start:end].replace('""', '"'))
        else:
            end = text.index(delimiter, position)
            cells.append(text[position:end])
            position = end + 1
            if "\n" in cells[-1] or "\r" in cells[-1]:
                return []
    return cells


def _broken(row: int, line: int, last: int) -> BadRow:
    where = f"Line {line:,} is" if line == last else f"The lines {line:,} to {last:,} are"
    return BadRow(row, line, "csv_syntax", f"A quoted cell must end where the cell ends. {where} passed over.")


def parse(
    chunks: Iterable[bytes], reading: Reading, mapping: Mapping[str, str | None]
) -> Iterator[ImportedContact | BadRow | NotAPerson]:
    """Yield each row of a CSV file: a contact, an error or a group. `mapping` maps names of columns to fields.

    Raises UnknownFormat, MissingHeader, UnknownColumns, NotText, CutOff or Invalid, possibly after some rows.
    """
    text = _Lines(lines(chunks))
    header, delimiter, _, passed_over = _read_header(text, mapping)
    reading, read = replace(reading, is_ours=header.is_ours), _Rows(header)
    are_full = True
    for row, line, cells in _records(text, header, delimiter):
        if isinstance(cells, BadRow):
            yield cells
            continue
        if not any(cells):
            continue
        if len(cells) < header.width:
            # If all earlier rows are complete, a short last row without a line end means that the file is truncated.
            if are_full and not is_ended(text.last):
                raise CutOff
            are_full = False
            cells += [""] * (header.width - len(cells))
        if read.is_group(cells):
            yield NotAPerson(row, line, "KIND:group")
            continue
        draft = read.draft(row, line, cells)
        if passed_over:
            detail = f"Lines before the names of the columns are no contacts: {passed_over} passed over."
            draft.warnings.append(Remark(None, "passed_over", detail))
            passed_over = 0
        if text.is_mended:
            detail = "A quote stands in the wrong place. The row is kept as it seems to be meant."
            draft.warnings.append(Remark(None, "csv_syntax", detail))
        yield read_contact(draft, reading)


def dates_in(chunks: Iterable[bytes], mapping: Mapping[str, str | None]) -> tuple[Iterator[tuple[int, int, str]], bool]:
    """Return the dates of a file (row, line, text), and whether the language of the header suggests month first.

    Raises the same errors as `parse`.
    """
    text = _Lines(lines(chunks))
    header, delimiter, *_ = _read_header(text, mapping)
    columns = [
        each.index for each in header.columns if each.meaning in ("date_of_birth", "date") and not header.is_ours
    ]

    def dates() -> Iterator[tuple[int, int, str]]:
        for row, line, cells in _records(text, header, delimiter) if columns else ():
            if not isinstance(cells, BadRow):
                yield from ((row, line, cells[index]) for index in columns if index < len(cells))

    return dates(), header.is_month_first


def _read_header(text: _Lines, mapping: Mapping[str, str | None]) -> "_Found":
    """Find the header: the best candidate among the first lines, because some programs write other lines before it.

    A line with an e-mail address or a phone number is a contact, not a header.

    Raises UnknownFormat, MissingHeader, UnknownColumns, NotText, or Invalid if `mapping` names a missing column.
    """
    best: _Found | None = None
    begin: list[str] = []
    missing = record = ""
    delimiters, names = _DELIMITERS, 0
    # The number of earlier lines with text, and whether one of them is a contact.
    before, is_after_data = 0, False
    # The cells of the last line before the first contact, to list in the error: they may be unknown names of columns.
    unknown: list[str] = []
    while len(begin) < _PREAMBLE:
        text.begin_record()
        try:
            begin.append(next(text))
        except (StopIteration, _RecordTooLarge):
            break
        record += begin[-1]
        if named := _NAMED_DELIMITER.fullmatch(record):
            delimiters, record = named[1], ""
            continue
        if _OPEN_CELL.search(record) and len(begin) < _PREAMBLE:
            # The name of a column continues on the next line.
            continue
        is_data = False
        for delimiter in delimiters:
            cells = _cells_of_header(record, delimiter)
            names += len(cells)
            if len(cells) > _MAX_COLUMNS or names > _MAX_NAMES:
                continue
            if not_there := mapping.keys() - set(cells):
                missing = min(not_there)
                continue
            if not mapping and any(map(_is_data, cells)):
                is_data = is_data or len(cells) > 1
                continue
            header = Header(cells, mapping)
            # After a contact, require two known names: a single cell may match by chance, such as the name Nick.
            is_header = bool(mapping) or header.identifying > is_after_data
            if is_header and (best is None or header.score > best.header.score):
                best = _Found(header, delimiter, len(begin), before)
        before += bool(record.strip(f' \r\n"{delimiters}'))
        is_after_data = is_after_data or is_data
        if not is_after_data:
            cells = max((_cells_of_header(record, delimiter) for delimiter in delimiters), key=len)
            unknown = [cell for cell in cells if cell.strip()]
        record = ""
        if best and (best.header.identifying > 1 or mapping):
            break
    if best is None:
        if missing:
            detail = f"{missing[:64]!r} is no column of the file."
            raise Invalid.field("body", "columns", code=UnknownColumns.code, detail=detail)
        if is_after_data:
            raise _unknown_columns(unknown) if len(unknown) > 1 else _missing_header()
        raise _unknown(begin, delimiters)
    # Give back the lines that were read after the header.
    text.give_back(begin[best.lines :])
    if best.header.unknown and not best.header.has_names:
        raise _unknown_columns(best.header.unknown)
    return best


class _Found(NamedTuple):
    """The header of a file, its delimiter, the number of lines up to its end, and of lines with text before it."""

    header: Header
    delimiter: str
    lines: int
    passed_over: int


def _cells_of_header(record: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([record], delimiter=delimiter, skipinitialspace=True))
        if len(cells) == 1:
            # The whole row may be quoted as one cell.
            cells = next(csv.reader(cells, delimiter=delimiter, skipinitialspace=True), cells)
    except csv.Error:
        return []
    return cells


def _is_data(cell: str) -> bool:
    """Return True if a cell is an e-mail address or a phone number, so it cannot be the name of a column."""
    cell = cell[:_DATA_CHARACTERS].strip()
    if "@" in cell:
        return any(map(is_plain_address, cell.translate(_AROUND_ADDRESS).split()))
    return is_number(cell) and len(digits_of(cell)) >= _DIGITS_OF_DATA


def _missing_header() -> UnusableFile:
    detail = "The file begins with contacts: its first lines have e-mail addresses or phone numbers in them."
    return MissingHeader(f"{detail} {MissingHeader.advice}")


def _unknown(begin: Sequence[str], delimiters: str) -> UnusableFile:
    """Return the problem of a file that has no known columns.

    The message repeats no cells, because they may be personal data.
    """
    line = next((line for line in begin if line.strip()), "").strip()
    columns = max(line.count(delimiter) for delimiter in delimiters) + 1
    if columns > 1 and line.replace("\t", " ").isprintable():
        return UnknownColumns(f"None of the {columns:,} columns is known by its name. {_MAP_THEM}")
    return UnknownFormat()


def _unknown_columns(names: Sequence[str]) -> UnusableFile:
    listed = ", ".join(repr(name[:64]) for name in names[:_LISTED])
    detail = f"Not known are {listed}{' and others' if len(names) > _LISTED else ''}. {_MAP_THEM}"
    return UnknownColumns(detail)


class _Rows:
    """Turns the rows of a file into drafts."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._reported: set[str] = set()
        self._ordered = _beside_companies(header.columns)
        self._members = [column.index for column in header.columns if column.meaning == GROUP]

    def is_group(self, cells: Sequence[str]) -> bool:
        """Return True if a row is a group, which has members."""
        return any(cells[index].strip() for index in self._members)

    def draft(self, row: int, line: int, cells: Sequence[str]) -> Draft:
        draft, header = Draft(row, line), self._header
        addresses: dict[str, list[tuple[str, bool]]] = {}
        labels: list[tuple[Column, str]] = []
        born: dict[str, str] = {}
        for column in self._ordered:
            cell = cells[column.index]
            # In our own exports, a note may consist of white space.
            if not cell or (cell.isspace() and not header.is_ours):
                continue
            if "'" in cell:
                cell = unguarded(cell) if header.is_ours else _GUARD.sub("", cell)
            if cell.startswith("=") and not header.is_ours:
                # ="0123" tells a spreadsheet that a number is text.
                cell = _TEXT_OF_FORMULA.sub(r"\1", cell)
            if column.is_label:
                labels.append((column, cell))
            elif column.meaning == "address":
                addresses.setdefault(column.group, []).append((cell, column.is_part))
            elif column.meaning in _PARTS_OF_BIRTH:
                born[column.meaning] = cell.strip()
            else:
                self._read(draft, column, cell, cells)
        if labels:
            self._read_labels(draft, labels, cells)
        for column in header.columns if addresses else ():
            if not column.is_label and (parts := addresses.pop(column.group, None)):
                label, _ = self._label(column, cells)
                draft.said += (Said("address", label, _joined(each), column.name) for each in _separated(parts))
        if born:
            year, month, day = (born.get(part, "") for part in _PARTS_OF_BIRTH)
            text = f"{f'{year}-' if year else '--'}{month:0>2}-{day:0>2}" if month and day else " ".join(born.values())
            draft.said.append(Said("date_of_birth", None, text, "birth year"))
        extra = [(number, cell) for number, cell in enumerate(cells, 1) if number > header.width and cell.strip()]
        draft.said += (Said("other", f"column {number}", cell, f"column {number}") for number, cell in extra)
        if extra:
            detail = "The row has more cells than there are columns. What they say is kept in details."
            draft.warnings.append(Remark(None, "too_many_cells", detail))
        if header.other_half and draft.full_names:
            known = {word for name in draft.names.values() for word in fold(name[:_COMPARED_CHARACTERS]).split()}
            if known.isdisjoint(fold(draft.full_names[0][:_COMPARED_CHARACTERS]).split()):
                draft.names[header.other_half] = draft.full_names.pop(0)
        return draft

    def _read_labels(self, draft: Draft, labels: Sequence[tuple[Column, str]], cells: Sequence[str]) -> None:
        """Keep labels of missing values as details, except standard labels such as "home"."""
        groups = {column.group for column, _ in labels}
        are_there = {group for group in groups if any(cells[index] for index in self._header.values[group])}
        for column, cell in labels:
            if column.group not in are_there and cell.strip("* ").lower() not in _SAY_NOTHING:
                draft.said.append(Said("other", column.name, cell, column.name))

    def _read(self, draft: Draft, column: Column, cell: str, cells: Sequence[str]) -> None:
        meaning, name = column.meaning, column.name
        if meaning in ("first_name", "middle_name", "last_name", "prefix", "suffix"):
            before = draft.names.get(meaning)
            if not before:
                draft.names[meaning] = cell
            elif meaning == "last_name" and cell != before:
                # Spanish has two last names, in two columns.
                draft.names[meaning] = f"{before} {cell}"
            elif cell != before:
                draft.said.append(Said("other", name, cell, name))
        elif meaning == "full_name" and column.key == "fileas" and (filed := _FILED_AS.fullmatch(cell.strip())):
            if filed[2]:
                draft.full_names.append(filed[2])
            else:
                draft.not_kept.append(name)
        elif meaning == "full_name":
            draft.full_names.append(cell)
        elif meaning == CHOICE and (cell.strip().isdecimal() or cell.strip().lower() in NO_CHOICES):
            draft.not_kept.append(name)
        elif meaning == CHOICE:
            draft.said.append(Said("other", name, cell, name))
        elif meaning == "additional_info":
            draft.notes.append(cell)
        elif meaning == "labels":
            draft.labels += cell.split("\n") if self._header.is_ours else _labels_in(cell)
        elif meaning == "details":
            draft.said += _details_in(cell, name)
        elif meaning == NOT_KEPT and is_number(cell):
            # "Privat" is a flag in Outlook's files, and a phone number in others.
            draft.said.append(Said("phone", name, cell, name, 100))
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
        # Google puts several values with the same label into one cell.
        for text in cell.split(" ::: ") if kind in KINDS else [cell]:
            draft.said.append(Said(kind, label, text, column.name, rank))

    def _label(self, column: Column, cells: Sequence[str]) -> tuple[str, bool]:
        """Return the label of a value, and True if Google's asterisk marks it as preferred."""
        labels = self._header.labels_of.get(column.index, ())
        written = " ".join(filter(None, (cells[index].strip() for index in labels)))
        label = written.lstrip("* ")
        if label.lower() in _NO_LABELS:
            label = column.label
        elif label.lower() in _LOWERED:
            label = label.lower()
        return label, written.startswith("*")


def _beside_companies(columns: Iterable[Column]) -> list[Column]:
    """Return the columns in order, except that each department follows the company before it directly."""
    ordered: list[Column] = []
    place: int | None = None
    for column in columns:
        if column.meaning == "department" and place is not None:
            place += 1
            ordered.insert(place, column)
            continue
        if column.meaning == "organization" and not column.is_label:
            place = len(ordered)
        ordered.append(column)
    return ordered


def _separated(parts: Sequence[tuple[str, bool]]) -> Iterator[list[tuple[str, bool]]]:
    """Yield the cells of each address. Google puts several addresses with the same label into the same cells."""
    # The limit is the most that a contact can hold. It also avoids quadratic time for many cells of many addresses.
    pieces = [(cell.split(" ::: ", MAX_DETAILS), is_part) for cell, is_part in parts]
    for n in range(max(len(texts) for texts, _ in pieces)):
        yield [(texts[n], is_part) for texts, is_part in pieces if len(texts) > n and texts[n]]


def _joined(parts: Sequence[tuple[str, bool]]) -> str:
    """Join the cells of an address. `parts` are pairs of a cell and True if it is a part, such as a city.

    If a whole address contains two or more of the parts, those parts are left out.
    """
    whole = "\n".join(cell for cell, is_part in parts if not is_part)[:_WHOLE_CHARACTERS]
    within = {cell for cell, is_part in parts if is_part and cell in whole}
    # A single part may be contained by chance: York in 12 York St.
    left_out = within if len(within) > 1 else ()
    return "\n".join(cell for cell, is_part in parts if not is_part or cell not in left_out)


def _labels_in(cell: str) -> list[str]:
    """Return the labels in a cell, as Google, Outlook and Mailchimp (in quotes) write them."""
    if cell.lstrip("[ ").startswith('"'):
        return [label for each in _QUOTED.findall(cell) if (label := each.strip())]
    separator = next((each for each in (":::", "\n", ";", ",") if each in cell), ",")
    return [label for each in cell.split(separator) if (label := each.strip().lstrip("* "))]


def _details_in(cell: str, name: str) -> Iterator[Said]:
    """Yield the details in a cell: the inverse of `_written`."""
    for entry in _ENTRIES.split(cell):
        found = _ENTRY.fullmatch(entry)
        if found and found[1] in KINDS:
            label = found[2].replace(")\\", ")") if found[2] else None
            yield Said(found[1], label, found[3].replace("\n  ", "\n"), name, NEVER_OWN)
        elif entry.strip():
            yield Said("other", name, entry, name)


def _written(details: Sequence[Mapping[str, Any]]) -> str:
    """Return details as a cell: one `kind (label): value` per line. Further lines of a value are indented."""
    entries = []
    for each in details:
        label = f" ({_CLOSING.sub(_CLOSED, each['label'])})" if each["label"] else ""
        value = each["value"].replace("\n", "\n  ")
        entries.append(f"{each['kind']}{label}: {value}")
    return "\n".join(entries)


def unparse(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return `rows` as CSV records, to follow HEAD. Each row must have all fields of a contact."""
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
    # A phone number is not a formula, and an apostrophe would spoil it.
    return text if is_number(text) else guarded(text)


def guarded(text: str) -> str:
    """Return `text` as a cell that no spreadsheet evaluates as a formula."""
    if _STARTS.match(text):
        text = f"'{text}"
    # Most texts have no separators. This test is cheaper than the regular expression.
    if ";" in text or "\n" in text or "\t" in text or "\r" in text:
        # A function as the replacement saves a microsecond over a template, even without a match.
        text = _UNGUARDED_SIGN.sub(lambda found: f"{found[0]}'", text)
    return text


def unguarded(cell: str) -> str:
    """Return the original text: the inverse of `guarded`."""
    # Unguard the inside first: an apostrophe there may be between the start of the cell and its sign.
    text = _GUARDED_SIGN.sub(lambda found: found[0][:-1], cell)
    return text[1:] if text.startswith("'") and _STARTS.match(text) else text
