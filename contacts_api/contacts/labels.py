"""The labels of an owner's contacts, each one label in any letter case."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from fastapi import Depends
from pydantic import Field

from contacts_api.accounts.tokens import Owner
from contacts_api.contacts import queries
from contacts_api.contacts.fields import distinct, label_key
from contacts_api.contacts.models import columns_of, fields_of, label_tag
from contacts_api.database import Autocommit, Database, Reader
from contacts_api.problems import NotFound
from contacts_api.text import fold

MAX_LISTED = 10_000
# Contacts that change in one transaction: of a million, others wait for none of these for long.
_BITE_ROWS = 200


class LabelNotFound(NotFound):
    """The label in the path is on no contact of yours, in any letter case."""

    advice = "List your labels: GET /contacts/labels."
    code, title = "label_not_found", "None of your contacts has this label"


async def list_labels(database: Reader, owner_id: UUID) -> list[dict[str, Any]]:
    """Return the labels by their folded text, each as it is written on the contact that was created first."""
    rows = await database.read(queries.LABELS, owner_id=owner_id, limit=MAX_LISTED)
    counts: dict[str, int] = {}
    labels: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (row.since, row.id)):
        key = label_key(row.label)
        labels.setdefault(key, row.label)
        counts[key] = counts.get(key, 0) + row.contacts
    listed = [{"label": label, "contacts": counts[key]} for key, label in labels.items()]
    return sorted(listed, key=lambda each: (fold(each["label"]), each["label"]))


async def replace_label(database: Database, owner_id: UUID, label: str, replacement: Sequence[str]) -> int:
    """Write the replacement, if there is one, wherever the contacts have this label; return how many have changed.

    A few contacts at a time, each time in a transaction: doing it again after an error goes on where it ended.
    """
    changed = 0
    after: UUID | None = UUID(int=0)
    while after is not None:
        async with database.session() as session:
            which = {"owner_id": owner_id, "tag": _pattern(label), "after": after, "limit": _BITE_ROWS}
            rows = (await session.execute(queries.LOCK_LABELLED, which)).mappings().all()
            changes = await asyncio.to_thread(_relabelled, rows, label_key(label), replacement)
            if changes:
                shared = {"owner_id": owner_id, "now": await session.scalar(queries.NOW)}
                await session.execute(queries.RELABEL, [{**columns, **shared} for columns in changes])
        changed += len(changes)
        after = rows[-1]["id"] if len(rows) == _BITE_ROWS else None
    return changed


def _relabelled(rows: Iterable[Any], key: str, replacement: Sequence[str]) -> list[dict[str, Any]]:
    """Return the columns of the contacts that change."""
    changes = []
    for row in rows:
        fields = fields_of(row)
        labels = fields["labels"]
        new = distinct([each for old in labels for each in (replacement if label_key(old) == key else [old])])
        if new != labels:
            changes.append({**columns_of({**fields, "labels": new}), "contact_id": row["id"]})
    return changes


def _pattern(label: str) -> str:
    return f"%{label_tag(label)}%"


LabelInPath = Annotated[str, Field(description="The label, in any letter case.", examples=["Navy"])]


async def get_own_label(label: LabelInPath, owner: Owner, database: Autocommit) -> str:
    if not await database.read(queries.HAS_LABEL, owner_id=owner.user_id, tag=_pattern(label)):
        raise LabelNotFound
    return label


OwnLabel: TypeAlias = Annotated[str, Depends(get_own_label)]
"""The label in the path, which a contact of the caller's has."""
