"""Opens connections to PostgreSQL, with several hosts and through connection poolers."""

from typing import Any, TypeAlias
from urllib.parse import urlencode

import asyncpg
import psycopg2
from psycopg2.extensions import parse_dsn

CONNECT_SECONDS = 2
"""Connection timeout for each host."""
IDLE_SECONDS = 10
LOCK_SECONDS = 2

Host: TypeAlias = tuple[str | None, int | None]
# Parameters of libpq that asyncpg does not know. It would send them to the server as settings.
_ONLY_LIBPQS = {
    *("hostaddr", "connect_timeout", "channel_binding", "client_encoding", "fallback_application_name"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    *("gssencmode", "gssdelegation", "load_balance_hosts", "require_auth", "sslcompression", "sslsni", "requirepeer"),
}
# After these errors, try the next host. A wrong password is not among them: the next host would reject it too.
_NEXT_HOST = (
    OSError,  # includes the timeouts of asyncio
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.TooManyConnectionsError,
)


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that closes without waiting for the server, because a frozen server does not reply."""

    replayed = 0
    """On a standby: the last known replay position in the write-ahead log."""

    async def close(self, **_: Any) -> None:
        self.terminate()


class Row(asyncpg.Record):  # type: ignore[misc]  # asyncpg has no types
    """A result row with its columns as attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def connect_synchronously(url: str) -> Any:
    """Return a psycopg2 connection, for migrations. libpq handles several hosts in the URL."""
    return psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)


class Connector:
    """Opens connections. Tries the host that answered last first, then the others in order.

    `url` is parsed by libpq's rules (PostgreSQL manual, 34.1.1), including several hosts and `target_session_attrs`.
    `statement_seconds` is the timeout of each statement. With `prepared_statements=False`, no prepared statement
    outlives its transaction, as required by poolers that assign a connection to each transaction.
    """

    def __init__(self, url: str, statement_seconds: float, prepared_statements: bool = True) -> None:
        parameters = parse_dsn(url)
        self._hosts = _hosts_of(parameters)
        self._attributes = parameters.pop("target_session_attrs", None)
        database = parameters.pop("dbname", None)
        self._dsn = f"postgresql:///?{urlencode({k: v for k, v in parameters.items() if k not in _ONLY_LIBPQS})}"
        # Longer than the server's own timeout, so that the server's error message comes first.
        self._options: dict[str, Any] = {"database": database, "command_timeout": statement_seconds + 0.5}
        if not prepared_statements:
            self._options["statement_cache_size"] = 0
        self.settings = {
            "application_name": "contacts_api",
            "statement_timeout": str(round(statement_seconds * 1000)),
            "lock_timeout": str(LOCK_SECONDS * 1000),
            "idle_in_transaction_session_timeout": str(round(max(statement_seconds, IDLE_SECONDS) * 1000)),
            # JIT compilation can take seconds, and some servers use it even for small statements.
            "jit": "off",
        }
        """Settings sent with each connection. Reduced to `application_name` after a pooler has refused them."""

    async def __call__(self, **_: Any) -> Connection:
        """Return a new connection. If every host fails, raises the error of the last one."""
        # `prefer-standby` falls back to any host.
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
            # Move the failed host to the end, also after a cancellation. A concurrent call may have moved it already.
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
            # The pooler does not accept settings. commands.check_server() tells the operator what to do.
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
    """Remove the hosts and ports from the parameters, and return them as pairs. A single port applies to all hosts.

    Raises ValueError if the number of ports does not match the number of hosts.
    """
    hosts = parameters.pop("host", "").split(",")
    ports = parameters.pop("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    try:
        return [(host or None, int(port) if port else None) for host, port in zip(hosts, ports, strict=True)]
    except ValueError:
        raise ValueError("the ports in its URL do not fit the hosts") from None
