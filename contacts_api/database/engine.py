"""The database engine: single statements in autocommit, and one transaction per request for writes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import Annotated, Any, Protocol, TypeAlias
from uuid import UUID

import asyncpg
from fastapi import Depends, Request
from sqlalchemy import Column, DateTime, Table, event, func, text
from sqlalchemy.dialects.postgresql import asyncpg as dialects
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError, InvalidatePoolError, MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.sql.base import Executable
from sqlmodel import Field, SQLModel

from contacts_api.database.connecting import Connection, Connector, Row
from contacts_api.database.waiting import Places
from contacts_api.problems import Problem

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# A statement waits at most POOL_SECONDS for a pooled connection, and then either for a new connection or at most
# STATEMENT_SECONDS for its rows. A step that times out is not retried. waiting.REQUEST_SECONDS limits the request.
POOL_SECONDS = 1.5
STATEMENT_SECONDS = 2.5
# The maximum number of callers waiting for a connection.
MAX_WAITING = 200

Ready: TypeAlias = Callable[[Connection], Awaitable[None]]
_DIALECT = dialects.dialect()  # type: ignore[no-untyped-call]

LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    # asyncpg raises this if it is used after the server has announced its shutdown but before the socket closes.
    asyncpg.InternalClientError,
    ConnectionError,
)
"""Errors that mean that the connection is lost."""
# After these errors, discard the connection: it is lost, a reply to an earlier statement may still be in flight, or the
# server has become a standby.
_SPOILT = (*LOST, OSError, asyncio.CancelledError, asyncpg.ReadOnlySQLTransactionError)


def table_of(model: type[SQLModel]) -> Table:
    """Return the table of a model, for statements without the ORM."""
    return model.__table__  # type: ignore[attr-defined, no-any-return]  # SQLModel does not declare it


def owner_columns() -> list[Column[UUID]]:
    """Return the owner column of each table whose rows belong to a user. Referring tables come last."""
    return [
        key.parent
        for table in SQLModel.metadata.sorted_tables
        for key in table.foreign_keys
        if key.target_fullname == "user.id"
    ]


def stamped(*, index: bool = False) -> Any:
    """Return a timestamp field that PostgreSQL sets when the row is created."""
    return Field(sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now()}, index=index)


def create_engine(
    url: str, pool_size: int, statement_seconds: float = STATEMENT_SECONDS, *, prepared_statements: bool = True
) -> AsyncEngine:
    """Return an autocommit engine with at most `pool_size` connections.

    `statement_seconds` is the timeout of each statement.
    """
    connector = Connector(url, statement_seconds, prepared_statements)
    # An empty name makes a prepared statement that the next one replaces.
    unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connector,
        connect_args={} if prepared_statements else unnamed,
        pool_size=pool_size,
        # The pool never makes callers wait: Database admits no more callers than there are connections.
        max_overflow=-1,
        # Switching to autocommit and back for each statement takes longer than reading a row.
        isolation_level="AUTOCOMMIT",
        # No reset is needed: each transaction has ended before its connection is returned.
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "checkout", _replace_closed)
    event.listen(engine.sync_engine, "handle_error", _give_up_on_spoilt)
    return engine


def _replace_closed(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    # Replace a pooled connection that was closed while idle, so that the request does not fail. New connections need no
    # check.
    if "used" in record.info and connection.driver_connection.is_closed():
        raise InvalidatePoolError
    record.info["used"] = True


def _give_up_on_spoilt(context: ExceptionContext) -> None:
    # After a timeout, the connection still waits for the reply, and a rollback would wait behind it.
    error = context.original_exception
    is_on_standby = getattr(error, "sqlstate", None) == asyncpg.ReadOnlySQLTransactionError.sqlstate
    if isinstance(error, TimeoutError) or is_on_standby:
        context.is_disconnect = True


@lru_cache(maxsize=512)
def _compile(statement: Executable) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Return the SQL, the parameter names in order, and the values that are bound in the statement."""
    compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
    given = {name: bind.effective_value for bind, name in compiled.bind_names.items() if not bind.required}
    return str(compiled), tuple(compiled.positiontup), given


class Reader(Protocol):
    """The interface for reads, implemented by the database and by a standby."""

    async def read(self, statement: Executable, **parameters: Any) -> list[Row]:
        """Return the rows."""
        ...


