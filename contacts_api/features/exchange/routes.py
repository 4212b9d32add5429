"""Routes for batches, imports and exports."""

import asyncio
from collections.abc import Coroutine
from operator import itemgetter
from typing import Annotated, Any, TypeAlias, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from uuid_utils.compat import uuid7

from contacts_api.accounts.strategy import FOR_OWNERS, Owner, identify
from contacts_api.contacts import queries
from contacts_api.contacts.fields import last_date_of_birth
from contacts_api.contacts.models import (
    AN_EXAMPLE,
    AN_ID,
    Contact,
    ContactCreate,
    ContactUpdate,
    columns_of,
    fields_of,
    is_same,
)
from contacts_api.contacts.own import ContactNotFound
from contacts_api.contacts.queries import ContactFilter
from contacts_api.contacts.quota import TooManyContacts, keep_within, lock_answerable
from contacts_api.database.engine import Autocommit, Reads
from contacts_api.database.waiting import has_come
from contacts_api.features.exchange import csv_file as csv
from contacts_api.features.exchange import vcard
from contacts_api.features.exchange.columns import read_columns, table_of_columns
from contacts_api.features.exchange.exports import export_contacts
from contacts_api.features.exchange.files import UNUSABLE_FILES
from contacts_api.features.exchange.imports import ImportRunning, claim_import, import_file
from contacts_api.features.exchange.models import (
    ContactBatch,
    ContactChange,
    ContactChanges,
    ContactIds,
    ContactList,
    Deleted,
    ImportQuery,
    ImportReport,
)
from contacts_api.http.answers import PRIVATE, file_of, json_answer, streamed
from contacts_api.http.bodies import BodyLimit, in_steps, validate_items
from contacts_api.http.query import QueryParameters
from contacts_api.http.route import Handler, Route
from contacts_api.problems import MAX_ERRORS, FieldError, Invalid, documented

BATCH_BYTES = 2 * 1024 * 1024
COLUMNS_BYTES = 16 * 1024
CONNECTED_SECONDS = 1.0
"""How often an import checks if its client is still connected."""

T = TypeVar("T")

Batch: TypeAlias = Annotated[ContactBatch, BodyLimit(lambda _: BATCH_BYTES)]
Changes: TypeAlias = Annotated[ContactChanges, BodyLimit(lambda _: BATCH_BYTES)]
Filter: TypeAlias = Annotated[ContactFilter, Depends(QueryParameters(ContactFilter))]
ImportOptions: TypeAlias = Annotated[ImportQuery, Depends(QueryParameters(ImportQuery))]
Upload: TypeAlias = Annotated[
    UploadFile,
    File(
        description="CSV or vCards, at most 100 MB.", json_schema_extra={"format": "binary"}, examples=["contacts.csv"]
    ),
    BodyLimit(lambda settings: settings.import_max_bytes),
]


ColumnMeanings: TypeAlias = Annotated[
    str | None,
    Form(
        max_length=COLUMNS_BYTES,
        description="For a CSV file whose columns have names of its own, a JSON object from names to fields: "
        '{"Wer": "first_name", "Rufnr.": "phone", "Nr.": null}',
        # The docs page sends the example if nothing is filled in.
        examples=["{}"],
    ),
]


IMPORTING = """\
Import a CSV file or vCards.

It reads what Google, Outlook, Apple, Android, Thunderbird, Nextcloud, LinkedIn and HubSpot export. To try it:
[contacts.csv](assets/contacts.csv), [contacts.vcf](assets/contacts.vcf).

Nothing is lost without a word. What contacts have no field for is kept in `details`, and so is a value that its field
refuses; groups and categories become `labels`. `warnings`, `skips` and `not_kept` say what happened, and only a row
without a person is an error. Look at a `dry_run` first, and give the import a `label`, by which you find its contacts.

`on_duplicate` says what happens to contacts that you have already: they are skipped, updated with what the file says,
or created again. You have a contact already if one of yours came from a vCard with the same UID, or if it has the same
name and the same e-mail address (where neither has one, the same phone number; where neither has that, the same date of
birth). If several rows are the same contact, the first one counts; an update takes the last value of each field, and
adds labels and details. Edits made during the import are kept.
"""


class UploadRoute(Route):
    """A route for a large upload, without a time limit.

    Authenticates the owner and claims the import before the file is read, because FastAPI would read the file first.
    """

    async def run(self, handle: Handler, request: Request) -> Response:
        owner = await identify(request)
        async with claim_import(request.app.state.database, owner.user_id):
            return await handle(request)


class BatchRoute(Route):
    """A route for a body of up to BATCH_BYTES, or up to 64 KiB from a client that is not signed in."""

    # Enough for 500 contacts with 10 e-mail addresses each that take milliseconds to validate.
    seconds = 30.0
    check_sender = staticmethod(identify)


_AN_EXAMPLE = {"vcard_uid": AN_ID, **ContactCreate(**AN_EXAMPLE).model_dump()}

exchange = APIRouter(prefix="/contacts", route_class=Route, responses=FOR_OWNERS)
batches = APIRouter(prefix="/contacts", route_class=BatchRoute, responses=FOR_OWNERS)
uploads = APIRouter(prefix="/contacts", route_class=UploadRoute, responses=FOR_OWNERS)


def download(name: str) -> dict[str, str]:
    return {**PRIVATE, "Content-Disposition": f'attachment; filename="{name}"'}


