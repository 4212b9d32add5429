"""Exports over HTTP: the right contacts, in files that can be imported again, and nothing held for a stalled client."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any
from unittest.mock import ANY

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.types import Message

from contacts_api.contacts.models import FIELDS, STORED, columns_of
from contacts_api.http import paging as pagination
from tests.client import Client
from tests.conftest import Execute
from tests.features.exchange.contacts import CONTACTS, fields

FILES = ["/contacts/export.csv", "/contacts/export.vcf"]
HOSTILE = [
    fields("=1+1", "@SUM(A1)", "'+a@b.com", "+1 202 555 0143", date(1900, 1, 1), "-1\n\t=2;\"quoted\", 'twice'\\n"),
    fields("'", "a\u200bb", None, None, None, ""),
    fields("\u200eevil", None, "zoë@bücher.example", "123", date(2000, 2, 29), "\u202e" + "x" * 1999),
    fields("Ева", "李", None, "(044) 123,45;67", None, "two\nlines\n"),
]

Store = Callable[..., None]


@pytest.fixture
def store(execute: Execute) -> Store:
    """Insert contacts into the database directly, because the API would reject some of them."""

    def run(email: str, *contacts: dict[str, Any]) -> None:
        execute('DELETE FROM contact WHERE owner_id = (SELECT id FROM "user" WHERE email = %s)', email)
        for contact in contacts:
            execute(
                f"INSERT INTO contact (owner_id, id, {', '.join(STORED)}) "
                f'SELECT id, gen_random_uuid(), {", ".join(["%s"] * len(STORED))} FROM "user" WHERE email = %s',
                *(columns_of(contact)[name] for name in STORED),
                email,
            )

    return run


async def stored(client: Client) -> list[tuple[Any, ...]]:
    return sorted((tuple(each[name] for name in FIELDS) for each in await client.list_contacts(limit=500)), key=str)


@pytest.mark.parametrize("path", FILES)
@settings(max_examples=15)
@given(contacts=st.lists(CONTACTS, min_size=1, max_size=8))
async def test_what_is_exported_is_imported_as_it_was(
    ada: Client, store: Store, path: str, contacts: list[dict[str, Any]]
) -> None:
    store(ada.email, *HOSTILE, *contacts)
    before = await stored(ada)
    file = await ada.get(path)
    store(ada.email)

    report = await ada.post("/contacts/import?on_duplicate=create", files={"file": ("contacts", file.content)})

    assert report.json() == {
        "format": ANY,
        "dry_run": False,
        "created": len(before),
        "updated": 0,
        "skipped": 0,
        "failed": 0,
        "date_order": None,
        "not_kept": {},
        "errors": [],
        "warnings": [],
        "skips": [],
    }
    assert await stored(ada) == before
    again = await ada.get(path)
    assert sorted(again.content.splitlines()) == sorted(file.content.splitlines())


@pytest.mark.parametrize("path", FILES)
async def test_an_export_goes_on_over_its_pages(
    ada: Client, store: Store, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(pagination, "FIRST_ROWS", 2)
    monkeypatch.setattr(pagination, "PAGE_ROWS", 3)
    contacts = [fields(f"Name {n % 4}", f"{n:02}") for n in range(9)]
    for sort in ("name", "-name", "created_at", "-updated_at"):
        for count in (0, 1, 3, 4, 9):
            store(ada.email, *contacts[:count])
            listed = [contact["last_name"] for contact in await ada.list_contacts(sort=sort)]

            file = (await ada.get(path, params={"sort": sort})).text

            assert re.findall("^(?:N:|Name [0-3],)([0-9]{2})[;,]", file, re.MULTILINE) == listed


async def test_exports_are_downloads_of_what_the_filters_say_and_of_the_owner(ada: Client, grace: Client) -> None:
    for name in "Zoë", "Bob":
        await ada.create_contact(first_name=name)
    await grace.create_contact(first_name="Zoe", last_name="Other")

    csv = await ada.get("/contacts/export.csv?q=zoe")
    vcf = await ada.get("/contacts/export.vcf?first_name=zoe")

    (row,) = csv.text.splitlines()[1:]
    assert row.startswith("Zoë,Hopper,grace@example.com,+1 (202) 555-0143,1906-12-09,")
    assert vcf.text.count("BEGIN:VCARD") == 1
    assert "N:Hopper;Zoë;;;" in vcf.text
    for response, type_, name in (csv, "text/csv", "contacts.csv"), (vcf, "text/vcard", "contacts.vcf"):
        assert response.headers["content-type"] == f"{type_}; charset=utf-8"
        assert response.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert response.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("path", FILES)
async def test_an_export_has_no_pages_and_no_typos(ada: Client, client: Client, path: str) -> None:
    refused = [(await ada.get(path, params=query)).status_code for query in ({"limit": 1}, {"x": 1}, {"sort": "x"})]

    assert refused == [422, 422, 422]
    assert (await client.get(path)).status_code == 401
    assert (await ada.head(path)).content == b""


@pytest.mark.parametrize("path", FILES)
async def test_a_database_that_is_away_is_a_503_before_the_answer_begins(
    app: FastAPI, ada: Client, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise PoolTimeoutError

    monkeypatch.setattr(app.state.database, "read", fail)

    assert (await ada.get(path)).status_code == 503


@pytest.mark.parametrize("path", FILES)
async def test_who_reads_slowly_or_hangs_up_holds_no_connection(
    app: FastAPI, ada: Client, store: Store, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(pagination, "FIRST_ROWS", 1)
    monkeypatch.setattr(pagination, "PAGE_ROWS", 1)
    store(ada.email, *HOSTILE)
    pool = app.state.database.engine.pool
    held: list[int] = []

    async def receive() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        held.append(pool.checkedout())
        if len(held) == 3:
            raise OSError

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", ada.headers["Authorization"].encode())],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
    }
    running: Awaitable[None] = app(scope, receive, send)
    with pytest.raises(Exception):  # noqa: B017, PT011 (the server may raise any error)
        await running

    assert held == [0, 0, 0]
    assert pool.checkedout() == 0
