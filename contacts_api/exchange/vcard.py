"""Contacts as vCards: 2.1, 3.0 (RFC 2426) and 4.0 (RFC 6350) are read, 3.0 is written, as all that import read it.

Lines may be folded, in quoted-printable, base64 or the charset they name. Of several e-mail addresses and numbers the
preferred one is the contact's own (the lowest PREF, or TYPE=pref), else the first, and a fax or pager only for want of
another; all others, and all that contacts have no field for, become details, those that are not known by the names of
their properties. Photos and the like are counted, and passed over unread; so is a vCard within a vCard (AGENT).

Each card stands alone: one that is bad, too large or without an end costs no other.

In a card of ours the contact's own address and number are those with TYPE=INTERNET and TYPE=VOICE, and what has no
property that others know is an X-OTHER. Labels that are no TYPE stand in Apple's X-ABLabel.

This reader is our own because vobject, the library for it, is several times slower, and does not decode much of what
phones write.
"""

import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import takewhile
from typing import Any, NamedTuple, TypeAlias

from contacts_api.contacts.models import ABOUT, FIELD_OF_KIND
from contacts_api.exchange.files import BOM, RECORD_BYTES, CutOff, UnknownFormat, is_encoding, is_ended, lines
from contacts_api.exchange.reader import (
    NEVER_OWN,
    STANDARD_LABELS,
    BadRow,
    Draft,
    ImportedContact,
    NotAPerson,
    Reading,
    Remark,
    Said,
    is_uid,
    read_contact,
    read_plainly,
    too_large,
)
from contacts_api.text import content_line, escape_text

PRODID = "-//Contacts API//EN"
HEAD = b""

_BEGIN, _END, _CARD = b"BEGIN:VCARD", b"END:VCARD", b"VCARD"
_FIRST_OF_MARKERS = b"BbEe" + BOM[:1]
_FIRST_OF_DATES = b"BbAa"
# Those that begin with the year show no order of day and month.
_DATE = re.compile(rb"(?:BDAY|ANNIVERSARY)[^:]{0,100}:(?![0-9]{4}-)([^\r\n]{1,64})", re.IGNORECASE)
# The properties of one text value, each a field of its own.
_TEXTS = {about.vcard: name for name, about in ABOUT.items() if about.vcard}
# What each property becomes, and the label it has if it names none. The first one of a kind is also written.
_KINDS = {
    "EMAIL": ("email", None),
    "TEL": ("phone", None),
    "ADR": ("address", None),
    "URL": ("url", None),
    "ORG": ("organization", None),
    "NICKNAME": ("nickname", None),
    "TITLE": ("title", None),
    "ROLE": ("title", "role"),
    "ANNIVERSARY": ("date", "anniversary"),
    "X-ANNIVERSARY": ("date", "anniversary"),
    "X-ABDATE": ("date", None),
    "X-ABRELATEDNAMES": ("relation", None),
    "RELATED": ("relation", None),
    "IMPP": ("account", None),
    "X-SOCIALPROFILE": ("account", None),
    "X-OTHER": ("other", None),
}
_WRITTEN_AS = {kind_and_label: name for name, kind_and_label in reversed(_KINDS.items())}
_TECHNICAL = frozenset({"VERSION", "PRODID", "REV", "PROFILE", "X-ABLABEL"})
_READ = {*_KINDS, *_TECHNICAL, *_TEXTS, "N", "FN", "BDAY", "NOTE", "UID", "CATEGORIES", "AGENT", "BEGIN", "END"}
_KIND_OF_CARD = ("KIND", "X-ADDRESSBOOKSERVER-KIND", "X-EVOLUTION-LIST")
_READ |= set(_KIND_OF_CARD)

