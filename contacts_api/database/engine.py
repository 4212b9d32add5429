"""The way to PostgreSQL: the engine, reads in autocommit, and one transaction a request for writes."""

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

# A statement waits for a connection of the pool, and then either for a new one or for an answer, since the first of
# these that fails is the last. What a request waits for in all has a deadline of its own: waiting.REQUEST_SECONDS.
POOL_SECONDS = 1.5
STATEMENT_SECONDS = 2.5
# So many may wait for a connection.
MAX_WAITING = 200

Ready: TypeAlias = Callable[[Connection], Awaitable[None]]
_DIALECT = dialects.dialect()  # type: ignore[no-untyped-call]

LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    # asyncpg raises this one if it is used between the server's goodbye and the end of the connection.
    asyncpg.InternalClientError,
    ConnectionError,
)
"""What is raised where a connection is no more."""
# After these a connection is not used again: it is lost, or the answer to an earlier statement may still come, or its
# server is a standby now.
_SPOILT = (*LOST, OSError, asyncio.CancelledError, asyncpg.ReadOnlySQLTransactionError)


def table_of(model: type[SQLModel]) -> Table:
    """Return the table of a model, for statements that the ORM has no part in."""
    return model.__table__  # type: ignore[attr-defined, no-any-return]  # SQLModel declares no such thing


def owner_columns() -> list[Column[UUID]]:
    """Return the column that names the owner, of each table whose rows belong to a user: referring tables last."""
    return [
        key.parent
        for table in SQLModel.metadata.sorted_tables
        for key in table.foreign_keys
        if key.target_fullname == "user.id"
    ]


def stamped(*, index: bool = False) -> Any:
    """Return the field of a moment that PostgreSQL sets when the row is created."""
    return Field(sa_type=DateTime(timezone=True), sa_column_kwargs={"server_default": func.now()}, index=index)


def create_engine(
    url: str, pool_size: int, statement_seconds: float = STATEMENT_SECONDS, *, prepared_statements: bool = True
) -> AsyncEngine:
    """Return an engine in autocommit, of at most `pool_size` connections, whose statements may take so long."""
    connector = Connector(url, statement_seconds, prepared_statements)
    # An empty name is that of a statement which ends with the next one.
    unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connector,
        connect_args={} if prepared_statements else unnamed,
        pool_size=pool_size,
        # Nobody waits in the pool: Database lets in as many as it has connections.
        max_overflow=-1,
        # Setting it for each statement, and back again, takes longer than PostgreSQL takes to read a row.
        isolation_level="AUTOCOMMIT",
        # Every connection comes back with its transaction ended, by Session or by autocommit.
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "checkout", _replace_closed)
    event.listen(engine.sync_engine, "handle_error", _give_up_on_spoilt)
    return engine


