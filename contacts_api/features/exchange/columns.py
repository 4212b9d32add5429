"""Map the columns of a CSV file to fields, by the names in names.toml or by the mapping in the request."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import chain, dropwhile, takewhile

from contacts_api.contacts.fields import KINDS
from contacts_api.contacts.models import ABOUT, FIELD_OF_KIND, FIELDS, ContactFields
from contacts_api.features.exchange.dates import NAMES
from contacts_api.http.bodies import parse_json
from contacts_api.problems import Invalid, InvalidJSON
from contacts_api.text import fold

NOT_KEPT, UNKNOWN, CHOICE, GROUP = "not_kept", "unknown", "choice", "group"
# Values of a choice column that mean "no choice".
NO_CHOICES = frozenset(NAMES["no_choices"])
NAME_PARTS = ("first_name", "middle_name", "last_name", "prefix", "suffix", "full_name")
# If a file has several values of a kind, the field takes the one whose label comes first here.
_FIRST_LABELS = ("main", "", "mobile", "home", "work")
_LAST_LABELS = ("fax", "pager")
# A file with all of these columns is one of our own exports: every version has written them.
_OURS = {*(name for name, field in ContactFields.model_fields.items() if field.is_required()), "additional_info"}
_NAMES_A_CONTACT = {"first_name", "last_name", "full_name", "nickname", "organization"}
_KINDS = {*KINDS, "department"}
# Kinds that may be combined with filler words without a meaning, such as "number" and "of".
_KINDS_WITH_FILLERS = {"email", "phone", "address", "url"}
_IDENTIFYING = {*_NAMES_A_CONTACT, "email", "phone"}
# All known names are shorter. Labels from further columns are ignored.
_MAX_CHARACTERS, _MAX_LABELS = 200, 3
_BRACKETS = re.compile(r"\([^()]*+\)|\[[^\[\]]*+\]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `meaning` is a part of a name, a field, a kind of detail, or one of the constants above."""

    index: int
    name: str
    meaning: str
    label: str
    group: str
    """Columns of one group form one value: the value and its label, or the parts of an address."""
    is_label: bool = False
    is_part: bool = False
    """True for a part of an address, such as a city; False for a whole address."""

    @property
    def key(self) -> str:
        return key_of(self.name)


class Header:
    """The header of a CSV file."""

    def __init__(self, cells: Sequence[str], mapping: Mapping[str, str | None]) -> None:
        self.width = len(cells)
        self.is_ours = not mapping and set(cells) >= _OURS
        self.columns = _told_apart([self._column(index, cell, mapping) for index, cell in enumerate(cells)], mapping)
        meanings = {column.meaning for column in self.columns}
        self.identifying = sum(column.meaning in _IDENTIFYING and not column.is_label for column in self.columns)
        self.unknown = [each.name for each in self.columns if each.meaning == UNKNOWN and cells[each.index].strip()]
        self.score = (self.identifying, self.width - len(self.unknown))
        self.has_names = bool(meanings & _NAMES_A_CONTACT)
        labels: dict[str, list[int]] = {}
        self.values: dict[str, list[int]] = {}
        for column in self.columns:
            (labels if column.is_label else self.values).setdefault(column.group, []).append(column.index)
        self.labels_of: dict[int, Sequence[int]] = {}
        """For each column with a value, the columns with its labels."""
        for group, indexes in labels.items():
            values = self.values[group]
            for place, index in enumerate(values):
                # If columns share a name, pair the first label with the first value, and so on.
                is_paired = len(indexes) == len(values) > 1
                self.labels_of[index] = [indexes[place]] if is_paired else indexes[:_MAX_LABELS]
        # "Name" means the last name if there is also a first name, and the first name if there is also a last name.
        halves = {"first_name", "last_name"} - meanings
        names = [each.name for each in self.columns if each.meaning == "full_name" and each.name not in mapping]
        is_half = any(key_of(name) in _NAME_ALONE for name in names)
        self.other_half = halves.pop() if is_half and len(halves) == 1 else ""
        births = {each.key for each in self.columns if each.meaning == "date_of_birth"}
        has_dates = bool(births & _ENGLISH_BIRTHS) or (not births and "date" in meanings)
        # With an English header, assume that the month comes first.
        keys = {each.key for each in self.columns if each.meaning not in ("date_of_birth", "date", UNKNOWN)}
        is_foreign = len(keys & _FOREIGN) >= max(1, len(keys & _ENGLISH))
        self.is_month_first = has_dates and not is_foreign

    def _column(self, index: int, cell: str, mapping: Mapping[str, str | None]) -> Column:
        name = cell.strip()[:_MAX_CHARACTERS] or f"column {index + 1}"
        if cell in mapping:
            return Column(index, name, _meaning_of(mapping[cell] or NOT_KEPT), "", name)
        if self.is_ours and cell in FIELDS:
            return Column(index, name, _meaning_of(cell), "", name)
        # Try the name with its brackets first: "Telefon (privat)" is known, "E-mail (if there is one)" is not.
        keys = [key_of(name), key_of(_BRACKETS.sub("", name))]
        key = keys[0] if _look_up(keys[0]) or _part_of_address(keys[0]) is not None else keys[1]
        stem, is_label = key, False
        for rest in _without_label_word(key):
            if _look_up(rest):
                stem, is_label = rest, True
        meaning, label = _look_up(stem) or (UNKNOWN, "")
        part = None if is_label else _part_of_address(key)
        if part is not None:
            meaning, label = "address", part
        number = "".join(filter(str.isdecimal, name))
        if meaning == "address" and (not key.startswith("address") or key == "address"):
            # The number counts the lines of an address, not addresses.
            number = ""
        group = f"{meaning} {label}{number}"
        return Column(index, name, meaning, label, group, is_label, is_part=part is not None)

    @staticmethod
    def rank(label: str) -> int:
        """Return the rank of a label. The value with the lowest rank goes into the field."""
        last = label.split()[-1:] or [""]
        if last[0] in _LAST_LABELS:
            return 200
        return _FIRST_LABELS.index(label) if label in _FIRST_LABELS else 100


