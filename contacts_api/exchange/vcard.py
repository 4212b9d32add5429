"""Contacts as vCards: 2.1, 3.0 (RFC 2426) and 4.0 (RFC 6350) are read, 3.0 is written, as all that import read it.

Read are N, FN, NICKNAME, ORG, EMAIL, TEL, BDAY, NOTE and UID, with or without a group (`item1.EMAIL`), from
lines that may be folded, in quoted-printable, base64 or the charset they name. Of several e-mail addresses
and numbers the preferred one is taken (the lowest PREF, or TYPE=pref), else the first, and a fax or pager only
for want of another. Everything else is passed over unread, so a photo costs nothing; so is a vCard within a
vCard (AGENT). Prefixes and suffixes of names, and dates other than the birthday (X-ABDATE), are not kept.

Each card stands alone: one that is bad, too large or without an end costs no other.
"""

import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

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
    content_line,
    escape_text,
    is_ended,
    lines,
    read_birthday,
    read_contact,
    too_large,
)

PRODID = "-//Contacts API//EN"
HEAD = TAIL = b""

_BEGIN, _END = b"BEGIN:VCARD", b"END:VCARD"
_FIRST_OF_MARKERS = b"BbEe" + BOM[:1]
_READ = re.compile(
    rb"(?:[a-z0-9-]++\.)?+(?:VERSION|PRODID|UID|N|FN|NICKNAME|ORG|EMAIL|TEL|BDAY|NOTE)[;:]", re.IGNORECASE
)
_AGENT = re.compile(rb"(?:[a-z0-9-]++\.)?+AGENT[;:]", re.IGNORECASE)
_QUOTED = re.compile(r""";((?:[^":]++|"[^"]*+")*+):(.*)""", re.DOTALL)
_ENCODING = re.compile(";(?:ENCODING=)?(QUOTED-PRINTABLE|BASE64|B)(?=;|$)")
_CHARSET = re.compile(r'CHARSET="?([A-Z0-9_.:-]+)')
# Those that turn bytes into text and nothing else: Python's other codecs unpack, escape or take very long.
_CHARSETS = re.compile(
    r"UTF-?8|US-ASCII|ISO-8859-\d+|(?:WINDOWS-|CP)125\d|KOI8-[RU]|GB2312|GBK|GB18030|BIG5|SHIFT_JIS|EUC-(?:JP|KR)|ISO-2022-JP"
)
_PREFERENCE = re.compile(r"[;,=\"]PREF(?:=\"?([0-9]{1,3}))?(?=[;,\"]|$)")
_UNSUITED = re.compile(r"[;,=\"](?:FAX|PAGER)(?=[;,\"]|$)")
_OMITTED_YEAR = re.compile(r"X-APPLE-OMIT-YEAR=([0-9]{4})")
_ESCAPE = re.compile(r"\\([\\,;:nN])")
_ESCAPE_21 = re.compile(r"\\([\\,;:])")
_COMPONENT = re.compile(r"((?:[^;\\]++|\\.|\\)*+)(?:;|$)", re.DOTALL)


class _UnreadableCardError(Exception):
    """A card whose text cannot be decoded."""


class _Card:
    """The lines of one card that are worth keeping, unfolded as they come."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._pieces: list[bytes] = []
        self._size = 0
        self._property = b""
        self._is_printable: bool | None = None
        self._is_read = self._is_soft = False
        self.is_agent = False
        self.is_broken = False

    def add(self, line: bytes) -> None:
        text = line.rstrip(b"\r\n")
        if self._is_soft or self.is_broken:
            piece = text
        elif text[:1] in (b" ", b"\t"):
            piece = text[1:]
        elif text:
            self._property, self._is_printable = text, None
            self._is_read = _READ.match(text) is not None
            self.is_agent = not self._is_read and _AGENT.match(text) is not None
            piece = b"\n" + text
        else:
            piece = text
        self.is_broken = not is_ended(line)
        self._is_soft = text.endswith(b"=") and not self.is_broken and self._may_be_soft()
        if self._is_read:
            # One more, since an empty piece takes memory too.
            self._size += len(piece) + 1
            if self.is_too_large:
                self._pieces.clear()
            else:
                self._pieces.append(piece[:-1] if self._is_soft else piece)

    def _may_be_soft(self) -> bool:
        """Say whether the property's lines that end in "=" go on in the next one (RFC 2045, 6.7)."""
        if self._is_printable is None:
            self._is_printable = b"QUOTED-PRINTABLE" in self._property.partition(b":")[0].upper()
        return self._is_printable

    @property
    def is_too_large(self) -> bool:
        return self._size > RECORD_BYTES

    def text(self) -> str:
        """Return the properties, one a line. Raises EncodingError or _UnreadableCardError."""
        content = b"".join(self._pieces)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "\n".join(map(_decode_line, content.split(b"\n")))


