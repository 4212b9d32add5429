"""The routes of the birthday calendar and of its secret address."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from hashlib import sha256
from typing import Annotated, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from contacts_api import __version__
from contacts_api.accounts.strategy import FOR_OWNERS, SignedIn
from contacts_api.contacts.models import AN_EXAMPLE, AN_ID, ContactCreate, columns_of
from contacts_api.database.engine import Autocommit, Reader, Reads
from contacts_api.database.waiting import act_for
from contacts_api.features.feed import icalendar, queries
from contacts_api.features.feed.feeds import InvalidFeedKey, find_feed, open_feed
from contacts_api.features.feed.models import FeedAddress, FeedQuery
from contacts_api.http.answers import file_of, streamed, with_headers
from contacts_api.http.etags import TAKES_IF_NONE_MATCH, etag_of, is_known
from contacts_api.http.paging import pages_of
from contacts_api.http.query import QueryParameters
from contacts_api.http.route import Route
from contacts_api.problems import DatabaseUnavailable, documented
from contacts_api.text import A_TIME

FEED_SECONDS = 3600
FeedKey: TypeAlias = Annotated[FeedQuery, Depends(QueryParameters(FeedQuery))]

feeds = APIRouter(prefix="/contacts", route_class=Route, responses=FOR_OWNERS)
calendar = APIRouter(prefix="/contacts", route_class=Route)
_A_BIRTHDAY = columns_of(ContactCreate(**AN_EXAMPLE).model_dump()) | {
    "id": AN_ID,
    "updated_at": datetime.fromisoformat(A_TIME),
}
_AN_EXAMPLE = icalendar.HEAD + icalendar.unparse([_A_BIRTHDAY]) + icalendar.TAIL


async def export_birthdays(database: Reader, owner_id: UUID) -> AsyncIterator[bytes]:
    """Yield the birthday calendar in pieces."""
    head = icalendar.HEAD
    async for rows in pages_of(database, queries.BIRTHDAYS, owner_id=owner_id):
        yield head + await asyncio.to_thread(icalendar.unparse, rows)
        head = b""
    yield head + icalendar.TAIL


@feeds.post("/birthdays/feed", status_code=201)
async def open_birthday_feed(
    request: Request, response: Response, owner: SignedIn, database: Autocommit
) -> FeedAddress:
    """Create the secret address of your birthday calendar, to subscribe to. It replaces the previous address.

    It works until you replace or revoke it, or reset your password by mail. It cannot be created with a key.
    """
    key = await open_feed(database, owner)
    response.headers["Cache-Control"] = "no-store"
    return FeedAddress(url=f"{request.base_url}contacts/birthdays.ics?key={key}")


@feeds.delete("/birthdays/feed", status_code=204)
async def close_birthday_feed(owner: SignedIn, database: Autocommit) -> None:
    """Revoke your calendar address."""
    await database.execute(queries.CLOSE_FEED, owner_id=owner.user_id)


@calendar.get(
    "/birthdays.ics",
    response_class=StreamingResponse,
    responses=documented(
        InvalidFeedKey,
        DatabaseUnavailable,
        onto={**file_of("text/calendar; charset=utf-8", _AN_EXAMPLE, "ETag"), 304: with_headers("ETag")},
    ),
    openapi_extra=TAKES_IF_NONE_MATCH,
)
async def show_birthday_calendar(query: FeedKey, request: Request, database: Autocommit, reads: Reads) -> Response:
    """Return the calendar of birthdays. The key replaces a sign-in, because calendar programs cannot sign in."""
    owner_id = await find_feed(database, query.key)
    act_for(request, owner_id)
    (state,) = await reads.read(queries.STATE, owner_id=owner_id)
    tag = sha256(f"{__version__} {tuple(state)}".encode()).hexdigest()[:32]
    headers = {"ETag": etag_of(tag), "Cache-Control": f"private, max-age={FEED_SECONDS}"}
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    return await streamed(export_birthdays(reads, owner_id), "text/calendar", headers)