_PROPERTY = re.compile(rb"(?:[A-Za-z0-9_-]++\.)?+([A-Za-z0-9_-]++) ?[;:]")
# A line that neither begins nor ends a card, is not binary, and does not go on by a soft line break; a card of such.
_WHOLE = rb"(?!BEGIN|END|PHOTO|LOGO|SOUND|KEY)[A-Z][A-Z0-9-]{0,99}+[:;][^\r\n]{0,900}+(?<!=)"
_WHOLE_LINE = re.compile(rb"(%b)\r?\n" % _WHOLE)
_WHOLE_CARD = re.compile(rb"^(BEGIN:VCARD\r?\n(?:%b\r?\n)++END:VCARD\r?\n)" % _WHOLE, re.MULTILINE)
_BINARY = {spelled for name in (b"PHOTO", b"LOGO", b"SOUND", b"KEY") for spelled in (name, name.lower(), name.title())}
# The empty text as well.
_FOLDS = b" \t"
_NAME = re.compile(rb"[A-Za-z0-9_.-]{1,100}+")
_AGENT = re.compile(rb"(?:[a-z0-9-]++\.)?+AGENT[;:]", re.IGNORECASE)
_QUOTED = re.compile(r""";((?:[^":]++|"[^"]*+")*+):(.*)""", re.DOTALL)
_ENCODING = re.compile(";(?:ENCODING=)?(QUOTED-PRINTABLE|BASE64|B)(?=;|$)", re.IGNORECASE)
_CHARSET = re.compile(r'CHARSET="?([A-Z0-9_.:-]+)', re.IGNORECASE)
_PREFERENCE = re.compile(r"[;,=\"]PREF(?:=\"?([0-9]{1,3}))?(?=[;,\"]|$)")
_UNSUITED = re.compile(r"[;,=\"](?:FAX|PAGER)(?=[;,\"]|$)")
_OMITTED_YEAR = re.compile(r"X-APPLE-OMIT-YEAR=([0-9]{4})", re.IGNORECASE)
# How Apple and others write a whole address beside its parts; and how Android writes a label in other letters.
_WHOLE_ADDRESS = re.compile(r";LABEL=(?:\"([^\"]*)\"|([^;]*))", re.IGNORECASE)
_CUSTOM = re.compile(r";X-CUSTOM\(.*?QUOTED-PRINTABLE,([^)]*)\)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\([\\,;:nN])")
_ESCAPE_21 = re.compile(r"\\([\\,;:])")
_COMPONENT = re.compile(r"((?:[^;\\]++|\\.|\\)*+)(?:;|$)", re.DOTALL)
_ITEM = re.compile(r"((?:[^,\\]++|\\.|\\)*+)(?:,|$)", re.DOTALL)
_TYPE = re.compile(r";(?:TYPE=|LABEL=|X-SERVICE-TYPE=)?([^;:=]+)(?=;|$)", re.IGNORECASE)
_NO_LABELS = {"PREF", "INTERNET", "VOICE", "QUOTED-PRINTABLE", "BASE64", "B", "8BIT", "7BIT", "UTF-8", "MSG", ""}
# The labels that are written as types; others stand in X-ABLabel.
_TYPES = {word: word.upper() for word in ("home", "work", "fax", "pager", "main", "other", "car", "video", "text")}
_TYPES |= {"dom": "DOM", "intl": "INTL", "mobile": "CELL"}
_APPLES = re.compile(r"_\$!<(.*)>!\$_")
# RFC 6350, 6.6.6.
_RELATIONS = frozenset(
    {
        *("contact", "acquaintance", "friend", "met", "co-worker", "colleague", "co-resident", "neighbor", "child"),
        *("parent", "sibling", "spouse", "kin", "muse", "crush", "date", "sweetheart", "me", "agent", "emergency"),
    }
)
_QP_END = re.compile(rb"(?:=[0-9A-Fa-f]{2})+\Z")
_RAW_BREAK = b"\x0b"
# In a card of ours, the contact's own address and number have these types.
_OWN = {"EMAIL": "INTERNET", "TEL": "VOICE"}
# The field of each property that has one text.
_PLAIN = {"EMAIL": FIELD_OF_KIND["email"], "TEL": FIELD_OF_KIND["phone"]}
_PLAIN |= {"BDAY": "date_of_birth", "NOTE": "additional_info"}
# Of two properties of one name in a card of ours, this is the one of a detail.
_DETAIL = ";X-DETAIL=1"
_NAME_OF_PROPERTY = re.compile("[A-Z][A-Z0-9-]*")


# The number of a line, the line, whether all but its name is left out, and what it is of a card: _BEGIN, _END or b"".
# A card of whole lines comes as one, as _CARD: most are such, and are read so in two thirds of the time.
_Line: TypeAlias = tuple[int, bytes, bool, bytes]


