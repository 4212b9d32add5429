"""In and out: batches, files and the calendar of birthdays."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Response
from uuid_utils.compat import uuid7

from contacts_api.accounts.users import InvalidToken, Owner
from contacts_api.contacts import queries as contact_queries
from contacts_api.contacts.models import columns_of
from contacts_api.contacts.routes import JSON, PRIVATE
from contacts_api.database import Autocommit
from contacts_api.errors import DatabaseUnavailable, Unauthorized, documented
from contacts_api.exchange.models import ContactBatch, ContactList
from contacts_api.http import BodyLimit, Route

BATCH_BYTES = 2 * 1024 * 1024

Batch: TypeAlias = Annotated[ContactBatch, BodyLimit(lambda _: BATCH_BYTES)]

exchange = APIRouter(
    prefix="/contacts",
    tags=["exchange"],
    route_class=Route,
    responses=documented(Unauthorized, InvalidToken, DatabaseUnavailable),
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
