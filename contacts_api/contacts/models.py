"""A contact: its fields, each described once, the table, and what goes in and out over HTTP."""

from collections.abc import Mapping
from datetime import date, datetime
from functools import cache
from typing import Annotated, Any, get_type_hints
from uuid import UUID

from pydantic import GetJsonSchemaHandler, create_model, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from sqlalchemy import Computed, Index, SmallInteger, String, literal_column
from sqlmodel import Field, SQLModel

from contacts_api.accounts.models import User as User  # the table that owner_id refers to
from contacts_api.bodies import Body, with_example
from contacts_api.contacts.fields import About, DateOfBirth, Email, PhoneNumber, as_typed, digits_of, with_digits
from contacts_api.database import stamped
from contacts_api.pagination import Page
from contacts_api.text import Name, Note, Timestamp, fold

FOLDING = 2
"""The version of the rules of `columns_of`. Raise it when they change: `reindex` then brings older rows up to date."""


class ContactFields(SQLModel):
    """What is known about a person: null where there is nothing. docs/extending.md shows how to add a field."""

    first_name: Annotated[Name, About(search=as_typed, filter_length=100, columns=("given name",), example="Grace")]
    last_name: Annotated[
        Name | None,
        About(search=as_typed, filter_length=100, columns=("family name", "surname"), example="Hopper"),
    ]
    email: Annotated[
        Email | None,
        About(
            search=as_typed,
            filter_length=254,
            columns=("e-mail # - value", "e-mail address", "e-mail # address", "email address", "e-mail"),
            example="grace@example.com",
        ),
    ]
    phone_number: Annotated[
        PhoneNumber | None,
        About(
            search=with_digits,
            columns=(
                *("phone # - value", "primary phone", "mobile phone", "home phone", "home phone #"),
                *("business phone", "business phone #", "company main phone", "car phone", "other phone", "phone"),
                "mobile",
            ),
            example="+1 (202) 555-0143",
        ),
    ]
    date_of_birth: Annotated[DateOfBirth | None, About(columns=("birthday",), example="1906-12-09")]
    additional_info: Annotated[Note | None, About(columns=("notes", "note"), example="Found the first bug.")] = None


FIELDS = tuple(ContactFields.model_fields)
STORED = (*FIELDS, "search_text", "sort_name", "identity", "folding")
"""The columns that `columns_of` returns."""
ABOUT: dict[str, About] = {
    name: next(each for each in field.metadata if isinstance(each, About))
    for name, field in ContactFields.model_fields.items()
}
SERVER_SET = ("id", "created_at", "updated_at")
AN_EXAMPLE: dict[str, Any] = {name: about.example for name, about in ABOUT.items() if about.example is not None}


class Contact(ContactFields, table=True):
    """A row, keyed by its owner first: the rule of who sees it is the index that finds it."""

    __table_args__ = (
        Index("ix_contact_by_name", "owner_id", "sort_name", "id"),
        Index("ix_contact_by_creation", "owner_id", "created_at", "id"),
        Index("ix_contact_by_update", "owner_id", "updated_at", "id"),
        Index("ix_contact_by_birthday", "owner_id", "birthday"),
    )
    # What PostgreSQL computes comes back with the UPDATE.
    __mapper_args__ = {"eager_defaults": True}

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    id: UUID = Field(primary_key=True)
    version: int = Field(sa_column_kwargs={"server_default": "1", "onupdate": literal_column("version + 1")})
    created_at: datetime = stamped()
    updated_at: datetime = stamped()
    # The UID of the vCard that it was imported from, which the next import knows it by.
    uid: str | None = None
    # What `columns_of` makes of the fields, by the rules of `folding`.
    search_text: str
    sort_name: str = Field(sa_type=String(collation="C"))
    identity: str | None = None
    folding: int = Field(sa_type=SmallInteger, sa_column_kwargs={"server_default": "1"})
    birthday: int | None = Field(
        default=None,
        sa_type=SmallInteger,
        sa_column_args=[
            Computed("(extract(month from date_of_birth) * 100 + extract(day from date_of_birth))::smallint")
        ],
    )


