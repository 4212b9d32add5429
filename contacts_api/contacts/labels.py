"""The labels of an owner's contacts, each one label in any letter case."""

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
"""How many different labels are counted at a time. Beyond that, the least used ones are forgotten."""
# How many contacts change in one transaction: few, so that others wait for none of them for long.
_BITE_ROWS = 100


class LabelNotFound(NotFound):
    """The label in the path is on no contact of yours, in any letter case."""

    advice = "List your labels: GET /contacts/labels."
    code, title = "label_not_found", "None of your contacts has this label"


async def list_labels(database: Reader, owner_id: UUID) -> list[dict[str, Any]]:
    """Return the labels by their folded text, each as it is written on the contact that was created first.

    The contacts are read page by page, so that no statement takes long and others get their turns.
    """
    counts: Counter[str] = Counter()
    async for rows in pages_of(database, queries.LABELS, owner_id=owner_id):
        await refuse_disconnected()
        await asyncio.to_thread(_count, counts, rows)
    return await asyncio.to_thread(_merge_spellings, counts)


def _count(counts: Counter[str], rows: Iterable[Row]) -> None:
    """Add the labels of these rows, as they are written. The first spelling of a label stays the first."""
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
    """Write the replacement, if there is one, wherever the contacts have this label; return how many have changed.

    Each transaction changes a few contacts. Calling it again after an error goes on where it ended.
    Raises LabelNotFound.
    """
    # A longer text is no label, and folding it would hold the event loop.
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
