"""Uploaded files: detect the format, decode, split into lines; and the problems of files that cannot be imported.

At most a few chunks of a file are in memory at a time.
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
"""The largest size of one contact in a file."""
# More lines than 200,000 cards with photos in 100 MB. The limit is needed because empty lines cost time, and limits on
# rows do not count them.
MAX_LINES = 5_000_000
_CHUNK = 64 * 1024
_BEGIN_VCARD = b"BEGIN:VCARD"

# Codecs that only decode text. Python's other codecs decompress, unescape or are very slow.
_CODECS = {
    *("utf_8", "utf_8_sig", "utf_16", "utf_16_be", "utf_16_le", "ascii", "latin_1", "mac_roman", "koi8_r", "koi8_u"),
    *(f"iso8859_{n}" for n in (*range(2, 12), *range(13, 17))),
    *(f"cp{n}" for n in (437, 850, 852, 866, 932, *range(1250, 1259))),
    *("gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "iso2022_jp"),
}
_ENCODINGS = _CODECS | {alias for alias, codec in aliases.items() if codec in _CODECS}

Format = Literal["csv", "vcard"]


class UnusableFile(Invalid):
    """A file that cannot be imported at all."""

    loc = ("body", "file")


class EmptyFile(UnusableFile):
    """The uploaded file is empty, or contains only white space."""

    advice = "Export it once more, and look at it before you send it."
    code, title = "empty_file", "The file is empty"


class NotText(UnusableFile):
    """The file contains bytes that are invalid in its encoding."""

    code, title = "not_utf8", "The file is not text in UTF-8, or in the encoding that is named"
    advice = "Save it as CSV UTF-8, or name its encoding, such as encoding=windows-1252."


class MissingHeader(UnusableFile):
    """The CSV file has no header. Its first lines contain e-mail addresses or phone numbers."""

    advice = "Add a first line such as first_name,last_name,email,phone_number, with a name for each column."
    code, title = "missing_header", "The file does not begin with the names of its columns"


class UnknownColumns(UnusableFile):
    """The CSV file has columns with unknown names, and no column that is known to hold a name."""

    advice = "Send `columns`: a JSON object from the names of the columns to fields."
    code, title = "unknown_columns", "The columns of the file cannot be told from their names"


class UnknownFormat(UnusableFile):
    """The file is neither a vCard nor a CSV file. If its format is recognized, the detail names it."""

    advice = "Export a vCard or a CSV file from the other program, and send it as it is."
    code = "unknown_format"
    title = (
        "The file is neither a vCard nor a CSV file that begins with the names of its columns, "
        "such as first_name, last_name and email"
    )


class CutOff(UnusableFile):
    """The file is truncated: the last card or a quoted cell has no end."""

    advice = "Export or upload it once more. Nothing was imported."
    code, title = "cut_off", "The file ends in the middle of a contact: a part of it is missing"


class TooManyLines(UnusableFile):
    """The uploaded file has too many lines."""

    advice = "Split the file, and import its parts. Nothing was imported."
    code, title = "too_many_lines", f"The file has more than {MAX_LINES:,} lines"


class TooManyRows(UnusableFile):
    """The uploaded file has more rows than one import may have."""

    advice = "Split the file, and import its parts. Nothing was imported."
    code, title = "too_many_rows", "The file has more rows than an import may have"


class TooSlow(UnusableFile):
    """The uploaded file takes far longer to read than other files of its size."""

    advice = "Split the file, and import its parts. Nothing was imported."
    code, title = "too_slow", "The file takes too long to read"


UNUSABLE_FILES = (
    *(EmptyFile, NotText, UnknownFormat, MissingHeader, UnknownColumns, CutOff, TooManyLines, TooManyRows, TooSlow),
)

# The first bytes of other formats, after white space.
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
    """Return the format of a UTF-8 file and an iterator over all of its chunks.

    Raises EmptyFile or UnknownFormat.
    """
    head, chunks = _head(chunks)
    text = head.removeprefix(BOM).lstrip()
    if not text:
        raise EmptyFile
    if (found := _OTHER_FORMAT.match(text)) and found.lastindex:
        raise UnknownFormat(f"It seems to be {_OTHER_FORMATS[found.lastindex - 1][0]}. {UnknownFormat.advice}")
    return "vcard" if text[: len(_BEGIN_VCARD)].upper() == _BEGIN_VCARD else "csv", chunks


def _head(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return enough of the beginning of a file to detect its format, and an iterator over all of its chunks."""
    chunks, head = iter(chunks), b""
    for chunk in chunks:
        head += chunk
        if len(head.removeprefix(BOM).lstrip()) >= 2 * len(_BEGIN_VCARD) or len(head) >= RECORD_BYTES:
            break
    return head, chain([head], chunks)


def is_encoding(name: str) -> bool:
    """Return True if this is Python's name or alias of an allowed text encoding: latin1, ISO-8859-1, L1."""
    return name.isprintable() and normalize_encoding(name.lower()) in _ENCODINGS


def in_utf8(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the chunks of a file converted to UTF-8.

    `auto` means UTF-8, or UTF-16 if the file starts with a byte order mark or has a NUL in its first two bytes. Bytes
    that are invalid in the encoding are passed through, and the caller finds them when it decodes UTF-8. Raises NotText
    for invalid UTF-16.
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
    """Yield the lines of a file with their ends (LF, CRLF or CR). A line over RECORD_BYTES comes in several pieces.

    Raises TooManyLines.
    """
    tail, count = b"", 0
    for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK):
            text = tail + chunk[start : start + _CHUNK]
            pieces = text.splitlines(keepends=True)
            # Keep a final CR: its LF may be in the next chunk.
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