def _content_lines(file: Iterable[bytes]) -> Iterator[_Line]:
    """Yield the lines of cards, joined where they were folded or end softly (RFC 6350, 3.2, and RFC 2045, 6.7).

    What is binary, and what is larger than RECORD_BYTES, is left out: no more of it is held than its name.
    A line that is no property goes on with the one before: somebody has broken a value, and folded nothing.
    """
    pieces: list[bytes] = []
    size = number = begun = 0
    goes_on = is_soft = is_left_out = False
    marker = b""
    for line in file:
        if (count := line.count(b"\n")) > 1:
            yield begun, b"".join(pieces), is_left_out, marker
            yield number + 1, line, False, _CARD
            number += count
            pieces, size, begun, marker, is_left_out, is_soft = [], 0, number, b"", False, False
            continue
        if not (goes_on or is_soft) and (whole := _WHOLE_LINE.match(line)):
            # Nothing to look at more closely, as for most lines.
            yield begun, b"".join(pieces), is_left_out, marker
            number += 1
            pieces, size, begun, marker, is_left_out = [whole[1]], len(line), number, b"", False
            continue
        text = line.rstrip(b"\r\n")
        begins = _marker(text) if line[0] in _FIRST_OF_MARKERS and not goes_on else b""
        if not begins and (goes_on or is_soft or text[:1] in _FOLDS):
            number += not goes_on
            if text[:1] in (b" ", b"\t") and not goes_on and (not is_soft or _is_cut(pieces, text)):
                text = text[1:]
        else:
            number += 1
            found = _PROPERTY.match(text)
            if found and not found[1].isupper() and pieces and _is_prose(pieces[0], found[1]):
                found = None
            if begins or found or marker or not pieces:
                yield begun, b"".join(pieces), is_left_out, marker
                pieces, size, begun, marker = [], 0, number, begins
                is_left_out = found is not None and found[1] in _BINARY and not (b"http" in text and is_ended(line))
                if is_left_out and found:
                    pieces = [found[1]]
            else:
                text = _RAW_BREAK + text
        goes_on = line[-1] not in b"\r\n"
        is_soft = text[-1:] == b"=" and not goes_on and _is_printable(pieces[0] if pieces else text)
        if is_left_out:
            continue
        pieces.append(text[:-1] if is_soft else text)
        # One more, since an empty piece takes memory too.
        size += len(text) + 1
        if size > RECORD_BYTES:
            name = _NAME.match(pieces[0])
            is_left_out, pieces = True, [name[0] if name else b""]
    yield begun, b"".join(pieces), is_left_out, marker


def _is_prose(before: bytes, name: bytes) -> bool:
    """Say whether a line is no property, but goes on with a note that was broken: "Paris: 2019", "https://…"."""
    return before.startswith(b"NOTE") and name[:2] not in (b"X-", b"x-")


def _is_printable(line: bytes) -> bool:
    """Say whether the value of a property is quoted-printable."""
    return b"QUOTED-PRINTABLE" in line.partition(b":")[0].upper()


def _is_cut(pieces: Sequence[bytes], text: bytes) -> bool:
    """Say whether a soft line break in UTF-8 parts a character, so that the white space after it is a fold's."""
    end = _QP_END.search(pieces[-1][-12:]) if pieces else None
    if end is None or text[1:2] != b"=":
        return False
    try:
        binascii.a2b_qp(end[0]).decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def parse(chunks: Iterable[bytes], reading: Reading) -> Iterator[ImportedContact | BadRow | NotAPerson]:
    """Yield the contacts of a file of vCards, card by card, and the cards that are none; `row` is the card's number.

    Raises UnknownFormat or CutOff, perhaps after some cards.
    """
    readings = (reading, replace(reading, is_ours=True))
    draft: Draft | None = None
    card: list[bytes] = []
    number = depth = size = 0
    before = b""
    for at, line, is_left_out, marker in _content_lines(lines(chunks, _WHOLE_CARD)):
        if marker in (_BEGIN, _CARD):
            if draft and (depth > 1 or _AGENT.match(before)):
                depth += marker == _BEGIN
            else:
                if draft:
                    yield BadRow(number, draft.line, "unfinished_card", "The card has no END:VCARD.")
                number += 1
                draft, card, depth, size = Draft(number, at), [], 1, 0
                if marker == _CARD:
                    _, *card, _ = line.splitlines()
                    size = sum(map(len, card)) + len(card)
                    yield too_large(number, at) if size > RECORD_BYTES else _read_card(draft, card, readings)
                    draft = None
        elif marker == _END and draft:
            depth -= 1
            if not depth:
                yield too_large(number, draft.line) if size > RECORD_BYTES else _read_card(draft, card, readings)
                draft = None
        elif line and draft and depth == 1:
            size += len(line) + 1
            if is_left_out and size <= RECORD_BYTES:
                draft.not_kept.append(line.rpartition(b".")[2].decode(errors="replace").upper()[:64])
            elif size <= RECORD_BYTES:
                card.append(line)
        before = line
    if draft:
        raise CutOff
    if not number:
        raise UnknownFormat


