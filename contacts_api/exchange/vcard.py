"""Contacts as vCards: 2.1, 3.0 (RFC 2426) and 4.0 (RFC 6350) are read, 3.0 is written, as all that import read it.

Read are N, FN, NICKNAME, ORG, EMAIL, TEL, BDAY, NOTE and UID, with or without a group (`item1.EMAIL`), from
lines that may be folded, in quoted-printable, base64 or the charset they name. Of several e-mail addresses
and numbers the preferred one is taken (the lowest PREF, or TYPE=pref), else the first, and a fax or pager only
for want of another. Everything else is passed over unread, so a photo costs nothing; so is a vCard within a
vCard (AGENT). Prefixes and suffixes of names, and dates other than the birthday (X-ABDATE), are not kept.

Each card stands alone: one that is bad, too large or without an end costs no other.

This reader is our own because vobject, the library for it, is several times slower, and does not decode much of what
phones write.
"""

import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from contacts_api.contacts.models import ABOUT
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
from contacts_api.text import content_line, escape_text

PRODID = "-//Contacts API//EN"
HEAD = TAIL = b""

_BEGIN, _END = b"BEGIN:VCARD", b"END:VCARD"
_FIRST_OF_MARKERS = b"BbEe" + BOM[:1]
# The properties of one text value, each a field of its own.
_TEXTS = {about.vcard: name for name, about in ABOUT.items() if about.vcard}
_PROPERTIES = "|".join(("VERSION|PRODID|UID|N|FN|NICKNAME|ORG|EMAIL|TEL|BDAY|NOTE", *_TEXTS))
_READ = re.compile(rf"(?:[a-z0-9-]++\.)?+(?:{_PROPERTIES})[;:]".encode(), re.IGNORECASE)
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


class _UnreadableCard(Exception):  # noqa: N818 (it ends nothing but a card)
    """A card whose text cannot be decoded."""


