"""Files of contacts into the database: read in a thread, staged by COPY, written in one transaction a file."""

import asyncio
from array import array
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any, BinaryIO, TypeAlias
from uuid import UUID

from sqlalchemy import bindparam, delete, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from contacts_api.contacts import queries
from contacts_api.contacts.fields import DETAILS_BYTES, MAX_DETAILS, MAX_LABELS, distinct, size_of
from contacts_api.contacts.models import FIELDS, STORED, Contact, columns_of, fields_of
from contacts_api.contacts.quota import keep_within
from contacts_api.contacts.reindexing import reindex_owner
from contacts_api.database import Database, copy_into, renew_statistics, table_of
from contacts_api.exchange import csv, matching, vcard
from contacts_api.exchange.dates import order_of
from contacts_api.exchange.files import TooManyRows, in_utf8, sniff
from contacts_api.exchange.models import ImportQuery, ImportReport, OnDuplicate, RowRemark, RunningImport, SkippedRow
from contacts_api.exchange.reader import BadRow, ImportedContact, NotAPerson, Reading, Remark
from contacts_api.handlers import DATABASE_ERRORS
from contacts_api.problems import Busy, Conflict, Invalid

# How many imports run at once in a worker, each on a connection of its own; how many more wait, and how long.
IMPORTS, IMPORTS_WAITING, IMPORT_WAIT_SECONDS = 2, 24, 30.0
IMPORT_SECONDS = 60
"""How long one statement of an import may take, or one batch under way to PostgreSQL."""
# An import says every ALIVE_SECONDS that it goes on. When it has not said so for DEAD_SECONDS, its worker has died.
ALIVE_SECONDS, DEAD_SECONDS = 10, 30

# How many rows are staged at a time. More would take more memory, and fewer more statements.
BATCH_ROWS = 2000
MAX_REMARKS = 1000
_CHUNK = 64 * 1024
_stored = itemgetter(*STORED)

Rows: TypeAlias = Iterator[ImportedContact | BadRow | NotAPerson]

_OWNER = table_of(Contact).c.owner_id
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
# A slow import may look dead and still run. Two at once would not see each other's contacts: this keeps them apart.
LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('import ' || CAST(:owner_id AS uuid), 0))")


class ImportRunning(Conflict):
    """An account can have one import at a time."""

    advice = "Wait until the other has ended."
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
    query: ImportQuery,
    *,
    columns: Mapping[str, str | None],
    last_date_of_birth: date,
    max_rows: int,
    max_contacts: int,
    on_progress: Callable[[], None] = lambda: None,
) -> ImportReport:
    """Import the contacts of a file: all that are good, or none where the file itself is not.

    `file` can be read from its beginning twice. `columns` says what columns of a CSV file mean whose names do not.
    Raises UnusableFile, Invalid, TooManyContacts or ImportRunning. A dry run does all of it, and rolls back.
    """
    report, rows = await asyncio.to_thread(read_file, file, query, columns, last_date_of_birth)
    async with database.session() as session:
        if not (await session.execute(LOCK, {"owner_id": owner_id})).scalar_one():
            raise ImportRunning
        # What follows goes through all contacts of the owner.
        await renew_statistics(session, _OWNER)
        await reindex_owner(session, owner_id)
        work = _Import(session, owner_id, report)
        await work.stage(rows, max_rows, on_progress)
        await work.write(query.on_duplicate)
        await keep_within(session, owner_id, report.created, max_contacts)
        if query.dry_run:
            await session.rollback()
        else:
            await renew_statistics(session, _OWNER, report.created)
    return report


