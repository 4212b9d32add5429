"""The limit on the number of contacts of an account."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import A_CONTACT, Client
from tests.conftest import Execute, client_of

MOST = 5


@pytest.fixture
async def ada(make_settings: Callable[..., Settings]) -> AsyncIterator[Client]:
    """Ada, on a server that allows five contacts per account."""
    app = create_app(make_settings(max_contacts=MOST))
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield await client.sign_up("ada@example.com")


async def count(client: Client) -> int:
    return int((await client.get("/contacts?with_total=true")).json()["total"])


def csv_of(rows: int) -> dict[str, tuple[str, bytes]]:
    return {"file": ("contacts.csv", b"first_name\r\n" + b"".join(b"Row %d\r\n" % n for n in range(rows)))}


async def test_a_contact_beyond_the_limit_is_a_422_that_states_the_limit(ada: Client) -> None:
    for _ in range(MOST):
        await ada.create_contact()

    response = await ada.post("/contacts", json=A_CONTACT)

    assert (response.status_code, response.json()["code"]) == (422, "too_many")
    assert [(each["loc"], each["code"]) for each in response.json()["errors"]] == [(["body"], "too_many")]
    assert f"at most {MOST} contacts" in response.json()["detail"]
    assert await count(ada) == MOST


async def test_concurrent_creations_do_not_exceed_the_limit(ada: Client) -> None:
    answers = await asyncio.gather(*(ada.post("/contacts", json=A_CONTACT) for _ in range(3 * MOST)))

    assert sorted(answer.status_code for answer in answers) == [201] * MOST + [422] * 2 * MOST
    assert await count(ada) == MOST


async def test_a_batch_beyond_the_limit_creates_nothing(ada: Client) -> None:
    await ada.create_contacts([{}] * (MOST - 1))

    response = await ada.post("/contacts/batch", json={"items": [A_CONTACT] * 2})

    assert (response.status_code, response.json()["code"]) == (422, "too_many")
    assert await count(ada) == MOST - 1


async def test_an_import_beyond_the_limit_creates_nothing(ada: Client) -> None:
    await ada.create_contact()

    beyond = await ada.post("/contacts/import", files=csv_of(MOST))
    within = await ada.post("/contacts/import", files=csv_of(MOST - 1))

    assert (beyond.status_code, beyond.json()["code"]) == (422, "too_many")
    assert (within.status_code, within.json()["created"]) == (200, MOST - 1)
    assert await count(ada) == MOST


async def test_deleted_contacts_do_not_count(ada: Client) -> None:
    for _ in range(2 * MOST):
        contact = await ada.create_contact()
        assert (await ada.delete(f"/contacts/{contact['id']}")).status_code == 204

    await ada.create_contacts([{}] * MOST)


async def test_contacts_created_before_the_tally_are_counted(ada: Client, execute: Execute) -> None:
    await ada.create_contacts([{}] * MOST)
    execute("DELETE FROM contact_tally")

    assert (await ada.post("/contacts", json=A_CONTACT)).status_code == 422


async def test_an_import_that_creates_nothing_succeeds_above_the_limit(ada: Client, execute: Execute) -> None:
    assert (await ada.post("/contacts/import", files=csv_of(MOST))).status_code == 200
    execute("UPDATE contact_tally SET at_most = %s", MOST + 1)

    again = await ada.post("/contacts/import", files=csv_of(MOST))

    assert (again.status_code, again.json()["skipped"]) == (200, MOST)
