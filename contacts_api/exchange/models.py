"""The bodies and answers of batches and imports, and the import that is running."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, WrapValidator
from pydantic import Field as Rule
from pydantic_core import PydanticCustomError
from sqlalchemy import DateTime
from sqlmodel import Field, SQLModel

from contacts_api.bodies import MAX_ITEMS, Body, a_few_at_a_time, with_example
from contacts_api.contacts.models import AN_EXAMPLE, ContactCreate, ContactPublic, ContactUpdate
from contacts_api.exchange.dates import DateOrder
from contacts_api.exchange.files import Format, is_encoding
from contacts_api.text import Label

_AN_ID = "01a22042-afe2-74f4-844b-d6ec422a71e8"
_A_CHANGE: dict[str, JsonValue] = {"id": _AN_ID, "phone_number": "+1 202 555 0199"}

OnDuplicate = Literal["skip", "update", "create"]


class ContactBatch(Body):
    model_config = with_example(items=[AN_EXAMPLE])

    items: Annotated[list[ContactCreate], Rule(min_length=1, max_length=MAX_ITEMS), WrapValidator(a_few_at_a_time)]


class ContactChange(ContactUpdate):
    """The fields of one contact to change (a JSON merge patch, RFC 7396)."""

    model_config = with_example(**_A_CHANGE)

    id: UUID


class ContactChanges(Body):
    model_config = with_example(items=[_A_CHANGE])

    items: Annotated[list[ContactChange], Rule(min_length=1, max_length=MAX_ITEMS), WrapValidator(a_few_at_a_time)]


class ContactIds(Body):
    model_config = with_example(ids=[_AN_ID])

    ids: Annotated[list[UUID], Rule(min_length=1, max_length=MAX_ITEMS)]


class Deleted(SQLModel):
    deleted: int


class ContactList(SQLModel):
    items: list[ContactPublic]


def _known_encoding(name: str) -> str:
    if name != "auto" and not is_encoding(name):
        raise PydanticCustomError("not_allowed", "Must be auto, or an encoding of text such as utf-8 or windows-1252.")
    return name


class ImportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dry_run: Annotated[bool, Rule(description="Report what the import would do, without doing it.")] = False
    on_duplicate: Annotated[OnDuplicate, Rule(description="What to do with a contact that is there already.")] = "skip"
    date_order: Annotated[
        Literal["auto", "dmy", "mdy"], Rule(description="How a CSV file writes dates; `auto` finds out.")
    ] = "auto"
    encoding: Annotated[
        str,
        Rule(max_length=32, description="`auto` is UTF-8, or UTF-16 by its mark; else a name such as windows-1251."),
        AfterValidator(_known_encoding),
    ] = "auto"
    label: Annotated[
        Label | None, Rule(description="A label for every contact that the import creates or updates.")
    ] = None


class RowRemark(SQLModel):
    """What there is to say about a field of a row, or about all of it where `field` is null."""

    row: int
    line: int
    field: str | None
    code: str
    detail: str


class SkippedRow(SQLModel):
    """A row that was skipped, and the contact that it is; null where a dry run would have made it."""

    row: int
    line: int
    contact_id: UUID | None
    detail: str


class ImportReport(SQLModel):
    """What an import did; a dry run, what it would have done. Every person is counted once."""

    format: Format
    dry_run: bool
    date_order: DateOrder | None = Field(description="How dates were read that can be written both ways; null: none.")
    created: int = 0
    updated: int = 0
    skipped: int = 0
    failed: int = 0
    not_kept: dict[str, int] = Field(default={}, description="What was left out, by its name in the file.")
    errors: list[RowRemark] = Field(default=[], description="The first 1,000 reasons why a row failed.")
    warnings: list[RowRemark] = Field(default=[], description="The first 1,000 values that are not where they were.")
    skips: list[SkippedRow] = Field(default=[], description="The first 1,000 rows that were skipped.")


class RunningImport(SQLModel, table=True):
    """The one import of an owner, from before its file is read; if it is not kept alive, its worker has died."""

    __tablename__ = "running_import"

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    id: UUID
    alive_at: datetime = Field(sa_type=DateTime(timezone=True))
