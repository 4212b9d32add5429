"""Contacts: the fields, each described once, the tables, and the bodies of requests and responses."""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Annotated, Any, get_type_hints
from uuid import UUID

import orjson
from pydantic import Field as Rule
from pydantic import create_model
from sqlalchemy import Index, SmallInteger, String, literal_column, text
from sqlmodel import Field, SQLModel

from contacts_api.accounts.models import User as User  # the table that owner_id refers to
from contacts_api.contacts.collation import sort_form
from contacts_api.contacts.fields import (
    About,
    Birthday,
    DateOfBirth,
    Details,
    Email,
    Labels,
    PhoneNumber,
    as_typed,
    digits_of,
    label_key,
    with_digits,
)
from contacts_api.database.engine import stamped
from contacts_api.http.bodies import Body, with_example
from contacts_api.http.paging import Page
from contacts_api.text import A_TIME, CreatedAt, Label, Name, Note, Timestamp, fold

AN_ID = "01a22042-afe2-74f4-844b-d6ec422a71e8"
ContactId = Annotated[UUID, Rule(description="The id of the contact, a UUID.", examples=[AN_ID])]
FOLDING = 5
"""The version of the rules of `columns_of`. Increment it when they change, so that `reindex` updates older rows."""


class ContactFields(SQLModel):
    """The fields of a contact. A null means that there is no value. docs/extending.md shows how to add a field."""

    first_name: Annotated[
        Name,
        About(
            description="The first name, or the only one: 1 to 100 characters on one line.",
            example="Grace",
            search=as_typed,
            filter_length=100,
        ),
    ]
    last_name: Annotated[
        Name | None,
        About(
            description="The last name: 1 to 100 characters on one line; null: there is none.",
            example="Hopper",
            search=as_typed,
            filter_length=100,
        ),
    ]
    email: Annotated[
        Email | None,
        About(
            description="An e-mail address without a name, at most 254 characters; null: there is none. Others are "
            "details.",
            example="grace@example.com",
            search=as_typed,
            filter_length=254,
            kind="email",
        ),
    ]
    phone_number: Annotated[
        PhoneNumber | None,
        About(
            description="A phone number, kept as it is typed: 3 to 32 characters; null: there is none. Others are "
            "details.",
            example="+1 (202) 555-0143",
            search=with_digits,
            kind="phone",
        ),
    ]
    date_of_birth: Annotated[
        DateOfBirth | None,
        About(
            description="The day of birth, YYYY-MM-DD, from 1900-01-01 to today; null: not known.", example="1906-12-09"
        ),
    ]
    birthday: Annotated[
        Birthday | None,
        About(
            description="MM-DD, for whom the year is not known. With a `date_of_birth` it is always that day.",
            example="12-09",
        ),
    ] = None
    additional_info: Annotated[
        Note | None,
        About(
            description="Whatever else there is to say, at most 2,000 characters.",
            example="Found the first bug.",
            search=as_typed,
        ),
    ] = None
    labels: Annotated[
        Labels,
        About(
            description="At most 50 labels of 1 to 64 characters each. One label in any letter case is one label.",
            example=["Navy"],
        ),
    ] = None
    details: Annotated[
        Details,
        About(
            description="At most 100 more addresses, numbers and what has no field of its own; 64 KiB in all.",
            example=[
                {"kind": "phone", "label": "work", "value": "+1 (202) 555-0117"},
                {"kind": "organization", "label": "work", "value": "Eckert-Mauchly Computer Corporation"},
            ],
        ),
    ] = None


FIELDS = tuple(ContactFields.model_fields)
STORED = (*FIELDS, "search_text", "sort_name", "identity", "folding")
"""The columns that `columns_of` returns."""
ABOUT: dict[str, About] = {
    name: each
    for name, field in ContactFields.model_fields.items()
    for each in field.metadata
    if isinstance(each, About)
}
if missing := [name for name in FIELDS if name not in ABOUT]:
    raise ValueError(f"The field {missing[0]} needs an About(…) in its annotation.")
FIELD_OF_KIND: dict[str, str] = {about.kind: name for name, about in ABOUT.items() if about.kind}
AN_EXAMPLE: dict[str, Any] = {name: about.example for name, about in ABOUT.items()}