def _decode_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        charset = _CHARSET.search(line.partition(b":")[0].decode("ascii", "replace").upper())
        if charset is None:
            raise EncodingError from None
        return _decode(line, charset[1])


def _decode(content: bytes, charset: str) -> str:
    if not _CHARSETS.fullmatch(charset):
        raise _UnreadableCardError
    try:
        return content.decode(charset)
    except (UnicodeDecodeError, LookupError):
        raise _UnreadableCardError from None


def parse(chunks: Iterable[bytes], last_date_of_birth: date) -> Iterator[ImportedContact | BadRow]:
    """Yield the contacts of a file of vCards, card by card, and the cards that are none; `row` is the card's number.

    Raises FormatError, EncodingError or CutOffError, perhaps after some cards.
    """
    card: _Card | None = None
    number = depth = 0
    for line in lines(chunks):
        marker = _marker(line) if line[0] in _FIRST_OF_MARKERS and not (card and card.is_broken) else b""
        if marker == _BEGIN and card and (card.is_agent or depth > 1):
            depth += 1
        elif marker == _BEGIN:
            if card:
                yield bad_row(number, "unfinished_card", "The card has no END:VCARD.")
            number += 1
            card, depth = _Card(number), 1
        elif marker == _END and card:
            depth -= 1
            card.is_agent = False
            if not depth:
                yield _read_card(card, last_date_of_birth)
                card = None
        elif card and depth == 1:
            card.add(line)
    if card:
        raise CutOffError
    if not number:
        raise FormatError


def _marker(line: bytes) -> bytes:
    return line.removeprefix(BOM).strip().upper() if len(line) < 64 else b""


def _read_card(card: _Card, last_date_of_birth: date) -> ImportedContact | BadRow:
    if card.is_too_large:
        return too_large(card.number)
    try:
        source = _source(card.text())
    except _UnreadableCardError:
        return bad_row(card.number, "charset", "The card's text is not in the charset and encoding it names.")
    return read_contact(card.number, source, last_date_of_birth)


def _source(text: str) -> Source:
    source = Source()
    is_ours = f"\nPRODID:{PRODID}\n" in text
    is_21 = "\nVERSION:2.1" in text
    notes: list[str] = []
    email_rank = phone_rank = 2000
    for line in text.split("\n"):
        name, parameters, value = _property(line)
        if parameters:
            value = _decoded(parameters, value)
        if name == "NOTE":
            if value or is_ours:
                notes.append(_unescape(value, is_21))
            continue
        if not value or value.isspace():
            continue
        if name == "EMAIL":
            if (rank := _rank(parameters)) < email_rank:
                email_rank, source.email = rank, _unescape(value, is_21)
        elif name == "TEL":
            if (rank := _rank(parameters)) < phone_rank:
                phone_rank, source.phone = rank, _number(_unescape(value, is_21))
        elif name == "N":
            family, given, middle = (*_components(value, is_21), "", "", "")[:3]
            # Several additional names are a list, with commas.
            source.family, source.given, source.middle = family, given, " ".join(middle.replace(",", " ").split())
        elif name == "FN":
            source.full_name = source.full_name or _unescape(value, is_21)
        elif name == "NICKNAME":
            source.nickname = source.nickname or _unescape(value, is_21)
        elif name == "ORG":
            source.organisation = source.organisation or _components(value, is_21)[0]
        elif name == "UID":
            source.uid = source.uid or _uid(_unescape(value, is_21).strip())
        elif name == "BDAY":
            omitted = _OMITTED_YEAR.search(parameters)
            read_birthday(
                source,
                value.strip(),
                frozenset() if is_ours else PLACEHOLDERS | {omitted[1]} if omitted else PLACEHOLDERS,
            )
    source.notes = "\n".join(notes) if notes else None
    return source


