"""Statements are quick also where PostgreSQL's statistics are older than the contacts."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy.dialects import postgresql

from contacts_api.contacts import queries
from tests.client import Client
from tests.conftest import Execute

FILL = """
    INSERT INTO contact (owner_id, id, first_name, search_text, sort_name)
    SELECT %s, lpad(to_hex(n), 32, '0')::uuid, 'Ada', 'ada', 'ada' FROM generate_series(1, %s) AS n
"""
IS_RENEWED = "SELECT reltuples > 19000 FROM pg_class WHERE oid = 'contact'::regclass"


async def id_of(client: Client) -> UUID:
    return UUID((await client.get("/users/me")).json()["id"])


@pytest.fixture
async def owner_id(ada: Client, grace: Client, execute: Execute) -> AsyncIterator[UUID]:
    """Ada's id: all her contacts are newer than the statistics, which know of some of Grace's."""
    owner_id, other_id = await id_of(ada), await id_of(grace)
    execute("ALTER TABLE contact SET (autovacuum_enabled = off)")
    execute(FILL, str(other_id), 500)
    execute("ANALYZE contact")
    execute(FILL, str(owner_id), 20_000)
    execute("SELECT pg_stat_force_next_flush()")
    yield owner_id
    execute("ALTER TABLE contact RESET (autovacuum_enabled)")


async def test_a_contact_is_found_by_its_key(owner_id: UUID, execute: Execute) -> None:
    statement = queries.GET.params(owner_id=owner_id, contact_id=UUID(int=7))
    sql = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call]

    ((plan,), *_) = execute(f"EXPLAIN {sql}")

    assert "using pk_contact" in plan


async def test_the_statistics_are_renewed_for_an_import(ada: Client, owner_id: UUID, execute: Execute) -> None:
    assert execute(IS_RENEWED) == [(False,)]

    imported = await ada.post("/contacts/import", files={"file": ("contacts.csv", b"first_name\r\nGrace\r\n")})

    assert imported.json()["created"] == 1
    assert execute(IS_RENEWED) == [(True,)]


async def test_the_statistics_are_renewed_for_deleting_an_account(
    app: FastAPI, owner_id: UUID, execute: Execute
) -> None:
    execute('UPDATE "user" SET erased_at = now() WHERE id = %s', str(owner_id))

    await app.state.cleanup.sweep()

    assert execute(IS_RENEWED) == [(True,)]
    assert execute("SELECT count(*) FROM contact WHERE owner_id = %s", str(owner_id)) == [(0,)]