def _content_lines(file: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of cards, joined where they were folded (RFC 6350, 3.2) or end softly (RFC 2045, 6.7).

    Those that are not read, and of one that is larger than RECORD_BYTES the rest, are passed over.
    """
    pieces: list[bytes] = []
    size, goes_on, is_soft, is_kept, is_printable = 0, False, False, False, False
    for line in file:
        text = line.rstrip(b"\r\n")
        marker = _marker(line) if not goes_on and line[0] in _FIRST_OF_MARKERS else b""
        if marker or not (goes_on or is_soft or text[:1] in (b" ", b"\t", b"")):
            yield b"".join(pieces)
            pieces, size = [], 0
            is_kept = bool(marker or _READ.match(text) or _AGENT.match(text))
            is_printable = b";" in text and b"QUOTED-PRINTABLE" in text.partition(b":")[0].upper()
        elif text[:1] in (b" ", b"\t") and not (goes_on or is_soft):
            text = text[1:]
        goes_on = not is_ended(line)
        is_soft = is_printable and text.endswith(b"=") and not goes_on
        if is_kept and size <= RECORD_BYTES:
            pieces.append(text[:-1] if is_soft else text)
            # One more, since an empty piece takes memory too.
            size += len(text) + 1
    yield b"".join(pieces)


def _decode(content: bytes, charset: str) -> str:
    if not _CHARSETS.fullmatch(charset):
        raise _UnreadableCard
    try:
        return content.decode(charset)
    except (UnicodeDecodeError, LookupError):
        raise _UnreadableCard from None


def parse(chunks: Iterable[bytes], last_date_of_birth: date) -> Iterator[ImportedContact | BadRow]:
    """Yield the contacts of a file of vCards, card by card, and the cards that are none; `row` is the card's number.

    Raises UnknownFormat, NotUTF8 or CutOff, perhaps after some cards.
    """
    card: list[bytes] | None = None
    number = depth = size = 0
    is_agent = False
    for line in _content_lines(lines(chunks)):
        marker = _marker(line)
        if marker == _BEGIN and card is not None and (is_agent or depth > 1):
            depth += 1
        elif marker == _BEGIN:
            if card is not None:
                yield bad_row(number, "unfinished_card", "The card has no END:VCARD.")
            card, number, depth, size = [], number + 1, 1, 0
        elif marker == _END and card is not None:
            depth -= 1
            if not depth:
                yield too_large(number) if size > RECORD_BYTES else _read_card(number, card, last_date_of_birth)
                card = None
        elif line and card is not None and depth == 1:
            size += len(line) + 1
            if size <= RECORD_BYTES:
                card.append(line)
        is_agent = marker == b"" and _AGENT.match(line) is not None
    if card is not None:
        raise CutOff
    if not number:
        raise UnknownFormat


def _marker(line: bytes) -> bytes:
    """Return the line where it begins or ends a card, in capitals; an empty text where it does not."""
    is_short = 0 < len(line) < 64 and line[0] in _FIRST_OF_MARKERS
    marker = line.removeprefix(BOM).strip().upper() if is_short else b""
    return marker if marker in (_BEGIN, _END) else b""


def _read_card(number: int, card: Sequence[bytes], last_date_of_birth: date) -> ImportedContact | BadRow:
    try:
        source = _source(_decode_card(card))
    except _UnreadableCard:
        return bad_row(number, "charset", "The card's text is not in the charset and encoding it names.")
    return read_contact(number, source, last_date_of_birth)


def _decode_card(card: Sequence[bytes]) -> list[str]:
    """Return the lines as text. Raises NotUTF8 or _UnreadableCard."""
    try:
        return b"\n".join(card).decode().split("\n")
    except UnicodeDecodeError:
        return [_decode_line(line) for line in card]


def _decode_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        charset = _CHARSET.search(line.partition(b":")[0].decode("ascii", "replace").upper())
        if charset is None:
            raise NotUTF8 from None
        return _decode(line, charset[1])


def _source(card: Sequence[str]) -> Source:
    source: Source = {}
    is_ours, is_21 = f"PRODID:{PRODID}" in card, any(line.startswith("VERSION:2.1") for line in card)
    notes: list[str] = []
    ranks = {"email": 2000, "phone_number": 2000}

    def prefer(field: str, text: str, rank: int) -> None:
        if rank < ranks[field]:
            ranks[field], source[field] = rank, text

    for line in card:
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
            prefer("email", _unescape(value, is_21), _rank(parameters))
        elif name == "TEL":
            prefer("phone_number", _number(_unescape(value, is_21)), _rank(parameters))
        elif name == "N":
            family, given, middle = (*_components(value, is_21), "", "", "")[:3]
            # Several additional names are a list, with commas.
            middle = " ".join(middle.replace(",", " ").split())
            source |= {"last_name": family, "first_name": given, "middle_name": middle}
        elif name == "FN":
            source.setdefault("full_name", _unescape(value, is_21))
        elif name == "NICKNAME":
            source.setdefault("nickname", _unescape(value, is_21))
        elif name == "UID":
            source.setdefault("uid", _uid(_unescape(value, is_21).strip()))
        elif name == "BDAY":
            omitted = _OMITTED_YEAR.search(parameters)
            placeholders = PLACEHOLDERS | {omitted[1]} if omitted else PLACEHOLDERS
            read_birthday(source, value.strip(), frozenset() if is_ours else placeholders)
        elif name == "ORG":
            source.setdefault("organisation", _components(value, is_21)[0])
        if name in _TEXTS:
            source.setdefault(_TEXTS[name], ", ".join(filter(None, _components(value, is_21))))
    if notes:
        source["additional_info"] = "\n".join(notes)
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
        raise _UnreadableCard from None
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


def unparse(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the cards of `rows`, which have a `vcard_uid` and all fields of a contact."""
    return b"".join(part for row in rows for part in _card(row))


def _card(row: Mapping[str, Any]) -> Iterator[bytes]:
    first, last = escape_text(row["first_name"]), escape_text(row["last_name"] or "")
    yield _FIRST_LINES
    yield content_line(f"UID:{escape_text(row['vcard_uid'])}")
    yield content_line(f"N:{last};{first};;;")
    yield content_line(f"FN:{first} {last}" if last else f"FN:{first}")
    for beginning, field in _WRITTEN:
        if (value := row[field]) is not None:
            yield content_line(f"{beginning}:{escape_text(str(value))}")
    yield b"END:VCARD\r\n"


_FIRST_LINES = f"BEGIN:VCARD\r\nVERSION:3.0\r\nPRODID:{PRODID}\r\n".encode()
_WRITTEN = (
    ("EMAIL;TYPE=INTERNET", "email"),
    ("TEL;TYPE=VOICE", "phone_number"),
    ("BDAY", "date_of_birth"),
    ("NOTE", "additional_info"),
    *_TEXTS.items(),
)