def _property(line: str) -> tuple[str, str, str]:
    """Return the name, in capitals and without its group, the parameters, in capitals, and the value."""
    name, _, value = line.partition(":")
    parameters = ""
    if ";" in name:
        name, _, parameters = name.partition(";")
        if '"' in parameters:
            # A quoted parameter may have a colon in it.
            match = _QUOTED.fullmatch(line, len(name))
            if match is None:
                return "", "", ""
            parameters, value = match.groups()
        parameters = f";{parameters.upper()}"
    if "." in name:
        name = name.rpartition(".")[2]
    return name.upper(), parameters, value


def _decoded(parameters: str, value: str) -> str:
    encoding = _ENCODING.search(parameters)
    if encoding is None:
        return value
    charset = _CHARSET.search(parameters)
    decode = binascii.a2b_qp if encoding[1] == "QUOTED-PRINTABLE" else binascii.a2b_base64
    try:
        decoded = decode(value.encode())
    except binascii.Error:
        raise _UnreadableCardError from None
    return _decode(decoded, charset[1] if charset else "UTF-8")


def _rank(parameters: str) -> int:
    """Return how far from being preferred a value is."""
    preference = _PREFERENCE.search(parameters) if "PREF" in parameters else None
    rank = int(preference[1] or 1) if preference else 101
    return rank + 200 if _UNSUITED.search(parameters) else rank


def _uid(value: str) -> str:
    """Return a UID without the scheme of a UUID's URN, whose letters may be of either case (RFC 4122, 3)."""
    return value[9:].lower() if value[:9].lower() == "urn:uuid:" else value


def _number(value: str) -> str:
    """Return a number without the scheme and the parameters of a tel URI (RFC 3966), its extension kept."""
    if value[:4].lower() != "tel:":
        return value
    number, *parameters = value[4:].split(";")
    extensions = [f" ext {each[4:]}" for each in parameters if each[:4].lower() == "ext="]
    return number + "".join(extensions[:1])


def _unescape(value: str, is_21: bool) -> str:
    if "\\" not in value:
        return value
    # vCard 2.1 writes a line break as =0D=0A.
    if is_21:
        return _ESCAPE_21.sub(r"\1", value)
    return _ESCAPE.sub(lambda escape: "\n" if escape[1] in "nN" else escape[1], value)


def _components(value: str, is_21: bool) -> list[str]:
    if "\\" not in value:
        return value.split(";")
    return [_unescape(component, is_21) for component in _COMPONENT.findall(value)]


def unparse(rows: Iterable[Sequence[Any]]) -> bytes:
    """Return the cards of `rows`, each of a UID and the values of `ContactBase` in its order."""
    return b"".join(part for row in rows for part in _card(*row))


def _card(
    uid: object,
    first_name: str,
    last_name: str | None,
    email: str | None,
    phone_number: str | None,
    date_of_birth: date | None,
    additional_info: str | None,
) -> Iterator[bytes]:
    first, last = escape_text(first_name), escape_text(last_name or "")
    yield _FIRST_LINES
    yield content_line(f"UID:{escape_text(str(uid))}")
    yield content_line(f"N:{last};{first};;;")
    yield content_line(f"FN:{first} {last}" if last else f"FN:{first}")
    if email is not None:
        yield content_line(f"EMAIL;TYPE=INTERNET:{escape_text(email)}")
    if phone_number is not None:
        yield content_line(f"TEL;TYPE=VOICE:{escape_text(phone_number)}")
    if date_of_birth is not None:
        yield b"BDAY:%b\r\n" % date_of_birth.isoformat().encode()
    if additional_info is not None:
        yield content_line(f"NOTE:{escape_text(additional_info)}")
    yield b"END:VCARD\r\n"


_FIRST_LINES = f"BEGIN:VCARD\r\nVERSION:3.0\r\nPRODID:{PRODID}\r\n".encode()
