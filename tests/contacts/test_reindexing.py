"""Contacts stored by an older release are found by the rules of this release once they are reindexed."""

from typing import Any

from fastapi import FastAPI

from contacts_api.contacts.models import FOLDING
from contacts_api.contacts.reindexing import BATCH_ROWS, reindex
from tests.cli.test_command_line import command
from tests.client import Client
from tests.conftest import Execute

# Stores the contacts as release 0.1 of 25 November 2026 did.
AGE = """
    UPDATE contact SET folding = 1, identity = NULL,
        search_text = lower(concat_ws(E'\\n', first_name, last_name, email, phone_number, '12025550143'))
"""
STATE = "SELECT id, version, updated_at, folding FROM contact ORDER BY id"


async def fold(app: FastAPI) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    await reindex(app.state.database, lambda done, total: told.append((done, total)))
    return told


async def test_contacts_of_an_older_release_are_found_after_reindexing(
    app: FastAPI, ada: Client, grace: Client, execute: Execute
) -> None:
    for client in ada, grace:
        await client.create_contacts([{"first_name": "Zoë"}] * (BATCH_ROWS - 1))
    await ada.create_contacts([{"first_name": "Łukasz"}] * 2)
    execute(AGE)
    before = execute(STATE)

    found_before = await ada.first_names(q="12025550143", first_name="lukasz")
    told = await fold(app)

    assert found_before == []
    assert await ada.first_names(q="12025550143", first_name="lukasz") == ["Łukasz", "Łukasz"]
    assert told == [(1, 2), (2, 2)]
    # Clients see no change.
    assert execute(STATE) == [(*row[:3], FOLDING) for row in before]


async def test_current_contacts_are_not_reindexed(app: FastAPI, ada: Client, execute: Execute) -> None:
    await ada.create_contact()
    execute("UPDATE contact SET search_text = 'not folded'")

    await fold(app)

    assert execute("SELECT search_text FROM contact") == [("not folded",)]


async def test_an_import_recognizes_duplicates_from_an_older_release(ada: Client, execute: Execute) -> None:
    contact = await ada.create_contact()
    execute(AGE)
    row = ",".join(str(contact[name]) for name in ("first_name", "last_name", "email"))

    file = {"file": ("contacts.csv", f"first_name,last_name,email\r\n{row}\r\n".encode())}
    report: dict[str, Any] = (await ada.post("/contacts/import", files=file)).json()

    assert (report["created"], report["skipped"]) == (0, 1)


async def test_an_empty_patch_does_not_change_a_contact_of_an_older_release(ada: Client, execute: Execute) -> None:
    contact = await ada.create_contact()
    execute(AGE)
    before = execute(STATE)

    response = await ada.patch(f"/contacts/{contact['id']}", json={})

    assert (response.status_code, response.json()) == (200, contact)
    assert execute(STATE) == before


async def test_the_reindex_command_covers_all_accounts(ada: Client, execute: Execute, database_url: str) -> None:
    await ada.create_contact()
    execute(AGE)

    done = command("reindex", DATABASE_URL=database_url)

    assert (done.returncode, done.stdout) == (0, "All contacts are folded by the rules of this release.\n")
    assert await ada.first_names(first_name="grace") == ["Grace"]
