"""Turn a draft (the text of a CSV row or a vCard) into a valid contact, by the rules of `ContactFields`.

No value is dropped silently. A value that is invalid for its field is repaired if the repair is obvious. Otherwise it
becomes a detail. Values that do not fit into the details are counted in `not_kept`.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from contacts_api.contacts.fields import (
    DETAIL_CHARACTERS,
    DETAILS_BYTES,
    KINDS,
    MAX_DETAILS,
    MAX_LABELS,
    check_date,
    digits_of,
    distinct,
    is_number,
    size_of,
)
from contacts_api.contacts.models import ABOUT, FIELD_OF_KIND, FIELDS, ContactFields
from contacts_api.features.exchange.dates import DateOrder, read_date
from contacts_api.features.exchange.files import RECORD_BYTES
from contacts_api.http.field_errors import code_and_detail
from contacts_api.text import NOTE_CHARACTERS, Label, check_address, fold, is_plain_address


@dataclass(frozen=True, slots=True)
class Remark:
    """A remark on a field of a row, or on the whole row if `field` is None."""

    field: str | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class BadRow:
    """The error of a row that cannot be imported. Other rows are not affected."""

    row: int
    line: int
    code: str
    detail: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class NotAPerson:
    """A row that is not a person, such as a group. `name` says what it is, for `not_kept`."""

    row: int
    line: int
    name: str


@dataclass(slots=True)
class ImportedContact:
    """A contact from a file. `fields` contains all fields of a contact, each valid or None."""

    row: int
    line: int
    uid: str | None
    fields: dict[str, Any]
    warnings: Sequence[Remark]
    not_kept: Sequence[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """Options for reading a file."""

    last_date_of_birth: date
    date_order: DateOrder = "mdy"
    is_ours: bool = False
    label: str | None = None
    """A label that is added to every contact."""
    encoding: str = "UTF-8"
    """The encoding of quoted-printable and base64 values in vCards that have no CHARSET."""


class Said(NamedTuple):
    """A value from the file. `kind` is a field or a kind of detail; `name` is the column or property."""

    kind: str
    label: str | None
    text: str
    name: str
    rank: int = 0
    """Among values of one kind, the one with the lowest rank goes into the field. The others become details."""


@dataclass(slots=True)
class Draft:
    """The content of a row or a card, as text that is not validated yet."""

    row: int
    line: int
    names: dict[str, str] = field(default_factory=dict)
    """Keys: `first_name`, `middle_name`, `last_name`, `prefix` and `suffix`."""
    full_names: list[str] = field(default_factory=list)
    uid: str | None = None
    said: list[Said] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    not_kept: list[str] = field(default_factory=list)
    warnings: list[Remark] = field(default_factory=list)


STANDARD_LABELS = frozenset({"home", "work", "mobile", "main", "other", "fax", "pager", "phone", "email", "smtp", "ex"})
NEVER_OWN = 1000
"""The rank of a value that always becomes a detail, even if the field is empty."""
MAX_LABEL, MAX_UID = 64, 255
_TYPES = {name: hint for name, hint in get_type_hints(ContactFields, include_extras=True).items() if name in FIELDS}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(hint) for name, hint in _TYPES.items()}
_LABEL: TypeAdapter[str] = TypeAdapter(Label)
# The fields with a single value. One call validates all of them.
_SINGLE = {name: hint for name, hint in _TYPES.items() if name not in ("labels", "details")}
_VALID: TypeAdapter[dict[str, Any]] = TypeAdapter(TypedDict("ImportedFields", _SINGLE))  # type: ignore[operator]  # fields known at run time
# Fields added to the model that hold the organization.
_ORGANIZATIONS = [name for name, about in ABOUT.items() if about.vcard == "ORG"]
_NAMELESS = "A name, a nickname, an organization, an e-mail address or a phone number is needed."

# Phones write numbers with invisible direction marks, typographic spaces and hyphens, and full-width signs.
_PHONE_SIGNS = dict.fromkeys([*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF])
_PHONE_SIGNS |= {0xA0: " ", 0x2007: " ", 0x2009: " ", 0x202F: " ", **dict.fromkeys(range(0x2010, 0x2016), "-")}
_PHONE_SIGNS |= {0x2212: "-", 0xFF0B: "+", 0xFF08: "(", 0xFF09: ")", 0xFF0D: "-", 0x3000: " "}
# Separators of phone numbers in one text, in the order in which they are tried.
_BETWEEN_NUMBERS = [
    re.compile(between)
    for between in (
        r"[\n\t]",
        r"[;|]",
        r"(?<!,),(?!,)",
        r"\s(?:&|or|and|oder|und|ou|et|o|y|e|lub|i|або|та|или|и|of|en)\s",
    )
]
_MAY_BE_TWO = re.compile(r"[\n\t;|,/&]|\s(?:[^\W\d_]+)\s")
# A number with pauses and digits to dial after them, such as a conference code.
_WITH_CODE = re.compile(r"\+[^;,]*+[;,]+[0-9*#]+")
_NOTE_BESIDE = re.compile(r"(.*[0-9)#])\s*+\(([^()0-9]{1,64})\)", re.DOTALL)
_EXTENSION = re.compile(
    r"\b(?:extension|extn?|durchwahl|poste|int|interno|wewn?|доб|дод|вн|toestel)\b[.:]*+\s*+", re.IGNORECASE
)
_PAUSES = re.compile(r"(?<=[0-9])([pw])(?=[0-9])", re.IGNORECASE)
# A piece with fewer digits is an extension or an area code, not a number. The minimum is higher beside a slash, because
# Germans write a slash after the area code: 034441/392334.
_DIGITS_OF_A_NUMBER, _DIGITS_BESIDE_A_SLASH = 6, 9
# Spreadsheets may store a phone number as a float: 491721234567.0.
_FLOAT = re.compile(r"\+?[0-9]{6,}\.0{1,2}")
# Longer texts are not searched for several addresses or numbers. At most _MAX_CHECKED values are validated per contact.
_PARTED_CHARACTERS, _MAX_CHECKED = 2000, 200
# How much of a full name is compared with the parts of the name.
_COMPARED_CHARACTERS = 300
_BETWEEN_ADDRESSES = re.compile(r"[\s<>,;:|()\[\]\"]+")
# At most this many full names are compared with the parts of the name.
_MAX_FULL_NAMES = 10
_AROUND_AT = re.compile(r"(?<=[^\s])\s{1,3}@\s{0,3}|@\s{1,3}")
_QUOTES = str.maketrans("", "", "<>()[]\"',;:|")
_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_TURNS_AROUND = re.compile("[\u202a-\u202e\u2066-\u2069]")
_WORD = re.compile(r"[^\s,.;:()\[\]<>\"'-]+")
_ISO_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_KEPT = "It is kept in details."
_NOTHING = dict.fromkeys(_SINGLE)


def too_large(row: int, line: int) -> BadRow:
    return BadRow(row, line, "record_too_large", f"A contact may take at most {RECORD_BYTES:,} bytes.")


def read_contact(draft: Draft, reading: Reading) -> ImportedContact | BadRow:
    """Return the contact for a draft, or a BadRow if the draft has nothing to use as a name."""
    found = _plain(draft)
    fields = read_plainly(found, reading) if found else None
    if fields is None or (draft.uid and not is_uid(draft.uid)):
        return _Reader(draft, reading).read()
    return ImportedContact(draft.row, draft.line, draft.uid, fields, draft.warnings, draft.not_kept)


def _plain(draft: Draft) -> dict[str, str] | None:
    """Return the texts of a simple draft by field, or None if the draft is not simple.

    A simple draft has at most one value for each field, no other values, and only standard labels.
    """
    found = {part: text for part, text in draft.names.items() if text}
    full_name = " ".join(found[part] for part in ("first_name", "last_name") if part in found)
    if draft.labels or draft.full_names not in ([], [full_name]) or not found.keys() <= _ADAPTERS.keys():
        return None
    for kind, label, text, _, rank in draft.said:
        name = FIELD_OF_KIND.get(kind, kind)
        if rank >= NEVER_OWN or name in found or name not in _ADAPTERS:
            return None
        if label and not _is_standard(label):
            return None
        found[name] = text
    if draft.notes:
        found["additional_info"] = "\n".join(draft.notes)
    return found


def read_plainly(found: dict[str, str], reading: Reading) -> dict[str, Any] | None:
    """Return the fields of a contact from texts by field, or None if a text needs a repair or is invalid.

    Most contacts take this fast path. It validates all values in one call, in a third of the time of `_Reader`.
    """
    # Two numbers in one text, and a number written as a float, would pass validation. Two addresses would not.
    number = found.get("phone_number", "")
    if _MAY_BE_TWO.search(number) or _FLOAT.fullmatch(number):
        return None
    if (text := found.get("date_of_birth")) and not (reading.is_ours and _ISO_DATE.fullmatch(text)):
        date_read = read_date(text, reading.date_order, reading.last_date_of_birth)
        if not date_read or date_read.startswith("--"):
            return None
        found["date_of_birth"] = date_read
    if reading.label or "first_name" not in found:
        return None
    try:
        fields = _VALID.validate_python(
            {**_NOTHING, **found}, context={"last_date_of_birth": reading.last_date_of_birth}
        )
    except ValidationError:
        return None
    if fields["date_of_birth"]:
        fields["birthday"] = found["date_of_birth"][5:]
    fields["labels"], fields["details"] = [], []
    return fields


def _is_standard(label: str) -> bool:
    """Return True if all words of a label are standard labels, such as "home"."""
    return STANDARD_LABELS.issuperset(label.lower().split())


def is_uid(text: str) -> bool:
    return len(text) <= MAX_UID and not _CONTROLS.search(text)


class _Reader:
    """Turns one draft into a contact: the slow path, for all drafts that are not simple."""

    def __init__(self, draft: Draft, reading: Reading) -> None:
        self._draft, self._reading = draft, reading
        self._details: list[dict[str, Any]] = []
        # For each detail, the column or property that it comes from.
        self._said_as: list[str] = []
        self._seen: set[tuple[str, str]] = set()
        self._size = self._checked = 0
        self._fields: dict[str, Any] = dict.fromkeys(FIELDS)

    def read(self) -> ImportedContact | BadRow:
        draft, fields = self._draft, self._fields
        own: dict[str, tuple[int, int]] = {}
        for said in draft.said:
            if said.kind in FIELD_OF_KIND:
                self._keep(said, own)
            elif said.kind in KINDS:
                self._add(said.kind, said.label, said.text, said.name)
            elif said.kind in ("date_of_birth", "birthday"):
                self._read_birthday(said)
            else:
                self._read_field(said)
        for name, (_, index) in sorted(own.items(), key=lambda each: -each[1][1]):
            detail = self._details.pop(index)
            said_as = self._said_as.pop(index)
            fields[name] = detail["value"]
            # A field has no label. Drop standard labels; keep custom ones as a detail.
            if detail["label"] and not _is_standard(detail["label"]):
                self._add("other", f"{name} label", detail["label"], said_as)
        if not draft.names.get("first_name", "").strip():
            self._name_by_another()
        if "first_name" in draft.names:
            self._read_names()
        if not fields["first_name"]:
            return BadRow(draft.row, draft.line, "missing", _NAMELESS, "first_name")
        self._read_notes()
        labels = distinct([label for text in draft.labels if (label := self._read_label(text))])
        if self._reading.label:
            labels = distinct([*labels[: MAX_LABELS - 1], self._reading.label, *labels[MAX_LABELS - 1 :]])
        draft.not_kept += ["labels"] * len(labels[MAX_LABELS:])
        fields["labels"] = labels[:MAX_LABELS]
        if born := fields["date_of_birth"]:
            day, fields["birthday"] = fields["birthday"], f"{born:%m-%d}"
            if day not in (None, fields["birthday"]) and not self._reading.is_ours:
                self._add("other", "birthday", day, "birthday")
        uid = draft.uid
        if uid and not is_uid(uid):
            self._add("other", "UID", uid, "UID")
            uid = None
        fields["details"] = self._details[:MAX_DETAILS]
        draft.not_kept += self._said_as[MAX_DETAILS:]
        return ImportedContact(draft.row, draft.line, uid, fields, draft.warnings, draft.not_kept)

    def _valid(self, name: str, text: str) -> Any:
        """Return the value of a field. Raises ValidationError."""
        return _ADAPTERS[name].validate_python(text, context={"last_date_of_birth": self._reading.last_date_of_birth})

    def _keep(self, said: Said, own: dict[str, tuple[int, int]]) -> None:
        """Add a value as a detail. `own` maps each field to the rank and index of the best detail for it so far."""
        name, is_ours = FIELD_OF_KIND[said.kind], self._reading.is_ours
        label = said.label
        # Limit the number of validations: one address can take a millisecond.
        self._checked += 1 + said.text.count("@", 0, _PARTED_CHARACTERS)
        if self._is_full() or self._checked > _MAX_CHECKED:
            self._draft.not_kept.append(said.name)
            return
        if is_ours:
            pieces = [said.text]
        elif said.kind == "email":
            pieces, beside = _addresses_in(said.text)
            if beside.lower() in STANDARD_LABELS:
                label = label or beside.lower()
            elif beside:
                self._draft.full_names.append(beside)
        else:
            text = said.text
            if text[-1:] == ")" and (note := _NOTE_BESIDE.fullmatch(text)):
                text, label = note[1], " ".join(filter(None, (label, note[2].strip())))
            pieces = _numbers_in(text)
        for text in pieces:
            if self._is_full():
                self._draft.not_kept.append(said.name)
                continue
            try:
                value = self._valid(name, text if is_ours else _mended(said.kind, text))
            except ValidationError as error:
                self._refuse(name, text, error, said.name)
                if label and not _is_standard(label):
                    self._add("other", f"{name} label", label, said.name)
                continue
            if not is_ours and (said.kind, value) in self._seen:
                continue
            is_kept = self._append(said.kind, label, value, said.name)
            if is_kept and said.rank < own.get(name, (NEVER_OWN, 0))[0]:
                own[name] = (said.rank, len(self._details) - 1)

    def _is_full(self) -> bool:
        # Each field in FIELD_OF_KIND takes one value from the details later, so allow that many more.
        return len(self._details) >= MAX_DETAILS + len(FIELD_OF_KIND)

    def _append(self, kind: str, label: str | None, value: str, said_as: str) -> bool:
        """Append a detail, or count it as not kept if it does not fit. Return True if it was appended."""
        if label:
            label = self._on_one_line(label[: 4 * MAX_LABEL])
            if len(label) > MAX_LABEL:
                self._draft.not_kept.append(f"label of {said_as}"[:MAX_LABEL])
            label = label[:MAX_LABEL].strip()
        detail = {"kind": kind, "label": label or None, "value": value}
        size = self._size + size_of(detail)
        if size > DETAILS_BYTES:
            self._draft.not_kept.append(said_as)
            return False
        self._size = size
        self._details.append(detail)
        self._said_as.append(said_as)
        self._seen.add((kind, value))
        return True

    def _read_birthday(self, said: Said) -> None:
        if self._is_full():
            self._draft.not_kept.append(said.name)
            return
        text = said.text.strip()
        if self._reading.is_ours and said.kind == "birthday":
            text = f"--{text}"
        found: str | None
        if self._reading.is_ours and _ISO_DATE.fullmatch(text):
            found = text
        else:
            found = read_date(_ascii_digits(text), self._reading.date_order, self._reading.last_date_of_birth)
        if found == "":
            return
        name = "birthday" if found and found.startswith("--") else "date_of_birth"
        if self._fields[name] is not None:
            if found != str(self._fields[name]):
                self._add("other", name, text, said.name)
            return
        try:
            self._fields[name] = self._valid(name, (found or text).removeprefix("--"))
        except ValidationError as error:
            self._refuse("date_of_birth", text, error, said.name)

    def _read_field(self, said: Said) -> None:
        """Set a field to its first valid value. Later values that differ become details."""
        name = said.kind
        if (before := self._fields.get(name)) is not None:
            if said.text.strip() != str(before):
                self._add("other", name, said.text, said.name)
            return
        try:
            self._fields[name] = self._valid(name, said.text)
        except ValidationError as error:
            try:
                self._fields[name] = self._valid(name, _one_line(said.text))
            except ValidationError:
                self._refuse(name, said.text, error, said.name)

    def _refuse(self, name: str, text: str, error: ValidationError, said_as: str) -> None:
        """Keep a value that is invalid for its field as a detail, with a warning."""
        rule = code_and_detail(error.errors(include_url=False, include_input=False)[0])[1]
        if self._add("other", name, text, said_as):
            self._draft.warnings.append(Remark(name, "moved_to_details", f"{rule} {_KEPT}"))

    def _add(self, kind: str, label: str | None, text: str, said_as: str) -> bool:
        """Add a detail, split if it is too long for one. Return True if anything was added."""
        is_clean = self._reading.is_ours and not _CONTROLS.search(text)
        text = text.strip() if is_clean else _clean(text)
        if not text:
            return False
        if self._is_full():
            self._draft.not_kept.append(said_as)
            return False
        if kind == "date" and not (self._reading.is_ours and _is_date(text)):
            # The date may be in the future, for example a wedding.
            last = date(self._reading.last_date_of_birth.year, 12, 31)
            found = read_date(text, self._reading.date_order, last)
            if found == "":
                return False
            if found is None:
                detail = f"It is no date that can be told. {_KEPT}"
                self._draft.warnings.append(Remark(said_as, "moved_to_details", detail))
            kind, label, text = ("date", label, found) if found else ("other", label or "date", text)
        return sum(self._append(kind, label, piece, said_as) for piece in _cut(text, DETAIL_CHARACTERS)) > 0

    def _read_label(self, text: str) -> str | None:
        text = self._on_one_line(text).strip()
        try:
            return _LABEL.validate_python(text) if text else None
        except ValidationError as error:
            self._refuse("labels", text, error, "labels")
            return None

    def _on_one_line(self, text: str) -> str:
        return text if self._reading.is_ours and not _CONTROLS.search(text) else _one_line(text)

    def _name_by_another(self) -> None:
        """Fill a missing first name from another value, with a warning if that is an address or a phone number."""
        names, fields = self._draft.names, self._fields
        nickname, last_name = self._first_of("nickname"), names.get("last_name", "").strip()
        if name := names.get("middle_name", "").strip():
            names["middle_name"] = ""
        elif last_name:
            name = nickname or last_name
            names["last_name"] = last_name if nickname else ""
        else:
            # Some programs write the e-mail address as the full name of a contact without a name: skip it.
            values = {value.lower() for _, value in self._seen}
            full_names = (
                each for each in self._draft.full_names if each.strip() and each.strip().lower() not in values
            )
            organization = self._first_of("organization") or next(filter(None, map(fields.get, _ORGANIZATIONS)), "")
            name = next(full_names, "") or nickname or organization
        if not name and (name := fields["email"] or fields["phone_number"] or ""):
            what = "e-mail address" if fields["email"] else "phone number"
            detail = f"There is no name: the contact goes by its {what}."
            self._draft.warnings.append(Remark("first_name", "without_a_name", detail))
        if name:
            names["first_name"] = name

    def _first_of(self, kind: str) -> str:
        return next((str(detail["value"]) for detail in self._details if detail["kind"] == kind), "")

    def _read_names(self) -> None:
        """Set `first_name` and `last_name`.

        A middle name is appended to the first name if it fits. The prefix and the suffix become details.
        """
        names, draft = self._draft.names, self._draft
        first, middle = names.get("first_name", ""), names.get("middle_name", "").strip()
        if middle and len(first) + len(middle) < 100:
            first = f"{first} {middle}"
        elif middle:
            self._add("other", "middle name", middle, "middle_name")
        for name, text in (("first_name", first), ("last_name", names.get("last_name", ""))):
            if text and not text.isspace():
                self._fields[name] = self._read_name(name, text)
        if self._fields["first_name"] is None and self._fields["last_name"]:
            self._fields |= {"first_name": self._fields["last_name"], "last_name": None}
        for part in ("prefix", "suffix"):
            self._add("other", f"name {part}", names.get(part, ""), f"name {part}")
        if draft.full_names:
            self._read_full_names()

    def _read_name(self, name: str, text: str) -> str | None:
        try:
            return str(self._valid(name, text))
        except ValidationError as error:
            tidy = _one_line(text)
            if len(tidy) > 100:
                self._refuse(name, tidy, error, name)
                tidy = tidy[:100].strip()
            try:
                return str(self._valid(name, tidy))
            except ValidationError:
                return None

    def _read_full_names(self) -> None:
        """Keep full names as details if they contain words that are not in the name parts or e-mail addresses."""
        parts = [*self._draft.names.values(), self._fields["first_name"] or "", self._fields["last_name"] or ""]
        full_names = [each for each in self._draft.full_names if each != f"{parts[-2]} {parts[-1]}"]
        if not full_names:
            return
        known = {word for part in parts for word in _WORD.findall(fold(part[:_COMPARED_CHARACTERS]))}
        addresses = [fold(value) for kind, value in self._seen if kind == "email"]
        for n, full_name in enumerate(full_names):
            text = fold(full_name[:_COMPARED_CHARACTERS])
            if n < _MAX_FULL_NAMES and len(full_name) <= _COMPARED_CHARACTERS:
                for address in addresses:
                    text = text.replace(address, " ")
                if _says_only(text, known):
                    continue
            self._add("other", "full name", full_name, "full name")
            if n < _MAX_FULL_NAMES:
                known.update(_WORD.findall(text))

    def _read_notes(self) -> None:
        notes = self._draft.notes
        if not notes:
            return
        text = "\n".join(notes)
        if not self._reading.is_ours:
            text = _CONTROLS.sub(" ", _BREAKS.sub("\n", text))
        try:
            self._fields["additional_info"] = self._valid("additional_info", text)
        except ValidationError as error:
            text = _CONTROLS.sub(" ", _BREAKS.sub("\n", text))
            self._fields["additional_info"] = text[:NOTE_CHARACTERS]
            self._refuse("additional_info", text[NOTE_CHARACTERS:], error, "additional_info")


def _says_only(text: str, known: Collection[str]) -> bool:
    """Return True if a folded name contains only known words.

    Some scripts write no spaces between words, so known words are also removed from the text as substrings.
    """
    if all(word in known for word in _WORD.findall(text)):
        return True
    if text.isascii():
        return False
    for word in sorted(known, key=len, reverse=True):
        text = text.replace(word, "")
    return not _WORD.search(text)


def _is_date(text: str) -> bool:
    try:
        return bool(check_date(text))
    except PydanticCustomError:
        return False


def _addresses_in(text: str) -> tuple[list[str], str]:
    """Return the e-mail addresses in a text, and the rest of the text.

    If one address is invalid, return the valid ones plus the whole text, so that the context of the typo is kept.
    """
    if is_plain_address(text) or len(text) > _PARTED_CHARACTERS:
        return [text], ""
    words = _BETWEEN_ADDRESSES.split(_AROUND_AT.sub("@", text))
    addresses = [word for word in words if "@" in word]
    valid = [address for address in addresses if _is_address(_mended("email", address))]
    if not addresses or len(valid) < len(addresses):
        return [*valid, text], ""
    beside = [word for word in words if "@" not in word and word.lower() != "mailto"]
    return valid, " ".join(" ".join(beside).translate(_QUOTES).split())


def _is_address(text: str) -> bool:
    try:
        check_address(text)
    except PydanticCustomError:
        return False
    return True


def _numbers_in(text: str) -> list[str]:
    """Return the phone numbers in a text. It is split only if every piece is long enough to be a number."""
    if len(text) > _PARTED_CHARACTERS or not _MAY_BE_TWO.search(text) or _WITH_CODE.fullmatch(text):
        return [text]
    for between in _BETWEEN_NUMBERS:
        pieces = [piece for each in between.split(text) if (piece := each.strip())]
        if len(pieces) > 1 and all(len(digits_of(_ascii_digits(each))) >= _DIGITS_OF_A_NUMBER for each in pieces):
            return [number for piece in pieces for number in _numbers_in(piece)]
    pieces = [piece.strip() for piece in text.split("/")]
    is_whole = all(len(digits_of(_ascii_digits(each))) >= _DIGITS_BESIDE_A_SLASH for each in pieces)
    return pieces if is_whole else [text]


def _mended(kind: str, text: str) -> str:
    """Return an e-mail address or a phone number with common mistakes repaired."""
    text = text.strip().strip("'")
    if kind == "email":
        return text
    text = text if text.isascii() else _ascii_digits(text.translate(_PHONE_SIGNS))
    text = text[4:] if text[:4].lower() == "tel:" else text
    if _FLOAT.fullmatch(text):
        text = text.partition(".")[0]
    if is_number(text):
        return text
    # Phones write p for a pause, and w to wait until a key is pressed.
    text = _PAUSES.sub(lambda pause: "," if pause[1] in "pP" else ";", text)
    return _EXTENSION.sub("ext ", text)


def _ascii_digits(text: str) -> str:
    """Return a text with the digits of all scripts replaced by ASCII digits."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in text)


def _clean(text: str) -> str:
    """Return a text without control characters and with line feeds as line breaks, as details require."""
    if not text.isprintable():
        text = _CONTROLS.sub(" ", _BREAKS.sub("\n", text))
    return text.strip()


def _cut(text: str, size: int) -> list[str]:
    """Split a text into pieces of at most `size` characters."""
    return [piece for start in range(0, len(text), size) if (piece := text[start : start + size].strip())]


def _one_line(text: str) -> str:
    """Return a text on one line, without control characters and bidirectional overrides, as names require."""
    return " ".join(_CONTROLS.sub(" ", _TURNS_AROUND.sub("", text)).split())
