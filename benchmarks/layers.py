"""Measure the CPU cost, in this process, of reading by an ORM session, by SQLAlchemy Core and by asyncpg directly."""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

from rich.console import Console
from rich.table import Table
from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks import data, machine
from contacts_api.contacts import queries
from contacts_api.contacts.models import Contact
from contacts_api.database.engine import Database, create_engine, table_of

READS = 1000
_contact = table_of(Contact).c
_OWNED = _contact.owner_id == bindparam("owner_id")
_ONE = _OWNED & (_contact.id == bindparam("contact_id"))
_PAGE = (_contact.sort_name, _contact.id)

Read = Callable[[], Awaitable[object]]


def run(options: argparse.Namespace, console: Console) -> list[str]:
    """Measure and print the results. There are no limits, so the list of missed ones is empty."""
    url = machine.start_postgres(options.postgres, machine.temporary_directory())
    (owner,) = data.fill(url, "user", 1, 100)
    console.print(asyncio.run(measure(url, UUID(owner.id), UUID(owner.contact_ids[0]), options.rounds)))
    return []


async def measure(url: str, owner_id: UUID, contact_id: UUID, rounds: int) -> Table:
    engine = create_engine(url, 1)
    database = Database(engine)
    one, page = {"owner_id": owner_id, "contact_id": contact_id}, {"owner_id": owner_id}

    async def by_session(statement: object, parameters: dict[str, UUID]) -> object:
        async with AsyncSession(database.engine) as session:
            return (await session.scalars(statement, parameters)).all()  # type: ignore[call-overload]

    async def by_core(statement: object, parameters: dict[str, UUID]) -> object:
        async with engine.connect() as connection:
            return (await connection.execute(statement, parameters)).all()  # type: ignore[call-overload]

    objects, columns = select(Contact), select(table_of(Contact))
    layers: dict[str, tuple[Read, Read]] = {
        "ORM session, SQLModel objects": (
            lambda: by_session(objects.where(_ONE), one),
            lambda: by_session(objects.where(_OWNED).order_by(*_PAGE).limit(50), page),
        ),
        "SQLAlchemy Core, rows": (
            lambda: by_core(columns.where(_ONE), one),
            lambda: by_core(columns.where(_OWNED).order_by(*_PAGE).limit(50), page),
        ),
        "asyncpg, rows: what the API does": (
            lambda: database.read(queries.GET, **one),
            lambda: queries.contacts("name").read(database, 50, {}, **page),
        ),
    }
    table = Table("", "one contact", "fifty", title="CPU of the Python side, µs per read (the quietest round)")
    for name, reads in layers.items():
        table.add_row(name, *[f"{await microseconds(read, rounds):,.0f}" for read in reads])
    await engine.dispose()
    return table


async def microseconds(read: Read, rounds: int) -> float:
    """Return the CPU time of one read in µs, from the round with the lowest time."""
    measured = []
    for _ in range(rounds + 1):
        begun_at = time.process_time()
        for _ in range(READS):
            await read()
        measured.append(time.process_time() - begun_at)
    # Ignore the first round, in which the connection is opened and the statements are prepared.
    return min(measured[1:]) / READS * 1e6