def _replace_closed(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    # One that was lost in the pool costs no request an error. A new one has been tried by connecting.
    if "used" in record.info and connection.driver_connection.is_closed():
        raise InvalidatePoolError
    record.info["used"] = True


def _give_up_on_spoilt(context: ExceptionContext) -> None:
    # After a time-out the connection still waits for its answer; a rollback would wait behind it.
    error = context.original_exception
    is_on_standby = getattr(error, "sqlstate", None) == asyncpg.ReadOnlySQLTransactionError.sqlstate
    if isinstance(error, TimeoutError) or is_on_standby:
        context.is_disconnect = True


@lru_cache(maxsize=512)
def _compile(statement: Executable) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Return the SQL, the names of its parameters in order, and the values that the statement itself gives them."""
    compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
    given = {name: bind.effective_value for bind, name in compiled.bind_names.items() if not bind.required}
    return str(compiled), tuple(compiled.positiontup), given


class Reader(Protocol):
    """What reads from the database: the database itself, or a standby."""

    async def read(self, statement: Executable, **parameters: Any) -> list[Row]:
        """Return the rows."""
        ...


class Database:
    """Single statements, each its own transaction, on asyncpg's own connections: SQLAlchemy's cost twice the CPU.

    Whoever finds no free connection waits in a short queue, and raises Busy where that does not help.
    """

    def __init__(
        self, engine: AsyncEngine, *, max_waiting: int = MAX_WAITING, max_seconds: float = POOL_SECONDS
    ) -> None:
        self._autocommit = engine
        self._places = Places(engine.pool.size(), max_waiting=max_waiting, max_seconds=max_seconds)  # type: ignore[attr-defined]  # ours
        self.engine = engine.execution_options(isolation_level="READ COMMITTED")

    async def read(self, statement: Executable, **parameters: Any) -> list[Row]:
        """Return the rows. Tries again once where the connection was lost: reading changes nothing."""
        try:
            return await self.execute(statement, **parameters)
        except LOST:
            return await self.execute(statement, **parameters)

    async def execute(self, statement: Executable, ready: Ready | None = None, /, **parameters: Any) -> list[Row]:
        """Run one statement, committed on return, and return the rows of its answer.

        `ready` is awaited before, with the connection that the statement will run on.
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
                # Better none than one with an answer under way. The others of the pool stay.
                pooled.invalidate()
                raise
            finally:
                pooled.close()
        finally:
            self._places.leave(owner)

    async def _connect(self) -> PoolProxiedConnection:
        try:
            # A connection that lies in the pool is had without SQLAlchemy's greenlets, at a third of the CPU.
            return self._autocommit.pool.connect()
        except MissingGreenlet:
            return await self._autocommit.raw_connection()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Yield a session in a transaction of its own, which is committed at the end."""
        async with self._places.place(), AsyncSession(self.engine, expire_on_commit=False) as session:
            yield session
            await session.commit()


@contextmanager
def refused_where_taken(problem: type[Problem]) -> Iterator[None]:
    """Raise the problem where a unique index refuses a row."""
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
    """Have PostgreSQL count the rows of owners if many have come: `new` in this transaction, or else since it last did.

    Statements are planned by its statistics: by those of before, an owner whose million contacts are new has hardly
    any. PostgreSQL renews them by itself where a tenth of the rows has changed, but up to a minute later.
    `owner` is the column that names the owner. The others are left to PostgreSQL: all take three times as long.
    """
    table = f'"{owner.table.name}"'
    if await session.scalar(_IS_ANALYSIS_DUE, {"table": table, "new": new}):
        # Not where another analysis is under way.
        await session.execute(text(f"ANALYZE (SKIP_LOCKED) {table} ({owner.name})"))


async def copy_into(
    session: AsyncSession, table: str, columns: Sequence[str], records: Iterable[tuple[Any, ...]], *, seconds: float
) -> None:
    """Append records to a table by COPY, which SQLAlchemy has no way for. The transaction has begun.

    Raises TimeoutError after so many seconds, and at once if the connection is lost.
    """
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    async with asyncio.timeout(seconds) as limit:

        def give_up(_: object) -> None:
            limit.reschedule(0)  # the time is up now

        # asyncpg 0.32 waits to send more for ever, even on a connection that is no more.
        driver.add_termination_listener(give_up)
        try:
            await driver.copy_records_to_table(table, records=records, columns=columns)
        finally:
            driver.remove_termination_listener(give_up)


def from_state(name: str) -> Any:
    """Return the dependency on what the application made under this name when it started."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.app.state.database
    async with database.session() as session:
        yield session


Reads: TypeAlias = Annotated[Reader, from_state("reader")]
"""What lists, searches and files are read from: a standby where there is one."""

Autocommit: TypeAlias = Annotated[Database, from_state("database")]
"""Single statements, each its own transaction."""

# Scope "function" commits before the answer leaves, so that no client is told of a success that fails.
Session: TypeAlias = Annotated[AsyncSession, Depends(get_session, scope="function")]
"""One transaction for the whole request."""
