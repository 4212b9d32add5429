"""Validated text types, the folded form for searches, and the line format that vCards and calendars share."""

import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, ValidatedEmail, validate_email
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

# Letters that Unicode does not decompose into a base letter and a mark.
_SPELLED_OUT = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "ß": "ss", "þ": "th"}
)
# Characters that people use as an apostrophe. Folding removes them, because people also omit them.
_APOSTROPHES = frozenset("'`\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201b\u2032\u2035\u05f3\uff07")
_NO_ASCII_APOSTROPHES = str.maketrans("", "", "'`")

# Combining marks of Latin, Greek and Cyrillic letters that case folding and NFKD do not change.
_MARKS = re.compile("[\u0300-\u0344\u0346-\u034e\u0350-\u036f]")

# Characters that folding may still change after NFKD and case folding. The only letters and digits among them are those
# listed, and the only ASCII characters are two apostrophes.
_NOT_PLAIN = re.compile(r"[^\w\s!-&(-/:-@\[-_{-~]+|[\u02b9\u02bb\u02bc\u02bdłøđðħıæœßþ]+")

Form: TypeAlias = Literal["NFC", "NFD", "NFKC", "NFKD"]
MARKS_IN_A_ROW = 30
# Combining marks are not word characters. This form takes a sixth of the time of `\W{31,}`.
_MANY_MARKS = re.compile(rf"\W\W{{{MARKS_IN_A_ROW},}}+")

# Control characters (C0, DEL, C1), Unicode line breaks, and lone surrogates, which UTF-8 cannot encode.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FORBIDDEN_IN_NOTES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

# Common ASCII addresses, which need no full validation: a dot-atom (RFC 5322, 3.2.3) at a host name.
_LABEL = "(?![a-zA-Z0-9-]{64})[a-zA-Z0-9]++(?:-[a-zA-Z0-9]++)*+"
_ATOM = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]++"
_PLAIN_ADDRESS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*+@(?:{_LABEL}\.)++(?=.*[a-zA-Z]$){_LABEL}")