class Database:
    """Runs single statements in autocommit on asyncpg connections, because SQLAlchemy's need twice the CPU.

    If no connection is free, callers wait in a bounded queue. Methods raise Busy if the queue is full or the wait
    times out.
    """

    def __init__(
        self, engine: AsyncEngine, *, max_waiting: int = MAX_WAITING, max_seconds: float = POOL_SECONDS
    ) -> None:
        self._autocommit = engine
        self._places = Places(engine.pool.size(), max_waiting=max_waiting, max_seconds=max_seconds)  # type: ignore[attr-defined]  # ours
        self.engine = engine.execution_options(isolation_level="READ COMMITTED")

    async def read(self, statement: Executable, **parameters: Any) -> list[Row]:
        """Return the rows. Retries once if the connection is lost, which is safe because reads change nothing."""
        try:
            return await self.execute(statement, **parameters)
        except LOST:
            return await self.execute(statement, **parameters)

    async def execute(self, statement: Executable, ready: Ready | None = None, /, **parameters: Any) -> list[Row]:
        """Run one statement, commit it, and return its rows.

        `ready` is awaited first, with the connection that the statement runs on.
        """
        sql, names, given = _compile(statement)
        values = {**given, **parameters}
        owner = await self._places.take()
        try:
            pooled = await self._connect()
            connection: Connection = pooled.driver_connection  # type: ignore[assignment]
            try:
                if ready is not None:
                    await ready(connection)
                rows: list[Row] = await connection.fetch(sql, *[values[name] for name in names])
                return rows
            except _SPOILT:
                # Discard this connection only: a reply may still be in flight.
                pooled.invalidate()
                raise
            finally:
                pooled.close()
        finally:
            self._places.leave(owner)

    async def _connect(self) -> PoolProxiedConnection:
        try:
            # Try to get an idle connection without a greenlet, because that needs a third of the CPU.
            return self._autocommit.pool.connect()
        except MissingGreenlet:
            return await self._autocommit.raw_connection()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Yield a SQLAlchemy session in its own transaction, and commit it at the end."""
        async with self._places.place(), AsyncSession(self.engine, expire_on_commit=False) as session:
            yield session
            await session.commit()


@contextmanager
def refused_where_taken(problem: type[Problem]) -> Iterator[None]:
    """Raise the problem if a unique constraint rejects a row."""
    try:
        yield
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) == asyncpg.UniqueViolationError.sqlstate:
            raise problem from None
        raise


_IS_ANALYSIS_DUE = text(
    """
    SELECT coalesce(CAST(:new AS bigint), pg_stat_get_mod_since_analyze(oid)) > 1000 + greatest(reltuples, 0) / 50
    FROM pg_class WHERE oid = to_regclass(:table)
    """
)


async def renew_statistics(session: AsyncSession, owner: Column[UUID], new: int | None = None) -> None:
    """Update the planner statistics of an owner column after many rows were added.

    `new` is the number of rows added in this transaction. If None, PostgreSQL's count of changes since the last ANALYZE
    decides. With outdated statistics, the planner expects hardly any rows for an owner with a million new contacts.
    Autovacuum updates them after a tenth of the rows has changed, but up to a minute later. The other columns are left
    to autovacuum, because analyzing all of them takes three times as long.
    """
    table = f'"{owner.table.name}"'
    if await session.scalar(_IS_ANALYSIS_DUE, {"table": table, "new": new}):
        # Skip it if another process is analyzing the table.
        await session.execute(text(f"ANALYZE (SKIP_LOCKED) {table} ({owner.name})"))


async def copy_into(
    session: AsyncSession, table: str, columns: Sequence[str], records: Iterable[tuple[Any, ...]], *, seconds: float
) -> None:
    """Append records to a table by COPY, which SQLAlchemy does not support. The transaction must have begun.

    Raises TimeoutError after `seconds`, or at once if the connection is lost.
    """
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    async with asyncio.timeout(seconds) as limit:

        def give_up(_: object) -> None:
            limit.reschedule(0)  # time out now

        # asyncpg 0.32 waits forever to send more data, even after the connection is lost.
        driver.add_termination_listener(give_up)
        try:
            await driver.copy_records_to_table(table, records=records, columns=columns)
        finally:
            driver.remove_termination_listener(give_up)


def from_state(name: str) -> Any:
    """Return a dependency on the object of this name in `app.state`."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.app.state.database
    async with database.session() as session:
        yield session


Reads: TypeAlias = Annotated[Reader, from_state("reader")]
"""Reads for lists, searches and files. Uses a standby if there is one."""

Autocommit: TypeAlias = Annotated[Database, from_state("database")]
"""Single statements, each in its own transaction."""

# Scope "function" commits before the response is sent. Otherwise a client could get a success whose commit then fails.
Session: TypeAlias = Annotated[AsyncSession, Depends(get_session, scope="function")]
"""One transaction per request."""