class ContactTally(SQLModel, table=True):
    """An upper bound of the number of an owner's contacts, so that creating one does not count them all.

    Creating raises it, deleting does not lower it; when it reaches the limit, the contacts are counted.
    """

    __tablename__ = "contact_tally"

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    at_most: int


def columns_of(fields: Any) -> dict[str, Any]:
    """Return the columns of a contact with these fields: the fields, and what is compared of them.

    `search_text` has a line for each field that searches see: its name in capitals, which no folded text has, and the
    folded value. `sort_name` is the last name and the first. `identity` is what two contacts of one person share:
    the names, and the e-mail address or else the digits of the phone number.
    """
    folded = {
        name: fold(about.search(fields[name])) for name, about in ABOUT.items() if about.search and fields.get(name)
    }
    # The newline sorts before, and is found in, no name. 500 characters leave room in an index entry.
    sort_name = f"{folded.get('last_name', '')}\n{folded['first_name']}"[:500]
    return {
        **{name: fields.get(name) for name in FIELDS},
        "search_text": "".join(f"\n{search_tag(name)}{text}" for name, text in folded.items()),
        "sort_name": sort_name,
        "identity": f"{sort_name}\n{folded.get('email') or digits_of(fields.get('phone_number') or '')}",
        "folding": FOLDING,
    }


@cache
def search_tag(name: str) -> str:
    """Return what comes before the value of a field in `search_text`: the letters of its name, in capitals.

    No digits and no underscores, which a search for them would find.
    """
    return f"{''.join(filter(str.isalpha, name.upper()))} "


if len({search_tag(name) for name in FIELDS}) < len(FIELDS):
    raise ValueError("The names of two fields differ only by digits or underscores: searches would mix them up.")


def _input(*, is_patch: bool) -> type[Body]:
    """Return a body with the fields of a contact. In a patch every field may be left out."""
    hints = get_type_hints(ContactFields, include_extras=True)
    members: dict[str, Any] = {
        name: (hints[name], ... if field.is_required() and not is_patch else None)
        for name, field in ContactFields.model_fields.items()
    }
    return create_model("ContactInput", __base__=Body, **members)  # type: ignore[no-any-return]


class SentBack(Body):
    """A body that may have what only the server sets, so that what was read can be sent back changed."""

    @model_validator(mode="before")
    @classmethod
    def _ignore_what_the_server_sets(cls, data: Any) -> Any:
        return {name: data[name] for name in data if name not in cls._ignored()} if isinstance(data, dict) else data

    @classmethod
    def _ignored(cls) -> set[str]:
        return set(SERVER_SET) - cls.model_fields.keys()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        handler.resolve_ref_schema(schema)["properties"] |= {
            name: {"readOnly": True} for name in sorted(cls._ignored())
        }
        return schema


class ContactCreate(_input(is_patch=False)):  # type: ignore[misc]  # its base is made of ContactFields
    model_config = with_example(**AN_EXAMPLE)


class ContactReplace(SentBack, ContactCreate):
    """All fields; what is left out becomes null. What only the server sets is ignored."""


class ContactUpdate(SentBack, _input(is_patch=True)):  # type: ignore[misc]  # its base is made of ContactFields
    """The fields to change (a JSON merge patch, RFC 7396); null clears one. What only the server sets is ignored."""

    model_config = with_example(phone_number="+1 202 555 0199")


def differs(contact: Contact, fields: Mapping[str, Any]) -> bool:
    """Say whether these fields differ from those of the contact."""
    return any(getattr(contact, name) != fields[name] for name in FIELDS)


class ContactPublic(ContactFields):
    id: UUID
    created_at: Timestamp
    updated_at: Timestamp


class ContactPage(Page[ContactPublic]):
    total: int | None


class UpcomingBirthday(SQLModel):
    contact: ContactPublic
    birthday_on: date
    days_until: int
    turns: int
