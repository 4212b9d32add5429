import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from fastapi import FastAPI

from contacts_api.accounts.cleanup import Cleanup
from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import A_CONTACT, A_PASSWORD, Client
from tests.conftest import Execute, client_of
from tests.safety.document import operations

FEED = "/contacts/birthdays/feed"
CONTACTS = [each for each in operations() if each.is_secured and each.path.startswith("/contacts")]
OTHERS = [each for each in operations() if each.is_secured and (each not in CONTACTS or each.path == FEED)]


async def make_key(client: Client, scope: str = "read", **fields: Any) -> dict[str, Any]:
    response = await client.post("/auth/keys", json={"name": "A script", "scope": scope, **fields})
    assert response.status_code == 201, response.text
    return dict(response.json())


def use(client: Client, key: dict[str, Any]) -> Client:
    client.headers["Authorization"] = f"Bearer {key['key']}"
    return client


@pytest.fixture
async def script(app: FastAPI) -> AsyncIterator[Client]:
    async with client_of(app) as client:
        yield client


async def test_a_read_key_lists_contacts_and_changes_nothing(ada: Client, script: Client) -> None:
    contact = await ada.create_contact()
    use(script, await make_key(ada))

    listed = await script.get("/contacts")
    refused = [await script.request(each.method, each.url(contact["id"])) for each in CONTACTS if each.method != "GET"]

    assert listed.json()["items"] == [contact]
    assert len(refused) > 8
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(403, "key_not_allowed")}
    assert await ada.list_contacts() == [contact]


async def test_a_write_key_changes_contacts(ada: Client, script: Client) -> None:
    use(script, await make_key(ada, "write"))

    created = await script.post("/contacts", json=A_CONTACT)
    imported = await script.post("/contacts/import", files={"file": ("a.csv", b"first_name\r\nMary\r\n")})
    deleted = await script.delete(f"/contacts/{created.json()['id']}")

    assert (created.status_code, imported.status_code, deleted.status_code) == (201, 200, 204)


@pytest.mark.parametrize("operation", OTHERS, ids=str)
async def test_a_key_works_only_for_contacts(ada: Client, script: Client, operation: Any) -> None:
    use(script, await make_key(ada, "write"))
    body = operation.example if operation.media_types else None

    response = await script.request(operation.method, operation.url(), json=body)

    assert (response.status_code, response.json()["code"]) == (403, "key_not_allowed")
    assert (await ada.get("/users/me")).status_code == 200


async def test_a_key_is_shown_once_and_listed_without_its_text(ada: Client, execute: Execute) -> None:
    key = await make_key(ada, "write", expires_at="2099-01-01T00:00:00+02:00")

    (listed,) = (await ada.get("/auth/keys")).json()["items"]

    assert key["key"].startswith("ck_")
    assert len(key["key"]) > 43
    assert listed == {name: value for name, value in key.items() if name != "key"}
    assert (listed["scope"], listed["expires_at"]) == ("write", "2098-12-31T22:00:00.000000Z")
    assert key["key"].encode() not in b"".join(bytes(row[0]) for row in execute("SELECT key_hash FROM access_key"))


async def test_the_last_use_of_a_key_is_recorded_to_the_minute(ada: Client, script: Client, execute: Execute) -> None:
    use(script, await make_key(ada))
    unused = (await ada.get("/auth/keys")).json()["items"][0]["last_used_at"]

    await script.get("/contacts")
    used = datetime.fromisoformat((await ada.get("/auth/keys")).json()["items"][0]["last_used_at"])
    execute("UPDATE access_key SET last_used_at = last_used_at - interval '2 minutes'")
    await asyncio.sleep(1)
    await script.get("/contacts")
    later = datetime.fromisoformat((await ada.get("/auth/keys")).json()["items"][0]["last_used_at"])

    assert unused is None
    assert timedelta() <= datetime.now(UTC) - used < timedelta(minutes=1)
    assert later >= used


async def test_a_key_works_if_its_use_cannot_be_recorded(ada: Client, script: Client, database_url: str) -> None:
    use(script, await make_key(ada))
    with closing(psycopg2.connect(database_url)) as connection:
        connection.cursor().execute("SELECT 1 FROM access_key FOR UPDATE")

        assert (await script.get("/contacts")).status_code == 200


async def test_an_expired_key_does_not_count_towards_the_limit(ada: Client, app: FastAPI, execute: Execute) -> None:
    for _ in range(app.state.settings.max_keys):
        await make_key(ada)
    execute("UPDATE access_key SET expires_at = now()")

    assert (await ada.post("/auth/keys", json={"name": "one more", "scope": "read"})).status_code == 201


async def test_a_key_outlives_the_session_that_made_it(ada: Client, script: Client) -> None:
    use(script, await make_key(ada))

    await ada.post("/auth/logout")
    await asyncio.sleep(1.1)

    assert (await ada.get("/contacts")).status_code == 401
    assert (await script.get("/contacts")).status_code == 200