def dates_in(chunks: Iterable[bytes]) -> Iterator[tuple[int, int, str]]:
    """Yield the dates of birth and anniversaries of a file that may show the order, each with its card and line."""
    number = 0
    for at, line in enumerate(lines(chunks), 1):
        if line[0] in _FIRST_OF_DATES and (found := _DATE.match(line)):
            yield number, at, found[1].decode(errors="replace").strip()
        elif line[0] in _FIRST_OF_MARKERS and _marker(line) == _BEGIN:
            number += 1


def _marker(line: bytes) -> bytes:
    """Return the line where it begins or ends a card, in capitals; an empty text where it does not."""
    marker = line.removeprefix(BOM).strip().upper() if len(line) < 64 else b""
    return marker if marker in (_BEGIN, _END) else b""


def _read_card(
    draft: Draft, card: Sequence[bytes], readings: tuple[Reading, Reading]
) -> ImportedContact | BadRow | NotAPerson:
    try:
        text = _decode(card)
    except (UnicodeDecodeError, LookupError):
        detail = "It is not text in UTF-8, nor in a charset that it names. Name the file's: encoding=windows-1252, say."
        return BadRow(draft.row, draft.line, "charset", detail)
    reading = readings[f"PRODID:{PRODID}" in text]
    if contact := _read_plainly(draft, text, reading):
        return contact
    source = _Source(draft, text, reading)
    if source.is_group:
        return NotAPerson(draft.row, draft.line, "KIND:group")
    return read_contact(draft, reading)


def _read_plainly(draft: Draft, card: Sequence[str], reading: Reading) -> ImportedContact | None:
    """Return the contact of a card that says each thing once, and nothing that has to be looked at closely; else None.

    Many cards are so, and are read in half of the time.
    """
    said: dict[str, str] = {}
    for line in card:
        name, _, value = line.partition(":")
        plain = _plain_name(name, reading.is_ours) if len(name) < 100 else None
        if plain is None or plain in said:
            return None
        if "\\" in value:
            if plain != "NOTE" or "VERSION:2.1" in card:
                return None
            value = _unescaped(value)
        said[plain] = value.strip() if plain in ("BDAY", "UID") else value
    names = said.get("N", "").split(";")
    if len(names) < 2 or any(names[2:]) or "," in said["N"] or not said.get("NOTE", "-").strip():
        return None
    last_name, first_name, *_ = names
    if said.get("FN") and not reading.is_ours and said["FN"] != " ".join(filter(None, (first_name, last_name))):
        return None
    uid = _uid(said.get("UID", "")) or None
    if uid and not is_uid(uid):
        return None
    found = {_PLAIN[name]: value for name, value in said.items() if name in _PLAIN and value and not value.isspace()}
    found |= {name: text for name, text in (("first_name", first_name), ("last_name", last_name)) if text}
    fields = read_plainly(found, reading)
    return ImportedContact(draft.row, draft.line, uid, fields, draft.warnings, draft.not_kept) if fields else None


@lru_cache(maxsize=1024)
def _plain_name(name: str, is_ours: bool) -> str | None:
    """Return the name of a property without its parameters; None if either has to be looked at closely."""
    name, _, parameters = name.partition(";")
    if name not in _OWN or '"' in parameters:
        is_plain = not parameters and (name in _PLAIN or name in ("VERSION", "PRODID", "REV", "N", "FN", "UID"))
    else:
        label, _, encoding = _read_few(f";{parameters}" if parameters else "")
        is_plain = not encoding and (not label or STANDARD_LABELS.issuperset(label.lower().split()))
        is_plain = is_plain and (not is_ours or _OWN[name] in parameters)
    return name if is_plain else None