def _told_apart(columns: list[Column], mapping: Mapping[str, str | None]) -> list[Column]:
    """Return the columns, with corrected meanings for names that depend on the other columns."""
    meanings = Counter(column.meaning for column in columns if not column.is_label)
    values = {column.group for column in columns if not column.is_label and column.meaning in _KINDS}
    # Outlook's "Title" means Dr. or Ms. if there is also a "Job Title". In French, both are "Titre".
    titles = [column for column in columns if column.meaning == "title" and key_of(column.name) in _TITLES]
    honorific = titles[0] if titles and meanings["title"] > 1 else None
    return [column if column.name in mapping else _beside(column, meanings, values, honorific) for column in columns]


def _beside(column: Column, meanings: Mapping[str, int], values: Collection[str], honorific: Column | None) -> Column:
    """Return a column with the meaning that it has beside the other columns.

    `meanings` counts the columns of each meaning, and `values` contains the groups that have a column with a value.
    """
    meaning, label = column.meaning, column.label
    if column.is_label and column.group not in values:
        # A label without a value, such as "Contact Type", is not a label.
        return replace(column, meaning=UNKNOWN, is_label=False)
    if meaning == "date_of_birth" and meanings["birth_month"]:
        # Beside a month of birth, "Birth Day" is the day, not the birthday.
        meaning = "birth_day"
    elif meaning == "date_of_birth" and meanings[meaning] > 1 and key_of(column.name) in _ANNIVERSARIES:
        # "Aniversário" is a birthday in Portuguese, and "aniversario" an anniversary in Spanish.
        meaning, label = "date", "anniversary"
    elif column is honorific:
        meaning = "prefix"
    return replace(column, meaning=meaning, label=label)


def _meaning_of(name: str) -> str:
    """Return the meaning of a column for a field, a part of a name or a kind of detail."""
    return (ABOUT[name].kind if name in ABOUT else None) or name


@lru_cache(maxsize=4096)
def key_of(name: str) -> str:
    """Return the key for looking up the name of a column: its letters only, folded."""
    return "".join(filter(str.isalpha, fold(name[:_MAX_CHARACTERS])))


def read_columns(text: str | None) -> dict[str, str | None]:
    """Parse the `columns` of an import: a JSON object from names of columns to fields or null. Raises Invalid."""
    if not text:
        return {}
    try:
        columns = parse_json(text.encode())
    except InvalidJSON:
        columns = None
    # A column can be mapped to a field or to a meaning in names.toml, but not to `details`, which has many values.
    known = [name for name in dict.fromkeys((*FIELDS, *NAMES["columns"])) if name != "details"]
    if isinstance(columns, dict) and all(meaning is None or meaning in known for meaning in columns.values()):
        return columns
    detail = f"Must be a JSON object from names of columns to null or one of {', '.join(known)}."
    raise Invalid.field("body", "columns", code="malformed", detail=detail)


