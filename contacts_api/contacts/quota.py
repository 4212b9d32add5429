"""The maximum number of contacts of an owner. It holds for all ways to create contacts, and for concurrent requests."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from contacts_api.contacts import queries
from contacts_api.database.engine import Database
from contacts_api.problems import Invalid, TooMany

MIB = 1024 * 1024
MAX_ANSWER_BYTES = 8 * MIB
"""The maximum total size of the contacts that one request changes. They are in memory and in the response."""


class TooManyContacts(TooMany):
    detail = "An account may have at most 1,000,000 contacts."

    def __init__(self, max_contacts: int) -> None:
        super().__init__(f"An account may have at most {max_contacts:,} contacts.")


async def create(database: Database, max_contacts: int, **columns: Any) -> dict[str, Any]:
    """Create a contact and return its columns. Raises TooManyContacts."""
    parameters = {"count": 1, "max_contacts": max_contacts, **columns}
    created = await database.execute(queries.CREATE, **parameters)
    if not created:
        async with database.session() as session:
            await recount(session, columns["owner_id"])
        created = await database.execute(queries.CREATE, **parameters)
    if not created:
        raise TooManyContacts(max_contacts)
    return {**columns, **created[0]}


async def keep_within(session: AsyncSession, owner_id: UUID, count: int, max_contacts: int) -> None:
    """Add `count` contacts that the transaction creates to the owner's tally. Raises TooManyContacts."""
    if not count:
        # After the limit is lowered, an account may exceed it. Requests that create nothing must still work.
        return
    limits = {"owner_id": owner_id, "count": count, "max_contacts": max_contacts}
    is_counted = (await session.execute(queries.RAISE_TALLY, limits)).first()
    if not is_counted and await recount(session, owner_id) > max_contacts:
        raise TooManyContacts(max_contacts)


async def recount(session: AsyncSession, owner_id: UUID) -> int:
    """Set the owner's tally to the number of contacts, and return it. Concurrent creates wait for the transaction."""
    for statement in (queries.START_TALLY, queries.LOCK_TALLY):
        await session.execute(statement, {"owner_id": owner_id})
    return int((await session.execute(queries.COUNT_TALLY, {"owner_id": owner_id})).scalar_one())


async def lock_answerable(session: AsyncSession, owner_id: UUID, ids: Sequence[UUID]) -> None:
    """Lock these contacts. Raises Invalid, with the number that fit, if a response with all of them is too large."""
    locked = await session.execute(queries.LOCK_SIZES, {"owner_id": owner_id, "ids": ids})
    sizes = {row.id: row.size for row in locked}
    total = 0
    for count, contact_id in enumerate(ids):
        total += sizes.get(contact_id, 0)
        if total > MAX_ANSWER_BYTES:
            detail = (
                f"The answer would have more than {MAX_ANSWER_BYTES // MIB} MiB, because these contacts have long "
                f"details. Send the first {count} in one call, and the others in further calls."
            )
            raise Invalid.field("body", "items", code="too_large", detail=detail)