def _decode(card: Sequence[bytes]) -> list[str]:
    """Return the lines of a card as text. Raises UnicodeDecodeError or LookupError."""
    try:
        return b"\n".join(card).decode().split("\n")
    except UnicodeDecodeError:
        return [_decode_line(line) for line in card]


def _decode_line(line: bytes) -> str:
    """Return a line as text: UTF-8, or the charset that it names. Raises UnicodeDecodeError or LookupError."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        charset = _CHARSET.search(line.partition(b":")[0].decode("ascii", "replace"))
        if charset is None or not is_encoding(charset[1]):
            raise
        return line.decode(charset[1])


# The group and the name without it in capitals, the parameters and the value of a line.
_Property: TypeAlias = tuple[str, str, str, str]


class _Source:
    """What a card says, in `draft`."""

    def __init__(self, draft: Draft, card: Sequence[str], reading: Reading) -> None:
        self.draft, self._encoding = draft, reading.encoding
        self.is_ours, self.is_group = reading.is_ours, False
        self._is_21 = "VERSION:2.1" in card
        properties = [_property(line) for line in card]
        self._labels = {group: value for group, name, _, value in properties if group and name == "X-ABLABEL"}
        for each in properties:
            group, name, parameters, value = each
            if parameters and (encoding := _read_parameters(parameters).encoding):
                value = self._decoded(name, parameters, value, encoding)
                each = (group, name, parameters, value)
            if name == "NOTE":
                if value or self.is_ours:
                    draft.notes.append(self._text(value))
            elif name == "AGENT":
                draft.not_kept.append(name)
            elif value and not value.isspace() and name not in _TECHNICAL:
                self._read(each)

    def _read(self, each: _Property) -> None:
        draft, (group, name, parameters, value) = self.draft, each
        if name in _OWN:
            text = self._text(value)
            self._say(each, _number(text) if name == "TEL" else text)
        elif name == "N":
            self._read_name(value)
        elif name == "FN":
            if not self.is_ours:
                draft.full_names.append(self._text(value))
        elif name == "BDAY":
            omitted = _OMITTED_YEAR.search(parameters)
            text = value.strip()
            text = f"--{text[5:]}" if omitted and text.startswith(f"{omitted[1]}-") else text
            draft.said.append(Said("date_of_birth", None, text, name))
        elif name == "UID":
            draft.uid = draft.uid or _uid(self._text(value).strip())
        elif name == "CATEGORIES":
            draft.labels += self._items(value)
        elif name in _TEXTS and _DETAIL not in parameters:
            draft.said.append(Said(_TEXTS[name], None, ", ".join(filter(None, self._components(value))), name))
        elif name == "NICKNAME":
            for nickname in self._items(value):
                self._say(each, nickname)
        elif name == "ORG":
            company, *departments = self._components(value)
            self._say(each, company)
            for department in departments:
                draft.said.append(Said("organization", "department", department, name))
        elif name in _KIND_OF_CARD and value.strip().lower() in ("group", "individual", "true", "false"):
            self.is_group = self.is_group or value.strip().lower() in ("group", "true")
        elif name == "ADR":
            self._say((group, name, _WHOLE_ADDRESS.sub("", parameters), value), self._address(parameters, value))
        elif name in _KINDS:
            self._say(each, self._text(value))
        elif name:
            draft.said.append(Said("other", name, self._text(value), name))
            if label := self._labels.get(group) if group else None:
                draft.said.append(Said("other", f"{name} label"[:64], self._text(label), "X-ABLABEL"))

    def _address(self, parameters: str, value: str) -> str:
        """Return the lines of an address: its parts, and what else a parameter has of it as a whole."""
        parts = [part for part in self._components(value) if part.strip()]
        whole = _WHOLE_ADDRESS.search(parameters)
        lines = re.split(r"\\n|\n", whole[1] or whole[2] or "", flags=re.IGNORECASE) if whole else []
        return "\n".join(
            [*parts, *(line for line in lines if line.strip() and not any(part in line for part in parts))]
        )

    def _read_name(self, value: str) -> None:
        components = value.split(";") if "\\" not in value else _COMPONENT.findall(value)
        # Several names are a list, with commas; those of vCard 2.1, and commas before a space, are text.
        texts = [
            " ".join(self._items(text)) if "," in text and ", " not in text and not self._is_21 else self._text(text)
            for text in components
        ]
        family, given, middle, prefix, suffix, *others = (*texts, "", "", "", "", "")
        if rest := " ".join(filter(None, others)):
            # RFC 9554 has a second surname and a generation.
            self.draft.said.append(Said("other", "N", rest, "N"))
        if self.draft.names:
            self.draft.full_names.append(" ".join(filter(None, (prefix, given, middle, family, suffix))))
        else:
            self.draft.names = {"last_name": family, "first_name": given}
            # In a card of ours, the others are details as well.
            if not self.is_ours:
                self.draft.names |= {"middle_name": middle, "prefix": prefix, "suffix": suffix}

    def _say(self, each: _Property, text: str) -> None:
        group, name, parameters, _ = each
        kind, usual_label = _KINDS[name]
        label, rank, _ = _read_parameters(parameters)
        if group and (named := self._labels.get(group)):
            label = self._text(named)
            label = apples[1] if (apples := _APPLES.fullmatch(label)) else label
        if self.is_ours:
            rank = 0 if name in _OWN and _OWN[name] in parameters else NEVER_OWN
        self.draft.said.append(Said(kind, label or usual_label, text, name, rank))

    def _decoded(self, name: str, parameters: str, value: str, encoding: str) -> str:
        """Return a value that is written in quoted-printable or base64 as text."""
        is_printable = encoding == "QUOTED-PRINTABLE"
        try:
            content = (binascii.a2b_qp if is_printable else binascii.a2b_base64)(value.encode())
        except binascii.Error:
            content = value.encode()
        charset = _CHARSET.search(parameters)
        is_known = charset is not None and is_encoding(charset[1])
        named = charset[1] if charset and is_known else self._encoding
        try:
            return content.decode(named)
        except UnicodeDecodeError:
            pass
        if not is_printable:
            # A picture, or whatever else is no text.
            self.draft.not_kept.append(name)
            return ""
        read_as = named if is_known else "WINDOWS-1252"
        detail = f"Its bytes are not text in {named}: they were read as {read_as.lower()}. Name another with encoding=."
        self.draft.warnings.append(Remark(name, "not_text", detail))
        return content.decode(read_as, "replace")

    def _text(self, value: str) -> str:
        if "\\" not in value:
            return value
        # vCard 2.1 writes a line break as =0D=0A.
        if self._is_21:
            return _ESCAPE_21.sub(r"\1", value)
        return _unescaped(value)

    def _components(self, value: str) -> list[str]:
        if "\\" not in value:
            return value.split(";")
        return [self._text(component) for component in _COMPONENT.findall(value)]

    def _items(self, value: str) -> list[str]:
        items = value.split(",") if "\\" not in value else _ITEM.findall(value)
        return [text for item in items if (text := self._text(item)) and not text.isspace()]


def _unescaped(value: str) -> str:
    return _ESCAPE.sub(lambda escape: "\n" if escape[1] in "nN" else escape[1], value)


def _property(line: str) -> _Property:
    name, _, value = line.partition(":")
    parameters = group = ""
    if ";" in name:
        name, _, parameters = name.partition(";")
        # A quoted parameter may have a colon in it.
        if '"' in parameters and (match := _QUOTED.fullmatch(line, len(name))):
            parameters, value = match.groups()
        parameters = f";{parameters}"
    if "." in name:
        group, _, name = name.rpartition(".")
        group = group.upper()
    return group, name.strip().upper(), parameters, value


class _Parameters(NamedTuple):
    """What the parameters of a property say."""

    label: str | None
    """Its types: `work fax`."""
    rank: int
    """How far the value is from being preferred."""
    encoding: str
    """QUOTED-PRINTABLE, BASE64 or B; empty where it is plain text."""


def _read_parameters(parameters: str) -> _Parameters:
    # Most cards have the same few parameters.
    return (_read_few if len(parameters) < 100 else _read_few.__wrapped__)(parameters)


@lru_cache(maxsize=1024)
def _read_few(parameters: str) -> _Parameters:
    words = [word for found in _TYPE.findall(parameters) for word in found.replace('"', "").split(",")]
    label = " ".join(_as_label(word) for word in words if word.upper().removeprefix("X-") not in _NO_LABELS)
    upper = parameters.upper()
    preference = _PREFERENCE.search(upper) if "PREF" in upper else None
    rank = int(preference[1] or 1) if preference else 101
    if _UNSUITED.search(upper):
        rank += 200
    if custom := _CUSTOM.search(parameters):
        label = binascii.a2b_qp(custom[1].encode()).decode(errors="replace")
    encoding = _ENCODING.search(parameters)
    return _Parameters(label or None, rank, encoding[1].upper() if encoding else "")


def _as_label(word: str) -> str:
    """Return a type as a label. One that somebody has made up keeps its capitals."""
    if word.upper() == "CELL":
        return "mobile"
    return word[2:] if word[:2].upper() == "X-" and len(word) > 2 else word.lower()


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


def unparse(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the cards of `rows`, which have a `vcard_uid` and all fields of a contact."""
    return b"".join(part for row in rows for part in _card(row))