async def delete(ada: Client, key: dict[str, Any], app: FastAPI) -> None:
    assert (await ada.delete(f"/auth/keys/{key['id']}")).status_code == 204


async def change_password(ada: Client, key: dict[str, Any], app: FastAPI) -> None:
    changes = {"current_password": A_PASSWORD, "password": "another long phrase"}
    assert (await ada.patch("/users/me", json=changes)).status_code == 200


async def set_password(ada: Client, key: dict[str, Any], app: FastAPI) -> None:
    users = app.state.users
    await users.set_password(await users.find(ada.email), "another long phrase")


async def deactivate_and_activate(ada: Client, key: dict[str, Any], app: FastAPI) -> None:
    users = app.state.users
    for is_active in False, True:
        await users.set_active(await users.find(ada.email), is_active)


async def delete_account(ada: Client, key: dict[str, Any], app: FastAPI) -> None:
    assert (await ada.post("/users/me/delete", json={"current_password": A_PASSWORD})).status_code == 204


@pytest.mark.parametrize("end", [delete, change_password, set_password, deactivate_and_activate, delete_account])
async def test_a_revoked_key_stops_working_within_a_second(
    ada: Client, script: Client, app: FastAPI, end: Callable[..., Any]
) -> None:
    key = await make_key(ada)
    use(script, key)
    assert (await script.get("/contacts")).status_code == 200

    await end(ada, key, app)
    await asyncio.sleep(1)
    response = await script.get("/contacts")

    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_a_change_of_address_keeps_the_keys(ada: Client, script: Client) -> None:
    use(script, await make_key(ada))

    await ada.patch("/users/me", json={"current_password": A_PASSWORD, "email": "ada.l@example.com"})
    await asyncio.sleep(1)

    assert (await script.get("/contacts")).status_code == 200


async def test_a_key_stops_working_when_it_expires(ada: Client, script: Client, execute: Execute, app: FastAPI) -> None:
    use(script, await make_key(ada, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat()))
    assert (await script.get("/contacts")).status_code == 200

    execute("UPDATE access_key SET expires_at = now()")
    await asyncio.sleep(1)

    assert (await script.get("/contacts")).status_code == 401
    assert (await ada.get("/auth/keys")).json() == {"items": []}
    cleanup: Cleanup = app.state.cleanup
    await cleanup.sweep()
    assert execute("SELECT count(*) FROM access_key") == [(0,)]


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"name": " "}, "name", "too_short"),
        ({"name": "x" * 101}, "name", "too_long"),
        ({"name": "a\nb"}, "name", "control_character"),
        ({"scope": "admin"}, "scope", "not_allowed"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at", "malformed"),
        ({"expires_at": "2099-01-01"}, "expires_at", "malformed"),
        ({"expires_at": "2000-01-01T00:00:00Z"}, "expires_at", "too_small"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at", "too_large"),
        ({"expires_at": 4_000_000_000}, "expires_at", "wrong_type"),
        ({"expires_at": "2099-13-01T00:00:00Z"}, "expires_at", "malformed"),
    ],
)
async def test_an_invalid_key_request_is_a_422_that_names_the_field(
    ada: Client, fields: dict[str, Any], field: str, code: str
) -> None:
    response = await ada.post("/auth/keys", json={"name": "A script", "scope": "read", **fields})

    assert [(error["loc"], error["code"]) for error in response.json()["errors"]] == [(["body", field], code)]


async def test_concurrent_requests_do_not_exceed_the_limit_on_keys(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(max_keys=3))
    async with app.router.lifespan_context(app), client_of(app) as client:
        await client.sign_up("ada@example.com")

        answers = await asyncio.gather(
            *(client.post("/auth/keys", json={"name": f"{n}", "scope": "read"}) for n in range(8))
        )
        listed = (await client.get("/auth/keys")).json()["items"]

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [422] * 5
    assert {answer.json()["code"] for answer in answers if answer.status_code == 422} == {"too_many"}
    assert len(listed) == 3


@pytest.mark.parametrize(
    "token", ["ck_", "ck_x", "ck_" + "A" * 86, "ck_" + "é" * 20, "CK_" + "A" * 86, "ck_" + "A" * 3000]
)
async def test_an_invalid_key_is_refused(client: Client, token: str) -> None:
    response = await client.get("/contacts", headers={b"Authorization": f"Bearer {token}".encode()})

    assert (response.status_code, response.json()["code"]) == (401, "invalid_token")


async def test_a_key_of_another_user_cannot_be_deleted(ada: Client, grace: Client) -> None:
    key = await make_key(ada)

    response = await grace.delete(f"/auth/keys/{key['id']}")

    assert (response.status_code, response.json()["code"]) == (404, "key_not_found")
    assert len((await ada.get("/auth/keys")).json()["items"]) == 1
