"""Reads, creates, changes and deletes one contact, by single statements without locks.

A change is written only if the contact still has the version that was read. Otherwise it starts again.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import asyncpg

from contacts_api.contacts import queries, quota
from contacts_api.contacts.models import columns_of, fields_of, is_same
from contacts_api.contacts.own import ContactNotFound, PreconditionFailed
from contacts_api.database.engine import Database
from contacts_api.http.etags import matches_etag
from contacts_api.problems import Busy

MAX_ATTEMPTS = 20
"""The maximum number of attempts when concurrent requests change the same contact."""


async def find(database: Database, owner_id: UUID, contact_id: UUID) -> Mapping[str, Any]:
    """Return the row of a contact. Raises ContactNotFound."""
    rows = await database.read(queries.GET, owner_id=owner_id, contact_id=contact_id)
    if not rows:
        raise ContactNotFound
    return rows[0]


async def create_under(
    database: Database, owner_id: UUID, contact_id: UUID, fields: Mapping[str, Any], max_contacts: int
) -> Mapping[str, Any]:
    """Create a contact with an id that its owner chose, and return its row.

    Raises TooManyContacts, and PreconditionFailed if the contact exists already.
    """
    # Random, so that the ETag differs from that of a deleted contact with the same id.
    version = secrets.randbelow(2**30)
    key = {"owner_id": owner_id, "id": contact_id, "version": version}
    try:
        return await quota.create(database, max_contacts, **key, **columns_of(fields))
    except asyncpg.UniqueViolationError:
        raise PreconditionFailed from None


async def change(
    database: Database,
    owner_id: UUID,
    contact_id: UUID,
    apply: Callable[[dict[str, Any]], Mapping[str, Any]],
    if_match: str | None,
) -> Mapping[str, Any]:
    """Apply a change to the fields of a contact, and return its row.

    Raises ContactNotFound, PreconditionFailed, and Busy after MAX_ATTEMPTS conflicts.
    """
    key = {"owner_id": owner_id, "contact_id": contact_id}
    for _ in range(MAX_ATTEMPTS):
        row = await find(database, **key)
        _check_version(if_match, row)
        columns = columns_of(apply(fields_of(row)))
        if is_same(columns, row):
            return row
        if changed := await database.execute(queries.UPDATE, version=row["version"], **key, **columns):
            return {**row, **columns, **changed[0]}
    raise Busy


async def delete(database: Database, owner_id: UUID, contact_id: UUID, if_match: str | None) -> None:
    """Delete a contact. Raises ContactNotFound, PreconditionFailed, and Busy after MAX_ATTEMPTS conflicts."""
    key = {"owner_id": owner_id, "contact_id": contact_id}
    if if_match is None:
        if not await database.execute(queries.DELETE, **key):
            raise ContactNotFound
        return
    for _ in range(MAX_ATTEMPTS):
        row = await find(database, **key)
        _check_version(if_match, row)
        if await database.execute(queries.DELETE_AS_READ, version=row["version"], **key):
            return
    raise Busy


def _check_version(if_match: str | None, row: Mapping[str, Any]) -> None:
    if if_match is not None and not matches_etag(if_match, row["version"]):
        raise PreconditionFailed
