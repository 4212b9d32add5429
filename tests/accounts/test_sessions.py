import asyncio
from collections.abc import Coroutine
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg2
import pytest
from fastapi import FastAPI

from contacts_api.accounts import sessions
from contacts_api.accounts.models import User
from contacts_api.accounts.sessions import Claims, EndedSessions
from tests.client import A_PASSWORD, Client, Clock
from tests.conftest import Execute, client_of


async def is_signed_in(client: Client) -> bool:
    return (await client.get("/contacts")).status_code == 200


async def test_logout_ends_both_tokens_within_a_second(ada: Client) -> None:
    response = await ada.post("/auth/logout")

    assert (response.status_code, response.content) == (204, b"")
    assert (await ada.post("/auth/refresh", json={"refresh_token": ada.tokens["refresh_token"]})).status_code == 401
    await asyncio.sleep(1)
    assert not await is_signed_in(ada)


async def test_sessions_are_listed(ada: Client, ada_elsewhere: Client, grace: Client) -> None:
    response = await ada.get("/auth/sessions")

    here, elsewhere = response.json()["items"]
    assert here.keys() == {"id", "created_at", "refreshed_at", "expires_at", "user_agent", "current"}
    assert (here["current"], elsewhere["current"]) == (True, False)
    assert elsewhere["user_agent"] == "elsewhere/1.0"
    assert here["created_at"].endswith("Z")


async def test_an_expired_session_is_not_listed_and_is_deleted(app: FastAPI, ada: Client, execute: Execute) -> None:
    await ada.sign_in()
    execute("UPDATE auth_session SET expires_at = now() WHERE id = (SELECT min(id::text)::uuid FROM auth_session)")

    listed = (await ada.get("/auth/sessions")).json()["items"]
    await app.state.cleanup.sweep()

    assert len(listed) == 1
    assert execute("SELECT count(*) FROM auth_session") == [(1,)]


async def test_another_session_can_be_ended(ada: Client, ada_elsewhere: Client) -> None:
    (session,) = (s for s in (await ada.get("/auth/sessions")).json()["items"] if not s["current"])

    response = await ada.delete(f"/auth/sessions/{session['id']}")

    assert response.status_code == 204
    await asyncio.sleep(1)
    assert not await is_signed_in(ada_elsewhere)
    assert await is_signed_in(ada)


async def test_sessions_of_others_answer_like_missing_ones(ada: Client, grace: Client) -> None:
    (session,) = (await grace.get("/auth/sessions")).json()["items"]

    theirs = await ada.delete(f"/auth/sessions/{session['id']}")
    nobodys = await ada.delete(f"/auth/sessions/{uuid4()}")

    assert (theirs.status_code, theirs.content) == (404, nobodys.content)
    assert await is_signed_in(grace)


async def test_signing_out_everywhere_ends_all_sessions_including_this_one(
    ada: Client, ada_elsewhere: Client, grace: Client
) -> None:
    response = await ada.delete("/auth/sessions")

    assert response.status_code == 204
    await asyncio.sleep(1)
    assert [await is_signed_in(client) for client in (ada, ada_elsewhere, grace)] == [False, False, True]


async def test_a_worker_with_a_stale_copy_asks_the_database(app: FastAPI, ada: Client, execute: Execute) -> None:
    claims = app.state.tokens.access.verify(ada.tokens["access_token"])
    stale = EndedSessions(app.state.database, app.state.database, 900)

    before = await stale.has_ended(claims)
    execute("DELETE FROM auth_session")

    assert (before, await stale.has_ended(claims)) == (False, True)


