"""Hashing passwords blocks nothing else: neither the event loop nor a database connection."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from fastapi import FastAPI
from pwdlib.hashers.argon2 import Argon2Hasher

from contacts_api.accounts.passwords import HASHES_WAITING, PasswordHasher
from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import A_PASSWORD, Client
from tests.conftest import client_of


class Watch:
    """Counts hashes in all threads, and blocks each until the test sets `let_go`."""

    def __init__(self) -> None:
        self.app: FastAPI | None = None
        self.let_go = threading.Event()
        self.running, self.most_at_once, self.done = 0, 0, 0
        self.connections: set[int] = set()
        self._lock = threading.Lock()

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            if self.app is None:
                return work(*arguments, **options)
            with self._lock:
                self.running += 1
                self.most_at_once = max(self.most_at_once, self.running)
            self.let_go.wait(10)
            result = work(*arguments, **options)
            with self._lock:
                self.connections.add(self.app.state.database.engine.pool.checkedout())
                self.running -= 1
                self.done += 1
            return result

        return watched


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch = Watch()
    for name in "hash", "verify":
        monkeypatch.setattr(Argon2Hasher, name, watch.around(getattr(Argon2Hasher, name)))
    yield watch
    watch.let_go.set()


@pytest.mark.parametrize("workers", [1, 1000])
async def test_ten_concurrent_logins_do_not_delay_other_requests(
    ada: Client, make_settings: Callable[..., Settings], watch: Watch, workers: int
) -> None:
    settings = make_settings(web_concurrency=workers)
    app = create_app(settings)
    credentials = {"email": ada.email, "password": A_PASSWORD}
    async with app.router.lifespan_context(app), client_of(app) as client:
        watch.app = app
        logins = [asyncio.create_task(client.post("/auth/login", json=credentials)) for _ in range(10)]
        async with asyncio.timeout(10):
            while watch.running < settings.hashing_threads:  # noqa: ASYNC110 (other threads count)
                await asyncio.sleep(0.001)

        # No hash finishes before these requests are answered.
        live = [await client.get("/health/live") for _ in range(20)]
        ready = [await client.get("/health/ready") for _ in range(20)]
        done_meanwhile = watch.done
        watch.let_go.set()
        answers = await asyncio.gather(*logins)

    assert {response.status_code for response in (*live, *ready, *answers)} == {200}
    assert done_meanwhile == 0
    assert watch.most_at_once == settings.hashing_threads
    assert watch.done == 10


async def test_a_decomposed_password_takes_as_long_for_an_unknown_address(
    ada: Client, make_settings: Callable[..., Settings], watch: Watch
) -> None:
    """The password may be hashed twice: in NFC, and as it was sent, because earlier releases hashed it as sent."""
    settings = make_settings()
    app = create_app(settings)
    watch.let_go.set()
    hashes = []
    async with app.router.lifespan_context(app), client_of(app) as client:
        watch.app = app
        for email in (ada.email, "nobody@example.com"):
            for password in ("a wrong phrase", "ein falscher Sa\u0308tz", "ein falscher S\u00e4tz"):
                before = watch.done
                await client.post("/auth/login", json={"email": email, "password": password})
                hashes.append(watch.done - before)
        decomposed = {"email": "nobody@example.com", "password": "ein falscher Sa\u0308tz"}
        await asyncio.gather(*(client.post("/auth/login", json=decomposed) for _ in range(8)))

    assert hashes == [1, 2, 1] * 2
    assert watch.most_at_once <= settings.hashing_threads


async def test_no_connection_is_held_while_a_password_is_hashed(
    ada: Client, make_settings: Callable[..., Settings], watch: Watch
) -> None:
    app = create_app(make_settings())
    watch.let_go.set()
    async with app.router.lifespan_context(app), client_of(app) as client:
        watch.app = app
        client.use(ada.tokens)
        account = {"email": "new@example.com", "password": A_PASSWORD}
        changes = {"current_password": A_PASSWORD, "password": "another horse and staple"}
        answers = [
            await client.post("/auth/register", json=account),
            await client.post("/auth/login", json=account),
            await client.post("/auth/token", data={"grant_type": "password", "username": "no", "password": "one"}),
            await client.patch("/users/me", json=changes),
            await client.post("/users/me/delete", json={"current_password": changes["password"]}),
        ]

    assert [answer.status_code for answer in answers] == [201, 200, 401, 200, 204]
    assert watch.done >= len(answers)
    assert watch.connections == {0}


async def test_registrations_beyond_a_short_queue_are_refused(
    ada: Client, make_settings: Callable[..., Settings]
) -> None:
    app = create_app(make_settings(web_concurrency=1000))
    accounts = [{"email": f"flood{n}@example.com", "password": A_PASSWORD} for n in range(3 * HASHES_WAITING)]
    async with app.router.lifespan_context(app), client_of(app) as client:
        answers = await asyncio.gather(*(client.post("/auth/register", json=account) for account in accounts))
        afterwards = await client.post("/auth/login", json={"email": ada.email, "password": A_PASSWORD})

    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} <= {201, 503}
    assert len(refused) >= 2 * HASHES_WAITING - 1
    assert {answer.json()["code"] for answer in refused} == {"busy"}
    assert all("retry-after" in answer.headers for answer in refused)
    assert afterwards.status_code == 200


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Only Linux has it.")
async def test_hashing_threads_have_a_lower_priority() -> None:
    await PasswordHasher(threads=1).hash(A_PASSWORD)

    assert os.SCHED_BATCH in policies_of_threads()


def policies_of_threads() -> Iterator[int]:
    for thread in psutil.Process().threads():
        # A thread of an earlier test may have ended.
        with suppress(ProcessLookupError):
            yield os.sched_getscheduler(thread.id)


async def test_hashing_works_where_the_priority_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden, raising=False)

    assert await PasswordHasher(threads=1).hash(A_PASSWORD)
