"""Import a file: read it in a thread, stage its rows with COPY, and write the contacts in one transaction."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from io import SEEK_END
from itertools import islice
from operator import itemgetter
from typing import Any, BinaryIO, TypeAlias
from uuid import UUID

from sqlalchemy import bindparam, delete, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.base import Executable
from uuid_utils.compat import uuid7

from contacts_api.contacts import queries
from contacts_api.contacts.fields import DETAILS_BYTES, MAX_DETAILS, MAX_LABELS, distinct, size_of
from contacts_api.contacts.models import FIELDS, STORED, Contact, columns_of, fields_of
from contacts_api.contacts.quota import keep_within
from contacts_api.contacts.reindexing import reindex_owner
from contacts_api.database.engine import Database, copy_into, renew_statistics, table_of
from contacts_api.database.errors import DATABASE_ERRORS
from contacts_api.features.exchange import csv_file as csv
from contacts_api.features.exchange import matching, vcard
from contacts_api.features.exchange.budget import Budget
from contacts_api.features.exchange.dates import order_of
from contacts_api.features.exchange.files import TooManyRows, in_utf8, sniff
from contacts_api.features.exchange.models import (
    ImportQuery,
    ImportReport,
    OnDuplicate,
    RowRemark,
    RunningImport,
    SkippedRow,
)
from contacts_api.features.exchange.reader import BadRow, ImportedContact, NotAPerson, Reading, Remark
from contacts_api.problems import Busy, Conflict, Invalid

# Imports that run at once in a worker, each on its own connection; imports that may wait; and how long they wait.
IMPORTS, IMPORTS_WAITING, IMPORT_WAIT_SECONDS = 2, 24, 30.0
IMPORT_SECONDS = 60
"""The timeout of one statement of an import, and of copying one batch to PostgreSQL."""
# The heartbeat interval of an import. After DEAD_SECONDS without a heartbeat, its worker counts as dead.
ALIVE_SECONDS, DEAD_SECONDS = 10, 30

# Rows per staged batch. Larger batches take more memory, smaller ones more statements.
BATCH_ROWS = 2000
# Rows per merged batch. Each can come with a contact of up to 64 KiB.
MERGED_ROWS = 200
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
"""Register an import of the owner. Returns no row if another one is running."""
KEEP_ALIVE = update(_RUNNING).where(*_THIS_IMPORT).values(alive_at=_NOW)
END = delete(_RUNNING).where(*_THIS_IMPORT)
# An import that misses its heartbeats may still be running. This lock stops a second one, because two imports at once
# would not see each other's contacts.
LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('import ' || CAST(:owner_id AS uuid), 0))")


class ImportRunning(Conflict):
    """Another import of the account is running. Only one can run at a time."""

    advice = "Wait until the other has ended."
    code, title = "import_running", "Another import of yours is running"


@asynccontextmanager
async def claim_import(database: Database, owner_id: UUID) -> AsyncIterator[None]:
    """Claim the only import slot of an owner, across all workers, and keep it alive. Raises ImportRunning."""
    own = {"owner_id": owner_id, "import_id": uuid7()}
    now = datetime.now(UTC)
    if not await database.execute(CLAIM, **own, now=now, dead_since=now - timedelta(seconds=DEAD_SECONDS)):
        raise ImportRunning
    keeping = asyncio.create_task(_keep_alive(database, own))
    try:
        yield
    finally:
        keeping.cancel()
        # If the database is unavailable, the row stays. It is ignored after DEAD_SECONDS.
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
    """Import all valid contacts of a file, in one transaction. A dry run does the same work and rolls back.

    `file` must be seekable, because it may be read twice. `columns` maps names of CSV columns to fields.

    Raises UnusableFile, Invalid, TooManyContacts or ImportRunning; then nothing is imported.
    """
    budget = Budget(file.seek(0, SEEK_END))
    # The session takes one of the few import slots here, but a connection only at its first statement.
    async with database.session() as session:
        report, rows = await budget.run(lambda: read_file(file, query, columns, last_date_of_birth, budget.check))
        # The statements below read all contacts of the owner, so the planner needs current statistics.
        await renew_statistics(session, _OWNER)
        await session.commit()
        await reindex_owner(session, owner_id)
        if not (await session.execute(LOCK, {"owner_id": owner_id})).scalar_one():
            raise ImportRunning
        work = _Import(session, owner_id, report, budget)
        await work.stage(rows, max_rows, on_progress)
        await work.write(query.on_duplicate)
        await keep_within(session, owner_id, report.created, max_contacts)
        if query.dry_run:
            await session.rollback()
        else:
            await renew_statistics(session, _OWNER, report.created)
    return report


def read_file(
    file: BinaryIO,
    query: ImportQuery,
    columns: Mapping[str, str | None],
    last_date_of_birth: date,
    check: Callable[[], None] = lambda: None,
) -> tuple[ImportReport, Rows]:
    """Return an initial report and an iterator over the rows.

    With `date_order=auto`, the file is read an extra time to detect the order of day and month. `check` is called for
    each piece of the file.
    """

    def pieces() -> Iterator[bytes]:
        while piece := file.read(_CHUNK):
            check()
            yield piece

    def chunks() -> Iterator[bytes]:
        file.seek(0)
        return in_utf8(pieces(), query.encoding)

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


@dataclass
class _Merge:
    """A contact, before and after merging its rows into it."""

    contact_id: UUID
    is_stored: bool
    version: int | None
    """The version that was read; None if the contact was deleted after matching."""
    before: dict[str, Any]
    after: dict[str, Any]
    rows: list[int] = field(default_factory=list)
    not_kept: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, row: Mapping[Any, Any]) -> "_Merge":
        before = {} if row["version"] is None else {"uid": row["uid"], **fields_of(row)}
        return cls(row["contact_id"], row["is_stored"], row["version"], before, before)

    def add(self, row: Mapping[Any, Any]) -> None:
        self.rows.append(row["n"])
        if self.version is not None:
            self.after, not_kept = _merged(self.after, row)
            self.not_kept += not_kept

    @property
    def changes(self) -> bool:
        return self.after != self.before


class _Import:
    """One import, within its transaction."""

    def __init__(self, session: AsyncSession, owner_id: UUID, report: ImportReport, budget: Budget) -> None:
        self._session = session
        self._owner_id = owner_id
        self._report = report
        self._budget = budget
        self._count = 0
        # The row and line in the file of each staged row.
        self._rows, self._lines = array("L"), array("L")
        # For each changed contact, the names of the values that did not fit.
        self._no_room: dict[UUID, list[str]] = {}

    async def stage(self, rows: Rows, max_rows: int, on_progress: Callable[[], None]) -> None:
        """Copy the valid rows into `staged`, and report the others. The next batch is read while one is copied."""
        for statement in matching.BEGIN:
            await self._session.execute(statement)
        reading = self._read(rows)
        while (records := await reading) is not None:
            if self._count > max_rows:
                raise TooManyRows(f"It may have at most {max_rows:,} rows.")
            reading = self._read(rows)
            try:
                await self._copy("staged", matching.STAGED, records)
            except BaseException:
                # Wait for the thread: the file must not be closed while it is being read.
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                raise
            on_progress()
        # The warning about the date order was added first, but may belong to a later row.
        self._report.warnings.sort(key=lambda warning: warning.row)
        await self._session.execute(matching.ANALYZE_STAGED)

    async def write(self, on_duplicate: OnDuplicate) -> None:
        """Create new contacts. Update, skip or duplicate the others, depending on `on_duplicate`."""
        report = self._report
        if on_duplicate == "create":
            for statement in matching.SEPARATE:
                await self._run(statement)
            report.created = await self._run(matching.CREATE_ALL)
            return
        await self._run(matching.MATCH)
        report.created = await self._run(matching.CREATE_NEW)
        if report.created == len(self._rows):
            return
        if on_duplicate == "update":
            await self._update()
        else:
            parameters = {"owner_id": self._owner_id, "limit": MAX_REMARKS}
            duplicates = (await self._session.execute(matching.FIRST_DUPLICATES, parameters)).mappings().all()
            await self._budget.run(lambda: self._skip_all(duplicates))
        report.skipped = len(self._rows) - report.created - report.updated
        report.skips.sort(key=lambda skip: skip.row)

    async def _update(self) -> None:
        """Merge the rows into the contacts that they match.

        Merging is slow, so it runs without locks. Contacts that were edited or deleted in the meantime are merged again
        after all changed contacts are locked.
        """
        report, owner = self._report, {"owner_id": self._owner_id}
        await self._session.execute(matching.BEGIN_CHANGES)
        await self._merge(matching.DUPLICATES)
        if not report.dry_run:
            await self._session.execute(matching.LOCK_CHANGED, owner)
            if stale := set(await self._session.scalars(matching.STALE, owner)):
                report.updated -= len(stale)
                report.skips = [skip for skip in report.skips if skip.contact_id not in stale]
                self._no_room = {id_: names for id_, names in self._no_room.items() if id_ not in stale}
                await self._merge(matching.STALE_DUPLICATES)
            await self._run(matching.CHANGE, now=await self._session.scalar(queries.NOW))
        for names in self._no_room.values():
            self._count_not_kept(names)

    async def _merge(self, statement: Executable) -> None:
        """Merge the rows of a statement into their contacts, and copy changed contacts into the table `changed`."""
        merge: _Merge | None = None
        options = {"yield_per": MERGED_ROWS}
        result = await self._session.stream(statement, {"owner_id": self._owner_id}, execution_options=options)
        async for rows in result.mappings().partitions():
            merge, changed = await self._budget.run(partial(self._merge_rows, merge, rows))
            await self._copy("changed", matching.CHANGED, changed)
        if merge:
            await self._copy("changed", matching.CHANGED, self._finish(merge))

    def _merge_rows(
        self, merge: _Merge | None, rows: Iterable[Mapping[Any, Any]]
    ) -> tuple[_Merge | None, list[tuple[Any, ...]]]:
        """Return the last merge, which the next rows may continue, and the records of finished, changed contacts."""
        changed: list[tuple[Any, ...]] = []
        for row in rows:
            self._budget.check()
            if row["is_first"]:
                changed += self._finish(merge) if merge else ()
                merge = _Merge.begin(row)
            if merge:
                merge.add(row)
        return merge, changed

    def _finish(self, merge: _Merge) -> list[tuple[Any, ...]]:
        """Report the rows of a contact. Return its record for `changed`, or an empty list if it did not change."""
        is_updated = merge.changes and merge.is_stored
        self._report.updated += is_updated
        # Count the first row as the update, and the others as skipped.
        for n in merge.rows[is_updated:]:
            self._skip(n, merge)
        if merge.not_kept:
            self._no_room[merge.contact_id] = merge.not_kept
        if not merge.changes:
            return []
        columns = {**merge.after, **columns_of(merge.after), "version": merge.version}
        columns |= {"owner_id": self._owner_id, "id": merge.contact_id}
        return [tuple(columns[name] for name in matching.CHANGED)]

    def _read(self, rows: Rows) -> asyncio.Task[list[tuple[Any, ...]] | None]:
        return asyncio.create_task(self._budget.run(lambda: self._take(rows)))

    def _take(self, rows: Rows) -> list[tuple[Any, ...]] | None:
        """Return records for the next valid rows, or None at the end of the file. Report all rows read."""
        count = self._count
        records = []
        for row in islice(rows, BATCH_ROWS):
            self._count += 1
            self._budget.add_row()
            self._budget.check(row.line)
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
        return records if self._count > count else None

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
            self._budget.check()
            merge = _Merge.begin(row)
            merge.add(row)
            self._skip(row["n"], merge)

    def _skip(self, n: int, merge: _Merge) -> None:
        skips = self._report.skips
        if len(skips) == MAX_REMARKS:
            return
        if merge.version is None:
            contact_id, detail = None, "You had this contact, and it was deleted during the import."
        else:
            which = "You have this contact" if merge.is_stored else "An earlier row is this contact"
            is_same = not merge.changes and not merge.not_kept
            detail = f"{which}, and it says the same." if is_same else f"{which}, and it says something else."
            contact_id = merge.contact_id if merge.is_stored or not self._report.dry_run else None
        skips.append(SkippedRow(row=self._rows[n], line=self._lines[n], contact_id=contact_id, detail=detail))

    async def _copy(self, table: str, columns: Sequence[str], records: list[tuple[Any, ...]]) -> None:
        await copy_into(self._session, table, columns, records, seconds=IMPORT_SECONDS)

    async def _run(self, statement: Any, **parameters: Any) -> int:
        """Run a statement; return how many rows it wrote."""
        result: Any = await self._session.execute(statement, {"owner_id": self._owner_id, **parameters})
        return int(result.rowcount)


def _merged(before: Mapping[str, Any], row: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the contact merged with a row, and the names of the values that did not fit.

    Non-null fields of the row replace those of the contact. Labels and details are added.
    """
    said = fields_of({name: row[f"row_{name}"] for name in FIELDS})
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
    if uid is None and row["row_uid"] != str(row["contact_id"]):
        uid = row["row_uid"]
    return {"uid": uid, **after}, not_kept