async def test_ended_sessions_are_read_in_batches_and_then_incrementally(
    app: FastAPI, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(count: int, seconds_ago: int) -> set[UUID]:
        ended = execute(
            "INSERT INTO ended_session SELECT gen_random_uuid(), now() - %s * interval '1 second' "
            "FROM generate_series(1, %s) RETURNING id::text",
            seconds_ago,
            count,
        )
        return {UUID(session_id) for (session_id,) in ended}

    async def known() -> set[UUID]:
        await copy.refresh()
        return {each for each in everybody if await copy.has_ended(Claims(each, each, 0))}

    monkeypatch.setattr(sessions, "BITE_ROWS", 10)
    copy = EndedSessions(app.state.database, app.state.database, access_token_seconds=900)
    expired, old = end(15, seconds_ago=2000), end(35, seconds_ago=600)
    everybody = expired | old
    assert await known() == old
    new, committed_late = end(25, seconds_ago=1), end(5, seconds_ago=25)
    everybody |= new | committed_late
    assert await known() == old | new | committed_late


async def test_an_ended_session_is_kept_until_its_access_token_expires(
    app: FastAPI, ada: Client, execute: Execute
) -> None:
    await ada.post("/auth/logout")
    execute("UPDATE ended_session SET ended_at = now() - interval '15 minutes 31 seconds'")
    await app.state.cleanup.sweep()
    kept = execute("SELECT count(*) FROM ended_session")
    execute("UPDATE ended_session SET ended_at = now() - interval '17 minutes'")
    await app.state.cleanup.sweep()

    assert (kept, execute("SELECT count(*) FROM ended_session")) == ([(1,)], [(0,)])


async def test_beyond_a_hundred_sessions_the_oldest_end(ada: Client, execute: Execute) -> None:
    execute("""
        INSERT INTO auth_session (user_id, id, seq, created_at, expires_at)
        SELECT id, gen_random_uuid(), 0, now() - n * interval '1 minute', now() + interval '1 day'
        FROM "user", generate_series(1, 99) AS n
    """)
    oldest = "SELECT id FROM auth_session ORDER BY created_at LIMIT 5"
    ended = execute(oldest)

    credentials = {"email": ada.email, "password": A_PASSWORD}
    await asyncio.gather(*(ada.post("/auth/login", json=credentials) for _ in range(5)))

    assert len((await ada.get("/auth/sessions")).json()["items"]) == 100
    assert sorted(execute("SELECT id FROM ended_session")) == sorted(ended)


async def test_no_token_is_in_the_database(ada: Client, execute: Execute) -> None:
    tables = execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    dump = "".join(str(execute(f'SELECT t::text FROM "{table}" t')) for (table,) in tables)

    assert "ada@example.com" in dump
    for token in ada.tokens["access_token"], ada.tokens["refresh_token"]:
        assert token not in dump
        assert token.rpartition(".")[2] not in dump


@pytest.mark.parametrize("change", ["hashed_password = 'another'", "is_active = false"])
async def test_a_sign_in_checked_before_a_change_opens_no_session_after_it(
    app: FastAPI, ada: Client, execute: Execute, change: str
) -> None:
    """The password was checked before the change, and the session would be opened after it."""
    ((user_id, email, hashed_password),) = execute('SELECT id, email, hashed_password FROM "user"')
    checked = User(id=user_id, email=email, hashed_password=hashed_password)
    execute(f'UPDATE "user" SET {change}')

    assert await app.state.sessions.open(checked, None) is None


async def test_a_token_names_its_session(ada: Client) -> None:
    sid = jwt.decode(ada.tokens["access_token"], options={"verify_signature": False})["sid"]

    (session,) = (await ada.get("/auth/sessions")).json()["items"]

    assert session["id"] == sid
    assert A_PASSWORD not in str(session)


async def sign_out(app: FastAPI, refresh_token: str, bearer: str = "") -> httpx.Response:
    """Sign out with a refresh token, from another client and with any Bearer token."""
    async with client_of(app) as client:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return await client.post("/auth/logout", json={"refresh_token": refresh_token}, headers=headers)


async def refresh(client: Client) -> int:
    return (await client.post("/auth/refresh", json={"refresh_token": client.tokens["refresh_token"]})).status_code


@pytest.mark.parametrize("bearer", ["", "rubbish", "a.b.c", "ck_x"])
async def test_a_refresh_token_signs_out_regardless_of_the_bearer_token(app: FastAPI, ada: Client, bearer: str) -> None:
    response = await sign_out(app, ada.tokens["refresh_token"], bearer)

    assert (response.status_code, response.content) == (204, b"")
    assert await refresh(ada) == 401


async def test_an_expired_pair_still_signs_out(app: FastAPI, ada: Client, clock: Clock, execute: Execute) -> None:
    clock.now = datetime.now(UTC) + timedelta(days=20)
    without_body = await ada.post("/auth/logout")

    response = await sign_out(app, ada.tokens["refresh_token"], ada.tokens["access_token"])

    assert (without_body.status_code, without_body.json()["code"]) == (401, "invalid_token")
    assert response.status_code == 204
    assert execute("SELECT count(*) FROM auth_session") == [(0,)]


async def test_an_old_refresh_token_signs_out_repeatedly_without_an_error(
    app: FastAPI, ada: Client, ada_elsewhere: Client, execute: Execute
) -> None:
    old = ada.tokens["refresh_token"]
    for _ in range(3):
        response = await ada.post("/auth/refresh", json={"refresh_token": ada.tokens["refresh_token"]})
        ada.use(response.json())

    answers = [(await sign_out(app, old)).status_code for _ in range(2)]

    assert answers == [204, 204]
    assert await refresh(ada) == 401
    assert await refresh(ada_elsewhere) == 200
    await ada_elsewhere.post("/users/me/delete", json={"current_password": A_PASSWORD})
    assert (await sign_out(app, old)).status_code == 204


async def test_a_body_and_a_bearer_token_of_different_sessions_end_both(
    app: FastAPI, ada: Client, ada_elsewhere: Client, execute: Execute
) -> None:
    response = await sign_out(app, ada.tokens["refresh_token"], ada_elsewhere.tokens["access_token"])

    assert response.status_code == 204
    assert execute("SELECT count(*) FROM auth_session") == [(0,)]


async def test_an_invalid_refresh_token_signs_nobody_out(app: FastAPI, ada: Client) -> None:
    for text in "", "x", "a.b.c", ada.tokens["access_token"], ada.tokens["refresh_token"][:-8] + "AAAAAAAA":
        for bearer in "", ada.tokens["access_token"]:
            response = await sign_out(app, text, bearer)
            assert (response.status_code, response.json()["code"]) == (401, "invalid_refresh_token"), text
    assert await refresh(ada) == 200


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{}", (["body", "refresh_token"], "missing")),
        (b"null", (["body"], "missing")),
        (b'{"refresh_token": "x", "all": true}', (["body", "all"], "unknown")),
        (b'{"refresh_token": 1}', (["body", "refresh_token"], "wrong_type")),
    ],
)
async def test_an_invalid_body_of_a_sign_out_is_a_422(ada: Client, body: bytes, error: tuple[list[str], str]) -> None:
    response = await ada.post("/auth/logout", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert [(each["loc"], each["code"]) for each in response.json()["errors"]] == [error]
    assert (await ada.get("/users/me")).status_code == 200


async def test_a_sign_out_without_a_body_needs_an_access_token(ada: Client, client: Client) -> None:
    key = (await ada.post("/auth/keys", json={"name": "x", "scope": "write"})).json()["key"]

    with_key = await client.post("/auth/logout", headers={"Authorization": f"Bearer {key}"})
    without = await client.post("/auth/logout")

    assert (with_key.status_code, with_key.json()["code"]) == (403, "key_not_allowed")
    assert (without.status_code, without.json()["code"]) == (401, "not_authenticated")


async def test_a_sign_out_without_a_body_is_a_503_without_the_database(ada: Client, database_url: str) -> None:
    """Not a 422 for a missing body."""
    with closing(psycopg2.connect(database_url)) as other:
        other.cursor().execute("LOCK TABLE auth_session IN ACCESS EXCLUSIVE MODE")
        response = await ada.post("/auth/logout")

    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")


async def test_a_sign_in_takes_no_lock_on_the_account(ada: Client, database_url: str) -> None:
    """With Citus, locking a row of a reference table needs every node, so one lost node would stop all sign-ins."""
    with closing(psycopg2.connect(database_url)) as other:
        # The lock that a change of the account takes. It conflicts with FOR SHARE.
        other.cursor().execute('SELECT id FROM "user" FOR NO KEY UPDATE')

        response = await ada.post("/auth/login", json={"email": ada.email, "password": A_PASSWORD})

    assert response.status_code == 200


NEW_PASSWORD = "another long phrase"


async def until_waiting(execute: Execute, count: int) -> None:
    async with asyncio.timeout(10):
        while execute("SELECT count(*) FROM pg_locks WHERE NOT granted") != [(count,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def change_password(
    client: Client, old: str = A_PASSWORD, new: str = NEW_PASSWORD
) -> Coroutine[Any, Any, httpx.Response]:
    return client.patch("/users/me", json={"current_password": old, "password": new})


async def test_a_sign_in_overtaken_by_a_password_change_is_refused(
    ada: Client, ada_elsewhere: Client, database_url: str, execute: Execute
) -> None:
    login = {"email": ada.email, "password": A_PASSWORD}
    with closing(psycopg2.connect(database_url)) as other:
        other.cursor().execute('SELECT id FROM "user" FOR NO KEY UPDATE')
        changing = asyncio.create_task(change_password(ada))
        await until_waiting(execute, 1)
        # The password is checked before the change, and the session would be opened during it.
        signing_in = asyncio.create_task(ada_elsewhere.post("/auth/login", json=login))
        await until_waiting(execute, 2)

    assert ((await changing).status_code, (await signing_in).status_code) == (200, 401)
    assert len((await ada.get("/auth/sessions")).json()["items"]) == 1


async def test_a_password_change_ends_a_sign_in_that_overtook_it(
    ada: Client, ada_elsewhere: Client, database_url: str, execute: Execute
) -> None:
    login = {"email": ada.email, "password": A_PASSWORD}
    with closing(psycopg2.connect(database_url)) as other:
        other.cursor().execute("LOCK TABLE auth_session IN SHARE MODE")
        signing_in = asyncio.create_task(ada_elsewhere.post("/auth/login", json=login))
        await until_waiting(execute, 1)
        changing = asyncio.create_task(change_password(ada))
        await until_waiting(execute, 2)

    assert ((await changing).status_code, (await signing_in).status_code) == (200, 200)
    assert len((await ada.get("/auth/sessions")).json()["items"]) == 1
    ada_elsewhere.use((await signing_in).json())
    assert await refresh(ada_elsewhere) == 401


async def test_no_session_of_an_old_password_survives_a_change(ada: Client, client: Client, execute: Execute) -> None:
    passwords = [A_PASSWORD, NEW_PASSWORD]
    opened = refused = 0
    for n in range(20):
        old, new = passwords[n % 2], passwords[(n + 1) % 2]

        async def sign_in(old: str = old, delay: float = 0.0) -> int:
            await asyncio.sleep(delay)
            return (await client.post("/auth/login", json={"email": ada.email, "password": old})).status_code

        changed, *signed_in = await asyncio.gather(
            change_password(ada, old, new), *(sign_in(delay=0.01 * k) for k in range(8))
        )

        assert changed.status_code == 200
        assert set(signed_in) <= {200, 401}
        opened, refused = opened + signed_in.count(200), refused + signed_in.count(401)
        assert execute("SELECT count(*) FROM auth_session") == [(1,)], n

    # Otherwise the sign-ins and the changes did not overlap.
    assert (opened > 0, refused > 0) == (True, True)
