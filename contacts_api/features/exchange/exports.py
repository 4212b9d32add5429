"""Files out of the database, read page by page: no connection is held while a slow client takes its time."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

from contacts_api.contacts import queries
from contacts_api.contacts.models import fields_of
from contacts_api.database.engine import Reader
from contacts_api.features.exchange import csv_file as csv
from contacts_api.features.exchange import vcard
from contacts_api.features.exchange.files import Format
from contacts_api.http.paging import pages_of


async def export_contacts(
    database: Reader, owner_id: UUID, query: queries.ContactFilter, format_: Format
) -> AsyncIterator[bytes]:
    """Yield a file of the contacts, in pieces: the first one as soon as there is something of it to be seen."""
    terms = query.terms()
    listing = queries.exported(query.sort, terms.shape)
    codec = csv if format_ == "csv" else vcard
    head = codec.HEAD
    async for rows in pages_of(database, listing, owner_id=owner_id, **terms.parameters):
        contacts = ({"vcard_uid": row["vcard_uid"], **fields_of(row)} for row in rows if row["is_found"])
        # In a thread, so that nothing else waits for it.
        yield head + await asyncio.to_thread(codec.unparse, contacts)
        head = b""
    yield head
