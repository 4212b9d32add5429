"""Export contacts page by page, so that a slow client does not hold a database connection."""

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
    """Yield the exported file in chunks, starting with the header."""
    terms = query.terms()
    listing = queries.exported(query.sort, terms.shape)
    codec = csv if format_ == "csv" else vcard
    head = codec.HEAD
    async for rows in pages_of(database, listing, owner_id=owner_id, **terms.parameters):
        contacts = ({"vcard_uid": row["vcard_uid"], **fields_of(row)} for row in rows if row["is_found"])
        # Encode in a thread, so that the event loop is not blocked.
        yield head + await asyncio.to_thread(codec.unparse, contacts)
        head = b""
    yield head
