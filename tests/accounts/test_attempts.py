"""Failed sign-ins delay further attempts on the same account, and on no other."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import A_PASSWORD, Client
from tests.conftest import Execute, client_of

WAITS = [30, 60, 120, 240, 480, 900, 900]


async def sign_in(client: Client, email: str, password: str = "wrong horse") -> httpx.Response:
    return await client.post("/auth/login", json={"email": email, "password": password})


async def fail(client: Client, times: int, email: str = "ada@example.com") -> None:
    for _ in range(times):
        assert (await sign_in(client, email)).status_code == 401


def let_the_wait_pass(execute: Execute) -> None:
    execute("UPDATE failed_attempt SET blocked_until = now()")


@pytest.mark.parametrize("email", ["ada@example.com", "nobody@example.com", "no address"])
async def test_after_ten_failures_the_wait_grows_with_each_failure(ada: Client, execute: Execute, email: str) -> None:
    await fail(ada, 9, email)
    for seconds in WAITS:
        await fail(ada, 1, email)
        response = await sign_in(ada, email)

        assert (response.status_code, response.json()["code"]) == (429, "too_many_attempts")
        assert seconds - 5 <= int(response.headers["retry-after"]) <= seconds
        let_the_wait_pass(execute)


async def test_the_right_password_has_to_wait_too_and_then_resets_the_count(ada: Client, execute: Execute) -> None:
    await fail(ada, 10)

    waiting = await sign_in(ada, "ADA@example.com", A_PASSWORD)
    let_the_wait_pass(execute)
    right = await sign_in(ada, "ada@example.com", A_PASSWORD)

    assert (waiting.status_code, right.status_code) == (429, 200)
    await fail(ada, 10)


async def test_a_success_resets_the_count(ada: Client) -> None:
    await fail(ada, 9)
    await ada.sign_in()
    await fail(ada, 9)

    assert (await sign_in(ada, ada.email, A_PASSWORD)).status_code == 200


async def test_failures_in_a_form_and_in_json_count_together(ada: Client) -> None:
    form = {"grant_type": "password", "username": ada.email, "password": "wrong horse"}
    await fail(ada, 5)
    for _ in range(5):
        assert (await ada.post("/auth/token", data=form)).status_code == 401

    response = await ada.post("/auth/token", data=form)

    assert (response.status_code, response.json()["error"]) == (429, "temporarily_unavailable")
    assert (await sign_in(ada, ada.email)).status_code == 429


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/users/me"), ("POST", "/users/me/delete")])
async def test_a_wrong_current_password_counts_as_a_failure(ada: Client, method: str, path: str) -> None:
    def body(password: str) -> dict[str, str]:
        return {"current_password": password} | ({"email": "a@example.com"} if method == "PATCH" else {})

    for _ in range(10):
        assert (await ada.request(method, path, json=body("wrong horse"))).status_code == 403

    assert (await ada.request(method, path, json=body(A_PASSWORD))).status_code == 429
    assert (await sign_in(ada, ada.email, A_PASSWORD)).status_code == 429


async def test_signed_in_users_are_not_locked_out(ada: Client) -> None:
    await fail(ada, 10)

    refreshed = await ada.post("/auth/refresh", json={"refresh_token": ada.tokens["refresh_token"]})
    changed = await ada.patch("/users/me", json={"current_password": A_PASSWORD, "email": "a@example.com"})

    assert (await ada.get("/contacts")).status_code == 200
    assert (refreshed.status_code, changed.status_code) == (200, 200)


async def test_other_accounts_do_not_wait(ada: Client, grace: Client) -> None:
    await fail(ada, 10)

    assert (await sign_in(ada, grace.email, A_PASSWORD)).status_code == 200


async def test_all_workers_share_the_count(ada: Client, make_settings: Callable[..., Settings]) -> None:
    other = create_app(make_settings())
    async with other.router.lifespan_context(other), client_of(other) as client:
        await fail(ada, 5)
        await fail(client, 5)

        assert (await sign_in(client, ada.email, A_PASSWORD)).status_code == 429
    assert (await sign_in(ada, ada.email, A_PASSWORD)).status_code == 429


async def test_few_of_many_concurrent_guesses_are_checked(app: FastAPI, ada: Client) -> None:
    answers = await asyncio.gather(*(sign_in(ada, ada.email) for _ in range(60)))

    guessed = [answer.status_code for answer in answers].count(401)
    assert 10 <= guessed <= 10 + app.state.settings.hashing_threads
    assert {answer.status_code for answer in answers} == {401, 429}


async def test_twenty_concurrent_sign_ins_all_succeed(ada: Client) -> None:
    answers = await asyncio.gather(*(sign_in(ada, ada.email, A_PASSWORD) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}


async def test_counts_contain_no_address_and_no_password(ada: Client, execute: Execute) -> None:
    await sign_in(ada, "my password by mistake", "a password that is wrong")

    ((key,),) = execute("SELECT key FROM failed_attempt")
    assert len(bytes(key)) == 32
    assert b"mistake" not in bytes(key)


async def test_old_counts_are_deleted(app: FastAPI, ada: Client, execute: Execute) -> None:
    await fail(ada, 1)
    await fail(ada, 1, "nobody@example.com")
    oldest = "(SELECT min(failed_at) FROM failed_attempt)"
    execute(f"UPDATE failed_attempt SET failed_at = now() - interval '25 hours' WHERE failed_at = {oldest}")

    await app.state.cleanup.sweep()

    assert execute("SELECT count(*) FROM failed_attempt") == [(1,)]
