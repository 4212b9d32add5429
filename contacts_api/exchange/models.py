"""What goes in and out by the batch and by the file."""

from typing import Annotated

from pydantic import Field as Rule
from sqlmodel import SQLModel
from sqlmodel._compat import SQLModelConfig

from contacts_api.contacts.models import AN_EXAMPLE, ContactCreate, ContactPublic

BATCH_ITEMS = 500


class ContactBatch(SQLModel):
    model_config = SQLModelConfig(extra="forbid", json_schema_extra={"examples": [{"items": [AN_EXAMPLE]}]})

    items: Annotated[list[ContactCreate], Rule(min_length=1, max_length=BATCH_ITEMS)]


class ContactList(SQLModel):
    items: list[ContactPublic]