def _card(row: Mapping[str, Any]) -> Iterator[bytes]:
    first, last = escape_text(row["first_name"]), escape_text(row["last_name"] or "")
    details, born = row["details"], row["date_of_birth"] or (row["birthday"] and f"--{row['birthday']}")
    others = {each["label"]: escape_text(each["value"]) for each in reversed(details) if each["kind"] == "other"}
    full_name = others.get("full name") or (f"{first} {last}" if last else first)
    yield _FIRST_LINES
    yield content_line(f"UID:{escape_text(row['vcard_uid'])}")
    yield content_line(f"N:{last};{first};;{others.get('name prefix', '')};{others.get('name suffix', '')}")
    yield content_line(f"FN:{full_name}")
    for beginning, value in (
        ("EMAIL;TYPE=INTERNET", row["email"]),
        ("TEL;TYPE=VOICE", row["phone_number"]),
        ("BDAY", born),
        ("NOTE", row["additional_info"]),
        *((name, row[field]) for name, field in _TEXTS.items()),
    ):
        if value is not None:
            yield content_line(f"{beginning}:{escape_text(str(value))}")
    if row["labels"]:
        yield content_line(f"CATEGORIES:{','.join(map(escape_text, row['labels']))}")
    if details:
        yield from _details(details)
    yield b"END:VCARD\r\n"


