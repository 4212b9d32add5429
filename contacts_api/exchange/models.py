"""The bodies and answers of batches and imports, and the import that is running."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue, WrapValidator
from pydantic import Field as Rule
from sqlalchemy import DateTime
from sqlmodel import Field, SQLModel

from contacts_api.bodies import MAX_ITEMS, Body, a_few_at_a_time, with_example
from contacts_api.contacts.models import AN_EXAMPLE, ContactCreate, ContactPublic, ContactUpdate
from contacts_api.exchange.files import Format

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


class ImportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dry_run: Annotated[bool, Rule(description="Report what the import would do, without doing it.")] = False
    on_duplicate: Annotated[OnDuplicate, Rule(description="What to do with a contact that is there already.")] = "skip"


class RowError(SQLModel):
    """What is wrong with a field of a row, or with all of it where `field` is null."""

    row: int
    field: str | None
    code: str
    detail: str


class ImportReport(SQLModel):
    """What an import did; a dry run, what it would have done. Every row is counted once."""

    format: Format
    dry_run: bool
    created: int
    updated: int
    skipped: int
    failed: int
    errors: list[RowError] = Field(description="The first 1,000.")


class RunningImport(SQLModel, table=True):
    """The one import of an owner, from before its file is read; if it is not kept alive, its worker has died."""

    __tablename__ = "running_import"

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    id: UUID
    alive_at: datetime = Field(sa_type=DateTime(timezone=True))