def read_file(
    file: BinaryIO, query: ImportQuery, columns: Mapping[str, str | None], last_date_of_birth: date
) -> tuple[ImportReport, Rows]:
    """Return the report as it begins, and the rows. The file is read once more if that tells how it writes dates."""

    def chunks() -> Iterator[bytes]:
        file.seek(0)
        return in_utf8(iter(partial(file.read, _CHUNK), b""), query.encoding)

    format_, _ = sniff(chunks())
    order = None if query.date_order == "auto" else query.date_order
    report = ImportReport(format=format_, dry_run=query.dry_run, date_order=order)
    if order is None:
        dates, is_month_first = (
            csv.dates_in(chunks(), columns) if format_ == "csv" else (vcard.dates_in(chunks()), True)
        )
        report.date_order, ambiguous = order_of(dates, is_month_first)
        if ambiguous:
            is_dmy = report.date_order == "dmy"
            read, other = ("day, month, year", "mdy") if is_dmy else ("month, day, year", "dmy")
            detail = (
                f"Dates like this one can be read in two ways. They are read as {read}; otherwise: date_order={other}."
            )
            row, line = ambiguous
            remark = RowRemark(row=row, line=line, field="date_of_birth", code="ambiguous_date", detail=detail)
            report.warnings.append(remark)
    encoding = "UTF-8" if query.encoding == "auto" else query.encoding
    reading = Reading(last_date_of_birth, report.date_order or "mdy", label=query.label, encoding=encoding)
    if format_ == "csv":
        return report, csv.parse(chunks(), reading, columns)
    if columns:
        raise Invalid.field("body", "columns", code="not_allowed", detail="Only a CSV file has columns.")
    return report, vcard.parse(chunks(), reading)


