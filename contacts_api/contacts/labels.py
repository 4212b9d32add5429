"""Listing, renaming and deleting the labels of an owner's contacts. Letter case does not matter."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from operator import itemgetter
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import orjson
from pydantic import Field

from contacts_api.contacts import queries
from contacts_api.contacts.fields import distinct, label_key
from contacts_api.contacts.models import columns_of, fields_of, label_tag
from contacts_api.database.connecting import Row
from contacts_api.database.engine import Database, Reader
from contacts_api.database.waiting import refuse_disconnected
from contacts_api.http.paging import pages_of
from contacts_api.problems import NotFound
from contacts_api.text import LABEL_CHARACTERS, fold

MAX_LISTED = 10_000
MAX_COUNTED = 50_000
"""The maximum number of different labels that are counted. Beyond it, the least used ones are dropped."""
# The maximum number of contacts in one transaction. Small, so that other requests do not wait long for them.
_BITE_ROWS = 100


class LabelNotFound(NotFound):
    """None of your contacts has the label in the path, in any letter case."""

    advice = "List your labels: GET /contacts/labels."
    code, title = "label_not_found", "None of your contacts has this label"


async def list_labels(database: Reader, owner_id: UUID) -> list[dict[str, Any]]:
    """Return the labels with their numbers of contacts, sorted by the folded label.

    Each label is spelled as on the contact that was created first. The contacts are read page by page, so that no
    statement takes long and other requests are not blocked.
    """
    counts: Counter[str] = Counter()
    async for rows in pages_of(database, queries.LABELS, owner_id=owner_id):
        await refuse_disconnected()
        await asyncio.to_thread(_count, counts, rows)
    return await asyncio.to_thread(_merge_spellings, counts)


def _count(counts: Counter[str], rows: Iterable[Row]) -> None:
    """Count the labels of these rows, each spelling separately. `counts` keeps the order of first occurrence."""
    for row in rows:
        if row["labels"] != "[]":
            counts.update(orjson.loads(row["labels"]))
    if len(counts) > MAX_COUNTED:
        for label in sorted(counts, key=counts.__getitem__, reverse=True)[MAX_COUNTED // 2 :]:
            del counts[label]


def _merge_spellings(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    labels: dict[str, dict[str, Any]] = {}
    for label, count in counts.items():
        labels.setdefault(label_key(label), {"label": label, "contacts": 0})["contacts"] += count
    most_used = nlargest(MAX_LISTED, labels.values(), key=itemgetter("contacts"))
    return sorted(most_used, key=lambda each: (fold(each["label"]), each["label"]))


async def replace_label(database: Database, owner_id: UUID, label: str, replacement: Sequence[str]) -> int:
    """Replace a label on all contacts of the owner, or remove it if `replacement` is empty.

    Return the number of changed contacts. Each transaction changes at most _BITE_ROWS contacts, and a second call after
    an error continues with the rest. Raises LabelNotFound.
    """
    # A longer text cannot be a label, and folding it would block the event loop.
    if len(label) > LABEL_CHARACTERS:
        raise LabelNotFound
    changed, is_found = 0, False
    async for rows in pages_of(database, queries.LABELLED, owner_id=owner_id, tag=f"%{label_tag(label)}%"):
        ids = [row["id"] for row in rows if row["is_labelled"]]
        is_found = is_found or bool(ids)
        for start in range(0, len(ids), _BITE_ROWS):
            changed += await _replace_on(database, owner_id, ids[start : start + _BITE_ROWS], label, replacement)
    if not is_found:
        raise LabelNotFound
    return changed


async def _replace_on(
    database: Database, owner_id: UUID, ids: Sequence[UUID], label: str, replacement: Sequence[str]
) -> int:
    async with database.session() as session:
        rows = (await session.execute(queries.LOCK_FIELDS, {"owner_id": owner_id, "ids": ids})).mappings().all()
        changes = await asyncio.to_thread(_relabelled, rows, label_key(label), replacement)
        if changes:
            shared = {"owner_id": owner_id, "now": await session.scalar(queries.NOW)}
            await session.execute(queries.RELABEL, [{**columns, **shared} for columns in changes])
    return len(changes)


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


LabelInPath: TypeAlias = Annotated[str, Field(description="The label, in any letter case.", examples=["Navy"])]
