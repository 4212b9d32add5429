"""The request and response models of batches and imports, and the table of running imports."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic import Field as Rule
from pydantic_core import PydanticCustomError
from sqlalchemy import DateTime
from sqlmodel import Field, SQLModel

from contacts_api.contacts.models import AN_EXAMPLE, AN_ID, ContactCreate, ContactId, ContactPublic, ContactUpdate
from contacts_api.features.exchange.dates import DateOrder
from contacts_api.features.exchange.files import Format, is_encoding
from contacts_api.http.bodies import MAX_ITEMS, UNCHECKED, Body, with_example
from contacts_api.text import Label

OnDuplicate = Literal["skip", "update", "create"]


class ContactBatch(Body):
    """Contacts to create."""

    items: list[Annotated[ContactCreate, UNCHECKED]] = Rule(
        description="1 to 500 contacts.", min_length=1, max_length=MAX_ITEMS
    )


class ContactChange(ContactUpdate):
    """The fields of one contact to change (a JSON merge patch, RFC 7396)."""

    model_config = with_example({"id": AN_ID, "additional_info": AN_EXAMPLE["additional_info"]})

    id: ContactId


class ContactChanges(Body):
    """Changes to several contacts."""

    items: list[Annotated[ContactChange, UNCHECKED]] = Rule(
        description="1 to 500 changes, each of another contact.", min_length=1, max_length=MAX_ITEMS
    )


class ContactIds(Body):
    """Ids of contacts."""

    ids: list[ContactId] = Rule(description="1 to 500 ids.", min_length=1, max_length=MAX_ITEMS, examples=[[AN_ID]])


class Deleted(SQLModel):
    """The result of a deletion."""

    deleted: int = Rule(description="How many contacts were deleted.", examples=[1])


class ContactList(SQLModel):
    """Contacts, in the order of the request."""

    items: list[ContactPublic] = Rule(description="The contacts as they are now.")


def _known_encoding(name: str) -> str:
    if name != "auto" and not is_encoding(name):
        raise PydanticCustomError("not_allowed", "Must be auto, or an encoding of text such as utf-8 or windows-1252.")
    return name


class ImportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Rule(False, description="Report what the import would do, without doing it.", examples=[True])
    on_duplicate: OnDuplicate = Rule(
        "skip", description="What to do with a contact that is there already.", examples=["update"]
    )
    date_order: Literal["auto", "dmy", "mdy"] = Rule(
        "auto",
        description="How a CSV file writes dates. `auto`: as the whole file shows, else as its language "
        "suggests, and a warning says so.",
        examples=["dmy"],
    )
    encoding: Annotated[
        str,
        Rule(
            max_length=32,
            description="`auto` is UTF-8, or UTF-16 by its mark; else a name such as windows-1251.",
            examples=["windows-1252"],
        ),
        AfterValidator(_known_encoding),
    ] = "auto"
    label: Label | None = Rule(
        None, description="A label for every contact that the import creates or updates.", examples=["Import 2026"]
    )


REMARKS = {
    "missing": "The row has no name, and nothing to make one of. It is no person.",
    "csv_syntax": "A quoted cell does not end where the cell ends.",
    "too_many_cells": "The row has more cells than the header has columns. What the others say is in `details`.",
    "record_too_large": "The row or card has more bytes than a contact may take.",
    "unfinished_card": "The card has no END:VCARD.",
    "charset": "The card is not text in the encoding that it is read in.",
    "passed_over": "Lines before the names of the columns are no contacts. The detail counts them.",
    "unknown_column": "Nobody knows what the column means. Its values are kept in `details`.",
    "moved_to_details": "The field refuses the value. It is kept in `details`.",
    "without_a_name": "There is no name. The contact is called by its nickname, organization, address or number.",
    "ambiguous_date": "A date can be read in two ways, and nothing in the file decides. `date_order` does.",
    "not_text": "The value is not text in its encoding. What could be read of it is kept.",
}
"""The codes of remarks in an import report, and their meanings."""

RowNumber = Annotated[
    int, Rule(description="The row of the CSV file, whose header is row 1; or the number of the card.", examples=[2])
]
LineNumber = Annotated[int, Rule(description="The line of the file, from 1.", examples=[2])]


class RowRemark(SQLModel):
    """A remark on a field of a row, or on the whole row if `field` is null."""

    row: RowNumber
    line: LineNumber
    field: str | None = Rule(
        description="The member of the contact, or the name of the column; null: the row.", examples=["Shoe size"]
    )
    code: str = Rule(
        description="What there is to say, for programs.",
        json_schema_extra={"enum": [*REMARKS]},
        examples=["unknown_column"],
    )
    detail: str = Rule(
        description="What there is to say, for people.",
        examples=["The column is not known: its values are kept in details."],
    )


class SkippedRow(SQLModel):
    """A row that was skipped because it matches a contact."""

    row: RowNumber
    line: LineNumber
    contact_id: UUID | None = Rule(
        description="The contact that it is; null if a dry run would have made it, or if it has been deleted since.",
        examples=[AN_ID],
    )
    detail: str = Rule(
        description="Why the row is that contact, for people.",
        examples=["You have this contact, and it says something else."],
    )


class ImportReport(SQLModel):
    """The result of an import, or what a dry run would have done. Each person is counted once."""

    format: Format = Rule(description="What the file is.", examples=["csv"])
    dry_run: bool = Rule(description="Whether nothing was stored.", examples=[False])
    date_order: DateOrder | None = Rule(
        description="How dates were read that can be written both ways; null: there are none.", examples=[None]
    )
    created: int = Rule(0, description="How many contacts were created.", examples=[1])
    updated: int = Rule(0, description="How many contacts were changed.", examples=[0])
    skipped: int = Rule(0, description="How many rows are contacts that were left as they are.", examples=[1])
    failed: int = Rule(0, description="How many rows have no person in them.", examples=[0])
    not_kept: dict[str, int] = Rule(
        {}, description="How often something was left out, by its name in the file.", examples=[{}]
    )
    errors: list[RowRemark] = Rule([], description="The first 1,000 reasons why a row failed.", examples=[[]])
    warnings: list[RowRemark] = Rule([], description="The first 1,000 values that were moved or had to be guessed.")
    skips: list[SkippedRow] = Rule([], description="The first 1,000 rows that were skipped.")


class RunningImport(SQLModel, table=True):
    """The running import of an owner, at most one. Without a recent `alive_at`, its worker has died."""

    __tablename__ = "running_import"

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    id: UUID
    alive_at: datetime = Field(sa_type=DateTime(timezone=True))
