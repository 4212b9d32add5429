"""A file of contacts, whatever its format: the format that it has, its lines, and why nothing of it is imported.

No more of a file is held than a few chunks.
"""

from collections.abc import Iterable, Iterator
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

Format = Literal["csv", "vcard"]


class UnusableFile(Invalid):
    """A file of which nothing is imported."""

    loc = ("body", "file")


class EmptyFile(UnusableFile):
    code, title = "empty_file", "The file is empty"


class NotUTF8(UnusableFile):
    code, title = "not_utf8", "The file is not text in UTF-8"


class UnknownFormat(UnusableFile):
    code = "unknown_format"
    title = (
        "The file is neither a vCard nor a CSV file that begins with the names of its columns, "
        "such as first_name, last_name and email"
    )


class CutOff(UnusableFile):
    code, title = "cut_off", "The file ends in the middle of a contact: a part of it is missing"


class TooManyLines(UnusableFile):
    code, title = "too_many_lines", f"The file has more than {MAX_LINES:,} lines"


def sniff(chunks: Iterable[bytes]) -> tuple[Format, Iterator[bytes]]:
    """Return the format of a file, and all of its chunks. Raises EmptyFile."""
    chunks, head = iter(chunks), b""
    for chunk in chunks:
        head += chunk
        if len(head.removeprefix(BOM).lstrip()) >= len(_BEGIN_VCARD) or len(head) >= RECORD_BYTES:
            break
    text = head.removeprefix(BOM).lstrip()
    if not text:
        raise EmptyFile
    return "vcard" if text[: len(_BEGIN_VCARD)].upper() == _BEGIN_VCARD else "csv", chain([head], chunks)


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file with their ends (LF, CRLF or CR); pieces, of one longer than RECORD_BYTES.

    Raises TooManyLines.
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
                raise TooManyLines
            if len(tail) > RECORD_BYTES:
                yield tail
                tail = b""
    if tail:
        yield tail


def is_ended(line: bytes) -> bool:
    return line[-1] in b"\r\n"