@batches.post("/batch", status_code=201, response_model=ContactList, responses=documented(TooManyContacts))
async def create_contacts(batch: Batch, request: Request, owner: Owner, database: Autocommit) -> Response:
    """Create up to 500 contacts: all of them, or none."""
    state = request.app.state
    async with state.large_bodies.place():
        contacts = await validate_items(ContactCreate, batch.items)
        columns = await in_steps(lambda new: columns_of(new.model_dump()), contacts)
    # PostgreSQL may return the rows in any order. With ascending ids, sorting by id restores the order of the items.
    ids = sorted(uuid7() for _ in columns)
    rows = [{"owner_id": owner.user_id, "id": id_, **each} for id_, each in zip(ids, columns, strict=True)]
    async with database.session() as session:
        created = (await session.execute(queries.CREATE_ALL, rows)).mappings().all()
        await keep_within(session, owner.user_id, len(rows), state.settings.max_contacts)
    items = [queries.shown(row) for row in sorted(created, key=itemgetter("id"))]
    return json_answer({"items": items}, PRIVATE, 201)


@batches.post("/batch/update", response_model=ContactList, responses=documented(ContactNotFound))
async def update_contacts(batch: Changes, request: Request, owner: Owner, database: Autocommit) -> Response:
    """Change up to 500 contacts: all of them, or none. Each is a JSON merge patch (RFC 7396) with a contact id."""
    async with request.app.state.large_bodies.place():
        patches = await validate_items(ContactChange, batch.items)
    positions: dict[UUID, int] = {}
    for index, patch in enumerate(patches):
        if positions.setdefault(patch.id, index) != index:
            raise Invalid(errors=[_error_of(index, "repeated", "The same contact is in the list twice.")])
    async with database.session() as session:
        await lock_answerable(session, owner.user_id, list(positions))
        locked = await session.scalars(queries.LOCK_ALL, {"owner_id": owner.user_id, "ids": list(positions)})
        contacts = {contact.id: contact for contact in locked}
        unknown = [index for contact_id, index in positions.items() if contact_id not in contacts]
        if unknown:
            errors = [_error_of(index, ContactNotFound.code, "You have no contact with this id.") for index in unknown]
            raise ContactNotFound(errors=errors[:MAX_ERRORS])
        now = await session.scalar(queries.NOW)
        changed = await in_steps(lambda patch: _changes(contacts[patch.id], patch), patches)
        for patch, columns in zip(patches, changed, strict=True):
            if columns:
                contacts[patch.id].sqlmodel_update({**columns, "updated_at": now})
        await session.flush()
    return json_answer({"items": [queries.shown(contacts[patch.id].model_dump()) for patch in patches]}, PRIVATE)


def _changes(contact: Contact, patch: ContactUpdate) -> dict[str, Any]:
    row = contact.model_dump()
    columns = columns_of(fields_of(row) | patch.sent())
    return {} if is_same(columns, row) else columns


def _error_of(index: int, code: str, detail: str) -> FieldError:
    return FieldError(loc=["body", "items", index, "id"], code=code, detail=detail)


@exchange.post("/batch/delete")
async def delete_contacts(batch: ContactIds, owner: Owner, database: Autocommit) -> Deleted:
    """Delete up to 500 contacts. Unknown ids are ignored."""
    async with database.session() as session:
        deleted = await session.execute(queries.DELETE_ALL, {"owner_id": owner.user_id, "ids": batch.ids})
    return Deleted(deleted=len(deleted.all()))


@uploads.post(
    "/import",
    responses=documented(ImportRunning, TooManyContacts, *UNUSABLE_FILES),
    description=f"{IMPORTING}\n\n{table_of_columns()}",
    # One file and the field `columns`. Other fields are parsed only to reject them.
    form_limits={"max_files": 1, "max_fields": 20, "max_part_size": COLUMNS_BYTES},
)
async def import_contacts(
    file: Upload, query: ImportOptions, request: Request, owner: Owner, columns: ColumnMeanings = None
) -> ImportReport:
    """Import a CSV file or vCards."""
    for name in await request.form():
        if name not in ("file", "columns"):
            raise Invalid.field("body", name[:64], code="unknown", detail="Options go into the query string.")
    state = request.app.state
    has_come(request)
    work = import_file(
        state.imports,
        owner.user_id,
        file.file,
        query,
        columns=read_columns(columns),
        last_date_of_birth=last_date_of_birth(state.clock()),
        max_rows=state.settings.import_max_rows,
        max_contacts=state.settings.max_contacts,
    )
    return await while_connected(request, work)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run the work, and cancel it if the client disconnects. Raises ClientDisconnect."""
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([working], timeout=CONNECTED_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@exchange.get(
    "/export.csv",
    response_class=StreamingResponse,
    responses=file_of("text/csv; charset=utf-8", csv.HEAD + csv.unparse([_AN_EXAMPLE]), "Content-Disposition"),
)
async def export_csv(query: Filter, owner: Owner, database: Reads) -> Response:
    """Export contacts as a CSV file. Use it for spreadsheets and other address books."""
    pieces = export_contacts(database, owner.user_id, query, "csv")
    return await streamed(pieces, "text/csv", download("contacts.csv"))


@exchange.get(
    "/export.vcf",
    response_class=StreamingResponse,
    responses=file_of("text/vcard; charset=utf-8", vcard.unparse([_AN_EXAMPLE]), "Content-Disposition"),
)
async def export_vcards(query: Filter, owner: Owner, database: Reads) -> Response:
    """Export contacts as vCards. Use them for phones and other address books."""
    pieces = export_contacts(database, owner.user_id, query, "vcard")
    return await streamed(pieces, "text/vcard", download("contacts.vcf"))
