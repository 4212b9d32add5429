"""How many contacts an owner may have: a limit that holds whoever creates them, and however many at once."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from contacts_api.contacts import queries
from contacts_api.database.engine import Database
from contacts_api.problems import Invalid, TooMany

MIB = 1024 * 1024
MAX_ANSWER_BYTES = 8 * MIB
"""How large the contacts that one call changes may be in all: they are in memory, and in the answer."""


class TooManyContacts(TooMany):
    detail = "An account may have at most 1,000,000 contacts."

    def __init__(self, max_contacts: int) -> None:
        super().__init__(f"An account may have at most {max_contacts:,} contacts.")


async def create(database: Database, max_contacts: int, **columns: Any) -> dict[str, Any]:
    """Create a contact, and return its columns. Raises TooManyContacts."""
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
    """Count `count` contacts that the transaction creates. Raises TooManyContacts."""
    if not count:
        # An account may have more than a limit that was lowered: what creates nothing goes on.
        return
    limits = {"owner_id": owner_id, "count": count, "max_contacts": max_contacts}
    is_counted = (await session.execute(queries.RAISE_TALLY, limits)).first()
    if not is_counted and await recount(session, owner_id) > max_contacts:
        raise TooManyContacts(max_contacts)


async def recount(session: AsyncSession, owner_id: UUID) -> int:
    """Set the owner's tally to the number of their contacts, which is returned. Others that create wait meanwhile."""
    for statement in (queries.START_TALLY, queries.LOCK_TALLY):
        await session.execute(statement, {"owner_id": owner_id})
    return int((await session.execute(queries.COUNT_TALLY, {"owner_id": owner_id})).scalar_one())


async def lock_answerable(session: AsyncSession, owner_id: UUID, ids: Sequence[UUID]) -> None:
    """Lock these contacts. Raises Invalid, with how many fit, if an answer with all of them would be too large."""
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
