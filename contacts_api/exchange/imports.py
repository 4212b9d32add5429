"""Files of contacts into the database: read in a thread, staged by COPY, written in one transaction a file."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, TypeAlias
from uuid import UUID

from sqlalchemy import bindparam, delete, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from contacts_api.contacts import queries
from contacts_api.contacts.models import FIELDS, STORED, columns_of
from contacts_api.contacts.quota import keep_within
from contacts_api.contacts.reindexing import reindex_owner
from contacts_api.database import Database, copy_into, table_of
from contacts_api.exchange import csv, matching, vcard
from contacts_api.exchange.files import sniff
from contacts_api.exchange.models import ImportReport, OnDuplicate, RowError, RunningImport
from contacts_api.exchange.reader import IN_WORDS, BadRow, ImportedContact
from contacts_api.handlers import DATABASE_ERRORS
from contacts_api.problems import Busy, Conflict, Invalid
from contacts_api.text import NOTE_CHARACTERS

# So many at once in a worker, on connections of their own; so many more wait, for so long.
IMPORTS, IMPORTS_WAITING, IMPORT_WAIT_SECONDS = 2, 24, 30.0
IMPORT_SECONDS = 60
"""How long one statement of an import may take, or one batch under way to PostgreSQL."""
# An import says every so often that it goes on; one that has not for so long has ended with its worker.
ALIVE_SECONDS, DEAD_SECONDS = 10, 30

# Of fewer, more of the time goes into asking; of more, more memory is taken.
BATCH_ROWS = 4000
MAX_ERRORS = 1000
_CHUNK = 64 * 1024
_PARSERS = {"csv": csv.parse, "vcard": vcard.parse}

Rows: TypeAlias = Iterator[ImportedContact | BadRow]
Batch: TypeAlias = tuple[list[tuple[Any, ...]], list[BadRow]]

_RUNNING = table_of(RunningImport)
_running = _RUNNING.c
_THIS_IMPORT = (_running.owner_id == bindparam("owner_id"), _running.id == bindparam("import_id"))
_NOW = bindparam("now", type_=_running.alive_at.type)
CLAIM = (
    insert(_RUNNING)
    .values(owner_id=bindparam("owner_id"), id=bindparam("import_id"), alive_at=_NOW)
    .on_conflict_do_update(
        index_elements=["owner_id"],
        set_={"id": bindparam("import_id"), "alive_at": _NOW},
        where=_running.alive_at < bindparam("dead_since", type_=_running.alive_at.type),
    )
    .returning(_running.id)
)
"""Begin the one import of an owner. Returns no row where one is running."""
KEEP_ALIVE = update(_RUNNING).where(*_THIS_IMPORT).values(alive_at=_NOW)
END = delete(_RUNNING).where(*_THIS_IMPORT)
# One that was taken for dead may still run: two at once would not see each other's contacts.
LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('import ' || CAST(:owner_id AS uuid), 0))")


class TooManyRows(Invalid):
    code, title = "too_many_rows", "The file has more rows than an import may have"


class ImportRunning(Conflict):
    code, title = "import_running", "Another import of yours is running"


@asynccontextmanager
async def claim_import(database: Database, owner_id: UUID) -> AsyncIterator[None]:
    """Have the one import of the owner that may run, on all workers. Raises ImportRunning."""
    own = {"owner_id": owner_id, "import_id": uuid7()}
    now = datetime.now(UTC)
    if not await database.execute(CLAIM, **own, now=now, dead_since=now - timedelta(seconds=DEAD_SECONDS)):
        raise ImportRunning
    keeping = asyncio.create_task(_keep_alive(database, own))
    try:
        yield
    finally:
        keeping.cancel()
        # Where the database is away, the row stays, and counts for nothing after DEAD_SECONDS.
        with suppress(*DATABASE_ERRORS, Busy):
            await asyncio.shield(database.execute(END, **own))


async def _keep_alive(database: Database, own: dict[str, UUID]) -> None:
    while True:
        await asyncio.sleep(ALIVE_SECONDS)
        with suppress(*DATABASE_ERRORS, Busy):
            await database.execute(KEEP_ALIVE, **own, now=datetime.now(UTC))


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

    Raises UnusableFile, TooManyRows, TooManyContacts or ImportRunning. A dry run does the same, and takes it back.
    """
    format_, chunks = await asyncio.to_thread(sniff, iter(partial(file.read, _CHUNK), b""))
    rows = _PARSERS[format_](chunks, last_date_of_birth)
    report = ImportReport(format=format_, dry_run=dry_run, created=0, updated=0, skipped=0, failed=0, errors=[])
    async with database.session() as session:
        if not (await session.execute(LOCK, {"owner_id": owner_id})).scalar_one():
            raise ImportRunning
        await reindex_owner(session, owner_id)
        work = _Import(session, owner_id, report)
        await work.stage(rows, max_rows, on_progress)
        await work.write(on_duplicate)
        await keep_within(session, owner_id, report.created, max_contacts)
        if dry_run:
            await session.rollback()
    return report


