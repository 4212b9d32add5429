"""Files out of the database, read page by page: no connection is held while a slow client takes its time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Select

from contacts_api.contacts import queries
from contacts_api.contacts.models import ContactBase
from contacts_api.database import Database, Row
from contacts_api.exchange import csv, icalendar, vcard
from contacts_api.exchange.records import Format

# Of fewer, more of the time goes into asking; for more, everybody else waits longer. The first come at once.
FIRST_ROWS, PAGE_ROWS = 100, 3000
_WIDTH = len(ContactBase.model_fields) + 1

Statement = Callable[[bool], Select[Any]]


async def export_contacts(
    database: Database, owner_id: UUID, query: queries.ContactFilter, format_: Format
) -> AsyncIterator[bytes]:
    """Yield a file of the contacts, in pieces: the first one as soon as there is something of it to be seen."""
    statement = partial(queries.rows_of_contacts, query.sort, frozenset(query.terms()))
    codec, first = (csv, 1) if format_ == "csv" else (vcard, 0)
    head = codec.HEAD
    async for rows in _pages(database, statement, owner_id=owner_id, **query.patterns()):
        # In a thread, so that nothing else waits for it.
        yield head + await asyncio.to_thread(codec.unparse, [row[first:_WIDTH] for row in rows])
        head = b""
    yield head + codec.TAIL


async def export_birthdays(database: Database, owner_id: UUID) -> AsyncIterator[bytes]:
    """Yield a calendar of the birthdays, in pieces."""
    head = icalendar.HEAD
    async for rows in _pages(database, queries.rows_of_birthdays, owner_id=owner_id):
        yield head + await asyncio.to_thread(icalendar.unparse, rows)
        head = b""
    yield head + icalendar.TAIL


async def _pages(database: Database, statement: Statement, **parameters: Any) -> AsyncIterator[list[Row]]:
    limit = FIRST_ROWS
    rows = await database.read(statement(True), limit=limit, **parameters)
    while rows:
        yield rows
        if len(rows) < limit:
            return
        limit = PAGE_ROWS
        position = queries.after(queries.position_of(rows[-1]))
        rows = await database.read(statement(False), limit=limit, **parameters, **position)