# The same with Latin, Greek, Cyrillic, Chinese, Japanese and Korean letters that IDNA (RFC 5892) allows everywhere.
_LETTERS = (
    "a-zA-Z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u0131\u0134-\u013e\u0141-\u0148\u014a-\u017e"
    "\u0391-\u03a1\u03a3-\u03c9\u0410-\u044f\u0451\u0454\u0456\u0457\u0491"
    "\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
_INTERNATIONAL_LABEL = f"[{_LETTERS}0-9]++(?:-[{_LETTERS}0-9]++)*+"
_INTERNATIONAL_ATOM = f"[{_LETTERS}0-9!#$%&'*+/=?^_`{{|}}~-]++"
_INTERNATIONAL_ADDRESS = re.compile(
    rf"{_INTERNATIONAL_ATOM}(?:\.{_INTERNATIONAL_ATOM})*+@"
    rf"(?:{_INTERNATIONAL_LABEL}\.)++(?=.*[{_LETTERS}]$){_INTERNATIONAL_LABEL}"
)

# Allow special-use domains (`.test`, `.local`, `.internal`, …), because prototypes and offices use them. The library
# has no other way to allow them.
SPECIAL_USE_DOMAIN_NAMES.clear()

# The same rules as ECMA-262 patterns, for the OpenAPI document.
_CONTROLS = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
# Bidirectional controls. They change the direction of the text that follows, even outside the value.
_BIDIRECTIONAL = r"\u202a-\u202e\u2066-\u2069"
# Invisible characters: white space, format characters (category Cf), fillers and variation selectors.
_INVISIBLE = (
    r"\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
ONE_LINE = rf"^[^{_CONTROLS}]*$"
_NAME_CHARACTER = rf"[^{_CONTROLS}{_BIDIRECTIONAL}]"
_VISIBLE_NAME = rf"^{_NAME_CHARACTER}*[^{_INVISIBLE}{_CONTROLS}{_BIDIRECTIONAL}]{_NAME_CHARACTER}*$"
# Also excludes tags and musical format characters, which an ECMA-262 pattern cannot express without a flag.
_VISIBLE = re.compile(rf"[^{_INVISIBLE}{_BIDIRECTIONAL}\U0001d173-\U0001d17a\U000e0000-\U000e0fff]")
_TURNS_AROUND = re.compile(f"[{_BIDIRECTIONAL}]")
_SEVERAL_LINES = r"^[^\u0000-\u0008\u000b-\u000c\u000e-\u001f\u007f-\u009f]*$"


def fold(text: str) -> str:
    """Return the form of `text` that searches compare. Independent of the locale, and idempotent.

    Applies case folding and NFKD (Unicode 3.13, D147), then

    - removes combining marks, apostrophes and format characters (category Cf),
    - replaces every dash by a hyphen,
    - replaces the letters in `_SPELLED_OUT` by ASCII letters.
    """
    if text.isascii():
        # A fast path, in a third of the time. Most names are ASCII at once or after their marks are removed below.
        return text.lower().translate(_NO_ASCII_APOSTROPHES) if "'" in text or "`" in text else text.lower()
    # NFKD turns a spacing acute accent into a space and a mark, so replace it by an apostrophe first.
    text = _MARKS.sub("", normalize("NFKD", text.replace("\u00b4", "'")))
    if text.isascii():
        return fold(text)
    for _ in range(2):  # as D147 defines it
        text = normalize("NFKD", text.casefold())
    return _NOT_PLAIN.sub(_plain_run, text)


def _plain_run(found: re.Match[str]) -> str:
    return "".join(map(_plain, found[0])).translate(_SPELLED_OUT)


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    """Return the folded character. Empty for a mark, an apostrophe or a format character."""
    category = unicodedata.category(character)
    if unicodedata.combining(character) or category == "Cf" or character in _APOSTROPHES:
        return ""
    return "-" if category == "Pd" or character == "\u2212" else character


def normalize(form: Form, text: str) -> str:
    """Return `text` in a normalization form, in linear time.

    Normalization sorts each run of combining marks, which takes quadratic time. To prevent that, only the first
    MARKS_IN_A_ROW marks of a run are kept. The stream-safe text format (UAX 15) has the same limit, and no language
    needs more.
    """
    return unicodedata.normalize(form, _without_surplus_marks(text))


def _without_surplus_marks(text: str) -> str:
    return _MANY_MARKS.sub(_first_marks, text) if len(text) > MARKS_IN_A_ROW else text


def _first_marks(found: re.Match[str]) -> str:
    kept, run = [], 0
    for character in found[0]:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= MARKS_IN_A_ROW:
            kept.append(character)
    return "".join(kept)


def _one_line(text: object) -> object:
    return check_one_line(text) if isinstance(text, str) else text


def check_one_line(text: str) -> str:
    if not text.isprintable() and _FORBIDDEN.search(text):
        raise PydanticCustomError("control_character", "Must not contain control characters or lone surrogates.")
    return text


def _visible(name: str) -> str:
    if not name.isascii():
        if _TURNS_AROUND.search(name):
            raise PydanticCustomError("not_allowed", "Must not have marks that turn the direction of the text around.")
        if name and not _VISIBLE.search(name):
            raise PydanticCustomError("too_short", "Must have a character that can be seen.")
    return name


def _several_lines(text: object) -> object:
    if not isinstance(text, str):
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _FORBIDDEN_IN_NOTES.search(text):
        raise PydanticCustomError(
            "control_character", "Must not contain lone surrogates, nor control characters but newline and tab."
        )
    return text


OneLine = BeforeValidator(_one_line)
LABEL_CHARACTERS, NOTE_CHARACTERS = 64, 2000
Trimmed = StringConstraints(strip_whitespace=True)


class Line(StringConstraints):
    """Constrains a text to one trimmed line of 1 to `characters` characters, at least one of them visible."""

    def __init__(self, characters: int) -> None:
        super().__init__(strip_whitespace=True, min_length=1, max_length=characters)

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        yield OneLine
        yield AfterValidator(_visible)
        yield Field(json_schema_extra={"pattern": _VISIBLE_NAME})


Name = Annotated[str, Line(100)]
Label = Annotated[str, Line(LABEL_CHARACTERS)]

Note = Annotated[
    str,
    StringConstraints(max_length=NOTE_CHARACTERS),
    BeforeValidator(_several_lines),
    Field(json_schema_extra={"pattern": _SEVERAL_LINES}),
]
"""Free text of at most 2,000 characters. Line breaks are converted to LF."""

Lines = BeforeValidator(_several_lines)

SearchTerm = Annotated[str, Trimmed, OneLine, Field(json_schema_extra={"pattern": ONE_LINE})]
"""A trimmed search text. An empty one counts as absent."""


def malformed_address() -> PydanticCustomError:
    # The validator's own message quotes the address.
    return PydanticCustomError("malformed", "Must be a valid e-mail address, such as ada@example.com.")


def read_address(text: str) -> ValidatedEmail:
    """Parse an e-mail address without a display name (RFC 5321, RFC 6531), of at most 254 characters.

    Raises PydanticCustomError if it is invalid.
    """
    try:
        # A label of more than 63 characters is never valid, but IDNA takes 10 ms to reject it.
        is_short = len(text) <= 254 and all(
            len(label) <= 63 for label in normalize("NFC", text.rpartition("@")[2]).split(".")
        )
        if is_short and text == _without_surplus_marks(text):
            return validate_email(text, check_deliverability=False)
    except EmailNotValidError:
        pass
    raise malformed_address()


def normalize_email(text: str) -> str:
    """Return the canonical form of an account's address: NFC, lower case, with the domain in Unicode.

    Raises PydanticCustomError if it is invalid or contains an encoded word (RFC 2047), because mail to it would go to
    another address.
    """
    if "=?" in text:
        raise malformed_address()
    if is_plain_address(text):
        return text.lower()
    return normalize("NFC", read_address(text).normalized.lower())


def check_address(text: str) -> None:
    """Refuse what `read_address` refuses. Most valid addresses take microseconds, others 0.2 to 4 ms."""
    if not is_common_address(text):
        read_address(text)


def is_plain_address(text: str) -> bool:
    """Return True if `text` is an address in ASCII that is valid at first sight, as most valid ones are."""
    return len(text) <= 254 and _PLAIN_ADDRESS.fullmatch(text) is not None


def is_common_address(text: str) -> bool:
    """Return True if `text` is an address that is valid at first sight, in ASCII or in letters of common scripts."""
    if text.isascii() or len(text) > 254:
        return is_plain_address(text)
    # Long labels may exceed 63 octets in Punycode (RFC 3492), which adds at most 4 for each byte that is not ASCII.
    domain = text.rpartition("@")[2]
    is_short = _punycode_octets(text) <= 200 and all(_punycode_octets(label) <= 58 for label in domain.split("."))
    return is_short and _INTERNATIONAL_ADDRESS.fullmatch(text) is not None


def _punycode_octets(text: str) -> int:
    """Return an upper bound for the length of the text in Punycode, in octets."""
    return 4 * len(text.encode(errors="replace")) - 3 * len(text)


def format_timestamp(moment: datetime) -> str:
    return f"{moment.astimezone(UTC).isoformat(timespec='microseconds')[:26]}Z"


A_TIME = "2026-11-28T09:30:00.000000Z"
Timestamp = Annotated[
    datetime,
    PlainSerializer(format_timestamp, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A timestamp in UTC with microseconds."""
CreatedAt = Annotated[Timestamp, Field(description="When it was created, in UTC.", examples=[A_TIME])]


def content_line(text: str) -> bytes:
    """Encode a line of a vCard or calendar, folded at 75 octets without splitting characters (RFC 6350, 3.2)."""
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
    """Escape a TEXT value (RFC 2426, 5; RFC 5545, 3.3.11)."""
    return text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\n", "\\n")
