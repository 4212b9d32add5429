"""The calendar of birthdays, as a subscriber reads it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg2
import pytest
from fastapi import FastAPI
from icalendar import Calendar

from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.accounts.test_keys import make_key
from tests.client import A_PASSWORD, Client, Clock
from tests.conftest import SECRET, Execute, client_of


async def address(client: Client) -> str:
    response = await client.post("/contacts/birthdays/feed")
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
    return str(response.json()["url"])


def events(response: httpx.Response) -> dict[str, str]:
    calendar = Calendar.from_ical(response.content)
    return {str(event["SUMMARY"]): str(event["UID"]) for event in calendar.walk("VEVENT")}


async def test_a_calendar_has_the_birthdays_of_its_owner(ada: Client, grace: Client, client: Client) -> None:
    leap = await ada.create_contact(first_name="Zoë", last_name="Leap", date_of_birth="2000-02-29")
    other = await ada.create_contact()
    await grace.create_contact(first_name="Not", last_name="Ada's")
    url = await address(ada)

    response = await client.get(url)

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/calendar; charset=utf-8"
    assert response.headers["cache-control"] == "private, max-age=3600"
    assert events(response) == {"Zoë Leap's birthday": leap["id"], "Grace Hopper's birthday": other["id"]}
    assert "RRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=-1" in response.text
    assert urlsplit(url)[:3] == ("http", "testserver", "/contacts/birthdays.ics")


async def test_a_calendar_that_did_not_change_is_a_304(ada: Client, client: Client) -> None:
    url = await address(ada)
    tags: list[str] = []

    async def check() -> httpx.Response:
        response = await client.get(url, headers={"If-None-Match": tags[-1]} if tags else {})
        tags.append(response.headers["etag"])
        return response

    assert (await check()).status_code == 200
    contact = await ada.create_contact()
    assert (await check()).status_code == 200
    unchanged = await check()
    await ada.patch(f"/contacts/{contact['id']}", json={"first_name": "Ada"})
    changed = await check()
    await ada.delete(f"/contacts/{contact['id']}")
    gone = await check()

    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["cache-control"] == "private, max-age=3600"
    assert (changed.status_code, list(events(changed).values())) == (200, [contact["id"]])
    assert (gone.status_code, events(gone)) == (200, {})


async def test_a_new_address_and_none_at_all_end_the_old_one(ada: Client, client: Client) -> None:
    first, second = await address(ada), await address(ada)
    statuses = [(await client.get(url)).status_code for url in (first, second)]
    closed = [(await ada.delete("/contacts/birthdays/feed")).status_code for _ in range(2)]

    assert (statuses, closed) == ([401, 200], [204, 204])
    assert (await client.get(second)).json()["code"] == "invalid_feed_key"


@pytest.mark.parametrize("statement", ['UPDATE "user" SET is_active = false', 'DELETE FROM "user"'])
async def test_the_calendar_ends_with_the_account(
    ada: Client, client: Client, execute: Execute, statement: str
) -> None:
    url = await address(ada)
    execute(statement)

    assert (await client.get(url)).status_code == 401


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("scope", ["read", "write"])
async def test_a_key_neither_opens_nor_closes_the_calendar(
    ada: Client, client: Client, method: str, scope: str
) -> None:
    url = await address(ada)
    key = await make_key(ada, scope)

    refused = await client.request(
        method, "/contacts/birthdays/feed", headers={"Authorization": f"Bearer {key['key']}"}
    )

    assert (refused.status_code, refused.json()["code"]) == (403, "key_not_allowed")
    assert (await client.get(url)).status_code == 200


async def reset_password(ada: Client, app: FastAPI) -> None:
    users = app.state.users
    token = await users.token_for(SimpleNamespace(purpose="reset", address=ada.email))
    response = await ada.post("/auth/reset-password", json={"token": token, "password": "another long phrase"})
    assert response.status_code == 204


async def set_password(ada: Client, app: FastAPI) -> None:
    users = app.state.users
    await users.set_password(await users.find(ada.email), "another long phrase")


async def deactivate_and_activate(ada: Client, app: FastAPI) -> None:
    users = app.state.users
    for is_active in False, True:
        await users.set_active(await users.find(ada.email), is_active)


@pytest.mark.parametrize("end", [reset_password, set_password, deactivate_and_activate])
async def test_what_closes_every_way_in_closes_the_calendar(
    ada: Client, client: Client, app: FastAPI, end: Callable[..., Awaitable[None]]
) -> None:
    url = await address(ada)

    await end(ada, app)

    assert (await client.get(url)).json()["code"] == "invalid_feed_key"


async def test_a_password_changed_by_its_owner_leaves_the_calendar(ada: Client, client: Client) -> None:
    url = await address(ada)

    changed = await ada.patch("/users/me", json={"current_password": A_PASSWORD, "password": "another long phrase"})

    assert changed.status_code == 200
    assert (await client.get(url)).status_code == 200


async def test_a_calendar_opened_during_a_reset_does_not_outlive_it(
    ada: Client, app: FastAPI, database_url: str, execute: Execute
) -> None:
    """The session is valid when the request arrives, and ends before the feed is stored."""
    with closing(psycopg2.connect(database_url)) as resetting:
        resetting.cursor().execute('SELECT id FROM "user" FOR NO KEY UPDATE')
        opening = asyncio.create_task(ada.post("/contacts/birthdays/feed"))
        await asyncio.sleep(0.5)
        resetting.cursor().execute("DELETE FROM auth_session; DELETE FROM calendar_feed")
        resetting.commit()
        answer = await opening

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert execute("SELECT count(*) FROM calendar_feed") == [(0,)]


async def test_a_key_is_for_its_owner_and_is_not_stored(
    ada: Client, grace: Client, client: Client, execute: Execute
) -> None:
    key, others = [(await address(each)).partition("key=")[2] for each in (ada, grace)]
    owner, _, secret = key.partition(".")
    ((stored,),) = execute("SELECT key_hash FROM calendar_feed WHERE owner_id = %s::uuid", owner)
    wrong = ["", "x", ".", key[:-1], f"{key}x", owner, f"{owner}.", f"x.{secret}", f"{others[:32]}.{secret}", "\0", "é"]

    answers = [await client.get("/contacts/birthdays.ics", params={"key": each}) for each in wrong]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(401, "invalid_feed_key")] * 11
    assert (await client.get("/contacts/birthdays.ics")).status_code == 422
    assert (await client.get("/contacts/birthdays.ics", params={"key": key, "nocache": "1"})).status_code == 200
    assert secret.encode() not in bytes(stored)


async def test_the_address_has_the_path_that_a_proxy_puts_in_front(make_settings: Any) -> None:
    settings: Settings = make_settings(root_path="/address-book", jwt_secret=SECRET)
    app = create_app(settings, clock=Clock())
    async with app.router.lifespan_context(app), client_of(app) as client:
        url = await address(await client.sign_up("ada@example.com"))

    assert url.startswith("http://testserver/address-book/contacts/birthdays.ics?key=")
