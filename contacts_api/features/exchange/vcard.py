"""Read and write contacts as vCards.

Reads 2.1, 3.0 (RFC 2426) and 4.0 (RFC 6350). Writes 3.0, because all programs can import it.

Reading has three steps:

1. `_cards` finds the beginning and the end of each card.
2. `_Card` collects the lines of each property. Binary and oversized properties are counted, but not kept in memory.
3. `_Source` unfolds the lines (2.1 keeps the white space of a fold, 3.0 does not), decodes them, splits each head into
   name and parameters, and fills a draft.

If a contact has several e-mail addresses or phone numbers, the preferred one (the lowest PREF, or TYPE=pref) goes into
the field, or else the first one. A fax or pager number is used only if there is no other. The other values become
details. So do properties without a field, labelled with their names. Unknown parameters are counted. A vCard within a
vCard (AGENT) is skipped.

An invalid, oversized or unfinished card does not affect the other cards.

In cards that we wrote, TYPE=INTERNET and TYPE=VOICE mark the e-mail address and the phone number of the fields. Details
without a common property are written as X-OTHER. Labels that are not a TYPE are written as Apple's X-ABLabel.

This parser is our own because vobject is several times slower, and cannot decode much of what phones write.
"""

import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import takewhile
from typing import Any, NamedTuple

