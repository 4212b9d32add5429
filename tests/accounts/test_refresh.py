import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
import pytest

from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import Client
from tests.conftest import SECRET, Execute, client_of


async def refresh(client: Client, refresh_token: str) -> httpx.Response:
    return await client.post("/auth/refresh", json={"refresh_token": refresh_token})


async def pair_after(client: Client, refresh_token: str) -> dict[str, Any]:
    response = await refresh(client, refresh_token)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def still_works(client: Client, access_token: str) -> bool:
    response = await client.get("/users/me", headers={"Authorization": f"Bearer {access_token}"})
    return response.status_code == 200


def age(execute: Execute, seconds: int) -> None:
    """Move the last refresh of all sessions this many seconds into the past."""
    execute("UPDATE auth_session SET refreshed_at = refreshed_at - make_interval(secs => %s)", seconds)


async def test_a_refresh_rotates_the_pair(ada: Client) -> None:
    second = await pair_after(ada, ada.tokens["refresh_token"])
    third = await pair_after(ada, second["refresh_token"])

    assert len({ada.tokens["refresh_token"], second["refresh_token"], third["refresh_token"]}) == 3
    assert await still_works(ada, third["access_token"])


async def test_a_form_can_refresh_too(ada: Client) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": ada.tokens["refresh_token"]}

    response = await ada.post("/auth/token", data=form)

    assert response.status_code == 200
    assert await still_works(ada, response.json()["access_token"])


async def test_the_previous_token_within_the_grace_period_returns_an_equal_pair(ada: Client, execute: Execute) -> None:
    first = await pair_after(ada, ada.tokens["refresh_token"])
    age(execute, 8)

    again = await pair_after(ada, ada.tokens["refresh_token"])

    # The iat of the tokens depends on the age, so compare the sequence number instead.
    assert jwt.decode(again["refresh_token"], options={"verify_signature": False})["seq"] == 1
    assert await pair_after(ada, first["refresh_token"])


async def test_an_immediate_retry_returns_identical_tokens(ada: Client) -> None:
    first = await pair_after(ada, ada.tokens["refresh_token"])

    assert await pair_after(ada, ada.tokens["refresh_token"]) == first


async def test_the_previous_token_after_the_grace_period_ends_the_session(ada: Client, execute: Execute) -> None:
    second = await pair_after(ada, ada.tokens["refresh_token"])
    age(execute, 11)

    stolen = await refresh(ada, ada.tokens["refresh_token"])
    newest = await refresh(ada, second["refresh_token"])

    assert (stolen.status_code, stolen.json()["code"]) == (401, "invalid_refresh_token")
    assert newest.status_code == 401
    await asyncio.sleep(1)
    assert not await still_works(ada, second["access_token"])


async def test_reusing_an_older_refresh_token_ends_the_session(ada: Client) -> None:
    second = await pair_after(ada, ada.tokens["refresh_token"])
    third = await pair_after(ada, second["refresh_token"])

    assert (await refresh(ada, ada.tokens["refresh_token"])).status_code == 401
    assert (await refresh(ada, third["refresh_token"])).status_code == 401


async def test_a_sequence_number_ahead_is_refused_and_ends_nothing(ada: Client) -> None:
    claims = jwt.decode(ada.tokens["refresh_token"], SECRET, ["HS256"], audience="contacts:refresh")
    ahead = jwt.encode(claims | {"seq": 7}, SECRET, "HS256")

    assert (await refresh(ada, ahead)).status_code == 401
    assert (await refresh(ada, ada.tokens["refresh_token"])).status_code == 200


async def test_concurrent_refreshes_return_one_successor(ada: Client) -> None:
    newest = ada.tokens["refresh_token"]
    for _ in range(100):
        answers = await asyncio.gather(*(refresh(ada, newest) for _ in range(20)))

        assert {answer.status_code for answer in answers} == {200}
        (newest,) = {answer.json()["refresh_token"] for answer in answers}


@pytest.mark.parametrize(("lived_days", "idle_days", "status"), [(29, 13, 200), (29, 15, 401), (31, 1, 401)])
async def test_a_session_ends_when_idle_or_too_old(
    ada: Client, execute: Execute, lived_days: int, idle_days: int, status: int
) -> None:
    execute(
        """UPDATE auth_session SET created_at = now() - make_interval(days => %s),
           expires_at = least(now() - make_interval(days => %s) + interval '14 days',
                              now() - make_interval(days => %s) + interval '30 days')""",
        lived_days,
        idle_days,
        lived_days,
    )

    assert (await refresh(ada, ada.tokens["refresh_token"])).status_code == status


async def test_a_refresh_does_not_extend_a_session_beyond_30_days(ada: Client, execute: Execute) -> None:
    execute("UPDATE auth_session SET ends_at = now() + interval '5 minutes'")

    pair = await pair_after(ada, ada.tokens["refresh_token"])

    ends_at = jwt.decode(pair["refresh_token"], options={"verify_signature": False})["exp"]
    assert 295 <= ends_at - datetime.now(UTC).timestamp() <= 300
    assert 295 <= pair["expires_in"] <= 301


@pytest.mark.parametrize("token", ["", "rubbish", "x" * 60_000])
async def test_an_invalid_refresh_token_is_a_401(client: Client, token: str) -> None:
    assert (await refresh(client, token)).status_code == 401


async def test_a_new_secret_ends_no_session(make_settings: Callable[..., Settings], ada: Client) -> None:
    changed = make_settings(jwt_secret="another secret of the tests, long enough", jwt_secret_previous=SECRET)
    app = create_app(changed)
    async with app.router.lifespan_context(app), client_of(app) as client:
        client.headers["Authorization"] = ada.headers["Authorization"]
        before = await client.get("/users/me")
        pair = (await client.post("/auth/refresh", json={"refresh_token": ada.tokens["refresh_token"]})).json()
        client.use(pair)
        after = await client.get("/users/me")
    with_the_old = await ada.get("/users/me", headers={"Authorization": f"Bearer {pair['access_token']}"})

    assert (before.status_code, after.status_code) == (200, 200)
    assert with_the_old.status_code == 401
