import asyncio
from contextlib import closing

import psycopg2
import pytest
from fastapi import FastAPI

from contacts_api.accounts import cleanup
from tests.accounts.test_sessions import is_signed_in
from tests.client import A_CONTACT, A_PASSWORD, Client
from tests.conftest import Execute

A_NEW_PASSWORD = "a new horse, and a new staple"


async def test_me_returns_the_signed_in_user(ada: Client, grace: Client) -> None:
    response = await ada.get("/users/me")

    assert response.status_code == 200
    assert response.json()["email"] == "ada@example.com"
    assert response.json().keys() == {"id", "email", "is_active", "is_verified", "created_at"}


async def test_a_new_password_ends_all_other_sessions(ada: Client, ada_elsewhere: Client) -> None:
    response = await ada.patch("/users/me", json={"current_password": A_PASSWORD, "password": A_NEW_PASSWORD})

    assert response.status_code == 200
    await asyncio.sleep(1)
    assert await is_signed_in(ada)
    assert not await is_signed_in(ada_elsewhere)
    old, new = [
        await ada.post("/auth/login", json={"email": ada.email, "password": password})
        for password in (A_PASSWORD, A_NEW_PASSWORD)
    ]
    assert (old.status_code, new.status_code) == (401, 200)


async def test_after_a_change_of_address_the_new_one_signs_in(ada: Client) -> None:
    response = await ada.patch("/users/me", json={"current_password": A_PASSWORD, "email": "Ada.Lovelace@Example.com"})

    ada.email = "ada.lovelace@example.com"
    assert response.json()["email"] == ada.email
    await ada.sign_in()


async def test_an_address_that_is_taken_is_a_409_and_changes_nothing(ada: Client, grace: Client) -> None:
    changes = {"current_password": A_PASSWORD, "email": "GRACE@example.com", "password": A_NEW_PASSWORD}

    response = await ada.patch("/users/me", json=changes)

    assert (response.status_code, response.json()["code"]) == (409, "email_taken")
    await ada.sign_in()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"current_password": "wrong", "email": "a@example.com"}, 403),
        ({"current_password": A_PASSWORD}, 422),
        ({"current_password": A_PASSWORD, "email": None}, 422),
        ({"current_password": A_PASSWORD, "password": None}, 422),
        ({"current_password": A_PASSWORD, "password": "short"}, 422),
        ({"current_password": A_PASSWORD, "email": ""}, 422),
        ({"current_password": A_PASSWORD, "email": "a@example.com", "is_superuser": True}, 422),
        ({"email": "a@example.com"}, 422),
        ({}, 422),
    ],
)
async def test_a_refused_change_changes_nothing(
    ada: Client, execute: Execute, changes: dict[str, object], status: int
) -> None:
    before = execute('SELECT * FROM "user"')

    response = await ada.patch("/users/me", json=changes)

    assert response.status_code == status
    assert execute('SELECT * FROM "user"') == before


async def test_only_one_of_many_concurrent_password_changes_succeeds(ada: Client) -> None:
    answers = await asyncio.gather(
        *(
            ada.patch("/users/me", json={"current_password": A_PASSWORD, "password": f"{A_NEW_PASSWORD} {n}"})
            for n in range(4)
        )
    )

    assert sorted(answer.status_code for answer in answers) == [200, 403, 403, 403]


async def test_deleting_the_account_deletes_all_its_data(ada: Client, grace: Client, execute: Execute) -> None:
    await ada.create_contact()
    await grace.create_contact()

    refused = await ada.post("/users/me/delete", json={"current_password": "wrong"})
    response = await ada.post("/users/me/delete", json={"current_password": A_PASSWORD})

    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_password")
    assert response.status_code == 204
    for table in ('"user"', "auth_session", "contact"):
        assert execute(f"SELECT count(*) FROM {table}") == [(1,)]
    await asyncio.sleep(1)
    assert not await is_signed_in(ada)
    assert await is_signed_in(grace)


async def test_creating_a_contact_for_a_deleted_account_is_a_401(ada: Client, execute: Execute) -> None:
    execute('DELETE FROM "user"')

    assert (await ada.post("/contacts", json=A_CONTACT)).status_code == 401
    assert (await ada.get("/users/me")).status_code == 401


async def test_a_large_account_is_deleted_at_once_and_its_rows_soon_after(
    ada: Client, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "ERASE_SECONDS", 0)
    await ada.create_contacts([{}] * 20)

    deleted = await ada.post("/users/me/delete", json={"current_password": A_PASSWORD})
    again = await ada.post("/auth/register", json={"email": ada.email, "password": A_PASSWORD})

    assert (deleted.status_code, again.status_code) == (204, 201)
    await asyncio.sleep(1)
    assert not await is_signed_in(ada)
    async with asyncio.timeout(30):
        while execute('SELECT (SELECT count(*) FROM contact), (SELECT count(*) FROM "user")') != [(0, 1)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_account_with_locked_rows_is_deleted_at_once_too(
    ada: Client,
    execute: Execute,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cleanup, "RETRY_SECONDS", 0.1)
    await ada.create_contacts([{}] * 3)
    with closing(psycopg2.connect(database_url)) as other:
        other.cursor().execute("SELECT FROM contact FOR UPDATE")
        deleted = await ada.post("/users/me/delete", json={"current_password": A_PASSWORD})
        async with asyncio.timeout(30):
            while "cannot delete all of an account yet" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert deleted.status_code == 204
    async with asyncio.timeout(30):
        while execute('SELECT count(*) FROM "user"') != [(0,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_cleanup_finishes_a_deletion_that_a_killed_worker_began(
    app: FastAPI, ada: Client, execute: Execute
) -> None:
    await ada.create_contacts([{}] * 20)
    execute("UPDATE \"user\" SET is_active = false, erased_at = now(), email = 'erased'")

    await app.state.cleanup.sweep()

    assert execute('SELECT (SELECT count(*) FROM contact), (SELECT count(*) FROM "user")') == [(0, 0)]


async def test_the_right_password_succeeds_in_twenty_concurrent_changes(ada: Client) -> None:
    """Half of the changes set the same password, which replaces its hash."""
    changes = [{"current_password": A_PASSWORD, "email": f"ada{n}@example.com"} for n in range(10)]
    changes += [{"current_password": A_PASSWORD, "password": A_PASSWORD}] * 10

    answers = await asyncio.gather(*(ada.patch("/users/me", json=change) for change in changes))

    assert {answer.status_code for answer in answers} == {200}


async def test_the_right_password_succeeds_while_its_hash_is_replaced(
    app: FastAPI, ada: Client, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = app.state.users.hasher
    verify, another = hasher.verify, await hasher.hash(A_PASSWORD)

    async def verify_and_replace(password: str, hashed_password: str) -> tuple[bool, str | None]:
        verified: tuple[bool, str | None] = await verify(password, hashed_password)
        execute('UPDATE "user" SET hashed_password = %s', another)
        return verified

    monkeypatch.setattr(hasher, "verify", verify_and_replace)
    response = await ada.patch("/users/me", json={"current_password": A_PASSWORD, "email": "ada2@example.com"})

    assert response.status_code == 200
