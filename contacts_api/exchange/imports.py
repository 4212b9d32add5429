"""Files of contacts into the database: read in a thread, staged by COPY, written in one transaction a file."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, cast
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from contacts_api.contacts.models import columns_of_fields
from contacts_api.contacts.quota import keep_within
from contacts_api.database import Database
from contacts_api.exchange import csv, queries, vcard
from contacts_api.exchange.models import ImportReport, OnDuplicate, RowError
from contacts_api.exchange.records import BadRow, FileError, ImportedContact, sniff
from contacts_api.handlers import DATABASE_ERRORS
from contacts_api.problems import Busy, Conflict, Invalid

# So many at once in a worker, on connections of their own; so many more wait, for so long.
IMPORTS, IMPORTS_WAITING, IMPORT_WAIT_SECONDS = 2, 24, 30.0
# An import says every so often that it goes on; one that has not for so long has ended with its worker.
ALIVE_SECONDS, DEAD_SECONDS = 10, 30

# Of fewer, more of the time goes into asking; of more, more memory is taken.
BATCH_ROWS = 4000
MAX_ERRORS = 1000
_CHUNK = 64 * 1024
_PARSERS = {"csv": csv.parse, "vcard": vcard.parse}

Rows = Iterator[ImportedContact | BadRow]
Batch = tuple[list[tuple[Any, ...]], list[BadRow]]


class TooManyRows(Invalid):
    code, title = "too_many_rows", "The file has more rows than an import may have"


class ImportRunning(Conflict):
    code, title = "import_running", "Another import of yours is running"


# The problem that each error of a codec is to a client.
REFUSALS = {
    error: cast(type[Invalid], type(error.__name__, (Invalid,), {"code": error.code, "title": error.detail[:-1]}))
    for error in FileError.__subclasses__()
}


@asynccontextmanager
async def claim_import(database: Database, owner_id: UUID) -> AsyncIterator[None]:
    """Have the one import of the owner that may run, on all workers. Raises ImportRunning."""
    own = {"owner_id": owner_id, "import_id": uuid7()}
    now = datetime.now(UTC)
    if not await database.write(queries.CLAIM_IMPORT, **own, now=now, dead_since=now - timedelta(seconds=DEAD_SECONDS)):
        raise ImportRunning
    keeping = asyncio.create_task(_keep_alive(database, own))
    try:
        yield
    finally:
        keeping.cancel()
        # Where the database is away, the row stays, and counts for nothing after DEAD_SECONDS.
        with suppress(*DATABASE_ERRORS, Busy):
            await asyncio.shield(database.write(queries.END_IMPORT, **own))


async def _keep_alive(database: Database, own: dict[str, UUID]) -> None:
    while True:
        await asyncio.sleep(ALIVE_SECONDS)
        with suppress(*DATABASE_ERRORS, Busy):
            await database.write(queries.KEEP_IMPORT, **own, now=datetime.now(UTC))


async def import_file(
    database: Database,
    owner_id: UUID,
    file: BinaryIO,
    *,
    last_date_of_birth: date,
    max_rows: int,
    max_contacts: int,
    dry_run: bool = False,
    on_duplicate: OnDuplicate = "skip",
    on_progress: Callable[[], None] = lambda: None,
) -> ImportReport:
    """Import the contacts of a file: all that are good, or none where the file itself is not.

    Raises one of REFUSALS, TooManyRows, TooManyContacts or ImportRunning. A dry run does the same, and takes it back.
    """
    try:
        format_, chunks = await asyncio.to_thread(sniff, iter(partial(file.read, _CHUNK), b""))
        rows = _PARSERS[format_](chunks, last_date_of_birth)
        report = ImportReport(format=format_, dry_run=dry_run, created=0, updated=0, skipped=0, failed=0, errors=[])
        async with database.transaction(keep=not dry_run) as connection:
            await connection.execute(queries.BEGIN_IMPORT)
            if not await connection.fetchval(queries.LOCK_IMPORT, owner_id):
                raise ImportRunning
            work = _Import(connection, owner_id, on_duplicate, report)
            await work.write(rows, max_rows, on_progress)
            await work.settle()
            await keep_within(connection, owner_id, report.created, max_contacts)
    except FileError as error:
        raise REFUSALS[type(error)].field("body", "file", detail=error.detail) from None
    return report


def _take(rows: Rows, count: int) -> Batch | None:
    """Return the next rows: the good ones as they are staged, numbered from `count` on, and the bad ones."""
    taken = list(islice(rows, BATCH_ROWS))
    good = (row for row in taken if isinstance(row, ImportedContact))
    records = [(n, uuid7(), row.uid, *columns_of_fields(row.fields).values()) for n, row in enumerate(good, count)]
    return (records, [row for row in taken if isinstance(row, BadRow)]) if taken else None


class _Import:
    """An import under way, in its transaction."""

    def __init__(
        self, connection: asyncpg.Connection, owner_id: UUID, on_duplicate: OnDuplicate, report: ImportReport
    ) -> None:
        self._connection = connection
        self._owner_id = owner_id
        self._on_duplicate = on_duplicate
        self._report = report
        self._staged = 0

    async def write(self, rows: Rows, max_rows: int, on_progress: Callable[[], None]) -> None:
        """Create what is new, a batch while the next one is read, and report the bad rows."""
        await self._run(queries.REMEMBER, self._owner_id)
        await self._connection.execute(queries.INDEX)
        reading = self._read(rows)
        while batch := await reading:
            records, bad_rows = batch
            first, self._staged = self._staged, self._staged + len(records)
            self._note(bad_rows)
            if self._staged + self._report.failed > max_rows:
                raise TooManyRows.field("body", "file", detail=f"It may have at most {max_rows:,} rows.")
            reading = self._read(rows)
            try:
                await self._connection.copy_records_to_table(
                    "staged", records=records, columns=queries.STAGED, timeout=queries.IMPORT_SECONDS
                )
                self._report.created += await self._run(
                    queries.CREATE[self._on_duplicate], self._owner_id, first, self._staged - 1
                )
            finally:
                # The file must not be closed while a thread reads it.
                await asyncio.gather(reading, return_exceptions=True)
            on_progress()

    async def settle(self) -> None:
        """Find what the file has twice, and what was there before it."""
        report = self._report
        await self._connection.execute(queries.ANALYZE)
        if self._on_duplicate == "create":
            await self._run(queries.SEPARATE, self._owner_id)
        else:
            await self._run(queries.MATCH)
            while await self._run(queries.FOLLOW):
                pass
            await self._run(queries.ADOPT)
            report.created -= await self._run(queries.TAKE_BACK[self._on_duplicate], self._owner_id)
        if self._on_duplicate == "update":
            await self._run(queries.UPDATE, self._owner_id, True)
            report.updated = await self._run(queries.UPDATE, self._owner_id, False)
        report.skipped = self._staged - report.created - report.updated

    def _read(self, rows: Rows) -> asyncio.Task[Batch | None]:
        return asyncio.create_task(asyncio.to_thread(_take, rows, self._staged))

    def _note(self, bad_rows: list[BadRow]) -> None:
        errors = self._report.errors
        self._report.failed += len(bad_rows)
        for bad in bad_rows[: MAX_ERRORS - len(errors)]:
            errors += [RowError(row=bad.row, field=e.field, code=e.code, detail=e.detail) for e in bad.errors]
        del errors[MAX_ERRORS:]

    async def _run(self, statement: str, *parameters: UUID | int) -> int:
        """Run a statement; return how many rows it wrote."""
        status = await self._connection.execute(statement, *parameters, timeout=queries.IMPORT_SECONDS)
        return int(status.rpartition(" ")[2])
