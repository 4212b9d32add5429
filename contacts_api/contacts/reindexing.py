"""Updates the derived columns of contacts that were written by older folding rules, in batches, while the API runs."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from contacts_api.accounts.models import User
from contacts_api.contacts.models import FIELDS, FOLDING, STORED, Contact, columns_of, fields_of
from contacts_api.database.engine import Database, table_of

BATCH_ROWS = 500

_contact = table_of(Contact).c
_OWNED = _contact.owner_id == bindparam("owner_id")
_OLD = (
    select(_contact.id, _contact.version, *(_contact[name] for name in FIELDS))
    .where(_OWNED, _contact.folding != FOLDING, _contact.id > bindparam("after"))
    .order_by(_contact.id)
    .limit(BATCH_ROWS)
)
_COMPARED = [name for name in STORED if name not in FIELDS]
# Only if the contact still has the version that was read, because an edit has already folded it. Clients see no change.
_FOLD = text(
    f"""
    UPDATE contact SET {", ".join(f"{name} = :{name}" for name in _COMPARED)}
    WHERE owner_id = :owner_id AND id = :contact_id AND version = :version
    """  # nosec B608 (names of columns)
)


async def reindex(database: Database, on_progress: Callable[[int, int], None]) -> None:
    """Fold the contacts of all accounts. Calls `on_progress(done, total)` after each account."""
    async with database.session() as session:
        owners = (await session.scalars(select(col(User.id)).order_by(col(User.id)))).all()
    for done, owner_id in enumerate(owners, 1):
        last: UUID | None = UUID(int=0)
        while last is not None:
            async with database.session() as session:
                last = await _fold_some(session, owner_id, last)
        on_progress(done, len(owners))


async def reindex_owner(session: AsyncSession, owner_id: UUID) -> None:
    """Fold the contacts of one account. Commits each batch, because a transaction locks the rows that it writes."""
    last: UUID | None = UUID(int=0)
    while last is not None:
        last = await _fold_some(session, owner_id, last)
        await session.commit()


def _folded(owner_id: UUID, row: Any) -> dict[str, Any]:
    columns = columns_of(fields_of(row))
    key = {"owner_id": owner_id, "contact_id": row["id"], "version": row["version"]}
    return key | {name: columns[name] for name in _COMPARED}


async def _fold_some(session: AsyncSession, owner_id: UUID, after: UUID) -> UUID | None:
    """Fold the next batch of contacts. Return the id of the last one, or None if there are no more."""
    rows = (await session.execute(_OLD, {"owner_id": owner_id, "after": after})).mappings().all()
    if not rows:
        return None
    # In a thread, because some scripts take long to fold, and an import does this in a worker that serves requests.
    await session.execute(_FOLD, await asyncio.to_thread(lambda: [_folded(owner_id, row) for row in rows]))
    return UUID(str(rows[-1]["id"]))
