"""How connections to PostgreSQL are opened: to one of several hosts, and through a pooler."""

from typing import Any, TypeAlias
from urllib.parse import urlencode

import asyncpg
import psycopg2
from psycopg2.extensions import parse_dsn

CONNECT_SECONDS = 2
"""How long each host may take to answer."""
IDLE_SECONDS = 10
LOCK_SECONDS = 2

Host: TypeAlias = tuple[str | None, int | None]
# What libpq knows, and asyncpg would take for a setting of the server.
_ONLY_LIBPQS = {
    *("hostaddr", "connect_timeout", "channel_binding", "client_encoding", "fallback_application_name"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    *("gssencmode", "gssdelegation", "load_balance_hosts", "require_auth", "sslcompression", "sslsni", "requirepeer"),
}
# After these the next host is tried. (A refused password ends the search: it would be refused there, too.)
_NEXT_HOST = (
    OSError,  # asyncio's time-outs are OSErrors, too
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.TooManyConnectionsError,
)


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that takes leave without waiting for an answer: a frozen server gives none."""

    replayed = 0
    """Up to where its server had replayed the log when it was last asked, if it is a standby."""

    async def close(self, **_: Any) -> None:
        self.terminate()


class Row(asyncpg.Record):  # type: ignore[misc]  # asyncpg has no types
    """A row of an answer, with its columns as attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def connect_synchronously(url: str) -> Any:
    """Return a connection of psycopg2, for migrations. It knows several hosts itself."""
    return psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)


class Connector:
    """Opens connections to the host that answered last, else to the first one of the others that does.

    `url` is read as libpq reads it (PostgreSQL, 34.1.1), with several hosts and `target_session_attrs`. A statement
    may take `statement_seconds`. Without `prepared_statements` none outlives its transaction: for poolers that give
    each transaction another connection.
    """

    def __init__(self, url: str, statement_seconds: float, prepared_statements: bool = True) -> None:
        parameters = parse_dsn(url)
        self._hosts = _hosts_of(parameters)
        self._attributes = parameters.pop("target_session_attrs", None)
        database = parameters.pop("dbname", None)
        self._dsn = f"postgresql:///?{urlencode({k: v for k, v in parameters.items() if k not in _ONLY_LIBPQS})}"
        # The server gives up first, and says why.
        self._options: dict[str, Any] = {"database": database, "command_timeout": statement_seconds + 0.5}
        if not prepared_statements:
            self._options["statement_cache_size"] = 0
        self.settings = {
            "application_name": "contacts_api",
            "statement_timeout": str(round(statement_seconds * 1000)),
            "lock_timeout": str(LOCK_SECONDS * 1000),
            "idle_in_transaction_session_timeout": str(round(max(statement_seconds, IDLE_SECONDS) * 1000)),
            # Some servers compile even small statements, which takes seconds.
            "jit": "off",
        }
        """What each connection sets. Less, once a pooler has refused it."""

    async def __call__(self, **_: Any) -> Connection:
        """Return a new connection. Raises the error of the host that was tried last."""
        # The one wish for which there is a second best.
        rounds = ("standby", "any") if self._attributes == "prefer-standby" else (self._attributes,)
        failure: Exception | None = None
        for attributes in rounds:
            for host in tuple(self._hosts):
                try:
                    return await self._connect(host, attributes)
                except _NEXT_HOST as error:
                    failure = error
        raise failure or OSError("No host is given.")

    async def _connect(self, host: Host, attributes: str | None) -> Connection:
        try:
            connection = await self._open(host, attributes)
        except BaseException:
            # Also where it is the caller who waits no longer. Others may have put this host last meanwhile.
            if host == self._hosts[0]:
                self._hosts.append(self._hosts.pop(0))
            raise
        self._hosts.remove(host)
        self._hosts.insert(0, host)
        return connection

    async def _open(self, host: Host, attributes: str | None) -> Connection:
        try:
            return await self._log_in(host, attributes)
        except asyncpg.ProtocolViolationError as error:
            if "startup parameter" not in str(error):
                raise
            # A pooler that passes no settings on. The start says what to do about it: commands.check_server().
            self.settings = {"application_name": self.settings["application_name"]}
            return await self._log_in(host, attributes)

    async def _log_in(self, host: Host, attributes: str | None) -> Connection:
        name, port = host
        connection: Connection = await asyncpg.connect(
            self._dsn,
            host=name,
            port=port,
            target_session_attrs=attributes,
            connection_class=Connection,
            record_class=Row,
            timeout=CONNECT_SECONDS,
            server_settings=self.settings,
            **self._options,
        )
        return connection


def _hosts_of(parameters: dict[str, str]) -> list[Host]:
    """Return the hosts with their ports, and take both out of the parameters. One port is that of all hosts."""
    hosts = parameters.pop("host", "").split(",")
    ports = parameters.pop("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    try:
        return [(host or None, int(port) if port else None) for host, port in zip(hosts, ports, strict=True)]
    except ValueError:
        raise ValueError("the ports in its URL do not fit the hosts") from None