from contacts_api.contacts.models import ABOUT
from contacts_api.features.exchange.dates import NAMES
from contacts_api.features.exchange.files import BOM, RECORD_BYTES, CutOff, UnknownFormat, is_encoding, lines
from contacts_api.features.exchange.reader import (
    MAX_LABEL,
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
from contacts_api.text import content_line, escape_text

PRODID = "-//Contacts API//EN"
HEAD = b""

_BEGIN, _END = b"BEGIN:VCARD", b"END:VCARD"
_FIRST_OF_MARKERS = b"BbEe" + BOM[:1]
_MARKER = re.compile(rb"([BE])(?:EGIN|ND):VCARD[ \t]*+", re.IGNORECASE)
_MARKERS = re.compile(rb"(?:(?:BEGIN|END):VCARD[ \t]*+)++", re.IGNORECASE)
# The end of a card and the beginning of the next one, glued to a value because its line end is missing.
_GLUED = re.compile(rb"END:VCARD\s*+BEGIN:VCARD\Z", re.IGNORECASE)
# Properties with a single text value that have their own field.
_TEXTS = {about.vcard: name for name, about in ABOUT.items() if about.vcard}
# The kind of detail for each property, and its default label. The first property of a kind and label is also used for
# writing. names.toml has more properties of other applications.
_KINDS: dict[str, tuple[str, str | None]] = {
    "EMAIL": ("email", None),
    "TEL": ("phone", None),
    "ADR": ("address", None),
    "URL": ("url", None),
    "ORG": ("organization", None),
    "NICKNAME": ("nickname", None),
    "TITLE": ("title", None),
    "ROLE": ("title", "role"),
    "ANNIVERSARY": ("date", "anniversary"),
    "X-ABDATE": ("date", None),
    "X-ABRELATEDNAMES": ("relation", None),
    "RELATED": ("relation", None),
    "IMPP": ("account", None),
    "X-SOCIALPROFILE": ("account", None),
    "X-OTHER": ("other", None),
}
_WRITTEN_AS = {kind_and_label: name for name, kind_and_label in reversed(_KINDS.items())}
_KINDS |= {
    name: (kind, label or None)
    for kind, labels in NAMES["properties"].items()
    for label, names in labels.items()
    for name in names
}
_LABELS = frozenset({"CATEGORIES", "X-CATEGORIES", "X-GROUP-MEMBERSHIP"})
_TECHNICAL = frozenset({"VERSION", "PRODID", "REV", "PROFILE", "X-ABLABEL"})
_KIND_OF_CARD = ("KIND", "X-ADDRESSBOOKSERVER-KIND", "X-EVOLUTION-LIST")
_READ = {*_KINDS, *_LABELS, *_TECHNICAL, *_TEXTS, *_KIND_OF_CARD, "N", "FN", "BDAY", "NOTE", "UID", "AGENT", "LABEL"}
_READ |= {"BEGIN", "END", "X-ANDROID-CUSTOM"}
# KAddressBook puts the service of an account into the name of the property: X-messaging/skype-All.
_MESSAGING = "X-MESSAGING/"
_DATES = [name for name, (kind, _) in _KINDS.items() if kind == "date"]
_FIRST_OF_DATES = bytes({ord(letter) for name in ("BDAY", *_DATES) for letter in (name[0], name[0].lower())}) + b"Ii"
# Skips dates that begin with the year, because they do not show the order of day and month.
_DATE = re.compile(
    rf"(?:item[0-9]{{1,9}}\.)?(?:BDAY|{'|'.join(_DATES)})[^:]{{0,100}}:(?![0-9]{{4}}-)([^\r\n]{{1,64}})".encode(),
    re.IGNORECASE,
)
_BINARY = frozenset({b"PHOTO", b"LOGO", b"SOUND", b"KEY"})
# The name of a property, with its group. Also accepts names that the RFCs do not allow: X-messaging/skype-All.
_NAME = re.compile(rb"([^\s:;\"]{1,100}+) ?[;:]")
_HEAD_BYTES = 1000
# Parameters that we read, or that only describe how the value is written. Others are counted as not kept.
_KNOWN_PARAMETERS = frozenset(
    {
        *("TYPE", "X-SERVICE-TYPE", "LABEL", "PREF", "ENCODING", "CHARSET", "VALUE", "LANGUAGE", "ALTID", "PID"),
        *("MEDIATYPE", "CALSCALE", "X-APPLE-OMIT-YEAR", "X-DETAIL", "INDEX", "X-EVOLUTION-UI-SLOT", "CONTEXT"),
    }
)
_MAX_PARAMETERS = 100
# Semicolons and colons within quotes are not delimiters. While a head is split, surrogates replace them: decoded text
# contains no surrogates.
_MASKED = {ord(";"): "\ud800", ord(":"): "\ud801"}
_UNMASKED = {0xD800: ";", 0xD801: ":"}
_ENCODINGS = frozenset({"QUOTED-PRINTABLE", "BASE64", "B"})
# RFC 6868.
_CARET = re.compile(r"\^([n'^])")
_CARETS = {"n": "\n", "'": '"', "^": "^"}
_ESCAPE = re.compile(r"\\([\\,;:nN])")
_ESCAPE_21 = re.compile(r"\\([\\,;:])")
_COMPONENT = re.compile(r"((?:[^;\\]++|\\.|\\)*+)(?:;|$)", re.DOTALL)
_ITEM = re.compile(r"((?:[^,\\]++|\\.|\\)*+)(?:,|$)", re.DOTALL)
_LINE_BREAK = re.compile(r"\\[nN]|\n")
_WORD = re.compile(r"\w+")
_NO_LABELS = {"PREF", "INTERNET", "VOICE", "QUOTED-PRINTABLE", "BASE64", "B", "8BIT", "7BIT", "UTF-8", "MSG", ""}
# Labels that are written as TYPE. Other labels are written as X-ABLabel.
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
_RAW_BREAK = b"\x0b"
# In cards that we wrote, these types mark the values of `email` and `phone_number`.
_OWN = {"EMAIL": "INTERNET", "TEL": "VOICE"}
# Types of values that belong to somebody else.
_OTHERS = frozenset({"ASSISTANT", "COMPANY"})
# In cards that we wrote, tells a detail from a field with the same property.
_DETAIL = ";X-DETAIL=1"
_NAME_OF_PROPERTY = re.compile("[A-Z][A-Z0-9-]*")
# Android's row kinds, and the labels for their type numbers, from ContactsContract.CommonDataKinds.
_ANDROID = "vnd.android.cursor.item/"
_ANDROID_RELATIONS = (
    *("assistant", "brother", "child", "domestic partner", "father", "friend", "manager", "mother", "parent"),
    *("partner", "referred by", "relative", "sister", "spouse"),
)
_ANDROIDS: dict[str, tuple[str, dict[str, str]]] = {
    "nickname": ("nickname", {"2": "other name", "3": "maiden name", "4": "short name", "5": "initials"}),
    "contact_event": ("date", {"1": "anniversary", "2": "other"}),
    "relation": ("relation", {str(n): label for n, label in enumerate(_ANDROID_RELATIONS, 1)}),
}
_ANDROID_BIRTHDAY = "3"


def parse(chunks: Iterable[bytes], reading: Reading) -> Iterator[ImportedContact | BadRow | NotAPerson]:
    """Yield each card of a vCard file: a contact, an error or a group. `row` is the number of the card, from 1.

    Raises UnknownFormat or CutOff, possibly after some cards.
    """
    readings = (reading, replace(reading, is_ours=True))
    for card in _cards(lines(chunks)):
        if not card.is_finished:
            yield BadRow(card.number, card.line, "unfinished_card", "The card has no END:VCARD.")
        elif card.is_too_large:
            yield too_large(card.number, card.line)
        else:
            yield _read_card(card, readings)


def dates_in(chunks: Iterable[bytes]) -> Iterator[tuple[int, int, str]]:
    """Yield the dates that may show the order of day and month, as (card, line, text)."""
    number = 0
    for at, line in enumerate(lines(chunks), 1):
        if line[0] in _FIRST_OF_DATES and (found := _DATE.match(line)):
            yield number, at, found[1].decode(errors="replace").strip()
        elif line[0] in _FIRST_OF_MARKERS:
            number += [*_parts(line.strip())].count(_BEGIN)


def _cards(file: Iterable[bytes]) -> Iterator["_Card"]:
    """Yield the cards of a file. Raises UnknownFormat or CutOff."""
    card: _Card | None = None
    number = depth = 0
    for at, line in _numbered(file):
        for text in _parts(line) if line[:1] in _FIRST_OF_MARKERS else (line,):
            if text is _BEGIN and card and (depth > 1 or card.is_in_agent):
                depth += 1
            elif text is _BEGIN:
                if card:
                    yield card
                number += 1
                card, depth = _Card(number, at), 1
            elif text is _END and card:
                depth -= 1
                if not depth:
                    card.finish()
                    yield card
                    card = None
            elif card and depth == 1:
                if text[:1] in b"Vv" and card.is_glued(text):
                    card.finish()
                    yield card
                    number += 1
                    card = _Card(number, at)
                card.add(text)
    if card:
        raise CutOff
    if not number:
        raise UnknownFormat


def _numbered(file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines, numbered and without their ends. Of a line that comes in pieces, yield only the first piece."""
    number, goes_on = 0, False
    for line in file:
        if not goes_on:
            number += 1
            yield number, line.rstrip(b"\r\n")
        goes_on = line[-1] not in b"\r\n"


def _parts(line: bytes) -> Iterable[bytes]:
    """Split the BEGIN and END markers off a line, because some programs write no line end between them."""
    found = _MARKERS.match(line.removeprefix(BOM))
    if not found:
        return (line,)
    markers = [_BEGIN if each in b"Bb" else _END for each in _MARKER.findall(found[0])]
    rest = found.string[found.end() :]
    if not rest:
        return markers
    # Text after an END marker belongs to no card, so this is not a line of markers.
    return [*markers, rest] if markers[-1] is _BEGIN else (line,)


class _Card:
    """Collects the lines of a card, grouped by property."""

    def __init__(self, number: int, line: int) -> None:
        self.number, self.line = number, line
        self.properties: list[list[bytes]] = []
        self.not_kept: list[str] = []
        """The names of skipped properties, which are binary or too large."""
        self.is_finished = False
        self._size = 0
        # The current property: its name and its lines. A skipped property keeps only its first line.
        self._name = b""
        self._lines: list[bytes] = []
        self._size_of_lines = 0
        self._is_left_out = self._is_soft = self._has_version = False

    @property
    def is_too_large(self) -> bool:
        return self._size > RECORD_BYTES

    @property
    def is_in_agent(self) -> bool:
        """True if the current property is AGENT, so that a card that begins now is its value."""
        return self._name.upper() == b"AGENT"

    def add(self, text: bytes) -> None:
        """Add a line. Lines after a fold or a soft line break, and lines without a name, continue the last property."""
        if not text:
            self._is_soft = False
            return
        found = _NAME.match(text)
        name = found[1].rpartition(b".")[2] if found else b""
        lines = self._lines
        if lines and (self._is_soft or text[0] in b" \t" or not self._begins_property(name, text)):
            self._size_of_lines += len(text) + 1
            self._is_left_out = self._is_left_out or self._size_of_lines > RECORD_BYTES
            if self._is_left_out:
                del lines[1:]
            else:
                lines.append(text)
        else:
            self._end_property()
            lines = self._lines = [text]
            self._name, self._size_of_lines = name, len(text) + 1
            is_binary = name.upper() in _BINARY and text.partition(b":")[2][:4].lower() != b"http"
            self._is_left_out = is_binary or self._size_of_lines > RECORD_BYTES
        self._is_soft = text[-1:] == b"=" and b"QUOTED-PRINTABLE" in _head_of(lines[0])

    def _begins_property(self, name: bytes, text: bytes) -> bool:
        """Return False if `text` continues a value with line breaks that were not folded.

        In a note, "Paris: 2019" and "https://…" are text, so only names in capitals begin a property.
        """
        if self._name == b"NOTE":
            return name.isupper() or name[:2] in (b"X-", b"x-")
        return bool(name) or b":" in text

    def _end_property(self) -> None:
        if self._lines:
            self._size += len(self._name) + 1 if self._is_left_out else self._size_of_lines
            if not self.is_too_large and self._is_left_out:
                self.not_kept.append(self._name.decode(errors="replace").upper()[:MAX_LABEL])
            elif not self.is_too_large:
                self.properties.append(self._lines)

    def finish(self) -> None:
        self._end_property()
        self.is_finished = True

    def is_glued(self, text: bytes) -> bool:
        """Return True if `text` is the VERSION of a new card whose BEGIN is glued to the line before.

        Remove the glued markers from that line.
        """
        if text[:8].upper() != b"VERSION:":
            return False
        last = self._lines[-1] if self._lines and self._has_version else b""
        self._has_version = True
        if glued := _GLUED.search(last[-64:]):
            self._lines[-1] = last[: -len(glued[0])]
        return glued is not None


def _head_of(line: bytes) -> bytes:
    return line[:_HEAD_BYTES].partition(b":")[0].upper()


def _joined(lines: Sequence[bytes], is_21: bool) -> bytes:
    """Join lines split by folding (RFC 6350, 3.2), by soft line breaks (RFC 2045, 6.7) or by raw line breaks."""
    if len(lines) == 1:
        return lines[0]
    head = _head_of(lines[0])
    is_printable = b"QUOTED-PRINTABLE" in head
    # vCard 2.1 folds before existing white space, which belongs to the text.
    keeps_space = is_21 and b"BASE64" not in head and b"ENCODING=B" not in head
    joined = [lines[0]]
    for line in lines[1:]:
        is_fold = line[0] in b" \t"
        if is_printable and joined[-1][-1:] == b"=":
            joined[-1] = joined[-1][:-1]
            text = line[1:] if is_fold and _is_cut(joined[-1], line) else line
        elif is_fold:
            text = line if keeps_space else line[1:]
        else:
            text = _RAW_BREAK + line
        joined.append(text)
    return b"".join(joined)


def _is_cut(before: bytes, line: bytes) -> bool:
    """Return True if a soft line break splits a UTF-8 character: the white space after it is then part of a fold."""
    if line[1:2] != b"=":
        return False
    end = before[-12:]
    while end and not end.startswith(b"="):
        end = end[1:]
    try:
        binascii.a2b_qp(end).decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _read_card(card: _Card, readings: tuple[Reading, Reading]) -> ImportedContact | BadRow | NotAPerson:
    is_21 = any(lines[0].strip().upper() == b"VERSION:2.1" for lines in card.properties)
    try:
        text = _decode([_joined(lines, is_21) for lines in card.properties])
    except (UnicodeDecodeError, LookupError):
        detail = "It is not text in UTF-8, nor in a charset that it names. Name the file's: encoding=windows-1252, say."
        return BadRow(card.number, card.line, "charset", detail)
    reading = readings[f"PRODID:{PRODID}" in text]
    draft = Draft(card.number, card.line, not_kept=card.not_kept)
    if _Source(draft, text, reading, is_21).is_group:
        return NotAPerson(draft.row, draft.line, "KIND:group")
    return read_contact(draft, reading)


def _decode(card: Sequence[bytes]) -> list[str]:
    """Return the lines of a card as text. Raises UnicodeDecodeError or LookupError."""
    try:
        return b"\n".join(card).decode().split("\n")
    except UnicodeDecodeError:
        return [_decode_line(line) for line in card]


def _decode_line(line: bytes) -> str:
    """Decode a line as UTF-8, or else in its CHARSET. Raises UnicodeDecodeError or LookupError."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        charset = _property(line.decode("ascii", "replace"))[0].charset
        if not is_encoding(charset):
            raise
        return line.decode(charset)


class _Head(NamedTuple):
    """The part of a property before its value: name and parameters."""

    group: str
    name: str
    """In upper case, like the group."""
    label: str | None
    """The types, joined: `work fax`."""
    rank: int
    """The lowest rank is preferred."""
    encoding: str
    """QUOTED-PRINTABLE, BASE64 or B; empty for plain text."""
    charset: str
    types: frozenset[str]
    parameters: Mapping[str, str]
    """All parameters except types."""
    not_kept: tuple[str, ...]
    """The names of unknown parameters, as `NAME;PARAMETER`."""


def _property(line: str) -> tuple[_Head, str]:
    """Return the head and the value of a line."""
    head, _, value = line.partition(":")
    if '"' in head:
        # A quoted parameter may contain a colon.
        masked = '"'.join(text.translate(_MASKED) if n % 2 else text for n, text in enumerate(line.split('"')))
        if ":" in masked:
            head = masked.partition(":")[0]
            value = line[len(head) + 1 :]
    # Cache short heads: most cards have the same ones.
    return (_read_head if len(head) < 100 else _read_head.__wrapped__)(head), value


@lru_cache(maxsize=2048)
def _read_head(written: str) -> _Head:
    name, *pieces = written.split(";", _MAX_PARAMETERS)
    group, _, name = name.strip().upper().rpartition(".")
    words: list[str] = []
    others: dict[str, str] = {}
    custom = None
    for piece in pieces:
        key, _, text = piece.translate(_UNMASKED).partition("=")
        key, text = key.strip(), text.replace('"', "").strip()
        parameter = key.upper()
        if parameter.startswith("X-CUSTOM("):
            custom = _label_of_android(piece)
        elif not text:
            # vCard 2.1 writes types without TYPE=, and Outlook writes some as an empty parameter: COMPANY=.
            words.append(key.replace('"', ""))
        elif parameter in ("TYPE", "X-SERVICE-TYPE") or (parameter == "LABEL" and name != "ADR"):
            words += text.split(",")
        else:
            others.setdefault(parameter, text)
    types = frozenset(word.strip().upper() for word in words)
    labels = dict.fromkeys(_as_label(word) for word in words if word.upper().removeprefix("X-") not in _NO_LABELS)
    preference = others.get("PREF", "")
    rank = 101
    if preference.isdecimal() and len(preference) < 4:
        rank = int(preference)
    elif "PREF" in types:
        rank = 1
    rank += 200 * bool(types & {"FAX", "PAGER"}) + 400 * bool(name != "TEL" and types & _OTHERS)
    encoding = next((each for each in (others.get("ENCODING", "").upper(), *types) if each in _ENCODINGS), "")
    return _Head(
        group,
        name,
        custom or " ".join(labels) or None,
        rank,
        encoding,
        others.get("CHARSET", ""),
        types,
        others,
        tuple(f"{name};{key}"[:MAX_LABEL] for key in others if key not in _KNOWN_PARAMETERS),
    )


def _label_of_android(parameter: str) -> str:
    """Return the label from X-CUSTOM(CHARSET=UTF-8,ENCODING=QUOTED-PRINTABLE,=D0=94)."""
    *_, label = parameter.split(",", 2)
    return binascii.a2b_qp(label.removesuffix(")").encode()).decode(errors="replace")


def _as_label(word: str) -> str:
    """Return a type as a label. Custom types (X-…) keep their case."""
    if word.upper() == "CELL":
        return "mobile"
    if word.upper().startswith("X-EVOLUTION-"):
        return word[12:].lower()
    return word[2:] if word[:2].upper() == "X-" and len(word) > 2 else word.lower()


class _Source:
    """Fills `draft` from the lines of a card."""

    def __init__(self, draft: Draft, card: Sequence[str], reading: Reading, is_21: bool) -> None:
        self.draft, self._encoding = draft, reading.encoding
        self.is_ours, self.is_group = reading.is_ours, False
        self._is_21 = is_21
        properties = [_property(line) for line in card]
        # Labels by group. They are truncated because any number of properties can repeat the label of their group.
        self._labels: dict[str, str] = {}
        for head, value in properties:
            if head.name == "X-ABLABEL" and self._labels.setdefault(head.group, self._text(value)[:MAX_LABEL]) != value:
                self._check_label(head.group, self._text(value))
        self._unused = {group: label for group, label in self._labels.items() if label.strip()}
        self._whole_addresses: list[tuple[_Head, str]] = []
        for head, written in properties:
            value = self._decoded(head, written) if head.encoding else written
            draft.not_kept += head.not_kept
            if head.name == "NOTE":
                if value or self.is_ours:
                    draft.notes.append(self._text(value))
            elif head.name == "AGENT":
                draft.not_kept.append(head.name)
            elif value and not value.isspace() and head.name not in _TECHNICAL:
                self._read(head, value)
        self._read_whole_addresses()
        draft.said += (Said("other", "X-ABLABEL", label, "X-ABLABEL") for label in self._unused.values())

    def _check_label(self, group: str, label: str) -> None:
        """Count a label as not kept if it is truncated, or if its group already has another one."""
        if label != self._labels[group]:
            self.draft.not_kept.append("X-ABLABEL")

    def _read(self, head: _Head, value: str) -> None:
        draft, name = self.draft, head.name
        if name in _OWN:
            text = self._text(value)
            self._say(head, _number(text) if name == "TEL" else text)
        elif name == "N":
            self._read_name(value)
        elif name == "FN":
            if not self.is_ours:
                draft.full_names.append(self._text(value))
        elif name == "BDAY":
            self._read_date(head, "date_of_birth", None, value.strip())
        elif name == "UID":
            draft.uid = draft.uid or _uid(self._text(value).strip())
        elif name in _LABELS:
            draft.labels += self._items(value)
        elif name in _TEXTS and "X-DETAIL" not in head.parameters:
            draft.said.append(Said(_TEXTS[name], None, ", ".join(filter(None, self._components(value))), name))
        elif name == "NICKNAME":
            for nickname in self._items(value):
                self._say(head, nickname)
        elif name == "ORG":
            company, *departments = self._components(value)
            self._say(head, company)
            for department in departments:
                draft.said.append(Said("organization", "department", department, name))
        elif name in _KIND_OF_CARD and value.strip().lower() in ("group", "individual", "true", "false"):
            self.is_group = self.is_group or value.strip().lower() in ("group", "true")
        elif name == "ADR":
            self._say(head, self._address(head, value))
        elif name == "LABEL":
            self._whole_addresses.append((head, self._text(value)))
        elif name == "X-ANDROID-CUSTOM" and value.startswith(_ANDROID):
            self._read_android(value)
        elif name in _KINDS:
            kind, usual_label = _KINDS[name]
            if kind == "date":
                self._read_date(head, kind, self._label(head) or usual_label, self._text(value))
            else:
                self._say(head, self._text(value))
        elif name.startswith(_MESSAGING):
            service = name.removeprefix(_MESSAGING).removesuffix("-ALL").lower()
            draft.said.append(Said("account", service, self._text(value), name))
        elif name:
            draft.said.append(Said("other", name, self._text(value), name))
            if label := self._label_of_group(head.group):
                draft.said.append(Said("other", f"{name} label"[:MAX_LABEL], label, "X-ABLABEL"))

    def _read_date(self, head: _Head, kind: str, label: str | None, text: str) -> None:
        omitted, calendar = head.parameters.get("X-APPLE-OMIT-YEAR"), head.parameters.get("CALSCALE", "gregorian")
        if calendar.lower() != "gregorian":
            label = "date_of_birth" if kind == "date_of_birth" else label or kind
            self.draft.said.append(Said("other", label, f"{text} ({calendar})", head.name))
            detail = "The date is one of another calendar. It is kept in details."
            self.draft.warnings.append(Remark(label[:MAX_LABEL], "moved_to_details", detail))
            return
        text = f"--{text[5:]}" if omitted and text.startswith(f"{omitted}-") else text
        self.draft.said.append(Said(kind, label, text, head.name, NEVER_OWN * self.is_ours))

    def _read_android(self, value: str) -> None:
        """Read an Android row: its kind, the text, a type number, and a custom label if that number is 0."""
        row = self._components(value)
        what, text, type_, label = (*row, "", "", "")[:4]
        if not text.strip():
            return
        kind, labels = _ANDROIDS.get(what.removeprefix(_ANDROID), ("", {}))
        name = "X-ANDROID-CUSTOM"
        if kind == "date" and type_ == _ANDROID_BIRTHDAY:
            self.draft.said.append(Said("date_of_birth", None, text, name))
        elif kind:
            self.draft.said.append(Said(kind, label.strip() or labels.get(type_), text, name))
        else:
            self.draft.said.append(Said("other", name, self._text(value), name))

    def _address(self, head: _Head, value: str) -> str:
        """Return an address: its components, and lines of the LABEL parameter that contain other words."""
        parts = [part for part in self._components(value) if part.strip()]
        whole = _CARET.sub(lambda found: _CARETS[found[1]], head.parameters.get("LABEL", ""))
        said = _words(parts)
        return "\n".join([*parts, *(line for line in _LINE_BREAK.split(whole) if not said.issuperset(_words([line])))])

    def _read_whole_addresses(self) -> None:
        """Add addresses from LABEL properties (RFC 2426, 3.2.2) unless all of their words are in other addresses."""
        if self._whole_addresses:
            said = _words(said.text for said in self.draft.said if said.kind == "address")
            for head, text in self._whole_addresses:
                if not said.issuperset(_words([text])):
                    self.draft.said.append(Said("address", self._label(head), text, head.name))

    def _read_name(self, value: str) -> None:
        components = value.split(";") if "\\" not in value else _COMPONENT.findall(value)
        # Commas separate several names, except in vCard 2.1 and before a space, where they are text.
        texts = [
            " ".join(self._items(text)) if "," in text and ", " not in text and not self._is_21 else self._text(text)
            for text in components
        ]
        family, given, middle, prefix, suffix, *others = (*texts, "", "", "", "", "")
        if rest := " ".join(filter(None, others)):
            # RFC 9554 adds a secondary surname and a generation.
            self.draft.said.append(Said("other", "N", rest, "N"))
        if self.draft.names:
            self.draft.full_names.append(" ".join(filter(None, (prefix, given, middle, family, suffix))))
        else:
            self.draft.names = {"last_name": family, "first_name": given}
            # Cards that we wrote repeat the prefix and the suffix as details.
            if not self.is_ours:
                self.draft.names |= {"middle_name": middle, "prefix": prefix, "suffix": suffix}

    def _say(self, head: _Head, text: str) -> None:
        kind, usual_label = _KINDS[head.name]
        rank = head.rank
        if self.is_ours:
            rank = 0 if _OWN.get(head.name) in head.types else NEVER_OWN
        self.draft.said.append(Said(kind, self._label(head) or usual_label, text, head.name, rank))

    def _label(self, head: _Head) -> str | None:
        if head.group and (named := self._label_of_group(head.group)):
            return apples[1] if (apples := _APPLES.fullmatch(named)) else named
        return head.label

    def _label_of_group(self, group: str) -> str | None:
        self._unused.pop(group, None)
        return self._labels.get(group)

    def _decoded(self, head: _Head, value: str) -> str:
        """Decode a quoted-printable or base64 value to text."""
        is_printable = head.encoding == "QUOTED-PRINTABLE"
        try:
            content = (binascii.a2b_qp if is_printable else binascii.a2b_base64)(value.encode())
        except binascii.Error:
            content = value.encode()
        is_known = is_encoding(head.charset)
        named = head.charset if is_known else self._encoding
        try:
            return content.decode(named)
        except UnicodeDecodeError:
            pass
        if not is_printable:
            # Binary data, such as a picture.
            self.draft.not_kept.append(head.name)
            return ""
        read_as = named if is_known else "WINDOWS-1252"
        detail = f"Its bytes are not text in {named}: they were read as {read_as.lower()}. Name another with encoding=."
        self.draft.warnings.append(Remark(head.name, "not_text", detail))
        return content.decode(read_as, "replace")

    def _text(self, value: str) -> str:
        if "\\" not in value:
            return value
        # In vCard 2.1, \n is not an escape: a line break is =0D=0A.
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


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _WORD.findall(text)}


def _unescaped(value: str) -> str:
    return _ESCAPE.sub(lambda escape: "\n" if escape[1] in "nN" else escape[1], value)


def _uid(value: str) -> str:
    """Return a UID without the prefix urn:uuid:, and then in lower case. Case is insignificant there (RFC 4122, 3)."""
    return value[9:].lower() if value[:9].lower() == "urn:uuid:" else value


def _number(value: str) -> str:
    """Strip the scheme and the parameters of a tel URI (RFC 3966) from a number, but keep the extension."""
    if value[:4].lower() != "tel:":
        return value
    number, *parameters = value[4:].split(";")
    extensions = [f" ext {each[4:]}" for each in parameters if each[:4].lower() == "ext="]
    return number + "".join(extensions[:1])


def unparse(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return `rows` as vCards. Each row must have a `vcard_uid` and all fields of a contact."""
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
    """Yield the lines of details. A detail whose label is not a TYPE gets its own group with an X-ABLabel."""
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
                # It is already written in the line of its organization.
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
            # Keep semicolons and commas unescaped: only a program that knows the property knows its components.
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
    """Return the TYPE parameter for a label, or an empty string if a word of the label is not a TYPE."""
    words = (label or "").split(" ")
    return f";TYPE={','.join(_TYPES[word] for word in words)}" if all(word in _TYPES for word in words) else ""