_FIRST_LINES = f"BEGIN:VCARD\r\nVERSION:3.0\r\nPRODID:{PRODID}\r\n".encode()


def _details(details: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield the lines of details, each in a group of its own where its label is no type."""
    for n, each in enumerate(details, 1):
        kind, label, value = each["kind"], each["label"], escape_text(each["value"])
        if name := _WRITTEN_AS.get((kind, label)):
            label = None
        else:
            name = _WRITTEN_AS[kind, None]
        types = "" if kind in ("date", "relation") else _types_of(label)
        if _is_department(each):
            before = next((other for other in reversed(details[: n - 1]) if not _is_department(other)), None)
            if before and before["kind"] == "organization":
                # It is in the line of its organization.
                continue
            value, label = f";{value}", None
        elif kind == "organization":
            departments = takewhile(_is_department, details[n:])
            value = ";".join([value, *(escape_text(other["value"]) for other in departments)])
        elif kind == "address":
            value = f";;{value};;;;"
        elif kind == "account" and value.startswith("http"):
            name = "X-SOCIALPROFILE"
        elif kind == "relation" and label in _RELATIONS:
            name, types = "RELATED;VALUE=text", f";TYPE={label}"
        elif kind == "other" and label and _NAME_OF_PROPERTY.fullmatch(label) and label not in _READ:
            # Its value may have several parts, which only its readers know.
            name, label, value = label, None, value.replace("\\;", ";").replace("\\,", ",")
        if name in _TEXTS:
            name = f"{name}{_DETAIL}"
        if label and not types:
            yield content_line(f"item{n}.{name}:{value}")
            yield content_line(f"item{n}.X-ABLabel:{escape_text(label)}")
        else:
            yield content_line(f"{name}{types}:{value}")


def _is_department(detail: Mapping[str, Any]) -> bool:
    return (detail["kind"], detail["label"]) == ("organization", "department")


def _types_of(label: str | None) -> str:
    """Return the parameter that is read as this label; empty where there is none."""
    words = (label or "").split(" ")
    return f";TYPE={','.join(_TYPES[word] for word in words)}" if all(word in _TYPES for word in words) else ""