class Contact(ContactFields, table=True):
    """A row of a contact. The key begins with the owner, so one index finds the contact and checks its owner."""

    __table_args__ = (
        Index("ix_contact_by_name", "owner_id", "sort_name", "id"),
        Index("ix_contact_by_creation", "owner_id", "created_at", "id"),
        Index("ix_contact_by_update", "owner_id", "updated_at", "id"),
        # Partial on purpose: a full index would be the smallest, and stale statistics would make the planner choose it
        # over the primary key.
        Index("ix_contact_with_birthday", "owner_id", "birthday", postgresql_where=text("birthday IS NOT NULL")),
    )
    # UPDATE returns the new version.
    __mapper_args__ = {"eager_defaults": True}

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    id: UUID = Field(primary_key=True)
    version: int = Field(sa_column_kwargs={"server_default": "1", "onupdate": literal_column("version + 1")})
    created_at: datetime = stamped()
    updated_at: datetime = stamped()
    # As stored by `columns_of`: month * 100 + day, and JSON.
    birthday: int | None = Field(default=None, sa_type=SmallInteger)  # type: ignore[assignment]  # as stored
    labels: str = Field(sa_column_kwargs={"server_default": "[]"})  # type: ignore[assignment]  # as stored
    details: str = Field(sa_column_kwargs={"server_default": "[]"})  # type: ignore[assignment]  # as stored
    # The UID of the imported vCard. The next import recognizes the contact by it.
    uid: str | None = None
    # Derived from the fields by version `folding` of the rules.
    search_text: str
    sort_name: str = Field(sa_type=String(collation="C"))
    identity: str | None = None
    folding: int = Field(sa_type=SmallInteger, sa_column_kwargs={"server_default": "1"})


class ContactTally(SQLModel, table=True):
    """An upper bound for the number of an owner's contacts, so that a create need not count them all.

    Creating contacts raises it. Deleting does not lower it. When it reaches the limit, the contacts are counted.
    """

    __tablename__ = "contact_tally"

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    at_most: int


def columns_of(fields: Any) -> dict[str, Any]:
    """Return the columns of a contact: its fields as stored, and the derived search text, sort key and identity."""
    labels, details, born = fields.get("labels"), fields.get("details"), fields.get("date_of_birth")
    return {
        **{name: fields.get(name) for name in FIELDS},
        "birthday": born.month * 100 + born.day if born else _day_number(fields.get("birthday")),
        "labels": orjson.dumps(labels).decode() if labels else "[]",
        "details": orjson.dumps(details).decode() if details else "[]",
        "search_text": search_text(fields),
        "sort_name": sort_name(fields),
        "identity": identity(fields),
        "folding": FOLDING,
    }


def search_text(fields: Any) -> str:
    """Return the text that searches look through.

    It has a line for each searched field: the name of the field in capitals, which never occur in folded text, and the
    folded values, including those in `details`. Example: `FIRSTNAME grace`.

    Further lines contain the details whose kind has no field, the name without spaces if it is in a script that has
    none (`JOINED`), and the sorted `label_tag` of each label.
    """
    texts = {name: search(value) for name, search in _SEARCHED if (value := fields.get(name))}
    for detail in fields.get("details") or ():
        if detail["kind"] in _LINES_OF_KINDS:
            name, search = _LINES_OF_KINDS[detail["kind"]]
            text = search(detail["value"])
            texts[name] = f"{texts[name]} {text}" if name in texts else text
    first, last = fields["first_name"], fields.get("last_name")
    if last and not first.isascii() and _WITHOUT_SPACES.search(first):
        texts["joined"] = f"{last}{first}{last}"
    # A value with several lines, such as an address, becomes one line.
    lines = [f"\n{search_tag(name)}" + fold(text).replace("\n", " ") for name, text in texts.items()]
    if labels := fields.get("labels"):
        lines.append(f"\n{search_tag('labels')}{' '.join(sorted(map(label_tag, labels)))}")
    return "".join(lines)


def sort_name(fields: Any) -> str:
    r"""Return the sort key of a contact: the sort forms of the last and the first name, with a newline between them.

    A newline sorts before all other characters of names. Example: `hopper\ngrace`.
    """
    return _fit_index(f"{sort_form(fields.get('last_name') or '')}\n{sort_form(fields['first_name'])}")


