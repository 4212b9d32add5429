"""In and out: batches, files and the calendar of birthdays."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, File, Request, Response, UploadFile
from fastapi.responses import StreamingResponse
from uuid_utils.compat import uuid7

from contacts_api import __version__
from contacts_api.accounts.tokens import InvalidToken, Owner, identify
from contacts_api.bodies import BodyLimit
from contacts_api.contacts import queries as contact_queries
from contacts_api.contacts.models import columns_of, last_date_of_birth
from contacts_api.contacts.queries import ContactFilter
from contacts_api.contacts.quota import TooManyContacts, create_within
from contacts_api.contacts.routes import JSON, PRIVATE, IfNoneMatch, with_headers
from contacts_api.database import Autocommit
from contacts_api.etags import matches_etag
from contacts_api.exchange import queries
from contacts_api.exchange.exports import export_birthdays, export_contacts
from contacts_api.exchange.feeds import InvalidFeedKey, find_feed, open_feed
from contacts_api.exchange.imports import REFUSALS, ImportRunning, TooManyRows, claim_import, import_file
from contacts_api.exchange.models import (
    ContactBatch,
    ContactList,
    FeedAddress,
    FeedQuery,
    ImportQuery,
    ImportReport,
)
from contacts_api.problems import Busy, DatabaseUnavailable, Invalid, Unauthorized, documented
from contacts_api.query_parameters import QueryParameters
from contacts_api.routing import Handler, Route
from contacts_api.waiting import has_come

BATCH_BYTES = 2 * 1024 * 1024
FEED_SECONDS = 3600

Batch: TypeAlias = Annotated[ContactBatch, BodyLimit(lambda _: BATCH_BYTES)]
Upload: TypeAlias = Annotated[
    UploadFile, File(description="CSV or vCards."), BodyLimit(lambda settings: settings.import_max_bytes)
]
Filter: TypeAlias = Annotated[ContactFilter, Depends(QueryParameters(ContactFilter))]
ImportOptions: TypeAlias = Annotated[ImportQuery, Depends(QueryParameters(ImportQuery))]
FeedKey: TypeAlias = Annotated[FeedQuery, Depends(QueryParameters(FeedQuery))]


class UploadRoute(Route):
    """A route that takes a large file, of who is signed in and imports nothing else, and takes as long as it needs.

    FastAPI would read the file first, and ask then who it is.
    """

    async def run(self, handle: Handler, request: Request) -> Response:
        owner = await identify(request)
        async with claim_import(request.app.state.database, owner.user_id):
            return await handle(request)


_ALWAYS = documented(Unauthorized, InvalidToken, DatabaseUnavailable, Busy)

exchange = APIRouter(prefix="/contacts", tags=["exchange"], route_class=Route, responses=_ALWAYS)
uploads = APIRouter(prefix="/contacts", tags=["exchange"], route_class=UploadRoute, responses=_ALWAYS)
calendar = APIRouter(prefix="/contacts", tags=["exchange"], route_class=Route)


async def streamed(pieces: AsyncIterator[bytes], media_type: str, headers: dict[str, str]) -> Response:
    # An answer that has begun can no longer say that the database is away.
    first = await anext(pieces)

    async def content() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(content(), headers=headers, media_type=media_type)


def download(name: str) -> dict[str, str]:
    return {**PRIVATE, "Content-Disposition": f'attachment; filename="{name}"'}


def file_of(media_type: str, *headers: str) -> dict[int | str, dict[str, Any]]:
    """Return what documents the answer with a file."""
    return {200: {**with_headers(*headers), "content": {media_type: {"schema": {"type": "string"}}}}}


@exchange.post("/batch", status_code=201, response_model=ContactList, responses=documented(TooManyContacts))
async def create_contacts(batch: Batch, request: Request, owner: Owner, database: Autocommit) -> Response:
    """Create up to 500 contacts: all of them, or none."""
    # In a thread, since folding 500 names of some scripts takes a while.
    rows = await asyncio.to_thread(lambda: [columns_of(new) for new in batch.items])
    lists = {f"{name}s": [row[name] for row in rows] for name in rows[0]}
    # In the order of the items, which is that of their ids.
    ids = sorted(uuid7() for _ in rows)
    row = await create_within(
        database,
        contact_queries.CREATE_ALL,
        owner_id=owner.user_id,
        count=len(ids),
        max_contacts=request.app.state.settings.max_contacts,
        ids=ids,
        **lists,
    )
    return Response(f'{{"items":{row.body}}}', 201, PRIVATE, JSON)


@uploads.post(
    "/import",
    responses=documented(ImportRunning, TooManyRows, TooManyContacts, *REFUSALS.values()),
    # One file, and beside it no more than is told to be wrong.
    form_limits={"max_files": 1, "max_fields": 20, "max_part_size": 1024},
)
async def import_contacts(file: Upload, query: ImportOptions, request: Request, owner: Owner) -> ImportReport:
    """Import a CSV file or vCards, as Google, Outlook, iCloud, Android and Nextcloud export them.

    The good rows are imported, the bad ones reported. A contact that is there already (by the UID of its vCard, or by
    its name and its e-mail address or else its phone number) is skipped, updated with what the file has, or created
    once more. Where the file has it several times, the first one is taken; an update takes the last word on each field.
    """
    for name in await request.form():
        if name != "file":
            raise Invalid.field("body", name[:64], code="extra_forbidden", detail="Options go into the query string.")
    state = request.app.state
    has_come(request)
    return await import_file(
        state.imports,
        owner.user_id,
        file.file,
        last_date_of_birth=last_date_of_birth(state.clock()),
        max_rows=state.settings.import_max_rows,
        max_contacts=state.settings.max_contacts,
        **query.model_dump(),
    )


@exchange.get(
    "/export.csv", response_class=StreamingResponse, responses=file_of("text/csv; charset=utf-8", "Content-Disposition")
)
async def export_csv(query: Filter, owner: Owner, database: Autocommit) -> Response:
    """Export your contacts, or those of a search, as a CSV file for spreadsheets and other address books."""
    pieces = export_contacts(database, owner.user_id, query, "csv")
    return await streamed(pieces, "text/csv", download("contacts.csv"))


@exchange.get(
    "/export.vcf",
    response_class=StreamingResponse,
    responses=file_of("text/vcard; charset=utf-8", "Content-Disposition"),
)
async def export_vcards(query: Filter, owner: Owner, database: Autocommit) -> Response:
    """Export your contacts, or those of a search, as vCards for phones and other address books."""
    pieces = export_contacts(database, owner.user_id, query, "vcard")
    return await streamed(pieces, "text/vcard", download("contacts.vcf"))


@exchange.post("/birthdays/feed", status_code=201)
async def open_birthday_feed(request: Request, response: Response, owner: Owner, database: Autocommit) -> FeedAddress:
    """Make a secret address of a calendar of the birthdays, to subscribe to; the address before it is dead."""
    key = await open_feed(database, owner.user_id)
    response.headers["Cache-Control"] = "no-store"
    return FeedAddress(url=f"{request.base_url}contacts/birthdays.ics?key={key}")


@exchange.delete("/birthdays/feed", status_code=204, response_class=Response)
async def close_birthday_feed(owner: Owner, database: Autocommit) -> None:
    """Let the secret address of the calendar be dead."""
    await database.write(queries.CLOSE_FEED, owner_id=owner.user_id)


@calendar.get(
    "/birthdays.ics",
    response_class=StreamingResponse,
    responses=documented(
        InvalidFeedKey,
        DatabaseUnavailable,
        onto={**file_of("text/calendar; charset=utf-8", "ETag"), 304: with_headers("ETag")},
    ),
)
async def show_birthday_calendar(query: FeedKey, database: Autocommit, if_none_match: IfNoneMatch = None) -> Response:
    """Show the calendar of birthdays to whoever has its address: calendars cannot sign in."""
    owner_id = await find_feed(database, query.key)
    (state,) = await database.read(contact_queries.STATE_OF_BIRTHDAYS, owner_id=owner_id)
    tag = sha256(f"{__version__} {tuple(state)}".encode()).hexdigest()[:32]
    headers = {"ETag": f'"{tag}"', "Cache-Control": f"private, max-age={FEED_SECONDS}"}
    if if_none_match is not None and matches_etag(if_none_match.replace("W/", ""), tag):
        return Response(status_code=304, headers=headers)
    return await streamed(export_birthdays(database, owner_id), "text/calendar", headers)
