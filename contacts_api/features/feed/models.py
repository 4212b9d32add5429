"""The secret addresses of calendars: the table, and the bodies of requests and responses."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from pydantic import Field as Rule
from sqlmodel import Field, SQLModel

from contacts_api.database.engine import stamped

_A_KEY = "01a220429c1f7b369a523f0b6f1d2c44.Zm9yIHRoZSBkb2N1bWVudGF0aW9uIG9ubHkhISEhISEh"


class CalendarFeed(SQLModel, table=True):
    """The secret address of an owner's calendar. Only a hash of its key is stored."""

    __tablename__ = "calendar_feed"

    owner_id: UUID = Field(primary_key=True, foreign_key="user.id", ondelete="CASCADE")
    key_hash: bytes
    created_at: datetime = stamped()


class FeedQuery(BaseModel):
    """The query of a calendar. Other parameters are ignored, because people add them to bypass caches."""

    key: str = Rule(description="As in the address of the calendar.", examples=[_A_KEY])


class FeedAddress(SQLModel):
    """The secret address of a calendar, for subscribing to it."""

    url: str = Rule(
        description="The address. Anyone who knows it can read the birthdays, so keep it secret.",
        json_schema_extra={"format": "uri"},
        examples=[f"https://contacts.example.com/contacts/birthdays.ics?key={_A_KEY}"],
    )
