"""A file of contacts, whatever its format: the format that it has, its lines, and why nothing of it is imported.

No more of a file is held than a few chunks.
"""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, iterdecode, lookup
from collections.abc import Iterable, Iterator
from encodings import normalize_encoding
from encodings.aliases import aliases
from itertools import chain
from typing import Literal

from contacts_api.problems import Invalid

BOM = b"\xef\xbb\xbf"
RECORD_BYTES = 64 * 1024
"""How large one contact in a file may be."""
# As many as 200,000 cards with a photo each, in 100 MB, do not have: empty lines cost time, and make no rows.
MAX_LINES = 5_000_000
_CHUNK = 64 * 1024
_BEGIN_VCARD = b"BEGIN:VCARD"

# Those that turn bytes into text and nothing else: Python's other codecs unpack, escape or take very long.
_CODECS = {
    *("utf_8", "utf_8_sig", "utf_16", "utf_16_be", "utf_16_le", "ascii", "latin_1", "mac_roman", "koi8_r", "koi8_u"),
    *(f"iso8859_{n}" for n in (*range(2, 12), *range(13, 17))),
    *(f"cp{n}" for n in (437, 850, 852, 866, 932, *range(1250, 1259))),
    *("gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "iso2022_jp"),
}
_ENCODINGS = _CODECS | {alias for alias, codec in aliases.items() if codec in _CODECS}

Format = Literal["csv", "vcard"]


class UnusableFile(Invalid):
    """A file of which nothing is imported."""

    loc = ("body", "file")


class EmptyFile(UnusableFile):
    """The uploaded file has no text in it."""

    advice = "Export it once more, and look at it before you send it."
    code, title = "empty_file", "The file is empty"


class NotText(UnusableFile):
    """The file has bytes that are no text in the encoding that it is read in."""

    code, title = "not_utf8", "The file is not text in UTF-8, or in the encoding that is named"
    advice = "Save it as CSV UTF-8, or name its encoding, such as encoding=windows-1252."


class MissingHeader(UnusableFile):
    """The first lines of the CSV file are contacts: they have e-mail addresses or phone numbers in them."""

    advice = "Add a first line such as first_name,last_name,email,phone_number, with a name for each column."
    code, title = "missing_header", "The file does not begin with the names of its columns"


class UnknownColumns(UnusableFile):
    """The CSV file has columns that look like e-mail addresses or names, but none is called so."""

    advice = "Send `columns`: a JSON object from the names of the columns to fields."
    code, title = "unknown_columns", "The columns of the file cannot be told from their names"


class UnknownFormat(UnusableFile):
    """The file is neither a vCard nor a CSV file. Where it can be told, the detail says what it seems to be."""

    advice = "Export a vCard or a CSV file from the other program, and send it as it is."
    code = "unknown_format"
    title = (
        "The file is neither a vCard nor a CSV file that begins with the names of its columns, "
        "such as first_name, last_name and email"
    )


class CutOff(UnusableFile):
    """The last card, or a quoted cell, has no end."""

    advice = "Export or upload it once more. Nothing was imported."
    code, title = "cut_off", "The file ends in the middle of a contact: a part of it is missing"


class TooManyLines(UnusableFile):
    """The uploaded file is too long to be read."""

    advice = "Split the file, and import its parts. Nothing was imported."
    code, title = "too_many_lines", f"The file has more than {MAX_LINES:,} lines"


class TooManyRows(UnusableFile):
    """The uploaded file has more contacts than the server takes at once."""

    advice = "Split the file, and import its parts. Nothing was imported."
    code, title = "too_many_rows", "The file has more rows than an import may have"


class TooSlow(UnusableFile):
    """The uploaded file takes more time to read than files of its size do."""

    advice = "Split the file, and import its parts. Nothing was imported."
    code, title = "too_slow", "The file takes too long to read"


UNUSABLE_FILES = (
    *(EmptyFile, NotText, UnknownFormat, MissingHeader, UnknownColumns, CutOff, TooManyLines, TooManyRows, TooSlow),
)

# How files of other formats begin, after white space.
_OTHER_FORMATS = (
    ("JSON", rb"\{\s*+[\"}]|\[\s*+[\[{\"\]]"),
    ("an HTML page", rb"<(?:!doctype html|html|head|body|table|div|meta)\b"),
    ("XML", rb"<[?!a-z]"),
    ("a workbook (.xlsx, .ods) or another zip archive", rb"PK(?:\x03\x04|\x05\x06)"),
    ("a workbook (.xls) or another Office document", rb"\xd0\xcf\x11\xe0"),
    ("a compressed file", rb"\x1f\x8b|7z\xbc\xaf|rar!\x1a|BZh[1-9]1AY|\xfd7zXZ"),
    ("a PDF document", rb"%PDF-"),
    ("an image", rb"\x89PNG|GIF8[79]a|\xff\xd8\xff|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*"),
    ("a text document (RTF)", rb"\{\\rtf"),
    ("a calendar", rb"BEGIN:VCALENDAR"),
    ("LDIF", rb"(?:version: ?1\s++)?dn::? ?\S"),
    ("a database (SQLite)", rb"SQLite format 3"),
    ("a property list of macOS", rb"bplist0"),
)
_OTHER_FORMAT = re.compile(b"|".join(b"(%b)" % pattern for _, pattern in _OTHER_FORMATS), re.IGNORECASE | re.DOTALL)


def sniff(chunks: Iterable[bytes]) -> tuple[Format, Iterator[bytes]]:
    """Return the format of a file in UTF-8, and all of its chunks. Raises EmptyFile or UnknownFormat."""
    head, chunks = _head(chunks)
    text = head.removeprefix(BOM).lstrip()
    if not text:
        raise EmptyFile
    if (found := _OTHER_FORMAT.match(text)) and found.lastindex:
        raise UnknownFormat(f"It seems to be {_OTHER_FORMATS[found.lastindex - 1][0]}. {UnknownFormat.advice}")
    return "vcard" if text[: len(_BEGIN_VCARD)].upper() == _BEGIN_VCARD else "csv", chunks


def _head(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the beginning of a file, long enough to tell what it is, and all of its chunks."""
    chunks, head = iter(chunks), b""
    for chunk in chunks:
        head += chunk
        if len(head.removeprefix(BOM).lstrip()) >= 2 * len(_BEGIN_VCARD) or len(head) >= RECORD_BYTES:
            break
    return head, chain([head], chunks)


def is_encoding(name: str) -> bool:
    """Say whether this is a name that Python has for an encoding of text: latin1, ISO-8859-1, L1."""
    return name.isprintable() and normalize_encoding(name.lower()) in _ENCODINGS


def in_utf8(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield a file in UTF-8. `auto` is UTF-8, or UTF-16 where a mark or a NUL in its first characters shows it.

    Bytes that are no text stay as they are, and are not UTF-8. Raises NotText for UTF-16 that is none.
    """
    head, chunks = _head(chunks)
    if encoding == "auto":
        encoding = _encoding_of(head)
    if encoding == "UTF-8":
        yield from chunks
        return
    errors = "strict" if lookup(encoding).name.startswith("utf-16") else "surrogateescape"
    try:
        for text in iterdecode(chunks, encoding, errors):
            yield text.removeprefix("\ufeff").encode("utf-8", "surrogateescape")
    except UnicodeError:
        raise NotText(f"It is not text in {encoding}. {NotText.advice}") from None


def _encoding_of(head: bytes) -> str:
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "UTF-16"
    if b"\0" in head[:2]:
        return "UTF-16-BE" if head[:1] == b"\0" else "UTF-16-LE"
    return "UTF-8"


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file with their ends (LF, CRLF or CR); pieces, of one longer than RECORD_BYTES.

    Raises TooManyLines.
    """
    tail, count = b"", 0
    for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK):
            text = tail + chunk[start : start + _CHUNK]
            pieces = text.splitlines(keepends=True)
            # A CR at the end may have its LF in the next chunk.
            tail = b"" if not text or text.endswith(b"\n") else pieces.pop()
            yield from pieces
            count += len(pieces)
            if count > MAX_LINES:
                raise TooManyLines
            if len(tail) > RECORD_BYTES:
                yield tail
                tail = b""
    if tail:
        yield tail


def is_ended(line: bytes) -> bool:
    return line[-1] in b"\r\n"
