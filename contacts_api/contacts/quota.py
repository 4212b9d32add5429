"""How many contacts an owner may have: a limit that holds whoever creates them, and however many at once."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import Executable

from contacts_api.contacts import queries
from contacts_api.database import Database, Row, fetch
from contacts_api.problems import TooMany


class TooManyContacts(TooMany):
    title = "You have as many contacts as an account may have"
    detail = "An account may have at most 1,000,000 contacts."

    def __init__(self, max_contacts: int) -> None:
        super().__init__(f"An account may have at most {max_contacts:,} contacts.")


async def create_within(
    database: Database, statement: Executable, *, owner_id: UUID, count: int, max_contacts: int, **parameters: Any
) -> Row:
    """Run the statement that creates `count` contacts, and return its row. Raises TooManyContacts."""
    limits = {"owner_id": owner_id, "count": count, "max_contacts": max_contacts}
    created = await database.write(statement, **limits, **parameters)
    if not _has_created(created):
        async with database.transaction(keep=True) as connection:
            await count_contacts(connection, owner_id)
        created = await database.write(statement, **limits, **parameters)
    if not _has_created(created):
        raise TooManyContacts(max_contacts)
    return created[0]


async def keep_within(connection: asyncpg.Connection, owner_id: UUID, count: int, max_contacts: int) -> None:
    """Count `count` contacts that the transaction has created. Raises TooManyContacts."""
    if not count:
        # An account may have more than a limit that was lowered: what creates nothing goes on.
        return
    limits = {"owner_id": owner_id, "count": count, "max_contacts": max_contacts}
    is_counted = await fetch(connection, queries.RAISE_TALLY, **limits)
    if not is_counted and await count_contacts(connection, owner_id) > max_contacts:
        raise TooManyContacts(max_contacts)


async def count_contacts(connection: asyncpg.Connection, owner_id: UUID) -> int:
    """Count the owner's contacts anew, with nobody else counting up meanwhile, and return how many there are."""
    for statement in (queries.START_TALLY, queries.LOCK_TALLY):
        await fetch(connection, statement, owner_id=owner_id)
    ((count,),) = await fetch(connection, queries.COUNT_TALLY, owner_id=owner_id)
    return int(count)


def _has_created(rows: Sequence[Row]) -> bool:
    return bool(rows) and rows[0].body is not None
