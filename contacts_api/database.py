"""The way to PostgreSQL: the engine, reads in autocommit, and one transaction a request for writes."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeAlias

import asyncpg
from fastapi import Depends, Request
from sqlalchemy import Row
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.sql.base import Executable
from sqlmodel import SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# Together they keep a request that meets a dead, frozen or locked database under six seconds.
CONNECT_SECONDS = 2
POOL_SECONDS = 2
ANSWER_SECONDS = 3

SERVER_SETTINGS = {
    "application_name": "contacts_api",
    "statement_timeout": "2500",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    # A plan made for any pattern and any owner does not use the trigram index.
    "plan_cache_mode": "force_custom_plan",
}


def psycopg2_url(database_url: str) -> URL:
    """Return the URL for what works synchronously: migrations and the start-up checks."""
    return make_url(database_url).set(drivername="postgresql+psycopg2")


def create_engine(database_url: str, pool_size: int) -> AsyncEngine:
    """Return the engine that serves requests, of at most `pool_size` connections."""

    # asyncpg reads a URL as libpq does, sslmode and Unix sockets included; SQLAlchemy's dialect does not.
    dsn = re.sub(r"(?<=[?&])channel_binding=[^&]*&?", "", database_url)

    async def connect(**_: Any) -> Any:
        return await asyncpg.connect(
            dsn, timeout=CONNECT_SECONDS, command_timeout=ANSWER_SECONDS, server_settings=SERVER_SETTINGS
        )

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        # Every connection comes back with its transaction ended, by Session or by autocommit.
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        hide_parameters=True,
    )


class Database:
    """Single statements, each its own transaction, on a connection in autocommit."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def read(self, statement: Executable, **parameters: Any) -> Sequence[Row[Any]]:
        """Return the rows. Tries again once where the connection was lost: reading changes nothing."""
        try:
            return await self.write(statement, **parameters)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return await self.write(statement, **parameters)

    async def write(self, statement: Executable, **parameters: Any) -> Sequence[Row[Any]]:
        """Run one statement, committed on return, and return the rows of its answer."""
        async with self._autocommit.connect() as connection:
            result = await connection.execute(statement, parameters)
            return result.all() if result.returns_rows else ()

    @asynccontextmanager
    async def transaction(self, *, keep: bool) -> AsyncIterator[asyncpg.Connection]:
        """Yield asyncpg's own connection, for COPY and long statements, in a transaction; keep it or roll it back."""
        async with self._autocommit.connect() as connection:
            driver: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
            transaction = driver.transaction()
            await transaction.start()
            is_done = False
            try:
                yield driver
                is_done = True
            finally:
                if driver.is_closed():
                    await connection.invalidate()
                elif keep and is_done:
                    await transaction.commit()
                else:
                    await transaction.rollback()


async def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.app.state.database
    async with AsyncSession(database.engine, expire_on_commit=False) as session:
        yield session
        await session.commit()


Autocommit: TypeAlias = Annotated[Database, Depends(get_database)]
"""Single statements, each its own transaction."""

# Scope "function" commits before the answer leaves, so that no client is told of a success that fails.
Session: TypeAlias = Annotated[AsyncSession, Depends(get_session, scope="function")]
"""One transaction for the whole request."""
