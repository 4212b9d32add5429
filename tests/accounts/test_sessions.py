import asyncio
from uuid import UUID, uuid4

import jwt
import pytest
from fastapi import FastAPI

from contacts_api.accounts import sessions
from contacts_api.accounts.models import User
from contacts_api.accounts.sessions import Claims, EndedSessions
from tests.client import A_PASSWORD, Client
from tests.conftest import Execute


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


async def test_a_session_past_its_end_is_not_listed_and_is_swept(app: FastAPI, ada: Client, execute: Execute) -> None:
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


async def test_sessions_of_others_look_missing(ada: Client, grace: Client) -> None:
    (session,) = (await grace.get("/auth/sessions")).json()["items"]

    theirs = await ada.delete(f"/auth/sessions/{session['id']}")
    nobodys = await ada.delete(f"/auth/sessions/{uuid4()}")

    assert (theirs.status_code, theirs.content) == (404, nobodys.content)
    assert await is_signed_in(grace)


async def test_signing_out_everywhere_ends_all_sessions_here_too(
    ada: Client, ada_elsewhere: Client, grace: Client
) -> None:
    response = await ada.delete("/auth/sessions")

    assert response.status_code == 204
    await asyncio.sleep(1)
    assert [await is_signed_in(client) for client in (ada, ada_elsewhere, grace)] == [False, False, True]


async def test_a_worker_with_an_old_copy_asks_the_database(app: FastAPI, ada: Client, execute: Execute) -> None:
    claims = app.state.tokens.access.verify(ada.tokens["access_token"])
    stale = EndedSessions(app.state.database, app.state.database, 900)

    before = await stale.has_ended(claims)
    execute("DELETE FROM auth_session")

    assert (before, await stale.has_ended(claims)) == (False, True)


async def test_endings_are_read_in_bites_and_then_what_is_new(
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


async def test_an_ending_is_kept_as_long_as_its_access_token_may_live(
    app: FastAPI, ada: Client, execute: Execute
) -> None:
    await ada.post("/auth/logout")
    execute("UPDATE ended_session SET ended_at = now() - interval '15 minutes 31 seconds'")
    await app.state.cleanup.sweep()
    kept = execute("SELECT count(*) FROM ended_session")
    execute("UPDATE ended_session SET ended_at = now() - interval '17 minutes'")
    await app.state.cleanup.sweep()

    assert (kept, execute("SELECT count(*) FROM ended_session")) == ([(1,)], [(0,)])


async def test_of_more_than_a_hundred_sessions_the_oldest_end(ada: Client, execute: Execute) -> None:
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
async def test_no_sign_in_with_what_was_true_before_survives_a_change(
    app: FastAPI, ada: Client, execute: Execute, change: str
) -> None:
    """Its password was checked before the change, and its session would open after it."""
    ((user_id, email, hashed_password),) = execute('SELECT id, email, hashed_password FROM "user"')
    checked = User(id=user_id, email=email, hashed_password=hashed_password)
    execute(f'UPDATE "user" SET {change}')

    assert await app.state.sessions.open(checked, None) is None


async def test_the_session_of_a_token_is_the_one_it_names(ada: Client) -> None:
    sid = jwt.decode(ada.tokens["access_token"], options={"verify_signature": False})["sid"]

    (session,) = (await ada.get("/auth/sessions")).json()["items"]

    assert session["id"] == sid
    assert A_PASSWORD not in str(session)