class _Import:
    """An import under way, in its transaction."""

    def __init__(self, session: AsyncSession, owner_id: UUID, report: ImportReport) -> None:
        self._session = session
        self._owner_id = owner_id
        self._report = report
        self._staged = 0

    async def stage(self, rows: Rows, max_rows: int, on_progress: Callable[[], None]) -> None:
        """Bring the good rows into the database, a batch while the next one is read, and report the bad ones."""
        for statement in matching.BEGIN:
            await self._session.execute(statement)
        reading = self._read(rows)
        while batch := await reading:
            records, bad_rows = batch
            self._staged += len(records)
            self._note(bad_rows)
            if self._staged + self._report.failed > max_rows:
                raise TooManyRows.field("body", "file", detail=f"It may have at most {max_rows:,} rows.")
            reading = self._read(rows)
            try:
                await self._copy("staged", matching.STAGED, records)
            finally:
                # The file must not be closed while a thread reads it.
                await asyncio.gather(reading, return_exceptions=True)
            on_progress()
        await self._session.execute(matching.KNOW_STAGED)

    async def write(self, on_duplicate: OnDuplicate) -> None:
        """Create what is new, and update what is not if that is wanted."""
        report = self._report
        if on_duplicate == "create":
            await self._run(matching.SEPARATE)
            report.created = await self._run(matching.CREATE_ALL)
        else:
            await self._run(matching.MATCH)
            report.created = await self._run(matching.CREATE_NEW)
        if on_duplicate == "update":
            report.updated = await self._update()
        report.skipped = self._staged - report.created - report.updated

    async def _update(self) -> int:
        """Give the contacts what the file says of them, and return how many of them were stored before and change."""
        updated = 0
        await self._session.execute(matching.BEGIN_CHANGES)
        said = await self._session.stream(matching.SAID, {"owner_id": self._owner_id})
        changes: list[tuple[Any, ...]] = []
        async for rows in _by_contact(said.mappings()):
            before = {name: rows[0][name] for name in ("uid", *FIELDS)}
            after = before
            for row in rows:
                after = _updated(after, {name: row[f"said_{name}"] for name in before}, rows[0]["contact_id"])
            if after != before:
                columns = {**after, **columns_of(after), "owner_id": self._owner_id, "id": rows[0]["contact_id"]}
                changes.append(tuple(columns[name] for name in matching.CHANGED))
                updated += rows[0]["is_stored"]
            if len(changes) == BATCH_ROWS:
                await self._copy("changed", matching.CHANGED, changes)
                changes = []
        await self._copy("changed", matching.CHANGED, changes)
        await self._run(matching.CHANGE, now=await self._session.scalar(queries.NOW))
        return updated

    def _read(self, rows: Rows) -> asyncio.Task[Batch | None]:
        return asyncio.create_task(asyncio.to_thread(_take, rows, self._owner_id, self._staged))

    def _note(self, bad_rows: list[BadRow]) -> None:
        errors = self._report.errors
        self._report.failed += len(bad_rows)
        for bad in bad_rows[: MAX_ERRORS - len(errors)]:
            errors += [RowError(row=bad.row, field=e.field, code=e.code, detail=e.detail) for e in bad.errors]
        del errors[MAX_ERRORS:]

    async def _copy(self, table: str, columns: Sequence[str], records: list[tuple[Any, ...]]) -> None:
        await copy_into(self._session, table, columns, records, seconds=IMPORT_SECONDS)

    async def _run(self, statement: Any, **parameters: Any) -> int:
        """Run a statement; return how many rows it wrote."""
        result: Any = await self._session.execute(statement, {"owner_id": self._owner_id, **parameters})
        return int(result.rowcount)


def _take(rows: Rows, owner_id: UUID, count: int) -> Batch | None:
    """Return the next rows: the good ones as they are staged, numbered from `count` on, and the bad ones."""
    taken = list(islice(rows, BATCH_ROWS))
    records = []
    for n, row in enumerate((row for row in taken if isinstance(row, ImportedContact)), count):
        columns = columns_of(row.fields)
        records.append((n, owner_id, uuid7(), row.uid, *(columns[name] for name in STORED)))
    return (records, [row for row in taken if isinstance(row, BadRow)]) if taken else None


async def _by_contact(rows: AsyncIterable[Any]) -> AsyncIterator[list[Any]]:
    """Yield the rows of each contact, which come one after the other."""
    together: list[Any] = []
    async for row in rows:
        if together and row["contact_id"] != together[0]["contact_id"]:
            yield together
            together = []
        together.append(row)
    if together:
        yield together


def _updated(contact: Mapping[str, Any], said: Mapping[str, Any], contact_id: UUID) -> dict[str, Any]:
    """Return the contact with what a row says; on what it does not say, it stays as it is."""
    after = {name: contact[name] if said[name] is None else said[name] for name in FIELDS}
    note, words = contact["additional_info"], said["additional_info"]
    # A birthday in words is no note: it takes the place of none.
    if words and words.startswith(IN_WORDS) and "\n" not in words:
        is_known = contact["date_of_birth"] is not None or words in (note or "")
        after["additional_info"] = note if is_known else "\n".join(filter(None, (note, words)))[:NOTE_CHARACTERS]
    uid = contact["uid"]
    if uid is None and said["uid"] != str(contact_id):
        uid = said["uid"]
    return {"uid": uid, **after}