class _Import:
    """An import under way, in its transaction."""

    def __init__(self, session: AsyncSession, owner_id: UUID, report: ImportReport) -> None:
        self._session = session
        self._owner_id = owner_id
        self._report = report
        self._count = 0
        # Where each staged row stands in the file.
        self._rows, self._lines = array("L"), array("L")

    async def stage(self, rows: Rows, max_rows: int, on_progress: Callable[[], None]) -> None:
        """Bring the good rows into the database, a batch while the next one is read, and report the bad ones."""
        for statement in matching.BEGIN:
            await self._session.execute(statement)
        reading = self._read(rows)
        while (records := await reading) is not None:
            if self._count > max_rows:
                raise TooManyRows(f"It may have at most {max_rows:,} rows.")
            reading = self._read(rows)
            try:
                await self._copy("staged", matching.STAGED, records)
            finally:
                # The file must not be closed while a thread reads it.
                await asyncio.gather(reading, return_exceptions=True)
            on_progress()
        # The one about the order of dates was added first, whatever its row is.
        self._report.warnings.sort(key=lambda warning: warning.row)
        await self._session.execute(matching.ANALYZE_STAGED)

    async def write(self, on_duplicate: OnDuplicate) -> None:
        """Create what is new, and update what is not if that is wanted."""
        report = self._report
        if on_duplicate == "create":
            await self._run(matching.SEPARATE)
            report.created = await self._run(matching.CREATE_ALL)
            return
        await self._align()
        await self._run(matching.MATCH)
        report.created = await self._run(matching.CREATE_NEW)
        if report.created == len(self._rows):
            return
        if on_duplicate == "update":
            report.updated = await self._update()
        else:
            said = await self._session.execute(matching.FIRST_SAID, {"owner_id": self._owner_id, "limit": MAX_REMARKS})
            await asyncio.to_thread(self._skip_all, said.mappings().all())
        report.skipped = len(self._rows) - report.created - report.updated
        report.skips.sort(key=lambda skip: skip.row)

    async def _align(self) -> None:
        """Compare numbers and dates of birth where an address is missing."""
        rows: Any = await self._session.execute(matching.ALIKE_ROWS)
        if not rows.rowcount + await self._run(matching.ALIKE_STORED):
            return
        await self._run(matching.KNOW_STORED)
        for statement in (matching.KNOW_ROWS, matching.ANALYZE_KNOWN, matching.ALIGN):
            await self._session.execute(statement)

    async def _update(self) -> int:
        """Give the contacts what the file says of them, and return how many of them were stored before and change."""
        updated = 0
        await self._session.execute(matching.BEGIN_CHANGES)
        said = await self._session.stream(matching.SAID, {"owner_id": self._owner_id})
        changes: list[tuple[Any, ...]] = []
        async for rows in _by_contact(said.mappings()):
            # A contact may be large, and many rows come at once.
            await asyncio.sleep(0)
            first = rows[0]
            before = after = _as_stored(first)
            not_kept: list[str] = []
            for row in rows:
                after, too_much = _merged(after, row)
                not_kept += too_much
            self._count_not_kept(not_kept)
            if after != before and first["is_stored"]:
                # The first row counts as the update, and the others as skipped.
                rows = rows[1:]
                updated += 1
            for row in rows:
                self._skip(row, is_same=after == before and not not_kept)
            if after != before:
                columns = {**after, **columns_of(after), "owner_id": self._owner_id, "id": first["contact_id"]}
                changes.append(tuple(columns[name] for name in matching.CHANGED))
            if len(changes) == BATCH_ROWS:
                await self._copy("changed", matching.CHANGED, changes)
                changes = []
        await self._copy("changed", matching.CHANGED, changes)
        await self._run(matching.CHANGE, now=await self._session.scalar(queries.NOW))
        return updated

    def _read(self, rows: Rows) -> asyncio.Task[list[tuple[Any, ...]] | None]:
        return asyncio.create_task(asyncio.to_thread(self._take, rows))

    def _take(self, rows: Rows) -> list[tuple[Any, ...]] | None:
        """Return the next good rows as they are staged, and report on all; None where the file ends."""
        taken = list(islice(rows, BATCH_ROWS))
        if not taken:
            return None
        self._count += len(taken)
        records = []
        for row in taken:
            if isinstance(row, NotAPerson):
                self._count_not_kept([row.name])
            elif isinstance(row, BadRow):
                self._report.failed += 1
                self._note(self._report.errors, row, [Remark(row.field, row.code, row.detail)])
            else:
                columns = columns_of(row.fields)
                records.append((len(self._rows), self._owner_id, uuid7(), row.uid, *_stored(columns)))
                self._rows.append(row.row)
                self._lines.append(row.line)
                self._count_not_kept(row.not_kept)
                self._note(self._report.warnings, row, row.warnings)
        return records

    def _note(self, listed: list[RowRemark], row: ImportedContact | BadRow, remarks: Sequence[Remark]) -> None:
        remarks = remarks[: MAX_REMARKS - len(listed)]
        listed += [RowRemark(row=row.row, line=row.line, **asdict(each)) for each in remarks]

    def _count_not_kept(self, names: Sequence[str]) -> None:
        counts = self._report.not_kept
        for name in names:
            counted = name if name in counts or len(counts) < MAX_REMARKS else "others"
            counts[counted] = counts.get(counted, 0) + 1

    def _skip_all(self, rows: Iterable[Mapping[Any, Any]]) -> None:
        for row in rows:
            before = _as_stored(row)
            self._skip(row, is_same=_merged(before, row) == (before, []))

    def _skip(self, row: Mapping[Any, Any], *, is_same: bool) -> None:
        skips = self._report.skips
        if len(skips) < MAX_REMARKS:
            is_there = row["is_stored"] or not self._report.dry_run
            which = "You have this contact" if row["is_stored"] else "An earlier row is this contact"
            detail = f"{which}, and it says the same." if is_same else f"{which}, and it says something else."
            contact_id = row["contact_id"] if is_there else None
            place = {"row": self._rows[row["n"]], "line": self._lines[row["n"]]}
            skips.append(SkippedRow(**place, contact_id=contact_id, detail=detail))

    async def _copy(self, table: str, columns: Sequence[str], records: list[tuple[Any, ...]]) -> None:
        await copy_into(self._session, table, columns, records, seconds=IMPORT_SECONDS)

    async def _run(self, statement: Any, **parameters: Any) -> int:
        """Run a statement; return how many rows it wrote."""
        result: Any = await self._session.execute(statement, {"owner_id": self._owner_id, **parameters})
        return int(result.rowcount)


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


def _as_stored(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the stored contact that a row matches."""
    return {"uid": row["uid"], **fields_of(row)}


def _merged(before: Mapping[str, Any], row: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the contact with what the row says, and the names of what it has no room for.

    Where the row says nothing, the contact stays as it is.
    """
    said = fields_of({name: row[f"said_{name}"] for name in FIELDS})
    after = {name: before[name] if said[name] is None else said[name] for name in FIELDS}
    labels = distinct([*before["labels"], *said["labels"]])
    not_kept = ["labels"] * len(labels[MAX_LABELS:])
    details, size = list(before["details"]), sum(map(size_of, before["details"]))
    for detail in said["details"]:
        if detail in details:
            continue
        if len(details) == MAX_DETAILS or size + size_of(detail) > DETAILS_BYTES:
            not_kept.append("details")
            continue
        details.append(detail)
        size += size_of(detail)
    after["labels"], after["details"] = labels[:MAX_LABELS], details
    if after["date_of_birth"]:
        after["birthday"] = f"{after['date_of_birth']:%m-%d}"
    uid = before["uid"]
    if uid is None and row["said_uid"] != str(row["contact_id"]):
        uid = row["said_uid"]
    return {"uid": uid, **after}, not_kept
