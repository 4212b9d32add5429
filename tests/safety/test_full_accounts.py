"""Accounts at their limits: every call on contacts is answered with a bounded amount of memory.

The account has a hundredth of the contacts that the limit allows, and PostgreSQL has a hundredth of its `work_mem`.
Statements have a twentieth of their time limit, not a hundredth, because reading one page takes as long in a smaller
account.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI

from contacts_api.app import create_app
from contacts_api.contacts.models import STORED, columns_of
from contacts_api.database import engine as database
from contacts_api.settings import Settings
from tests.client import A_CONTACT, Client
from tests.conftest import Execute, client_of
from tests.faults.reference import slowness
from tests.safety.document import BOUNDARY, FILE, Operation, as_file, operations

CONTACTS, LARGE = 10_000, 1_100
STATEMENT_SECONDS = database.STATEMENT_SECONDS / 20
WORK_MEM = "64kB"
GROWTH_MIB = 120
BROKEN_OFF = 599
MIB = 1024 * 1024
DETAILS = [{"kind": "other", "label": None, "value": "x" * 1000}] * 62

# The question marks stand for the number of the contact.
TEMPLATE: dict[str, Any] = {
    **A_CONTACT,
    "first_name": "First?",
    "last_name": "Last?",
    "email": "?@example.com",
    "date_of_birth": None,
    "birthday": "12-09",
}

CALLS = sorted(
    (operation for operation in operations() if operation.path.startswith("/contacts")),
    key=lambda operation: ("GET", "POST", "PUT", "PATCH", "DELETE").index(operation.method),
)
QUERIES: dict[str, str | int] = {
    "limit": 500,
    "with_total": "true",
    "sort": "-updated_at",
    "q": "last99",
    "label": "Label 7",
    "first_name": "first99",
    "email": "@example.com",
    "days": 365,
    "on_duplicate": "update",
    "dry_run": "true",
}


@pytest.fixture
async def full_app(
    make_settings: Callable[..., Settings], execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FastAPI]:
    monkeypatch.setattr(database.create_engine, "__defaults__", (STATEMENT_SECONDS * slowness(),))
    execute(f"ALTER ROLE CURRENT_USER SET work_mem = '{WORK_MEM}'")
    app = create_app(make_settings())
    try:
        async with app.router.lifespan_context(app):
            yield app
    finally:
        execute("ALTER ROLE CURRENT_USER RESET work_mem")


def shortened(app: FastAPI) -> FastAPI:
    """Return the application with truncated response bodies, because the test client would keep them in memory."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        left = MIB

        async def send_start(message: MutableMapping[str, Any]) -> None:
            nonlocal left
            body = message.get("body", b"")[:left]
            left -= len(body)
            await send({**message, "body": body} if "body" in message else message)

        await app(scope, receive, send_start)

    return run  # type: ignore[return-value]


@pytest.fixture
async def full(full_app: FastAPI, execute: Execute) -> AsyncIterator[Client]:
    """A client of an account whose contacts have 50 labels each. The first ones also have the longest details."""
    async with client_of(shortened(full_app), timeout=60) as client:
        await client.sign_up("full@example.com")
        fill(execute, client.email)
        yield client


def fill(execute: Execute, email: str) -> None:
    names = ", ".join(STORED)
    execute(f"CREATE TEMP TABLE template AS SELECT 0 AS n, {names} FROM contact WHERE false")
    for n in range(100):
        labels = [f"Label {(n * 37 + k) % 1000}" for k in range(50)]
        columns = columns_of({**TEMPLATE, "labels": labels})
        values = [columns[name] for name in STORED]
        execute(f"INSERT INTO template SELECT %s, {', '.join(['%s'] * len(STORED))}", n, *values)
    details = columns_of({**TEMPLATE, "details": DETAILS})["details"]
    numbered = {"first_name", "last_name", "email", "search_text", "sort_name", "identity"}
    stored = [f"replace({name}, '?', lpad(c::text, 5, '0'))" if name in numbered else name for name in STORED]
    stored[STORED.index("details")] = f"CASE WHEN c <= {LARGE} THEN '{details}' ELSE details END"
    execute(
        f"""
        INSERT INTO contact (owner_id, id, {names})
        SELECT (SELECT id FROM "user" WHERE email = %s), lpad(to_hex(c), 32, '0')::uuid, {", ".join(stored)}
        FROM generate_series(1, {CONTACTS}) AS c JOIN template ON n = c %% 100
        """,
        email,
    )
    execute("ANALYZE contact")


def ids_of(count: int, start: int = 1) -> list[str]:
    return [f"00000000-0000-0000-0000-{n:012x}" for n in range(start, start + count)]


