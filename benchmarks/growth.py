"""Measure the bytes of a contact, the cost of each index for a write, and the cost of reading ended sessions."""

import argparse
import asyncio
import random
import time
from collections.abc import Callable
from uuid import uuid4

import psutil
from psycopg2 import extensions
from rich.console import Console
from rich.table import Table

from benchmarks import data, machine
from contacts_api.accounts.sessions import EndedSessions
from contacts_api.contacts.models import STORED
from contacts_api.database.engine import Database, create_engine

OWNERS, CONTACTS = 2000, 100
WRITES = 1000
ENDINGS = 100_000
ACCESS_TOKEN_SECONDS = 900

_SIZES = """
    SELECT relname, pg_relation_size(oid) FROM pg_class
    WHERE oid = 'contact'::regclass OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'contact'::regclass)
    ORDER BY relkind DESC, pg_relation_size(oid) DESC
"""
_COLUMNS = ", ".join(STORED)
_CREATE = f"""
    INSERT INTO contact (owner_id, id, {_COLUMNS})
    SELECT owner_id, %s, {_COLUMNS} FROM contact WHERE owner_id = %s LIMIT 1
"""
_UPDATE = (
    "UPDATE contact SET additional_info = 'Called.', updated_at = clock_timestamp() WHERE owner_id = %s AND id = %s"
)

_ENDINGS = """
    INSERT INTO ended_session SELECT gen_random_uuid(), now() - n * interval '8 ms' FROM generate_series(1, %s) AS n
"""


def run(options: argparse.Namespace, console: Console) -> list[str]:
    """Measure and print the results. There are no limits, so the list of missed ones is empty."""
    url = machine.start_postgres(options.postgres, machine.temporary_directory())
    owners = data.fill(url, "user", OWNERS, CONTACTS)
    with data.cursor(url) as sql:
        console.print(sizes(sql))
        console.print(costs(sql, owners))
        console.print(asyncio.run(endings(url, sql)))
    return []


def sizes(sql: extensions.cursor) -> Table:
    table = Table("", "bytes a contact", title=f"{OWNERS * CONTACTS:,} contacts of {OWNERS:,} owners")
    sql.execute(_SIZES)
    found = sql.fetchall()
    for name, size in [*found, ("all", sum(size for _, size in found))]:
        table.add_row(name, f"{size / OWNERS / CONTACTS:,.0f}")
    return table


def costs(sql: extensions.cursor, owners: list[data.Owner]) -> Table:
    """Return PostgreSQL's cost of a create and an update, with all indexes and with each index left out."""

    def create() -> None:
        sql.execute(_CREATE, (str(uuid4()), random.choice(owners).id))

    def update() -> None:
        owner = random.choice(owners)
        sql.execute(_UPDATE, (owner.id, random.choice(owner.contact_ids)))

    columns = ("create, µs", "create, bytes of log", "after a checkpoint", "update, µs", "update, bytes of log")
    table = Table("", *columns, title=f"PostgreSQL's CPU, and its log (WAL): {WRITES:,} writes each, then undone")
    sql.execute(_SIZES)
    names = [name for name, _ in sql.fetchall() if name not in ("contact", "pk_contact")]
    for name in [None, *names]:
        sql.execute("CHECKPOINT")
        sql.execute("BEGIN")
        if name:
            sql.execute(f"DROP INDEX {name}")
        cold = cost(sql, create)
        warm, updated = cost(sql, create), cost(sql, update)
        sql.execute("ROLLBACK")
        figures = warm[0], warm[1], cold[1], *updated
        table.add_row(f"without {name}" if name else "with all indexes", *(f"{figure:,.0f}" for figure in figures))
    return table


def cost(sql: extensions.cursor, write: Callable[[], None]) -> tuple[float, float]:
    """Return the cost of one write: CPU time in µs, and bytes of WAL."""
    backend = psutil.Process(sql.connection.info.backend_pid)
    log_before, before = log_position(sql), backend.cpu_times()
    for _ in range(WRITES):
        write()
    after = backend.cpu_times()
    taken = after.user + after.system - before.user - before.system
    return taken / WRITES * 1e6, (log_position(sql) - log_before) / WRITES


def log_position(sql: extensions.cursor) -> float:
    sql.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    ((position,),) = sql.fetchall()
    return float(position)


async def endings(url: str, sql: extensions.cursor) -> Table:
    """Return a worker's cost of reading the ended sessions, which it does twice a second."""
    sql.execute(_ENDINGS, (ENDINGS,))
    engine = create_engine(url, 1)
    database = Database(engine)
    copy = EndedSessions(database, database, ACCESS_TOKEN_SECONDS)
    table = Table("", "CPU, ms", "longest hold of the loop, ms", title=f"{ENDINGS:,} ended sessions, read by a worker")

    async def read_all() -> None:
        async with engine.connect() as connection:
            rows = await connection.exec_driver_sql("SELECT array_agg(id) FROM ended_session")
            frozenset(rows.scalar_one())

    for name, read in (("all at once, to compare", read_all), ("the first time", copy.refresh), ("then", copy.refresh)):
        holding = asyncio.create_task(longest_hold())
        await asyncio.sleep(0.05)
        before = time.process_time()
        await read()
        taken = time.process_time() - before
        holding.cancel()
        (longest,) = await asyncio.gather(holding)
        table.add_row(name, f"{taken * 1e3:,.1f}", f"{longest * 1e3:,.1f}")
    await engine.dispose()
    return table


async def longest_hold() -> float:
    """Measure until cancelled, then return the longest time in seconds for which the event loop was blocked."""
    longest, step = 0.0, 0.001
    try:
        while True:
            begun_at = time.monotonic()
            await asyncio.sleep(step)
            longest = max(longest, time.monotonic() - begun_at - step)
    except asyncio.CancelledError:
        return longest