def identity(fields: Any) -> str:
    """Return a text that is the same for two contacts of the same person.

    It consists of the folded name and the first of these that the contact has: the e-mail address, the digits of the
    phone number, or the date of birth. Without any of them, it has a hash of all other fields except the labels.
    """
    name = _fit_index(f"{fold(fields.get('last_name') or '')}\n{fold(fields['first_name'])}")
    told_apart_by = (
        fold(fields.get("email") or "")
        or digits_of(fields.get("phone_number") or "")
        or str(fields.get("date_of_birth") or "")
    )
    if not told_apart_by:
        rest = [(name, value) for name in FIELDS if name not in _IDENTIFYING and (value := fields.get(name))]
        told_apart_by = blake2b(repr(rest).encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{name}\n{told_apart_by}"


def _fit_index(text: str) -> str:
    """Truncate a text so that it fits into a B-tree entry, which holds at most 2,704 bytes."""
    return text[:500]


def fields_of(columns: Any) -> dict[str, Any]:
    """Return the fields for these columns, as the inverse of `columns_of`. A date of birth also sets the birthday."""
    fields = {name: columns[name] for name in FIELDS}
    return fields | {
        "birthday": month_and_day(columns["birthday"]),
        "labels": orjson.loads(columns["labels"]),
        "details": orjson.loads(columns["details"]),
    }


def month_and_day(number: int | None) -> str | None:
    """Return `MM-DD` for a stored birthday."""
    return None if number is None else f"{number // 100:02}-{number % 100:02}"


def _day_number(birthday: str | None) -> int | None:
    return int(birthday.replace("-", "")) if birthday else None


@cache
def search_tag(name: str) -> str:
    """Return the prefix of a field's line in `search_text`: the letters of the field's name, in capitals.

    Digits and underscores are left out, because searches would find them.
    """
    return f"{''.join(filter(str.isalpha, name.upper()))} "


@lru_cache(maxsize=1024)
def label_tag(label: str) -> str:
    """Return 16 capitals that represent a label in `search_text`, in any letter case.

    Other searches never match them, because their terms are folded.
    """
    digest = blake2b(label_key(label).encode(), digest_size=8).hexdigest()
    return digest.translate(_CAPITALS)


_SEARCHED = [(name, about.search) for name, about in ABOUT.items() if about.search]
# The fields that are not part of the hash in `identity`: those that it contains as text, and the labels.
_IDENTIFYING = {"first_name", "last_name", "email", "phone_number", "date_of_birth", "labels"}
_CAPITALS = str.maketrans("0123456789abcdef", "ABCDEFGHIJKLMNOP")
# Thai, Lao, Burmese, Khmer, Chinese, Japanese and Korean.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
# For each searched kind of detail: the name of its line in `search_text`, and the function that returns its text.
_LINES_OF_KINDS: dict[str, tuple[str, Callable[[str], str]]] = {
    **{kind: (kind, as_typed) for kind in ("nickname", "organization", "title", "relation", "address")},
    **{about.kind: (name, about.search) for name, about in ABOUT.items() if about.kind and about.search},
}

if len({search_tag(name) for name in ("joined", *FIELDS)}) <= len(FIELDS):
    raise ValueError("The names of two fields differ only by digits or underscores: searches would mix them up.")
for _name, _about in ABOUT.items():
    if _about.filter_length and not _about.search:
        raise ValueError(f"The field {_name} has a filter_length, and no search: the filter would find nothing.")


def _ignored(example: str) -> Any:
    text = "Ignored: only the server sets it."
    return Rule(None, exclude=True, description=text, examples=[example], json_schema_extra={"readOnly": True})


class SentBack(Body):
    """A body that accepts the read-only members and ignores them, so that clients can send back a contact they read."""

    created_at: Any = _ignored(A_TIME)
    id: Any = _ignored(AN_ID)
    updated_at: Any = _ignored(A_TIME)


class ContactCreate(ContactFields, Body):
    """A new contact.

    The members from `first_name` to `date_of_birth` are required; all except `first_name` may be null. The others are
    optional, and null or empty by default.
    """


class ContactReplace(SentBack, ContactCreate):
    """A complete contact. Optional members that are omitted become null or empty.

    Read-only members are ignored.
    """


_TYPES = get_type_hints(ContactFields, include_extras=True)
_OPTIONAL: dict[str, Any] = {name: (_TYPES[name], None) for name in FIELDS}


class ContactUpdate(SentBack, create_model("OptionalFields", __base__=Body, **_OPTIONAL)):  # type: ignore[misc]
    """The fields to change, as a JSON merge patch (RFC 7396). null clears a field. Read-only members are ignored."""

    model_config = with_example({"additional_info": AN_EXAMPLE["additional_info"]})

    def apply_to(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return `fields`, updated with the fields that were sent."""
        return fields | self.sent()


def is_same(columns: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Return True if the columns and the row have the same fields."""
    return all(columns[name] == row[name] for name in FIELDS)


class Identified(SQLModel):
    """An object with an id."""

    id: ContactId


class ContactPublic(ContactFields, Identified):
    """A contact as it is stored."""

    created_at: CreatedAt
    updated_at: Timestamp = Rule(description="When it last changed, in UTC.", examples=[A_TIME])


class ContactPage(Page[ContactPublic]):
    """A page of your contacts."""

    total: int | None = Rule(
        description="How many contacts the filters find; null unless `with_total` is true.", examples=[1]
    )


class UpcomingBirthday(SQLModel):
    """The next birthday of a contact."""

    contact: ContactPublic = Rule(description="Whose birthday it is.")
    birthday_on: date = Rule(
        description="The day, YYYY-MM-DD; 28 February where the year has no 29.", examples=["2026-12-09"]
    )
    days_until: int = Rule(description="In how many days; 0 is today.", examples=[3])
    turns: int | None = Rule(
        description="The age in years on that day; null: the year of birth is not known.", examples=[120]
    )


class LabelChange(Body):
    """The new name of a label."""

    label: Label = Rule(description="The new name, 1 to 64 characters.", examples=["Shipmates"])


class LabelUse(SQLModel):
    """A label, and how many contacts have it."""

    label: str = Rule(description="The label as it was first written.", examples=["Navy"])
    contacts: int = Rule(description="How many contacts have it.", examples=[1])


class LabelList(SQLModel):
    """Your labels."""

    items: list[LabelUse] = Rule(description="The labels in alphabetical order, at most 10,000.")


class LabelledContacts(SQLModel):
    """The result of changing a label."""

    contacts: int = Rule(description="How many contacts have changed.", examples=[1])
