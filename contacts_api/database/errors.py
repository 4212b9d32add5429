"""Maps errors of PostgreSQL to problems."""

import re

import asyncpg
from sqlalchemy import exc

from contacts_api import problems
from contacts_api.problems import Problem

# Citus reports this as an internal error when a transaction has lost its connection to a node.
LOST_NODE = "failure on connection"
DATABASE_ERRORS = (
    exc.DBAPIError,
    exc.TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # a refused or lost connection, or a timeout of asyncio
)


class UnexpectedDatabaseError(Exception):
    """A bug in this application. Logged without PostgreSQL's DETAIL, which may contain a row with a password hash."""

    def __init__(self, error: BaseException) -> None:
        original = getattr(error, "orig", None) or error
        message = getattr(original.__cause__ or original, "message", None) or type(original).__name__
        super().__init__(
            f"{message} (SQLSTATE {getattr(original, 'sqlstate', None)}): {getattr(error, 'statement', '')}"
        )


def problem_of_database_error(error: BaseException) -> Problem:
    """Return the problem for a database error, chosen by its SQLSTATE (PostgreSQL manual, appendix A)."""
    original = error.orig if isinstance(error, exc.DBAPIError) else error
    state = getattr(original, "sqlstate", None) or ""
    if state == "23505":
        return problems.Conflict()
    if state == "42P01":
        return problems.SchemaOutdated()
    if state == "23503" and _is_of_owner(original):
        # The owner's account was deleted during the request.
        return problems.Unauthorized()
    if state.startswith("22") or state == "23502":
        return problems.Invalid("A value does not fit where it is to be stored.")
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        # asyncpg cannot encode a parameter as the type that the statement expects.
        return problems.InternalError()
    if state == "XX000" and LOST_NODE in str(original):
        return problems.DatabaseUnavailable()
    if _is_passing(state) or not isinstance(error, exc.StatementError | asyncpg.PostgresError):
        return problems.DatabaseUnavailable()
    if isinstance(error, exc.DBAPIError) and (error.connection_invalidated or not state):
        return problems.DatabaseUnavailable()
    return problems.InternalError()


def _is_of_owner(error: BaseException | None) -> bool:
    """Return True if the violated foreign key is the one from a row to its owner."""
    cause = getattr(error, "__cause__", None) or error
    # Citus appends the shard number to both names.
    name, table = (re.sub(r"_\d+$", "", str(getattr(cause, f"{kind}_name", None))) for kind in ("constraint", "table"))
    return name in (f"fk_{table}_owner_id", f"fk_{table}_user_id")


def _is_passing(state: str) -> bool:
    return state[:2] in ("08", "53", "57") or state in ("25006", "55P03", "40001", "40P01")
