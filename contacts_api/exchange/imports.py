"""Files of contacts into the database: read in a thread, staged by COPY, written in one transaction a file."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, cast
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from contacts_api.contacts.models import columns_of_fields
from contacts_api.database import Database
from contacts_api.errors import Conflict, Invalid
from contacts_api.exchange import csv, queries, vcard
from contacts_api.exchange.models import ImportReport, OnDuplicate, RowError
from contacts_api.exchange.records import BadRow, FileError, ImportedContact, sniff

BATCH_ROWS = 1000
MAX_ERRORS = 1000
_CHUNK = 64 * 1024
_PARSERS = {"csv": csv.parse, "vcard": vcard.parse}

Rows = Iterator[ImportedContact | BadRow]


class TooManyRows(Invalid):
    code, title = "too_many_rows", "The file has more rows than an import may have"


class ImportRunning(Conflict):
    code, title = "import_running", "Another import of yours is running"


# The problem that each error of a codec is to a client.
REFUSALS = {
    error: cast(type[Invalid], type(error.__name__, (Invalid,), {"code": error.code, "title": error.detail[:-1]}))
    for error in FileError.__subclasses__()
}


async def import_file(
    database: Database,
    owner_id: UUID,
    file: BinaryIO,
    *,
    last_date_of_birth: date,
    max_rows: int,
    dry_run: bool = False,
    on_duplicate: OnDuplicate = "skip",
    on_progress: Callable[[], None] = lambda: None,
) -> ImportReport:
    """Import the contacts of a file: all that are good, or none where the file itself is not.

    Raises one of REFUSALS, TooManyRows or ImportRunning. A dry run does the same, and takes it back.
    """
    try:
        format_, chunks = await asyncio.to_thread(sniff, iter(partial(file.read, _CHUNK), b""))
        rows = _PARSERS[format_](chunks, last_date_of_birth)
        report = ImportReport(format=format_, dry_run=dry_run, created=0, updated=0, skipped=0, failed=0, errors=[])
        async with database.transaction(keep=not dry_run) as connection:
            await connection.execute(queries.BEGIN_IMPORT)
            if not await connection.fetchval(queries.LOCK_IMPORT, owner_id):
                raise ImportRunning
            staged = await _stage(connection, rows, max_rows, report, on_progress)
            await _write(connection, owner_id, staged, on_duplicate, report)
    except FileError as error:
        raise REFUSALS[type(error)].field("body", "file", detail=error.detail) from None
    return report


async def _stage(
    connection: asyncpg.Connection, rows: Rows, max_rows: int, report: ImportReport, on_progress: Callable[[], None]
) -> int:
    """Copy the good rows to where they can be compared, and report the bad ones. Return how many are good."""
    staged = 0
    while batch := await asyncio.to_thread(_take, rows, staged):
        records, bad_rows = batch
        staged += len(records)
        report.failed += len(bad_rows)
        if staged + report.failed > max_rows:
            raise TooManyRows.field("body", "file", detail=f"It may have at most {max_rows:,} rows.")
        for bad in bad_rows[: MAX_ERRORS - len(report.errors)]:
            report.errors += [RowError(row=bad.row, field=e.field, code=e.code, detail=e.detail) for e in bad.errors]
        del report.errors[MAX_ERRORS:]
        await connection.copy_records_to_table(
            "staged", records=records, columns=queries.STAGED, timeout=queries.IMPORT_SECONDS
        )
        on_progress()
    return staged


def _take(rows: Rows, count: int) -> tuple[list[tuple[Any, ...]], list[BadRow]] | None:
    """Return the next rows: the good ones as they are staged, numbered from `count` on, and the bad ones."""
    taken = list(islice(rows, BATCH_ROWS))
    good = (row for row in taken if isinstance(row, ImportedContact))
    records = [(n, uuid7(), row.uid, *columns_of_fields(row.fields).values()) for n, row in enumerate(good, count)]
    return (records, [row for row in taken if isinstance(row, BadRow)]) if taken else None


async def _write(
    connection: asyncpg.Connection, owner_id: UUID, staged: int, on_duplicate: OnDuplicate, report: ImportReport
) -> None:
    async def run(statement: str, *parameters: UUID) -> int:
        status = await connection.execute(statement, *parameters, timeout=queries.IMPORT_SECONDS)
        return int(status.rpartition(" ")[2])

    if on_duplicate != "create":
        await connection.execute(queries.ANALYZE)
        await run(queries.MATCH, owner_id)
        while await run(queries.FOLLOW):
            pass
    if on_duplicate == "update":
        report.updated = await run(queries.UPDATE, owner_id)
    report.created = await run(queries.INSERT[on_duplicate], owner_id)
    report.skipped = staged - report.created - report.updated