def bodies(operation: Operation) -> Iterator[dict[str, Any]]:
    """Yield the bodies to send to an operation: its example, with as many contacts of the account as it accepts."""
    if not operation.media_types:
        yield {}
    elif operation.media_types[0] == FILE:
        rows = "".join(f"First{n:05},Last{n:05},{n:05}@example.com,changed\n" for n in range(1, 500))
        content = as_file(f"first_name,last_name,email,additional_info\n{rows}".encode())
        yield {"content": content, "headers": {"Content-Type": f"{FILE}; boundary={BOUNDARY}"}}
    elif "ids" in operation.example:
        yield {"json": {**operation.example, "ids": ids_of(50, start=CONTACTS - 50)}}
        yield {"json": {**operation.example, "ids": ids_of(500, start=2)}}
    elif isinstance(operation.example.get("items"), list):
        item = operation.example["items"][0]
        if "id" not in item:
            # Creating the maximum takes as long as in an empty account.
            yield {"json": {"items": [item] * 50}}
            return
        for start in (2, LARGE + 1):
            yield {"json": {"items": [{**item, "id": each} for each in ids_of(500, start)]}}
    else:
        yield {"json": operation.example}


async def path_of(operation: Operation, client: Client) -> str:
    """Return the path of an operation, with the first contact of the account or one of its labels as the parameter."""
    known = {"contact_id": ids_of(1)[0], "label": "Label 7"}
    if set(operation.ids) <= set(known):
        return operation.url(*(known[name] for name in operation.ids))
    return operation.url(*await operation.make_ids(client))


async def requests_of(operation: Operation, client: Client) -> AsyncIterator[httpx.Request]:
    queries: list[dict[str, str | int]] = [{}]
    queries += [{name: QUERIES[name]} for name in operation.named("query") if name in QUERIES]
    for query in queries:
        for body in bodies(operation):
            path = await path_of(operation, client)
            yield client.build_request(operation.method, path, params=query, **body)


async def status_of(client: Client, request: httpx.Request) -> int:
    try:
        return (await client.send(request)).status_code
    except AssertionError:
        # httpx raises this if the response is incomplete.
        return BROKEN_OFF


class Growth:
    """The peak memory of this process, compared with its memory at the start."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start = self.most = self._process.memory_info().rss

    @asynccontextmanager
    async def watched(self) -> AsyncIterator["Growth"]:
        watching = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            self.most = max(self.most, self._process.memory_info().rss)
            await asyncio.sleep(0.005)

    @property
    def mib(self) -> float:
        return (self.most - self._start) / MIB


async def test_every_call_on_a_full_account_is_answered(full: Client) -> None:
    failed: list[str] = []
    async with Growth().watched() as growth:
        for operation in CALLS:
            async for request in requests_of(operation, full):
                # On a busy machine a statement may time out once.
                for _ in range(3):
                    before = growth.mib
                    status = await status_of(full, request)
                    if status < 500:
                        break
                what = f"{request.method} {request.url.path}?{request.url.query.decode()}"
                if status >= 500:
                    failed.append(f"{what}: {status}")
                if growth.mib > max(before, GROWTH_MIB):
                    failed.append(f"{what}: grew to {growth.mib:.0f} MiB")

    assert not failed, "\n".join(failed)


async def test_labels_of_a_full_account_are_listed_and_renamed(full: Client) -> None:
    listed = (await full.get("/contacts/labels")).json()["items"]
    uses = {each["label"]: each["contacts"] for each in listed}

    renamed = await full.patch("/contacts/labels/label%207", json={"label": "Renamed"})
    absent = await full.delete("/contacts/labels/label%207")

    assert (len(listed), sum(uses.values())) == (1000, 50 * CONTACTS)
    assert (renamed.status_code, renamed.json()) == (200, {"contacts": uses["Label 7"]})
    assert (absent.status_code, absent.json()["code"]) == (404, "label_not_found")


async def test_changes_with_too_large_an_answer_are_refused_with_the_number_that_fits(full: Client) -> None:
    items = [{"id": each, "additional_info": "changed"} for each in ids_of(500)]

    refused = await full.post("/contacts/batch/update", json={"items": items})
    (error,) = refused.json()["errors"]
    fitting = int(error["detail"].split("first ")[1].split()[0])
    changed = await full.post("/contacts/batch/update", json={"items": items[:fitting]})
    next_one = await full.get(f"/contacts/{items[fitting]['id']}")

    assert (refused.status_code, error["loc"], error["code"]) == (422, ["body", "items"], "too_large")
    assert 100 < fitting < 200
    assert changed.status_code == 200
    assert next_one.json()["additional_info"] is None
