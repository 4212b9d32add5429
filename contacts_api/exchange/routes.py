"""In and out: batches, files and the calendar of birthdays."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, File, Query, Request, Response, UploadFile
from uuid_utils.compat import uuid7

from contacts_api.accounts.users import InvalidToken, Owner
from contacts_api.contacts import queries as contact_queries
from contacts_api.contacts.models import columns_of, last_date_of_birth
from contacts_api.contacts.routes import JSON, PRIVATE
from contacts_api.database import Autocommit
from contacts_api.errors import DatabaseUnavailable, Unauthorized, documented
from contacts_api.exchange.imports import REFUSALS, ImportRunning, TooManyRows, import_file
from contacts_api.exchange.models import ContactBatch, ContactList, ImportReport, OnDuplicate
from contacts_api.http import BodyLimit, Route

BATCH_BYTES = 2 * 1024 * 1024

Batch: TypeAlias = Annotated[ContactBatch, BodyLimit(lambda _: BATCH_BYTES)]
Upload: TypeAlias = Annotated[
    UploadFile,
    File(description="CSV or vCards."),
    BodyLimit(lambda settings: settings.import_max_bytes),
]
DryRun: TypeAlias = Annotated[bool, Query(description="Only say what would happen.")]
Duplicates: TypeAlias = Annotated[OnDuplicate, Query(description="What to do with contacts that are there already.")]

exchange = APIRouter(
    prefix="/contacts",
    tags=["exchange"],
    route_class=Route,
    responses=documented(Unauthorized, InvalidToken, DatabaseUnavailable),
    # One file, and nothing beside it that would be kept in memory.
    form_limits={"max_files": 1, "max_fields": 0},
)


@exchange.post("/batch", status_code=201, response_model=ContactList)
async def create_contacts(batch: Batch, owner: Owner, database: Autocommit) -> Response:
    """Create up to 500 contacts: all of them, or none."""
    rows = [columns_of(new) for new in batch.items]
    lists = {f"{name}s": [row[name] for row in rows] for name in rows[0]}
    # In the order of the items, which is that of their ids.
    ids = sorted(uuid7() for _ in rows)
    (row,) = await database.write(contact_queries.CREATE_ALL, owner_id=owner.user_id, ids=ids, **lists)
    return Response(f'{{"items":{row.body}}}', 201, PRIVATE, JSON)


@exchange.post("/import", responses=documented(ImportRunning, TooManyRows, *REFUSALS.values()))
async def import_contacts(
    file: Upload,
    request: Request,
    owner: Owner,
    database: Autocommit,
    dry_run: DryRun = False,
    on_duplicate: Duplicates = "skip",
) -> ImportReport:
    """Import a CSV file or vCards, as Google, Outlook, iCloud, Android and Nextcloud export them.

    The good rows are imported, the bad ones reported. A contact that is there already (by the UID of its vCard, or by
    its name and its e-mail address or else its phone number) is skipped, updated with what the file has, or created
    once more; where the file has it several times, the first one is taken, to update the last one.
    """
    state = request.app.state
    return await import_file(
        database,
        owner.user_id,
        file.file,
        last_date_of_birth=last_date_of_birth(state.clock()),
        max_rows=state.settings.import_max_rows,
        dry_run=dry_run,
        on_duplicate=on_duplicate,
    )
