"""A contact: the table, and what goes in and out over HTTP."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, JsonValue, StringConstraints, ValidationInfo
from pydantic import Field as Rule
from pydantic_core import PydanticCustomError
from sqlalchemy import Computed, DateTime, Index, SmallInteger, String, func, literal_column
from sqlmodel import Field, SQLModel

from contacts_api.accounts.models import User as User  # the table that owner_id refers to
from contacts_api.bodies import Body, left_out, with_example
from contacts_api.pagination import Page
from contacts_api.text import Name, Note, OneLine, Timestamp, Trimmed, check_address, fold

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FIRST_DATE = date(1900, 1, 1)

_BETWEEN_DIGITS = r"(?:[ +\-().\/#*,;]|[xX]|[eE][xX][tT])*"
_PHONE_NUMBER = f"^{_BETWEEN_DIGITS}(?:[0-9]{_BETWEEN_DIGITS}){{3,}}$"


def _lower_domain(address: str) -> str:
    check_address(address)
    local_part, _, domain = address.rpartition("@")
    return f"{local_part}@{domain.lower()}"


def _iso_date(value: object) -> object:
    # Pydantic would also take numbers of seconds, and dates with a time.
    if not isinstance(value, str) or not _ISO_DATE.fullmatch(value):
        raise PydanticCustomError("date_format", "Must be a date as text: YYYY-MM-DD.")
    return value


def last_date_of_birth(now: datetime) -> date:
    """Return the date of "today" where it is furthest ahead: at UTC+14."""
    return (now.astimezone(UTC) + timedelta(hours=14)).date()


def _possible_birth(born: date, info: ValidationInfo) -> date:
    # Pure code gives the last date in the context.
    last = info.context["last_date_of_birth"] if info.context else last_date_of_birth(datetime.now(UTC))
    if not _FIRST_DATE <= born <= last:
        raise PydanticCustomError("date_range", "Must lie between 1900-01-01 and today.")
    return born


def _phone_characters(number: str) -> str:
    if not re.fullmatch(_PHONE_NUMBER, number):
        raise PydanticCustomError(
            "phone_number", "Must have at least 3 digits, and between them only spaces, + - ( ) . / # * , ; x or ext."
        )
    return number


Email = Annotated[
    str,
    Trimmed,
    AfterValidator(_lower_domain),
    OneLine,
    Rule(json_schema_extra={"format": "email", "maxLength": 254}),
]
PhoneNumber = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=3, max_length=32),
    AfterValidator(_phone_characters),
    OneLine,
    Rule(json_schema_extra={"pattern": _PHONE_NUMBER}),
]
DateOfBirth = Annotated[date, BeforeValidator(_iso_date), AfterValidator(_possible_birth)]

AN_EXAMPLE: dict[str, JsonValue] = {
    "first_name": "Grace",
    "last_name": "Hopper",
    "email": "grace@example.com",
    "phone_number": "+1 (202) 555-0143",
    "date_of_birth": "1906-12-09",
    "additional_info": "Found the first bug.",
}


class ContactBase(SQLModel):
    """A contact as it is stored and shown. One that was imported may lack all but the first name."""

    first_name: str
    last_name: str | None
    email: str | None
    phone_number: str | None
    date_of_birth: date | None
    additional_info: str | None = None


class Contact(ContactBase, table=True):
    """A row, keyed by its owner first: the rule of who sees it is the index that finds it."""

    __table_args__ = (
        Index("ix_contact_by_name", "owner_id", "sort_name", "id"),
        Index("ix_contact_by_creation", "owner_id", "created_at", "id"),
        Index("ix_contact_by_update", "owner_id", "updated_at", "id"),
        Index("ix_contact_by_birthday", "owner_id", "birthday"),
    )

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    id: UUID = Field(primary_key=True)
    version: int = Field(sa_column_kwargs={"server_default": "1", "onupdate": literal_column("version + 1")})
    created_at: datetime = Field(sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now()})
    updated_at: datetime = Field(
        sa_type=DateTime(timezone=True),
        # Not now(), the start of the transaction: of two updates in turn, the second may have begun first.
        sa_column_kwargs={"server_default": func.now(), "onupdate": func.clock_timestamp()},
    )
    # The UID of the vCard that it was imported from, which the next import knows it by.
    uid: str | None = None
    search_text: str
    sort_name: str = Field(sa_type=String(collation="C"))
    birthday: int | None = Field(
        default=None,
        sa_type=SmallInteger,
        sa_column_args=[
            Computed("(extract(month from date_of_birth) * 100 + extract(day from date_of_birth))::smallint")
        ],
    )


class ContactTally(SQLModel, table=True):
    """At most how many contacts an owner has.

    Creating raises it, deleting leaves it; where it comes to the limit, the contacts are counted anew.
    """

    __tablename__ = "contact_tally"

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    at_most: int


class ContactCreate(ContactBase, Body):
    model_config = with_example(**AN_EXAMPLE)

    first_name: Name
    last_name: Name
    email: Email
    phone_number: PhoneNumber
    date_of_birth: DateOfBirth
    additional_info: Note | None = None


class ContactUpdate(Body):
    """The fields to change (a JSON merge patch, RFC 7396); only `additional_info` can be null."""

    model_config = with_example(phone_number="+1 202 555 0199")

    first_name: Name = left_out()
    last_name: Name = left_out()
    email: Email = left_out()
    phone_number: PhoneNumber = left_out()
    date_of_birth: DateOfBirth = left_out()
    additional_info: Note | None = left_out()


class ContactPublic(ContactBase):
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


def columns_of(contact: ContactBase) -> dict[str, Any]:
    """Return what is stored of `contact`: its fields, and what searching and sorting by name compare."""
    return columns_of_fields(contact.model_dump(include=set(ContactBase.model_fields)))


def columns_of_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of a contact with these `fields`, as `columns_of` does."""
    first_name, last_name, phone_number = fields["first_name"], fields["last_name"] or "", fields["phone_number"] or ""
    digits = re.sub("[^0-9]", "", phone_number)
    search_text = fold("\n".join((first_name, last_name, fields["email"] or "", phone_number, digits)))
    first, last, _ = search_text.split("\n", 2)
    # The newline sorts before, and is found in, no name. 500 characters leave room in an index entry.
    return {**fields, "search_text": search_text, "sort_name": f"{last}\n{first}"[:500]}