def table_of_columns() -> str:
    """Return the table of known columns for the documentation, in Markdown: the first names of each in names.toml."""
    lines = [
        "Columns are known by these names and others, in English, German, French, Spanish, Italian, Portuguese,",
        "Polish, Ukrainian, Russian and Dutch; case, accents, spaces, hyphens and numbers do not matter. The values of",
        "other columns are kept in `details`. If no column is a name, say in `columns` what they mean.",
        "",
        "| columns, for example | become |",
        "|---|---|",
    ]
    for meaning, names in NAMES["columns"].items():
        if meaning.startswith("birth_"):
            continue
        labelled = [name for others in NAMES["labelled"].get(meaning, {}).values() for name in others[:1]]
        place = f"`{meaning}`" if meaning in FIELDS else f"a detail `{meaning}`"
        if meaning in NAME_PARTS and meaning not in FIELDS:
            place = "a part of `first_name` or `last_name`"
        elif meaning == "department":
            place = "a detail `organization` with the label `department`"
        if meaning in FIELD_OF_KIND:
            place = f"`{FIELD_OF_KIND[meaning]}`, further ones a detail `{meaning}`"
        lines.append(f"| {', '.join([*names[:3], *labelled])} | {place} |")
    return "\n".join([*lines, "| street, city, postal code, country, … | a detail `address` |"])


def _keys(names: Iterable[str]) -> list[str]:
    return [key_of(name) for name in names]


@cache
def _known() -> dict[str, tuple[str, str]]:
    """Return the meaning and the label of each known name. Names set on a field take precedence over names.toml."""
    known: dict[str, tuple[str, str]] = {}
    for name, about in ABOUT.items():
        for key in _keys((name, *about.columns)):
            known.setdefault(key, (about.kind or name, ""))
    # A birthday column may contain dates with or without a year.
    known["birthday"] = ("date_of_birth", "")
    for meaning, names in (*NAMES["columns"].items(), *NAMES["elsewhere"].items(), *NAMES["ignored"].items()):
        for key in _keys(names):
            known.setdefault(key, (meaning, ""))
    for kind, labels in NAMES["labelled"].items():
        for label, names in labels.items():
            for key in _keys(names):
                known.setdefault(key, (kind, label))
    return known


_ANNIVERSARIES = frozenset(_keys(NAMES["labelled"]["date"]["anniversary"]))
_NAME_ALONE = ("name", "naam")
_ENGLISH_BIRTHS = frozenset(_keys(NAMES["columns"]["date_of_birth"]))
# In names.toml, English names come first, then German ones, whose nouns are capitalized.
_GERMAN = re.compile("[A-Z][a-z]")


def _is_english(name: str) -> bool:
    return name.isascii() and not _GERMAN.search(name)


_ENGLISH = frozenset(_keys(chain(*(takewhile(_is_english, names) for names in NAMES["columns"].values()))))
_FOREIGN = frozenset(_keys(chain(*(dropwhile(_is_english, names) for names in NAMES["columns"].values())))) - _ENGLISH
_TITLES = frozenset(_keys(["title", "titre", "titolo", "título", "tytuł"]))
_WORDS = {key: label for label, words in NAMES["words"].items() for key in _keys(words)}
_SIZES = sorted({len(word) for word in _WORDS}, reverse=True)
_PARTS = frozenset(_keys(NAMES["address"]["parts"]))


@lru_cache(maxsize=4096)
def _look_up(key: str, depth: int = 3) -> tuple[str, str] | None:
    """Return the meaning and the label of a known name with at most `depth` words before or after it, or None."""
    if key in _known():
        return _known()[key]
    # Try words with a label first and fillers last. On its own, "home" is a phone number, but not in "home address".
    for rest, label in sorted(_without_word(key), key=_is_filler) if depth else ():
        found = _look_up(rest, depth - 1)
        if found and found[0] in (_KINDS if label else _KINDS_WITH_FILLERS):
            return found[0], _joined(label, found[1])
    return None


def _without_word(key: str) -> Iterable[tuple[str, str]]:
    for size in _SIZES:
        if size < len(key):
            if (label := _WORDS.get(key[:size])) is not None:
                yield key[size:], label
            if (label := _WORDS.get(key[-size:])) is not None:
                yield key[:-size], label


def _is_filler(without: tuple[str, str]) -> bool:
    return not without[1]


def _without_label_word(key: str) -> Iterable[str]:
    """Yield the name of the value for a name that may be a label column: "email" for "emailtype"."""
    for ending in NAMES["label_endings"]:
        if key.endswith(ending):
            yield key.removesuffix(ending)
    for beginning in NAMES["label_beginnings"]:
        if key.startswith(beginning):
            yield key.removeprefix(beginning)


def _part_of_address(key: str, depth: int = 3) -> str | None:
    """Return the label of an address if the column is a part of one, or None."""
    if key in _PARTS:
        return ""
    for rest, label in _without_word(key) if depth else ():
        if (own := _part_of_address(rest, depth - 1)) is not None:
            return _joined(label, own)
    return None


def _joined(label: str, own: str) -> str:
    return label if own == label else f"{label} {own}".strip()
