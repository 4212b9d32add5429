"""Operations that read, compute and write back do not undo concurrent edits."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any, TypeAlias

import httpx
import psycopg2
import pytest
from fastapi import FastAPI

from contacts_api.contacts.reindexing import reindex
from tests.client import A_CONTACT, Client
from tests.conftest import Execute
from tests.contacts.test_reindexing import AGE

HEADER = "first_name,last_name,email,phone_number,additional_info\r\n"
OVERLAP = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

Overlap: TypeAlias = Callable[[Awaitable[Any], Awaitable[Any]], Awaitable[tuple[Any, Any]]]


@pytest.fixture
def overlap(database_url: str, execute: Execute) -> Iterator[Overlap]:
    """Run an edit during an operation: the operation has read the contacts, and its write waits for the edit.

    All contacts are locked until both wait for a lock. PostgreSQL grants row locks in the order of the requests, so the
    edit is committed before the operation writes.
    """
    with closing(psycopg2.connect(database_url)) as locking:

        async def waiting(work: asyncio.Future[Any], count: int) -> None:
            async with asyncio.timeout(10):
                while execute(OVERLAP)[0][0] < count and not work.done():  # noqa: ASYNC110 (PostgreSQL knows)
                    await asyncio.sleep(0.01)

        async def run(edit: Awaitable[Any], operation: Awaitable[Any]) -> tuple[Any, Any]:
            locking.cursor().execute("SELECT FROM contact FOR UPDATE")
            editing = asyncio.ensure_future(edit)
            await waiting(editing, 1)
            operating = asyncio.ensure_future(operation)
            await waiting(operating, 2)
            assert not editing.done()
            assert not operating.done()
            locking.rollback()
            return await editing, await operating

        yield run


def import_(client: Client, rows: str, **query: str) -> Awaitable[httpx.Response]:
    return client.post("/contacts/import", files={"file": ("file", HEADER + rows)}, params=query)


async def test_an_import_that_updates_keeps_an_edit_made_meanwhile(ada: Client, overlap: Overlap) -> None:
    grace = await ada.create_contact()
    row = "Grace,Hopper,grace@example.com,+1 555 0100,\r\n"

    edited, imported = await overlap(
        ada.patch(f"/contacts/{grace['id']}", json={"additional_info": "Rear admiral"}),
        import_(ada, row, on_duplicate="update"),
    )

    (contact,) = await ada.list_contacts()
    assert edited.status_code == 200
    assert (imported.json()["updated"], imported.json()["skipped"]) == (1, 0)
    assert (contact["additional_info"], contact["phone_number"]) == ("Rear admiral", "+1 555 0100")


async def test_an_import_skips_a_contact_that_an_edit_has_already_made_equal(ada: Client, overlap: Overlap) -> None:
    grace = await ada.create_contact()
    row = "Grace,Hopper,grace@example.com,+1 555 0100,\r\n"

    _, imported = await overlap(
        ada.patch(f"/contacts/{grace['id']}", json={"phone_number": "+1 555 0100"}),
        import_(ada, row + row, on_duplicate="update"),
    )

    report = imported.json()
    assert (report["updated"], report["skipped"]) == (0, 2)
    assert [(skip["row"], skip["detail"]) for skip in report["skips"]] == [
        (2, "You have this contact, and it says the same."),
        (3, "You have this contact, and it says the same."),
    ]


async def test_an_import_does_not_bring_back_a_contact_deleted_meanwhile(ada: Client, overlap: Overlap) -> None:
    grace = await ada.create_contact()
    row = "Grace,Hopper,grace@example.com,+1 555 0100,\r\n"

    deleted, imported = await overlap(
        ada.delete(f"/contacts/{grace['id']}"), import_(ada, row + row, on_duplicate="update")
    )

    report = imported.json()
    assert deleted.status_code == 204
    assert await ada.list_contacts() == []
    assert (report["created"], report["updated"], report["skipped"]) == (0, 0, 2)
    assert [(skip["row"], skip["contact_id"], skip["detail"]) for skip in report["skips"]] == [
        (2, None, "You had this contact, and it was deleted during the import."),
        (3, None, "You had this contact, and it was deleted during the import."),
    ]


async def test_every_edit_made_while_a_large_import_updates_is_kept(ada: Client) -> None:
    rows = [f"First{n},Last,c{n}@example.com,+1 555 {n:04}," for n in range(5000)]
    assert (await import_(ada, "\r\n".join(rows))).json()["created"] == 5000
    ids = [contact["id"] for contact in await ada.list_contacts(limit=100)]
    changed = "\r\n".join(row.replace("+1 555", "+1 202") for row in rows)

    importing = asyncio.ensure_future(import_(ada, changed, on_duplicate="update"))
    acknowledged = []
    for id_ in ids:
        response = await ada.patch(f"/contacts/{id_}", json={"additional_info": "edited"})
        if response.status_code == 200:
            acknowledged.append(id_)
    report = (await importing).json()

    contacts = {contact["id"]: contact for contact in await ada.list_contacts(limit=100)}
    lost = [id_ for id_ in acknowledged if contacts[id_]["additional_info"] != "edited"]
    assert len(acknowledged) > 10
    assert lost == []
    assert report["updated"] == 5000
    assert [contact for contact in contacts.values() if not contact["phone_number"].startswith("+1 202")] == []


@pytest.mark.parametrize(
    ("method", "body", "labels"), [("PATCH", {"label": "Marine"}, ["Marine", "New"]), ("DELETE", None, ["New"])]
)
async def test_a_label_changes_on_a_contact_that_is_edited_meanwhile(
    ada: Client, overlap: Overlap, method: str, body: dict[str, str] | None, labels: list[str]
) -> None:
    grace = await ada.create_contact(labels=["Navy"])

    _, changed = await overlap(
        ada.patch(f"/contacts/{grace['id']}", json={"labels": ["Navy", "New"], "last_name": "Murray"}),
        ada.request(method, "/contacts/labels/Navy", json=body),
    )

    (contact,) = await ada.list_contacts()
    assert (changed.status_code, changed.json()) == (200, {"contacts": 1})
    assert (contact["labels"], contact["last_name"]) == (labels, "Murray")


@pytest.mark.parametrize("path", ["/contacts/batch/update", "/contacts/{id}"])
async def test_two_changes_of_different_fields_are_both_made(ada: Client, overlap: Overlap, path: str) -> None:
    grace = await ada.create_contact()
    change = {"first_name": "Amazing"}
    operation = (
        ada.post(path, json={"items": [{**change, "id": grace["id"]}]})
        if "batch" in path
        else ada.patch(path.format(id=grace["id"]), json=change)
    )

    edited, changed = await overlap(ada.patch(f"/contacts/{grace['id']}", json={"last_name": "Murray"}), operation)

    (contact,) = await ada.list_contacts()
    assert (edited.status_code, changed.status_code) == (200, 200)
    assert (contact["first_name"], contact["last_name"]) == ("Amazing", "Murray")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_an_etag_read_before_an_edit_is_refused_after_it(ada: Client, overlap: Overlap, method: str) -> None:
    grace = await ada.create_contact()
    path = f"/contacts/{grace['id']}"
    as_read = {"If-Match": (await ada.get(path)).headers["ETag"]}
    body = None if method == "DELETE" else {**A_CONTACT, "last_name": "Brewster"}

    _, refused = await overlap(
        ada.patch(path, json={"last_name": "Murray"}), ada.request(method, path, json=body, headers=as_read)
    )

    (contact,) = await ada.list_contacts()
    assert refused.status_code == 412
    assert contact["last_name"] == "Murray"


async def test_a_put_replaces_the_whole_contact_after_an_edit(ada: Client, overlap: Overlap) -> None:
    grace = await ada.create_contact()
    path = f"/contacts/{grace['id']}"
    body = {**A_CONTACT, "first_name": "Amazing"}

    _, replaced = await overlap(ada.patch(path, json={"last_name": "Murray"}), ada.put(path, json=body))

    (contact,) = await ada.list_contacts()
    assert replaced.status_code == 200
    assert {**contact, **body} == contact


async def test_reindexing_keeps_an_edit_made_meanwhile(
    app: FastAPI, ada: Client, execute: Execute, overlap: Overlap
) -> None:
    grace = await ada.create_contact()
    execute(AGE)

    await overlap(
        ada.patch(f"/contacts/{grace['id']}", json={"last_name": "Murray"}),
        reindex(app.state.database, lambda *_: None),
    )

    (contact,) = await ada.list_contacts(q="murray")
    assert contact["last_name"] == "Murray"


async def test_contacts_reindexed_by_an_import_can_be_edited_while_it_runs(
    ada: Client, execute: Execute, database_url: str
) -> None:
    grace = await ada.create_contact()
    execute(AGE)
    with closing(psycopg2.connect(database_url)) as locking:
        # The import folds, stages its rows, and waits here when it updates the count of contacts.
        locking.cursor().execute("SELECT FROM contact_tally FOR UPDATE")
        importing = asyncio.ensure_future(import_(ada, "Ann,Lee,ann@example.com,,\r\n"))
        async with asyncio.timeout(10):
            while not execute(OVERLAP)[0][0]:  # noqa: ASYNC110 (PostgreSQL knows)
                await asyncio.sleep(0.01)
        edited = await ada.patch(f"/contacts/{grace['id']}", json={"last_name": "Murray"})
        locking.rollback()
    imported = await importing

    assert edited.status_code == 200
    assert imported.json()["created"] == 1
    assert await ada.first_names(q="murray") == ["Grace"]
